"""Token ids of 10,000 strings against transformers' CLIPTokenizer (Rust `tokenizers` behind it): all 77 equal.

Prompts, accents, emoji, white space, digits, long text, special tokens, characters of all of Unicode, marks in any order,
and hostile bytes: broken UTF-8 goes to Equipoise as it is and to transformers as Python decodes it with errors="replace"
(each maximal broken piece is U+FFFD). Without NUL and surrogates, which no command line holds. A case is 1,000 strings, read
by the test program (`test_tokenizer FILE FOLDER`). Values are strings that differ; the limit is none. The first case has the
folder in samples/; the others the same vocabulary in other files: vocab.json and merges.txt, tokenizer.json, or both, with
special tokens said here or there and flagged at random.
"""
import functools
import json
import os
import shutil
import subprocess
import tempfile
import unicodedata

import transformers

from common import Miss, pick

COUNT = 10
HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "..", "..", "samples", "base", "tokenizer")
EACH, LENGTH = 1000, 77
WORDS = """chest X-ray of a child with bacterial pneumonia viral normal, no findings. AP view: right lower lobe consolidation;
bronchopneumonia PA & lateral (2.5 cm) T1-weighted it's don't we'll I've they're I'm he'd 'S 'RE ''ll '' 's 1930s 8k 120kVp
512x512 3.14 1e-5 café naïve İstanbul ΣΊΣΥΦΟΣ straße STRASSE ﬁne ŉ ǅ Å K 胸部X線写真 肺炎 흉부 ひらがな рентген صدر חזה ภาพเอกซเรย์
छाती ① ½ Ⅷ ² ٣ ४ 👍 👍🏽 👨‍👩‍👧‍👦 🩻 🫁 🇩🇪 … “quoted” x²+y³ °C ﷺ <|endoftext|> <|startoftext|> <|STARTOFTEXT|> <|EndOfText|>
<| |> </w> a</w>b #hashtag @user http://example.org/a?b=c $5.00 50% !!! ... -- _a_ ~`^""".split()
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\x0b", "\x0c", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u2029", "\u202f",
          "\u205f", "\u3000", "\u200b", "\ufeff", "\x1c", "\x1f", "", ""]
RANGES = [(32, 127), (32, 127), (1, 32), (0x80, 0x250), (0x300, 0x370), (0x370, 0x590), (0x590, 0x900), (0x900, 0xe00),
          (0xe00, 0x1100), (0x1100, 0x1400), (0x1ab0, 0x1b00), (0x1c80, 0x1d00), (0x1dc0, 0x2000), (0x2000, 0x2500),
          (0x3000, 0x3100), (0x4e00, 0xa000), (0xa640, 0xa800), (0xac00, 0xd7b0), (0xf900, 0x10000), (0x10000, 0x12000),
          (0x16000, 0x17000), (0x1d400, 0x1d800), (0x1e000, 0x1f000), (0x1f000, 0x20000), (0x2eb00, 0x30000),
          (1, 0x110000)]
MARKS = [chr(c) for c in range(0x110000) if unicodedata.combining(chr(c))] + [chr(c) for c in range(0x11930, 0x11939)]


def anywhere(rng):
    low, high = pick(rng, RANGES)
    c = int(rng.integers(low, high))
    return "" if 0xd800 <= c < 0xe000 else chr(c)


def text(rng):
    kind = int(rng.integers(8))
    n = int(pick(rng, [1, 2, 4, 9, 30]))
    if kind < 3:
        return "".join(pick(rng, WORDS) + pick(rng, SPACES[:2] if kind else SPACES) for _ in range(n))
    if kind == 3:
        return "".join(anywhere(rng) for _ in range(n))
    if kind == 4:
        return "".join(pick(rng, WORDS) + pick(rng, SPACES) + anywhere(rng) * int(rng.integers(4)) for _ in range(n))
    if kind == 5:
        return "".join(anywhere(rng) + "".join(pick(rng, MARKS) for _ in range(int(rng.integers(4)))) for _ in range(n))
    if kind == 6:
        return "".join(str(int(rng.integers(10 ** int(rng.integers(1, 12))))) + pick(rng, SPACES + [".", ",", "e"]) for _ in range(n))
    return (pick(rng, WORDS) + pick(rng, SPACES)) * int(rng.integers(1, 300))


def damage(rng, raw):
    """Bytes cut, doubled, changed and put between."""
    raw = bytearray(raw)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(raw) + 1))
        if rng.random() < 0.5 or at == len(raw):
            raw[at:at] = bytes(int(b) for b in rng.integers(1, 256, int(rng.integers(1, 5))))
        else:
            del raw[at:at + int(rng.integers(1, 3))]
    return bytes(raw)


@functools.cache
def one_file():
    """The text of the tokenizer.json that transformers writes."""
    with tempfile.TemporaryDirectory() as folder:
        transformers.CLIPTokenizer.from_pretrained(FOLDER).save_pretrained(folder)
        with open(os.path.join(folder, "tokenizer.json")) as f:
            return f.read()


def token(rng, text):
    return dict(content=text, single_word=False, lstrip=False, rstrip=False, normalized=pick(rng, [True, False]), special=True)


def lay_out(rng, folder):
    """Fills the folder, and says how."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    ids = {start: 49406, end: 49407, "!": 0}
    kind, says = pick(rng, ["pair", "json", "both"]), []
    if kind != "json":
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(os.path.join(FOLDER, name), folder)
    if kind != "pair":
        whole = json.loads(one_file())
        listed = pick(rng, [[start, end], [start, end], [end], ["!", start, end], []])
        whole["added_tokens"] = [token(rng, t) | {"id": ids[t]} for t in listed]
        with open(os.path.join(folder, "tokenizer.json"), "w") as f:
            json.dump(whole, f)
        says.append(f"lists {len(listed)}")
    roles = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": pick(rng, [end, "!"])}
    if rng.random() < 0.8:
        config = {k: pick(rng, [t, token(rng, t) | {"__type": "AddedToken"}]) for k, t in roles.items()}
        if rng.random() < 0.4:
            decoder = pick(rng, [[start, end], [end], ["!", end], []])
            config["added_tokens_decoder"] = {str(ids[t]): token(rng, t) for t in decoder}
            says.append(f"decoder of {len(decoder)}")
        with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
            json.dump(config | {"tokenizer_class": "CLIPTokenizer"}, f)
        says.append("config")
    if rng.random() < 0.5:
        roles["pad_token"] = pick(rng, [end, "!"])
        with open(os.path.join(folder, "special_tokens_map.json"), "w") as f:
            json.dump({k: pick(rng, [t, token(rng, t)]) for k, t in roles.items()}, f)
        says.append("map")
    return ", ".join([kind] + says)


class Case:
    def __init__(self, rng, index):
        self.files = tempfile.TemporaryDirectory(prefix="parity-") if index else None
        self.folder = self.files.name if index else FOLDER
        layout = lay_out(rng, self.folder) if index else "samples/base"
        self.texts = []
        while len(self.texts) < EACH:
            raw = text(rng).encode()
            if rng.random() < 0.12:
                raw = damage(rng, raw)
            if 0 not in raw and len(raw) <= 16384:
                self.texts.append(raw)
        broken = sum(t.decode(errors="replace").encode() != t for t in self.texts)
        self.name = f"{EACH} strings, {broken} of them broken UTF-8, {layout}"

    def measure(self, program, folder):
        path = os.path.join(folder, "strings")
        with open(path, "wb") as f:
            f.write(b"".join(t + b"\0" for t in self.texts))
        done = subprocess.run([os.path.join(os.path.dirname(program), "test_tokenizer"), path, self.folder], capture_output=True,
                              text=True)
        if done.returncode:
            raise Miss(f"exit {done.returncode}: {done.stderr.strip()}")
        theirs = transformers.CLIPTokenizer.from_pretrained(self.folder)(
            [t.decode(errors="replace") for t in self.texts], truncation=True, max_length=LENGTH, padding="max_length").input_ids
        ours = [[int(v) for v in line.split()] for line in done.stdout.splitlines()]
        if len(ours) != len(theirs):
            raise Miss(f"{len(ours)} lines, expected {len(theirs)}")
        wrong = [t for t, a, b in zip(self.texts, ours, theirs) if a != b]
        for t in wrong[:3]:
            print(f"  {t.decode(errors='replace')!a}"[:200])
        return {"strings that differ": 2.0 * len(wrong)}


def draw(rng, index):
    return Case(rng, index)
