"""nets.py - the models in plain PyTorch, parameters named and shaped as published.

    nets.py            checks names and shapes of all parameters against keys/*.tsv

UNet2DConditionModel of Stable Diffusion's family (either projection), AutoencoderKL, Inception-V3 of
torchvision. So a machine with torch alone can compare with us; nothing here is tuned for us or against us.
"""
import json
import math
import os

import torch
import torch.nn.functional as F
from torch import nn

SD15 = {"in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, "layers_per_block": 2, "attention_head_dim": 8,
        "cross_attention_dim": 768, "norm_num_groups": 32, "norm_eps": 1e-5, "use_linear_projection": False}
SD21 = dict(SD15, attention_head_dim=[5, 10, 20, 20], cross_attention_dim=1024, use_linear_projection=True)
KL = {"in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": [128, 256, 512, 512],
      "layers_per_block": 2, "norm_num_groups": 32}


class Box(nn.Module):
    """A level of names without a computation of its own."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


# ---- UNet and VAE ------------------------------------------------------------------------------

class Resnet(nn.Module):
    def __init__(self, c, k, groups, eps, time=None):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, c, eps), nn.Conv2d(c, k, 3, padding=1)
        if time:
            self.time_emb_proj = nn.Linear(time, k)
        self.norm2, self.conv2 = nn.GroupNorm(groups, k, eps), nn.Conv2d(k, k, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(c, k, 1) if c != k else None

    def forward(self, x, temb=None):
        h = self.conv1(F.silu(self.norm1(x)))
        if temb is not None:
            h = h + self.time_emb_proj(F.silu(temb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    def __init__(self, width, context, heads, bias=False, groups=None):
        super().__init__()
        self.heads = heads
        if groups:
            self.group_norm = nn.GroupNorm(groups, width, 1e-6)
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k, self.to_v = (nn.Linear(context, width, bias=bias) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x, context=None):
        context = x if context is None else context
        q, k, v = (f(t).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for f, t in ((self.to_q, x), (self.to_k, context), (self.to_v, context)))
        return self.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def image(self, x):
        n, c, h, w = x.shape
        tokens = self.group_norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c)
        return x + self(tokens).reshape(n, h, w, c).permute(0, 3, 1, 2)


class Gated(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class Block(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1, self.attn2 = Attention(width, width, heads), Attention(width, context, heads)
        self.ff = Box(net=nn.ModuleList([Gated(width), nn.Identity(), nn.Linear(4 * width, width)]))

    def forward(self, x, context):
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff.net[2](self.ff.net[0](self.norm3(x)))


class Transformer(nn.Module):
    def __init__(self, width, context, heads, groups, linear):
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.proj_in, self.proj_out = (nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)
                                       for _ in range(2))
        self.transformer_blocks = nn.ModuleList([Block(width, context, heads)])

    def forward(self, x, context):
        n, c, h, w = x.shape
        t = self.norm(x)
        t = t if self.linear else self.proj_in(t)
        t = t.permute(0, 2, 3, 1).reshape(n, h * w, c)
        t = self.proj_in(t) if self.linear else t
        t = self.transformer_blocks[0](t, context)
        t = self.proj_out(t) if self.linear else t
        t = t.reshape(n, h, w, c).permute(0, 3, 1, 2)
        return x + (t if self.linear else self.proj_out(t))


class Resize(nn.Module):
    """kind: up (nearest, then convolution), down, or down_right (padded right and below)."""

    def __init__(self, width, kind):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(width, width, 3, 1 if kind == "up" else 2, 0 if kind == "down_right" else 1)

    def forward(self, x):
        if self.kind == "up":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.kind == "down_right":
            x = F.pad(x, (0, 1, 0, 1))
        return self.conv(x)


class UNet(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = {**SD15, **config}
        width, layers, groups, eps = (c[k] for k in (
            "block_out_channels", "layers_per_block", "norm_num_groups", "norm_eps"))
        heads = c["attention_head_dim"]
        heads = heads if isinstance(heads, list) else [heads] * len(width)
        time, last = 4 * width[0], len(width) - 1

        def resnet(a, b):
            return Resnet(a, b, groups, eps, time)

        def transformer(i):
            return Transformer(width[i], c["cross_attention_dim"], heads[i], groups, c["use_linear_projection"])

        self.conv_in = nn.Conv2d(c["in_channels"], width[0], 3, padding=1)
        self.time_embedding = Box(linear_1=nn.Linear(width[0], time), linear_2=nn.Linear(time, time))
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        at, skips = width[0], [width[0]]
        for i, kind in enumerate(c["down_block_types"]):
            block = Box(resnets=nn.ModuleList([resnet(at if j == 0 else width[i], width[i]) for j in range(layers)]))
            if kind.startswith("CrossAttn"):
                block.attentions = nn.ModuleList([transformer(i) for _ in range(layers)])
            skips += [width[i]] * layers
            if i < last:
                block.downsamplers = nn.ModuleList([Resize(width[i], "down")])
                skips.append(width[i])
            self.down_blocks.append(block)
            at = width[i]
        self.mid_block = Box(resnets=nn.ModuleList([resnet(at, at), resnet(at, at)]),
                             attentions=nn.ModuleList([transformer(last)]))
        for i, kind in enumerate(c["up_block_types"]):
            k, resnets = width[last - i], []
            for _ in range(layers + 1):
                resnets.append(resnet(at + skips.pop(), k))
                at = k
            block = Box(resnets=nn.ModuleList(resnets))
            if kind.startswith("CrossAttn"):
                block.attentions = nn.ModuleList([transformer(last - i) for _ in range(layers + 1)])
            if i < last:
                block.upsamplers = nn.ModuleList([Resize(k, "up")])
            self.up_blocks.append(block)
        self.conv_norm_out = nn.GroupNorm(groups, width[0], eps)
        self.conv_out = nn.Conv2d(width[0], c["out_channels"], 3, padding=1)

    def forward(self, sample, timestep, context):
        half = self.conv_in.out_channels // 2
        angle = torch.arange(half, device=sample.device, dtype=torch.float32) * (-math.log(10000) / half)
        angle = timestep.float()[:, None] * angle.exp()[None]
        temb = torch.cat([angle.cos(), angle.sin()], 1).to(sample.dtype)
        temb = self.time_embedding.linear_2(F.silu(self.time_embedding.linear_1(temb)))
        x = self.conv_in(sample)
        skips = [x]
        for block in self.down_blocks:
            for i, resnet in enumerate(block.resnets):
                x = resnet(x, temb)
                x = block.attentions[i](x, context) if hasattr(block, "attentions") else x
                skips.append(x)
            if hasattr(block, "downsamplers"):
                x = block.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block.resnets[0](x, temb)
        x = self.mid_block.resnets[1](self.mid_block.attentions[0](x, context), temb)
        for block in self.up_blocks:
            for i, resnet in enumerate(block.resnets):
                x = resnet(torch.cat([x, skips.pop()], 1), temb)
                x = block.attentions[i](x, context) if hasattr(block, "attentions") else x
            x = block.upsamplers[0](x) if hasattr(block, "upsamplers") else x
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Coder(nn.Module):
    """Encoder or decoder of the VAE."""

    def __init__(self, config, decoder):
        super().__init__()
        width, groups = config["block_out_channels"], config["norm_num_groups"]
        layers, last, latent = config["layers_per_block"] + decoder, len(width) - 1, config["latent_channels"]
        order = width[::-1] if decoder else width
        self.decoder, at, blocks = decoder, order[0], []
        self.conv_in = nn.Conv2d(latent if decoder else config["in_channels"], at, 3, padding=1)
        for i, k in enumerate(order):
            block = Box(resnets=nn.ModuleList([Resnet(at if j == 0 else k, k, groups, 1e-6) for j in range(layers)]))
            if i < last:
                resize = nn.ModuleList([Resize(k, "up" if decoder else "down_right")])
                setattr(block, "upsamplers" if decoder else "downsamplers", resize)
            blocks.append(block)
            at = k
        setattr(self, "up_blocks" if decoder else "down_blocks", nn.ModuleList(blocks))
        mid = width[-1]
        self.mid_block = Box(resnets=nn.ModuleList([Resnet(mid, mid, groups, 1e-6) for _ in range(2)]),
                             attentions=nn.ModuleList([Attention(mid, mid, 1, True, groups)]))
        self.conv_norm_out = nn.GroupNorm(groups, at, 1e-6)
        self.conv_out = nn.Conv2d(at, config["out_channels"] if decoder else 2 * latent, 3, padding=1)

    def middle(self, x):
        x = self.mid_block.attentions[0].image(self.mid_block.resnets[0](x))
        return self.mid_block.resnets[1](x)

    def forward(self, x):
        x = self.conv_in(x)
        x = self.middle(x) if self.decoder else x
        for block in self.up_blocks if self.decoder else self.down_blocks:
            for resnet in block.resnets:
                x = resnet(x)
            for resize in getattr(block, "upsamplers" if self.decoder else "downsamplers", []):
                x = resize(x)
        x = x if self.decoder else self.middle(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Vae(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = {**KL, **config}
        latent = c["latent_channels"]
        self.encoder, self.decoder = Coder(c, False), Coder(c, True)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1), nn.Conv2d(latent, latent, 1)

    def encode(self, x):
        return self.quant_conv(self.encoder(x)).chunk(2, 1)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))


# ---- Inception-V3 ------------------------------------------------------------------------------

class Unit(nn.Module):
    def __init__(self, c, k, size, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(c, k, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(k, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """units: name: (channels in, out, size, stride, padding). branches: names in a row; a tuple of names
    at the end: side by side on the same input; "pool": average; "max": strided maximum."""

    def __init__(self, units, branches):
        super().__init__()
        self.branches = branches
        for name, how in units.items():
            setattr(self, name, Unit(*how))

    def forward(self, x):
        out = []
        for branch in self.branches:
            y = x
            for name in branch:
                if name == "pool":
                    y = F.avg_pool2d(y, 3, 1, 1)
                elif name == "max":
                    y = F.max_pool2d(y, 3, 2)
                elif isinstance(name, tuple):
                    y = torch.cat([getattr(self, part)(y) for part in name], 1)
                else:
                    y = getattr(self, name)(y)
            out.append(y)
        return torch.cat(out, 1)


def mixed_a(c, pool):
    return Mixed({"branch1x1": (c, 64, 1), "branch5x5_1": (c, 48, 1), "branch5x5_2": (48, 64, 5, 1, 2),
                  "branch3x3dbl_1": (c, 64, 1), "branch3x3dbl_2": (64, 96, 3, 1, 1),
                  "branch3x3dbl_3": (96, 96, 3, 1, 1), "branch_pool": (c, pool, 1)},
                 [["branch1x1"], ["branch5x5_1", "branch5x5_2"],
                  ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"], ["pool", "branch_pool"]])


def mixed_b(c):
    return Mixed({"branch3x3": (c, 384, 3, 2), "branch3x3dbl_1": (c, 64, 1), "branch3x3dbl_2": (64, 96, 3, 1, 1),
                  "branch3x3dbl_3": (96, 96, 3, 2)},
                 [["branch3x3"], ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"], ["max"]])


def mixed_c(c, m):
    wide, high = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    return Mixed({"branch1x1": (c, 192, 1), "branch7x7_1": (c, m, 1), "branch7x7_2": (m, m, *wide),
                  "branch7x7_3": (m, 192, *high), "branch7x7dbl_1": (c, m, 1), "branch7x7dbl_2": (m, m, *high),
                  "branch7x7dbl_3": (m, m, *wide), "branch7x7dbl_4": (m, m, *high), "branch7x7dbl_5": (m, 192, *wide),
                  "branch_pool": (c, 192, 1)},
                 [["branch1x1"], [f"branch7x7_{i}" for i in (1, 2, 3)], [f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)],
                  ["pool", "branch_pool"]])


def mixed_d(c):
    return Mixed({"branch3x3_1": (c, 192, 1), "branch3x3_2": (192, 320, 3, 2), "branch7x7x3_1": (c, 192, 1),
                  "branch7x7x3_2": (192, 192, (1, 7), 1, (0, 3)), "branch7x7x3_3": (192, 192, (7, 1), 1, (3, 0)),
                  "branch7x7x3_4": (192, 192, 3, 2)},
                 [["branch3x3_1", "branch3x3_2"], [f"branch7x7x3_{i}" for i in (1, 2, 3, 4)], ["max"]])


def mixed_e(c):
    wide, high = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
    return Mixed({"branch1x1": (c, 320, 1), "branch3x3_1": (c, 384, 1), "branch3x3_2a": (384, 384, *wide),
                  "branch3x3_2b": (384, 384, *high), "branch3x3dbl_1": (c, 448, 1),
                  "branch3x3dbl_2": (448, 384, 3, 1, 1), "branch3x3dbl_3a": (384, 384, *wide),
                  "branch3x3dbl_3b": (384, 384, *high), "branch_pool": (c, 192, 1)},
                 [["branch1x1"], ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")],
                  ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")],
                  ["pool", "branch_pool"]])


class Inception(nn.Module):
    ORDER = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "max", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "max",
             "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "aux",
             "Mixed_7a", "Mixed_7b", "Mixed_7c"]

    def __init__(self, classes, aux=True, dropout=0.5):
        super().__init__()
        self.dropout = dropout
        parts = {"Conv2d_1a_3x3": Unit(3, 32, 3, 2), "Conv2d_2a_3x3": Unit(32, 32, 3),
                 "Conv2d_2b_3x3": Unit(32, 64, 3, 1, 1), "Conv2d_3b_1x1": Unit(64, 80, 1),
                 "Conv2d_4a_3x3": Unit(80, 192, 3), "Mixed_5b": mixed_a(192, 32), "Mixed_5c": mixed_a(256, 64),
                 "Mixed_5d": mixed_a(288, 64), "Mixed_6a": mixed_b(288), "Mixed_6b": mixed_c(768, 128),
                 "Mixed_6c": mixed_c(768, 160), "Mixed_6d": mixed_c(768, 160), "Mixed_6e": mixed_c(768, 192),
                 "Mixed_7a": mixed_d(768), "Mixed_7b": mixed_e(1280), "Mixed_7c": mixed_e(2048)}
        for name, part in parts.items():
            setattr(self, name, part)
        self.AuxLogits = None
        if aux:
            self.AuxLogits = Box(conv0=Unit(768, 128, 1), conv1=Unit(128, 768, 5), fc=nn.Linear(768, classes))
        self.fc = nn.Linear(2048, classes)

    def forward(self, x):
        aux = None
        for name in self.ORDER:
            if name == "max":
                x = F.max_pool2d(x, 3, 2)
            elif name != "aux":
                x = getattr(self, name)(x)
            elif self.AuxLogits is not None and self.training:
                a = self.AuxLogits.conv1(self.AuxLogits.conv0(F.avg_pool2d(x, 5, 3)))
                aux = self.AuxLogits.fc(a.mean((2, 3)))
        return self.fc(F.dropout(x.mean((2, 3)), self.dropout, self.training)), aux


def check(name, module):
    """The module on "meta" against the published list; returns its number of parameters."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "keys", name + ".tsv")) as f:
        want = dict(line.rstrip("\n").split("\t")[:2] for line in f)
    have = {k: "x".join(map(str, v.shape)) or "scalar" for k, v in module.state_dict().items()}
    for key in sorted(want.keys() | have.keys()):
        if want.get(key) != have.get(key):
            raise SystemExit(f"{name}: {key}: found {have.get(key)}, published {want.get(key)}")
    return sum(p.numel() for p in module.parameters())


def main():
    with torch.device("meta"):
        models = {"unet_sd15": UNet(SD15), "unet_sd21": UNet(SD21), "vae_sd": Vae(KL), "inception_v3": Inception(1000)}
    print(json.dumps({name: check(name, module) for name, module in models.items()}))


if __name__ == "__main__":
    main()
