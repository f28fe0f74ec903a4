"""make_stats.py - expected values of the statistics, by scikit-learn, scipy and statsmodels.

Writes stats.json beside itself; versions in ../requirements.txt. Undefined values are null. DeLong is
implemented here twice, by ranks (Sun and Xu 2014) and by the O(n^2) definition, and the two are compared.
Run: python make_stats.py
"""
import json
import math
import os
import warnings

import numpy as np
import sklearn.metrics as skm
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

warnings.filterwarnings("ignore")


def number(v):
    return float(v) if v is not None and math.isfinite(v) else None


def point_metrics(y, s, t):
    """Follows host/stats/metrics.h where scikit-learn answers 0 for what was not measured."""
    c = (s >= t).astype(int)
    both = 0 < y.sum() < len(y)
    recall = skm.recall_score(y, c) if y.sum() else np.nan
    specificity = skm.recall_score(y, c, pos_label=0) if y.sum() < len(y) else np.nan
    return {
        "balanced_accuracy": number(skm.balanced_accuracy_score(y, c) if both else np.nan),
        "sensitivity": number(recall),
        "specificity": number(specificity),
        "precision": number(skm.precision_score(y, c, zero_division=0)),
        "f1": number(skm.f1_score(y, c, zero_division=0)),
        "mcc": number(skm.matthews_corrcoef(y, c)),
        "kappa": number(skm.cohen_kappa_score(y, c, labels=[0, 1])),
        "youden": number(skm.balanced_accuracy_score(y, c, adjusted=True) if both else np.nan),
        "auroc": number(skm.roc_auc_score(y, s) if both else np.nan),
        "auprc": number(skm.average_precision_score(y, s) if both else np.nan),
        "brier": number(skm.brier_score_loss(y, s, pos_label=1)),
    }


def placements_by_rank(y, s):
    x, z = s[y == 1], s[y == 0]
    everyone = stats.rankdata(np.concatenate([x, z]))
    v10 = (everyone[: len(x)] - stats.rankdata(x)) / len(z)
    v01 = 1 - (everyone[len(x):] - stats.rankdata(z)) / len(x)
    return v10, v01


def placements_by_pairs(y, s):
    x, z = s[y == 1], s[y == 0]
    psi = (x[:, None] > z[None, :]) + 0.5 * (x[:, None] == z[None, :])
    return psi.mean(1), psi.mean(0)


def delong(y, a, b=None):
    """AUROC of a (or a's minus b's), its variance and 95 % interval."""
    out = []
    for placements in placements_by_rank, placements_by_pairs:
        v10, v01 = placements(y, a)
        if b is not None:
            w10, w01 = placements(y, b)
            v10, v01 = v10 - w10, v01 - w01
        if len(v10) < 2 or len(v01) < 2:
            return {"value": number(v10.mean() if len(v10) and len(v01) else np.nan),
                    "variance": None, "ci": None, "p": None}
        out.append((v10.mean(), v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)))
    assert np.allclose(out[0], out[1], rtol=1e-12, atol=1e-15), out
    value, variance = out[1]
    variance = 0.0 if variance < 1e-28 else variance
    value = 0.0 if abs(value) < 1e-15 else value
    reach = stats.norm.ppf(0.975) * math.sqrt(variance)
    low = 0 if b is None else -1
    if value == 0:
        p = 1.0
    else:
        p = 2 * stats.norm.sf(abs(value) / math.sqrt(variance)) if variance > 0 else None
    return {"value": number(value), "variance": variance, "p": None if p is None else number(p),
            "ci": [max(low, value - reach), min(1, value + reach)]}


def paired_mcnemar(y, label, right_a, right_b):
    m = y == label
    if not m.any():
        return None
    only_a, only_b = int((right_a & ~right_b & m).sum()), int((right_b & ~right_a & m).sum())
    return number(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)


def youden_threshold(y, s):
    """The lowest of the best thresholds among 0 and the middles between neighbouring scores."""
    if not 0 < y.sum() < len(y):
        return None
    u = np.unique(s)
    candidates = [0.0] + [lo + (hi - lo) / 2 for lo, hi in zip(u[:-1], u[1:])]
    n, p = int((y == 0).sum()), int(y.sum())
    j = [int((y[s >= t] == 1).sum()) * n - int((y[s >= t] == 0).sum()) * p for t in candidates]
    return float(candidates[int(np.argmax(j))])


def dataset(name, y, a, b, ta=0.5, tb=0.5, patients=None):
    y, a, b = np.asarray(y), np.round(np.asarray(a, float), 6), np.round(np.asarray(b, float), 6)
    both = 0 < y.sum() < len(y)
    right_a, right_b = (a >= ta) == y, (b >= tb) == y
    tp, tn = int(((a >= ta) & (y == 1)).sum()), int(((a < ta) & (y == 0)).sum())
    n_pos, n_neg = int(y.sum()), int((1 - y).sum())

    def exact(k, n):
        return [number(v) for v in proportion_confint(k, n, method="beta")] if n else None

    roc = skm.roc_curve(y, a, drop_intermediate=False)[:2] if both else None
    return {
        "name": name, "label": y.tolist(), "a": a.tolist(), "b": b.tolist(),
        "patient": list(range(len(y))) if patients is None else [int(v) for v in patients],
        "threshold_a": ta, "threshold_b": tb,
        "metrics_a": point_metrics(y, a, ta), "metrics_b": point_metrics(y, b, tb),
        "sensitivity_ci": exact(tp, n_pos), "specificity_ci": exact(tn, n_neg),
        "delong_a": delong(y, a), "delong_difference": delong(y, a, b),
        "mcnemar_diseased": paired_mcnemar(y, 1, right_a, right_b),
        "mcnemar_normal": paired_mcnemar(y, 0, right_a, right_b),
        "youden_threshold": youden_threshold(y, a),
        "roc": [roc[0].tolist(), roc[1].tolist()] if both else None,
    }


def datasets(rng):
    def random(n, share, lift, digits=6):
        y = (rng.random(n) < share).astype(int)
        y[0], y[1] = 0, 1
        noise = rng.normal(size=(3, n))
        common = lift * y + noise[0]
        a = 1 / (1 + np.exp(-(common + noise[1] - 0.6)))
        b = 1 / (1 + np.exp(-(0.9 * common + 1.2 * noise[2] - 0.9)))
        return y, np.round(a, digits), np.round(b, digits)

    y, a, b = random(600, 0.09, 1.6)
    yield dataset("rare", y, a, b, 0.4137, 0.55, rng.integers(0, 311, 600))
    y, a, b = random(137, 0.4, 1.0)
    yield dataset("middling", y, a, b)
    y, a, b = random(211, 0.3, 1.2, digits=1)
    yield dataset("ties", y, a, b, 0.5, 0.4)
    y, a, b = random(9, 0.4, 0.5, digits=2)
    yield dataset("tiny", y, a, b)
    yield dataset("two", [0, 1], [0.2, 0.9], [0.7, 0.3])
    yield dataset("one diseased", [0, 0, 1, 0], [0.2, 0.9, 0.8, 0.1], [0.1, 0.2, 0.3, 0.4])
    yield dataset("only diseased", [1] * 5, rng.random(5), rng.random(5))
    yield dataset("only normal", [0] * 5, rng.random(5), rng.random(5))
    yield dataset("only normal, none called", [0] * 4, [0.1] * 4, [0.2] * 4)
    y, a, b = random(40, 0.3, 1.0)
    yield dataset("perfect", y, 0.25 + 0.5 * y + 0.2 * rng.random(40), a)
    yield dataset("constant", y, [0.5] * 40, b)
    yield dataset("none called", y, a, b, 1.0, 0.5)
    yield dataset("all called", y, a, b, 0.0, 0.5)
    yield dataset("reversed", y, a, 1 - a)
    yield dataset("equal", y, a, a)
    yield dataset("two best thresholds", [0, 1, 0, 1], [0.1, 0.3, 0.6, 0.8], [0.5] * 4)


def clopper_cases(rng):
    cases = [(0, 1), (1, 1), (0, 10), (10, 10), (1, 10), (9, 10), (0, 907), (907, 907), (1, 100000),
             (99999, 100000), (50000, 100000)]
    cases += [(int(rng.integers(0, n + 1)), int(n)) for n in rng.integers(1, 2000, 30)]
    rows = []
    for k, n in cases:
        lo = stats.beta.ppf(0.025, k, n - k + 1) if k else 0.0
        hi = stats.beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
        ours = proportion_confint(k, n, method="beta")
        assert np.allclose([lo, hi], ours, rtol=1e-9), (k, n)
        rows.append([k, n, float(lo), float(hi)])
    return rows


def kid_cases(rng):
    cases = []
    for n_x, n_y, d, shift in (5, 7, 3, 0.0), (23, 16, 11, 0.4), (2, 2, 1, 1.0), (40, 40, 5, 0.0):
        x = rng.normal(size=(n_x, d)).astype(np.float32)
        y = (rng.normal(size=(n_y, d)) + shift).astype(np.float32)
        gram = [skm.pairwise.polynomial_kernel(p.astype(float), q.astype(float), 3, 1 / d, 1)
                for p, q in ((x, x), (y, y), (x, y))]
        value = ((gram[0].sum() - np.trace(gram[0])) / (n_x * (n_x - 1)) +
                 (gram[1].sum() - np.trace(gram[1])) / (n_y * (n_y - 1)) - 2 * gram[2].mean())
        scale = gram[0].mean() + gram[1].mean() + 2 * gram[2].mean()
        cases.append({"n_x": n_x, "n_y": n_y, "d": d, "x": [float(v) for v in x.ravel()],
                      "y": [float(v) for v in y.ravel()], "value": float(value),
                      "scale": float(scale)})
    return cases


def main():
    rng = np.random.default_rng(20240917)
    golden = {"datasets": list(datasets(rng)), "clopper_pearson": clopper_cases(rng),
              "kid": kid_cases(rng), "mcnemar": [], "holm": [], "incomplete_beta": []}
    for b, c in [(0, 0), (1, 0), (0, 5), (5, 5), (5, 6), (3, 14), (120, 90), (4000, 3800)]:
        golden["mcnemar"].append([b, c, float(mcnemar([[0, b], [c, 0]], exact=True).pvalue)])
    for n in (1, 2, 6, 6, 9):
        p = np.round(rng.random(n) ** 3, 2 if n == 6 else 9)
        golden["holm"].append([p.tolist(), multipletests(p, method="holm")[1].tolist()])
    for a, b in (0.5, 0.5), (1, 1), (3, 40), (700, 3), (5000, 5200), (1e5, 2):
        for q in 1e-6, 0.025, 0.5, 0.999:
            x = float(stats.beta.ppf(q, a, b))
            golden["incomplete_beta"].append([x, a, b, float(stats.beta.cdf(x, a, b))])
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stats.json")
    with open(path, "w") as f:
        json.dump(golden, f, indent=None, allow_nan=False, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
