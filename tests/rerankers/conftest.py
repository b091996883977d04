"""A fake model server and re-rankers that ask it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server_helpers import FakeServer
from skylink.remote.options import RemoteOptions
from skylink.rerankers.remote import RemoteReranker

Make = Callable[..., RemoteReranker]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def remote(server: FakeServer) -> Iterator[Make]:
    made: list[RemoteReranker] = []

    def make(show: Any = None, **options: Any) -> RemoteReranker:
        given = RemoteOptions(**{"retries": 0, "timeout_s": 5.0, **options})
        made.append(RemoteReranker(server.url + "/v1", show, options=given))
        return made[-1]

    yield make
    for reranker in made:
        reranker.close()
