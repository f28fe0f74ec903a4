"""AutoencoderKL of diffusers in random layouts: the encoder in even cases, the decoder in odd ones."""
import copy

import torch
from diffusers import AutoencoderKL

from common import Case, draw_held, normal, pick, randomize
from kinks import part_relus

COUNT = 12


def draw_config(rng):
    n = pick(rng, [1, 2, 2, 3, 3, 4])
    return dict(
        in_channels=pick(rng, [3, 3, 1, 2]), out_channels=pick(rng, [3, 3, 1, 5]),
        block_out_channels=[8 * int(rng.integers(1, 7)) for _ in range(n)],
        down_block_types=["DownEncoderBlock2D"] * n, up_block_types=["UpDecoderBlock2D"] * n,
        layers_per_block=pick(rng, [1, 2, 3]), latent_channels=int(rng.integers(1, 17)),
        norm_num_groups=pick(rng, [2, 4, 8]), act_fn=pick(rng, ["silu", "silu", "swish", "relu", "gelu"]),
        use_quant_conv=bool(rng.random() < 0.6), use_post_quant_conv=bool(rng.random() < 0.6),
        mid_block_add_attention=bool(rng.random() < 0.7), scaling_factor=pick(rng, [0.18215, 1.5]),
        shift_factor=pick(rng, [None, 0.1]), sample_size=pick(rng, [32, 512]), force_upcast=bool(rng.random() < 0.5))


def part_clamp(case, last, latents):
    """Scales the log-variances until none is where only rounding says whether it is clamped (-30, 20)."""
    while True:
        with torch.no_grad():
            moments = copy.deepcopy(case.module).double().encode(case.inputs["sample"].double()).latent_dist.parameters
        logvar = moments[:, latents:]
        if min((logvar - 20).abs().min(), (logvar + 30).abs().min()) > 1e-3:
            return
        last.weight.data[latents:] *= 1.01


def draw(rng, index):
    return draw_held(draw_once, rng, index)


def draw_once(rng, index):
    config = draw_config(rng)
    module = randomize(AutoencoderKL(**config), rng)
    step = 2 ** (len(config["block_out_channels"]) - 1)
    n = pick(rng, [1, 2, 3])

    def save(folder):
        module.save_pretrained(folder)
        return folder

    def encode(m, sample):
        # log-variances up to some 40: the clamp at 20 takes part
        d = m.encode(sample).latent_dist
        return {"mean": d.mean, "logvar": d.logvar}

    def decode(m, latent):
        return {"sample": m.decode(latent).sample}

    name = " ".join(f"{k}={v}" for k, v in config.items()).replace("DownEncoderBlock2D", "D").replace("UpDecoderBlock2D", "U")
    if index % 2:
        shape = (n, config["latent_channels"], int(rng.integers(1, 13)), int(rng.integers(1, 13)))
        case = Case(f"{list(shape)} {name}", "vae-decode", module, save, {"latent": normal(rng, shape)}, decode,
                    grad_seed=index)
        part_relus(case)
        return case
    # any size that leaves a pixel: halvings round down
    shape = (n, config["in_channels"], *(step * int(rng.integers(1, 9)) + int(rng.integers(0, step)) for _ in range(2)))
    last = module.quant_conv if config["use_quant_conv"] else module.encoder.conv_out
    if rng.random() < 0.5:
        last.weight.data[config["latent_channels"]:] *= 20
    case = Case(f"{list(shape)} {name}", "vae-encode", module, save, {"sample": normal(rng, shape)}, encode,
                grad_seed=index)
    part_relus(case)
    part_clamp(case, last, config["latent_channels"])
    return case
