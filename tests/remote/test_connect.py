"""From an address and options to a re-ranker, by library and by command line; a fake server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from server_helpers import CHAT, MODELS, OPENAPI, REDS, SCORE, FakeServer, Reply, showing
from skylink.cli import app
from skylink.errors import ModelError, OptionError, RerankError
from skylink.lvlm.options import LvlmOptions
from skylink.remote.connect import connect


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


def show(*_: Any) -> Any:
    raise AssertionError("no photo is shown before one is scored")


def named(server: FakeServer, *models: str) -> None:
    server.handlers[MODELS] = lambda _: {"data": [{"id": m, "object": "model"} for m in models]}


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_an_unknown_model_is_asked_in_pairs(server: FakeServer) -> None:
    reranker = connect(server.url, show)
    assert "pairwise" in reranker.about
    scores = reranker.score_showing(showing(*REDS))
    assert int(np.argmax(scores)) == 1


def test_a_model_trained_to_rerank_is_asked_pointwise_in_its_words(server: FakeServer) -> None:
    named(server, "Qwen/Qwen3-VL-Reranker-2B")
    server.handlers[CHAT] = lambda _: Reply({"detail": "enough"}, 400)
    with pytest.raises(ModelError, match="enough"):  # the look at the server is what is read here
        connect(server.url, show)
    system, user = server.asked(CHAT)[0]["messages"]
    assert "Judge whether the Document" in system["content"][0]["text"]
    assert sum(part["type"] == "image_url" for part in user["content"]) == 2


def test_a_server_with_score_alone_is_asked_by_it(server: FakeServer) -> None:
    server.handlers[OPENAPI] = lambda _: {"paths": {SCORE: {}}}
    assert "by /score" in connect(server.url, show).about


def test_listwise_asks_for_a_ranking_and_bounds_the_list(server: FakeServer) -> None:
    told: list[str] = []
    reranker = connect(server.url, show, LvlmOptions(mode="listwise", on_prompt=told.append))
    assert reranker.max_candidates == 20
    assert int(np.argmax(reranker.score_showing(showing(*REDS)))) == 1
    assert "Answer with JSON alone" in told[0]
    assert told[0].count("[candidate") == len(REDS)


def test_one_of_several_models(server: FakeServer) -> None:
    named(server, "one", "other")
    with pytest.raises(OptionError, match="one, other"):
        connect(server.url, show)
    reranker = connect(server.url, show, LvlmOptions(served_as="other"))
    assert reranker.about.startswith("asks other at")
    assert server.asked(CHAT)[-1]["model"] == "other"


@pytest.mark.parametrize(
    "options",
    [{"device": "cpu"}, {"dtype": "float16"}, {"visual_tokens": 64}, {"adapter": Path("a")}],
)
def test_what_a_server_chooses_itself_is_refused(
    server: FakeServer, options: dict[str, Any]
) -> None:
    with pytest.raises(OptionError, match="a model that runs here"):
        connect(server.url, show, LvlmOptions(**options))
    assert not server.requests


def test_no_server_fails_before_any_photo(server: FakeServer) -> None:
    server.stop()
    with pytest.raises(RerankError):
        connect(server.url, show)


def test_locate_and_evaluate_by_a_server(
    server: FakeServer, town_folder: Path, tmp_path: Path
) -> None:
    gallery, queries = town_folder / "gallery", town_folder / "photos" / "queries.csv"
    located = run("locate", *sorted((town_folder / "photos").glob("*.jpg"))[:2], "--gallery",
                  gallery, "--reranker", server.url, "--top-k", 3, "--format", "csv")  # fmt: skip
    assert located.exit_code == 0, located.output
    assert "re-rank the best 3 by asks tiny-vl" in " ".join(located.stderr.split())
    assert located.stdout.count(",remote,1,") == 2
    # from the second photo on the server is away: counted with its cause, and an error if strict
    asked = 0

    def once(body: Any) -> Any:
        nonlocal asked
        asked += 1
        return chat(body) if asked <= 1 + 6 else Reply({"detail": "out of order"}, 400)

    chat, server.handlers[CHAT] = server.handlers[CHAT], once
    out = tmp_path / "results.json"
    words = ["--gallery", gallery, "--queries", queries, "--limit", 2, "--top-k", 3,
             "--reranker", server.url, "--out", out]  # fmt: skip
    evaluated = run("evaluate", *words)
    assert evaluated.exit_code == 0, evaluated.output
    results = json.loads(out.read_text())
    assert (results["reranked_queries"], results["rerank_failed"]) == (1, 1)
    (cause,) = results["rerank_notes"]
    assert "out of order" in cause
    assert "asks tiny-vl" in results["reranker_about"]
    asked = 0
    strict = run("evaluate", *words, "--strict")
    assert strict.exit_code == 3
    assert json.loads(out.read_text())["failed"] == 1
