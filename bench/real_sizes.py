#!/usr/bin/env python3
"""Stable Diffusion v1.5's true sizes on a CPU: ours against diffusers, seconds and peak memory.

    python bench/real_sizes.py [--threads 2] [--machine NAME] [img2img] [train]

img2img: a whole process each, weights loaded from half precision, one film of 512 x 512, 4 steps,
guidance 7.5, strength 1. train: one step of the UNet at 256 x 256, batch 1, with recompute (gradient
checkpointing), AdamW and averaged weights; median of 3 after 3 to warm up. Weights are random
(sd15.py). They take turns, each in a process of its own; peak memory is the largest resident set.
Needs 2.1 GB of disk below TMPDIR, and 24 GB of memory for the training step.
"""
import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(HERE, "..", "build", "equipoise")
PROMPT, SIZE, STEPS, GUIDANCE = "chest x-ray of a child, pneumonia", 512, 4, 7.5


def measured(command, threads):
    """Seconds, peak MiB and output of a process."""
    begin = time.monotonic()
    p = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ, OMP_NUM_THREADS=str(threads)))
    out = p.stdout.read()
    _, status, usage = os.wait4(p.pid, 0)
    if status:
        raise SystemExit(f"{command}: status {status}")
    return time.monotonic() - begin, usage.ru_maxrss / 1024, out


def film(path):
    """A smooth picture with noise on it."""
    import numpy
    from PIL import Image
    y, x = numpy.mgrid[0:SIZE, 0:SIZE] / SIZE
    noise = numpy.random.default_rng(1).normal(0, 8, (SIZE, SIZE))
    Image.fromarray((128 + 90 * numpy.sin(9 * x) * numpy.cos(7 * y) + noise).clip(0, 255).astype("uint8")).save(path)


def peer(folder, image, out, threads):
    """The same film by diffusers."""
    import diffusers
    import torch
    from PIL import Image
    torch.set_num_threads(threads)
    pipe = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False, feature_extractor=None)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    picture = pipe(PROMPT, image=Image.open(image).convert("RGB"), strength=1.0, num_inference_steps=STEPS,
                   guidance_scale=GUIDANCE).images[0]
    picture.save(out)


def images(folder, work, o):
    image = os.path.join(work, "film.png")
    film(image)
    ours = [PROGRAM, "img2img", "--model", folder, "--image", image, "--size", str(SIZE), "--steps", str(STEPS),
            "--strength", "1", "--guidance", str(GUIDANCE), "--prompt", PROMPT, "--out", os.path.join(work, "a.png")]
    theirs = [sys.executable, __file__, "--peer", folder, image, os.path.join(work, "b.png"), "--threads",
              str(o.threads)]
    for way, command in (("ours", ours), ("diffusers", theirs)):
        seconds, mib, _ = measured(command, o.threads)
        yield "img2img", way, seconds, mib


def training(folder, work, o):
    common = ["unet", "--model", folder, "--size", "256", "--batch", "1", "--recompute", "--threads", str(o.threads),
              "--steps-per-round", "1"]
    for way, command, rounds in (
            ("ours", [PROGRAM, "bench", *common, "--rounds", "3"], None),
            ("diffusers", [sys.executable, os.path.join(HERE, "peer.py"), *common], "\n" * 3)):
        p = subprocess.run(command, input=rounds, stdout=subprocess.PIPE, text=True, check=True)
        lines = [json.loads(line) for line in p.stdout.splitlines()]
        seconds = statistics.median(line["ms"] for line in lines if "ms" in line) / 1000
        yield "training step", way, seconds, next(line["peak_mib"] for line in lines if "peak_mib" in line)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", nargs="*", default=["img2img", "train"])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--machine", default="amd-epyc", help="folder of results/")
    p.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    o = p.parse_args()
    if o.peer:
        return peer(*o.what, o.threads)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        folder = os.path.join(work, "sd15")
        subprocess.run([sys.executable, os.path.join(HERE, "sd15.py"), folder], check=True)
        for what, run in (("img2img", images), ("train", training)):
            for row in run(folder, work, o) if what in o.what else []:
                rows.append(row)
                print("%-14s %-10s %8.1f s %8.0f MiB" % row, flush=True)
    path = os.path.join(HERE, "results", o.machine, "sd15.csv")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n")
        w.writerow(["what", "way", "seconds", "peak_mib", "threads", "date"])
        w.writerows([a, b, round(s, 1), round(m), o.threads, time.strftime("%Y-%m-%d")] for a, b, s, m in rows)


if __name__ == "__main__":
    main()
