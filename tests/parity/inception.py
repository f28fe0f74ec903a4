"""Inception-V3 of torchvision and timm at the sizes where its shapes change, evaluating and training.

Biases of batch norms keep most units above zero: a deep network of random weights, batch norm and
ReLU amplifies rounding 1.2-fold a layer until no float32 program agrees with another. One ReLU of
the stem stays active, or the biases before it would have gradients of rounding only. And a unit
that is zero to rounding passes the gradient in one program and stops it in another; one among
millions is more than the limit allows (PyTorch's own float32 then misses float64 by 60 times the
limit), so the biases are moved to where this image leaves a gap around zero. The same holds for two
values that share the maximum of a pooling window: such channels get other weights. Training needs more
images where the last feature maps are single pixels: the variance of a few values is badly conditioned.
"""
import copy
import os
from unittest import mock

import torch
from safetensors.torch import save_file
from timm.models.inception_v3 import InceptionV3
from torchvision.models import Inception3

from common import Case, Miss, normal, uniform, write_json
from kinks import by_channel, moves

# px, auxiliary head, training, images; then the same at random
FIXED = [(75, False, False, 2), (139, False, False, 2), (75, False, True, 8), (139, False, True, 4),
         (299, True, True, 4), (331, True, True, 4), (299, True, False, 1), (331, True, False, 1),
         (299, False, True, 2)]
COUNT = len(FIXED)


def fill(module, rng):
    state = module.state_dict()
    for name, t in state.items():
        shape = tuple(t.shape)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(int(rng.integers(1, 1000)))
        elif name.endswith("running_var"):
            state[name] = uniform(rng, shape, 0.5, 1.5)
        elif name.endswith("running_mean"):
            state[name] = uniform(rng, shape, -0.3, 0.3)
        elif name.endswith("bn.bias"):
            centre = 0 if name.startswith("Conv2d_2b") else 1 if name.startswith("Conv2d_") else 2.5
            state[name] = centre + uniform(rng, shape, -0.3, 0.3)
        elif t.dim() >= 2:
            state[name] = normal(rng, shape, (2 / t[0].numel()) ** 0.5)
        elif name.endswith("weight"):
            state[name] = uniform(rng, shape, 0.7, 1.3)
        else:
            state[name] = uniform(rng, shape, -0.3, 0.3)
    module.load_state_dict(state)
    return module


def part_from_zero(norm, args):
    """Before a batch norm: its bias moved so that no value after it is nearly zero."""
    x = by_channel(args[0])
    mean, var = (x.mean(1), x.var(1, unbiased=False)) if norm.training else (norm.running_mean, norm.running_var)
    gain = norm.weight / (var + norm.eps).sqrt()
    v = (x - mean[:, None]) * gain[:, None] + norm.bias[:, None]
    norm.bias.data = (norm.bias + moves(v)).float().double()


# what each max pool reads: units and their channels, in the order of the concatenation
POOLED = [[("Conv2d_2b_3x3", 64)], [("Conv2d_4a_3x3", 192)],
          [("Mixed_5d.branch1x1", 64), ("Mixed_5d.branch5x5_2", 64), ("Mixed_5d.branch3x3dbl_3", 96),
           ("Mixed_5d.branch_pool", 64)],
          [("Mixed_6e." + unit, 192) for unit in ("branch1x1", "branch7x7_3", "branch7x7dbl_5", "branch_pool")]]


def near_ties(x, noise, size, stride):
    """Channels with a pooling window whose two largest values are equal within the channel's noise."""
    best = x.unfold(2, size, stride).unfold(3, size, stride).flatten(4).topk(2, -1).values
    tied = (best[..., 0] - best[..., 1] < noise[:, None, None]) & (best[..., 0] > 0)
    return tied.any(3).any(2).any(0).nonzero()[:, 0].tolist()


def pooled_inputs(module, image, see):
    """A forward pass that shows the input of each max pool: see(x, size, stride)."""
    pool = torch.nn.functional.max_pool2d

    def watched(x, kernel_size, stride=None, *args, **kwargs):
        see(x, kernel_size, stride)
        return pool(x, kernel_size, stride, *args, **kwargs)

    with torch.no_grad(), mock.patch("torch.nn.functional.max_pool2d", watched):
        module(image)


def settle(module, image, rng, train, rounds=100, margin=8):
    """Biases and weights such that rounding decides nothing: no unit nearly zero, no maximum nearly
    shared. Channels where one is get other weights, the earliest pool first."""
    for _ in range(rounds):
        twin = copy.deepcopy(module).double().train(train)
        hooks = [norm.register_forward_pre_hook(part_from_zero) for norm in twin.modules()
                 if isinstance(norm, torch.nn.BatchNorm2d)]
        exact, ties = [], []
        pooled_inputs(twin, image.double(), lambda x, size, stride: exact.append(x))
        for hook in hooks:
            hook.remove()
        state = module.state_dict()
        module.load_state_dict(state | {k: v for k, v in twin.state_dict().items() if k.endswith("bn.bias")})

        def compare(x, size, stride):
            y = exact[len(ties)]
            ties.append(near_ties(y, margin * (x - y).square().mean((0, 2, 3)).sqrt(), size, stride))

        pooled_inputs(copy.deepcopy(module).train(train), image, compare)
        pool = next((i for i, channels in enumerate(ties) if channels), None)
        if pool is None:
            return
        units = [(unit, k) for unit, width in POOLED[pool] for k in range(width)]
        for unit, k in (units[channel] for channel in ties[pool]):
            filter = state[unit + ".conv.weight"][k]
            filter += normal(rng, tuple(filter.shape), 0.1 * float(filter.std()))
    raise Miss("the draw keeps maxima that only rounding decides")


def draw(rng, index):
    px, aux, train, n = FIXED[index] if index < COUNT else FIXED[int(rng.integers(COUNT))]
    h, w = (px, px) if index < COUNT or rng.random() < 0.5 else (px, px + int(rng.integers(1, 20)))
    classes = int(rng.integers(1, 12))
    of_timm = bool(rng.random() < 0.3)
    transform = not of_timm and bool(rng.random() < 0.5)
    if of_timm:
        module = InceptionV3(num_classes=classes, aux_logits=aux)
    else:
        module = Inception3(num_classes=classes, aux_logits=aux, transform_input=transform, init_weights=False,
                            dropout=0.0)
    fill(module, rng)
    image = normal(rng, (n, 3, h, w))
    settle(module, image, rng, train)
    folder_form = transform or bool(rng.random() < 0.5)

    def save(folder):
        path = os.path.join(folder, "model.safetensors")
        save_file(module.state_dict(), path)
        if not folder_form:
            return path
        write_json(folder, "config.json", dict(num_classes=classes, aux_logits=aux, transform_input=transform))
        return folder

    def run(m, image):
        y = m(image)
        if aux and train:
            return {"logits": y[0], "aux_logits": y[1]}
        return {"logits": y[0] if isinstance(y, tuple) else y}

    moved = [k for k in module.state_dict() if train and k.endswith(("running_mean", "running_var"))]
    name = (f"[{n},3,{h},{w}] {'timm' if of_timm else 'torchvision'} classes={classes} aux_logits={aux} "
            f"transform_input={transform} {'train' if train else 'eval'} {'folder' if folder_form else 'file'}")
    return Case(name, "inception", module, save, {"image": image}, run, train=train,
                state=moved, grad_seed=index)
