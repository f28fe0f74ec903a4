"""CLIPTextModel of transformers in random sizes."""
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from common import Case, pick, randomize

COUNT = 8


def draw(rng, index):
    heads = pick(rng, [1, 2, 3, 4, 8])
    vocabulary = int(rng.integers(20, 400))
    config = dict(
        vocab_size=vocabulary, hidden_size=heads * 4 * int(rng.integers(1, 9)),
        intermediate_size=int(rng.integers(10, 300)), num_hidden_layers=int(rng.integers(1, 5)),
        num_attention_heads=heads, max_position_embeddings=pick(rng, [77, 77, 16, 33]),
        hidden_act=pick(rng, ["quick_gelu", "gelu"]), layer_norm_eps=pick(rng, [1e-5, 1e-5, 1e-6, 1e-3]),
        projection_dim=pick(rng, [512, 1024]), bos_token_id=vocabulary - 2, eos_token_id=pick(rng, [2, vocabulary - 1]),
        pad_token_id=pick(rng, [0, 1, vocabulary - 1]))
    module = randomize(CLIPTextModel(CLIPTextConfig(**config)), rng)
    n, t = pick(rng, [1, 2, 3]), int(rng.integers(1, config["max_position_embeddings"] + 1))
    # prompts as a tokenizer gives them: start, words, end, and padding of either kind
    ids = rng.integers(0, vocabulary, (n, t))
    for row in ids:
        end = int(rng.integers(0, t))
        row[0], row[end], row[end + 1:] = vocabulary - 2, vocabulary - 1, pick(rng, [0, vocabulary - 1])

    def save(folder):
        module.save_pretrained(folder)
        return folder

    def run(m, input_ids):
        return {"last_hidden_state": m(input_ids=input_ids).last_hidden_state}

    name = f"[{n},{t}] " + " ".join(f"{k}={v}" for k, v in config.items())
    return Case(name, "text", module, save, {}, run, {"input_ids": torch.from_numpy(ids)}, grad_seed=index)
