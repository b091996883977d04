"""Weight, gate and confidence of a re-ranker, fitted on validation lists. Imports no torch.

The fused ranking can't fall below the base's on these lists: the base alone is one of the choices,
and is taken unless another is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skylink.reranker import Fusion, lead

WEIGHTS = tuple(np.round(np.linspace(0, 1, 21), 2).tolist())
GATES = 21
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
        return lead(self.base)

    def ranked(self, fusion: Fusion) -> tuple[NDArray[np.intp], Floats] | None:
        """The order under a fusion and the fused scores in it; None: the gate kept the base's."""
        if fusion.keeps(self.base):
            return None
        fused = fusion.fused(self.base, self.scores)
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
        return cls.of_ranks(np.array([each.first_rank(fusion) for each in lists]))

    @classmethod
    def of_ranks(cls, ranks: Floats) -> Recall:
        """Of ranks of the first right candidates."""
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
    quantiles = np.quantile(leads, np.linspace(0, 1, GATES)).tolist()
    gates: list[float | None] = [*sorted({max(0.0, lead) for lead in quantiles}), None]
    base = np.array([each.first_rank(BASE_ONLY) for each in lists])
    best, best_key = BASE_ONLY, Recall.of_ranks(base).key
    for weight in reversed(WEIGHTS[:-1]):
        ranks = np.array([each.first_rank(Fusion(base_weight=weight)) for each in lists])
        for gate in gates:
            gated = ranks if gate is None else np.where(leads >= gate, base, ranks)
            key = Recall.of_ranks(gated).key
            if key > best_key:
                best, best_key = Fusion(base_weight=weight, gate_margin=gate), key
    return replace(best, depth=max(len(each.base) for each in lists))


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
    behind, right = _behind(lists, fusion)
    return 1 / np.exp(-behind / temperature).sum(axis=1), right


def fit_temperature(lists: Sequence[Scored], fusion: Fusion) -> float | None:
    """The temperature whose confidences have the best log-likelihood; None without lists."""
    behind, right = _behind(lists, fusion)
    if not len(right):
        return None

    def loss(temperature: float) -> float:
        p = np.clip(1 / np.exp(-behind / temperature).sum(axis=1), 1e-6, 1 - 1e-6)
        return float(-np.where(right, np.log(p), np.log1p(-p)).mean())

    best: float = min(TEMPERATURES.tolist(), key=loss)
    return best


def _behind(lists: Sequence[Scored], fusion: Fusion) -> tuple[Floats, NDArray[np.bool_]]:
    """How far candidates are behind the first, infinite after a list's end; is the first right?"""
    ranked = [(each, each.ranked(fusion)) for each in lists]
    kept = [(each, found) for each, found in ranked if found is not None]
    behind = np.full((len(kept), max((len(e.base) for e, _ in kept), default=1)), np.inf)
    for row, (_, (_, fused)) in zip(behind, kept, strict=True):
        row[: len(fused)] = fused[0] - fused
    right = [bool(each.right[order[0]]) for each, (order, _) in kept]
    return behind, np.array(right, np.bool_)
