"""The HTTP client against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server_helpers import MODELS, FakeServer, Reply, until
from skylink.errors import OptionError, RerankError
from skylink.remote.address import Address
from skylink.remote.answers import Models
from skylink.remote.client import (
    MAX_ANSWER_BYTES,
    MAX_ERROR_BYTES,
    MAX_SAID,
    Client,
    RefusedError,
)

GOOD = {"data": [{"id": "m"}]}
KEY = "sk-secret-123"
Make = Callable[..., Client]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def client(server: FakeServer) -> Iterator[Make]:
    """Of the server, with hardly a pause between tries."""
    made: list[Client] = []

    def make(**options: Any) -> Client:
        options = {"timeout_s": 5.0, "retries": 2, "backoff_s": 0.001, **options}
        made.append(Client(Address.parse(server.url), **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def replies(server: FakeServer, *replies: Any) -> None:
    """One after the other; the last one for ever."""
    left = list(replies)
    server.handlers[MODELS] = lambda _: left.pop(0) if len(left) > 1 else left[0]


def test_answers_come_in_the_order_of_the_bodies(server: FakeServer, client: Make) -> None:
    def later_first(body: Any) -> Reply:
        return Reply({"data": [{"id": str(body["n"])}]}, pause_s=0.05 * (5 - body["n"]))

    server.handlers["/x"] = later_first
    answers = client(concurrency=5).post("/x", [{"n": n} for n in range(5)], Models)
    assert [a.data[0].id for a in answers] == ["0", "1", "2", "3", "4"]


def test_no_more_in_flight_than_allowed(server: FakeServer, client: Make) -> None:
    server.handlers["/x"] = lambda _: Reply(GOOD, pause_s=0.03)
    client(concurrency=3).post("/x", [{}] * 9, Models)
    assert server.most_at_once == 3


def test_waiting_for_room_is_not_waiting_for_the_server(server: FakeServer, client: Make) -> None:
    server.handlers["/x"] = lambda _: Reply(GOOD, pause_s=0.15)
    answers = client(concurrency=1, timeout_s=0.6, retries=0).post("/x", [{}] * 8, Models)
    assert len(answers) == 8


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: FakeServer, client: Make, status: int) -> None:
    replies(server, Reply(b"busy", status), Reply(b"busy", status), GOOD)
    assert client().get(MODELS, Models).data[0].id == "m"
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 501])
def test_a_refusal_is_final_and_shows_what_was_said(
    server: FakeServer, client: Make, status: int
) -> None:
    replies(server, Reply({"error": {"message": "no such\nthing", "code": 1}}, status))
    with pytest.raises(RefusedError, match=f"status {status}: no such thing$") as caught:
        client().get(MODELS, Models)
    assert caught.value.status == status
    assert len(server.requests) == 1


def test_tries_end(server: FakeServer, client: Make) -> None:
    replies(server, Reply({"detail": "overloaded"}, 503))
    with pytest.raises(RerankError, match=r"status 503: overloaded \(tried 3 times\)"):
        client().get(MODELS, Models)
    assert len(server.requests) == 3


def test_a_connection_closed_in_the_middle_is_tried_again(server: FakeServer, client: Make) -> None:
    replies(server, Reply(GOOD, cut=5), GOOD)
    assert client().get(MODELS, Models).data[0].id == "m"
    replies(server, Reply(GOOD, cut=5))
    with pytest.raises(RerankError, match="tried 3 times"):
        client().get(MODELS, Models)


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        client = Client(
            Address.parse(f"http://127.0.0.1:{taken.getsockname()[1]}"), retries=1, backoff_s=0.001
        )
        with pytest.raises(RerankError, match="tried 2 times"):
            client.get(MODELS, Models)
        client.close()


@pytest.mark.parametrize(
    "slow",
    [Reply(GOOD, pause_s=30), Reply(GOOD, drip_s=0.1), Reply(b"busy", 503, drip_s=0.5)],
    ids=["hangs", "a byte now and then", "an error, byte by byte"],
)
def test_a_whole_try_has_one_deadline(server: FakeServer, client: Make, slow: Reply) -> None:
    replies(server, slow)
    begun = time.monotonic()
    with pytest.raises(RerankError, match=r"no answer .*tried 2 times"):
        client(timeout_s=0.3, retries=1).get(MODELS, Models)
    assert time.monotonic() - begun < 5


def test_retry_after_is_waited_for(server: FakeServer, client: Make) -> None:
    replies(server, Reply(b"", 429, {"Retry-After": "0.3"}), GOOD)
    begun = time.monotonic()
    client().get(MODELS, Models)
    assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize(
    "value",
    ["3600", email.utils.formatdate(time.time() + 86_400, usegmt=True)],
    ids=["seconds", "date"],
)
def test_a_server_that_wants_a_long_pause_fails_the_query(
    server: FakeServer, client: Make, value: str
) -> None:
    replies(server, Reply(b"", 429, {"Retry-After": value}), GOOD)
    with pytest.raises(RerankError, match="asks to wait"):
        client().get(MODELS, Models)


@pytest.mark.parametrize("value", ["soon", "-5", "nan", "inf", "Mon, 01 Jan 2001 00:00:00 GMT", ""])
def test_a_senseless_retry_after_is_ignored(server: FakeServer, client: Make, value: str) -> None:
    replies(server, Reply(b"", 503, {"Retry-After": value}), GOOD)
    assert client().get(MODELS, Models).data[0].id == "m"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>hello</html>",
        b"\xff\xfe\x00",
        b'{"data": [{"id": ',
        b"[" * 100_000,
        b"null",
        b'{"data": null}',
        b'{"data": [{"id": 7}]}',
        b'{"data": {"id": "m"}}',
    ],
)
def test_garbage_with_status_200_is_an_error(server: FakeServer, client: Make, body: bytes) -> None:
    replies(server, Reply(body))
    with pytest.raises(RerankError, match="not the answer it should be"):
        client().get(MODELS, Models)
    assert len(server.requests) == 1


def test_sizes_are_bounded(server: FakeServer, client: Make) -> None:
    replies(server, Reply(b" " * (MAX_ANSWER_BYTES + 1)))
    with pytest.raises(RerankError, match="more than 4 MB"):
        client().get(MODELS, Models)
    replies(server, Reply(b"x" * (MAX_ERROR_BYTES * 20), 400))
    with pytest.raises(RefusedError) as caught:
        client().get(MODELS, Models)
    assert len(caught.value.message) < MAX_SAID + 100


def test_compression_is_not_asked_for_nor_taken(server: FakeServer, client: Make) -> None:
    replies(server, Reply(GOOD, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(RerankError, match="compressed"):
        client().get(MODELS, Models)
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_the_key_is_sent_and_never_said(server: FakeServer, client: Make) -> None:
    replies(server, Reply({"error": f"wrong key {KEY}\x1b[31m"}, 401))
    with pytest.raises(RefusedError, match=r"wrong key \*\*\*") as caught:
        client(key=KEY).get(MODELS, Models)
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(caught.value)
    assert "\x1b" not in caught.value.message


def test_redirects_are_not_followed(server: FakeServer, client: Make) -> None:
    with FakeServer() as elsewhere:
        replies(server, Reply(b"", 307, {"Location": f"{elsewhere.url}{MODELS}"}))
        with pytest.raises(RefusedError, match="redirects"):
            client(key=KEY).get(MODELS, Models)
        assert elsewhere.requests == []


def test_the_first_failure_ends_the_others(server: FakeServer, client: Make) -> None:
    server.handlers["/x"] = lambda body: Reply(b"no", 400) if body["n"] else Reply(GOOD, pause_s=9)
    begun = time.monotonic()
    with pytest.raises(RefusedError):
        client(concurrency=2).post("/x", [{"n": 0}, {"n": 1}], Models)
    assert time.monotonic() - begun < 5


def test_works_where_an_event_loop_runs_already(server: FakeServer, client: Make) -> None:
    async def notebook() -> Models:
        return client().get(MODELS, Models)

    assert asyncio.run(notebook()).data[0].id == "tiny-vl"


def test_a_closed_client_says_so(client: Make) -> None:
    one = client()
    one.close()
    one.close()
    with pytest.raises(RerankError, match="closed"):
        one.get(MODELS, Models)


def test_a_server_that_comes_back_is_found_again(server: FakeServer, client: Make) -> None:
    one = client(retries=0)
    one.get(MODELS, Models)
    replies(server, Reply(GOOD, cut=0))
    with pytest.raises(RerankError):
        one.get(MODELS, Models)
    replies(server, GOOD)
    assert until(lambda: one.get(MODELS, Models).data[0].id == "m")


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://proxy")
    with pytest.raises(OptionError, match="proxy") as caught:
        Client(Address.parse("https://example.org"))
    assert "NO_PROXY" in str(caught.value.hint)
    Client(Address.parse("http://localhost:8000")).close()
