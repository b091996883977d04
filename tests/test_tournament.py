"""The tournament orders what can be ordered, and never asks more than it may."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.tournament import Pair, tournament

WORTHS = st.lists(st.integers(-3, 3), max_size=24)


class Judge:
    """Compares by worth, and remembers what it was asked."""

    def __init__(self, worth: Sequence[float]) -> None:
        self.worth, self.asked, self.calls = worth, list[Pair](), 0

    def __call__(self, pairs: Sequence[Pair]) -> list[float]:
        assert len(pairs) > 0
        self.asked += pairs
        self.calls += 1
        return [self.worth[i] - self.worth[j] for i, j in pairs]


def order(scores: np.ndarray) -> list[int]:
    return [int(i) for i in np.argsort(-scores, kind="stable")]


@given(WORTHS)
def test_consistent_comparisons_give_the_right_order(worth: list[int]) -> None:
    """Equal ones keep the order of the base."""
    judge, k = Judge(worth), len(worth)
    scores = tournament(k, judge, max_comparisons=10_000)
    assert scores.shape == (k,)
    assert scores.dtype == np.float32
    assert order(scores) == sorted(range(k), key=lambda i: -worth[i])
    bound = k * math.ceil(math.log2(k)) if k > 1 else 0
    assert len(judge.asked) <= bound
    assert len(set(judge.asked)) == len(judge.asked)
    assert all(i != j for i, j in judge.asked)


@given(WORTHS, st.integers(-2, 40))
def test_never_more_than_allowed(worth: list[int], limit: int) -> None:
    judge, k = Judge(worth), len(worth)
    scores = tournament(k, judge, max_comparisons=limit)
    assert len(judge.asked) <= max(0, limit)
    assert sorted(scores) == list(range(1, k + 1))


@given(st.integers(0, 20), st.integers(0, 60))
def test_even_nonsense_gives_a_ranking(k: int, limit: int) -> None:
    draw = np.random.default_rng(k * 100 + limit)
    scores = tournament(k, lambda pairs: draw.normal(size=len(pairs)), max_comparisons=limit)
    assert sorted(scores) == list(range(1, k + 1))


@pytest.mark.parametrize("k", [0, 1, 2, 3, 7, 20])
def test_without_comparisons_the_base_decides(k: int) -> None:
    judge = Judge([0.0] * k)
    assert order(tournament(k, judge, max_comparisons=0)) == list(range(k))
    assert judge.calls == 0


@pytest.mark.parametrize("k", [0, 1])
def test_nothing_to_compare(k: int) -> None:
    judge = Judge([1.0] * k)
    np.testing.assert_array_equal(tournament(k, judge, max_comparisons=9), np.ones(k))
    assert judge.calls == 0


def test_independent_comparisons_are_asked_together() -> None:
    judge = Judge(list(range(16)))
    tournament(16, judge, max_comparisons=1000)
    assert judge.asked[:8] == [(i, i + 1) for i in range(0, 16, 2)]
    assert judge.calls <= 1 + 3 + 7 + 15  # a merge of n and n takes 2 n - 1 turns at most


def test_what_was_learnt_before_the_end_is_kept() -> None:
    """With comparisons for the first level alone, neighbours are in the right order."""
    scores = tournament(4, Judge([0.0, 1.0, 0.0, 1.0]), max_comparisons=2)
    assert order(scores) == [1, 0, 3, 2]


def test_a_missing_answer_is_an_error() -> None:
    with pytest.raises(ValueError):
        tournament(4, lambda pairs: [0.0], max_comparisons=10)
