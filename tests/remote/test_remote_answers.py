"""What servers answer is read to the letter or refused."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server_helpers import choice
from skylink.errors import ModelError, RerankError
from skylink.remote.answers import Chat, Scores, answer_logprobs, ranking, scores

YES_NO = ("Yes", "No")


def told(*tokens: tuple[str, float]) -> Chat:
    top = [{"token": token, "logprob": value} for token, value in tokens]
    return Chat.model_validate(choice({"content": [{**top[0], "top_logprobs": top}]}))


def test_answers_by_word() -> None:
    chat = told(("the", -0.1), ("No", -2.0), ("Yes", -3.0))
    assert answer_logprobs(chat, YES_NO, None).tolist() == [-3.0, -2.0]


def test_answers_with_a_space_before_them() -> None:
    chat = told((" No", -2.0), (" Yes", -3.0), ("Yes", -9.0))
    assert answer_logprobs(chat, YES_NO, None).tolist() == [-3.0, -2.0]


def test_two_spellings_are_not_mixed() -> None:
    with pytest.raises(RerankError, match="no probability of"):
        answer_logprobs(told(("Yes", -1.0), (" No", -1.0)), YES_NO, None)


def test_answers_by_token_id() -> None:
    chat = told(("token_id:7", -0.1), ("token_id:1", -2.0), ("token_id:2", -3.0), ("Yes", -5.0))
    assert answer_logprobs(chat, YES_NO, (1, 2)).tolist() == [-2.0, -3.0]


@pytest.mark.parametrize(
    ("chat", "missing"),
    [
        (told(("the", -0.1), ("Yes", -3.0)), "No"),
        (told(("the", -0.1), ("yes", -3.0)), "Yes or No"),
        (told(("Yes", -0.1), ("No", -9999.0)), "No"),  # vLLM's word for minus infinity
    ],
)
def test_no_value_is_made_up_for_an_answer_that_is_not_told(chat: Chat, missing: str) -> None:
    with pytest.raises(RerankError, match=f"no probability of {missing} "):
        answer_logprobs(chat, YES_NO, None)


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}])
def test_a_server_that_ignores_logprobs_is_named_as_such(logprobs: Any) -> None:
    with pytest.raises(ModelError, match="ignores logprobs") as caught:
        answer_logprobs(Chat.model_validate(choice(logprobs)), YES_NO, None)
    assert "vLLM" in str(caught.value.hint)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"-1"', "null", "0.5"])
def test_logprobs_are_finite_and_not_above_zero(value: str) -> None:
    text = json.dumps(choice({"content": [{"top_logprobs": [{"token": "Yes", "logprob": 77}]}]}))
    with pytest.raises(ValidationError):
        Chat.model_validate_json(text.replace("77", value))


def listed(content: str | None, finish_reason: str = "stop") -> Chat:
    return Chat.model_validate(choice(content=content, finish_reason=finish_reason))


@given(st.permutations("ABCDE"))
def test_places_of_a_ranking(order: list[str]) -> None:
    places = ranking(listed(json.dumps({"ranking": order})), "ABCDE")
    assert [order[place] for place in places] == list("ABCDE")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"ranking": ["A", "B"]}', 'missing candidates: "C"'),
        ('{"ranking": ["A", "B", "B"]}', 'repeated candidates: "B"'),
        ('{"ranking": ["A", "B", "C", "C"]}', 'repeated candidates: "C"'),
        ('{"ranking": ["A", "B", "D"]}', 'unknown candidates: "D"'),
        ('{"ranking": ["A", "B", "c"]}', 'unknown candidates: "c"'),
        ('{"ranking": ["A", "B", 3]}', "not a ranking in JSON"),
        ('{"ranking": "ABC"}', "not a ranking in JSON"),
        ('{"ranking": ["A", "B", "C"], "why": "x"}', "not a ranking in JSON"),
        ('["A", "B", "C"]', "not a ranking in JSON"),
        ('Sure! {"ranking": ["A", "B", "C"]}', "not a ranking in JSON"),
        ("A", "not a ranking in JSON"),
        ("", "not a ranking in JSON"),
        (None, "not a ranking in JSON"),
        ("[" * 5000, "not a ranking in JSON"),
    ],
)
def test_a_wrong_ranking_is_never_mended(content: str | None, said: str) -> None:
    with pytest.raises(RerankError, match=said):
        ranking(listed(content), "ABC")


def test_a_ranking_that_was_cut_off() -> None:
    with pytest.raises(RerankError, match="cut off"):
        ranking(listed('{"ranking": ["A", "B", "C"]}', "length"), "ABC")


def scored(*pairs: tuple[int, float]) -> Scores:
    return Scores.model_validate({"data": [{"index": i, "score": s} for i, s in pairs]})


def test_scores_go_where_their_index_says() -> None:
    got = scores(scored((2, 0.25), (0, 0.5), (1, -3.0)), 3)
    assert got.dtype == np.float32
    assert got.tolist() == [0.5, -3.0, 0.25]


@pytest.mark.parametrize(
    "pairs",
    [[], [(0, 1.0)], [(0, 1.0), (0, 1.0)], [(0, 1.0), (2, 1.0)], [(-1, 1.0), (0, 1.0)]],
)
def test_scores_of_other_documents_are_refused(pairs: list[tuple[int, float]]) -> None:
    with pytest.raises(RerankError, match="2 documents"):
        scores(scored(*pairs), 2)


def test_a_score_too_large() -> None:
    with pytest.raises(RerankError, match="out of range"):
        scores(scored((0, 1e300)), 1)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "content", "logprobs", "top_logprobs"]), x
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_an_answer_or_a_validation_error(data: Any) -> None:
    try:
        chat = Chat.model_validate(data)
        values = answer_logprobs(chat, YES_NO, None)
    except (ValidationError, RerankError, ModelError):
        return
    assert all(math.isfinite(v) for v in values)
