"""`transformers serve` drops logprobs without a word: recognised, and refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lvlm_helpers import showing_of
from real_servers import Served, transformers_serve
from skylink.errors import ModelError, OptionError
from skylink.remote.options import RemoteOptions
from skylink.rerankers.remote import RemoteReranker

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def serving(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = transformers_serve(checkpoint, tmp_path_factory.mktemp("serving"))
    yield server
    server.kill()


def remote(server: Served, **options: Any) -> closing[RemoteReranker]:
    given = RemoteOptions(retries=1, timeout_s=120, **options)
    return closing(RemoteReranker(server.url, None, options=given))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["pointwise", "pairwise"])
def test_it_is_refused_with_the_reason(serving: Served, checkpoint: Path, mode: str) -> None:
    with (
        remote(serving, mode=mode, model=str(checkpoint)) as reranker,
        pytest.raises(ModelError, match="ignores logprobs") as caught,
    ):
        reranker.score_showing(showing_of())
    print(f"\n{caught.value.message}\nhint: {caught.value.hint}")
    assert serving.url in caught.value.message
    assert "vLLM" in str(caught.value.hint)


def test_it_lists_no_model_of_a_folder(serving: Served) -> None:
    with remote(serving) as reranker, pytest.raises(OptionError, match="lists no model"):
        reranker.check()
