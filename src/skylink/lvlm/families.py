"""Which model families can be scored, and what is particular to each. Imports no torch.

Families with `tested = True` are held to the plain forward in our tests, on small random models.
Others of the library's image-text-to-text models go through the generic path: at load, the fast
way is compared with the plain one on two made-up pictures, and used only where they agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DEFAULT_TOKENS = 256
"""Visual tokens of a picture: some 450 px a side, where a roof is still a roof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is particular to a family.

    Attributes:
        model_type: as `config.json` says it.
        pixels_per_token: side of the square of pixels that one visual token covers; None where
            pictures have a fixed size and the checkpoint's own processor decides.
        tested: fast scores are compared with plain ones in our tests.
    """

    model_type: str
    pixels_per_token: int | None = None
    tested: bool = True


TESTED = {
    family.model_type: family
    for family in (
        Family(model_type="qwen2_vl", pixels_per_token=28),
        Family(model_type="qwen2_5_vl", pixels_per_token=28),
        Family(model_type="qwen3_vl", pixels_per_token=32),
        Family(model_type="smolvlm"),
        Family(model_type="idefics3"),
        Family(model_type="llava"),
    )
}

REFUSED = {
    "mllama": "its pictures enter by cross-attention, not as tokens of the prompt",
    "blip-2": "it has no chat template and takes one picture",
    "instructblip": "it takes one picture",
    "florence2": "it is an encoder-decoder for one picture",
    "kosmos-2": "it takes one picture",
    "pix2struct": "it is an encoder-decoder for one picture",
    "git": "it takes one picture",
    "vision-encoder-decoder": "it takes one picture",
    "fuyu": "it has no chat template",
}
"""Families that can't look at a photo and a candidate together, with the reason."""


def family_of(model_type: str) -> Family:
    """The family of a `model_type`; an untested one for the generic path."""
    return TESTED.get(model_type) or Family(model_type=model_type, tested=False)


def fit_to_budget(processor: Any, family: Family, tokens: int) -> int:
    """Set the processor to spend at most so many visual tokens on a picture.

    Families of free size are given a budget of pixels. Those that cut a large picture into tiles of
    a fixed size (SmolVLM, Idefics3: by default 17 for every picture) cut only where tiles and
    overview fit the budget; one tile is the least. Others have one size, and it stays.

    Returns:
        side of the square pictures to show, pixels.
    """
    images = processor.image_processor
    if family.pixels_per_token is not None:
        unit = family.pixels_per_token
        side = max(2, int(tokens**0.5)) * unit
        least = {"shortest_edge": min(4 * unit**2, side**2 // 4), "longest_edge": side**2}
        images.size = type(images.size)(**least)
        return side
    tile = getattr(images, "max_image_size", None)
    if tile is not None and hasattr(images, "do_image_splitting"):
        edge = int(tile["longest_edge"])
        along = int(max(0, tokens // processor.image_seq_len - 1) ** 0.5)
        images.do_image_splitting = along >= 2
        images.size = type(images.size)(longest_edge=edge * max(1, along))
        return edge * max(1, along)
    size = dict(getattr(images, "crop_size", None) or getattr(images, "size", None) or {})
    return int(size.get("height") or size.get("shortest_edge") or 448)
