"""Equipoise's models against diffusers, transformers and torchvision on randomly drawn configurations.

  python run.py [--seed S] [--count N] [--program FILE] [KIND...]

Without --seed the fixed seed is used, without --count each kind's own number of cases. Each case is
one line: worst error of outputs and of gradients as shares of their limits (1 is the limit). Exit
status 1 if one misses. --only I runs one case of a kind again.
"""
import argparse
import importlib
import os
import re
import sys
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin take a busy machine from one another
import diffusers
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
KINDS = ["unet", "text", "inception", "kl", "pipelines", "lora", "compvis", "roundtrip", "tokenizer"]
FIXED_SEED = 1


def worst(share, gradients):
    items = [(v, k) for k, v in share.items() if k.startswith("grad.") == gradients]
    return max(items) if items else (0.0, "-")


def run_case(kind, module, seed, index, program):
    from common import Miss, generator
    rng, begun = generator(seed, kind, index), time.time()
    torch.manual_seed(int(rng.integers(2**31)))
    name = ""
    try:
        case = module.draw(rng, index)
        name = case.name
        with tempfile.TemporaryDirectory(prefix="parity-") as folder:
            share = case.measure(program, folder)
    except Miss as miss:
        print(f"{kind} {seed}.{index}: MISS: {miss} | {name}", flush=True)
        return False, 0
    y, g = worst(share, False), worst(share, True)
    good = all(v <= 1 for v in share.values())
    print(f"{kind} {seed}.{index}: {'ok' if good else 'MISS'}: outputs {y[0]:.2g} ({y[1]}), gradients {g[0]:.2g} "
          f"({g[1]}), {time.time() - begun:.0f} s | {case.name}", flush=True)
    again = re.search(r"drawn again (\d+) times", case.name)
    return good, int(again[1]) if again else 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=FIXED_SEED)
    p.add_argument("--count", type=int)
    p.add_argument("--only", type=int)
    p.add_argument("--program", default=os.path.join(HERE, "..", "..", "build", "equipoise"))
    p.add_argument("kind", nargs="*")
    args = p.parse_args()
    sys.path.insert(0, HERE)
    torch.set_num_threads(2)
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    kinds = args.kind or [k for k in KINDS if os.path.exists(os.path.join(HERE, k + ".py"))]
    missed = n = replaced = 0
    for kind in kinds:
        module = importlib.import_module(kind)
        count = args.count or module.COUNT
        for index in [args.only] if args.only is not None else range(count):
            n += 1
            good, again = run_case(kind, module, args.seed, index, args.program)
            missed += not good
            replaced += again
    print(f"{n} cases, {missed} missed; {replaced} draws replaced, which PyTorch's float32 does not hold")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
