"""Fitting `calibration.Coefficients` to photos whose true place is known, and how good they are.

`benchmarks/calibration.py` uses it on generated photos; it serves as well for one's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from skylink import metrics
from skylink.calibration import Coefficients
from skylink.estimate import Signs
from skylink.figures import RIGHT_M

OFF_MAP = 0.2
"""Share of photos from elsewhere that confidence assumes: one in five."""

RIDGE = 1.0
"""Weight of the squared coefficients of standardised features: keeps them finite where right and
wrong can be told apart without error."""

LEAST_LOCAL = 1.0
"""Generated towns have no errors of georeference but those we gave them: they may widen the local
error, and never narrow it. Decided after radii so narrowed had been too small on real flights."""

FEW = 8
"""With fewer photos than this a figure of theirs is not fitted."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One located photo.

    Attributes:
        signs: of its estimate.
        own: the map shows the photo's place.
        error_m: distance of the estimate from the truth, metres (own maps).
        others_m: (N,) the same of the candidates elsewhere, in the order of `signs.scores`.
        group: photos that are left out together when the fit is tested (a town, a flight).
    """

    signs: Signs
    own: bool
    error_m: float
    others_m: Floats
    group: str

    @property
    def right(self) -> bool:
        """Whether the estimate is right."""
        return self.own and self.error_m <= RIGHT_M


class Quality(BaseModel):
    """How good confidence and radii are on some photos.

    Attributes:
        photos, right: how many, and the share of them that are right.
        ece, brier: calibration error and mean squared error of the confidence, 0..1.
        auroc_map: how well confidence tells right places from photos of elsewhere, 0..1.
        within_50, within_90: share of own photos whose truth the radius holds; meant 0.5 and 0.9.
    """

    photos: int
    right: float
    ece: float
    brier: float
    auroc_map: float | None
    within_50: float | None
    within_90: float | None


def fit(samples: Sequence[Sample]) -> Coefficients:
    """The coefficients of one scorer in one case.

    Args:
        samples: some right, some not; photos of elsewhere count as OFF_MAP of all.

    Raises:
        ValueError: all are right, or none.
    """
    right = np.array([s.right for s in samples])
    if right.all() or not right.any():
        raise ValueError("a confidence needs photos that are placed right and some that are not")
    bias, score, lead = _logistic(_features(samples), right, weights(samples))
    wrong = [s for s in samples if s.own and not s.right]
    listed = [s for s in wrong if (s.others_m <= RIGHT_M).any()]
    ratios = [s.error_m / s.signs.local_m for s in samples if s.right]
    return Coefficients(
        bias=bias,
        score=score,
        lead=lead,
        local=max(LEAST_LOCAL, float(np.median(ratios))) if len(ratios) >= FEW else 1.0,
        listed=(len(listed) + 1) / (len(wrong) + 2),  # Laplace's rule: few are wrong
        temperature=_temperature(samples, listed),
    )


def left_out(samples: Sequence[Sample]) -> list[Coefficients]:
    """For each sample the coefficients fitted without its group: for honest figures."""
    by = {
        group: fit([s for s in samples if s.group != group])
        for group in sorted({s.group for s in samples})
    }
    return [by[s.group] for s in samples]


def quality(samples: Sequence[Sample], by: Sequence[Coefficients]) -> Quality:
    """Figures of samples under coefficients, one set for each. OFF_MAP is assumed, as in `fit`."""
    confidence = confidences(samples, by)
    right, own = np.array([s.right for s in samples]), np.array([s.own for s in samples])
    weight = weights(samples)
    auroc = None
    if right.any() and not own.all():
        auroc = metrics.auroc(confidence[right], confidence[~own])
    inside = {
        share: [
            s.error_m <= s.signs.mixture(c).radius_m(share)
            for s, c in zip(samples, by, strict=True)
            if s.own
        ]
        for share in (0.5, 0.9)
    }
    return Quality(
        photos=len(samples),
        right=float(np.average(right, weights=weight)),
        ece=weighted_ece(confidence, right, weight),
        brier=float(np.average((confidence - right) ** 2, weights=weight)),
        auroc_map=auroc,
        within_50=float(np.mean(inside[0.5])) if own.any() else None,
        within_90=float(np.mean(inside[0.9])) if own.any() else None,
    )


def confidences(samples: Sequence[Sample], by: Sequence[Coefficients]) -> Floats:
    """(N,) 0..1, each sample under its own coefficients."""
    return np.array([s.signs.confidence(c) for s, c in zip(samples, by, strict=True)])


def weights(samples: Sequence[Sample]) -> Floats:
    """(N,) that make photos of elsewhere OFF_MAP of all; ones without them, or of them alone."""
    own = np.array([s.own for s in samples])
    if own.all() or not own.any():
        return np.ones(len(own))
    elsewhere = OFF_MAP / (1 - OFF_MAP) * own.sum() / (~own).sum()
    return np.where(own, 1.0, elsewhere)


def weighted_ece(confidence: Floats, right: NDArray[np.bool_], weight: Floats) -> float:
    """`metrics.expected_calibration_error` of weighted samples, ten bins."""
    index = np.minimum((confidence * 10).astype(np.int64), 9)
    gap = np.bincount(index, weights=weight * (right - confidence), minlength=10)
    return float(np.abs(gap).sum() / weight.sum())


def _features(samples: Sequence[Sample]) -> Floats:
    return np.array([(s.signs.score, s.signs.lead) for s in samples])


def _logistic(features: Floats, right: NDArray[np.bool_], weight: Floats) -> list[float]:
    """[bias, score, lead] by Newton's method; score and lead not below 0."""
    mean, scale = features.mean(0), features.std(0) + 1e-9
    x = np.column_stack([np.ones(len(features)), (features - mean) / scale])
    free = [0, 1, 2]
    while True:
        found = np.zeros(3)
        found[free] = _newton(x[:, free], right.astype(np.float64), weight)
        against = [i for i in free[1:] if found[i] < 0]
        if not against:
            break
        free.remove(min(against, key=lambda i: found[i]))
    slopes = found[1:] / scale
    return [float(found[0] - slopes @ mean), *(float(v) for v in slopes)]


def _newton(x: Floats, y: Floats, weight: Floats) -> Floats:
    """Ridge logistic regression; the first column, the bias, is not held back."""
    ridge = RIDGE * np.ones(x.shape[1])
    ridge[0] = 1e-6
    found = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(x @ found, -50, 50)))
        gradient = x.T @ (weight * (y - p)) - ridge * found
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        found = found + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return np.asarray(found, np.float64)


def _temperature(samples: Sequence[Sample], listed: Sequence[Sample]) -> float:
    """Of the softmax under which the right ones among the others are likeliest."""
    spread = float(np.median([np.ptp(s.signs.scores) for s in samples if len(s.signs.scores)] or 1))
    tried = max(spread, 1e-6) * 2.0 ** np.arange(-4, 4)
    if len(listed) < FEW:
        return float(tried[3])

    def likelihood(temperature: float) -> float:
        total = 0.0
        for s in listed:
            weight = np.exp((s.signs.scores - s.signs.scores.max()) / temperature)
            total += float(np.log(weight[s.others_m <= RIGHT_M].sum() / weight.sum() + 1e-12))
        return total

    return float(max(tried, key=likelihood))
