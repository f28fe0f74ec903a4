"""kernels.py - single ops of ours and of PyTorch, in turns, each checked for what it can reach.

    kernels.py --program build/equipoise [--batch 8] [--seconds 200] [--only conv2d] [--gate passed] [--out kernels.csv]

`equipoise bench kernels --pipe` says which rows there are and measures ours; for each row every way of
PyTorch that does the same is measured here: rounds run ours, peers, peers, ours. Buffers take turns as
ours do, launches are replayed from a CUDA graph where PyTorch can capture them. The ceilings (a large
product, a large copy) are measured before and after. What time did not suffice for says "not run".
"""
import argparse
import contextlib
import csv
import io
import statistics
import subprocess
import sys
import time

import torch
import torch._functorch.config
import torch.nn.functional as F

from watch import Table, Watch

BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}
GROUP = {"attention": "A", "conv2d": "B", "linear": "C", "groupnorm": "D", "layernorm": "D", "geglu": "D",
         "batchnorm": "D", "adamw": "J", "sq_norm": "J", "copy": "ceiling"}
COLUMNS = ["group", "row", "op", "part", "model", "count", "batch", "shape", "dtype", "ours_us", "p10_us", "p90_us",
           "best_peer_us", "best_peer", "ratio", "spread", "tflops", "tbs", "bound_us", "bound_percent", "peers",
           "clock_mhz", "power_w", "gate", "note"]


class Timer:
    """Median microseconds of one call, `calls` taking turns."""

    def __init__(self, o):
        self.o = o

    def capture(self, calls, times):
        for call in calls * 2:
            call()
        if not self.o.cuda:
            return lambda: [c() for _ in range(times) for c in calls]
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                for _ in range(times):
                    for call in calls:
                        call()
            return graph.replay
        except RuntimeError:  # what cannot be captured is launched one by one
            torch.cuda.synchronize()
            return lambda: [c() for _ in range(times) for c in calls]

    def measure(self, run, launches):
        end = time.monotonic() + self.o.warm_ms / 1000
        while time.monotonic() < end:
            run()
            self.sync()
        if not self.o.cuda:
            took = []
            for _ in range(self.o.samples):
                start = time.perf_counter()
                run()
                took.append(1e6 * (time.perf_counter() - start))
        else:
            marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(self.o.samples)]
            for a, b in marks:
                a.record()
                run()
                b.record()
            self.sync()
            took = [1e3 * a.elapsed_time(b) for a, b in marks]
        return statistics.median(took) / launches

    def sync(self):
        if self.o.cuda:
            torch.cuda.synchronize()


# ---- what PyTorch has for a row: {name: [a call for each set of buffers]} ------------------------

def normal(o, *shape, scale=1.0):
    return (torch.randn(*shape, device=o.device) * scale).to(o.dtype)


def graded(tensors):
    return [t.detach().requires_grad_() for t in tensors]


def conv2d(o, r, part):
    n, h, w, c, k, stride = (r[v] for v in ("n", "h", "w", "c", "k", "stride"))
    pad = [0, 0] if r["valid"] else [r["r"] // 2, r["s"] // 2]
    mask = {"dx": [True, False, False], "dw": [False, True, False]}.get(part)
    ways = {}
    for name, layout in (("nchw", torch.contiguous_format), ("channels_last", torch.channels_last)):
        calls = []
        for _ in range(r["sets"]):
            x = normal(o, n, c, h, w).contiguous(memory_format=layout)
            f = normal(o, k, c, r["r"], r["s"], scale=(c * r["r"] * r["s"]) ** -0.5).contiguous(memory_format=layout)
            if part == "fwd":
                bias = normal(o, k)
                calls.append(lambda x=x, f=f, b=bias: F.conv2d(x, f, b, stride, pad))
            else:
                dy = torch.randn_like(F.conv2d(x, f, None, stride, pad))
                calls.append(lambda x=x, f=f, dy=dy: torch.ops.aten.convolution_backward(
                    dy, x, f, None, [stride] * 2, pad, [1, 1], False, [0, 0], 1, mask))
        ways[name] = calls
    return ways


def linear(o, r, part):
    calls = []
    for _ in range(r["sets"]):
        x, f, b = normal(o, r["n"] * r["h"], r["c"]), normal(o, r["k"], r["c"], scale=r["c"] ** -0.5), normal(o, r["k"])
        dy = normal(o, r["n"] * r["h"], r["k"])
        calls.append({"fwd": lambda x=x, f=f, b=b: F.linear(x, f, b), "dx": lambda f=f, dy=dy: dy @ f,
                      "dw": lambda x=x, dy=dy: dy.t() @ x}[part])
    return {"matmul": calls}


def attention(o, r, part):
    ways = {}
    for name, backend in BACKENDS.items():
        context = contextlib.nullcontext
        if o.cuda:
            from torch.nn.attention import SDPBackend, sdpa_kernel
            context = lambda b=getattr(SDPBackend, backend): sdpa_kernel(b)
        elif name != "flash":
            continue

        def forward(q, k, v, context=context):
            with context():
                return F.scaled_dot_product_attention(q, k, v)

        try:
            calls = []
            for _ in range(r["sets"]):
                # tokens whose heads lie side by side, as the models have them
                q, k, v = graded(normal(o, r["n"], t, r["heads"], r["c"] // r["heads"]).transpose(1, 2)
                                 for t in (r["h"], r["w"], r["w"]))
                if part == "fwd":
                    calls.append(lambda q=q.detach(), k=k.detach(), v=v.detach(), f=forward: f(q, k, v))
                else:
                    y = forward(q, k, v)
                    calls.append(lambda y=y, dy=torch.randn_like(y), x=(q, k, v): torch.autograd.grad(
                        y, x, dy, retain_graph=True))
            calls[0]()
            ways["sdpa " + name] = calls
        except RuntimeError:  # a backend that does not take this shape
            continue
    return ways


def fused(o, r, part, function, make):
    """function on make(), eager and compiled."""
    ways = {}
    for name in ["eager", "compiled"] if o.compile else ["eager"]:
        run, calls = torch.compile(function, dynamic=False) if name == "compiled" else function, []
        for _ in range(r["sets"]):
            x = graded(make())
            if part == "fwd":
                calls.append(lambda x=[t.detach() for t in x], f=run: f(*x))
            else:
                y = run(*x)
                calls.append(lambda y=y, dy=torch.randn_like(y), x=x: torch.autograd.grad(y, x, dy, retain_graph=True))
        ways[name] = calls
    return ways


def norm(o, r, part):
    c, ways = r["c"], {}
    rows = lambda width: normal(o, r["n"] * r["h"], width)
    vectors = lambda: [1 + normal(o, c, scale=0.1), normal(o, c, scale=0.1)]
    if r["op"] == "layernorm":
        return fused(o, r, part, lambda x, g, b: F.layer_norm(x, (c,), g, b), lambda: [rows(c), *vectors()])
    if r["op"] == "geglu":
        def geglu(x):
            value, gate = x.chunk(2, -1)
            return value * F.gelu(gate)
        return fused(o, r, part, geglu, lambda: [rows(c)])
    groups = 32
    while c % groups:
        groups //= 2
    function = lambda x, g, b: F.silu(F.group_norm(x, groups, g, b))
    if r["op"] == "batchnorm":
        function = lambda x, g, b: F.relu(F.batch_norm(x, None, None, g, b, True, 0.1, 1e-3))
    for name, layout in (("nchw", torch.contiguous_format), ("channels_last", torch.channels_last)):
        image = lambda m=layout: normal(o, r["n"], c, r["h"], r["w"]).contiguous(memory_format=m)
        for how, calls in fused(o, r, part, function, lambda: [image(), *vectors()]).items():
            ways[f"{name} {how}"] = calls
    return ways


def sweep(o, r, _):
    count = r["bytes"] // {"adamw": 38 if o.dtype == torch.bfloat16 else 36, "sq_norm": 4, "copy": 8}[r["op"]]
    make = lambda: torch.randn(count, device=o.device)
    if r["op"] == "copy":
        a, b = make(), make()
        return {"copy_": [lambda: a.copy_(b)]}
    if r["op"] == "sq_norm":
        a = make()
        return {"vector_norm": [lambda: torch.linalg.vector_norm(a)]}
    p = torch.nn.Parameter(make())
    p.grad, average, half = make(), make(), torch.empty(count, device=o.device, dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW([p], lr=1e-4, weight_decay=1e-2, fused=True, capturable=o.cuda)

    def step():
        optimizer.step()
        with torch.no_grad():
            average.lerp_(p, 1e-3)
            if o.dtype == torch.bfloat16:
                half.copy_(p)
    return {"fused adamw, lerp, cast": [step]}


MAKE = {"conv2d": conv2d, "linear": linear, "attention": attention, "groupnorm": norm, "layernorm": norm, "geglu": norm,
        "batchnorm": norm, "adamw": sweep, "sq_norm": sweep, "copy": sweep}


# ---- rows ----------------------------------------------------------------------------------------

class Ours:
    def __init__(self, o):
        self.command = [o.program, "bench", "kernels", "--device", o.device, "--precision", o.precision, "--batch",
                        str(o.batch), "--samples", str(o.samples), "--warm-ms", str(o.warm_ms), "--shrink", str(o.shrink),
                        "--rotate-mib", str(o.rotate_mib)] + (["--libraries"] if o.libraries else [])

    def list(self):
        run = subprocess.run(self.command + ["--list"], capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(run.stderr.strip())
        return list(csv.DictReader(io.StringIO(run.stdout)))

    def open(self):
        self.process = subprocess.Popen(self.command + ["--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.header = self.process.stdout.readline().strip().split(",")

    def measure(self, number):
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"kernels: ours ended with exit code {self.process.wait()} at row {number}")
        return dict(zip(self.header, next(csv.reader([line]))))

    def close(self):
        self.process.stdin.close()
        return self.process.wait()


def numbers(row):
    return {k: int(v) if v.lstrip("-").isdigit() else v for k, v in row.items()}


def ceilings(o, timer):
    """TFLOP/s of a large bf16 product on random data, TB/s of a large copy."""
    if not o.cuda:
        return 0.0, 0.0
    a, b = (torch.randn(8192, 8192, device=o.device, dtype=torch.bfloat16) for _ in range(2))
    x, y = (torch.randn(1 << 28, device=o.device) for _ in range(2))
    product, copy = timer.measure(lambda: a @ b, 1), timer.measure(lambda: x.copy_(y), 1)
    return 2 * 8192 ** 3 / product * 1e-6, 2 * 4 * 2 ** 28 / copy * 1e-6


def bound_us(row, tflops, tbs):
    if not tflops:
        return None
    return max(float(row["flops"]) / tflops, float(row["bytes"]) / tbs) * 1e-6


def peers_of(o, timer, first):
    """{name: function that measures it}, and what went wrong."""
    r, ways, wrong = numbers(first), {}, ""
    times = max(1, r["launches"] // r["sets"])
    if o.compile:
        torch._dynamo.reset()  # it stops compiling a function that it has seen at many shapes
    try:
        for name, calls in MAKE[r["op"]](o, r, r["part"]).items():
            run = timer.capture(calls, times)
            ways[name] = lambda run=run, n=len(calls) * times: timer.measure(run, n)
    except RuntimeError as e:
        wrong = f"peer: {str(e).splitlines()[0][:100]}"
    return ways, wrong


def libraries_of(ours, numbers):
    """The same row computed by cuBLASLt and cuDNN through our program: {name: function that measures it}."""
    first = {name: ours.measure(number) for name, number in numbers.items()}
    return {"ours by " + name: lambda number=numbers[name]: float(ours.measure(number)["median_us"])
            for name, row in first.items() if row["median_us"]}


def compare(o, ours, timer, number, top, watch, libraries):
    start = time.monotonic()
    first = ours.measure(number)
    out = {k: first[k] for k in ("op", "part", "model", "count", "dtype", "tflops", "tbs")}
    if not first["median_us"]:
        return {**out, "note": first["note"]}
    ways, wrong = peers_of(o, timer, first)
    ways.update(libraries_of(ours, libraries))
    rounds = [[m() for m in ways.values()] for _ in range(2)]
    second = ours.measure(number)
    mine = [float(v["median_us"]) for v in (first, second)]
    middle = statistics.median(mine)
    took = {name: statistics.median(r[i] for r in rounds) for i, name in enumerate(ways)}
    best = min(took, key=took.get) if took else ""
    bound = bound_us(first, *top)
    clock, power = watch.mean(start)
    ratios = [min(r) / m for r, m in zip(rounds, mine)] if took else []
    return {**out, "ours_us": f"{middle:.3f}", "p10_us": first["p10_us"], "p90_us": first["p90_us"],
            "best_peer_us": f"{took[best]:.3f}" if took else "", "best_peer": best,
            "ratio": f"{statistics.median(ratios):.3f}" if ratios else "",
            "spread": f"{abs(mine[0] - mine[1]) / middle:.3f}", "bound_us": f"{bound:.3f}" if bound else "",
            "bound_percent": f"{100 * bound / middle:.1f}" if bound else "",
            "peers": "; ".join(f"{k} {v:.3f}" for k, v in took.items()), "clock_mhz": clock, "power_w": power, "note": wrong}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", default="build/equipoise")
    p.add_argument("--device", default="cuda")
    p.add_argument("--precision", default="auto")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--samples", type=int, default=51)
    p.add_argument("--warm-ms", type=int, default=200)
    p.add_argument("--rotate-mib", type=int, default=192)
    p.add_argument("--shrink", type=int, default=1)
    p.add_argument("--seconds", type=float, default=1e9, help="no row starts later")
    p.add_argument("--only", default="", help="rows whose op and part begin so")
    p.add_argument("--libraries", action="store_true", help="convolutions and linear layers by cuBLASLt and cuDNN too")
    p.add_argument("--compile", action="store_true", help="torch.compile too")
    p.add_argument("--gate", default="not run", help="what the tests of the kernels said; goes into every row")
    p.add_argument("--out", default="kernels.csv")
    o = p.parse_args()
    end = time.monotonic() + o.seconds
    o.cuda = o.device.startswith("cuda") and torch.cuda.is_available()
    o.dtype = torch.bfloat16 if o.device.startswith("cuda") and o.precision != "fp32" else torch.float32
    ours, timer, watch, rows = Ours(o), Timer(o), Watch(), Table(o.out, COLUMNS)
    o.device = o.device if o.cuda else "cpu"
    torch.backends.cudnn.benchmark = True
    if o.compile:  # gradients are taken again and again from one forward pass
        torch._functorch.config.donated_buffer = False
    todo = [r for r in ours.list() if f"{r['op']} {r['part']}".startswith(o.only)]
    key = lambda r: [r[k] for k in ("op", "part", "model", "h", "w", "c", "k", "r", "s", "stride", "valid")]
    others, todo = [r for r in todo if r["kernel"] != "ours"], [r for r in todo if r["kernel"] == "ours"]
    ours.open()
    with torch.cuda.stream(torch.cuda.Stream()) if o.cuda else contextlib.nullcontext():
        top = ceilings(o, timer)
        for r in todo:
            shape = "{h}x{w}x{c} -> {k}, {r}x{s}/{stride}".format(**r)
            if r["op"] == "attention":
                shape = f"{r['h']} queries, {r['w']} keys, {r['heads']} heads of {int(r['c']) // max(1, int(r['heads']))}"
            if GROUP[r["op"]] in ("J", "ceiling"):
                shape = f"{r['h']} Mi floats"
            row = {"group": GROUP[r["op"]], "row": r["case"], "op": r["op"], "part": r["part"], "model": r["model"],
                   "count": r["count"], "batch": r["n"], "shape": shape, "gate": o.gate}
            if time.monotonic() < end:
                same = {x["kernel"]: int(x["case"]) for x in others if key(x) == key(r)}
                row.update(compare(o, ours, timer, int(r["case"]), top, watch, same))
            else:
                row["note"] = "not run: out of time"
            rows.add(row)
            print(" ".join(str(row.get(k, "")) for k in ("op", "part", "shape", "ours_us", "best_peer_us", "best_peer",
                                                         "ratio", "bound_percent", "note")), flush=True)
            if o.cuda:
                torch.cuda.empty_cache()
        after = ceilings(o, timer)
    ours.close()
    for name, values in (("before", top), ("after", after)):
        rows.add({"group": "ceiling", "op": f"PyTorch, {name}", "tflops": f"{values[0]:.1f}", "tbs": f"{values[1]:.3f}",
                  "note": "8192^3 bf16 product; 1 GiB copy, read and written"})
    watch.close()


if __name__ == "__main__":
    sys.exit(main())
