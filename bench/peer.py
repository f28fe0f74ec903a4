"""peer.py - the peer of `equipoise bench`: the same training step in PyTorch, in the same protocol.

    peer.py unet|inception --layout nchw|channels_last [--compile] [--threads 2] [--batch 32] ...

Prints a line of JSON when warmed up; then, for each line on stdin, runs a round and prints its
milliseconds a step; when stdin ends, the peak memory of the process. compare.py drives it.

unet: diffusers' UNet2DConditionModel from the model folder's config; v-prediction loss, clipping,
AdamW, averaged weights. inception: torchvision's Inception3, widths scaled as ours; cross-entropy,
SGD with Nesterov momentum. Of several ways torch has for a thing, the fastest here is taken.
"""
import argparse
import json
import math
import resource
import sys
import time

import torch
import torch.nn.functional as F

BATCHES, WARM_UP, TOKENS, TIMESTEPS, CLASSES = 4, 3, 77, 1000, 2
EMA_DECAY = 0.9999


def memory_mib(key):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(key + ":")) / 1024


class Unet:
    def __init__(self, o):
        from diffusers import UNet2DConditionModel

        with open(f"{o.model}/unet/config.json") as f:
            config = json.load(f)
        self.format = o.format
        self.net = UNet2DConditionModel.from_config(config).to(memory_format=o.format).train()
        if o.recompute:
            self.net.enable_gradient_checkpointing()
        self.run = torch.compile(self.net) if o.compile else self.net
        side, n, c = o.size // 8, BATCHES * o.batch, config["in_channels"]
        self.latent, self.noise = torch.randn(2, n, c, side, side).unbind()
        self.context = torch.randn(n, TOKENS, config["cross_attention_dim"])
        self.time = torch.randint(0, TIMESTEPS, (n,))
        angle = 0.5 * math.pi * (self.time + 0.5) / TIMESTEPS
        self.cos, self.sin = (v.view(n, 1, 1, 1) for v in (angle.cos(), angle.sin()))
        self.weight = torch.ones(n)
        self.parameters = list(self.net.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-2, fused=True)
        self.average = [p.detach().clone() for p in self.parameters]
        self.updates = 0

    def step(self, at):
        # handed over as a loader would: plain batches, laid out by the step
        latent, noise = (v[at].contiguous(memory_format=self.format) for v in (self.latent, self.noise))
        cos, sin = self.cos[at], self.sin[at]
        noisy, target = cos * latent + sin * noise, cos * noise - sin * latent
        prediction = self.run(noisy, self.time[at], self.context[at], return_dict=False)[0]
        loss = (self.weight[at] * (prediction - target).square().mean((1, 2, 3))).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        self.updates += 1
        decay = min(EMA_DECAY, self.updates / (9 + self.updates)) if self.updates > 1 else 0.0
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return loss.item()


def scaled_inception(width):
    """torchvision's Inception3; channels times width, rounded up to a multiple of 8."""
    from torchvision.models import inception as tv

    def scaled(channels):
        return 8 * math.ceil(channels * width / 8 - 1e-9)

    class Unit(torch.nn.Module):  # BasicConv2d; takes its input channels from its input
        def __init__(self, _, out_channels, **how):
            super().__init__()
            self.conv = torch.nn.LazyConv2d(scaled(out_channels), bias=False, **how)
            self.bn = torch.nn.BatchNorm2d(scaled(out_channels), eps=0.001)

        def forward(self, x):
            return F.relu(self.bn(self.conv(x)), inplace=True)

    def block(kind):
        return lambda *a, **k: kind(*a, conv_block=Unit, **k)

    blocks = [Unit] + [block(k) for k in (tv.InceptionA, tv.InceptionB, tv.InceptionC, tv.InceptionD,
                                          tv.InceptionE)] + [None]
    net = tv.Inception3(CLASSES, aux_logits=False, transform_input=False, inception_blocks=blocks,
                        init_weights=False, dropout=0.5)
    net.fc = torch.nn.LazyLinear(CLASSES)
    with torch.no_grad():
        net(torch.zeros(2, 3, 128, 128))
    return net


class Inception:
    def __init__(self, o):
        self.format = o.format
        self.net = scaled_inception(o.width).to(memory_format=o.format).train()
        self.run = torch.compile(self.net) if o.compile else self.net
        self.pixel = torch.rand(BATCHES * o.batch, 1, o.size, o.size)
        self.label = torch.randint(0, CLASSES, (BATCHES * o.batch,))
        self.weight = torch.tensor([0.5, 7.0])
        self.parameters = list(self.net.parameters())
        self.optimizer = torch.optim.SGD(
            self.parameters, lr=1e-3, momentum=0.9, weight_decay=1e-4, nesterov=True, fused=True)

    def step(self, at):
        image = (2 * self.pixel[at] - 1).expand(-1, 3, -1, -1).contiguous(memory_format=self.format)
        loss = F.cross_entropy(self.run(image), self.label[at], self.weight)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("network", choices=["unet", "inception"])
    p.add_argument("--layout", choices=["nchw", "channels_last"], default="nchw")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--recompute", action="store_true", help="unet: gradient checkpointing")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--width", type=float, default=0.25)
    p.add_argument("--steps-per-round", type=int, default=3)
    p.add_argument("--model", default="samples/base")
    o = p.parse_args()
    o.format = torch.channels_last if o.layout == "channels_last" else torch.contiguous_format
    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    case = (Unet if o.network == "unet" else Inception)(o)
    libraries = memory_mib("VmRSS")
    done = 0

    def steps(n):
        nonlocal done
        for _ in range(n):
            turn = done % BATCHES
            loss = case.step(slice(turn * o.batch, (turn + 1) * o.batch))
            done += 1
        return loss

    steps(WARM_UP)
    print(json.dumps({"model": o.network, "device": f"torch {torch.__version__}", "batch": o.batch, "size": o.size,
                      "parameters": sum(v.numel() for v in case.parameters),
                      "libraries_and_weights_mib": round(libraries, 1)}), flush=True)
    for number, _ in enumerate(sys.stdin, 1):
        wall, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        loss = steps(o.steps_per_round)
        wall, spent = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
        busy = spent.ru_utime + spent.ru_stime - cpu.ru_utime - cpu.ru_stime
        print(json.dumps({"round": number, "ms": round(1e3 * wall / o.steps_per_round, 3),
                          "cpu_ms": round(1e3 * busy / o.steps_per_round, 3), "loss": loss}), flush=True)
    print(json.dumps({"peak_mib": round(memory_mib("VmHWM"), 1)}), flush=True)


if __name__ == "__main__":
    main()
