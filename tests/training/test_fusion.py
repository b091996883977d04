"""Tests of `skylink.training.fusion`: what is fitted on validation lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skylink.reranker import Fusion, rerank
from skylink.training.fusion import (
    BASE_ONLY,
    RERANKER_ONLY,
    Recall,
    Reliability,
    Scored,
    confidences,
    fit_fusion,
    fit_temperature,
)
from skylink.types import Candidate, Query

seeds = st.integers(0, 2**32 - 1)


def scored(
    seed: int, *, lists: int = 30, k: int = 5, skill: float = 1.0, base_skill: float = 1.0
) -> list[Scored]:
    """Lists in which base and re-ranker each know something."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(lists):
        truth = np.arange(k) == draw.integers(k)
        base = base_skill * truth + draw.normal(size=k)
        order = np.argsort(-base)
        scores = skill * truth + draw.normal(size=k)
        made.append(Scored(base=base[order], scores=scores[order], right=truth[order]))
    return made


class Fixed:
    """A re-ranker with given scores."""

    name = "fixed"

    def __init__(self, scores: NDArray[np.float64]) -> None:
        self.scores = scores

    def score(self, query: Query, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        return self.scores.astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, weight=st.sampled_from([0, 0.3, 0.7, 1]), gate=st.sampled_from([None, 0.5, 1.5]))
def test_rankings_are_those_of_the_one_public_wrapper(
    seed: int, weight: float, gate: float | None
) -> None:
    fusion = Fusion(base_weight=weight, gate_margin=gate)
    query = Query(name="q", image=np.zeros((2, 2, 3), np.uint8))
    for each in scored(seed, lists=3):
        candidates = [
            Candidate(lon=0, lat=0, score=s, id=str(i), area=0, level=0, x_m=0, y_m=0)
            for i, s in enumerate(each.base.tolist())
        ]
        found = rerank(Fixed(each.scores), query, candidates, fusion)
        ours = each.ranked(fusion)
        assert found.reranked == (ours is not None)
        if ours is not None:
            assert [int(c.id) for c in found.candidates] == ours[0].tolist()
            np.testing.assert_allclose([c.score for c in found.candidates], ours[1], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, skill=st.floats(-2, 3), base_skill=st.floats(-1, 3))
def test_fused_is_never_below_either(seed: int, skill: float, base_skill: float) -> None:
    lists = scored(seed, skill=skill, base_skill=base_skill)
    fused = Recall.of(lists, fit_fusion(lists))
    assert fused.key >= Recall.of(lists, BASE_ONLY).key
    assert fused.key >= Recall.of(lists, RERANKER_ONLY).key


def test_a_re_ranker_that_knows_nothing_leaves_the_base_alone() -> None:
    draw = np.random.default_rng(0)
    lists = [
        Scored(base=each.base, scores=draw.normal(size=5), right=np.arange(5) == 0)
        for each in scored(1)
    ]
    assert fit_fusion(lists) == BASE_ONLY


def test_two_that_know_different_things_are_weighed() -> None:
    lists = scored(2, lists=400, skill=2.0, base_skill=2.0)
    fusion = fit_fusion(lists)
    assert fusion.depth == max(len(each.base) for each in lists)
    assert 0.2 <= fusion.base_weight <= 0.8
    alone = max(Recall.of(lists, f).recall_at_1 for f in (BASE_ONLY, RERANKER_ONLY))
    assert Recall.of(lists, fusion).recall_at_1 > alone + 0.05


def test_a_base_that_is_right_when_it_leads_is_gated() -> None:
    draw = np.random.default_rng(3)
    lists = []
    for number in range(200):
        sure = number % 2 == 0
        base = np.array([3.0, 1.0, 0.9, 0.8, 0.7] if sure else [1.0, 0.99, 0.9, 0.8, 0.7])
        base += np.sort(draw.normal(0, 1e-4, 5))[::-1]
        truth = np.arange(5) == (0 if sure else draw.integers(5))
        scores = draw.normal(size=5) if sure else truth + 0.01 * draw.normal(size=5)
        lists.append(Scored(base=base, scores=scores, right=truth))
    fusion = fit_fusion(lists)
    assert fusion.gate_margin is not None
    assert Recall.of(lists, fusion).recall_at_1 == 1.0


def test_a_list_without_a_right_one_counts_as_wrong() -> None:
    nothing = Scored(
        base=np.array([2.0, 1.0]), scores=np.array([1.0, 2.0]), right=np.zeros(2, bool)
    )
    found = Recall.of([nothing, *scored(0, lists=1, skill=100)], RERANKER_ONLY)
    assert (found.recall_at_1, found.mrr) == (0.5, 0.5)


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_the_temperature_undoes_the_scale_of_scores(scale: float) -> None:
    draw = np.random.default_rng(4)
    lists = []
    for _ in range(3000):  # right with the very chance that softmax(logits) says
        logits = 2 * draw.normal(size=4)
        p = np.exp(logits) / np.exp(logits).sum()
        truth = np.arange(4) == draw.choice(4, p=p)
        lists.append(Scored(base=np.arange(4)[::-1] * 1.0, scores=scale * logits, right=truth))
    temperature = fit_temperature(lists, RERANKER_ONLY)
    assert temperature == pytest.approx(scale, rel=0.15)
    found = Reliability.of(*confidences(lists, RERANKER_ONLY, temperature))
    assert found.error < 0.03
    assert Reliability.of(*confidences(lists, RERANKER_ONLY, 20 * scale)).error > 0.1


def test_gated_lists_have_no_confidence() -> None:
    lists = scored(5)
    all_gated = Fusion(gate_margin=0.0)
    assert fit_temperature(lists, all_gated) is None
    assert len(confidences(lists, all_gated, 1.0)[0]) == 0


def test_reliability_counts_bins() -> None:
    found = Reliability.of(np.array([0.05, 0.95, 0.95, 1.0]), np.array([False, True, True, False]))
    assert found.count.tolist() == [1, *[0] * 8, 3]
    assert found.accuracy[9] == pytest.approx(2 / 3)
    expected = (0.05 + 3 * abs((0.95 * 2 + 1) / 3 - 2 / 3)) / 4
    assert found.error == pytest.approx(expected)
