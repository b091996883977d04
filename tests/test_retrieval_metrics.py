"""Figures from ranks: against `metrics.py` on the same rankings, and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink import metrics
from skylink.retrieval_metrics import NOT_FOUND, Denominator, OnePercent, PositiveRanks

DEPTH = 12
queries_of_ranks = st.lists(
    st.lists(st.integers(1, DEPTH), unique=True, max_size=6).map(sorted), min_size=1, max_size=6
)


def ranks_of(lists: list[list[int]], missing: int = 0, **extra: int | None) -> PositiveRanks:
    """Found ranks and `missing` positives a query that were not retrieved."""
    full = [ranks + [NOT_FOUND] * missing for ranks in lists]
    return PositiveRanks(
        indptr=np.cumsum([0, *map(len, full)]),
        ranks=np.array([rank for ranks in full for rank in ranks], dtype=np.int64),
        **{"depth": DEPTH, "ranked": DEPTH, "gallery": DEPTH, **extra},
    )


@given(queries_of_ranks, st.integers(0, 3))
def test_sparse_figures_equal_those_of_hit_tables(lists, missing) -> None:
    ranks = ranks_of(lists, missing)
    hits = np.array([np.isin(np.arange(1, DEPTH + 1), r) for r in lists])
    count = np.array([len(r) + missing for r in lists])
    assert ranks.positives.tolist() == count.tolist()
    np.testing.assert_allclose(
        ranks.average_precision_step(), metrics.average_precision_step(hits, count)
    )
    np.testing.assert_allclose(
        ranks.average_precision_trapezoid(), metrics.average_precision_trapezoid(hits, count)
    )
    figures = ranks.figures(k=(1, 3, DEPTH, 99), oracle_k=3)
    for k, value in figures.recall.items():
        assert value == pytest.approx(metrics.recall_at(hits, k))
    assert figures.oracle_recall_at_1 == figures.recall[3]
    assert figures.without_positives == int((count == 0).sum())


def test_figures_by_hand() -> None:
    ranks = ranks_of([[2], [1, 4], [], [11]])
    figures = ranks.figures()
    assert figures.recall == {1: 25.0, 5: 50.0, 10: 50.0}
    assert figures.ap_step == pytest.approx(100 * (1 / 2 + (1 + 2 / 4) / 2 + 0 + 1 / 11) / 4)
    assert figures.ap_trapezoid == pytest.approx(
        100 * ((0 + 1 / 2) / 2 + (1 + (1 / 3 + 2 / 4) / 2) / 2 + 0 + (0 + 1 / 11) / 2) / 4
    )
    assert figures.mrr == pytest.approx(100 * (1 / 2 + 1 + 0 + 1 / 11) / 4)
    assert (figures.queries, figures.without_positives) == (4, 1)
    answerable = ranks.figures(denominator=Denominator.answerable)
    assert answerable.recall[5] == pytest.approx(200 / 3)
    assert answerable.ap_step == pytest.approx(figures.ap_step * 4 / 3)
    assert (answerable.queries, answerable.without_positives) == (4, 1)
    assert ranks.first().tolist() == [2, 1, NOT_FOUND, 11]
    assert ranks.hit_at(2).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("ranked", "gallery", "rounded", "floored", "top1"),
    [
        (951, 951, 10, 9, 11),  # University-1652, drone to satellite
        (701, 951, 7, 7, 11),  # the same without distractors
        (8884, 8884, 89, 88, 90),  # CVUSA
        (40, 40, 1, 1, 1),  # round(0.4) = 0, and the curve's index 0 is rank 1
    ],
)
def test_three_kinds_of_one_percent(ranked, gallery, rounded, floored, top1) -> None:
    sizes = {"ranked": ranked, "gallery": gallery}
    assert OnePercent.rounded.k(**sizes) == rounded
    assert OnePercent.floored.k(**sizes) == floored
    assert OnePercent.top1.k(**sizes) == top1
    for rank in (floored, rounded, top1):
        figures = ranks_of([[rank]], depth=ranked, **sizes).figures()
        assert figures.one_percent == {
            OnePercent.rounded: 100.0 * (rank <= rounded),
            OnePercent.floored: 100.0 * (rank <= floored),
            OnePercent.top1: 100.0 * (rank <= top1),
        }


def test_what_a_short_list_cannot_tell_is_none() -> None:
    ranks = ranks_of([[2], []], missing=1, depth=3, ranked=100, gallery=100)
    figures = ranks.figures(k=(1, 3, 4))
    assert figures.recall == {1: 0.0, 3: 50.0, 4: None}
    assert figures.oracle_recall_at_1 is None
    assert figures.one_percent[OnePercent.rounded] == 0.0
    assert figures.one_percent[OnePercent.top1] == 50.0
    unknown = ranks_of([[2]], depth=3, ranked=None, gallery=None).figures()
    assert set(unknown.one_percent.values()) == {None}
    with pytest.raises(ValueError, match="only the best 3"):
        ranks.hit_at(4)


def test_figures_as_json() -> None:
    flat = ranks_of([[1], [3]]).figures(k=(1, 2)).as_dict()
    assert json.loads(json.dumps(flat)) == flat
    assert flat["recall@1"] == 50.0
    assert flat["recall@top1"] == 50.0
    assert flat["oracle_recall@1_of_10"] == 100.0
    assert flat["denominator"] == "all queries"


def test_paired_bootstrap_and_flips_take_per_query_values() -> None:
    base, better = ranks_of([[1], [2], [3], [1]] * 20), ranks_of([[1], [1], [2], [1]] * 20)
    assert metrics.flips(base.hit_at(1), better.hit_at(1)) == (20, 0)
    blocks = metrics.consecutive_blocks(np.zeros(80), 5)
    gain = metrics.block_bootstrap(base.hit_at(1), better.hit_at(1), blocks, samples=200)
    assert 0 < gain.low <= gain.mean <= gain.high
    assert gain.mean == pytest.approx(0.25)


def test_ranks_are_checked() -> None:
    with pytest.raises(ValueError, match="no queries"):
        PositiveRanks(indptr=np.array([0]), ranks=np.array([], np.int64), depth=1)
    for lists, message in (([[0]], "at least 1"), ([[2, 2]], "ascending"), ([[3, 1]], "ascending")):
        with pytest.raises(ValueError, match=message):
            ranks_of(lists)
    with pytest.raises(ValueError, match="partition"):
        PositiveRanks(indptr=np.array([0, 2]), ranks=np.array([1]), depth=1)
    with pytest.raises(ValueError, match="no query has a positive"):
        ranks_of([[], []]).figures(denominator=Denominator.answerable)
    with pytest.raises(ValueError, match="at least 1"):
        ranks_of([[1]]).figures(k=(0,))
    assert ranks_of([[], []]).figures().ap_step == 0.0
