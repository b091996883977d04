"""A real HTTP server on the loopback that behaves as vLLM, or as badly as a test tells it to."""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from skylink.prompt import Facts
from skylink.showing import Showing

MODEL = "tiny-vl"
IDS = {
    "Yes": 101,
    "No": 102,
    **{letter: 200 + i for i, letter in enumerate("ABCDEFGHIJKLMNOPQRST")},
}
CHAT, SCORE, TOKENIZE, MODELS = "/v1/chat/completions", "/score", "/tokenize", "/v1/models"
OPENAPI = "/openapi.json"


@dataclass
class Reply:
    """What goes over the wire. `body` as bytes is sent as it is, anything else as JSON.

    Attributes:
        pause_s: before the first byte.
        drip_s: between single bytes of the body.
        cut: this many bytes of the body are sent, then the connection is closed.
    """

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0.0
    drip_s: float = 0.0
    cut: int | None = None


@dataclass
class Request:
    """As it arrived."""

    path: str
    headers: dict[str, str]
    body: Any


Handler = Callable[[Any], Any]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


class FakeServer:
    """With `handlers[path]`, (body) -> Reply or JSON, any answer can be replaced.

    Attributes:
        requests: all that arrived, in order.
        most_at_once: of requests to chat.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {
            MODELS: lambda _: {"object": "list", "data": [{"id": MODEL, "object": "model"}]},
            OPENAPI: lambda _: {"paths": {CHAT: {}, TOKENIZE: {}}},
            TOKENIZE: tokenize,
            CHAT: chat,
        }
        self.requests: list[Request] = []
        self.most_at_once = self._at_once = 0
        self._lock, self._over = threading.Lock(), threading.Event()
        outer = self

        class Handle(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self, None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer._answer(self, json.loads(body))

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = _Quiet(("127.0.0.1", 0), Handle)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """No connection is accepted from now on; those that hang are let go."""
        if not self._over.is_set():
            self._over.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def asked(self, path: str) -> list[Any]:
        """Bodies that came to a path."""
        return [r.body for r in self.requests if r.path == path]

    def _answer(self, http: BaseHTTPRequestHandler, body: Any) -> None:
        with self._lock:
            self.requests.append(Request(http.path, dict(http.headers.items()), body))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            handler = self.handlers.get(http.path)
            reply = Reply({"detail": "Not Found"}, 404) if handler is None else handler(body)
            self._send(http, reply if isinstance(reply, Reply) else Reply(reply))
        except OSError:  # the client went away
            http.close_connection = True
        finally:
            with self._lock:
                self._at_once -= 1

    def _send(self, http: BaseHTTPRequestHandler, reply: Reply) -> None:
        self._over.wait(reply.pause_s)
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        http.send_response(reply.status)
        for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
            http.send_header(name, value)
        http.end_headers()
        if reply.drip_s:
            for byte in data:
                if self._over.wait(reply.drip_s):
                    break
                http.wfile.write(bytes([byte]))
                http.wfile.flush()
            return
        http.wfile.write(data[: reply.cut])
        http.close_connection = reply.cut is not None


def tokenize(body: Any) -> dict[str, Any]:
    """One token a word of the answer, after three of the chat's opening."""
    begun = body["messages"][1:]
    words = begun[0]["content"].split() if begun else []
    assert body.get("continue_final_message", False) is bool(begun)
    tokens = [1, 2, 3, *(IDS.get(word, 999) for word in words)]
    return {"count": len(tokens), "max_model_len": 2048, "tokens": tokens}


def pictures(body: Any) -> list[np.ndarray]:
    """(H, W, 3) uint8 RGB, decoded, in the order of the message."""
    parts = [p for m in body["messages"] for p in m["content"] if p["type"] == "image_url"]
    return [decoded(part) for part in parts]


def decoded(part: Any) -> np.ndarray:
    """The picture of a message part."""
    head, data = part["image_url"]["url"].split(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def likeness(photo: np.ndarray, candidate: np.ndarray) -> float:
    """The fake model's log-odds: 0 for the same red, lower for others."""
    return -abs(float(photo[..., 0].mean()) - float(candidate[..., 0].mean())) / 10


REDS = (130, 100, 60, 110, 90)
ODDS = [-3.0, 0.0, -4.0, -1.0, -1.0]
"""Candidates, and how the fake model judges them beside the photo of `showing`."""


def chat(body: Any) -> dict[str, Any]:
    """Judges pictures by their likeness: yes or no, A or B, or a ranking."""
    photo, *shown = pictures(body)
    odds = [likeness(photo, image) for image in shown]
    if "response_format" in body:
        letters = list("ABCDEFGHIJKLMNOPQRST"[: len(shown)])
        best = sorted(letters, key=lambda letter: -odds[letters.index(letter)])
        return choice(content=json.dumps({"ranking": best}), finish_reason="stop")
    if len(shown) == 1:
        return choice(logprobs(body, {"Yes": odds[0] - 1.5, "No": -1.5}))
    first = 3.0  # likes the first place
    return choice(logprobs(body, {"A": odds[0] - odds[1] + first - 50, "B": -50.0}))


def choice(
    logprobs: Any = None, *, content: str | None = "x", finish_reason: str = "length"
) -> dict[str, Any]:
    """A chat answer."""
    message = {"role": "assistant", "content": content}
    one = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": logprobs}
    return {"id": "1", "object": "chat.completion", "choices": [one]}


def logprobs(body: Any, known: dict[str, float]) -> dict[str, Any]:
    """As vLLM: exactly the ids that were asked for and the sampled token, else the likeliest."""
    wanted = body.get("logprob_token_ids")
    if wanted is None:
        told = {"the": -0.1, **known}
    else:
        assert body["logprobs"] is True
        told = {"token_id:7": -0.1}
        told |= {f"token_id:{IDS[word]}": value for word, value in known.items()}
        assert {f"token_id:{i}" for i in wanted} <= told.keys()
    top = [{"token": word, "logprob": value, "bytes": None} for word, value in told.items()]
    return {"content": [{**top[0], "top_logprobs": top}]}


def score(body: Any) -> dict[str, Any]:
    """`/score`, its results in another order than the documents."""
    photo = decoded(body["queries"]["content"][0])
    odds = [likeness(photo, decoded(d["content"][0])) for d in body["documents"]]
    if body.get("use_activation", True):
        odds = [1 / (1 + math.exp(-o)) for o in odds]
    data = [{"index": i, "object": "score", "score": o} for i, o in enumerate(odds)]
    return {"object": "list", "data": data[::-1]}


def plain(red: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """A picture (H, W, 3) of one colour."""
    return np.full((*size, 3), (red, 20, 40), np.uint8)


def showing(*reds: int, photo: int = 100) -> Showing:
    """Candidates of these reds."""
    return Showing(
        name="q.jpg",
        photo=plain(photo),
        candidates=[plain(red) for red in reds],
        ids=[f"c{i}" for i in range(len(reds))],
        photo_facts=Facts(altitude_m=120),
        candidate_facts=[Facts(north_up=True, width_m=160)] * len(reds),
    )


def until(condition: Callable[[], bool], limit_s: float = 5.0) -> bool:
    """Wait for it."""
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()
