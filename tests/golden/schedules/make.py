"""Goldens of test_diffusion.c: what DDIMScheduler makes of scheduler_config.json files of several classes in a
StableDiffusionPipeline, whose constructor sets steps_offset and clip_sample.

A case: the file's text; alpha_bar at some timesteps; the gain of the rescale to zero SNR, 0 without; the timesteps of some numbers of steps; for some of these steps one
step's coefficients as the test reads them back: with x = 1 and a prediction p, and no noise or noise 1.
    python make.py > schedules.json
"""
import json
import random

import diffusers
import torch

rng = random.Random(20)
CLASSES = ["DDIMScheduler", "PNDMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
           "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "LMSDiscreteScheduler"]


def draw(name):
    keys = dict(num_train_timesteps=rng.choice([1000, 1000, 777, 100]), beta_start=rng.choice([0.00085, 1e-4, 0.003]),
                beta_end=rng.choice([0.012, 0.02]), beta_schedule=rng.choice(["linear", "scaled_linear", "scaled_linear",
                                                                              "squaredcos_cap_v2"]),
                prediction_type=rng.choice(["epsilon", "v_prediction", "sample"]), steps_offset=rng.choice([0, 1, 1, 5]),
                timestep_spacing=rng.choice(["leading", "trailing", "linspace"]), clip_sample=rng.choice([True, False]),
                clip_sample_range=rng.choice([1.0, 2.5]), set_alpha_to_one=rng.choice([True, False]),
                rescale_betas_zero_snr=rng.choice([True, False]))
    if rng.random() < 0.2:
        n = keys["num_train_timesteps"] = rng.choice([8, 20])
        keys["trained_betas"] = [rng.uniform(0.001, 0.2) for _ in range(n)]
    cls = getattr(diffusers, name)
    if name == "PNDMScheduler" and keys["prediction_type"] == "sample":
        keys["prediction_type"] = "epsilon"
    legal = cls.__init__.__wrapped__.__code__.co_varnames if hasattr(cls.__init__, "__wrapped__") else None
    given = {k: v for k, v in keys.items() if (not legal or k in legal) and rng.random() < 0.85}
    if "trained_betas" in given:
        given["num_train_timesteps"] = len(given["trained_betas"])
    return cls(**given)


def piped(text):
    s = diffusers.DDIMScheduler.from_config(json.loads(text))
    diffusers.StableDiffusionPipeline(vae=None, text_encoder=None, tokenizer=None, unet=None, scheduler=s, safety_checker=None,
                                      feature_extractor=None, requires_safety_checker=False)
    return s


def case(name):
    own = draw(name)
    text = own.to_json_string()
    s = piped(text)
    n = s.config.num_train_timesteps
    at = sorted({0, 1, n // 3, n // 2, n - 2, n - 1, rng.randrange(n)})
    c = {"file": text, "alpha_bar": {str(t): s.alphas_cumprod[t].item() for t in at}, "plans": []}
    c["gain"] = 0
    if s.config.rescale_betas_zero_snr:
        root = diffusers.DDIMScheduler.from_config(json.loads(text), rescale_betas_zero_snr=False).alphas_cumprod.sqrt()
        c["gain"] = (root[0] / (root[0] - root[-1])).item()
    for steps in sorted({1, rng.randint(2, min(n, 150)), rng.randint(2, min(n, 40))}):
        s.set_timesteps(steps)
        times = s.timesteps.tolist()
        if len(times) != steps or times[0] >= n:
            continue
        plan = {"steps": steps, "timesteps": times, "taken": []}
        for t in rng.sample(times, min(4, steps)):
            x, p, eta = rng.gauss(0, 1), rng.gauss(0, 1), rng.choice([0.0, 0.6, 1.0])
            noise = rng.gauss(0, 1)
            y = s.step(torch.tensor([p]), t, torch.tensor([x]), eta=eta, variance_noise=torch.tensor([noise])).prev_sample
            if torch.isfinite(y).all():
                plan["taken"].append({"t": t, "x": x, "p": p, "eta": eta, "noise": noise, "y": y.item()})
        c["plans"].append(plan)
    return c


print(json.dumps([case(CLASSES[i % len(CLASSES)]) for i in range(32)], separators=(",", ":")))
