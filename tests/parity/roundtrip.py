"""Weights as they are found, through Equipoise and back into the libraries that they came from: the
same tensors bit for bit (shards, half precision, a model's folder loaded and saved), or the same
outputs (old names of attention; an Inception-V3 trained here)."""
import os
import shutil

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torchvision.models import inception_v3
from transformers import CLIPTextModel

import kl
import unet
from common import OUTPUT_LIMIT, Miss, difference, normal, pick, randomize, run_program
from compvis import require_equal
from lora import BASIC, ROOT, make_base

COUNT = 10


def forward(program, model, weights, folder, inputs, tag):
    there, back = os.path.join(folder, tag + ".in"), os.path.join(folder, tag + ".out")
    save_file(inputs, there)
    run_program([program, "forward", model, "--weights", weights, "--in", there, "--out", back])
    return load_file(back)


def shards(program, rng, folder):
    """save_pretrained in shards, in fp32, fp16 or bf16, with or without the variant's name: joined by
    `weights convert` and read by `forward`."""
    dtype = pick(rng, [torch.float32, torch.float16, torch.bfloat16])
    variant = pick(rng, [None, "fp16"])
    config = {k: v for k, v in unet.draw_config(rng).items() if k in BASIC} | dict(cross_attention_dim=8, norm_num_groups=2)
    module = randomize(UNet2DConditionModel(**config), rng).to(dtype)
    parts, whole = os.path.join(folder, "parts"), os.path.join(folder, "whole")
    size = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    module.save_pretrained(parts, max_shard_size=size // int(rng.integers(2, 12)), variant=variant)
    n = sum(f.endswith(".safetensors") for f in os.listdir(parts))
    name = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]
    run_program([program, "weights", "convert", parts, whole, "--dtype", name])
    if sorted(os.listdir(whole)) != ["config.json", "diffusion_pytorch_model.safetensors"]:
        raise Miss(f"found {os.listdir(whole)}")
    back = UNet2DConditionModel.from_pretrained(whole, torch_dtype=dtype)
    require_equal(back.state_dict(), module.state_dict(), "from_pretrained")
    inputs = {"sample": normal(rng, (1, 4, 16, 16)), "encoder_hidden_states": normal(rng, (1, 5, 8)),
              "timestep": torch.tensor([7])}
    require_equal(forward(program, "unet", parts, folder, inputs, "a"),
                  forward(program, "unet", whole, folder, inputs, "b"), "forward on shards")
    return f"{n} shards {dtype} variant {variant}", {"all": 0.0 if n > 1 else 2.0}


def model_folder(program, rng, folder):
    """A whole model into the engine's memory and out again (a LoRA of zeros)."""
    base, out, zero = (os.path.join(folder, x) for x in ("base", "out", "zero.safetensors"))
    _, module = make_base(rng, base)
    layer = next(k for k in module.state_dict() if k.endswith("attn1.to_q.weight"))[:-len(".weight")]
    width = module.state_dict()[layer + ".weight"].shape[0]
    save_file({f"unet.{layer}.lora_A.weight": torch.ones(1, width), f"unet.{layer}.lora_B.weight": torch.zeros(width, 1)}, zero)
    run_program([program, "weights", "merge-lora", base, zero, out])
    require_equal(UNet2DConditionModel.from_pretrained(os.path.join(out, "unet")).state_dict(), module.state_dict(), "UNet")
    text = [CLIPTextModel.from_pretrained(os.path.join(f, "text_encoder"), output_loading_info=True) for f in (base, out)]
    if text[1][1]["missing_keys"] or text[1][1]["unexpected_keys"]:
        raise Miss(f"text encoder: {text[1][1]}")
    require_equal(text[1][0].state_dict(), text[0][0].state_dict(), "text encoder")
    return "a model's folder", {"all": 0.0}


def old_autoencoder(program, rng, folder):
    """AutoencoderKL as diffusers wrote it until 2023, its attention linear or a 1 x 1 convolution."""
    config = kl.draw_config(rng) | dict(mid_block_add_attention=True, act_fn="silu")
    module = randomize(AutoencoderKL(**config), rng)
    new, old = os.path.join(folder, "new"), os.path.join(folder, "old")
    module.save_pretrained(new)
    shutil.copytree(new, old)
    square = bool(rng.random() < 0.5)
    tensors = {}
    for k, v in module.state_dict().items():
        if ".attentions." in k:
            for a, b in ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")):
                if a in k and v.dim() == 2 and square:
                    v = v[:, :, None, None]
                k = k.replace(a, b)
        tensors[k] = v.contiguous()
    save_file(tensors, os.path.join(old, "diffusion_pytorch_model.safetensors"), {"format": "pt"})
    size = 2 ** (len(config["block_out_channels"]) - 1) * 2
    for model, x in (("vae-encode", {"sample": normal(rng, (1, config["in_channels"], size, size))}),
                     ("vae-decode", {"latent": normal(rng, (1, config["latent_channels"], 2, 2))})):
        require_equal(forward(program, model, old, folder, x, model + "a"),
                      forward(program, model, new, folder, x, model + "b"), model)
    return f"old autoencoder, convolutions {square}", {"all": 0.0}


def inception(program, rng, folder):
    """A classifier trained here, from weights saved there, into torchvision's model, strictly."""
    start = randomize(inception_v3(weights=None, init_weights=False, aux_logits=True, num_classes=1000), rng)
    file, out = os.path.join(folder, "imagenet.safetensors"), os.path.join(folder, "run")
    save_file(start.state_dict(), file)
    settings = [f"classifier.weights={file}", "classifier.width=1", "classifier.epochs=1", "classifier.batch=16",
                "classifier.accumulate=1", "classifier.aux_weight=0", "classifier.frozen=Conv2d_1a_3x3.conv"]
    command = [program, "train-classifier", os.path.join(ROOT, "configs", "tiny.ini"), "--out", out]
    command += ["--class", "bacteria"]
    run_program(command + [x for s in settings for x in ("--set", s)])
    weights = load_file(os.path.join(out, "model.safetensors"))
    classes = weights["fc.weight"].shape[0]
    module = inception_v3(weights=None, init_weights=False, aux_logits=False, num_classes=classes)
    module.load_state_dict(weights, strict=True)
    require_equal(module.state_dict(), weights, "load_state_dict")
    frozen = "Conv2d_1a_3x3.conv.weight"
    if not torch.equal(weights[frozen], start.state_dict()[frozen]):
        raise Miss(f"{frozen} was frozen and is another")
    x = normal(rng, (2, 3, 96, 96))
    with torch.no_grad():
        logits = module.double().eval()(x.double())
    ours = {k: v.double() for k, v in forward(program, "inception", os.path.join(out, "model.safetensors"), folder, {"image": x}, "a").items()}
    return "Inception-V3", {"logits": difference(ours, "logits", logits) / (OUTPUT_LIMIT * float(logits.norm()))}


WAYS = [shards, model_folder, old_autoencoder, shards, inception]


class RoundTrip:
    def __init__(self, rng, index):
        self.rng, self.way = rng, WAYS[index % len(WAYS)]
        self.name = self.way.__name__

    def measure(self, program, folder):
        self.name, share = self.way(program, self.rng, folder)
        return share


def draw(rng, index):
    return RoundTrip(rng, index)
