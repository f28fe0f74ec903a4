"""choose.py - the films of samples/tiny/films.csv, a subset of samples/films.csv for tests.

    python3 samples/tiny/choose.py

Of each split and class the first patients by the hash of their key, until the number is reached.
"""
import csv
import hashlib
import os

HERE = os.path.dirname(os.path.abspath(__file__))
WANT = {
    "train": {"normal": 24, "bacteria": 8, "virus": 8},
    "val": {"normal": 8, "bacteria": 4, "virus": 4},
    "test": {"normal": 14, "bacteria": 8, "virus": 8},
}


def main():
    rows = list(csv.DictReader(open(os.path.join(HERE, "..", "films.csv"))))
    rows.sort(key=lambda r: (hashlib.sha256(r["patient"].encode()).hexdigest(), r["path"]))
    chosen = []
    for r in rows:
        if WANT[r["split"]][r["label"]] > 0:
            WANT[r["split"]][r["label"]] -= 1
            chosen.append(r)
    with open(os.path.join(HERE, "films.csv"), "w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["path", "label", "patient", "split"])
        for r in sorted(chosen, key=lambda r: r["path"]):
            out.writerow([r["path"].removeprefix("films/"), r["label"], r["patient"], r["split"]])


main()
