"""Soft labels: how right each candidate of a list is, 0..1, from one of four sources.

    source     what is measured against the true place        label before the threshold
    overlap    IoU of the footprints on the ground             the IoU
    cosine     cosine of satellite descriptors (the paper)     the cosine, negative ones 0
    distance   metres between the centres                      exp(-metres / scale_m)
    dataset    the weight that the dataset gives (GTA-UAV)     the weight

Labels below the threshold become 0, and the ground truth's own is 1. With `cosine` and threshold
tau this is the paper's w_g = 1; w_i = cos(z_i, z_g) if >= tau else 0. The default is `overlap`: on
real flights cosines were nearly flat (0.93 after a shift of 64 px), and re-rankers learnt more from
overlap.

Measuring is apart from labelling: what was measured can be kept and labelled again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skylink.errors import OptionError, QueriesError
from skylink.footprints import iou
from skylink.geo import distance_m

Source = Literal["overlap", "cosine", "distance", "dataset"]
SOURCES: tuple[Source, ...] = get_args(Source)

THRESHOLDS: dict[Source, float] = {
    "overlap": 0.0,  # zero by itself where footprints don't meet
    "cosine": 0.9,  # what the comparison with overlap was made with
    "distance": 0.05,  # three times the scale
    "dataset": 0.0,  # the dataset's lists have been cut already
}
"""Where none is chosen."""

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Places:
    """N places on the map, and what is known of them; None is "not known".

    Attributes:
        descriptors: (N, D) satellite descriptors, any norm but 0.
        footprints: (N, V, 2) corners of convex polygons in order, metres east and north in one
            local frame.
        lon, lat: (N,) centres, WGS 84 degrees.
        x_m, y_m: (N,) centres in one local frame, metres; used where there are no degrees.
    """

    descriptors: NDArray[np.floating] | None = None
    footprints: FloatArray | None = None
    lon: FloatArray | None = None
    lat: FloatArray | None = None
    x_m: FloatArray | None = None
    y_m: FloatArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelList:
    """One query's candidates, to be labelled.

    Attributes:
        name: the query's, for messages.
        ground_truth: (K,) bool, True for each candidate that counts as right; at least one.
        candidates: K places.
        truth: where the query really is, one or more places, such as the photo's footprint; None:
            the candidates that are right. Of several the best counts.
        weights: (K,) 0..1 from the dataset.
    """

    name: str
    ground_truth: BoolArray
    candidates: Places = Places()
    truth: Places | None = None
    weights: FloatArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLabels:
    """How candidates are labelled.

    Attributes:
        source: what labels come from; see the module.
        threshold: 0..1, labels below become 0; 0 is the paper's "without threshold", 1 leaves the
            ground truth and what equals it. None: the source's own, see `THRESHOLDS`.
        quantile: choose the threshold so that this share of the other candidates in the training
            lists is below it: see `fitted`, which keeps it as a record.
        scale_m: `distance`: metres at which a label is 1/e.
        keep_ground_truth_one: the ground truth is 1, whatever was measured. False: it has what was
            measured, such as the overlap of the photo's footprint with the tile's.

    Raises:
        OptionError: a value is out of range.
    """

    source: Source = "overlap"
    threshold: float | None = None
    quantile: float | None = None
    scale_m: float = 50.0
    keep_ground_truth_one: bool = True

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise OptionError(
                f"unknown source of labels {self.source!r}", hint=f"known: {', '.join(SOURCES)}"
            )
        for name in ("threshold", "quantile"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise OptionError(f"{name} = {value!r} of soft labels is not in 0..1")
        if not (math.isfinite(self.scale_m) and self.scale_m > 0):
            raise OptionError(f"scale_m = {self.scale_m!r} is not a positive number of metres")

    def labels_for(self, candidates: LabelList) -> NDArray[np.float32]:
        """(K,) float32 labels, 0..1. Raises as `measured` and `labels_of` do."""
        values = measured(candidates, self.source)
        return self.labels_of(values, candidates.ground_truth, name=candidates.name)

    def labels_of(
        self, values: ArrayLike, ground_truth: ArrayLike, *, name: str
    ) -> NDArray[np.float32]:
        """Labels from what was measured.

        Args:
            values: (K,) as `measured` gives them.
            ground_truth: (K,) bool, at least one True.
            name: the list's, for messages.

        Returns:
            (K,) float32, 0..1.

        Raises:
            QueriesError: a value is NaN or out of range, or the ground truth gets no label.
            OptionError: a quantile was asked for, and its threshold is not known yet.
        """
        threshold = self.threshold
        if threshold is None:
            if self.quantile is not None:
                raise OptionError(
                    f"the threshold at quantile {self.quantile:g} is not known yet",
                    hint="SoftLabels.fitted(lists) finds it in the training lists",
                )
            threshold = THRESHOLDS[self.source]
        soft, right = self._soft(values, ground_truth, name)
        labels = np.where(soft >= threshold, soft, 0.0).astype(np.float32)
        labels[right] = 1.0 if self.keep_ground_truth_one else soft[right]
        if not labels[right].all():
            raise QueriesError(
                f"list {name}: the ground truth itself has {self.source} 0",
                hint="check the positions, or keep the ground truth's label at 1",
            )
        return labels

    def fitted(self, lists: Iterable[tuple[str, ArrayLike, ArrayLike]]) -> SoftLabels:
        """The same with the threshold that `quantile` asks for; itself where none is asked for.

        Args:
            lists: of the training split: (name, values (K,), ground_truth (K,)), as for
                `labels_of`. 8 bytes a candidate are kept.

        Raises:
            QueriesError: a list can't be labelled, or there is no candidate beside ground truth.
        """
        if self.quantile is None:
            return self
        found = []
        for name, values, ground_truth in lists:
            soft, right = self._soft(values, ground_truth, name)
            found.append(soft[~right])
        others = np.concatenate(found) if found else np.zeros(0)
        if not len(others):
            raise QueriesError("no list has a candidate beside the ground truth: no quantile")
        return dataclasses.replace(self, threshold=float(np.quantile(others, self.quantile)))

    def _soft(self, values: ArrayLike, right: ArrayLike, name: str) -> tuple[FloatArray, BoolArray]:
        """Labels before the threshold, and which candidates are right; both checked."""
        found, right = np.asarray(values, dtype=np.float64), np.asarray(right)
        if found.ndim != 1 or right.shape != found.shape or right.dtype != np.bool_:
            raise ValueError(f"values {found.shape}, ground truth {right.dtype} {right.shape}")
        if not right.any():
            raise QueriesError(
                f"list {name} has no positive: no candidate is the ground truth",
                hint="force the ground truth into training lists",
            )
        if self.source == "distance":
            low, high = 0.0, math.inf
        else:
            low, high = (-1.0 if self.source == "cosine" else 0.0), 1.0
        wrong = ~((found >= low - 1e-6) & (found <= high + 1e-6) & np.isfinite(found))
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise QueriesError(
                f"list {name}: {self.source} {found[at]:g} of candidate {at + 1} is not in "
                f"{low:g}..{high:g}",
                hint="mine the lists again: what they were measured from is broken",
            )
        soft = np.exp(-found / self.scale_m) if self.source == "distance" else found
        # what differs from 1 by rounding alone is 1, or a threshold of 1 would be a matter of luck
        soft = np.where(soft > 1 - 1e-6, 1.0, np.clip(soft, 0.0, 1.0))
        return soft, right


def measured(candidates: LabelList, source: Source) -> FloatArray:
    """(K,) float64: what `source` says of each candidate against the true place.

    Cosine in -1..1, overlap (IoU) in 0..1, distance in metres (geodesic where degrees are known),
    or the dataset's weight.

    Raises:
        QueriesError: what the source needs is not known, not finite or out of shape.
    """
    right = candidates.ground_truth
    if source == "dataset":
        return _known(candidates, "weights", candidates.weights, (len(right),))
    mine, truth = candidates.candidates, candidates.truth
    if truth is None and not right.any():
        raise QueriesError(f"list {candidates.name} has no positive and no true place")

    def both(name: str, ndim: int) -> tuple[FloatArray, FloatArray]:
        a = _known(candidates, name, getattr(mine, name), (len(right), *[None] * (ndim - 1)))
        if truth is None:
            return a, a[right]
        return a, _known(candidates, f"true {name}", getattr(truth, name), (None,) * ndim)

    if source == "cosine":
        a, b = (_unit(candidates, each) for each in both("descriptors", 2))
        return np.asarray((a @ b.T).max(axis=1), dtype=np.float64)
    if source == "overlap":
        a, b = both("footprints", 3)
        try:
            return np.asarray(iou(a, b).max(axis=1), dtype=np.float64)
        except ValueError as error:
            raise QueriesError(f"list {candidates.name}: {error}") from error
    degrees = mine.lon is not None and (truth is None or truth.lon is not None)
    (x, to_x), (y, to_y) = (both(n, 1) for n in (("lon", "lat") if degrees else ("x_m", "y_m")))
    if degrees:
        metres = distance_m(lon1=x[:, None], lat1=y[:, None], lon2=to_x, lat2=to_y)
    else:
        metres = np.hypot(x[:, None] - to_x, y[:, None] - to_y)
    return np.asarray(metres.min(axis=1), dtype=np.float64)


def _known(
    candidates: LabelList, what: str, values: ArrayLike | None, shape: tuple[int | None, ...]
) -> FloatArray:
    if values is None:
        raise QueriesError(
            f"list {candidates.name}: its {what} are not known",
            hint=f"choose another source of labels: {', '.join(SOURCES)}",
        )
    found = np.asarray(values, dtype=np.float64)
    fits = found.ndim == len(shape) and all(
        n == wanted for n, wanted in zip(found.shape, shape, strict=True) if wanted is not None
    )
    if not fits or found.size == 0:
        raise QueriesError(f"list {candidates.name}: its {what} have the shape {found.shape}")
    if not np.isfinite(found).all():
        raise QueriesError(f"list {candidates.name}: its {what} are NaN or infinite")
    return found


def _unit(candidates: LabelList, rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not norms.all():
        raise QueriesError(f"list {candidates.name}: a descriptor is zero and has no direction")
    return np.asarray(rows / norms, dtype=np.float64)
