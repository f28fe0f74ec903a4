"""Goldens of whole models: outputs and gradients of diffusers, transformers and torchvision in float64.

Run:  python make_models.py [--taef2 DIR] [CASE...]      (packages: ../requirements.txt)
--taef2 is a folder with taef2_encoder.safetensors, taef2_decoder.safetensors and the reference file
of the published weights; without it the taef2 cases keep their files.

Weights, inputs and output gradients are no data but a formula of name and index (fill() here and in
test_models.c), so a golden is small. A gradient is recorded as its norm and 16 projections on
random signs: the root mean square of 16 differences estimates the norm of the difference.

Each CASE.safetensors holds the outputs, integer inputs, "gradients" [n, 17] (norm, projections)
and, in its metadata under "spec", the rest as JSON:
  model, train, folder (config.json follows in config), gain, parameters [[name, shape]...],
  inputs {name: [shape, kind]}, outputs [names], gradients [names in the order of the rows]
"""
import argparse
import copy
import json
import math
import os
from unittest import mock

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
N_PROJECTIONS = 16
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def name_hash(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return np.uint64(h)


def mixed(name, n):
    """splitmix64 of hash(name) + (i + 1) * golden ratio"""
    with np.errstate(over="ignore"):
        z = name_hash(name) + (np.arange(n, dtype=np.uint64) + np.uint64(1)) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def signed(name, shape):
    """uniform in [-1, 1), exact in float32"""
    n = math.prod(shape)
    return ((mixed(name, n) >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1).reshape(shape)


def fill(name, shape, gain):
    """Biases of batch norms are such that most units stay above zero: a deep network of random
    weights, batch norm and ReLU amplifies rounding 1.2-fold a layer, and PyTorch's own float32
    then misses float64 by more than the test allows. One ReLU of the stem stays active, or the
    biases before it would have gradients of rounding errors only."""
    u = signed(name, shape)
    if name.endswith("running_var"):
        v = 1 + 0.5 * u
    elif name.endswith("running_mean"):
        v = 0.3 * u
    elif name.endswith("bn.bias"):
        v = (0 if name.startswith("Conv2d_2b") else 1 if name.startswith("Conv2d_") else 2.5) + 0.3 * u
    elif len(shape) >= 2:
        v = np.float32(math.sqrt(3 * gain / math.prod(shape[1:]))).astype(np.float64) * u
    elif name.endswith("weight"):
        v = 1 + 0.3 * u
    else:
        v = 0.3 * u
    return v.astype(np.float32).astype(np.float64)


def fill_input(name, shape, kind):
    u = signed("input." + name, shape)
    return u * 2 if kind == "signed" else (u + 1) / 2


def summary(name, gradient):
    g = gradient.detach().numpy().reshape(-1)
    bits = mixed("projection." + name, g.size)
    row = [np.sqrt(np.sum(g * g))]
    for k in range(N_PROJECTIONS):
        sign = 1 - 2 * ((bits >> np.uint64(k)) & np.uint64(1)).astype(np.float64)
        row.append(np.sum(g * sign))
    return row


def load_formula(module, gain):
    """Gives a module its formula weights; returns [[name, shape]...]."""
    state, listed = module.state_dict(), []
    for name, t in state.items():
        if name.endswith("position_ids"):
            continue
        shape = list(t.shape)
        listed.append([name, shape])
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        else:
            state[name] = torch.from_numpy(fill(name, shape, gain))
    module.double()
    module.load_state_dict(state)
    return listed


def record(case, model, module, run, parameters, inputs, config, gain=1.0, train=False, integers={}, extra={}):
    """run(**inputs) -> {output: tensor}; writes CASE.safetensors"""
    module.train(train)
    x = {k: torch.from_numpy(fill_input(k, *v)).requires_grad_() for k, v in inputs.items()}
    out = run(**x, **{k: torch.from_numpy(v) for k, v in integers.items()})
    loss = sum((y * torch.from_numpy(signed("input.grad." + k, list(y.shape)))).sum() for k, y in out.items())
    loss.backward()
    gradients = {k: t.grad for k, t in x.items()}
    gradients.update({k: p.grad for k, p in module.named_parameters() if p.grad is not None})
    spec = dict(model=model, train=train, gain=gain, config=config, parameters=parameters, inputs=inputs,
                outputs=list(out), gradients=list(gradients))
    tensors = {k: y.detach().numpy().astype(np.float32) for k, y in out.items()}
    tensors.update(integers)
    tensors.update(extra(module) if callable(extra) else extra)
    tensors["gradients"] = np.array([summary(k, v) for k, v in gradients.items()])
    tensors = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    path = os.path.join(HERE, case + ".safetensors")
    save_file(tensors, path, {"spec": json.dumps(spec, separators=(",", ":"))})
    print(f"{case:20} {len(parameters):4} tensors, {os.path.getsize(path) / 1024:.0f} KiB, outputs",
          {k: f"{float(y.detach().std()):.3g}" for k, y in out.items()})


def unet(case, sample, tokens, timesteps, **config):
    from diffusers import UNet2DConditionModel
    m = UNet2DConditionModel(**config)
    inputs = {"sample": [sample, "signed"],
              "encoder_hidden_states": [[sample[0], tokens, np.ravel(config["cross_attention_dim"])[0].item()], "signed"]}
    record(case, "unet", m, lambda sample, encoder_hidden_states, timestep: {
        "sample": m(sample, timestep, encoder_hidden_states).sample}, load_formula(m, 1.0), inputs,
           dict(config, _class_name="UNet2DConditionModel", sample_size=64),
           integers={"timestep": np.array(timesteps, np.int64)})


def text(case, ids, **config):
    from transformers import CLIPTextConfig, CLIPTextModel
    m = CLIPTextModel(CLIPTextConfig(**config))
    rng = np.random.default_rng(5)
    record(case, "text", m, lambda input_ids: {"last_hidden_state": m(input_ids=input_ids).last_hidden_state},
           load_formula(m, 1.0), {}, dict(config, architectures=["CLIPTextModel"], model_type="clip_text_model"),
           integers={"input_ids": rng.integers(0, config["vocab_size"], ids)})


def kl(case, image, latent, **config):
    """Both halves of one model."""
    from diffusers import AutoencoderKL
    m = AutoencoderKL(**config)
    parameters = load_formula(m, 1.0)
    config = dict(config, _class_name="AutoencoderKL", sample_size=64, force_upcast=True)

    def encode(sample):
        d = m.encode(sample).latent_dist
        return {"mean": d.mean, "logvar": d.logvar}

    record(case + "_encode", "vae-encode", m, encode, parameters, {"sample": [image, "signed"]}, config)
    m.zero_grad(set_to_none=True)
    record(case + "_decode", "vae-decode", m, lambda latent: {"sample": m.decode(latent).sample}, parameters,
           {"latent": [latent, "signed"]}, config)


def taesd():
    from diffusers import AutoencoderTiny
    config = dict(latent_channels=4, encoder_block_out_channels=[16] * 4, decoder_block_out_channels=[16] * 4)
    m = AutoencoderTiny(**config)
    parameters = load_formula(m, 1.0)
    config = dict(config, _class_name="AutoencoderTiny")
    # diffusers' wrapper takes and gives [-1, 1], the original network [0, 1]
    record("taesd_encode", "taesd-encode", m, lambda sample: {"latent": m.encode(2 * sample - 1).latents},
           parameters, {"sample": [[2, 3, 24, 40], "unit"]}, config)
    m.zero_grad()
    record("taesd_decode", "taesd-decode", m, lambda latent: {"sample": (m.decode(latent).sample + 1) / 2},
           parameters, {"latent": [[2, 4, 5, 3], "signed"]}, config)


class Taef2Block(torch.nn.Module):
    def __init__(self, pool):
        super().__init__()
        nn = torch.nn
        conv = lambda: nn.Conv2d(64, 64, 3, padding=1)
        self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())
        self.pool = nn.Sequential(nn.Conv2d(64, 256, 1, bias=False), nn.GroupNorm(4, 256), nn.ReLU(),
                                  nn.Conv2d(256, 64, 1, bias=False)) if pool else None

    def forward(self, x):
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Clamp(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


def taef2_halves():
    nn = torch.nn
    down = lambda: nn.Conv2d(64, 64, 3, padding=1, stride=2, bias=False)
    up = lambda: [nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1, bias=False)]
    blocks = lambda pool=False: [Taef2Block(pool) for _ in range(3)]
    encoder = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), Taef2Block(False), down(), *blocks(), down(), *blocks(),
                            down(), *blocks(True), nn.Conv2d(64, 32, 3, padding=1))
    decoder = nn.Sequential(Clamp(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), *blocks(True), *up(), *blocks(),
                            *up(), *blocks(), *up(), Taef2Block(False), nn.Conv2d(64, 3, 3, padding=1))
    return encoder, decoder


def before_relus(module, x):
    seen, relu = [], torch.relu

    def watched(x, inplace=False):
        seen.append(x)
        return relu(x)

    with torch.no_grad(), mock.patch("torch.relu", watched), mock.patch("torch.nn.functional.relu", watched):
        module(x)
    return seen


def clear_crops(half, images, side, step, margin=6):
    """Of each image the first square crop, row by row in steps, in which no unit before a ReLU is
    within `margin` of float32's noise (root mean square over the layer, PyTorch's float32 against
    float64) of zero. On which side rounding puts such a unit decides whether it passes its
    gradient, and one of a million is more than the test allows: of 20 crops at random PyTorch's
    own float32 misses the limit on 12 (decoder) and 8 (encoder), each time by such units alone."""
    single = copy.deepcopy(half).float()

    def clear(x):
        return all(bool((z.abs() > margin * (z - y).square().mean().sqrt()).all())
                   for z, y in zip(before_relus(half, x.double()), before_relus(single, x)))

    def first(image):
        for i in range(0, image.shape[2] - side + 1, step):
            for j in range(0, image.shape[3] - side + 1, step):
                if clear(crop := image[:, :, i:i + side, j:j + side].contiguous()):
                    print(f"crop at row {i}, column {j}")
                    return crop
        raise SystemExit("no crop is clear")

    return torch.cat([first(image[None]) for image in images])


def taef2(folder):
    """The published weights; the port is held against the published reference first."""
    encoder, decoder = taef2_halves()
    for half, name in ((encoder, "taef2_encoder"), (decoder, "taef2_decoder")):
        weights = load_file(os.path.join(folder, name + ".safetensors"))
        half.load_state_dict({k: torch.from_numpy(v.astype(np.float32)) for k, v in weights.items()})
        half.double()
    reference = load_file(os.path.join(folder, "reference_torch1.13_cpu_fp32.safetensors"))
    film = torch.from_numpy(reference["input_u8_nhwc"]).double().permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        latent = encoder(film)
        image = decoder(latent)
    for ours, theirs in ((latent, "latent"), (image, "recon_unclamped")):
        error = float((ours - torch.from_numpy(reference[theirs])).norm() / ours.norm())
        assert error < 2e-6, (theirs, error)
    # Crops keep the goldens small (of 8x8 latents none is clear); pixels and latents are data here.
    for model, half, name, data, out in (
            ("taesd-encode", encoder, "sample", clear_crops(encoder, film.float(), 64, 8), "latent"),
            ("taesd-decode", decoder, "latent", clear_crops(decoder, torch.from_numpy(reference["latent"]), 6, 1),
             "sample")):
        data = data.numpy()
        x = torch.from_numpy(np.ascontiguousarray(data)).double().requires_grad_()
        y = half(x)
        (y * torch.from_numpy(signed("input.grad." + out, list(y.shape)))).sum().backward()
        prefix, shift = ("encoder", 0) if half is encoder else ("decoder", 1)
        published = lambda k: f"{prefix}.layers.{int(k.split('.')[0]) - shift}.{k.split('.', 1)[1]}"
        gradients = {name: x.grad} | {published(k): p.grad for k, p in half.named_parameters()}
        spec = dict(model=model, train=False, weights="samples/base/vae", inputs={}, outputs=[out],
                    gradients=list(gradients))
        case = "taef2_" + model.split("-")[1]
        save_file({out: y.detach().numpy().astype(np.float32), "input." + name: np.ascontiguousarray(data),
                   "gradients": np.array([summary(k, v) for k, v in gradients.items()])},
                  os.path.join(HERE, case + ".safetensors"), {"spec": json.dumps(spec, separators=(",", ":"))})
        print(case)


def scaled_inception(width, **settings):
    """torchvision's network, every unit's channels scaled and rounded up to a multiple of 8."""
    from torchvision.models import inception as tv

    class Unit(torch.nn.Module):
        def __init__(self, in_channels, out_channels, **kw):
            super().__init__()
            k = 8 * math.ceil(out_channels * width / 8 - 1e-9)
            self.conv = torch.nn.LazyConv2d(k, bias=False, **kw)
            self.bn = torch.nn.BatchNorm2d(k, eps=0.001)

        def forward(self, x):
            return torch.relu(self.bn(self.conv(x)))

    class Aux(tv.InceptionAux):
        def __init__(self, in_channels, num_classes):
            super().__init__(in_channels, num_classes)
            self.fc = torch.nn.LazyLinear(num_classes)

    with mock.patch.multiple(tv, BasicConv2d=Unit, InceptionAux=Aux):
        m = tv.Inception3(transform_input=False, init_weights=False, dropout=0.0, **settings)
    m.fc = torch.nn.LazyLinear(settings["num_classes"])
    m.train()
    with torch.no_grad():
        m(torch.zeros(2, 3, 299, 299))
    return m


def closest(module, x):
    """How near float32's noise (root mean square over the layer) comes to changing what passes a
    gradient: the least distance of a unit before a ReLU from zero, and of a pool's largest value from
    its next, in units of that noise. Below 1, PyTorch's own float32 misses the test's limit."""
    def seen(m, x):
        layers, relu, pool = [], torch.relu, torch.nn.functional.max_pool2d

        def watch_relu(x, inplace=False):
            layers.append((x, x.abs()))
            return relu(x)

        def watch_pool(x, *size, **more):
            top = torch.nn.functional.unfold(x.flatten(0, 1)[:, None], 3, stride=2).topk(2, 1).values
            layers.append((x, torch.where(top[:, 0] > 0, top[:, 0] - top[:, 1], torch.inf)))  # of zeros none passes
            return pool(x, *size, **more)

        with torch.no_grad(), mock.patch("torch.relu", watch_relu), \
                mock.patch("torch.nn.functional.max_pool2d", watch_pool):
            m(x)
        return layers

    pairs = zip(seen(copy.deepcopy(module), x), seen(copy.deepcopy(module).float(), x.float()))
    return min(float(gap.min() / (z - y).square().mean().sqrt()) for (z, gap), (y, _) in pairs)


def clear_image(module, n, c, h, w, margin=3):
    """The first shape from this on whose image, a formula of its size, is clear of such units."""
    for extra in range(200):
        shape = [n, c, h + extra % 8, w + extra // 8]
        distance = closest(module, torch.from_numpy(fill_input("image", shape, "signed")))
        print(shape, f"{distance:.2f}", flush=True)
        if distance > margin:
            return shape
    raise SystemExit("no image is clear")


def inception(case, image, width, train, classes, aux, transform=False):
    m = scaled_inception(width, num_classes=classes, aux_logits=aux)
    m.transform_input = transform
    parameters = load_formula(m, 2.0)
    image = clear_image(m.train(train), *image)

    def run(image):
        y = m(image)
        return {"logits": y.logits, "aux_logits": y.aux_logits} if aux and train else {"logits": y}

    # running averages after a step, where they move
    averages = lambda module: {k: v.numpy().astype(np.float32) for k, v in module.state_dict().items()
                               if k.startswith("Conv2d_1a_3x3.bn.running") or k.startswith("Mixed_7c.branch_pool.bn.running")}
    record(case, "inception", m, run, parameters, {"image": [image, "signed"]},
           dict(num_classes=classes, width=width, aux=aux, dropout=0.0, **({"transform_input": True} if transform else {})),
           gain=2.0, train=train,
           extra=averages if train else {})


CASES = {
    "unet_conv": lambda: unet(
        "unet_conv", [2, 4, 16, 16], 7, [3, 640], in_channels=4, out_channels=4, block_out_channels=[32, 64],
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
        attention_head_dim=4, cross_attention_dim=24, norm_num_groups=8),
    "unet_linear": lambda: unet(
        "unet_linear", [3, 6, 24, 16], 5, [0, 411, 999], in_channels=6, out_channels=5,
        block_out_channels=[32, 48, 64],
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"], layers_per_block=[1, 2, 1],
        attention_head_dim=[2, 3, 4], transformer_layers_per_block=[1, 2, 1], cross_attention_dim=20,
        use_linear_projection=True, norm_num_groups=16, norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False,
        freq_shift=1),
    "unet_switches": lambda: unet(
        "unet_switches", [2, 3, 12, 20], 9, [17, 998], in_channels=3, out_channels=2, block_out_channels=[16, 24],
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        layers_per_block=1, attention_head_dim=[2, 3], cross_attention_dim=[10, 10], norm_num_groups=4, act_fn="mish",
        time_embedding_dim=40, time_embedding_act_fn="gelu", timestep_post_act="relu", conv_in_kernel=5,
        conv_out_kernel=1, center_input_sample=True, mid_block_type="UNetMidBlock2D", mid_block_scale_factor=1.5,
        transformer_layers_per_block=[1, 2], reverse_transformer_layers_per_block=[1, 1]),
    "unet_odd": lambda: unet(
        "unet_odd", [2, 4, 13, 11], 6, [5, 712], in_channels=4, out_channels=4, block_out_channels=[16, 24, 32],
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], layers_per_block=1,
        attention_head_dim=4, cross_attention_dim=12, norm_num_groups=4),
    "unet_odd_floor": lambda: unet(
        "unet_odd_floor", [2, 3, 15, 13], 4, [0, 999], in_channels=3, out_channels=3, block_out_channels=[16, 24, 32],
        down_block_types=["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"], layers_per_block=1, attention_head_dim=4,
        cross_attention_dim=12, norm_num_groups=4, downsample_padding=0),
    "text_quick_gelu": lambda: text(
        "text_quick_gelu", [2, 77], vocab_size=120, hidden_size=64, intermediate_size=160, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=77, hidden_act="quick_gelu"),
    "text_gelu": lambda: text(
        "text_gelu", [3, 13], vocab_size=50, hidden_size=48, intermediate_size=100, num_hidden_layers=2,
        num_attention_heads=3, max_position_embeddings=20, hidden_act="gelu", layer_norm_eps=1e-6),
    "kl_quant": lambda: kl(
        "kl_quant", [2, 3, 21, 27], [2, 4, 5, 7], block_out_channels=[16, 24, 32],
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3, layers_per_block=1,
        latent_channels=4, norm_num_groups=8),
    "kl_plain": lambda: kl(
        "kl_plain", [3, 1, 13, 10], [1, 6, 9, 4], in_channels=1, out_channels=1, block_out_channels=[12, 24],
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, layers_per_block=2,
        latent_channels=6, norm_num_groups=4, act_fn="gelu", use_quant_conv=False, use_post_quant_conv=False,
        mid_block_add_attention=False, scaling_factor=0.3),
    "taesd": taesd,
    "inception_eval": lambda: inception("inception_eval", [2, 3, 75, 75], 1.0, False, 5, False),
    "inception_train": lambda: inception("inception_train", [8, 3, 75, 75], 1.0, True, 5, False),
    "inception_narrow": lambda: inception("inception_narrow", [3, 3, 91, 107], 0.3, True, 3, False),
    "inception_transform": lambda: inception("inception_transform", [2, 3, 75, 83], 0.2, False, 4, False, True),
    "inception_aux": lambda: inception("inception_aux", [2, 3, 299, 299], 0.25, True, 4, True),
}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--taef2")
    p.add_argument("case", nargs="*", default=list(CASES))
    args = p.parse_args()
    torch.manual_seed(1)
    for name in args.case:
        CASES[name]()
    if args.taef2:
        taef2(args.taef2)


if __name__ == "__main__":
    main()
