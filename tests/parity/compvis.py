"""Single-file checkpoints: a model of diffusers and transformers, renamed to the names of CompVis'
and Stability's code by walking their constructors (openaimodel.py, model.py, open_clip's
transformer.py), converted back by `equipoise weights convert --config`. diffusers' own conversion of
the same file is checked beside ours, which proves the renaming."""
import json
import os
import shutil

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (convert_ldm_clip_checkpoint, convert_ldm_unet_checkpoint,
                                                 convert_ldm_vae_checkpoint, convert_open_clip_checkpoint)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from common import Miss, normal, pick, randomize, run_program

COUNT = 8
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
TINY = os.path.join(ROOT, "configs", "models", "tiny")


def swap(names, pairs):
    """{new prefix + rest: tensor} of the tensors under each old prefix."""
    return {new + k[len(old):]: v for old, new in pairs for k, v in names.items() if k.startswith(old)}


def unet_resnet(w, old, new):
    return swap(w, [(f"{old}.norm1.", f"{new}.in_layers.0."), (f"{old}.conv1.", f"{new}.in_layers.2."),
                    (f"{old}.time_emb_proj.", f"{new}.emb_layers.1."), (f"{old}.norm2.", f"{new}.out_layers.0."),
                    (f"{old}.conv2.", f"{new}.out_layers.3."), (f"{old}.conv_shortcut.", f"{new}.skip_connection.")])


def unet_to_compvis(w, config):
    """UNetModel.__init__: modules appended to input_blocks and output_blocks one by one."""
    n, layers = len(config["block_out_channels"]), config["layers_per_block"]
    out = swap(w, [("time_embedding.linear_1.", "time_embed.0."), ("time_embedding.linear_2.", "time_embed.2."),
                   ("conv_in.", "input_blocks.0.0."), ("conv_norm_out.", "out.0."), ("conv_out.", "out.2.")])
    place = 1
    for level in range(n):
        for j in range(layers):
            out |= unet_resnet(w, f"down_blocks.{level}.resnets.{j}", f"input_blocks.{place}.0")
            out |= swap(w, [(f"down_blocks.{level}.attentions.{j}.", f"input_blocks.{place}.1.")])
            place += 1
        if level != n - 1:
            out |= swap(w, [(f"down_blocks.{level}.downsamplers.0.conv.", f"input_blocks.{place}.0.op.")])
            place += 1
    out |= unet_resnet(w, "mid_block.resnets.0", "middle_block.0") | unet_resnet(w, "mid_block.resnets.1", "middle_block.2")
    out |= swap(w, [("mid_block.attentions.0.", "middle_block.1.")])
    place = 0
    for block in range(n):
        for j in range(layers + 1):
            out |= unet_resnet(w, f"up_blocks.{block}.resnets.{j}", f"output_blocks.{place}.0")
            attention = swap(w, [(f"up_blocks.{block}.attentions.{j}.", f"output_blocks.{place}.1.")])
            out |= attention
            if j == layers and block != n - 1:
                out |= swap(w, [(f"up_blocks.{block}.upsamplers.0.conv.",
                                 f"output_blocks.{place}.{2 if attention else 1}.conv.")])
            place += 1
    return {"model.diffusion_model." + k: v for k, v in out.items()}


def vae_half(w, half, n, layers):
    """Encoder or Decoder of model.py; the decoder's up is indexed by resolution, finest first."""
    block = lambda old, new: swap(w, [(f"{old}.conv_shortcut.", f"{new}.nin_shortcut."), (f"{old}.norm", f"{new}.norm"),
                                      (f"{old}.conv1.", f"{new}.conv1."), (f"{old}.conv2.", f"{new}.conv2.")])
    out = swap(w, [(f"{half}.conv_in.", f"{half}.conv_in."), (f"{half}.conv_out.", f"{half}.conv_out."),
                   (f"{half}.conv_norm_out.", f"{half}.norm_out.")])
    a, b = f"{half}.mid_block.attentions.0.", f"{half}.mid.attn_1."
    out |= swap(w, [(a + "group_norm.", b + "norm."), (a + "to_q.", b + "q."), (a + "to_k.", b + "k."),
                    (a + "to_v.", b + "v."), (a + "to_out.0.", b + "proj_out.")])
    for k in out:
        if ".attn_1." in k and out[k].dim() == 2:
            out[k] = out[k][:, :, None, None].contiguous()
    for j in range(2):
        out |= block(f"{half}.mid_block.resnets.{j}", f"{half}.mid.block_{j + 1}")
    for level in range(n):
        place, way, sample = (level, "down", "downsamplers") if half == "encoder" else (n - 1 - level, "up", "upsamplers")
        for j in range(layers + (half == "decoder")):
            out |= block(f"{half}.{way}_blocks.{level}.resnets.{j}", f"{half}.{way}.{place}.block.{j}")
        out |= swap(w, [(f"{half}.{way}_blocks.{level}.{sample}.0.conv.", f"{half}.{way}.{place}.{way}sample.conv.")])
    return out


def vae_to_compvis(w, config):
    n, layers = len(config["block_out_channels"]), config["layers_per_block"]
    out = vae_half(w, "encoder", n, layers) | vae_half(w, "decoder", n, layers)
    out |= {k: v for k, v in w.items() if "quant_conv" in k}
    return {"first_stage_model." + k: v for k, v in out.items()}


def text_to_openclip(w, layers, rng):
    """open_clip's TextTransformer: nn.MultiheadAttention with q, k, v stacked; one layer more than used."""
    out = swap(w, [("text_model.embeddings.token_embedding.", "token_embedding."), ("text_model.final_layer_norm.", "ln_final.")])
    out["positional_embedding"] = w["text_model.embeddings.position_embedding.weight"]
    for i in range(layers):
        old, new = f"text_model.encoder.layers.{i}.", f"transformer.resblocks.{i}."
        out |= swap(w, [(old + "layer_norm1.", new + "ln_1."), (old + "layer_norm2.", new + "ln_2."),
                        (old + "mlp.fc1.", new + "mlp.c_fc."), (old + "mlp.fc2.", new + "mlp.c_proj."),
                        (old + "self_attn.out_proj.", new + "attn.out_proj.")])
        for kind in ("weight", "bias"):
            out[f"{new}attn.in_proj_{kind}"] = torch.cat([w[f"{old}self_attn.{p}_proj.{kind}"] for p in "qkv"])
    last = {k.replace(f"resblocks.{layers - 1}.", f"resblocks.{layers}."): v + 1 for k, v in out.items() if f"resblocks.{layers - 1}." in k}
    width = out["positional_embedding"].shape[1]
    out |= last | {"text_projection": normal(rng, (width, width)), "logit_scale": torch.tensor(4.6)}
    return {"cond_stage_model.model." + k: v for k, v in out.items()}


def text_names(w):
    """Today's transformers may leave the top out; published files have it."""
    return {k if k.startswith("text_model.") else "text_model." + k: v for k, v in w.items() if "position_ids" not in k}


def require_equal(ours, theirs, what):
    if set(ours) != set(theirs):
        raise Miss(f"{what}: names differ: {sorted(set(ours) ^ set(theirs))[:3]}")
    for k, v in theirs.items():
        v = v.reshape(ours[k].shape) if v.numel() == ours[k].numel() and v.dim() != ours[k].dim() else v
        if ours[k].dtype != v.dtype or not torch.equal(ours[k], v):
            raise Miss(f"{what}: {k} differs")


class CompvisCase:
    def __init__(self, rng, index):
        self.rng, self.openclip = rng, index % 2 == 1
        n = int(rng.integers(2, 5))
        attends = [bool(rng.random() < 0.7) for _ in range(n)]
        self.unet = dict(
            block_out_channels=[8 * int(rng.integers(1, 5)) for _ in range(n)], layers_per_block=pick(rng, [1, 2, 3]),
            down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
            up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]],
            cross_attention_dim=32, attention_head_dim=2, norm_num_groups=4, use_linear_projection=bool(rng.random() < 0.5))
        n = int(rng.integers(1, 5))
        self.vae = dict(
            block_out_channels=[8 * int(rng.integers(1, 4)) for _ in range(n)], layers_per_block=pick(rng, [1, 2]),
            down_block_types=["DownEncoderBlock2D"] * n, up_block_types=["UpDecoderBlock2D"] * n, norm_num_groups=4)
        self.dtype = pick(rng, [torch.float32, torch.float16, torch.bfloat16])
        self.name = f"{'OpenCLIP' if self.openclip else 'CLIP'} {self.dtype} unet {self.unet} vae {self.vae}"

    def measure(self, program, folder):
        rng, base, out = self.rng, os.path.join(folder, "base"), os.path.join(folder, "out")
        shutil.copytree(TINY, base)
        text = CLIPTextConfig.from_pretrained(os.path.join(TINY, "text_encoder"), bos_token_id=None, eos_token_id=None)
        models = {"unet": UNet2DConditionModel(**self.unet), "vae": AutoencoderKL(**self.vae), "text_encoder": CLIPTextModel(text)}
        state = {k: {n: t for n, t in randomize(m, rng).to(self.dtype).state_dict().items()} for k, m in models.items()}
        os.remove(os.path.join(base, "vae", "diffusion_pytorch_model.safetensors"))
        for part in ("unet", "vae"):
            models[part].save_config(os.path.join(base, part))
        state["text_encoder"] = text_names(state["text_encoder"])
        single = unet_to_compvis(state["unet"], self.unet) | vae_to_compvis(state["vae"], self.vae)
        single |= text_to_openclip(state["text_encoder"], text.num_hidden_layers, rng) if self.openclip else {
            "cond_stage_model.transformer." + k: v for k, v in state["text_encoder"].items()} | {
            "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}
        single |= {"betas": torch.rand(1000), "model_ema.decay": torch.tensor(0.9999), "alphas_cumprod": torch.rand(1000)}
        file = os.path.join(folder, "model.ckpt.safetensors")
        save_file({k: v.contiguous().clone() for k, v in single.items()}, file)
        require_equal(convert_ldm_unet_checkpoint(dict(single), self.unet), state["unet"], "diffusers' UNet")
        require_equal(convert_ldm_vae_checkpoint(dict(single), self.vae), state["vae"], "diffusers' VAE")
        theirs = (convert_open_clip_checkpoint(models["text_encoder"], dict(single)) if self.openclip
                  else convert_ldm_clip_checkpoint(dict(single)))
        theirs = {k: v for k, v in text_names(theirs).items()  # theirs keeps the surplus of the file
                  if "projection" not in k and f".layers.{text.num_hidden_layers}." not in k}
        require_equal(theirs, state["text_encoder"], "diffusers' text encoder")
        run_program([program, "weights", "convert", file, out, "--config", base])
        for part, weights in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
            require_equal(load_file(os.path.join(out, part, weights + ".safetensors")), state[part], part)
        with open(os.path.join(out, "unet", "config.json")) as f:
            loaded = UNet2DConditionModel.from_pretrained(os.path.join(out, "unet"), torch_dtype=self.dtype)
            assert json.load(f)["cross_attention_dim"] == 32
        require_equal(loaded.state_dict(), state["unet"], "from_pretrained")
        loaded, info = CLIPTextModel.from_pretrained(os.path.join(out, "text_encoder"), dtype=self.dtype, output_loading_info=True)
        if info["missing_keys"] or info["unexpected_keys"]:
            raise Miss(f"text encoder: {info}")
        return {"all": 0.0}


def draw(rng, index):
    return CompvisCase(rng, index)
