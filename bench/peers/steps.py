"""steps.py - whole models of ours and of PyTorch on a GPU, in turns: UNet calls, training steps.

    steps.py --program build/equipoise [--seconds 200] [--rounds 6] [--long] [--out steps.csv]
    steps.py peer CASE BATCH ...        one process of PyTorch; started by the above

Ours is `equipoise bench --pipe`. The peer's process holds one model and runs a round of the way that a line
on its stdin names: eager or compiled (with CUDA graphs; --long: max-autotune), either layout, each attention
backend. Rounds go A-B-B-A; the ratio is the median over rounds of the peer's time by ours. Both train fp32 weights
with bf16 arithmetic, the same optimizer, clipping and averages, from batches in memory. A way or a row for which time
does not suffice says "not run".
"""
import argparse
import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from compare import bootstrap  # noqa: E402
from watch import Table, Watch  # noqa: E402

BATCHES, WARM_UP, TOKENS, TIMESTEPS, CLASSES = 4, 3, 77, 1000, 2
#       group, case, batch, steps a round, with --long only
CASES = [("F", "unet-call", 2, 20, False), ("H", "unet-train", 8, 3, False), ("I", "inception-train", 64, 8, False),
         ("F", "unet-call", 8, 8, False), ("F", "unet-call", 32, 3, True), ("H", "unet-train", 32, 2, True),
         ("I", "inception-train", 256, 3, True)]
BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}
COLUMNS = ["group", "case", "batch", "way", "median_ms", "min_ms", "max_ms", "ratio", "ratio_low", "ratio_high",
           "samples_per_s", "start_s", "memory_mib", "parameters", "best", "clock_mhz", "power_w", "gate", "note"]


def ways_of(case):
    """What runs uncompiled; of it the best in channels_last is compiled too."""
    if case == "inception-train":
        return ["channels_last eager", "nchw eager"]
    return [f"channels_last eager {b}" for b in BACKENDS] + ["nchw eager flash"]


# ---- the peer --------------------------------------------------------------------------------------

class Peer:
    def __init__(self, o):
        import torch
        import nets
        self.o, self.torch, self.turn, self.compiled, self.layout = o, torch, 0, {}, None
        self.cuda = o.device.startswith("cuda")
        self.half = torch.bfloat16 if self.cuda else torch.float32
        torch.manual_seed(1)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.train = o.case != "unet-call"
        with torch.device(o.device):
            if o.case == "inception-train":
                self.net = nets.Inception(CLASSES, aux=False)
            else:
                with open(f"{o.model}/unet/config.json") as f:
                    self.net = nets.UNet(json.load(f))
        self.net.train(self.train)
        if not self.train:
            self.net.to(self.half)
        self.parameters = list(self.net.parameters())
        self.average = [p.detach().clone() for p in self.parameters] if o.case == "unet-train" else None
        how = {"lr": 1e-4, "fused": True}
        if o.case == "unet-train":
            self.optimizer = torch.optim.AdamW(self.parameters, weight_decay=1e-2, **how)
        elif self.train:
            self.optimizer = torch.optim.SGD(self.parameters, momentum=0.9, weight_decay=1e-4, nesterov=True, **how)
        self.data(BATCHES * o.batch)

    def data(self, n):
        torch, o = self.torch, self.o
        if o.case == "inception-train":
            self.pixel = torch.rand(n, 1, o.size, o.size).pin_memory() if self.cuda else torch.rand(n, 1, o.size, o.size)
            self.label = torch.randint(0, CLASSES, (n,))
            self.weight = torch.tensor([0.5, 7.0], device=o.device)
            return
        c = self.net.config
        side = o.size // 8
        self.latent, self.noise = torch.randn(2, n, c["in_channels"], side, side).unbind()
        self.context = torch.randn(n, TOKENS, c["cross_attention_dim"])
        self.time = torch.randint(0, TIMESTEPS, (n,))
        angle = 0.5 * math.pi * (self.time + 0.5) / TIMESTEPS
        self.cos, self.sin = (v.view(n, 1, 1, 1) for v in (angle.cos(), angle.sin()))

    def run_net(self, way):
        """The network as the way wants it."""
        torch = self.torch
        if "compiled" not in way:
            return self.net
        if way not in self.compiled:
            self.compiled[way] = torch.compile(self.net, mode="max-autotune" if self.o.long else "reduce-overhead")
        return self.compiled[way]

    def set_layout(self, way):
        """True where it has changed: parameters and what follows them have other strides then."""
        torch = self.torch
        layout = torch.channels_last if "channels_last" in way else torch.contiguous_format
        if layout == self.layout:
            return False
        self.layout = layout
        self.net.to(memory_format=layout)
        if self.average:
            self.average = [p.detach().clone() for p in self.parameters]
        if self.train:
            self.optimizer.zero_grad(set_to_none=True)
            self.optimizer.state.clear()
        return True

    def attention(self, way):
        name = way.split()[-1]
        if not self.cuda or name not in BACKENDS:
            return contextlib.nullcontext()
        from torch.nn.attention import SDPBackend, sdpa_kernel
        # what the backend does not take (heads of 512, keys of a length of its own) goes another way
        return sdpa_kernel([getattr(SDPBackend, BACKENDS[name]), SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
                           set_priority=True)

    def step(self, way):
        torch, o = self.torch, self.o
        at = slice(self.turn % BATCHES * o.batch, (self.turn % BATCHES + 1) * o.batch)
        self.turn += 1
        run, layout = self.run_net(way), self.layout
        to = lambda t: t[at].to(o.device, non_blocking=True)
        torch.compiler.cudagraph_mark_step_begin()
        cast = torch.autocast("cuda", torch.bfloat16) if self.cuda and self.train else contextlib.nullcontext()
        if o.case == "inception-train":
            image = (2 * to(self.pixel) - 1).expand(-1, 3, -1, -1).contiguous(memory_format=layout)
            with cast:
                logits = run(image)[0]
            return self.update(torch.nn.functional.cross_entropy(logits.float(), to(self.label), self.weight))
        latent, noise, cos, sin = (to(v) for v in (self.latent, self.noise, self.cos, self.sin))
        noisy = (cos * latent + sin * noise).contiguous(memory_format=layout)
        with self.attention(way), cast:
            if not self.train:
                with torch.no_grad():
                    return run(noisy.to(self.half), to(self.time), to(self.context).to(self.half))
            prediction = run(noisy, to(self.time), to(self.context))
            loss = (prediction.float() - (cos * noise - sin * latent)).square().mean()
            return self.update(loss)

    def update(self, loss):
        torch = self.torch
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.average:
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        if self.average:
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1e-4)
        return loss.item()

    def round(self, way, steps):
        if self.set_layout(way):
            self.step(way)
        if self.cuda:
            self.torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            self.step(way)
            if self.cuda and not self.train:
                self.torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start) / steps


def serve(o):
    """A line in: "warm WAY" or "WAY"; a line of JSON out."""
    if o.seconds < 1e6:
        signal.alarm(max(1, int(o.seconds)))  # compiling cannot be asked to stop
    peer = Peer(o)
    print(json.dumps({"parameters": sum(p.numel() for p in peer.parameters)}), flush=True)
    for line in sys.stdin:
        way, warm = line.strip().removeprefix("warm "), line.startswith("warm ")
        try:
            start = time.perf_counter()
            ms = peer.round(way, WARM_UP if warm else o.steps)
            if warm:
                ms = 1e3 * (time.perf_counter() - start)
            mib = peer.torch.cuda.max_memory_allocated() / 2 ** 20 if peer.cuda else 0
            answer = {"ms": ms, "memory_mib": round(mib)}
        except Exception as e:  # a way that this machine or PyTorch does not have: said in its row
            answer = {"error": f"{type(e).__name__}: {str(e).splitlines()[0][:120] if str(e) else ''}"}
        print(json.dumps(answer), flush=True)
    return 0


# ---- the driver --------------------------------------------------------------------------------------

class Process:
    """Starts at once; open() waits until it is warm."""

    def __init__(self, command):
        self.start = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def open(self):
        self.head = self.read()
        self.opened_s = time.monotonic() - self.start
        return self.head

    def read(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        return {"error": "out of time" if code == -signal.SIGALRM else f"ended with exit code {code}"}

    def ask(self, line=""):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.read()

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait()


def ours_command(o, case, batch, steps):
    inception = case == "inception-train"
    size = [f"--{k}={v}" for k, v in (("device", o.device), ("batch", batch), ("steps-per-round", steps),
                                      ("size", o.inception_size if inception else o.size))]
    return [o.program, "bench", "inception" if inception else "unet", "--pipe", *size,
            *(["--width=1"] if inception else [f"--model={o.model}"]), *["--forward"] * (case == "unet-call")]


def peer_command(o, case, batch, steps, left):
    size = o.inception_size if case == "inception-train" else o.size
    return [sys.executable, os.path.abspath(__file__), "peer", case, str(batch), "--device", o.device, "--model", o.model,
            "--size", str(size), "--steps", str(steps), "--seconds", str(left), *["--long"] * o.long]


def warm(peer, ways):
    """{way: seconds of its start}, {way: why it is not there}."""
    ready, missing = {}, {}
    for way in ways:
        answer = peer.ask("warm " + way)
        if "error" in answer:
            missing[way] = "not run: " + answer["error"]
        else:
            ready[way] = answer["ms"] / 1e3
    return ready, missing


def rounds(o, ours, peer, ways, end):
    """({way: ms of each round}, memory of each)."""
    took, memory = {"ours": [], **{w: [] for w in ways}}, {}
    for i in range(o.rounds):
        order = ["ours", *ways] if i % 2 == 0 else [*reversed(ways), "ours"]
        answers = {w: (ours.ask() if w == "ours" else peer.ask(w)) for w in order}
        if any("ms" not in a for a in answers.values()):
            break
        for w, a in answers.items():
            took[w].append(a["ms"])
            memory[w] = a.get("memory_mib", "")
        if time.monotonic() > end:
            break
    return took, memory


def rows_of(head, took, memory, start_s, batch, clocks):
    rows = []
    for w, ms in took.items():
        if not ms:
            rows.append({**head, "way": w, "note": "not run: the peer stopped before a round was complete"})
            continue
        ratios, middle = [a / b for a, b in zip(ms, took["ours"])], statistics.median(ms)
        low, high = bootstrap(ratios)
        rows.append({**head, "way": w, "median_ms": f"{middle:.3f}", "min_ms": f"{min(ms):.3f}",
                     "max_ms": f"{max(ms):.3f}", "ratio": f"{statistics.median(ratios):.3f}", "ratio_low": f"{low:.3f}",
                     "ratio_high": f"{high:.3f}", "samples_per_s": f"{1e3 * batch / middle:.1f}",
                     "start_s": f"{start_s[w]:.1f}", "memory_mib": memory.get(w, ""), "clock_mhz": clocks[0],
                     "power_w": clocks[1]})
    return rows


def run_ways(o, head, ours, peer, ways, batch, end, watch):
    """Rows of some ways, warmed up and then in turns with ours."""
    ready, missing = warm(peer, ways)
    begun = time.monotonic()
    took, memory = rounds(o, ours, peer, list(ready), end)
    rows = rows_of(head, took, memory, {"ours": ours.opened_s, **ready}, batch, watch.mean(begun))
    return rows + [{**head, "way": w, "note": why} for w, why in missing.items()]


def fastest(rows):
    return min((r for r in rows if r["way"] != "ours" and "median_ms" in r), key=lambda r: float(r["median_ms"]), default=None)


def run_case(o, group, case, batch, steps, end, watch):
    head = {"group": group, "case": case, "batch": batch, "gate": o.gate}
    ours = Process(ours_command(o, case, batch, steps))
    peer = Process(peer_command(o, case, batch, steps, end - time.monotonic()))
    try:
        for name, process in (("ours", ours), ("all of PyTorch's", peer)):
            if "error" in process.open():
                return [{**head, "way": name, "note": "not run: " + process.head["error"]}]
        if peer.head["parameters"] != ours.head["parameters"]:
            raise SystemExit(f"{case}: ours has {ours.head['parameters']} parameters, the peer {peer.head['parameters']}")
        head["parameters"] = ours.head["parameters"]
        rows = run_ways(o, head, ours, peer, ways_of(case), batch, end, watch)
        best = fastest([r for r in rows if r["way"].startswith("channels_last")])
        way = (best["way"] if best else "channels_last eager").replace("eager", "compiled")
        if best and end - time.monotonic() > o.compile_s:
            rows += run_ways(o, head, ours, peer, [way], batch, end, watch)
        else:
            rows.append({**head, "way": way, "note": "not run: out of time"})
    finally:
        ours.close(), peer.close()
    if fastest(rows):
        fastest(rows)["best"] = "best peer"
    return rows


def drive(o):
    end, rows, watch = time.monotonic() + o.seconds, Table(o.out, COLUMNS), Watch()
    for group, case, batch, steps, late in CASES:
        if o.only and o.only not in f"{case} {batch}":
            continue
        if late and not o.long or time.monotonic() > end - o.least_s:
            why = "not run: --long" if late and not o.long else "not run: out of time"
            more = [{"group": group, "case": case, "batch": batch, "way": "ours", "gate": o.gate, "note": why}]
        else:
            # what is left is shared by the cases that are left
            left = sum(not c[4] or o.long for c in CASES[CASES.index((group, case, batch, steps, late)):])
            share = time.monotonic() + (end - time.monotonic()) / left
            more = run_case(o, group, case, min(batch, o.most_batch), min(steps, o.most_steps), share, watch)
        for r in more:
            rows.add(r)
            print(" ".join(str(r.get(k, "")) for k in ("case", "batch", "way", "median_ms", "ratio", "best", "note")), flush=True)
    watch.close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peer = len(sys.argv) > 1 and sys.argv[1] == "peer"
    if peer:
        p.add_argument("peer")
        p.add_argument("case")
        p.add_argument("batch", type=int)
        p.add_argument("--steps", type=int, default=3)
    p.add_argument("--program", default="build/equipoise")
    p.add_argument("--device", default="cuda")
    p.add_argument("--model", default=os.path.join(HERE, "sd15"), help="folder with unet/config.json")
    p.add_argument("--size", type=int, default=512, help="px; latents have an eighth")
    p.add_argument("--inception-size", type=int, default=299)
    p.add_argument("--seconds", type=float, default=1e9)
    p.add_argument("--least-s", type=float, default=20, help="no case starts with less left")
    p.add_argument("--compile-s", type=float, default=40, help="nothing is compiled with less left")
    p.add_argument("--rounds", type=int, default=6)
    p.add_argument("--only", help="cases whose name and batch have this in them")
    p.add_argument("--most-batch", type=int, default=1 << 20, help="to try it out")
    p.add_argument("--most-steps", type=int, default=1 << 20, help="to try it out")
    p.add_argument("--long", action="store_true", help="large batches too; PyTorch tunes as long as it wants")
    p.add_argument("--gate", default="not run", help="what the comparison of the models said; goes into every row")
    p.add_argument("--out", default="steps.csv")
    o = p.parse_args()
    return serve(o) if peer else drive(o)


if __name__ == "__main__":
    sys.exit(main())
