"""Makes samples/base/tokenizer from CLIP's merges: make_tokenizer.py bpe_simple_vocab_16e6.txt.gz

The input is clip/bpe_simple_vocab_16e6.txt.gz of github.com/openai/CLIP at commit
d05afc436d78f1c48dc0dbf8e5980a9d471f35f6 (MIT). The output is the layout that published models
have, with the special tokens of Stable Diffusion 1.5. Needs nothing but Python.
"""
import gzip
import hashlib
import json
import pathlib
import sys

SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
N_MERGES = 48894
OUT = pathlib.Path(__file__).resolve().parents[3] / "samples" / "base" / "tokenizer"
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_symbols():
    """The 256 bytes as printable characters, in the vocabulary's order."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in prints]
    return [chr(b) for b in prints] + [chr(256 + i) for i in range(len(others))]


def special(token):
    return {"content": token, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def main():
    packed = pathlib.Path(sys.argv[1]).read_bytes()
    assert hashlib.sha256(packed).hexdigest() == SHA256, "another file than the published one"
    merges = gzip.decompress(packed).decode().split("\n")[1 : 1 + N_MERGES]
    symbols = byte_symbols()
    tokens = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges] + [START, END]
    vocab = {token: i for i, token in enumerate(tokens)}
    assert len(vocab) == 49408

    OUT.mkdir(parents=True, exist_ok=True)
    roles = {"bos_token": special(START), "eos_token": special(END), "pad_token": END, "unk_token": special(END)}
    config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77,
              "tokenizer_class": "CLIPTokenizer", **roles}
    (OUT / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
    (OUT / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    (OUT / "tokenizer_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    (OUT / "special_tokens_map.json").write_text(json.dumps(roles, indent=2, sort_keys=True) + "\n", "utf-8")


main()
