"""Moves the biases of a drawn network until rounding decides no ReLU.

A unit that is zero to rounding passes the gradient in one program and stops it in another, and both
are right. One such unit among millions is more than the gradients' limit. So the biases before
ReLUs are moved, in float64, to where these inputs leave a gap around zero. That is part of the
draw: it is done before any float32 program, ours or PyTorch's, has run.
"""
import copy

import torch

from common import Miss

PRODUCERS = (torch.nn.GroupNorm, torch.nn.Linear)
# of these, zero stays zero and the sign stays the sign
SMOOTH = (torch.nn.SiLU, torch.nn.GELU)


def moves(v, window=0.3, least=1e-4):
    """v [channels, values] -> what to add to each channel: 0 where no value is within `least` deviations
    of zero, else what puts zero into the middle of the widest gap within +-0.3 deviations."""
    deviation = (v - v.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt().clamp(min=0.1)
    near = v.abs().min(1).values < least * deviation[:, 0]
    edge = window * deviation
    v = torch.cat([-edge, v.clamp(-edge, edge), edge], 1).sort(1).values
    gap, at = (v[:, 1:] - v[:, :-1]).max(1)
    return torch.where(near, -(v.gather(1, at[:, None])[:, 0] + gap / 2), 0.0)


def by_channel(x):
    return x.transpose(0, 1).flatten(1)


def part_relus(case, rounds=100):
    """Moves the biases of the case's module."""
    if not any(isinstance(m, torch.nn.ReLU) for m in case.module.modules()):
        return
    twin = copy.deepcopy(case.module).double().train(case.train)
    origin, moved = {}, []  # id of a tensor -> who made it, what it made, the tensor itself, kept alive

    def made(producer, args, y):
        origin[id(y)] = producer, y, y

    def passed(act, args, y):
        if id(args[0]) in origin:
            origin[id(y)] = *origin[id(args[0])][:2], y

    def part(relu, args):
        if id(args[0]) not in origin:
            raise Miss("a ReLU behind something that kinks.py does not know")
        producer, v, _ = origin[id(args[0])]
        by = moves(by_channel(v))
        if by.any():
            producer.bias.data = (producer.bias + by).float().double()
            v += by.reshape(1, -1, *[1] * (v.dim() - 2))
            moved.append(producer)

    for m in twin.modules():
        if isinstance(m, PRODUCERS):
            m.register_forward_hook(made)
        elif isinstance(m, SMOOTH):
            m.register_forward_hook(passed)
        elif isinstance(m, torch.nn.ReLU):
            m.register_forward_pre_hook(part)
    inputs = {k: v.double() for k, v in case.inputs.items()}
    for _ in range(rounds):
        origin.clear(), moved.clear()
        with torch.no_grad():
            case.run(twin, **inputs, **case.integers)
        if not moved:
            case.module.load_state_dict({k: v.float() for k, v in twin.state_dict().items()})
            return
    raise Miss(f"values before ReLUs are still near zero after {rounds} rounds")
