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

_MAX_CORNERS = 64

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Polygon = list[tuple[float, float]]


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


def rectangles(
    x_m: ArrayLike,
    y_m: ArrayLike,
    width_m: ArrayLike,
    height_m: ArrayLike,
    heading_deg: ArrayLike = 0.0,
) -> FloatArray:
    """(N, 4, 2) footprints of rectangles around (x, y), metres; arrays of (N,) or numbers.

    `heading_deg` turns them clockwise from north; 0 are squares as tiles are.
    """
    x, y, width, height, heading = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(v, float)) for v in (x_m, y_m, width_m, height_m, heading_deg))
    )
    right = np.array([-0.5, 0.5, 0.5, -0.5]) * width[:, None]
    ahead = np.array([-0.5, -0.5, 0.5, 0.5]) * height[:, None]
    cos, sin = np.cos(np.radians(heading))[:, None], np.sin(np.radians(heading))[:, None]
    east = x[:, None] + right * cos + ahead * sin
    north = y[:, None] - right * sin + ahead * cos
    return np.stack([east, north], axis=2)


def iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """(N, M) intersection over union of convex polygons (N, V, 2) and (M, W, 2).

    Corners in either direction. Clipped half-plane by half-plane (Sutherland and Hodgman), after a
    look at which boxes meet at all. OpenCV 5.0's `intersectConvexConvex` gives 0 for nested
    rectangles that share parts of edges, as tiles of one grid do.

    Raises:
        ValueError: a polygon has no area, is not convex, crosses itself, or is not (N, 3 to 64, 2).
    """
    one, other = _counter_clockwise(a), _counter_clockwise(b)
    middle = one.mean(axis=(0, 1))  # small numbers lose no digits
    one, other = one - middle, other - middle
    areas, other_areas = _area(one), _area(other)
    gap = np.maximum(
        one.min(axis=1)[:, None] - other.max(axis=1), other.min(axis=1) - one.max(axis=1)[:, None]
    ).max(axis=2)
    out = np.zeros((len(one), len(other)))
    for i, j in np.argwhere(gap < 0):
        shared = _clipped_area(list(map(tuple, one[i].tolist())), other[j].tolist())
        out[i, j] = shared / (areas[i] + other_areas[j] - shared)
    return np.clip(out, 0.0, 1.0)


def _counter_clockwise(polygons: FloatArray) -> FloatArray:
    found = np.asarray(polygons, dtype=np.float64)
    if found.ndim != 3 or found.shape[2] != 2 or not 3 <= found.shape[1] <= _MAX_CORNERS:
        raise ValueError(f"footprints {found.shape} are not (N, 3 to {_MAX_CORNERS}, 2)")
    flipped = _area(found - found[:, :1]) < 0
    found = np.where(flipped[:, None, None], found[:, ::-1], found)
    edges = np.roll(found, -1, axis=1) - found
    after = np.roll(edges, -1, axis=1)
    turn = np.arctan2(
        edges[..., 0] * after[..., 1] - edges[..., 1] * after[..., 0], (edges * after).sum(axis=2)
    )
    # a convex ring never turns right and turns once around; a star turns twice
    convex = (turn > -1e-6).all(axis=1) & (np.abs(turn.sum(axis=1) - 2 * math.pi) < 1e-3)
    wrong = ~convex | (_area(found - found[:, :1]) <= 0)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"footprint {at + 1} is not a convex polygon with an area")
    return found


def _area(polygons: FloatArray) -> FloatArray:
    """(N,) signed areas of (N, V, 2), positive counter-clockwise."""
    x, y = polygons[..., 0], polygons[..., 1]
    cross = x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)
    return np.asarray(cross.sum(axis=1) / 2, dtype=np.float64)


def _clipped_area(polygon: Polygon, window: list[list[float]]) -> float:
    """Area of a polygon within a counter-clockwise convex window."""
    for (ax, ay), (bx, by) in zip(window, [*window[1:], window[0]], strict=True):
        kept: Polygon = []
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in polygon]
        for k, (x, y) in enumerate(polygon):
            before, side = sides[k - 1], sides[k]
            if (before < 0) != (side < 0):
                share = before / (before - side)
                px, py = polygon[k - 1]
                kept.append((px + share * (x - px), py + share * (y - py)))
            if side >= 0:
                kept.append((x, y))
        polygon = kept
    pairs = zip(polygon, [*polygon[1:], *polygon[:1]], strict=True)
    return max(0.0, sum(x * v - u * y for (x, y), (u, v) in pairs) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStatistics:
    """What a set of labels looks like.

    Attributes:
        lists, candidates: how many.
        soft_share: share of lists with a label above 0 beside the ground truth's.
        one_hot_share: share of lists with at most one label above 0.
        entropy: mean entropy of the labels normalised to sum 1, nats.
        relative_entropy: the same by its maximum log K: 0 is one-hot, 1 all alike.
        histogram: candidates beside the ground truth: with label 0, then in ten equal bins
            (0, 0.1], ..., (0.9, 1].
        collapsed: every list is one-hot: soft losses are the hard one.
    """

    lists: int
    candidates: int
    soft_share: float
    one_hot_share: float
    entropy: float
    relative_entropy: float
    histogram: tuple[int, ...]
    collapsed: bool

    @property
    def note(self) -> str:
        """What is wrong with these labels, in words; empty where nothing is."""
        if self.collapsed:
            return (
                "labels collapsed: every list is one-hot, so soft labels are hard ones; lower the "
                "threshold, choose it by a quantile, or take another source"
            )
        if self.relative_entropy > 0.98:
            return (
                "labels are nearly flat: they hardly tell the ground truth from the others; raise "
                "the threshold, choose it by a quantile, or take another source"
            )
        return ""


class LabelCounter:
    """Gathers `LabelStatistics` list by list; nothing of the lists is kept."""

    def __init__(self) -> None:
        self._lists = self._candidates = self._soft = self._one_hot = 0
        self._entropy = self._relative = 0.0
        self._histogram = np.zeros(11, np.int64)

    def add(self, labels: ArrayLike, ground_truth: ArrayLike) -> None:
        """Count the labels (K,) of a list and its ground truth (K,) bool."""
        w, right = np.asarray(labels, dtype=np.float64), np.asarray(ground_truth, dtype=bool)
        p = w[w > 0] / w.sum()
        entropy = abs(float((p * np.log(p)).sum()))
        self._lists += 1
        self._candidates += len(w)
        self._soft += bool((w[~right] > 0).any())
        self._one_hot += len(p) <= 1
        self._entropy += entropy
        self._relative += entropy / math.log(len(w)) if len(w) > 1 else 0.0
        bins = np.ceil(np.round(w[~right], 6) * 10).astype(np.int64)  # 0.3 as float32 is not above
        self._histogram += np.bincount(np.clip(bins, w[~right] > 0, 10), minlength=11)

    def statistics(self) -> LabelStatistics:
        """What was counted so far. Raises QueriesError where there was no list."""
        if not self._lists:
            raise QueriesError("there are no lists: labels have no statistics")
        return LabelStatistics(
            lists=self._lists,
            candidates=self._candidates,
            soft_share=self._soft / self._lists,
            one_hot_share=self._one_hot / self._lists,
            entropy=self._entropy / self._lists,
            relative_entropy=self._relative / self._lists,
            histogram=tuple(self._histogram.tolist()),
            collapsed=self._one_hot == self._lists,
        )
