"""The remote re-ranker against a real server on the loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from server_helpers import (
    CHAT,
    IDS,
    ODDS,
    OPENAPI,
    REDS,
    SCORE,
    TOKENIZE,
    FakeServer,
    choice,
    decoded,
    pictures,
    plain,
    score,
    showing,
)
from skylink.errors import OptionError, RerankError
from skylink.prompt import NOTHING, template_of
from skylink.rerankers.remote import RemoteReranker
from skylink.showing import Showing

Make = Callable[..., RemoteReranker]


# ---- pointwise by chat


def test_pointwise_is_the_log_odds_of_yes(server: FakeServer, remote: Make) -> None:
    scores = remote().score_showing(showing(*REDS))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, ODDS, atol=1e-5)


def test_the_server_is_asked_in_the_words_of_the_template(server: FakeServer, remote: Make) -> None:
    shown = showing(70, 80)
    remote(template="pointwise-short-v1").score_showing(shown)
    bodies = server.asked(CHAT)[1:]  # the first is the look at the server
    build = template_of("pointwise-short-v1", "pointwise").build
    for body, facts in zip(bodies, shown.candidate_facts, strict=True):
        prompt = build(shown.photo_facts, [facts])
        parts = prompt.messages(lambda p: {"photo": p.candidate is None})
        told = [
            [{"photo": i == 0} if p["type"] == "image_url" else p for i, p in numbered(message)]
            for message in body["messages"]
        ]
        assert told == [message["content"] for message in parts]
        assert [m["role"] for m in body["messages"]] == ["system", "user"]
        assert body["max_tokens"] == 1
        assert body["temperature"] == 0
        assert body["logprob_token_ids"] == [IDS["Yes"], IDS["No"]]
        assert np.array_equal(pictures(body)[0], shown.photo)
    reds = sorted(int(pictures(body)[1][0, 0, 0]) for body in bodies)
    assert reds == [70, 80]


def numbered(message: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """Parts, each with the number of pictures before it."""
    seen = 0
    for part in message["content"]:
        yield seen, part
        seen += part["type"] == "image_url"


def test_facts_can_be_left_out(server: FakeServer, remote: Make) -> None:
    remote(facts=False).score_showing(showing(70))
    told = str(server.asked(CHAT)[-1]["messages"])
    assert "160 m wide" not in told
    assert "120 m above" not in told


def test_without_token_ids_the_likeliest_tokens_are_read(server: FakeServer, remote: Make) -> None:
    del server.handlers[TOKENIZE]
    reranker = remote()
    np.testing.assert_allclose(reranker.score_showing(showing(*REDS)), ODDS, atol=1e-5)
    body = server.asked(CHAT)[-1]
    assert body["top_logprobs"] == 20
    assert "logprob_token_ids" not in body
    assert "likeliest" in reranker.describe()


@pytest.mark.parametrize(
    "tokens",
    [
        {"": [1, 2], "Yes": [1, 2, 8, 9], "No": [1, 2, 8, 10]},  # two tokens
        {"": [1, 2], "Yes": [1, 5, 8], "No": [1, 5, 9]},  # another beginning
        {"": [1, 2], "Yes": [1, 2, 8], "No": [1, 2, 8]},  # the same for both
        {"": [1, 2], "Yes": [1, 2], "No": [1, 2]},  # none
        {"": [1, 2], "Yes": [1, 2, 8], "No": [1, 2, 8, 9]},  # only one of them
    ],
)
def test_answers_that_are_not_single_tokens_have_no_ids(
    server: FakeServer, remote: Make, tokens: dict[str, list[int]]
) -> None:
    def answer(body: Any) -> Any:
        begun = body["messages"][1:]
        return {"tokens": tokens[begun[0]["content"] if begun else ""]}

    server.handlers[TOKENIZE] = answer
    remote().check()
    assert "logprob_token_ids" not in server.asked(CHAT)[-1]


def test_an_answer_that_is_not_told_fails_the_query_not_the_run(
    server: FakeServer, remote: Make
) -> None:
    def sure(body: Any) -> dict[str, Any]:
        top = [{"token": "Yes", "logprob": -0.1}, {"token": "the", "logprob": -5.0}]
        return choice({"content": [{"top_logprobs": top}]})

    del server.handlers[TOKENIZE]
    server.handlers[CHAT] = sure
    reranker = remote()
    reranker.check()
    with pytest.raises(RerankError, match="no probability of No"):
        reranker.score_showing(showing(70, 80))


# ---- pointwise by /score


def pooling(server: FakeServer) -> None:
    """The server offers `/score` alone."""
    server.handlers[OPENAPI] = lambda _: {"paths": {SCORE: {}, "/rerank": {}}}
    server.handlers[SCORE] = score
    del server.handlers[CHAT], server.handlers[TOKENIZE]


def test_a_server_with_score_alone_is_recognised(server: FakeServer, remote: Make) -> None:
    pooling(server)
    reranker = remote()
    np.testing.assert_allclose(reranker.score_showing(showing(*REDS)), ODDS, atol=1e-5)
    assert reranker.describe() == f"asks tiny-vl at {server.url} by /score"
    (body,) = server.asked(SCORE)
    assert [p["type"] for p in body["queries"]["content"]] == ["image_url", "text"]
    assert body["queries"]["content"][1]["text"] == "(taken from 120 m above the ground)"
    assert np.array_equal(decoded(body["queries"]["content"][0]), plain(100))
    assert len(body["documents"]) == len(REDS)


def test_score_has_the_servers_words(server: FakeServer, remote: Make) -> None:
    pooling(server)
    with pytest.raises(OptionError, match="own chat template"):
        remote(template="pointwise-v1").check()


@pytest.mark.parametrize("indices", [[0], [0, 0], [0, 2], [1, 2], [0, 1, 2]], ids=lambda i: str(i))
def test_wrong_numbers_of_scores(server: FakeServer, remote: Make, indices: list[int]) -> None:
    server.handlers[SCORE] = lambda _: {"data": [{"index": i, "score": 0.5} for i in indices]}
    with pytest.raises(RerankError, match="indices"):
        remote(api="score").score_showing(showing(70, 80))


# ---- listwise


def test_listwise_ranks_all_at_once(server: FakeServer, remote: Make) -> None:
    reranker = remote(mode="listwise", orders=3)
    scores = reranker.score_showing(showing(130, 100, 60, 110))
    assert scores.tolist() == [2.0, 4.0, 1.0, 3.0]
    bodies = server.asked(CHAT)
    assert len(bodies) == 3
    seen = [[int(image[0, 0, 0]) for image in pictures(body)[1:]] for body in bodies]
    assert seen.count(seen[0][::-1]) >= 1  # each order also the other way round
    schema = bodies[0]["response_format"]["json_schema"]["schema"]["properties"]["ranking"]
    assert schema["items"]["enum"] == ["A", "B", "C", "D"]
    assert (schema["minItems"], schema["maxItems"]) == (4, 4)


def test_listwise_orders_are_seeded(server: FakeServer, remote: Make) -> None:
    def orders(seed: int) -> list[tuple[int, ...]]:
        before = len(server.asked(CHAT))
        remote(mode="listwise", seed=seed, orders=4).score_showing(showing(*range(40, 48)))
        bodies = server.asked(CHAT)[before:]
        return sorted(tuple(int(i[0, 0, 0]) for i in pictures(body)[1:]) for body in bodies)

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)


def test_a_liking_for_the_first_place_is_averaged_out(server: FakeServer, remote: Make) -> None:
    server.handlers[CHAT] = lambda _: choice(
        content='{"ranking": ["A", "B", "C"]}', finish_reason="stop"
    )
    assert remote(mode="listwise").score_showing(showing(10, 20, 30)).tolist() == [2.0, 2.0, 2.0]


def test_listwise_needs_no_logprobs_but_room_for_the_letters(
    server: FakeServer, remote: Make
) -> None:
    reranker = remote(mode="listwise")
    assert reranker.describe() == (
        f"asks tiny-vl at {server.url} for a ranking of all candidates, 8 at a time"
    )
    assert server.asked(CHAT) == []
    with pytest.raises(RerankError, match="too many"):
        reranker.score_showing(showing(*range(21)))


# ---- pairwise


def test_pairwise_asks_both_orders(server: FakeServer, remote: Make) -> None:
    scores = remote(mode="pairwise").score_showing(showing(130, 100, 60, 112))
    assert scores.tolist() == [2.0, 4.0, 1.0, 3.0]  # though the model likes the first place
    bodies = server.asked(CHAT)[1:]
    assert all(body["logprob_token_ids"] == [IDS["A"], IDS["B"]] for body in bodies)
    pairs = [tuple(int(i[0, 0, 0]) for i in pictures(body)[1:]) for body in bodies]
    assert sorted(pairs) == sorted((b, a) for a, b in pairs)


def test_pairwise_asks_no_more_than_allowed(server: FakeServer, remote: Make) -> None:
    remote(mode="pairwise", max_comparisons=3).score_showing(showing(*range(0, 160, 20)))
    assert len(server.asked(CHAT)) == 1 + 2 * 3


# ---- pictures


def test_large_pictures_are_made_smaller(server: FakeServer, remote: Make) -> None:
    shown = showing(70)
    big = Showing(
        name="q",
        photo=plain(100, (40, 160)),
        candidates=[plain(70, (3, 160))],
        ids=["a"],
        photo_facts=NOTHING,
        candidate_facts=shown.candidate_facts,
    )
    remote(image_px=64).score_showing(big)
    assert [image.shape for image in pictures(server.asked(CHAT)[-1])] == [(16, 64, 3), (1, 64, 3)]


def test_jpeg_keeps_the_colours_in_order(server: FakeServer, remote: Make) -> None:
    remote(image_format="jpeg").score_showing(showing(200))
    body = server.asked(CHAT)[-1]
    assert "data:image/jpeg;base64," in str(body["messages"])
    assert np.abs(pictures(body)[1].astype(int) - plain(200)).max() <= 3
