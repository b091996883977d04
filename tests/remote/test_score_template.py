"""The chat template for `/score` shows a model what the chat interface would."""

from __future__ import annotations

import pytest

from skylink.prompt import NOTHING, TEMPLATES, Facts, Template
from skylink.remote.score_template import score_template

PAD = "<|vision_start|><|image_pad|><|vision_end|>"
"""What vLLM puts in a picture's place."""

POINTWISE = [t for t in TEMPLATES.values() if t.mode == "pointwise"]


def rendered(template: Template, query: str, document: str) -> str:
    jinja = pytest.importorskip("jinja2").Environment()
    messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
    return str(jinja.from_string(score_template(template)).render(messages=messages))


def as_chat(template: Template, photo: Facts, candidate: Facts) -> str:
    """ChatML, written out."""
    system, user = template.build(photo, [candidate]).messages()
    words = "".join(PAD if p["type"] == "image" else p["text"] for p in user["content"])
    return (
        f"<|im_start|>system\n{system['content'][0]['text']}<|im_end|>\n"
        f"<|im_start|>user\n{words}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("template", POINTWISE, ids=lambda t: t.name)
def test_without_facts_it_is_the_chat_prompt(template: Template) -> None:
    assert rendered(template, PAD, PAD) == as_chat(template, NOTHING, NOTHING)


def test_with_facts_the_reranker_template_is_the_chat_prompt() -> None:
    template = TEMPLATES["qwen3-reranker-v1"]
    photo, candidate = Facts(altitude_m=90, north_up=True), Facts(north_up=True, width_m=160)
    query, document = PAD + photo.words().strip(), PAD + candidate.words().strip()
    assert rendered(template, query, document) == as_chat(template, photo, candidate)
