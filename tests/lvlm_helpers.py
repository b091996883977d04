"""What a vision-language model is shown in tests: pictures of all shapes, none like another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skylink.prompt import Facts
from skylink.showing import Image, Showing

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "idefics3", "llava")

SIZES = [(64, 64), (96, 64), (64, 160), (200, 300), (128, 128), (31, 77), (96, 96)]
"""Heights and widths of the candidates in `showing_of`, no two of which are equal."""


def picture(height: int, width: int, seed: int) -> Image:
    """Large blocks of colour: what a vision tower tells apart at any size."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    rows, cols = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return blocks[rows][:, cols]


def showing_of(
    sizes: Sequence[tuple[int, int]] = SIZES, *, seed: int = 1, differing_facts: bool = False
) -> Showing:
    """A photo and as many candidates, all different."""
    facts = [
        Facts(north_up=True, width_m=160.0 + (1000.0 * i if differing_facts else 0.0))
        for i in range(len(sizes))
    ]
    return Showing(
        name="photo.jpg",
        photo=picture(80, 100, seed),
        candidates=[picture(*size, seed * 1000 + i) for i, size in enumerate(sizes)],
        ids=[f"tile-{i}" for i in range(len(sizes))],
        photo_facts=Facts(north_up=True, width_m=160.0, altitude_m=90.0),
        candidate_facts=facts,
    )


def picked(showing: Showing, indices: Sequence[int]) -> Showing:
    """The same photo with some of the candidates, in this order."""
    return Showing(
        name=showing.name,
        photo=showing.photo,
        candidates=[showing.candidates[i] for i in indices],
        ids=[showing.ids[i] for i in indices],
        photo_facts=showing.photo_facts,
        candidate_facts=[showing.candidate_facts[i] for i in indices],
    )
