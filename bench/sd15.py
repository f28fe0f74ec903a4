"""Stable Diffusion v1.5's folder with random weights of the true shapes, in half precision (2.1 GB).

  python bench/sd15.py DIR

real_sizes.py measures what it costs to use.
"""
import json
import os
import shutil
import sys

import diffusers
import torch
import transformers
from safetensors.torch import save_file

TOKENIZER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "samples", "base", "tokenizer")
SCHEDULER = {"_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
             "clip_sample": False, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True,
             "steps_offset": 1, "trained_betas": None}
INDEX = {"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "PNDMScheduler"],
         "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
         "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
         "safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}


def weights(module, folder, name):
    """Variance 1 / fan in; norms 1; biases 0."""
    os.makedirs(folder)
    g = torch.Generator().manual_seed(1)
    tensors = {}
    for key, t in module.state_dict().items():
        if t.dim() >= 2:
            v = torch.randn(t.shape, generator=g) / t[0].numel() ** 0.5
        else:
            v = torch.full(t.shape, float(key.endswith("weight")))
        tensors[key] = v.half() if t.is_floating_point() else torch.arange(t.numel()).reshape(t.shape)
    save_file(tensors, os.path.join(folder, name), {"format": "pt"})


def main():
    root = sys.argv[1]
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        vae = diffusers.AutoencoderKL(
            sample_size=512, block_out_channels=[128, 256, 512, 512], layers_per_block=2, scaling_factor=0.18215,
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            bos_token_id=49406, eos_token_id=49407, pad_token_id=49407))
    count = sum(p.numel() for p in unet.parameters())
    assert count == 859520964, count
    for module, part, name in ((unet, "unet", "diffusion_pytorch_model"), (vae, "vae", "diffusion_pytorch_model"),
                               (text, "text_encoder", "model")):
        folder = os.path.join(root, part)
        weights(module, folder, name + ".safetensors")
        module.config.to_json_file(os.path.join(folder, "config.json")) if part == "text_encoder" else module.save_config(folder)
    shutil.copytree(TOKENIZER, os.path.join(root, "tokenizer"))
    os.makedirs(os.path.join(root, "scheduler"))
    for name, what in (("scheduler/scheduler_config.json", SCHEDULER), ("model_index.json", INDEX)):
        with open(os.path.join(root, name), "w") as f:
            json.dump(what, f, indent=2)


main()
