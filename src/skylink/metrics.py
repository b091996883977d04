"""Metrics, each under a name that says its variant. NumPy only.

`hits` is (Q, K) bool throughout: whether candidate i of query q, best first, is a true place.
Queries with fewer candidates are padded with False. `errors_m` is (Q,) metres >= 0; a query that
failed has the error infinity, and NaN is refused: nothing ranks silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of a paired difference.

    Attributes:
        low, high: its bounds.
        mean: the difference as observed on all data, not the mean over the resamples.
    """

    low: float
    high: float
    mean: float


def recall_at(hits: ArrayLike, k: int) -> float:
    """Recall@k, percent of queries: at least one hit among the first k candidates."""
    found = _hits(hits)
    if k < 1:
        raise ValueError(f"k = {k} is not at least 1")
    return _percent(np.asarray(found[:, :k].any(axis=1)))


def oracle_recall_at_1(hits: ArrayLike, k: int) -> float:
    """Recall@1, percent, of a perfect re-ranker of the first k: what re-ranking can reach.

    It equals `recall_at(hits, k)`: an order of the k puts a hit first exactly if there is one.
    """
    return recall_at(hits, k)


def average_precision_step(hits: ArrayLike, positives: ArrayLike) -> FloatArray:
    """Average precision of each query, 0..1, summed in steps (TREC `map`, no interpolation).

    AP = 1/P * sum over the hits i = 1..n of i / rank_i. A single positive at rank 2 scores 0.5.

    Args:
        hits: (Q, K) bool.
        positives: P, how many true places the gallery has: one number, or (Q,). Those that were
            not retrieved count as precision 0. A query with none scores 0.
    """
    found, count = _positives(hits, positives)
    precision = np.cumsum(found, axis=1) / _ranks(found)
    return _over(np.where(found, precision, 0.0).sum(axis=1), count)


def average_precision_trapezoid(hits: ArrayLike, positives: ArrayLike) -> FloatArray:
    """Average precision of each query, 0..1, by trapezoids (University-1652 `evaluate_gpu.py`).

    AP = 1/P * sum over the hits i = 1..n of (i / rank_i + (i - 1) / (rank_i - 1)) / 2, where the
    second term is 1 for rank 1: the mean of the precision at the hit and just before it. A single
    positive at rank 2 scores 0.25.

    Args: as for `average_precision_step`.
    """
    found, count = _positives(hits, positives)
    rank = _ranks(found)
    seen = np.cumsum(found, axis=1)
    before = np.where(rank > 1, (seen - 1) / np.maximum(rank - 1, 1), 1.0)
    return _over(np.where(found, (seen / rank + before) / 2, 0.0).sum(axis=1), count)


def median_error_m(errors_m: ArrayLike) -> float:
    """Median error, metres; infinite where half of the queries failed."""
    return float(np.median(_errors(errors_m)))


def within_m(errors_m: ArrayLike, radius_m: float) -> float:
    """Percent of queries whose error is at most `radius_m`."""
    return float(recall_curve(errors_m, [radius_m])[0])


def recall_curve(errors_m: ArrayLike, radii_m: ArrayLike) -> FloatArray:
    """(R,) percent of queries whose error is at most each of `radii_m`, metres, finite."""
    errors, radii = np.sort(_errors(errors_m)), _vector("radii_m", radii_m)
    if (radii < 0).any():
        raise ValueError("radii_m has negative values")
    return np.asarray(100.0 * np.searchsorted(errors, radii, side="right") / errors.size)


def flips(base_hit: ArrayLike, reranked_hit: ArrayLike) -> tuple[int, int]:
    """(fixed, broken): queries that re-ranking put right, and that it put wrong; (Q,) bool each."""
    base, reranked = _flags("base_hit", base_hit), _flags("reranked_hit", reranked_hit)
    _same_size(base, reranked)
    return int((~base & reranked).sum()), int((base & ~reranked).sum())


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> float:
    """ECE, 0..1, over bins of equal width: sum of n_b / n * |mean correct - mean confidence|.

    Args:
        confidence: (Q,) in 0..1. Bin b holds b/bins <= confidence < (b+1)/bins; the last, 1 too.
        correct: (Q,) bool.
        bins: number of bins.
    """
    count, claimed, right = reliability(confidence, correct, bins)
    held = count > 0
    return float((count * np.abs(claimed - right))[held].sum() / count.sum())


def reliability(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 10
) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """(queries, mean confidence, share correct) of each bin (B,); NaN where one has no query.

    Args: as for `expected_calibration_error`.
    """
    if bins < 1:
        raise ValueError(f"bins = {bins} is not at least 1")
    claimed, right = _vector("confidence", confidence), _flags("correct", correct)
    _same_size(claimed, right)
    if ((claimed < 0) | (claimed > 1)).any():
        raise ValueError("confidence is outside 0..1")
    index = np.minimum((claimed * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, weights=claimed, minlength=bins) / count
        share = np.bincount(index, weights=right.astype(np.float64), minlength=bins) / count
    return count, mean, share


def auroc(positive_scores: ArrayLike, negative_scores: ArrayLike) -> float:
    """Chance, 0..1, that a positive scores above a negative; ties count half (Mann-Whitney)."""
    positive = _vector("positive_scores", positive_scores)
    negative = np.sort(_vector("negative_scores", negative_scores))
    below = np.searchsorted(negative, positive, side="left").sum(dtype=np.float64)
    not_above = np.searchsorted(negative, positive, side="right").sum(dtype=np.float64)
    return float((below + not_above) / 2 / (positive.size * negative.size))


def consecutive_blocks(groups: ArrayLike, size: int) -> NDArray[np.int64]:
    """(Q,) block labels: runs of `size` queries of one group (a flight), in the given order.

    Frames of a flight overlap, so neighbours succeed and fail together; resampling them one by
    one would make intervals too narrow.
    """
    if size < 1:
        raise ValueError(f"size = {size} is not at least 1")
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    labels = np.empty(group.size, np.int64)
    first = 0
    for g in range(int(group.max(initial=-1)) + 1):
        members = np.flatnonzero(group == g)
        labels[members] = first + np.arange(members.size) // size
        first = int(labels[members[-1]]) + 1
    return labels


def block_bootstrap(
    base: ArrayLike,
    other: ArrayLike,
    blocks: ArrayLike,
    *,
    metric: Callable[[FloatArray], Any] = np.mean,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of metric(other) - metric(base), resampling whole blocks in pairs.

    Args:
        base, other: (Q,) the same queries' values under two methods (hits as 0 and 1, errors).
        blocks: (Q,) block labels; queries with the same label are drawn together.
        metric: (n,) -> number, such as `np.mean` or `np.median`.
        samples: how many times to draw as many blocks as there are, with replacement.
        seed: of the draws: the same seed gives the same interval.
        level: 0..1, the share of the resamples inside the interval.

    Raises:
        ValueError: sizes differ, values are not finite, or there are fewer than two blocks.
    """
    a, b = _vector("base", base), _vector("other", other)
    labels = np.asarray(blocks)
    _same_size(a, b)
    _same_size(a, labels)
    if samples < 1 or not 0 < level < 1:
        raise ValueError("samples must be at least 1 and level between 0 and 1")
    names, member = np.unique(labels, return_inverse=True)
    if names.size < 2:
        raise ValueError("one block can't be resampled: cut the data into several")
    parts = [np.flatnonzero(member == i) for i in range(names.size)]
    rng = np.random.default_rng(seed)
    differences = np.empty(samples)
    for i in range(samples):
        drawn = np.concatenate([parts[j] for j in rng.integers(0, names.size, names.size)])
        differences[i] = float(metric(b[drawn])) - float(metric(a[drawn]))
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), float(metric(b)) - float(metric(a)))


def _hits(hits: ArrayLike) -> BoolArray:
    found = np.asarray(hits)
    if found.ndim != 2 or found.dtype != np.bool_:
        raise ValueError(f"hits is {found.dtype} of shape {found.shape}, not bool (Q, K)")
    if not len(found):
        raise ValueError("hits has no queries")
    return found


def _positives(hits: ArrayLike, positives: ArrayLike) -> tuple[BoolArray, NDArray[np.int64]]:
    found, count = _hits(hits), np.asarray(positives)
    if not np.issubdtype(count.dtype, np.integer) or count.shape not in ((), (len(found),)):
        raise ValueError("positives is neither one whole number nor one for each query")
    count = np.broadcast_to(count, len(found)).astype(np.int64)
    if (found.sum(axis=1) > count).any():
        raise ValueError("a query has more hits than positives")
    return found, count


def _ranks(found: BoolArray) -> NDArray[np.int64]:
    return np.arange(1, found.shape[1] + 1, dtype=np.int64)[None, :]


def _over(total: FloatArray, count: NDArray[np.int64]) -> FloatArray:
    return np.asarray(total / np.maximum(count, 1), dtype=np.float64)


def _percent(flags: BoolArray) -> float:
    return float(100.0 * np.count_nonzero(flags) / flags.size)


def _vector(name: str, values: ArrayLike, *, infinite: bool = False) -> FloatArray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not vector.size:
        raise ValueError(f"{name} has the shape {vector.shape}, not (n,) with n > 0")
    bad = np.isnan(vector) if infinite else ~np.isfinite(vector)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(f"{name}[{first}] = {vector[first]} can't be ranked")
    return vector


def _errors(errors_m: ArrayLike) -> FloatArray:
    errors = _vector("errors_m", errors_m, infinite=True)
    if (errors < 0).any():
        raise ValueError("errors_m has negative values")
    return errors


def _flags(name: str, values: ArrayLike) -> BoolArray:
    flags = np.asarray(values)
    if flags.dtype != np.bool_ or flags.ndim != 1 or not flags.size:
        raise ValueError(f"{name} is {flags.dtype} of shape {flags.shape}, not bool (n,), n > 0")
    return flags


def _same_size(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
