"""UNet2DConditionModel of diffusers in random layouts."""
import torch
from diffusers import UNet2DConditionModel

from common import Case, draw_held, normal, pick, randomize
from kinks import part_relus

COUNT = 16


def draw_config(rng):
    n = pick(rng, [1, 2, 2, 3, 3, 4])
    groups = pick(rng, [2, 4, 8])
    heads = [pick(rng, [1, 2, 4]) for _ in range(n)]
    each = lambda values: pick(rng, values) if rng.random() < 0.5 else [pick(rng, values) for _ in range(n)]
    attends = [bool(rng.random() < 0.6) for _ in range(n)], [bool(rng.random() < 0.6) for _ in range(n)]
    cross = int(rng.integers(3, 40))
    config = dict(
        in_channels=int(rng.integers(1, 9)), out_channels=int(rng.integers(1, 9)),
        block_out_channels=[8 * int(rng.integers(1, 6)) for _ in range(n)],
        down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends[0]],
        up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[1]],
        layers_per_block=each([1, 2, 3]), transformer_layers_per_block=each([1, 1, 2]),
        attention_head_dim=heads if rng.random() < 0.5 else heads[0],
        cross_attention_dim=cross if rng.random() < 0.8 else [cross] * n,
        use_linear_projection=bool(rng.random() < 0.5), norm_num_groups=groups,
        norm_eps=pick(rng, [1e-5, 1e-6, 1e-3]), flip_sin_to_cos=bool(rng.random() < 0.5), freq_shift=pick(rng, [0, 1]),
        downsample_padding=pick(rng, [0, 1, 1]), sample_size=pick(rng, [None, 16]),
        upcast_attention=bool(rng.random() < 0.3))
    rare = dict(
        act_fn=["silu", "swish", "gelu", "relu"], time_embedding_act_fn=["silu", "gelu"],
        timestep_post_act=["silu", "gelu"], time_embedding_dim=[24, 50], conv_in_kernel=[1, 5],
        conv_out_kernel=[1, 5], center_input_sample=[True], mid_block_scale_factor=[1.5, 2 ** 0.5],
        mid_block_type=[None, "UNetMidBlock2D"],
        reverse_transformer_layers_per_block=[[pick(rng, [1, 2]) for _ in range(n)]])
    for key, values in rare.items():
        if rng.random() < 0.2:
            config[key] = pick(rng, values)
    return config


def coarsest(size, halvings, padding):
    for _ in range(halvings):
        size = (size + padding) // 2
    return size


def draw(rng, index):
    return draw_held(draw_once, rng, index)


def draw_once(rng, index):
    config = draw_config(rng)
    module = randomize(UNet2DConditionModel(**config), rng)
    n = pick(rng, [1, 2, 3])
    # latents of any size, a third of them such that all levels divide it
    halvings = len(config["block_out_channels"]) - 1
    unit = pick(rng, [1, 1, 2 ** halvings])
    sizes = [a for a in range(unit, 25, unit) if coarsest(a, halvings, config["downsample_padding"]) >= 1]
    h, w = pick(rng, sizes), pick(rng, sizes)
    cross = config["cross_attention_dim"]
    cross = cross if isinstance(cross, int) else cross[0]
    inputs = {"sample": normal(rng, (n, config["in_channels"], h, w)),
              "encoder_hidden_states": normal(rng, (n, int(rng.integers(1, 80)), cross))}
    integers = {"timestep": torch.from_numpy(rng.integers(0, 1000, n))}

    def save(folder):
        module.save_pretrained(folder)
        return folder

    def run(m, sample, encoder_hidden_states, timestep):
        return {"sample": m(sample, timestep, encoder_hidden_states).sample}

    name = f"[{n},{config['in_channels']},{h},{w}] " + " ".join(
        f"{k}={v}" for k, v in config.items() if k not in ("sample_size", "in_channels")).replace("Block2D", "").replace("'", "")
    case = Case(name, "unet", module, save, inputs, run, integers, grad_seed=index)
    part_relus(case)
    return case
