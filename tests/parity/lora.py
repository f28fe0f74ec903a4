"""LoRA: what diffusers and PEFT make, merged by `equipoise weights merge-lora`; what `equipoise
train-ldm` makes, loaded by diffusers. Compared are the UNet's outputs, and films of pipelines that have
loaded it (as pipelines.py does): diffusers with base and LoRA apart, in float64, ours with the merged
weights. Needs peft."""
import os
import shutil

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

import pipelines
import unet
from common import OUTPUT_LIMIT, Miss, difference, normal, pick, randomize, run_program

COUNT = 9
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
TINY = os.path.join(ROOT, "configs", "models", "tiny")
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
MORE = ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv_in", "time_emb_proj"]
BASIC = ["block_out_channels", "down_block_types", "up_block_types", "layers_per_block", "attention_head_dim",
         "transformer_layers_per_block", "use_linear_projection"]


def make_base(rng, folder):
    """The tiny model's folder with a UNet and text encoder of random weights."""
    shutil.copytree(TINY, folder)
    config = {k: v for k, v in unet.draw_config(rng).items() if k in BASIC}
    config |= dict(in_channels=4, out_channels=4, cross_attention_dim=32, norm_num_groups=2)
    config["down_block_types"][-1] = "CrossAttnDownBlock2D"
    module = randomize(UNet2DConditionModel(**config), rng)
    module.save_pretrained(os.path.join(folder, "unet"))
    text = CLIPTextConfig.from_pretrained(os.path.join(TINY, "text_encoder"), bos_token_id=None, eos_token_id=None)
    randomize(CLIPTextModel(text), rng).save_pretrained(os.path.join(folder, "text_encoder"))
    return config, module


def old_names(tensors):
    """A file as diffusers wrote it before PEFT."""
    return {k.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): v for k, v in tensors.items()}


def their_lora(rng, module, folder):
    """A LoRA with no value zero, saved by diffusers; merges with scale 1 to what the module with
    the adapter gives. Returns file and a description."""
    rank = int(rng.integers(1, 6))
    there = {name for name, _ in module.named_modules()}
    more = [m for m in MORE if any(n.endswith(m) for n in there) and rng.random() < 0.4]
    config = LoraConfig(r=rank, lora_alpha=pick(rng, [rank, 1, 7]), target_modules=ATTENTION + more,
                        use_rslora=bool(rng.random() < 0.3))
    module.add_adapter(config)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if "lora_" in name:
                p.copy_(normal(rng, tuple(p.shape), 0.3 / rank ** 0.5))
    file = os.path.join(folder, "pytorch_lora_weights.safetensors")
    way = pick(rng, ["adapter", "pipeline", "old"])
    if way == "adapter":
        module.save_lora_adapter(folder)
    else:
        from peft.utils import get_peft_model_state_dict
        layers = get_peft_model_state_dict(module)
        meta = {"unet_lora_adapter_metadata": config.to_dict()} if way == "pipeline" else {}
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, **meta)
        if way == "old":  # the scale is alpha / rank and in a tensor of each module
            scale = config.lora_alpha / (rank ** 0.5 if config.use_rslora else rank)
            tensors = load_file(file)
            alpha = {k.replace(".lora_A.weight", ".alpha"): torch.tensor(float(scale * rank))
                     for k in tensors if ".lora_A." in k}
            save_file(old_names(tensors) | alpha, file, {"format": "pt"})
    return file, f"{way} rank {rank} alpha {config.lora_alpha} rslora {config.use_rslora} {' '.join(more)}"


def train(rng, program, base, folder):
    """A LoRA of ours and the folder it was merged into."""
    rank = int(rng.integers(1, 6))
    out = os.path.join(folder, "run")
    settings = [f"ldm.base={base}", "ldm.init=base", f"ldm.lora_rank={rank}", "ldm.steps=6", "ldm.warmup=0",
                "ldm.learning_rate=0.05", "ldm.validate_every=6", "ldm.prediction=auto", "data.size=128"]
    command = [program, "train-ldm", os.path.join(ROOT, "configs", "tiny.ini"), "--out", out]
    run_program(command + [x for s in settings for x in ("--set", s)])
    return os.path.join(out, "pytorch_lora_weights.safetensors"), os.path.join(out, "model")


class FilmCase:
    """A LoRA trained here in a pipeline of diffusers; our film from the merged folder."""
    def __init__(self, rng, index):
        self.rng, self.index, self.name = rng, index, "film, trained here"

    def measure(self, program, folder):
        for again in range(40):
            case = pipelines.Case(self.rng, self.index)
            if not case.is_held() or '"sample"' in case.scheduler:  # is not trained
                continue
            room = os.path.join(folder, str(again))
            base = os.path.join(room, "base")
            case.save(base)
            file, merged = train(self.rng, program, base, room)
            without = case.exact
            case.pipe.load_lora_weights(file)
            # a film of one step near the end would be nearly the same without any LoRA
            if not case.is_held() or (case.exact != without).mean() < 0.05:
                continue
            self.name = f"film, trained here, drawn again {again} times: {case.name}"
            return case.compare(program, merged, room)
        raise Miss("40 draws that PyTorch's float32 does not hold, or whose film is the same without the LoRA")


class LoraCase:
    def __init__(self, rng, index):
        self.rng, self.trained = rng, index % 3 == 1
        self.way = self.name = "trained here" if self.trained else "made by PEFT"

    def measure(self, program, folder):
        for again in range(40):
            room = os.path.join(folder, str(again))
            os.mkdir(room)
            share = self.measure_once(program, room)
            if share:
                return share
            self.name = f"drawn again {again + 1} times, {self.way}"
        raise Miss("40 draws that PyTorch's float32 does not hold")

    def measure_once(self, program, folder):
        """None where PyTorch's own float32 misses the limit: large changes of many layers make a network that rounding
        alone moves by a percent."""
        base, merged = os.path.join(folder, "base"), os.path.join(folder, "merged")
        config, module = make_base(self.rng, base)
        if self.trained:
            file, merged = train(self.rng, program, base, folder)
            module.load_lora_adapter(file, prefix="unet")
        else:
            file, what = their_lora(self.rng, module, folder)
            self.name += ": " + what
        inputs = {"sample": normal(self.rng, (2, 4, 16, 16)), "encoder_hidden_states": normal(self.rng, (2, 9, 32))}
        timestep = torch.from_numpy(self.rng.integers(0, 1000, 2))
        run = lambda t: module.to(t)(inputs["sample"].to(t), timestep, inputs["encoder_hidden_states"].to(t)).sample
        module.eval()
        with torch.no_grad():
            single = {"sample": run(torch.float32)}
            with_lora = run(torch.float64)
            module.disable_lora()
            without = run(torch.float64)
        limit = OUTPUT_LIMIT * float(with_lora.norm())
        if difference(single, "sample", with_lora) > limit:
            return None
        if not self.trained:
            run_program([program, "weights", "merge-lora", base, file, merged])
        there, back = os.path.join(folder, "in.safetensors"), os.path.join(folder, "out.safetensors")
        save_file(inputs | {"timestep": timestep}, there)
        run_program([program, "forward", "unet", "--weights", os.path.join(merged, "unet"), "--in", there, "--out", back])
        moved = float((with_lora - without).norm() / with_lora.norm())
        return {"sample": difference(load_file(back), "sample", with_lora) / limit,
                "nothing changed": 0.0 if moved > 1e-3 else 2.0}


def draw(rng, index):
    return FilmCase(rng, index) if index % 3 == 2 else LoraCase(rng, index)
