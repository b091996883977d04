"""Remote scores against a real vLLM: equal to local ones, cached, and safe from a crash.

The tests of the chat server run in the order of the file: the last one kills it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lvlm_helpers import picked, showing_of
from real_servers import BLOCK, Served, vllm
from scene_helpers import candidate
from skylink.errors import RerankError
from skylink.prompt import TEMPLATES, Mode
from skylink.remote.options import RemoteOptions
from skylink.remote.score_template import score_template
from skylink.reranker import Fusion, Reranking, rerank
from skylink.rerankers.remote import RemoteReranker
from skylink.showing import Showing
from skylink.types import Query

pytestmark = [pytest.mark.server, pytest.mark.slow]

SHOWN = showing_of()
TOLERANCE = 1e-4
VISUAL_TOKENS = 16
"""The checkpoint's own most, so that both sides see pictures of the same size."""

Local = Callable[[Mode, str], NDArray[np.float32]]


@pytest.fixture(scope="module")
def local(checkpoint: Path) -> Local:
    """Scores of the same checkpoint in this process, in the plain way."""
    from skylink.lvlm.load import load_scorer
    from skylink.lvlm.options import LvlmOptions

    def score(mode: Mode, template: str) -> NDArray[np.float32]:
        options = LvlmOptions(
            mode=mode,
            template=template,
            device="cpu",
            visual_tokens=VISUAL_TOKENS,
            cache_gb=0,
            plain=True,
        )
        return load_scorer(str(checkpoint), options).score(SHOWN)

    return score


@pytest.fixture(scope="module")
def chat_server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With the chat interface; JSON without free white space, which random weights love."""
    flags = ["--limit-mm-per-prompt", '{"image": 21}']
    form = {"backend": "xgrammar", "disable_any_whitespace": True}
    flags += ["--structured-outputs-config", json.dumps(form)]
    server = vllm(checkpoint, tmp_path_factory.mktemp("log") / "chat.log", *flags)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def score_server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With `/score`, made to ask in the words of a template of ours."""
    folder, template = tmp_path_factory.mktemp("score"), TEMPLATES["qwen3-reranker-v1"]
    words = folder / "score.jinja"
    words.write_text(score_template(template))
    overrides = {
        "architectures": ["Qwen3VLForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
        "text_config": {"tie_word_embeddings": True},
    }
    flags = ["--runner", "pooling", "--chat-template", str(words)]
    flags += ["--hf-overrides", json.dumps(overrides), "--limit-mm-per-prompt", '{"image": 2}']
    server = vllm(checkpoint, folder / "score.log", *flags)
    yield server
    server.kill()


def remote(server: Served, show: Any = None, **options: Any) -> closing[RemoteReranker]:
    options = {"retries": 1, "timeout_s": 120.0, **options}
    return closing(RemoteReranker(server.url, show, options=RemoteOptions(**options)))


def attempt(reranker: RemoteReranker, showing: Showing) -> tuple[NDArray[np.float32] | None, str]:
    """Scores, or why there are none."""
    try:
        return reranker.score_showing(showing), ""
    except RerankError as error:
        print(f"\n{error.message}")
        return None, error.message


@pytest.mark.parametrize("template", ["pointwise-v1", "pointwise-short-v1", "qwen3-reranker-v1"])
def test_chat_scores_are_the_local_ones(chat_server: Served, local: Local, template: str) -> None:
    with remote(chat_server, template=template) as reranker:
        line, scores = reranker.describe(), reranker.score_showing(SHOWN)
    expected = local("pointwise", template)
    print(f"\n{line}\n{template}: {scores}, greatest difference {abs(scores - expected).max():.1e}")
    assert np.ptp(expected) > 0.01  # or anything would be equal
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)


def test_likeliest_tokens_tell_the_same(chat_server: Served, local: Local) -> None:
    """As servers without `/tokenize` are asked: what they tell is right, or not told at all."""
    expected = local("pointwise", "pointwise-v1")
    with remote(chat_server) as reranker:
        reranker._answer_ids = lambda *_: None  # type: ignore[method-assign]
        assert "likeliest" in reranker.describe()
        scores, refusal = attempt(reranker, SHOWN)
    if scores is None:
        assert "no probability of" in refusal
    else:
        np.testing.assert_allclose(scores, expected, atol=TOLERANCE)


def test_scores_of_the_score_interface_are_the_local_ones(
    score_server: Served, local: Local
) -> None:
    with remote(score_server) as reranker:
        line, scores = reranker.describe(), reranker.score_showing(SHOWN)
    expected = local("pointwise", "qwen3-reranker-v1")
    print(f"\n{line}\n{scores}, greatest difference {abs(scores - expected).max():.1e}")
    assert line.endswith("by /score")
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)


def test_pairwise_ranks_as_it_does_here(chat_server: Served, local: Local) -> None:
    with remote(chat_server, mode="pairwise") as reranker:
        scores = reranker.score_showing(SHOWN)
    assert scores.tolist() == local("pairwise", "pairwise-v1").tolist()


def test_listwise_is_held_to_its_form(chat_server: Served) -> None:
    """Random weights repeat letters; that they are letters, and how many, is the schema's doing."""
    with remote(chat_server, mode="listwise") as reranker:
        assert reranker.score_showing(picked(SHOWN, [0])).tolist() == [1.0]
        scores, refusal = attempt(reranker, SHOWN)
    if scores is None:
        assert "the ranking has repeated candidates" in refusal
    else:
        assert scores.sum() == sum(range(1, len(SHOWN.ids) + 1))


def test_the_photo_is_computed_once(chat_server: Served) -> None:
    """Though its prompts are sent together."""
    name = "vllm:prefix_cache_hits_total"

    def hits(showing: Showing) -> float:
        before = chat_server.counter(name)
        reranker.score_showing(showing)
        return chat_server.counter(name) - before

    with remote(chat_server, template="pointwise-short-v1") as reranker:
        reranker.score_showing(SHOWN)
        words = hits(picked(showing_of(seed=7), [0]))  # a new photo: only the words before it
        together = hits(showing_of(seed=8))
    count = len(SHOWN.ids)
    print(f"\nfrom the prefix cache: {words:.0f} tokens of one candidate of a new photo, ", end="")
    print(f"{together:.0f} of {count} candidates of another")
    assert together >= words + (count - 1) * (words + BLOCK)


def test_a_crash_costs_no_finished_query(chat_server: Served) -> None:
    """The server is killed while a query is in flight."""
    base = [candidate(score=1 - i / 100, name=f"pose-{i}") for i in range(len(SHOWN.ids))]

    def run(queries: int, killed_in: int | None = None) -> list[Reranking]:
        shown = iter(range(queries))

        def show(query: Query, candidates: Any) -> Showing:
            if next(shown) == killed_in:
                threading.Timer(0.02, chat_server.kill).start()
            return showing_of(seed=20)

        query = Query(name="q", image=SHOWN.photo)
        with remote(chat_server, show, model="tiny") as reranker:
            reranker.check()
            return [rerank(reranker, query, base, Fusion()) for _ in range(queries)]

    (whole,) = run(1)
    results = run(5, killed_in=3)
    for result in results[3:]:
        print(f"\n{result.note}")
    assert [r.reranked for r in results] == [True, True, True, False, False]
    for result in results[:3]:
        assert [c.id for c in result.candidates] == [c.id for c in whole.candidates]
        np.testing.assert_allclose(
            [c.score for c in result.candidates],
            [c.score for c in whole.candidates],
            atol=TOLERANCE,
        )
    for result in results[3:]:
        assert result.failed
        assert chat_server.url in result.note
        assert [c.id for c in result.candidates] == [c.id for c in base]
