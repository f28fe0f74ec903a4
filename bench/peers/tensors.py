"""tensors.py - safetensors files with torch alone: 8 bytes of length, a JSON header, the bytes."""
import json
import struct

import torch

TYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I64": torch.int64,
         "I32": torch.int32}
NAMES = {v: k for k, v in TYPES.items()}


def save(path, tensors):
    header, at = {}, 0
    flat = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    for name, t in flat.items():
        size = t.numel() * t.element_size()
        header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in flat.values():
            if t.numel():
                f.write(t.reshape(-1).view(torch.uint8).numpy())


def load(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = bytearray(f.read())
    out = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            raw = torch.frombuffer(data, dtype=torch.uint8)[first:end]
            out[name] = raw.clone().view(TYPES[entry["dtype"]]).reshape(entry["shape"])
    return out
