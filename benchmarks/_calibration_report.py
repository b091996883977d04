"""What benchmarks/calibration.py prints and draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from _common import table
from skylink.calibration import Coefficients
from skylink.calibration_fit import Sample, confidences, quality, weights

Tested = Mapping[bool, tuple[Sequence[Sample], Sequence[Coefficients]]]
"""By whether the whole pose was known: samples, and the coefficients each is judged by."""

WORDS = {True: "all telemetry", False: "less"}
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share seen in n independent photos."""
    z2 = 1.96**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = 1.96 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return middle - half, middle + half


def figures_table(title: str, tested: Tested) -> dict[str, float]:
    """Print a row a case; the same as a flat dictionary."""
    figures, rows = {}, []
    scores: dict[str, list[float]] = {}
    for case, (samples, by) in tested.items():
        if not samples:
            continue
        q = quality(samples, by)
        own = [s for s in samples if s.own]
        scores = {
            "right": [s.signs.score for s in own if s.right],
            "wrong": [s.signs.score for s in own if not s.right],
            "elsewhere": [s.signs.score for s in samples if not s.own],
        }
        inside = [
            "-" if share is None
            else "{:.0f} ({:.0f}..{:.0f})".format(
                *(100 * v for v in (share, *wilson(share, len(own))))
            )
            for share in (q.within_50, q.within_90)
        ]  # fmt: skip
        spread = [
            " ".join(f"{v:.3f}" for v in np.percentile(values, (5, 50, 95))) if values else "-"
            for values in scores.values()
        ]
        share = 100 * np.mean([s.right for s in own]) if own else math.nan
        auroc = "-" if q.auroc_map is None else f"{q.auroc_map:.3f}"
        numbers = (f"{share:.0f}", f"{q.ece:.3f}", f"{q.brier:.3f}", auroc)
        rows.append((WORDS[case], q.photos, *numbers, *inside, *spread))
        figures |= {
            f"{title}, {WORDS[case]}: {name}": value
            for name, value in q.model_dump().items()
            if value is not None
        }
    head = ("", "photos", "right % of own", "ECE", "Brier", "AUROC on this map",
            "in 50 % radius", "in 90 % radius",
            *(f"score {words} 5/50/95" for words in scores))  # fmt: skip
    print(f"\n{title}\n{table(head, rows)}", flush=True)
    return figures


def threshold_table(tested: Mapping[str, Tested]) -> None:
    """What a least confidence lets through: right, wrong, and photos of elsewhere."""
    rows = []
    for scorer, cases in tested.items():
        for case, (samples, by) in cases.items():
            said = confidences(samples, by)
            right, own = (np.array([getattr(s, n) for s in samples]) for n in ("right", "own"))
            for least in THRESHOLDS:
                taken = said >= least
                answered = (taken & own).sum()
                rows.append(
                    (scorer, WORDS[case], least, f"{100 * answered / own.sum():.0f}",
                     f"{100 * (taken & right).sum() / max(answered, 1):.0f}",
                     f"{100 * (taken & right).sum() / max(right.sum(), 1):.0f}",
                     f"{100 * taken[~own].mean():.0f}")
                )  # fmt: skip
    head = ("", "", "least confidence", "own answered %", "of these right %",
            "right ones kept %", "elsewhere answered %")  # fmt: skip
    print(f"\n{table(head, rows)}\n", flush=True)


def plot(path: Path, tested: Mapping[str, Tested]) -> None:
    """Reliability and ROC of "on this map" beside each other, a line for each scorer and case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for number, (scorer, cases) in enumerate(tested.items()):
        for case, (samples, by) in cases.items():
            said, weight = confidences(samples, by), weights(samples)
            good, own = (np.array([getattr(s, n) for s in samples]) for n in ("right", "own"))
            style = {"color": f"C{number}", "ls": "-" if case else "--"}
            bins = np.minimum((said * 10).astype(int), 9)
            total = np.bincount(bins, weight, 10)
            with np.errstate(invalid="ignore"):
                x, y = (np.bincount(bins, weight * v, 10) / total for v in (said, good))
            left.plot(x[total > 0], y[total > 0], label=f"{scorer}, {WORDS[case]}", **style)
            left.scatter(x, y, 400 * total / total.sum(), color=f"C{number}")
            steps = np.concatenate([[-np.inf], np.sort(said), [np.inf]])
            true = [(said[good] >= t).mean() for t in steps]
            false = [(said[~own] >= t).mean() for t in steps]
            right.plot(false, true, **style)
    left.plot([0, 1], [0, 1], color="grey", lw=0.8)
    left.set(xlabel="confidence", ylabel="right within 50 m", xlim=(0, 1), ylim=(0, 1),
             title="Reliability; dots grow with photos")  # fmt: skip
    left.legend(fontsize=7)
    right.set(xlabel="answered of photos of elsewhere", ylabel="answered of right places",
              xlim=(0, 1), ylim=(0, 1), title="On this map or not")  # fmt: skip
    figure.savefig(path, dpi=130)
    plt.close(figure)
