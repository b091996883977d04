"""The chat template that makes a server's `/score` ask in our words.

`/score` sends pictures without a question; the question stands in the chat template that vLLM is
started with (`--runner pooling --chat-template FILE`). Written from the prompt template itself, it
can't differ from what a model was trained with.
"""

from __future__ import annotations

import json

from skylink.prompt import NOTHING, Picture, Template


def score_template(template: Template) -> str:
    """Jinja for models that speak ChatML (all Qwen-VL).

    Facts follow the picture that they are about. That is how `qwen3-reranker-v1` has them, so with
    it a score is the same to the letter; with the others it is so without facts.

    Args:
        template: a pointwise one.
    """
    prompt = template.build(NOTHING, [NOTHING])
    parts = [
        f"{{{{- messages[{0 if part.candidate is None else 1}].content -}}}}"
        if isinstance(part, Picture)
        else _said(part.text)
        for part in prompt.user
    ]
    system = [] if prompt.system is None else [f"<|im_start|>system\n{prompt.system}<|im_end|>\n"]
    before = [_said(words) for words in (*system, "<|im_start|>user\n")]
    return "\n".join([*before, *parts, _said("<|im_end|>\n<|im_start|>assistant\n")]) + "\n"


def _said(words: str) -> str:
    """A Jinja expression of these very words: a JSON text is one."""
    return f"{{{{- {json.dumps(words)} -}}}}"
