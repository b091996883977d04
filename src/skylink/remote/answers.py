"""What servers answer, checked to the last field: a wrong answer is an error, never mended.

The types hold the fields that are used and let others pass. The functions turn them into numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from skylink.errors import ModelError, RerankError

NO_LOGPROB = -9999.0
"""vLLM writes this for minus infinity, which JSON has no word for."""


class Answer(BaseModel):
    """Types are not converted: a number as text is an error."""

    model_config = ConfigDict(strict=True)


class Model(Answer):
    """One of `Models`."""

    id: str


class Models(Answer):
    """`GET /v1/models`."""

    data: list[Model]


class OpenApi(Answer):
    """`GET /openapi.json`: the paths that a server offers."""

    paths: dict[str, object]


class Tokens(Answer):
    """`POST /tokenize` of vLLM."""

    tokens: list[int]


class Token(Answer):
    """A token and its natural logarithm of probability."""

    token: str
    logprob: FiniteFloat = Field(le=1e-3)


class Place(Answer):
    """What could have stood at one place of the answer."""

    top_logprobs: list[Token]


class Logprobs(Answer):
    """None: the server takes no part in it."""

    content: list[Place] | None = None


class Message(Answer):
    """The words of a choice."""

    content: str | None = None


class Choice(Answer):
    """The only one of a `Chat`."""

    message: Message
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Chat(Answer):
    """`POST /v1/chat/completions`."""

    choices: list[Choice] = Field(min_length=1, max_length=1)


class Score(Answer):
    """One of `Scores`."""

    index: int
    score: FiniteFloat


class Scores(Answer):
    """`POST /score` of vLLM."""

    data: list[Score]


class Ranking(Answer):
    """What a listwise question is answered with."""

    model_config = ConfigDict(strict=True, extra="forbid")

    ranking: list[str]


def answer_logprobs(
    chat: Chat, answers: Sequence[str], ids: Sequence[int] | None
) -> NDArray[np.float64]:
    """Log probabilities (n,) of the answers as the first token.

    Args:
        chat: asked for tokens as `token_id:N` where `ids` are given.
        answers: the words.
        ids: their token ids; None: not known, so the words are looked for, all as they stand or
            all with a space before them.

    Raises:
        ModelError: the server leaves out log probabilities.
        RerankError: an answer is not among those that the server tells of. No value is assumed
            for it: one below all others would rank by what is missing.
    """
    logprobs = chat.choices[0].logprobs
    if logprobs is None or not logprobs.content:
        raise ModelError(
            "the server ignores logprobs: it answers, but tells no probabilities to rank by",
            hint="serve the model with vLLM, or use listwise mode, which needs none",
        )
    known: dict[str, float] = {}
    for top in logprobs.content[0].top_logprobs:
        if top.logprob > NO_LOGPROB:
            known.setdefault(top.token, top.logprob)
    if ids is not None:
        spellings = [[f"token_id:{i}" for i in ids]]
    else:
        spellings = [list(answers), [f" {word}" for word in answers]]
    for spelling in spellings:
        if all(word in known for word in spelling):
            return np.array([known[word] for word in spelling])
    missing = [w for w, *s in zip(answers, *spellings, strict=True) if not known.keys() & set(s)]
    raise RerankError(
        f"the server tells no probability of {' or '.join(missing or answers)} "
        f"(only of {len(known)} other tokens)"
    )


def ranking(chat: Chat, letters: Sequence[str]) -> list[int]:
    """Places (K,) of the letters, 0 for the best.

    Raises:
        RerankError: cut off, not the JSON that was asked for, or not each letter once.
    """
    choice = chat.choices[0]
    if choice.finish_reason == "length":
        raise RerankError("the answer was cut off before its end")
    try:
        order = Ranking.model_validate_json(choice.message.content or "").ranking
    except ValueError:
        said = json.dumps((choice.message.content or "")[:60])
        raise RerankError(f"the answer is not a ranking in JSON: {said}") from None
    unknown = [word for word in order if word not in letters]
    repeated = [letter for letter in letters if order.count(letter) > 1]
    missing = [letter for letter in letters if letter not in order]
    for wrong, words in (("unknown", unknown), ("repeated", repeated), ("missing", missing)):
        if words:
            said = ", ".join(json.dumps(word[:20]) for word in words[:5])
            raise RerankError(f"the ranking has {wrong} candidates: {said}")
    return [order.index(letter) for letter in letters]


def scores(answer: Scores, count: int) -> NDArray[np.float32]:
    """Scores (count,), in the order of the documents.

    Raises:
        RerankError: not exactly one score a document, or one too large for float32.
    """
    if sorted(s.index for s in answer.data) != list(range(count)):
        said = [s.index for s in answer.data][:30]
        raise RerankError(f"the server scored {count} documents with the indices {said}")
    values = np.zeros(count)
    for score in answer.data:
        values[score.index] = score.score
    if np.abs(values).max(initial=0) > np.finfo(np.float32).max:
        raise RerankError("the server gave a score that is out of range")
    return values.astype(np.float32)
