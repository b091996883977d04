"""The remote re-ranker in a run: servers that can't do it, that fail, that come and go."""

from __future__ import annotations

import builtins
import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scene_helpers import candidate
from server_helpers import (
    CHAT,
    MODELS,
    ODDS,
    OPENAPI,
    REDS,
    FakeServer,
    Reply,
    choice,
    plain,
    showing,
)
from skylink.errors import ModelError, OptionError, RerankError
from skylink.remote.options import RemoteOptions
from skylink.reranker import Fusion, rerank
from skylink.rerankers.remote import RemoteReranker
from skylink.showing import Showing
from skylink.types import Candidate, Query

QUERY = Query(name="q", image=plain(100))
Make = Callable[..., RemoteReranker]


# ---- what the server is


def test_describe_is_one_line(server: FakeServer, remote: Make) -> None:
    line = remote(concurrency=3).describe()
    assert line == f"asks tiny-vl at {server.url} by pointwise chat logprobs, 3 at a time"


def test_the_server_is_looked_at_once(server: FakeServer, remote: Make) -> None:
    reranker = remote()
    for _ in range(3):
        reranker.check()
        reranker.score_showing(showing(70))
    assert len(server.asked(MODELS)) == len(server.asked(OPENAPI)) == 1
    assert len(server.asked(CHAT)) == 1 + 3


@pytest.mark.parametrize(
    ("names", "said"), [(["b", "a"], "lists the models a, b"), ([], "lists no model")]
)
def test_which_model_must_be_clear(
    server: FakeServer, remote: Make, names: list[str], said: str
) -> None:
    server.handlers[MODELS] = lambda _: {"data": [{"id": name} for name in names]}
    with pytest.raises(OptionError, match=said):
        remote().check()
    remote(model="b").check()
    assert server.asked(CHAT)[-1]["model"] == "b"


def test_a_server_that_drops_logprobs_is_refused_once(server: FakeServer, remote: Make) -> None:
    server.handlers[CHAT] = lambda _: choice(None)
    reranker = remote(retries=3)
    for _ in range(3):
        with pytest.raises(ModelError, match="ignores logprobs") as caught:
            reranker.score_showing(showing(*REDS))
        assert "listwise" in str(caught.value.hint)
    assert len(server.asked(CHAT)) == 1


def test_a_server_that_refuses_two_pictures_is_refused_once(
    server: FakeServer, remote: Make
) -> None:
    server.handlers[CHAT] = lambda _: Reply({"error": {"message": "At most 1 image(s)"}}, 400)
    reranker = remote()
    for _ in range(2):
        with pytest.raises(ModelError, match="At most 1 image"):
            reranker.check()
    assert len(server.asked(CHAT)) == 1


def test_a_server_that_is_away_is_looked_for_again(server: FakeServer, remote: Make) -> None:
    listed = server.handlers[MODELS]
    server.handlers[MODELS] = lambda _: Reply(b"", 503)
    reranker = remote()
    with pytest.raises(RerankError, match="status 503"):
        reranker.check()
    server.handlers[MODELS] = listed
    reranker.check()


# ---- in a run


def test_a_server_that_dies_costs_only_the_later_queries(server: FakeServer, remote: Make) -> None:
    def show(query: Query, candidates: Any) -> Showing:
        return showing(*REDS)

    reranker = remote(show)
    served, answer = itertools.count(), server.handlers[CHAT]

    def dying(body: Any) -> Any:
        return answer(body) if next(served) < 1 + 2 * len(REDS) + 2 else Reply(b"", cut=0)

    server.handlers[CHAT] = dying
    base = [candidate(score=1 - i / 10, name=f"pose-{i}") for i in range(len(REDS))]
    results = [rerank(reranker, QUERY, base, Fusion()) for _ in range(4)]
    assert [r.reranked for r in results] == [True, True, False, False]
    assert [r.failed for r in results] == [False, False, True, True]
    assert results[1].candidates[0].id == base[1].id
    for result in results[2:]:
        assert [c.id for c in result.candidates] == [c.id for c in base]
        assert server.url in result.note


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"<html></html>"),
        Reply({"choices": []}),
        Reply({"choices": [choice()["choices"][0]] * 2}),
        Reply(b'{"choices": [{"message": {}, "logprobs": {"content": [{"top_logprobs": '
              b'[{"token": "token_id:101", "logprob": NaN}]}]}}]}'),
        Reply(b"", 500),
        Reply(b"", 413),
        Reply(b"", 302, {"Location": "http://127.0.0.1:1/"}),
        Reply(b"{}", cut=1),
        Reply(choice(None)),
    ],
)  # fmt: skip
def test_whatever_one_answer_of_many_is_the_query_fails_with_a_cause(
    server: FakeServer, remote: Make, reply: Reply
) -> None:
    reranker, answer, served = remote(), server.handlers[CHAT], itertools.count()
    reranker.check()
    server.handlers[CHAT] = lambda body: reply if next(served) == 2 else answer(body)
    with pytest.raises((RerankError, ModelError)) as caught:
        reranker.score_showing(showing(*REDS))
    assert len(caught.value.message) > 20
    np.testing.assert_allclose(reranker.score_showing(showing(*REDS)), ODDS, atol=1e-5)


def test_the_show_is_asked_for_the_pictures(remote: Make) -> None:
    asked: list[tuple[Query, Any]] = []

    def show(query: Query, candidates: list[Candidate]) -> Showing:
        asked.append((query, candidates))
        return showing(100, 50)

    base = [candidate(score=1.0, name="pose-0"), candidate(score=0.5, name="pose-1")]
    assert remote(show).score(QUERY, base).tolist() == [0.0, -5.0]
    assert asked == [(QUERY, base)]


def test_no_candidates_no_requests(server: FakeServer, remote: Make) -> None:
    reranker = remote()
    reranker.check()
    before = len(server.requests)
    assert reranker.score_showing(showing()).shape == (0,)
    assert len(server.requests) == before


def test_a_key_goes_with_every_request_and_into_no_message(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYLINK_API_KEY", "sk-secret-123")
    reranker = RemoteReranker(server.url, lambda *_: showing(70), options=RemoteOptions(retries=0))
    reranker.check()
    assert {r.headers["Authorization"] for r in server.requests} == {"Bearer sk-secret-123"}
    server.handlers[CHAT] = lambda _: Reply({"error": "bad key: sk-secret-123"}, 403)
    with pytest.raises(RerankError) as caught:
        reranker.score_showing(showing(70))
    assert "sk-secret-123" not in caught.value.message
    reranker.close()


def test_without_the_http_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "httpx2":
            raise ImportError("No module named 'httpx2'")
        return real(name, *args, **kwargs)

    for name in ("skylink.remote.client", "skylink.rerankers.remote", "httpx2"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionError, match="httpx2") as caught:
        import skylink.rerankers.remote  # noqa: F401
    assert caught.value.hint == "pip install '.[remote]' in SkyLink's folder"
