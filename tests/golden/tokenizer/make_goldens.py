"""Makes golden.json: token ids by transformers' CLIPTokenizer for strings of every kind.

Run with the packages of tests/golden/requirements.txt. Random strings hold characters of all ages: the libraries' tables
differ in these (differences.py).
"""
import json
import os
import pathlib
import random
import tempfile

import transformers

ROOT = pathlib.Path(__file__).resolve().parents[3]
BASE = ROOT / "samples" / "base" / "tokenizer"
LENGTH = 77

PROMPTS = """a chest X-ray of a child with bacterial pneumonia
a chest X-ray of a child with viral pneumonia
a normal chest X-ray, no findings
Chest radiograph, AP view: right lower lobe consolidation.
Frontal chest x-ray showing bronchopneumonia
Frontal chest x-ray showing bronchiolitis
PA & lateral views; cardiothoracic ratio 0.52
opacities in the left upper lobe (2.5 cm)
bilateral perihilar infiltrates / peribronchial cuffing
No pleural effusion or pneumothorax.
T1-weighted vs. T2-weighted
in the style of a 1930s radiograph, grainy, high contrast, 8k, trending on artstation
photo of an astronaut riding a horse on mars
A CT scan at 120kVp, 3mm slices, 512x512
the patient's lungs aren't clear; they're hazy, we've seen it, I'm sure it'll get better, he'd say
IT'S DON'T WE'LL I'VE THEY'RE I'M HE'D
'''s''t''re''ve
''s '' s' 'S 'Ll 'vE 'rE
don''t won'''t rock'n'roll 'tis o'clock
""".split("\n")

SPECIALS = ["<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "a<|endoftext|>b", "<|STARTOFTEXT|>",
            "<|EndOfText|>", "x<|EndOfText|>y", "<|startoftext|>!! wow", "!!<|startoftext|>", "<|endoftext|>" * 4,
            "<|", "|>", "<|endoftext", "endoftext|>", "< | endoftext | >", "<|endoftext|><|startoftext|>",
            "<|ENDOFTEXT|>!!!", "</w>", "a</w>b", "Ġword", "#version: 0.2", "<|padding|>"]

UNICODE = ["café", "cafe\u0301", "naïve façade", "Ünïcode", "İstanbul", "I\u0307", "ΣΊΣΥΦΟΣ", "ὈΔΥΣΣΕΎΣ", "straße STRASSE",
           "ﬁne ﬂow", "ŉ ǅ Ǆ ǆ", "Å Å A\u030a", "Ω Ω", "K k K", "胸部X線写真", "肺炎 の 小児", "흉부 X선 가나다", "\u1112\u1161\u11ab",
           "ひらがな カタカナ ﾊﾝｶｸ", "рентген грудной клетки", "صدر أشعة", "רנטגן חזה", "ภาพเอกซเรย์ปอด", "छाती का एक्स-रे", "① ½ Ⅷ ² ٣ ४ ๕",
           "👍", "👍🏽", "👨‍👩‍👧‍👦", "🩻 🫁", "🇩🇪🇨🇳", "a\u0301\u0327 a\u0327\u0301", "\u0301", "\u200d", "\u200b zero width", "\ufeffbom", "\ufffd",
           "\u180e", "…—–“”‘’«»", "‘s ’s it’s", "x² + y³ = z₁", "π≈3.14159", "10⁻³ µm μm", "°C ℃ ℉", "№ ™ ® ©", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "Ａｂｃ１２３",
           "\U0010fffd", "\ue000", "ẞ ſ", "ᾳ ᾼ", "ǰ ΐ ΰ", "ﷺ", "Ⓐ ⓐ", "Ა ა", "Ꭰ ꭰ", "Ⅷⅷ"]

SPACES = ["", " ", "   ", "\t", "\n\n", "  lead", "trail  ", "a  b\tc\nd\r\ne\x0bf\x0cg", "a\xa0b\u2003c\u3000d\u2028e\u2029f\u202fg\u205fh\u1680i",
          "a\x85b", "a\x1cb\x1db\x1eb\x1fb", "a\x01b\x7fc", "a\u200bb"]

PUNCTUATION = ["!", "!!", "!!!", "!!!!!!!!", "...", "....", ".....", "?!?!", "--", "---", "#hashtag @user", "$5.00 50% off", "a,b;c:d",
               "()[]{}<>", "///\\\\\\", "~`^_=+*&|", "http://example.org/a?b=c&d=e#f", "name@example.org", "C:\\temp\\x.png", "1,234.56",
               "0", "00", "007", "1234567890", "3.14", "1e-5", "x1y2z3", "2024-05-17T12:34:56Z", "a'b", "'", "''", "'''", "\"", "``", "-1", "+1"]

LONG = ["lung " * 100, "a" * 500, "!" * 300, "é" * 200, "1" * 200, "pneumonia, " * 60, "supercalifragilisticexpialidocious" * 10,
        "word " * 74 + "end", "word " * 75 + "end", "word " * 76 + "end", "肺" * 120, "👍" * 90, "ab<|endoftext|>" * 50]

RANGES = [(32, 126), (32, 126), (0xa0, 0x24f), (0x300, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0xbff), (0xe00, 0xe7f),
          (0x1e00, 0x206f), (0x2070, 0x24ff), (0x3000, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0xf900, 0xffff),
          (0x1f300, 0x1faff), (1, 31), (0x1c80, 0x1c8f), (0x1ab0, 0x1ad0), (0xa7c0, 0xa7df), (0x105c0, 0x105f3), (0x10d20, 0x10d85),
          (0x11930, 0x11945), (0x16ea0, 0x16ec0), (0x1e2e0, 0x1e2ff), (0x2ebf0, 0x2ec20)]


def random_string(rng):
    words = " ".join(PROMPTS + UNICODE + SPECIALS + PUNCTUATION).split(" ")
    parts = []
    for _ in range(rng.choice([1, 2, 4, 8, 20])):
        if rng.random() < 0.5:
            parts.append(rng.choice(words))
        else:
            low, high = rng.choice(RANGES)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 6))))
    text = rng.choice(["", " ", "  "]).join(parts)
    return "".join(c for c in text if not 0xd800 <= ord(c) < 0xe000)


def main():
    rng = random.Random(1)
    texts = PROMPTS + SPECIALS + UNICODE + SPACES + PUNCTUATION + LONG
    texts += [random_string(rng) for _ in range(250)]
    variants = []
    for pad in ["<|endoftext|>", "!"]:
        with tempfile.TemporaryDirectory() as folder:
            for name in ["vocab.json", "merges.txt", "tokenizer_config.json"]:
                os.symlink(BASE / name, f"{folder}/{name}")
            roles = json.loads((BASE / "special_tokens_map.json").read_text())
            pathlib.Path(folder, "special_tokens_map.json").write_text(json.dumps({**roles, "pad_token": pad}))
            tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
            chosen = texts if pad != "!" else PUNCTUATION + SPECIALS
            rows = [[t, tokenizer(t, truncation=True, max_length=LENGTH).input_ids] for t in chosen]
            variants.append({"pad": pad, "pad_id": tokenizer.pad_token_id, "rows": rows})
    golden = {"transformers": transformers.__version__, "length": LENGTH, "variants": variants}
    lines = json.dumps(golden, separators=(",", ":")).replace("],[\"", "],\n[\"")
    pathlib.Path(__file__).with_name("golden.json").write_text(lines + "\n")
    print(sum(len(v["rows"]) for v in variants), "strings")


main()
