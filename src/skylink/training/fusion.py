"""Weight, gate and confidence of a re-ranker, fitted on validation lists. Imports no torch.

The fused ranking can't fall below the base's on these lists: the base alone is one of the choices,
and is taken unless another is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skylink.reranker import Fusion

WEIGHTS = tuple(np.round(np.linspace(0, 1, 21), 2).tolist())
GATES = 12
"""How many margins are tried, at quantiles of the lists' own."""
TEMPERATURES = np.geomspace(1e-3, 1e3, 241)
BINS = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One validation list, in the base's order.

    Attributes:
        base, scores: (K,) of the base, best first, and of the re-ranker.
        right: (K,) bool; none may be, where the base did not find the place.
    """

    base: Floats
    scores: Floats
    right: NDArray[np.bool_]

    @property
    def lead(self) -> float:
        """How sure the base is, as `Fusion.gate_margin` measures it."""
        return float((self.base[0] - self.base[1]) / max(float(self.base.std()), 1e-12))

    def ranked(self, fusion: Fusion) -> tuple[NDArray[np.intp], Floats] | None:
        """The order under a fusion and the fused scores in it; None: the gate kept the base's."""
        if fusion.gate_margin is not None and self.lead >= fusion.gate_margin:
            return None
        fused = self.scores
        if fusion.base_weight > 0:
            weight = fusion.base_weight
            fused = (1 - weight) * _standard(self.scores) + weight * _standard(self.base)
        order = np.argsort(-fused, kind="stable")
        return order, fused[order]

    def first_rank(self, fusion: Fusion) -> float:
        """Rank of the first right candidate, from 1; infinite if there is none."""
        ranked = self.ranked(fusion)
        right = self.right if ranked is None else self.right[ranked[0]]
        return float(right.argmax()) + 1 if right.any() else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """How good rankings are.

    Attributes:
        recall_at_1: share of lists with a right candidate first, 0..1.
        mrr: mean of 1 / rank of the first right one, 0 where there is none.
    """

    recall_at_1: float
    mrr: float

    @classmethod
    def of(cls, lists: Sequence[Scored], fusion: Fusion) -> Recall:
        """Of lists ranked under a fusion."""
        ranks = np.array([each.first_rank(fusion) for each in lists])
        return cls(recall_at_1=float((ranks == 1).mean()), mrr=float((1 / ranks).mean()))

    @property
    def key(self) -> tuple[float, float]:
        """What rankings are compared by: recall at 1, then mrr."""
        return self.recall_at_1, self.mrr


BASE_ONLY = Fusion(base_weight=1.0)
RERANKER_ONLY = Fusion()


def fit_fusion(lists: Sequence[Scored]) -> Fusion:
    """The weight and gate with the best recall at 1, then mrr, on these lists.

    Of equals the one nearer to the base is taken: the larger weight, then the lower gate.
    """
    leads = np.array([each.lead for each in lists])
    quantiles = np.quantile(leads, np.linspace(0, 1, GATES)) if len(leads) else []
    gates: list[float | None] = [*sorted({max(0.0, float(lead)) for lead in quantiles}), None]
    choices = [
        Fusion(base_weight=weight, gate_margin=None if weight == 1 else gate)
        for weight in reversed(WEIGHTS)
        for gate in (gates if weight < 1 else [None])
    ]
    return max(choices, key=lambda fusion: Recall.of(lists, fusion).key)  # the first of equals


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reliability:
    """How often a confidence is right, in bins of equal width.

    Attributes:
        confidence, accuracy: (B,) mean confidence and share of right answers; NaN in empty bins.
        count: (B,) lists.
        error: expected calibration error: mean |confidence - accuracy|, weighted by count, 0..1.
    """

    confidence: Floats
    accuracy: Floats
    count: NDArray[np.int64]
    error: float

    @classmethod
    def of(cls, confidence: Floats, right: NDArray[np.bool_]) -> Reliability:
        """Of N confidences 0..1 and whether each answer was right."""
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        count = np.bincount(bins, minlength=BINS)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(bins, confidence, BINS) / count
            accuracy = np.bincount(bins, right, BINS) / count
        filled = count > 0
        gap = np.abs(mean[filled] - accuracy[filled]) * count[filled]
        return cls(
            confidence=mean,
            accuracy=accuracy,
            count=count,
            error=float(gap.sum() / max(1, len(confidence))),
        )


def confidences(
    lists: Sequence[Scored], fusion: Fusion, temperature: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """(confidence, whether the first candidate is right) of each list that was re-ranked.

    The confidence is the first's share of softmax(fused scores / temperature). Lists that the gate
    left alone have none: theirs are the base's scores.
    """
    found, right = [], []
    for each in lists:
        ranked = each.ranked(fusion)
        if ranked is not None:
            order, fused = ranked
            found.append(1 / np.exp((fused - fused[0]) / temperature).sum())
            right.append(bool(each.right[order[0]]))
    return np.array(found, np.float64), np.array(right, np.bool_)


def fit_temperature(lists: Sequence[Scored], fusion: Fusion) -> float | None:
    """The temperature whose confidences have the best log-likelihood; None without lists."""
    best: tuple[float, float] | None = None
    for temperature in TEMPERATURES.tolist():
        confidence, right = confidences(lists, fusion, temperature)
        if not len(confidence):
            return None
        p = np.clip(confidence, 1e-6, 1 - 1e-6)
        loss = float(-np.where(right, np.log(p), np.log1p(-p)).mean())
        if best is None or loss < best[0]:
            best = loss, temperature
    return None if best is None else best[1]


def _standard(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-12))
