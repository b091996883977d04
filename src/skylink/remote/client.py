"""JSON over HTTP with bounds on everything: time, size, tries, requests in flight.

`httpx2` is the continuation of `httpx` by its author and its new maintainers, with the same
interface; `httpx` itself has had no release since 0.28.1. Of what could be used it alone gives
one deadline for a whole request (a server that sends a byte a minute never runs into a read
time-out) together with connection reuse: its asyncio client under `asyncio.timeout`. The event loop
runs in a thread of its own, so that this works in a notebook too, which already runs one.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import threading
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from skylink.errors import OptionError, RerankError, first_complaint, pip_hint
from skylink.remote.address import Address
from skylink.remote.answers import Answer

try:
    import httpx2
except ImportError as error:
    raise OptionError(
        f"asking a server needs an HTTP library: {error}", hint=pip_hint("remote")
    ) from error

MAX_ANSWER_BYTES = 4 * 2**20
MAX_ERROR_BYTES = 64 * 2**10
MAX_SAID = 300
"""Characters of a server's own message that are shown."""

TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
BACKOFF_S = 0.5
MAX_BACKOFF_S = 8.0
MAX_RETRY_AFTER_S = 30.0
"""A server that wants to be left alone for longer fails the query instead."""

A = TypeVar("A", bound=Answer)
T = TypeVar("T")


class RefusedError(RerankError):
    """The server won't have this request, however often it is sent.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Retry(Exception):
    """This try failed, another may not."""

    def __init__(self, why: str, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.why, self.after_s = why, after_s


class Client:
    """One server. Safe to use from several threads.

    Args:
        address: of the server.
        key: sent as a bearer token; never part of a message.
        concurrency: requests in flight at once.
        timeout_s: for a try, from its first byte to the last of the answer.
        connect_timeout_s: of it, for the connection.
        retries: tries after the first.
        backoff_s: the first pause is drawn from 0 .. this, each next one from twice as much.

    Raises:
        OptionError: the environment asks for a proxy or certificates that can't be used.
    """

    def __init__(
        self,
        address: Address,
        *,
        key: str | None = None,
        concurrency: int = 8,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 5.0,
        retries: int = 4,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self.address, self._key = address, key
        self._timeout_s, self._retries, self._backoff_s = timeout_s, retries, backoff_s
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        try:
            self._http = httpx2.AsyncClient(
                headers=headers,
                timeout=httpx2.Timeout(timeout_s, connect=connect_timeout_s, pool=None),
                limits=httpx2.Limits(max_connections=concurrency),
                follow_redirects=False,  # a key must not follow either
                trust_env=not address.loopback,  # a proxy has no business on this machine
            )
        except (ImportError, ValueError, OSError, httpx2.InvalidURL) as error:
            raise OptionError(
                f"{address.root}: the environment's proxy or certificate settings can't be used: "
                f"{error}",
                hint="correct HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE, or list the host in NO_PROXY",
            ) from error
        self._room = asyncio.Semaphore(concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def get(self, path: str, kind: type[A]) -> A:
        """One GET.

        Raises:
            RefusedError: see `post`.
            RerankError: see `post`.
        """
        return self._run(self._request("GET", path, None, kind))

    def post(self, path: str, bodies: Sequence[dict[str, Any]], kind: type[A]) -> list[A]:
        """POST all, some at a time; the answers in the order of the bodies.

        The first failure ends them all: what is still in flight is dropped.

        Raises:
            RefusedError: a status that another try can't mend, with the server's message.
            RerankError: no answer after all tries, or an answer that is none.
        """
        return self._run(self._post(path, bodies, kind))

    def close(self) -> None:
        """End connections and thread; a second time does nothing."""
        if self._loop.is_running():
            self._run(self._http.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """In the loop's thread; an interrupt here ends it there."""
        if self._loop.is_closed():
            work.close()
            raise RerankError(f"the connection to {self.address.root} was closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _post(self, path: str, bodies: Sequence[dict[str, Any]], kind: type[A]) -> list[A]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._request("POST", path, b, kind)) for b in bodies]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None, kind: type[A]
    ) -> A:
        """All tries of one request."""
        url = self.address.url(path)
        async with self._room:
            content = None if body is None else json.dumps(body).encode()
            for tried in range(self._retries + 1):
                try:
                    answer = await self._try(method, url, content)
                    break
                except _Retry as failure:
                    if failure.after_s > MAX_RETRY_AFTER_S:
                        why = f"{failure.why}; it asks to wait {failure.after_s:.0f} s"
                        raise RerankError(f"{url}: {why}") from None
                    if tried == self._retries:
                        times = "once" if tried == 0 else f"{tried + 1} times"
                        raise RerankError(f"{url}: {failure.why} (tried {times})") from None
                    longest = min(MAX_BACKOFF_S, self._backoff_s * 2**tried)
                    await asyncio.sleep(max(failure.after_s, random.uniform(0, longest)))
        try:
            return kind.model_validate_json(answer)
        except ValidationError as error:
            why = self._said(first_complaint(error))
            raise RerankError(f"{url}: not the answer it should be: {why}") from None

    async def _try(self, method: str, url: str, content: bytes | None) -> bytes:
        """One try: the body of a good answer.

        Raises:
            _Retry: another try may help.
            RerankError: it won't.
        """
        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.stream(method, url, content=content, headers=headers) as response,
            ):
                status = response.status_code
                if status == 200:
                    return await self._read(response, url)
                said = "" if response.is_redirect else await self._message(response)
        except TimeoutError:
            raise _Retry(f"no answer within {self._timeout_s:g} s") from None
        except httpx2.ConnectTimeout:
            raise _Retry("no connection in time") from None
        except httpx2.TimeoutException:
            raise _Retry("no answer in time") from None
        except httpx2.TransportError as error:
            why = self._said(str(error) or type(error).__name__)
            if "CERTIFICATE_VERIFY_FAILED" in why:
                raise RerankError(f"{url}: its certificate is not trusted") from None
            raise _Retry(why) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise RerankError(f"{url}: {self._said(str(error))}") from None
        if response.is_redirect:
            raise RefusedError(
                f"{url}: redirects to another address, which is not followed", status=status
            )
        why = f"status {status}" + (f": {said}" if said else "")
        if status in TRY_AGAIN:
            raise _Retry(why, _retry_after_s(response.headers.get("retry-after", "")))
        raise RefusedError(f"{url}: {why}", status=status)

    async def _read(self, response: httpx2.Response, url: str) -> bytes:
        """The body, within bounds; compressed ones, whose size is unknown, were not asked for."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise RerankError(f"{url}: a compressed answer, which was not asked for")
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise RerankError(f"{url}: an answer of more than {MAX_ANSWER_BYTES >> 20} MB")
        return bytes(body)

    async def _message(self, response: httpx2.Response) -> str:
        """What an error's body says, as JSON of the usual forms or as it stands."""
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) >= MAX_ERROR_BYTES:
                break
        text = bytes(body[:MAX_ERROR_BYTES]).decode(errors="replace")
        try:
            said: Any = json.loads(text)
        except (ValueError, RecursionError):
            return self._said(text)
        while isinstance(said, dict):
            said = next((said[k] for k in ("error", "message", "detail") if k in said), str(said))
        return self._said(str(said))

    def _said(self, text: str) -> str:
        """A server's words on one printable line, shortened, without the key."""
        if self._key is not None:
            text = text.replace(self._key, "***")
        words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return words if len(words) <= MAX_SAID else words[: MAX_SAID - 3] + "..."


def _retry_after_s(value: str) -> float:
    """Seconds of a Retry-After header: a number or a date; 0 where it is neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        aware = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
