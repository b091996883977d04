"""Re-rank by a vision-language model on an OpenAI-compatible server (vLLM first).

The prompts are those of `skylink.prompt`, as in training and local inference; photo first and
candidate last, so that the server computes what all candidates of a photo share only once.

- pointwise: log-odds of Yes against No, one request a candidate, or one `/score` for all;
- listwise: the ranking as JSON, for servers that tell no probabilities;
- pairwise: log-odds of A against B in both orders, along `skylink.tournament`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skylink.errors import ModelError, OptionError, RerankError, SkyLinkError
from skylink.prompt import LETTERS, NOTHING, Facts, Prompt, template_of
from skylink.remote import asking
from skylink.remote.address import Address
from skylink.remote.answers import (
    Chat,
    Models,
    OpenApi,
    Scores,
    Tokens,
    answer_logprobs,
    ranking,
    scores,
)
from skylink.remote.client import Client, RefusedError
from skylink.remote.options import Api, RemoteOptions
from skylink.remote.pictures import data_uri
from skylink.showing import Image, Show, Showing
from skylink.tournament import tournament
from skylink.types import Candidate, Query

log = logging.getLogger(__name__)

CHAT, SCORE, TOKENIZE = "/v1/chat/completions", "/score", "/tokenize"
PROBE_PX = 64


@dataclass(frozen=True, slots=True)
class _Server:
    """What a server turned out to be.

    Attributes:
        model: to ask for.
        api: `chat` or `score`.
        ids: token ids of the prompt's answers; None: not known, or not needed.
    """

    model: str
    api: Api
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Pictures:
    """A showing with its pictures encoded, once for all requests."""

    photo: str
    candidates: list[str]
    photo_facts: Facts
    candidate_facts: Sequence[Facts]


class RemoteReranker:
    """See the module. The server is looked at on first use (`check`).

    Args:
        url: of the server, with or without `/v1`.
        show: makes the pictures.
        options: see `RemoteOptions`.

    Raises:
        OptionError: not an address, a key that would be readable on the way, or the HTTP library
            is not installed.
    """

    name = "remote"

    def __init__(self, url: str, show: Show, *, options: RemoteOptions) -> None:
        address = Address.parse(url)
        self._show, self._options = show, options
        self._client = Client(
            address,
            key=address.key(options.key_env, plain=options.plain_key),
            concurrency=options.concurrency,
            timeout_s=options.timeout_s,
            connect_timeout_s=options.connect_timeout_s,
            retries=options.retries,
        )
        self._build = template_of(options.template, options.mode).build
        self._lock = threading.Lock()
        self._server: _Server | ModelError | OptionError | None = None
        self.on_prompt: Callable[[str], None] | None = None
        """Called with the first prompt about each photo, in words."""

    # ---- the server

    def check(self) -> None:
        """Find out what the server is and whether it can rank, once; later calls cost nothing.

        A pointwise or pairwise run asks it one question about two grey pictures, so that a server
        that tells no probabilities or takes no two pictures fails a run before it begins.

        Raises:
            OptionError: which model is meant is not clear, or this server can't serve the options.
            ModelError: it can't serve this re-ranker; says why.
            RerankError: it can't be reached (which may pass: the next call tries again).
        """
        self._checked()

    def describe(self) -> str:
        """One line for people: who is asked, where and how.

        Raises:
            ModelError, OptionError, RerankError: see `check`.
        """
        server, options = self._checked(), self._options
        if options.mode == "listwise":
            how = "for a ranking of all candidates"
        elif server.api == "score":
            how = f"by {SCORE}"
        else:
            exact = "" if server.ids else f" (of the {asking.TOP} likeliest tokens)"
            how = f"by {options.mode} chat logprobs{exact}"
        at_once = f", {options.concurrency} at a time" if server.api == "chat" else ""
        return f"asks {server.model} at {self._client.address.root} {how}{at_once}"

    @property
    def about(self) -> str:
        """`describe`, or the address where the server can't be looked at."""
        try:
            return self.describe()
        except SkyLinkError:
            return f"the server at {self._client.address.root}"

    @property
    def max_candidates(self) -> int | None:
        """The most candidates that it can score together; None: any number."""
        return len(LETTERS) if self._options.mode == "listwise" else None

    def offers(self) -> tuple[str, bool]:
        """(the model to ask, whether the server has `/score` but no chat).

        Raises:
            OptionError, RerankError: see `check`.
        """
        return self._options.model or self._only_model(), self._offers_score_alone()

    def close(self) -> None:
        """End all connections."""
        self._client.close()

    def _checked(self) -> _Server:
        with self._lock:
            if self._server is None:
                try:
                    self._server = self._look()
                except (ModelError, OptionError) as error:
                    self._server = error
                except RefusedError as error:
                    self._server = ModelError(error.message)
            if not isinstance(self._server, _Server):
                raise self._server.with_traceback(None)  # or it would grow with every query
            return self._server

    def _look(self) -> _Server:
        """Model, interface and the answers' tokens; then one question."""
        model, mode = self._options.model or self._only_model(), self._options.mode
        api = self._options.api
        if api == "auto":
            api = "score" if mode == "pointwise" and self._offers_score_alone() else "chat"
            if api == "score" and self._options.template is not None:
                raise OptionError(
                    f"{self._client.address.root} has only {SCORE}, which asks in the words of "
                    "its own chat template",
                    hint="leave out the prompt template",
                )
        if api == "score" or mode == "listwise":
            return _Server(model, api)
        grey = np.full((PROBE_PX, PROBE_PX, 3), 128, np.uint8)
        uri, shown = self._encoded(grey), 1 if mode == "pointwise" else 2
        prompt = self._build(NOTHING, [NOTHING] * shown)
        ids = self._answer_ids(model, prompt.answers)
        body = asking.logprobs_body(model, prompt, uri, [uri] * shown, ids)
        (answer,) = self._client.post(CHAT, [body], Chat)
        try:
            answer_logprobs(answer, prompt.answers, ids)
        except ModelError as error:
            root = self._client.address.root
            raise ModelError(f"{root}: {error.message}", hint=error.hint) from None
        except RerankError as error:
            log.info("grey pictures: %s", error.message)  # real ones may well be answered
        return _Server(model, api, ids)

    def _only_model(self) -> str:
        names = [model.id for model in self._client.get("/v1/models", Models).data]
        if len(names) != 1:
            listed = f"the models {', '.join(sorted(names)[:20])}" if names else "no model"
            raise OptionError(
                f"{self._client.address.root} lists {listed}", hint="say which model to ask"
            )
        return names[0]

    def _offers_score_alone(self) -> bool:
        try:
            paths = self._client.get("/openapi.json", OpenApi).paths
        except RefusedError:  # not every server tells
            return False
        return SCORE in paths and CHAT not in paths

    def _answer_ids(self, model: str, answers: Sequence[str]) -> tuple[int, ...] | None:
        """The answers' tokens where the model's chat template begins an answer.

        That is how a template spells them (`Yes` after a line break, ` Yes` after a colon). None
        where the server has no `/tokenize`, or an answer is not one token there.
        """
        try:
            tokens = self._client.post(TOKENIZE, asking.tokenize_bodies(model, answers), Tokens)
        except RerankError as error:
            log.info("no token ids: %s", error.message)
            return None
        before, *begun = [t.tokens for t in tokens]
        ids = [t[-1] for t in begun if t[:-1] == before]
        return tuple(ids) if len(set(ids)) == len(answers) else None

    # ---- scores

    def score(self, query: Query, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        """See `Reranker.score`.

        Raises:
            RerankError: the server fails on this query after all tries.
            ModelError, OptionError: see `check`.
        """
        return self.score_showing(self._show(query, candidates))

    def score_showing(self, showing: Showing) -> NDArray[np.float32]:
        """Relevance (K,) of the candidates, float32; raises as `score`.

        Pointwise: log-odds (from `/score` a logit or a probability). Listwise: K - rank, averaged
        over the orders. Pairwise: as `tournament`.
        """
        server, options = self._checked(), self._options
        if not showing.candidates:
            return np.zeros(0, np.float32)
        if options.mode == "listwise" and len(showing.candidates) > len(LETTERS):
            raise RerankError(
                f"{len(showing.candidates)} candidates are too many for a listwise prompt",
                hint=f"at most --top-k {len(LETTERS)}, or pairwise mode",
            )
        facts = options.facts
        if self.on_prompt is not None:
            shown = {"pointwise": 1, "pairwise": 2}.get(options.mode, len(showing.candidates))
            known = showing.candidate_facts[:shown] if facts else [NOTHING] * shown
            self.on_prompt(str(self._build(showing.photo_facts if facts else NOTHING, known)))
        pictures = _Pictures(
            self._encoded(showing.photo),
            [self._encoded(image) for image in showing.candidates],
            showing.photo_facts if facts else NOTHING,
            showing.candidate_facts if facts else [NOTHING] * len(showing.candidates),
        )
        if options.mode == "listwise":
            return self._listwise(server, pictures)
        if options.mode == "pairwise":
            return self._pairwise(server, pictures)
        return self._pointwise(server, pictures)

    def _pointwise(self, server: _Server, pictures: _Pictures) -> NDArray[np.float32]:
        count = len(pictures.candidates)
        if server.api == "chat":
            return self._log_odds(server, pictures, [(i,) for i in range(count)])
        body = asking.score_body(
            server.model,
            pictures.photo,
            pictures.photo_facts.words().strip(),
            pictures.candidates,
            [facts.words().strip() for facts in pictures.candidate_facts],
        )
        (answer,) = self._client.post(SCORE, [body], Scores)
        return scores(answer, count)

    def _pairwise(self, server: _Server, pictures: _Pictures) -> NDArray[np.float32]:
        def compare(pairs: Sequence[tuple[int, int]]) -> list[float]:
            """Both orders: a model that likes the first place is then of no consequence."""
            asked = [pair for i, j in pairs for pair in ((i, j), (j, i))]
            forth, back = self._log_odds(server, pictures, asked).reshape(-1, 2).T
            return [float(value) for value in (forth - back) / 2]

        most = self._options.max_comparisons
        return tournament(len(pictures.candidates), compare, max_comparisons=most)

    def _log_odds(
        self, server: _Server, pictures: _Pictures, groups: Sequence[tuple[int, ...]]
    ) -> NDArray[np.float32]:
        """For each group of candidates, the log-odds of the first answer against the second."""
        asked = [self._prompt(pictures, group) for group in groups]
        bodies = [
            asking.logprobs_body(server.model, prompt, pictures.photo, shown, server.ids)
            for prompt, shown in asked
        ]
        answers = self._client.post(CHAT, bodies, Chat)
        told = [
            answer_logprobs(answer, prompt.answers, server.ids)
            for answer, (prompt, _) in zip(answers, asked, strict=True)
        ]
        return np.array([first - second for first, second in told], np.float32)

    def _listwise(self, server: _Server, pictures: _Pictures) -> NDArray[np.float32]:
        count, random = len(pictures.candidates), np.random.default_rng(self._options.seed)
        orders = [random.permutation(count) for _ in range(self._options.orders)]
        for later in range(1, len(orders), 2):  # what comes first here came last before
            orders[later] = orders[later - 1][::-1]
        asked = [self._prompt(pictures, [int(i) for i in order]) for order in orders]
        bodies = [asking.ranking_body(server.model, p, pictures.photo, shown) for p, shown in asked]
        total = np.zeros(count)
        answers = self._client.post(CHAT, bodies, Chat)
        for order, (prompt, _), answer in zip(orders, asked, answers, strict=True):
            total[order] += count - np.array(ranking(answer, prompt.answers))
        return (total / len(orders)).astype(np.float32)

    def _prompt(self, pictures: _Pictures, group: Sequence[int]) -> tuple[Prompt, list[str]]:
        """The question about some candidates, in this order, and their pictures."""
        facts = [pictures.candidate_facts[i] for i in group]
        return self._build(pictures.photo_facts, facts), [pictures.candidates[i] for i in group]

    def _encoded(self, image: Image) -> str:
        options = self._options
        return data_uri(image, image_px=options.image_px, image_format=options.image_format)
