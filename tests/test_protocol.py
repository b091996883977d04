"""Ranks and figures against loops of the field, scikit-learn and plain sorting."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from skylink import protocol
from skylink.protocol import rank_metrics, ranks_from_lists, ranks_from_scores, ranks_of_positives
from skylink.relevance import Distractors, Relevance
from skylink.retrieval_metrics import NOT_FOUND, Denominator, OnePercent, PositiveRanks

BOTH = pytest.mark.parametrize("convention", list(Distractors))


@st.composite
def benchmarks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """Small whole-numbered descriptors, whose products are exact and often equal, and labels."""
    queries, gallery = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    dimensions = draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    places = draw(st.integers(1, 6))
    return (
        rng.integers(-2, 3, (queries, dimensions)).astype(np.float32),
        rng.integers(-2, 3, (gallery, dimensions)).astype(np.float32),
        rng.integers(0, places, queries).tolist(),
        rng.integers(0, places, gallery).tolist(),
    )


def university_1652(
    scores: np.ndarray, query_labels: list[int], gallery_labels: np.ndarray
) -> dict[str, float]:
    """The steps of the published script: sort, mask junk, find good, add trapezoids, divide by all.

    Its sort is unstable and reversed; here equal scores keep the gallery's order.
    """
    total_ap, curve = 0.0, np.zeros(len(gallery_labels))
    for score, label in zip(scores, query_labels, strict=True):
        index = np.argsort(-score, kind="stable")
        good = np.argwhere(gallery_labels == label).ravel()
        junk = np.argwhere(gallery_labels == -1).ravel()
        if good.size == 0:
            continue  # skipped, and yet in the denominator
        index = index[~np.isin(index, junk)]
        places = np.argwhere(np.isin(index, good)).ravel()
        curve[places[0] :] += 1
        for i, place in enumerate(places):
            before = i / place if place else 1.0
            total_ap += (before + (i + 1) / (place + 1)) / 2 / len(good)
    curve = curve / len(query_labels) * 100
    return {
        **{f"recall@{k}": curve[k - 1] for k in (1, 5, 10) if k <= len(curve)},
        "recall@top1": curve[round(len(gallery_labels) * 0.01)],
        "ap_trapezoid": total_ap / len(query_labels) * 100,
    }


def sorted_ranks(scores: np.ndarray, relevance: Relevance, convention: Distractors) -> list[int]:
    """By sorting every query's whole gallery."""
    relevance, rows = relevance.under(convention)
    ranks: list[int] = []
    for q in range(relevance.queries):
        order = np.argsort(-scores[q, rows], kind="stable")
        good = relevance.positives[relevance.indptr[q] : relevance.indptr[q + 1]]
        ranks += (np.flatnonzero(np.isin(order, good)) + 1).tolist()
    return ranks


@BOTH
@given(benchmarks())
def test_against_the_published_loop(convention, benchmark) -> None:
    query, gallery, query_labels, gallery_labels = benchmark
    relevance = Relevance.from_labels(query_labels, gallery_labels)
    figures = rank_metrics(query, gallery, relevance, distractors=convention).as_dict()
    theirs = np.array(gallery_labels)
    if convention is Distractors.dropped:
        theirs[~np.isin(theirs, query_labels)] = -1
    expected = university_1652(query @ gallery.T, query_labels, theirs)
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


@BOTH
@given(benchmarks(), st.integers(0, 3))
def test_ties_go_to_the_lower_row_however_it_is_computed(convention, benchmark, sort_above) -> None:
    query, gallery, query_labels, gallery_labels = benchmark
    relevance = Relevance.from_labels(query_labels, gallery_labels)
    expected = sorted_ranks(query @ gallery.T, relevance, convention)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "SORT_ABOVE", sort_above)
        for kind in (np.float16, np.float32, np.float64, np.int8):
            q, g = query.astype(kind), gallery.astype(kind)
            ranks = ranks_of_positives(q, g, relevance, distractors=convention)
            assert ranks.ranks.tolist() == expected
            products = (query @ gallery.T).astype(kind)
            of_scores = ranks_from_scores(products, relevance, distractors=convention)
            assert of_scores.ranks.tolist() == expected
    assert ranks.gallery == len(gallery_labels)
    assert ranks.depth == ranks.ranked == len(relevance.under(convention)[1])


@given(benchmarks())
def test_step_average_precision_is_scikit_learns(benchmark) -> None:
    query, gallery, query_labels, gallery_labels = benchmark
    relevance = Relevance.from_labels(query_labels, gallery_labels)
    scores = query @ gallery.T + np.linspace(0, 0.1, len(gallery))[::-1]  # it takes ties as one
    ranks = ranks_from_scores(scores, relevance, distractors=Distractors.kept)
    for q, ap in enumerate(ranks.average_precision_step()):
        truth = np.array(gallery_labels) == query_labels[q]
        expected = average_precision_score(truth, scores[q]) if truth.any() else 0.0
        assert ap == pytest.approx(expected)


@given(benchmarks(), st.randoms(use_true_random=False))
def test_the_galleries_order_matters_for_ties_alone(benchmark, random) -> None:
    query, gallery, query_labels, gallery_labels = benchmark
    scores = query @ gallery.T + np.linspace(0, 0.1, len(gallery))
    order = list(range(len(gallery)))
    random.shuffle(order)
    straight = ranks_from_scores(
        scores,
        Relevance.from_labels(query_labels, gallery_labels),
        distractors=Distractors.dropped,
    )
    shuffled = ranks_from_scores(
        scores[:, order],
        Relevance.from_labels(query_labels, np.array(gallery_labels)[order]),
        distractors=Distractors.dropped,
    )
    np.testing.assert_array_equal(straight.ranks, shuffled.ranks)


def test_a_tie_is_not_won_by_being_right() -> None:
    same = np.ones((4, 2), np.float32)
    relevance = Relevance.from_labels([5], [1, 2, 3, 5])
    figures = rank_metrics(same[:1], same, relevance, distractors=Distractors.kept)
    assert figures.recall[1] == 0.0
    assert figures.ap_step == 25.0


def test_all_positive_and_none() -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.standard_normal((2, 4)), rng.standard_normal((200, 4))
    everything = Relevance.from_labels([1, 1], [1] * 200)
    figures = rank_metrics(query, gallery, everything, distractors=Distractors.dropped)
    assert figures.ap_step == figures.ap_trapezoid == figures.recall[1] == 100.0
    mixed = Relevance.from_labels([1, 2], [1] * 200)
    figures = rank_metrics(query, gallery, mixed, distractors=Distractors.kept)
    assert figures.without_positives == 1
    assert figures.recall[1] == figures.ap_step == pytest.approx(50.0)
    only = rank_metrics(
        query, gallery, mixed, distractors=Distractors.kept, denominator=Denominator.answerable
    )
    assert only.recall[1] == only.ap_step == pytest.approx(100.0)
    nothing = Relevance.from_labels([3, 2], [1] * 200)
    figures = rank_metrics(query, gallery, nothing, distractors=Distractors.kept)
    assert (figures.ap_step, figures.recall[10], figures.without_positives) == (0.0, 0.0, 2)
    empty = rank_metrics(query, gallery, nothing, distractors=Distractors.dropped)
    assert (empty.ranked, empty.gallery, empty.recall[1]) == (0, 200, 0.0)


def test_blocks_change_nothing_and_bound_the_memory(monkeypatch) -> None:
    rng = np.random.default_rng(3)
    query = rng.integers(-3, 4, (40, 6)).astype(np.float32)
    gallery = rng.integers(-3, 4, (30_000, 6)).astype(np.float32)
    relevance = Relevance.from_labels(np.arange(40), np.arange(30_000) % 60)
    largest = []
    counted = protocol._ranks
    monkeypatch.setattr(
        protocol,
        "_ranks",
        lambda scores, rows: largest.append(scores.base.nbytes) or counted(scores, rows),
    )
    small = ranks_of_positives(query, gallery, relevance, distractors=Distractors.kept, memory_mb=1)
    assert 0 < max(largest) <= 2**20
    large = ranks_of_positives(query, gallery, relevance, distractors=Distractors.kept)
    assert max(largest) > 2**20
    np.testing.assert_array_equal(small.ranks, large.ranks)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_cannot_be_ranked_is_refused(bad) -> None:
    query, gallery = np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)
    relevance = Relevance.from_labels([0, 1], [0, 1, 2, 3])
    for side, row in ((query, 1), (gallery, 3)):
        broken = side.copy()
        broken[row, 2] = bad
        pair = (broken, gallery) if side is query else (query, broken)
        with pytest.raises(ValueError, match=f"descriptor {row} is NaN or infinite"):
            ranks_of_positives(*pair, relevance, distractors=Distractors.kept)
    scores = np.zeros((2, 4))
    scores[1, 0] = bad
    with pytest.raises(ValueError, match="query 1 has a score"):
        ranks_from_scores(scores, relevance, distractors=Distractors.kept)
    huge = np.full((2, 3), 1e30, np.float32)
    with warnings.catch_warnings(action="error"), pytest.raises(ValueError, match="has a score"):
        ranks_of_positives(huge, gallery * 1e30, relevance, distractors=Distractors.kept)


def test_shapes_are_checked() -> None:
    relevance = Relevance.from_labels([0], [0, 1])
    keep = {"distractors": Distractors.kept}
    with pytest.raises(ValueError, match="dimensions"):
        ranks_of_positives(np.ones((1, 2)), np.ones((2, 3)), relevance, **keep)
    with pytest.raises(ValueError, match="query descriptors"):
        ranks_of_positives(np.ones((2, 2)), np.ones((2, 2)), relevance, **keep)
    with pytest.raises(ValueError, match="gallery descriptors"):
        ranks_of_positives(np.ones((1, 2)), np.ones((2, 2), complex), relevance, **keep)
    with pytest.raises(ValueError, match="memory_mb"):
        ranks_of_positives(np.ones((1, 2)), np.ones((2, 2)), relevance, **keep, memory_mb=0)
    with pytest.raises(ValueError, match="scores"):
        ranks_from_scores(np.ones((2, 2)), relevance, **keep)


@settings(max_examples=60)
@given(benchmarks(), st.integers(1, 14))
def test_lists_of_the_best_against_the_whole_ranking(benchmark, k) -> None:
    query, gallery, query_labels, gallery_labels = benchmark
    relevance = Relevance.from_labels(query_labels, gallery_labels)
    order = np.argsort(-(query @ gallery.T), axis=1, kind="stable")
    lists = np.full((len(query), k), -1)
    lists[:, : order.shape[1]] = order[:, :k]
    for convention in Distractors:
        whole = ranks_of_positives(query, gallery, relevance, distractors=convention)
        found = ranks_from_lists(lists, relevance, distractors=convention)
        kept = relevance.under(convention)[1]
        held = np.isin(lists, kept).sum(axis=1)  # ranks that a list can tell
        per_query = np.repeat(held, relevance.indptr[1:] - relevance.indptr[:-1])
        expected = np.where(whole.ranks <= per_query, whole.ranks, NOT_FOUND)
        np.testing.assert_array_equal(found.ranks, expected)
        assert found.depth <= min(k, len(kept))
        for depth in range(1, found.depth + 1):
            np.testing.assert_array_equal(found.hit_at(depth), whole.hit_at(depth))
        assert np.all(found.average_precision_step() <= whole.average_precision_step() + 1e-12)


def test_lists_by_hand() -> None:
    relevance = Relevance.from_labels([7, 8, 9], [7, 1, 8, 8, 9])
    lists = np.array([[1, 0, 4], [3, 1, -1], [-1, -1, -1]])
    kept = ranks_from_lists(lists, relevance, distractors=Distractors.kept)
    assert kept.ranks.tolist() == [2, 1, NOT_FOUND, NOT_FOUND]
    assert (kept.depth, kept.unanswered) == (3, 1)
    dropped = ranks_from_lists(lists, relevance, distractors=Distractors.dropped)
    assert dropped.ranks.tolist() == [1, 1, NOT_FOUND, NOT_FOUND]
    assert dropped.depth == 2
    figures = dropped.figures(k=(1, 2, 3), oracle_k=2)
    assert figures.recall == {1: pytest.approx(200 / 3), 2: pytest.approx(200 / 3), 3: None}
    assert figures.one_percent[OnePercent.top1] == pytest.approx(200 / 3)
    nothing = ranks_from_lists(np.full((3, 2), -1), relevance, distractors=Distractors.kept)
    assert nothing.unanswered == 3
    assert set(nothing.ranks.tolist()) == {NOT_FOUND}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[0, 0]], "twice"),
        ([[-1, 0]], "after a -1"),
        ([[5, 0]], "not one of"),
        ([[-2, 0]], "not one of"),
        ([[0.0, 1.0]], "rows"),
        ([[0], [1]], "rows"),
    ],
)
def test_lists_are_checked(lists, message) -> None:
    relevance = Relevance.from_labels([0], [0, 1])
    with pytest.raises(ValueError, match=message):
        ranks_from_lists(lists, relevance, distractors=Distractors.kept)


def test_a_re_ranker_cannot_beat_its_oracle() -> None:
    rng = np.random.default_rng(5)
    query, gallery = rng.standard_normal((50, 8)), rng.standard_normal((60, 8))
    relevance = Relevance.from_labels(np.arange(50), np.arange(60))
    base = ranks_of_positives(query, gallery, relevance, distractors=Distractors.kept)
    lists = np.argsort(-(query @ gallery.T), axis=1)[:, :10]
    perfect = np.array([sorted(row, key=lambda g, q=q: g != q) for q, row in enumerate(lists)])
    reranked: PositiveRanks = ranks_from_lists(perfect, relevance, distractors=Distractors.kept)
    assert reranked.figures().recall[1] == base.figures(oracle_k=10).oracle_recall_at_1
