"""What every model case shares: random weights, the run of `equipoise forward`, the comparison.

A case is a PyTorch module with weights drawn from a seed (none of them zero or one), its inputs
and its output gradients. The module is saved by its own library, in fp32. The oracle is PyTorch in
float64 on those fp32 weights and inputs: float32 PyTorch itself is off by up to a few 1e-6 in such
networks, which would leave less of the limit to us. (diffusers computes the sinusoids of the
timestep in float32 whatever the model is in, and so do we.)

Limits, relative L2: outputs 1e-5; a gradient 1e-4 of its own norm + 1e-7 of the largest gradient's
norm in the model. They are the acceptance limits of the project: never to be loosened.

Some draws no float32 program holds: a norm over a few nearly equal values. A draw
is replaced where PyTorch's own float32 misses the same limits in one of the three ways it has of
computing it (as it is, channels last, without oneDNN), which differ by rounding alone. Ours has no say.
"""
import copy
import json
import os
import subprocess
import zlib

import numpy as np
import torch
from safetensors.torch import load_file, save_file

OUTPUT_LIMIT = 1e-5
GRADIENT_LIMIT, GRADIENT_FLOOR = 1e-4, 1e-7
LAYOUTS = [(torch.contiguous_format, True), (torch.channels_last, True), (torch.contiguous_format, False)]


class Miss(Exception):
    """What a case says when it cannot be compared at all."""


def generator(seed, kind, index):
    """Draws of one case: they depend on seed, kind and index alone."""
    return np.random.default_rng([seed, zlib.crc32(kind.encode()), index])


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def normal(rng, shape, deviation=1.0):
    return torch.from_numpy((deviation * rng.standard_normal(shape)).astype(np.float32))


def uniform(rng, shape, low, high):
    return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))


def randomize(module, rng, gain=1.0):
    """Weights of matrices normal with variance gain / fan in; gains of norms 1 +- 0.3, biases
    +- 0.3, running variances 1 +- 0.5: no value that a mistake could hide behind."""
    state = module.state_dict()
    for name, t in state.items():
        shape = tuple(t.shape)
        if not t.is_floating_point():
            continue
        if name.endswith("running_var"):
            v = uniform(rng, shape, 0.5, 1.5)
        elif t.dim() >= 2:
            v = normal(rng, shape, (gain / np.prod(shape[1:])) ** 0.5)
        elif name.endswith("weight"):
            v = uniform(rng, shape, 0.7, 1.3)
        else:
            v = uniform(rng, shape, -0.3, 0.3)
        state[name] = v
    module.load_state_dict(state)
    return module


class Case:
    """name: what was drawn, in a line. model: forward's name for it. module: fp32, weights set.
    save(folder): writes what --weights gets, returns its path. inputs: float tensors that get
    gradients; integers: the others. run(module, **tensors) -> {output name: tensor}. state: names
    of state_dict entries that a training step moves, compared as outputs. rename(name): a
    parameter's name in the saved file."""

    def __init__(self, name, model, module, save, inputs, run, integers=None, train=False, state=(),
                 rename=lambda name: name, grad_seed=0):
        self.name, self.model, self.module, self.save = name, model, module, save
        self.inputs, self.run, self.integers = inputs, run, integers or {}
        self.train, self.state, self.rename, self.grad_seed = train, state, rename, grad_seed
        self.known = None

    def oracle(self):
        """{name: float64 tensor} of outputs and of gradients; the output gradients drawn for it."""
        if self.known:
            return self.known
        module = copy.deepcopy(self.module).double().train(self.train)
        module.zero_grad()
        x = {k: v.double().requires_grad_() for k, v in self.inputs.items()}
        out = self.run(module, **x, **self.integers)
        rng = np.random.default_rng(self.grad_seed)
        dy = {k: normal(rng, tuple(y.shape)) for k, y in out.items()}
        sum((y * dy[k].double()).sum() for k, y in out.items()).backward()
        gradients = {k: v.grad for k, v in x.items() if v.grad is not None}  # a UNet may read no text
        gradients |= {self.rename(k): p.grad for k, p in module.named_parameters() if p.grad is not None}
        outputs = {k: y.detach() for k, y in out.items()}
        outputs |= {self.rename(k): module.state_dict()[k] for k in self.state}
        self.known = outputs, gradients, dy
        return self.known

    def is_held(self):
        """PyTorch's float32 keeps every limit, whichever way it computes."""
        outputs, gradients, _ = self.oracle()
        return all(v <= 1 for layout in LAYOUTS for v in shares(self.single(*layout), outputs, gradients).values())

    def single(self, memory_format, onednn):
        """What PyTorch's float32 gives, named as `equipoise forward` names it."""
        module = copy.deepcopy(self.module).float().to(memory_format=memory_format).train(self.train)
        module.zero_grad()
        x = {k: (v.contiguous(memory_format=memory_format) if v.dim() == 4 else v).clone().requires_grad_()
             for k, v in self.inputs.items()}
        with torch.backends.mkldnn.flags(enabled=onednn):
            out = self.run(module, **x, **self.integers)
            sum((y * self.oracle()[2][k]).sum() for k, y in out.items()).backward()
        own = {k: v.detach() for k, v in out.items()} | {"grad." + k: v.grad for k, v in x.items()}
        own |= {self.rename(k): module.state_dict()[k] for k in self.state}
        return own | {"grad." + self.rename(k): p.grad for k, p in module.named_parameters() if p.grad is not None}

    def measure(self, program, folder):
        """{what: error as a share of its limit} of one run in an empty folder."""
        weights = self.save(folder)
        outputs, gradients, dy = self.oracle()
        given = dict(self.inputs) | self.integers | {"grad." + k: v for k, v in dy.items()}
        there, back = os.path.join(folder, "in.safetensors"), os.path.join(folder, "out.safetensors")
        save_file({k: v.contiguous() for k, v in given.items()}, there)
        run_program([program, "forward", self.model, "--weights", weights, "--in", there, "--out", back, "--grad"]
                    + (["--train"] if self.train else []))
        ours = load_file(back)
        share = shares(ours, outputs, gradients)
        surplus = sorted(k for k in ours if k.startswith("grad.") and k not in share)
        for name in surplus:
            if ours[name].abs().max() > 0:
                raise Miss(f"gradient of {name[5:]} where PyTorch has none")
        return share


def draw_held(draw_once, rng, index):
    """The first draw that PyTorch's float32 holds; how many it does not is said in the name."""
    for again in range(40):
        case = draw_once(rng, index)
        if case.is_held():
            case.name = (f"drawn again {again} times " if again else "") + case.name
            return case
    raise Miss("40 draws that PyTorch's float32 does not hold")


def shares(own, outputs, gradients):
    """{what: error as a share of its limit} of tensors named as `equipoise forward` names them."""
    share = {k: difference(own, k, y) / (OUTPUT_LIMIT * float(y.norm())) for k, y in outputs.items()}
    largest = max(float(g.norm()) for g in gradients.values())
    for name, g in gradients.items():
        limit = GRADIENT_LIMIT * float(g.norm()) + GRADIENT_FLOOR * largest
        share["grad." + name] = difference(own, "grad." + name, g) / limit
    return share


def difference(ours, name, theirs):
    if name not in ours:
        raise Miss(f"no {name} in the output")
    if ours[name].shape != theirs.shape:
        raise Miss(f"{name}: shape {list(ours[name].shape)}, expected {list(theirs.shape)}")
    return float((ours[name].double() - theirs).norm())


def run_program(command, timeout=600):
    """Runs equipoise with two threads; its error line as a Miss."""
    env = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"} | os.environ
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Miss(f"exit {done.returncode}: {lines[-1] if lines else 'no message'}")
    return done.stdout


def write_json(folder, name, value):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        json.dump(value, f)
    return path
