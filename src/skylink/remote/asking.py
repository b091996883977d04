"""Requests: prompts and pictures as a server takes them. No network here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skylink.prompt import Picture, Prompt
from skylink.remote.pictures import image_part

TOP = 20
"""As many likely tokens as servers tell of at most, unless they are set up otherwise."""


def logprobs_body(
    model: str, prompt: Prompt, photo: str, shown: Sequence[str], ids: Sequence[int] | None
) -> dict[str, Any]:
    """Ask for the probabilities of the prompt's answers as the next token.

    Args:
        model: its name.
        prompt: built by a template.
        photo: data URI.
        shown: data URIs of the candidates that the prompt speaks of.
        ids: the answers' token ids: a server of vLLM then tells of exactly these, and an older one,
            which doesn't know the field, of the likeliest. None: of the likeliest.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(prompt, photo, shown),
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": TOP,
    }
    if ids is not None:
        body |= {"logprob_token_ids": list(ids), "return_tokens_as_token_ids": True}
    return body


def ranking_body(model: str, prompt: Prompt, photo: str, shown: Sequence[str]) -> dict[str, Any]:
    """Ask for all letters in order, best first, as JSON.

    The schema gives letters and number. That none is repeated is checked in the answer: not all
    servers know `uniqueItems`, and some refuse a schema with it.
    """
    letters = list(prompt.answers)
    order = {
        "type": "array",
        "items": {"type": "string", "enum": letters},
        "minItems": len(letters),
        "maxItems": len(letters),
    }
    schema = {
        "type": "object",
        "properties": {"ranking": order},
        "required": ["ranking"],
        "additionalProperties": False,
    }
    return {
        "model": model,
        "messages": _messages(prompt, photo, shown),
        "max_tokens": 32 + 16 * len(letters),
        "temperature": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "ranking", "strict": True, "schema": schema},
        },
    }


def score_body(
    model: str, photo: str, photo_words: str, shown: Sequence[str], words: Sequence[str]
) -> dict[str, Any]:
    """Ask vLLM's `/score` for all pairs of the photo and a candidate.

    The words around the pictures are those of the server's chat template. `use_activation` asks
    for the logit; a server that doesn't know it gives a probability, which ranks alike.
    """
    return {
        "model": model,
        "queries": {"content": _with_words(photo, photo_words)},
        "documents": [
            {"content": _with_words(uri, said)} for uri, said in zip(shown, words, strict=True)
        ],
        "use_activation": False,
    }


def tokenize_bodies(model: str, answers: Sequence[str]) -> list[dict[str, Any]]:
    """Ask for the tokens of a chat without and, one each, with the answers begun."""
    user = {"role": "user", "content": "?"}
    open_ = {"model": model, "messages": [user], "add_generation_prompt": True}
    begun = [
        {
            "model": model,
            "messages": [user, {"role": "assistant", "content": word}],
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
        for word in answers
    ]
    return [open_, *begun]


def _messages(prompt: Prompt, photo: str, shown: Sequence[str]) -> list[dict[str, Any]]:
    def picture(part: Picture) -> dict[str, Any]:
        return image_part(photo if part.candidate is None else shown[part.candidate])

    return prompt.messages(picture)


def _with_words(uri: str, words: str) -> list[dict[str, Any]]:
    return [image_part(uri), *([{"type": "text", "text": words}] if words else [])]
