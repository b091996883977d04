"""The one wrapper that every re-ranker goes through: checks, fusion, gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scene_helpers import candidate, scene_encoder
from skylink.errors import ModelError, OptionError, RerankError
from skylink.reranker import Fusion, checked_scores, make_reranker, rerank
from skylink.types import Candidate, Query

QUERY = Query(name="q", image=np.zeros((4, 4, 3), np.uint8))
ALONE = Fusion()


class Fixed:
    """Returns, or raises, what it was given."""

    name = "fixed"

    def __init__(self, scores: Any) -> None:
        self.scores = scores
        self.calls = 0

    def score(self, query: Query, candidates: Sequence[Candidate]) -> Any:
        self.calls += 1
        if isinstance(self.scores, Exception):
            raise self.scores
        return self.scores


def ranked(*scores: float) -> list[Candidate]:
    return [candidate(score=s, name=f"pose-{i}") for i, s in enumerate(scores)]


def ids(candidates: Sequence[Candidate]) -> list[int]:
    return [int(c.id.split("-")[1]) for c in candidates]


BASE = ranked(0.9, 0.5, 0.4)


def test_the_reranker_decides_alone_by_default() -> None:
    result = rerank(Fixed(np.array([1.0, 3.0, 2.0], np.float32)), QUERY, BASE, ALONE)
    assert result.reranked
    assert not result.failed
    assert result.note == ""
    assert ids(result.candidates) == [1, 2, 0]
    assert [c.score for c in result.candidates] == [3.0, 2.0, 1.0]
    assert [c.base_score for c in result.candidates] == [0.5, 0.4, 0.9]
    assert [c.score for c in BASE] == [0.9, 0.5, 0.4]  # the base's own list is left alone


@pytest.mark.parametrize("scores", [[1, 3, 2], (1.0, 3.0, 2.0), np.array([1, 3, 2], np.int8)])
def test_any_numbers_will_do(scores: Any) -> None:
    assert ids(rerank(Fixed(scores), QUERY, BASE, ALONE).candidates) == [1, 2, 0]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (np.zeros(2), r"\(2,\)"),
        (np.zeros((3, 1)), r"\(3, 1\)"),
        (np.float32(1), r"\(\)"),
        (None, "object"),
        (["a", "b", "c"], "<U1"),
        (np.zeros(3, bool), "bool"),
        (np.zeros(3, complex), "complex"),
        ([1.0, np.nan, 2.0], "finite"),
        ([1.0, np.inf, 2.0], "finite"),
        (np.array([1.0, 1e300, 2.0]), "finite"),  # not in float32
        (RerankError("the server is away"), "the server is away"),
        (ModelError("no weights"), "no weights"),
        (RuntimeError("CUDA out of memory"), "RuntimeError: CUDA out of memory"),
        (KeyError("score"), "KeyError: 'score'"),
    ],
)
def test_what_breaks_the_contract_is_a_failure_in_base_order(scores: Any, said: str) -> None:
    broken = Fixed(scores)
    for fusion in (ALONE, Fusion(base_weight=0.5)):
        result = rerank(broken, QUERY, BASE, fusion)
        assert broken.calls
        assert (result.reranked, result.failed) == (False, True)
        assert list(result.candidates) == BASE
        with pytest.raises((RerankError, ModelError), match=said):
            checked_scores(broken, QUERY, BASE)
        assert result.note


def test_an_interrupt_is_not_a_failure() -> None:
    class Interrupted(Fixed):
        def score(self, query: Query, candidates: Sequence[Candidate]) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rerank(Interrupted(None), QUERY, BASE, ALONE)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two(count: int) -> None:
    model = Fixed([1.0])
    result = rerank(model, QUERY, BASE[:count], ALONE)
    assert (result.reranked, result.failed) == (False, False)
    assert list(result.candidates) == BASE[:count]
    assert "fewer than two" in result.note
    assert model.calls == 0


@pytest.mark.parametrize(
    ("margin", "asked"), [(None, True), (0.0, False), (1.8, False), (1.9, True), (99.0, True)]
)
def test_the_gate(margin: float | None, asked: bool) -> None:
    """(0.9 - 0.5) / std(0.9, 0.5, 0.4) = 0.4 / 0.216 = 1.85."""
    model = Fixed([1.0, 3.0, 2.0])
    result = rerank(model, QUERY, BASE, Fusion(gate_margin=margin))
    assert bool(model.calls) is result.reranked is asked
    assert not result.failed
    if not asked:
        assert list(result.candidates) == BASE
        assert "the base was sure (lead 1.85" in result.note


def test_the_gate_opens_where_all_are_equal() -> None:
    model = Fixed([1.0, 3.0, 2.0])
    assert rerank(model, QUERY, ranked(0.5, 0.5, 0.5), Fusion(gate_margin=0.1)).reranked


def test_fusion_by_hand() -> None:
    """Standardised within the list: base (2, 1, 0) and model (0, 0, 3) at 1/4 : 3/4."""
    weight = Fusion(base_weight=0.25)
    result = rerank(Fixed([0.0, 0.0, 3.0]), QUERY, ranked(2.0, 1.0, 0.0), weight)
    high, low = 1.2247449, 0.7071068  # sqrt(3/2), sqrt(1/2)
    expected = {
        0: 0.25 * high - 0.75 * low,
        1: -0.75 * low,
        2: -0.25 * high + 0.75 * 2 * low,
    }
    assert ids(result.candidates) == [2, 0, 1]
    for c in result.candidates:
        assert c.score == pytest.approx(expected[int(c.id[-1])], abs=1e-6)


scores = st.lists(
    st.floats(-1e3, 1e3, width=32) | st.sampled_from([0.0, 1.0, 2.0]), min_size=2, max_size=12
)


@given(model=scores, data=st.data())
def test_fusion_identities(model: list[float], data: st.DataObject) -> None:
    base = sorted(
        data.draw(st.lists(st.floats(-1, 1), min_size=len(model), max_size=len(model))),
        reverse=True,
    )
    candidates = ranked(*base)
    whole = rerank(Fixed(model), QUERY, candidates, Fusion(base_weight=1.0))
    assert whole.reranked
    assert ids(whole.candidates) == list(range(len(model)))
    none = rerank(Fixed(model), QUERY, candidates, Fusion(base_weight=0.0))
    expected = np.argsort(-np.array(model, np.float32), kind="stable")  # ties in the base's order
    assert ids(none.candidates) == expected.tolist()
    for weight in (0.3, 0.7):
        some = rerank(Fixed(model), QUERY, candidates, Fusion(base_weight=weight))
        assert sorted(ids(some.candidates)) == list(range(len(model)))
        fused = [c.score for c in some.candidates]
        assert fused == sorted(fused, reverse=True)


def test_ties_keep_the_base_order() -> None:
    for fusion in (ALONE, Fusion(base_weight=0.5)):
        result = rerank(Fixed([1.0, 1.0, 1.0]), QUERY, ranked(0.5, 0.5, 0.5), fusion)
        assert result.reranked
        assert ids(result.candidates) == [0, 1, 2]
    result = rerank(Fixed([1.0, 2.0, 2.0]), QUERY, BASE, ALONE)
    assert ids(result.candidates) == [1, 2, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fusion(base_weight=-0.1),
        lambda: Fusion(base_weight=1.1),
        lambda: Fusion(base_weight=float("nan")),
        lambda: Fusion(gate_margin=-1.0),
        lambda: Fusion(gate_margin=float("nan")),
    ],
)
def test_fusion_options(make: Callable[[], Fusion]) -> None:
    with pytest.raises(OptionError):
        make()


def test_names() -> None:
    class Info:
        imagery = True

        class encoder:
            channels = 0

        @staticmethod
        def command(path: str) -> str:
            return f"skylink build MAP --out {path}"

    class Bare:
        info = Info
        path = "g"

    gallery: Any = Bare()
    assert make_reranker("none", gallery, scene_encoder()) is None
    with pytest.raises(OptionError, match="unknown re-ranker 'lvlm'") as caught:
        make_reranker("lvlm", gallery, scene_encoder())
    assert "matching" in (caught.value.hint or "")
    with pytest.raises(OptionError, match="no feature raster"):
        make_reranker("dense", gallery, scene_encoder())
    made = make_reranker("matching", gallery, scene_encoder())
    assert made is not None
    assert made.name == "matching"
    Info.imagery = False  # asked for at the start, not found out photo by photo
    for name in ("matching", "hog"):
        with pytest.raises(OptionError, match=f"no pictures for the {name} re-ranker") as caught:
            make_reranker(name, gallery, scene_encoder())
        assert caught.value.hint == "build it with imagery: skylink build MAP --out g"
