"""make.py - makes this folder: a latent diffusion model small enough for tests.

    python3 configs/models/tiny/make.py        (packages: tests/golden/requirements.txt)

Network sizes and a tokenizer of single letters, for new weights (ldm.init = random); and an autoencoder
(AutoencoderTiny, 8 channels wide) fitted for a minute on the training films of samples/tiny.
"""
import csv
import json
import os

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLES = os.path.join(HERE, "..", "..", "..", "samples")
SIDE, CHANNELS, WIDTH = 80, 4, 8

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": SIDE // 8,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "block_out_channels": [16, 32],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 32,
    "norm_num_groups": 8,
}
TEXT = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "vocab_size": 514,
    "max_position_embeddings": 48,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_act": "quick_gelu",
}
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderTiny"],
}


def films():
    rows = csv.DictReader(open(os.path.join(SAMPLES, "tiny", "films.csv")))
    paths = [r["path"] for r in rows if r["split"] == "train"]
    images = [Image.open(os.path.join(SAMPLES, "films", p)).convert("L").resize((SIDE, SIDE)) for p in paths]
    return torch.tensor(np.stack([np.asarray(i) for i in images]), dtype=torch.float32)[:, None] / 255


def fitted():
    torch.manual_seed(1)
    vae = AutoencoderTiny(
        latent_channels=CHANNELS,
        encoder_block_out_channels=(WIDTH,) * 4,
        decoder_block_out_channels=(WIDTH,) * 4,
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )
    x = films().repeat(1, 3, 1, 1)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3)
    for step in range(400):
        batch = x[torch.randint(len(x), (16,))]
        # the layers themselves: images in [0, 1], as the engine takes them
        latent = vae.encoder.layers(batch)
        out = vae.decoder.layers(torch.tanh(latent / 3) * 3)
        loss = torch.nn.functional.l1_loss(out, batch) + 1e-3 * (latent**2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            print(f"step {step + 1}: {loss.item():.4f}")
    return vae


def write(path, data):
    path = os.path.join(HERE, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(data if isinstance(data, str) else json.dumps(data, indent=2) + "\n")


def main():
    vae = fitted()
    weights = {k: v.detach().half().contiguous() for k, v in vae.state_dict().items()}
    write("unet/config.json", UNET)
    write("text_encoder/config.json", TEXT)
    write("scheduler/scheduler_config.json", SCHEDULER)
    write("model_index.json", INDEX)
    write("tokenizer/merges.txt", "#version: 0.2\n")
    write("vae/config.json", {
        "_class_name": "AutoencoderTiny",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": CHANNELS,
        "encoder_block_out_channels": [WIDTH] * 4,
        "decoder_block_out_channels": [WIDTH] * 4,
        "num_encoder_blocks": [1, 1, 1, 1],
        "num_decoder_blocks": [1, 1, 1, 1],
    })
    save_file(weights, os.path.join(HERE, "vae", "diffusion_pytorch_model.safetensors"))


main()
