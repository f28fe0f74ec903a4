"""select.py - how the films of samples/ were chosen from the Kermany set (224 px copy).

    python3 samples/select.py FOLDER     FOLDER holds manifest.csv, train/, test/ of the copy

Writes samples/films/<class>/*.jpeg (byte for byte), samples/films.csv (path, label, patient, split) and
samples/base/pool.csv: the films of all other patients, on which the shipped base models were trained.
Patients are put in order by the hash of their key. No patient stands in two splits, or in the pool and
in a split; patients who share an identical film are left out altogether.
"""
import collections
import csv
import hashlib
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
WANT = {  # films per split and class; normal films fill up first, then the rest goes to the pool
    "train": {"normal": 520, "bacteria": 60, "virus": 60},
    "val": {"normal": 104, "bacteria": 16, "virus": 16},
    "test": {"normal": 212, "bacteria": 150, "virus": 150},
}


def main(folder):
    rows = list(csv.DictReader(open(os.path.join(folder, "manifest.csv"))))
    twins = {r["path"] for r in rows if r["identical_to"]} | {r["identical_to"] for r in rows}
    banned = {r["patient_key"] for r in rows if r["path"] in twins}
    films = collections.defaultdict(list)
    for r in rows:
        if r["patient_key"] not in banned:
            films[r["patient_key"]].append(r)
    order = sorted(films, key=lambda p: hashlib.sha256(p.encode()).hexdigest())

    left = {s: dict(w) for s, w in WANT.items()}
    study, pool = [], []
    for patient in order:
        mine = collections.Counter(r["subtype"] for r in films[patient])
        fits = [s for s in left if all(left[s][c] >= n for c, n in mine.items())]
        few = sum(mine.values()) <= 4  # patients with many films would crowd the small splits
        if fits and few:
            split = max(fits, key=lambda s: sum(left[s][c] for c in mine))
            for r in films[patient]:
                left[split][r["subtype"]] -= 1
                study.append((r, split))
        else:
            pool += films[patient]

    shutil.rmtree(os.path.join(HERE, "films"), ignore_errors=True)
    with open(os.path.join(HERE, "films.csv"), "w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["path", "label", "patient", "split"])
        for r, split in sorted(study, key=lambda x: (x[0]["subtype"], x[0]["path"])):
            to = f"films/{r['subtype']}/{os.path.basename(r['path'])}"
            os.makedirs(os.path.join(HERE, os.path.dirname(to)), exist_ok=True)
            shutil.copyfile(os.path.join(folder, r["path"]), os.path.join(HERE, to))
            out.writerow([to, r["subtype"], r["patient_key"], split])
    os.makedirs(os.path.join(HERE, "base"), exist_ok=True)
    with open(os.path.join(HERE, "base", "pool.csv"), "w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["path", "label", "patient"])
        for r in sorted(pool, key=lambda r: r["path"]):
            out.writerow([r["path"], "normal" if r["subtype"] == "normal" else "pneumonia", r["patient_key"]])
    count = collections.Counter((s, r["subtype"]) for r, s in study)
    print(sorted(count.items()), "pool", collections.Counter(r["subtype"] for r in pool))
    a, b = {r["patient_key"] for r, _ in study}, {r["patient_key"] for r in pool}
    assert not a & b, "a patient in the pool and in a split"


main(sys.argv[1])
