"""Inception-V3 of torchvision and timm at the sizes where its shapes change, evaluating and training.

Biases of batch norms keep most units above zero: a deep network of random weights, batch norm and
ReLU amplifies rounding 1.2-fold a layer until no float32 program agrees with another. One ReLU of
the stem stays active, or the biases before it would have gradients of rounding only. And a unit
that is zero to rounding passes the gradient in one program and stops it in another; one among
millions is more than the limit allows (PyTorch's own float32 then misses float64 by 60 times the
limit), so the biases are moved to where this image leaves a gap around zero. Training needs more images where the last feature maps are single pixels: the
variance of a few values is badly conditioned.
"""
import copy
import os

import torch
from safetensors.torch import save_file
from timm.models.inception_v3 import InceptionV3
from torchvision.models import Inception3

from common import Case, normal, pick, uniform, write_json

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


def part_from_zero(module, image, train, window=0.3):
    """Moves the biases of the batch norms so that no value of this image is nearly zero: zero goes to
    the middle of the widest gap within +-0.3 deviations."""
    twin = copy.deepcopy(module).double().train(train)

    def choose(norm, args):
        x = args[0].transpose(0, 1).flatten(1)
        mean, var = (x.mean(1), x.var(1, unbiased=False)) if train else (norm.running_mean, norm.running_var)
        gain = norm.weight / (var + norm.eps).sqrt()
        v = (x - mean[:, None]) * gain[:, None] + norm.bias[:, None]
        edge = window * (v - v.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt().clamp(min=0.1)
        v = torch.cat([-edge, v.clamp(-edge, edge), edge], 1).sort(1).values
        gap, at = (v[:, 1:] - v[:, :-1]).max(1)
        norm.bias.data = (norm.bias - v.gather(1, at[:, None])[:, 0] - gap / 2).float().double()

    with torch.no_grad():
        for norm in twin.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.register_forward_pre_hook(choose)
        twin(image.double())
    module.load_state_dict(module.state_dict() | {k: v for k, v in twin.state_dict().items() if k.endswith("bn.bias")})


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
    part_from_zero(module, image, train)
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
