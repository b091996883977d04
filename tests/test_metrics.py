"""Metrics against hand-worked cases and brute-force oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skylink import metrics

hit_tables = hnp.arrays(
    np.bool_, st.tuples(st.integers(1, 8), st.integers(1, 12)), elements=st.booleans()
)
# few distinct values, so that ties are common
scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)
error_lists = st.lists(st.floats(0, 1e4) | st.just(math.inf), min_size=1, max_size=20)


def row(*ranks: int, k: int = 5) -> np.ndarray:
    """One query with hits at these ranks, from 1."""
    return np.isin(np.arange(1, k + 1), ranks)[None, :]


def test_recall_by_hand() -> None:
    hits = np.array([[True, False], [False, True], [False, False], [False, True]])
    assert metrics.recall_at(hits, 1) == 25.0
    assert metrics.recall_at(hits, 2) == 75.0
    assert metrics.recall_at(hits, 50) == 75.0
    assert metrics.oracle_recall_at_1(hits, 2) == 75.0
    assert metrics.recall_at(np.zeros((3, 0), bool), 1) == 0.0


@given(hit_tables, st.randoms())
def test_recall_is_bounded_monotone_and_blind_to_query_order(hits, random) -> None:
    order = list(range(len(hits)))
    random.shuffle(order)
    curve = [metrics.recall_at(hits, k) for k in range(1, hits.shape[1] + 1)]
    assert curve == sorted(curve)
    assert 0 <= curve[0] <= curve[-1] <= 100
    assert [metrics.recall_at(hits[order], k) for k in range(1, hits.shape[1] + 1)] == curve


@given(hit_tables)
def test_oracle_is_what_a_perfect_order_reaches(hits) -> None:
    for k in range(1, hits.shape[1] + 1):
        perfect = hits.copy()
        perfect[:, :k] = -np.sort(-perfect[:, :k].astype(int), axis=1) > 0
        assert metrics.oracle_recall_at_1(hits, k) == metrics.recall_at(perfect, 1)


@pytest.mark.parametrize(
    ("ranks", "positives", "step", "trapezoid"),
    [
        ((1,), 1, 1.0, 1.0),
        ((2,), 1, 0.5, 0.25),  # the two variants part here
        ((1, 3), 2, (1 + 2 / 3) / 2, (1 + (2 / 3 + 1 / 2) / 2) / 2),
        ((1,), 4, 0.25, 0.25),  # three positives were not retrieved
        ((), 3, 0.0, 0.0),
        ((), 0, 0.0, 0.0),  # the gallery has none
        ((1, 2, 3, 4, 5), 5, 1.0, 1.0),
    ],
)
def test_average_precision_by_hand(ranks, positives, step, trapezoid) -> None:
    hits = row(*ranks)
    assert metrics.average_precision_step(hits, positives) == pytest.approx([step])
    assert metrics.average_precision_trapezoid(hits, positives) == pytest.approx([trapezoid])


def university_1652_ap(good_ranks: list[int], positives: int) -> float:
    """The published evaluation's loop; ranks from 0."""
    total = 0.0
    for i, rank in enumerate(good_ranks):
        precision = (i + 1) / (rank + 1)
        old_precision = i / rank if rank else 1.0
        total += (old_precision + precision) / 2 / positives
    return total


@given(hit_tables, st.integers(0, 3))
def test_average_precision_against_loops(hits, unseen) -> None:
    positives = hits.sum(axis=1) + unseen
    step = metrics.average_precision_step(hits, positives)
    trapezoid = metrics.average_precision_trapezoid(hits, positives)
    for q, found in enumerate(hits):
        ranks = np.flatnonzero(found).tolist()
        count = max(1, int(positives[q]))
        assert trapezoid[q] == pytest.approx(university_1652_ap(ranks, count))
        assert step[q] == pytest.approx(
            sum((i + 1) / (rank + 1) for i, rank in enumerate(ranks)) / count
        )
    assert np.all((trapezoid <= step + 1e-12) & (trapezoid >= 0) & (step <= 1 + 1e-12))


@given(hit_tables)
def test_padding_with_false_changes_nothing(hits) -> None:
    padded = np.pad(hits, ((0, 0), (0, 4)))
    positives = hits.sum(axis=1) + 1
    for average_precision in (
        metrics.average_precision_step,
        metrics.average_precision_trapezoid,
    ):
        np.testing.assert_allclose(
            average_precision(hits, positives), average_precision(padded, positives)
        )


def test_hits_are_checked() -> None:
    with pytest.raises(ValueError, match="bool"):
        metrics.recall_at([[0.9, 0.1]], 1)
    with pytest.raises(ValueError, match="bool"):
        metrics.recall_at(np.array([True]), 1)
    with pytest.raises(ValueError, match="no queries"):
        metrics.recall_at(np.zeros((0, 5), bool), 1)
    with pytest.raises(ValueError, match="at least 1"):
        metrics.recall_at(row(1), 0)
    with pytest.raises(ValueError, match="more hits than positives"):
        metrics.average_precision_step(row(1, 2), 1)
    with pytest.raises(ValueError, match="whole number"):
        metrics.average_precision_step(row(1), [1, 2])
    with pytest.raises(ValueError, match="whole number"):
        metrics.average_precision_step(row(1), 1.0)


def test_errors_by_hand() -> None:
    errors = [10.0, 50.0, 60.0, math.inf]
    assert metrics.median_error_m(errors) == 55.0
    assert metrics.within_m(errors, 50.0) == 50.0  # the radius itself is inside
    assert metrics.recall_curve(errors, [100.0, 0.0, 50.0]).tolist() == [75.0, 0.0, 50.0]
    assert metrics.median_error_m([1.0, math.inf, math.inf]) == math.inf
    assert metrics.median_error_m([1.0, math.inf]) == math.inf


@given(error_lists, st.lists(st.floats(0, 2e4), min_size=1, max_size=6))
def test_recall_curve_against_counting(errors, radii) -> None:
    curve = metrics.recall_curve(errors, radii)
    for radius, percent in zip(radii, curve, strict=True):
        assert percent == pytest.approx(100 * sum(e <= radius for e in errors) / len(errors))
    assert metrics.recall_curve(errors, sorted(radii)).tolist() == sorted(curve)
    assert metrics.median_error_m(errors[::-1]) == metrics.median_error_m(errors)


@pytest.mark.parametrize("bad", [[math.nan], [1.0, math.nan], [-1.0], [], [[1.0]]])
def test_bad_errors_raise(bad) -> None:
    for metric in (metrics.median_error_m, lambda e: metrics.within_m(e, 5.0)):
        with pytest.raises(ValueError, match="errors_m"):
            metric(bad)
    with pytest.raises(ValueError, match="radii_m"):
        metrics.recall_curve([1.0], [math.nan])


def test_flips() -> None:
    base = np.array([True, True, False, False, False])
    reranked = np.array([True, False, True, True, False])
    assert metrics.flips(base, reranked) == (2, 1)
    assert metrics.flips(reranked, base) == (1, 2)
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.flips(base, reranked[:3])


def test_reliability_by_hand() -> None:
    count, claimed, right = metrics.reliability([0.2, 0.9, 1.0], [False, True, False], bins=3)
    assert count.tolist() == [1, 0, 2]
    assert claimed[[0, 2]].tolist() == pytest.approx([0.2, 0.95])
    assert right[[0, 2]].tolist() == [0, 0.5]
    assert np.isnan(claimed[1])
    assert np.isnan(right[1])


def test_calibration_by_hand() -> None:
    # two bins: (0.2 claimed, 0 right) and (0.9 and 1.0 claimed, one of two right)
    error = metrics.expected_calibration_error([0.2, 0.9, 1.0], [False, True, False], bins=2)
    assert error == pytest.approx(1 / 3 * 0.2 + 2 / 3 * 0.45)
    assert metrics.expected_calibration_error([1.0, 0.0], [True, False]) == 0.0
    assert metrics.expected_calibration_error([1.0, 0.0], [False, True]) == 1.0
    for bad in ([1.1], [math.nan], [-0.1]):
        with pytest.raises(ValueError, match="confidence"):
            metrics.expected_calibration_error(bad, [True])


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=20),
    st.integers(1, 12),
)
def test_calibration_against_a_loop(pairs, bins) -> None:
    claimed, right = zip(*pairs, strict=True)
    error = 0.0
    for b in range(bins):
        inside = [p for p in pairs if min(int(p[0] * bins), bins - 1) == b]
        if inside:
            gap = sum(r for _, r in inside) / len(inside) - sum(c for c, _ in inside) / len(inside)
            error += len(inside) / len(pairs) * abs(gap)
    assert metrics.expected_calibration_error(claimed, right, bins) == pytest.approx(error)
    assert 0 <= error <= 1


def test_auroc_by_hand() -> None:
    assert metrics.auroc([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert metrics.auroc([0.0], [1.0]) == 0.0
    assert metrics.auroc([1.0, 1.0], [1.0]) == 0.5
    with pytest.raises(ValueError, match="positive_scores"):
        metrics.auroc([math.nan], [1.0])
    with pytest.raises(ValueError, match="negative_scores"):
        metrics.auroc([1.0], [math.inf])
    with pytest.raises(ValueError, match="negative_scores"):
        metrics.auroc([1.0], [])


@given(scores, scores)
def test_auroc_against_all_pairs(positive, negative) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    area = metrics.auroc(positive, negative)
    assert area == pytest.approx(sum(pairs) / len(pairs))
    assert metrics.auroc(positive[::-1], negative[::-1]) == area
    assert metrics.auroc(negative, positive) == pytest.approx(1 - area)


def test_consecutive_blocks() -> None:
    groups = ["a", "a", "b", "a", "b", "b", "b"]
    labels = metrics.consecutive_blocks(groups, 2)
    assert labels.tolist() == [0, 0, 2, 1, 2, 3, 3]
    assert metrics.consecutive_blocks([], 2).size == 0


def test_bootstrap_sees_a_real_difference_and_not_a_void_one() -> None:
    rng = np.random.default_rng(1)
    base = rng.random(300) < 0.4
    blocks = metrics.consecutive_blocks(np.zeros(300), 10)
    better = base | (rng.random(300) < 0.3)
    gain = metrics.block_bootstrap(base, better, blocks, samples=400)
    assert 0 < gain.low < gain.mean < gain.high
    assert gain.mean == pytest.approx(better.mean() - base.mean())
    same = metrics.block_bootstrap(base, base, blocks, samples=50)
    assert (same.low, same.mean, same.high) == (0.0, 0.0, 0.0)
    assert metrics.block_bootstrap(base, better, blocks, samples=400) == gain
    assert metrics.block_bootstrap(base, better, blocks, samples=400, seed=1) != gain


def test_bootstrap_of_blocks_is_wider_than_of_frames() -> None:
    rng = np.random.default_rng(2)
    blocks = np.repeat(np.arange(20), 15)
    other = np.repeat(rng.random(20) < 0.5, 15)  # all frames of a block agree
    base = np.zeros(300)
    whole = metrics.block_bootstrap(base, other, blocks, samples=400)
    frames = metrics.block_bootstrap(base, other, np.arange(300), samples=400)
    assert whole.high - whole.low > 2.5 * (frames.high - frames.low)


def test_bootstrap_takes_any_metric_and_checks_its_input() -> None:
    base, other = np.arange(12.0), np.arange(12.0) + 3
    interval = metrics.block_bootstrap(
        base, other, np.arange(12) // 3, metric=np.median, samples=50
    )
    assert (interval.low, interval.mean, interval.high) == (3.0, 3.0, 3.0)
    with pytest.raises(ValueError, match="one block"):
        metrics.block_bootstrap(base, other, np.zeros(12))
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.block_bootstrap(base, other, np.arange(11))
    with pytest.raises(ValueError, match="can't be ranked"):
        metrics.block_bootstrap(base, np.full(12, np.nan), np.arange(12))
