"""Candidate lists that can be learnt: the right tile has the photo's colours, the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from skylink.files import write_atomic
from skylink.mined import Measured, MinedCandidate, MinedList, Provenance
from skylink.minedfile import write_mined
from skylink.soft_labels import SoftLabels
from skylink.training.config import TrainConfig

SIDE = 64


def write_lists(
    folder: Path,
    *,
    lists: int = 16,
    candidates: int = 4,
    seed: int = 0,
    name: str = "train",
    places: int = 8,
    **where: Any,
) -> Path:
    """Photos, tiles and `NAME.jsonl` in a folder; the base is right for a quarter of the lists.

    Args:
        where: what differs in the provenance.
    """
    draw = np.random.default_rng((seed, *name.encode()))
    colours = _colours(places)
    for place, colour in enumerate(colours):
        _write(folder / f"tiles/{place}.png", colour, draw)
    made = []
    for number in range(lists):
        truth = int(draw.integers(places))
        photo = f"{name}/{number}.png"
        _write(folder / photo, colours[truth], draw)
        others = draw.permutation([p for p in range(places) if p != truth])[: candidates - 1]
        order = [*map(int, others)]
        order.insert(number % candidates, truth)
        made.append(
            MinedList(
                query=f"{name}-{number}",
                path=photo,
                candidates=tuple(
                    MinedCandidate(
                        id=f"tile-{place}",
                        path=f"tiles/{place}.png",
                        base_score=1 - 0.1 * rank,
                        rank=rank + 1,
                        is_ground_truth=place == truth,
                        label=1.0 if place == truth else 0.0,
                        measured=Measured(overlap=1.0 if place == truth else 0.25),
                    )
                    for rank, place in enumerate(order)
                ),
            )
        )
    path = folder / f"{name}.jsonl"
    write_mined(path, provenance(k=candidates, **where), made)
    return path


def provenance(*, k: int = 4, **where: Any) -> Provenance:
    """Of lists that nobody mined."""
    known: dict[str, Any] = {
        "base": "made up", "base_fingerprint": "0", "dataset": "colours", "split": "train",
        "gallery": "0", "k": k, "seed": 0, "ground_truth": "appended", "labels": SoftLabels(),
    }  # fmt: skip
    return Provenance(**(known | where))


def config_for(
    checkpoint: Path, folder: Path, *, judged_by: Sequence[str] = (), **sections: Any
) -> TrainConfig:
    """A short training on `folder/train.jsonl` on the CPU; sections update the defaults here."""
    values: dict[str, dict[str, Any]] = {
        "data": {
            "train": folder / "train.jsonl",
            "validation": [folder / f"{name}.jsonl" for name in judged_by],
            "folder": folder,
            "list_size": 4,
        },
        "asking": {"visual_tokens": 16, "template": "pointwise-short-v1"},
        "optimizer": {"steps": 4, "lists_per_step": 4},
        "compute": {"device": "cpu", "precision": "fp32", "cache": folder / "cache"},
    }
    plain = {"out": folder / "out", "seed": 3}
    for name, given in sections.items():
        if isinstance(given, dict):
            values[name] = values.get(name, {}) | given
        else:
            plain[name] = given
    return TrainConfig.model_validate({"checkpoint": str(checkpoint), **plain, **values})


def _colours(count: int) -> list[tuple[int, int, int]]:
    hues = np.linspace(0, 180, count, endpoint=False).astype(np.uint8)
    hsv = np.stack([hues, np.full(count, 255), np.full(count, 255)], axis=1).astype(np.uint8)
    rgb = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    return [tuple(map(int, colour)) for colour in rgb]


def _write(path: Path, colour: tuple[int, int, int], draw: np.random.Generator) -> None:
    """A picture of about this colour."""
    noise = draw.normal(0, 20, (SIDE, SIDE, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    ok, data = cv2.imencode(".png", pixels[:, :, ::-1])
    assert ok
    write_atomic(path, data.tobytes())
