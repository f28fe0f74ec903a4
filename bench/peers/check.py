"""check.py - whole models of ours on a GPU against plain PyTorch, outputs and all gradients.

    check.py --program build/equipoise [--device cuda] [--tiny] [--precision fp32 bf16] [--out check.csv]

The oracle is nets.py in float64. In fp32 an output may be off by 1e-5 of its norm and a gradient by 1e-4
of its own plus 1e-7 of the largest gradient's, or by 1.25 times what PyTorch in fp32 is off by; in bf16
an output, or all gradients together, by twice what PyTorch with everything in bf16 is off by. Exits 1 on a miss.
Inception-V3 has kinks: a unit that is zero to rounding, or two values that share a window's maximum, pass the gradient
another way in every fp32 program, and which tensor that shows in is chance. So its gradients in fp32 may be off, each
relative to its norm, by what any of them is off by in float64 when inputs and weights change by 16 roundings.
--tiny: sizes for a machine without a GPU.
"""
import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile

import torch

import nets
import tensors

OUTPUT, GRADIENT, FLOOR, PEER, NAIVE = 1e-5, 1e-4, 1e-7, 1.25, 2.0
NUDGE, NUDGES = 16 * 2.0 ** -24, 3


def randomize(module, seed):
    """Matrices of variance gain / fan in, other values apart from 0 and 1: none that a mistake could hide behind."""
    g, state = torch.Generator().manual_seed(seed), module.state_dict()
    gain = 2.0 if isinstance(module, nets.Inception) else 1.0
    for name, t in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.rand(t.shape, generator=g) - 0.5
        if name.endswith("running_var"):
            t.copy_(1 + noise)
        elif t.dim() >= 2:
            t.copy_(torch.randn(t.shape, generator=g) * (gain / t[0].numel()) ** 0.5)
        elif name.endswith("bn.bias"):  # most units stay above zero: rounding would grow from layer to layer
            t.copy_((0 if name.startswith("Conv2d_2b") else 2) + 0.6 * noise)
        else:
            t.copy_(float(name.endswith("weight")) + 0.6 * noise)
    return module


class Case:
    def __init__(self, name, model, module, config, weights, inputs, call, outputs, integers=None, train=False):
        self.name, self.model, self.module, self.config, self.weights = name, model, module, config, weights
        self.inputs, self.call, self.outputs, self.integers, self.train = inputs, call, outputs, integers or {}, train

    def torch(self, dtype, device, nudge=None):
        """Outputs and gradients in float64 on the CPU; nudge: seed of a change of all that goes in."""
        state = {k: v.clone() for k, v in self.module.state_dict().items()}
        m = self.module.to(device=device, dtype=dtype).train(self.train)
        x = {k: v.to(device, dtype) for k, v in self.inputs.items()}
        if nudge is not None:
            torch.manual_seed(nudge)
            with torch.no_grad():
                for v in [*x.values(), *m.parameters()]:
                    v.mul_(1 + NUDGE * torch.randn_like(v))
        x = {k: v.requires_grad_() for k, v in x.items()}
        y = self.call(m, **x, **{k: v.to(device) for k, v in self.integers.items()})
        y = dict(zip(self.outputs, y))
        wanted = {**x, **dict(m.named_parameters())}
        dy = [self.dy(k, v).to(device, dtype) for k, v in y.items()]
        grads = torch.autograd.grad(list(y.values()), list(wanted.values()), dy, allow_unused=True)
        out = {k: v.detach().double().cpu() for k, v in y.items()}
        out.update({"grad." + k: v.double().cpu() for k, v in zip(wanted, grads) if v is not None})
        self.module.to("cpu", torch.float32).load_state_dict(state)
        return out

    def kinks(self, want, device):
        """How far the gradients of a nudged oracle are off, the worst relative to its norm; 0: it has no kinks."""
        if not isinstance(self.module, nets.Inception):
            return 0.0
        return max(off(v, want[k]) / want[k].norm().item() for seed in range(NUDGES)
                   for k, v in self.torch(torch.float64, device, seed).items() if k.startswith("grad."))

    def dy(self, name, like):
        g = torch.Generator().manual_seed(sum(name.encode()))
        return torch.randn(like.shape, generator=g)

    def ours(self, o, precision, folder, shapes):
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/config.json", "w") as f:
            json.dump(self.config, f)
        weights = f"{folder}/{self.weights}"
        if not os.path.exists(weights):
            tensors.save(weights, self.module.state_dict())
        given = {**self.inputs, **{k: v.int() for k, v in self.integers.items()},
                 **{"grad." + k: self.dy(k, shapes[k]) for k in self.outputs}}
        tensors.save(f"{folder}/in.safetensors", given)
        command = [o.program, "forward", self.model, "--weights", folder, "--in", f"{folder}/in.safetensors", "--out",
                   f"{folder}/out.safetensors", "--force", "--grad", "--device", o.device, "--precision", precision]
        run = subprocess.run(command + ["--train"] * self.train, capture_output=True, text=True)
        if run.returncode:
            return run.stderr.strip() or f"exit code {run.returncode}"
        return {k: v.double() for k, v in tensors.load(f"{folder}/out.safetensors").items()}


def unet_case(name, config, side, tokens):
    module = randomize(nets.UNet(config), 1)
    c = module.config
    torch.manual_seed(2)
    return Case(name, "unet", module, {"_class_name": "UNet2DConditionModel", **c}, "diffusion_pytorch_model.safetensors",
                {"sample": torch.randn(2, c["in_channels"], side, side),
                 "encoder_hidden_states": torch.randn(2, tokens, c["cross_attention_dim"])},
                lambda m, sample, encoder_hidden_states, timestep: [m(sample, timestep, encoder_hidden_states)],
                ["sample"], {"timestep": torch.tensor([7, 911])})


def vae_cases(config, side):
    module = randomize(nets.Vae(config), 3)
    levels = len(module.config["block_out_channels"])
    config = {"_class_name": "AutoencoderKL", "act_fn": "silu", "down_block_types": ["DownEncoderBlock2D"] * levels,
              "up_block_types": ["UpDecoderBlock2D"] * levels, **module.config}
    torch.manual_seed(4)
    latent = torch.randn(2, module.config["latent_channels"], side >> (levels - 1), side >> (levels - 1))
    for part, name, x, out in (("encoder", "sample", 2 * torch.rand(2, 3, side, side) - 1, ["mean", "logvar"]),
                               ("decoder", "latent", latent, ["sample"])):
        call = (lambda m, sample: m.encode(sample)) if part == "encoder" else (lambda m, latent: [m.decode(latent)])
        yield Case(f"vae {part}", "vae-" + part[:-1], module, config, "diffusion_pytorch_model.safetensors", {name: x}, call, out)


def inception_case(name, side, aux, train, n):
    module = randomize(nets.Inception(10, aux), 5)
    torch.manual_seed(6)
    config = {"num_classes": 10, "aux_logits": aux, "transform_input": False, "dropout": 0.0}
    module.dropout = 0.0
    outputs = ["logits", "aux_logits"] if aux and train else ["logits"]
    return Case(name, "inception", module, config, "model.safetensors", {"image": 2 * torch.rand(n, 3, side, side) - 1},
                lambda m, image: [y for y in m(image) if y is not None], outputs, train=train)


def cases(tiny):
    if tiny:
        small = {"block_out_channels": [32, 64], "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
                 "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "layers_per_block": 1, "norm_num_groups": 8,
                 "cross_attention_dim": 24, "attention_head_dim": 2}
        yield unet_case("unet 1.5", small, 8, 5)
        yield unet_case("unet 2.1", dict(small, attention_head_dim=[4, 8], use_linear_projection=True), 8, 5)
        yield from vae_cases({"block_out_channels": [16, 32], "layers_per_block": 1, "norm_num_groups": 8}, 16)
        yield inception_case("inception", 75, False, False, 2)
        return
    two = {"block_out_channels": [320, 640], "down_block_types": ["CrossAttnDownBlock2D"] * 2,
           "up_block_types": ["CrossAttnUpBlock2D"] * 2}
    yield unet_case("unet 1.5", two, 32, 77)
    yield unet_case("unet 2.1", {**two, "attention_head_dim": [5, 10], "cross_attention_dim": 1024,
                                 "use_linear_projection": True}, 32, 77)
    yield from vae_cases({}, 128)
    yield inception_case("inception", 299, True, False, 2)
    yield inception_case("inception, training", 299, True, True, 4)


def off(a, b):
    return (a - b).norm().item()


def compare(got, want, peer, precision, kinks=0.0):
    """[(what, error, limit)] relative to the norms; of the gradients in fp32 the one nearest to its limit."""
    rows, grads = [], [k for k in want if k.startswith("grad.")]
    for k in want:
        if k not in grads:
            size = want[k].norm().item()
            own = off(peer[k], want[k]) / size
            limit = max(OUTPUT, PEER * own) if precision == "fp32" else NAIVE * own
            rows.append((k, off(got[k], want[k]) / size, limit))
    if precision == "bf16":
        size = sum(want[k].norm().item() ** 2 for k in grads) ** 0.5
        error, own = (sum(off(x[k], want[k]) ** 2 for k in grads) ** 0.5 / size for x in (got, peer))
        return rows + [("all gradients", error, NAIVE * own)]
    top, worst = max(want[k].norm().item() for k in grads), None
    for k in grads:
        size = want[k].norm().item()
        limit = max(GRADIENT * size + FLOOR * top, PEER * off(peer[k], want[k]), kinks * size)
        row = (k, off(got[k], want[k]) / max(size, FLOOR * top), limit / max(size, FLOOR * top))
        worst = row if worst is None or not row[1] / row[2] <= worst[1] / worst[2] else worst
    return rows + [worst]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", default="build/equipoise")
    p.add_argument("--device", default="cuda")
    p.add_argument("--precision", nargs="*", default=["fp32", "bf16"])
    p.add_argument("--tiny", action="store_true")
    p.add_argument("--only", default="")
    p.add_argument("--out")
    o = p.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, bad = [], 0
    with tempfile.TemporaryDirectory() as root:
        for i, case in enumerate(c for c in cases(o.tiny) if c.name.startswith(o.only)):
            want = case.torch(torch.float64, device)
            kinks = case.kinks(want, device) if "fp32" in o.precision else 0.0
            for precision in o.precision:
                peer = case.torch(torch.float32 if precision == "fp32" else torch.bfloat16, device)
                got = case.ours(o, precision, f"{root}/{i}", want)
                if isinstance(got, str):
                    bad += 1
                    rows.append((case.name, precision, "", "", "", "failed: " + got))
                    print(f"FAILED {case.name} {precision}: {got}", flush=True)
                    continue
                for what, error, limit in compare(got, want, peer, precision, kinks):
                    good = error <= limit
                    bad += not good
                    rows.append((case.name, precision, what, f"{error:.3g}", f"{limit:.3g}", "ok" if good else "missed"))
                    print(f"{'ok' if good else 'FAILED'} {case.name} {precision}: {what}: {error:.3g}, limit {limit:.3g}",
                          flush=True)
    if o.out:
        with open(o.out, "w", newline="") as f:
            csv.writer(f).writerows([("model", "precision", "tensor", "error", "limit", "result"), *rows])
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
