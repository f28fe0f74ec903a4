"""compare.py - one training step of ours against the same in PyTorch, interleaved.

    compare.py [unet] [inception] [--rounds 11] [--threads 2] [--compile] [--out bench/results/CPU/step.csv]

Every way of running (ours; PyTorch in each layout, compiled too with --compile) is a process of its
own that waits for its turn. Rounds run A-B-B-A. The ratio is the median over the rounds of
PyTorch's milliseconds by ours, its interval a bootstrap of that median; the way of PyTorch with
the lowest median time is the one compared with. A round in which other programs took more than 5 % of
the processors is thrown away, whatever its times, and run again; the table has how many. Exits 1 where a ratio is
below 1, its lower end below 0.97, or our peak memory above PyTorch's lowest.
"""
import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = {"unet": 1, "inception": 8}  # a round of one to two seconds
MOST_FOREIGN = 0.05                  # share of all processors taken by other programs in a round
MOST_TRIES = 20                      # rounds run for each one that counts


class Way:
    """One process of ours or of the peer."""

    def __init__(self, name, command, threads):
        # Both link GNU OpenMP, whose threads spin for a while at a barrier by default.
        # The same is asked of both: the default policy, and no more threads than given.
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        environment.pop("OMP_WAIT_POLICY", None)
        self.name, self.ms, self.cpu, self.peak = name, [], [], None
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)
        self.head = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with exit code {self.process.wait()}")
        return json.loads(line)

    def round(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def keep(self, answer):
        self.ms.append(answer["ms"])
        self.cpu.append(answer["cpu_ms"])

    def close(self):
        self.process.stdin.close()
        self.peak = self.read()["peak_mib"]
        self.process.wait()


def bootstrap(ratios, confidence=0.95, replicates=10000):
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(replicates))
    tail = (1 - confidence) / 2
    return medians[int(tail * replicates)], medians[int((1 - tail) * replicates) - 1]


def busy_s():
    """Seconds that all processors have worked, and seconds that they could have."""
    with open("/proc/stat") as f:
        v = [int(n) for n in f.readline().split()[1:9]]
    return (sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK"), sum(v) / os.sysconf("SC_CLK_TCK")


def run_round(ways, steps):
    """The answers of a round, and the share of the processors that other programs took."""
    work, time_s = busy_s()
    answers = [(w, w.round()) for w in ways]
    own = sum(a["cpu_ms"] * steps for _, a in answers) / 1000
    work, time_s = busy_s()[0] - work, busy_s()[1] - time_s
    return answers, max(0, (work - own) / time_s)


def run_rounds(network, ways, o):
    """Fills the ways with o.rounds undisturbed rounds; returns how many were thrown away."""
    thrown = 0
    while len(ways[0].ms) < o.rounds:
        i = len(ways[0].ms)
        answers, foreign = run_round(ways if i % 2 == 0 else ways[::-1], STEPS[network])
        good = foreign <= MOST_FOREIGN
        thrown += not good
        for w, a in answers if good else []:
            w.keep(a)
        print(f"{network}: round {i + 1}" + ": " * good + f", others took {foreign:.0%}: " * (not good)
              + ", ".join(f"{w.name} {a['ms']:.0f} ms" for w, a in answers), file=sys.stderr, flush=True)
        if thrown > MOST_TRIES * o.rounds:
            raise SystemExit(f"{network}: the machine is never quiet")
    return thrown


def compare(network, o):
    size = [f"--{k}={v}" for k, v in (("batch", o.batch), ("size", o.size), ("width", o.width), ("threads", o.threads),
                                      ("steps-per-round", STEPS[network]))]
    size += [f"--model={o.model}"]
    other = "--model=" if network == "inception" else "--width="  # the peer takes both
    ways = [Way("ours", [o.program, "bench", network, "--pipe", *(s for s in size if not s.startswith(other))], o.threads)]
    for compiled in [False, True][: 1 + o.compile]:
        for layout in ("nchw", "channels_last"):
            name = f"torch {layout}" + (" compiled" if compiled else "")
            command = [o.python, os.path.join(HERE, "peer.py"), network, "--layout", layout, *size]
            ways.append(Way(name, command + ["--compile"] * compiled, o.threads))
            print(f"{network}: {name} is warm", file=sys.stderr, flush=True)
    counts = {w.head["parameters"] for w in ways}
    if len(counts) > 1:
        raise SystemExit(f"{network}: parameters differ: {counts}")
    thrown = run_rounds(network, ways, o)
    for w in ways:
        w.close()
    ours, peers = ways[0], ways[1:]
    best = min(peers, key=lambda w: statistics.median(w.ms))
    rows = []
    for w in ways:
        ratios = [a / b for a, b in zip(w.ms, ours.ms)]
        low, high = bootstrap(ratios)
        rows.append({
            "network": network, "way": w.name, "version": w.head["device"], "batch": o.batch, "size_px": o.size,
            "threads": o.threads, "rounds": o.rounds, "steps_per_round": STEPS[network],
            "median_ms": round(statistics.median(w.ms), 1), "min_ms": round(min(w.ms), 1), "max_ms": round(max(w.ms), 1),
            "median_cpu_ms": round(statistics.median(w.cpu), 1), "ratio": round(statistics.median(ratios), 3),
            "ratio_low": round(low, 3), "ratio_high": round(high, 3), "peak_mib": w.peak,
            "compared_with": "yes" if w is best else "", "rounds_thrown": thrown, "date": time.strftime("%Y-%m-%d")})
    least = min(w.peak for w in peers)
    row = rows[ways.index(best)]
    good = row["ratio"] >= 1 and row["ratio_low"] >= 0.97 and ours.peak <= least
    print(f"{network}: {'good' if good else 'NOT GOOD'}: {row['ratio']} times as fast as {best.name} "
          f"({row['ratio_low']} to {row['ratio_high']}), peak memory {ours.peak:.0f} MiB against {least:.0f} MiB")
    return rows, good


def table(rows):
    columns = ["network", "way", "median_ms", "min_ms", "max_ms", "median_cpu_ms", "ratio", "ratio_low", "ratio_high",
               "peak_mib", "compared_with"]
    cells = [columns] + [[str(r[c]) for c in columns] for r in rows]
    widths = [max(len(c[i]) for c in cells) for i in range(len(columns))]
    return "\n".join("  ".join(v.ljust(n) for v, n in zip(c, widths)).rstrip() for c in cells)


def cpu_name():
    with open("/proc/cpuinfo") as f:
        names = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    return "-".join(names[0].replace("(R)", "").replace("(TM)", "").lower().split()) if names else "cpu"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("network", nargs="*", default=list(STEPS), help="unet, inception; none: both")
    p.add_argument("--rounds", type=int, default=11)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--width", type=float, default=0.25)
    p.add_argument("--model", default="samples/base")
    p.add_argument("--program", default="build/equipoise")
    p.add_argument("--python", default=sys.executable, help="that has torch, torchvision, diffusers")
    p.add_argument("--compile", action="store_true", help="torch.compile too; takes minutes to start")
    p.add_argument("--out", default=f"bench/results/{cpu_name()}/step.csv")
    o = p.parse_args()
    for name in set(o.network) - set(STEPS):
        p.error(f"found network {name}, expected unet or inception")
    rows, good = [], True
    for network in o.network:
        more, fine = compare(network, o)
        rows, good = rows + more, good and fine
    print(table(rows))
    os.makedirs(os.path.dirname(o.out) or ".", exist_ok=True)
    with open(o.out, "w", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
