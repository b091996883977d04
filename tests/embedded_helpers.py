"""Pictures, banks and recipes small enough for tests of the embedded training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2

from map_helpers import texture
from skylink.embedded.recipe import EncoderRecipe
from skylink.embedded.sources import SampleSource
from skylink.views import Difficulty, MapPool


def write_pictures(folder: Path, count: int = 12) -> Path:
    """Made-up satellite images, each another."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        cv2.imwrite(str(folder / f"s{i:02d}.png"), texture(200, 220, i))
    return folder


def source(folder: Path, count: int = 12, *, seed: int = 0, views: int = 2) -> SampleSource:
    """Maps of 8 x 8 cells with views of 6 x 6."""
    return SampleSource(
        MapPool([folder]), None, synthetic=count, real=0, views=views, seed=seed,
        difficulty=Difficulty(change=0.3, widths=(0.9, 1.4), max_tilt_deg=20),
        map_px=128, view_px=96,
    )  # fmt: skip


def recipe(folder: Path, out: Path, **sections: Any) -> EncoderRecipe:
    """A training of some steps on `write_pictures`."""
    small = {"map_px": 128, "view_px": 96, "views": 2, "widths": (0.8, 1.4), "real": 0}
    given: dict[str, Any] = {
        "out": out,
        "data": {"maps": [folder], "held_out_every": 3},
        "views": {**small, "synthetic": 16},
        "held_out": {**small, "synthetic": 6},
        "dense": {"hidden": 32, "maps_per_step": 4, "min_cells": 8},
        "optimizer": {"steps": 6},
        "descriptor": {"size": 24, "maps_per_step": 4, "min_cells": 8},
        "descriptor_optimizer": {"steps": 2},
        "checkpoints": {"every": 2},
    }
    for name, values in sections.items():
        given[name] = {**given[name], **values} if isinstance(values, dict) else values
    return EncoderRecipe.model_validate(given)
