"""Who is right for whom: from labels, from lists, under both gallery conventions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.relevance import Distractors, Relevance

labels = st.lists(st.integers(0, 5), min_size=1, max_size=12)


def rows_of(relevance: Relevance) -> list[list[int]]:
    return [part.tolist() for part in np.split(relevance.positives, relevance.indptr[1:-1])]


@given(labels, labels)
def test_labels_against_comparison(query, gallery) -> None:
    relevance = Relevance.from_labels(query, gallery)
    assert rows_of(relevance) == [[g for g, x in enumerate(gallery) if x == q] for q in query]
    assert relevance.distractors.tolist() == [x not in query for x in gallery]
    assert relevance.weights.tolist() == [1.0] * len(relevance.positives)
    texts = Relevance.from_labels([f"{q:04d}" for q in query], [f"{g:04d}" for g in gallery])
    assert rows_of(texts) == rows_of(relevance)
    lists = Relevance.from_lists([rows[::-1] for rows in rows_of(relevance)], len(gallery))
    assert rows_of(lists) == rows_of(relevance)
    np.testing.assert_array_equal(lists.distractors, relevance.distractors)


@given(labels, labels)
def test_dropped_distractors_are_minus_one_labels(query, gallery) -> None:
    """Peers write -1 over the labels that no query has; we find the same rows."""
    dropped, rows = Relevance.from_labels(query, gallery).under(Distractors.dropped)
    assert rows.tolist() == [g for g, x in enumerate(gallery) if x in query]
    assert rows_of(dropped) == [[i for i, g in enumerate(rows) if gallery[g] == q] for q in query]
    assert not dropped.distractors.any()
    junk = [x if x in query else -1 for x in gallery]
    np.testing.assert_array_equal(
        Relevance.from_labels(query, junk).under(Distractors.dropped)[1], rows
    )
    whole = Relevance.from_labels(query, gallery)
    kept, rows = whole.under(Distractors.kept)
    assert kept is whole
    assert len(rows) == len(gallery)


def test_weights_and_a_threshold() -> None:
    relevance = Relevance.from_lists([[4, 1], [], [0]], 5, [[0.2, 0.9], [], [0.5]])
    assert rows_of(relevance) == [[1, 4], [], [0]]
    np.testing.assert_allclose(relevance.weights, [0.9, 0.2, 0.5])
    strict = relevance.at_least(0.39)  # GTA-UAV's positives without the semi-positives
    assert rows_of(strict) == [[1], [], [0]]
    assert strict.distractors.tolist() == [False, False, True, True, False]
    given = Relevance.from_lists([[1], [0]], 4, distractors=[3])  # row 2 is a semi-positive
    assert given.distractors.tolist() == [False, False, False, True]
    assert given.under(Distractors.dropped)[1].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="marked as a distractor"):
        Relevance.from_lists([[1]], 3, distractors=[1])


def test_a_part_of_the_queries_keeps_the_benchmarks_distractors() -> None:
    relevance = Relevance.from_labels([7, 8, 9], [7, 8, 9, 9, 1])
    part = relevance.select([2, 0])
    assert rows_of(part) == [[2, 3], [0]]
    assert part.distractors.tolist() == [False, False, False, False, True]
    assert len(part.under(Distractors.dropped)[1]) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Relevance.from_labels([1, -1], [1]), "marks junk"),
        (lambda: Relevance.from_labels([1], ["1"]), "one kind"),
        (lambda: Relevance.from_labels([1.0], [1.0]), "numbers or texts"),
        (lambda: Relevance.from_labels([], [1]), "numbers or texts|no queries"),
        (lambda: Relevance.from_lists([], 3), "no queries"),
        (lambda: Relevance.from_lists([[3]], 3), "gallery rows"),
        (lambda: Relevance.from_lists([[-1]], 3), "gallery rows"),
        (lambda: Relevance.from_lists([[1, 1]], 3), "twice"),
        (lambda: Relevance.from_lists([[1]], 3, [[0.0]]), "positive number"),
        (lambda: Relevance.from_lists([[1]], 3, [[float("nan")]]), "positive number"),
        (lambda: Relevance.from_lists([[1]], 3, [[]]), "differ in length"),
    ],
)
def test_nonsense_is_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_arrays_are_checked() -> None:
    good = {
        "indptr": np.array([0, 1]),
        "positives": np.array([0]),
        "weights": np.ones(1, np.float32),
        "gallery": 2,
        "distractors": np.array([False, True]),
    }
    Relevance(**good)
    for change, message in (
        ({"indptr": np.array([1, 1])}, "start at 0"),
        ({"indptr": np.array([0, 2])}, "same length"),
        ({"positives": np.array([1])}, "marked as a distractor"),
        ({"positives": np.array([2])}, "gallery rows"),
        ({"distractors": np.array([False])}, "not bool"),
    ):
        with pytest.raises(ValueError, match=message):
            Relevance(**{**good, **change})
