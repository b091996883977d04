"""Which maps and views of a bank a step learns from, and which a validation looks at."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skylink.embedded.bank import Bank, Rows
from skylink.embedded.surface import cell_statistics

NEIGHBOURHOOD = 80
"""Synthetic maps of a batch lie within so many numbers: made of images that are alike."""

Indices = NDArray[np.int64]


def draw_maps(bank: Bank, rng: np.random.Generator, count: int, real_share: float) -> Indices:
    """Different maps: synthetic ones that are alike, or real ones.

    Args:
        bank: of at least two maps.
        rng: all chance comes from it.
        count: how many, if there are as many.
        real_share: how often they are real ones, where there are both.
    """
    split, total = bank.synthetic, len(bank)
    real = rng.random() < real_share
    if split == 0 or (real and total > split):
        low, high = split, total
    else:
        at = int(rng.integers(split))
        low = min(max(0, at - NEIGHBOURHOOD // 2), max(0, split - NEIGHBOURHOOD))
        high = min(split, low + NEIGHBOURHOOD)
    return rng.choice(np.arange(low, high), min(count, high - low), replace=False)


def validation_sets(bank: Bank) -> dict[str, Indices]:
    """`synthetic` in order, so that neighbours are alike, and `real` in a fixed random order."""
    sets = {
        "synthetic": np.arange(bank.synthetic),
        "real": np.random.default_rng(0).permutation(np.arange(bank.synthetic, len(bank))),
    }
    return {name: found for name, found in sets.items() if len(found) >= 2}


def different_ground(group: NDArray[np.int32]) -> Tensor:
    """(N, N) bool: map j is map i itself, or surely shows other ground."""
    same = torch.from_numpy(group[:, None] == group[None])
    return ~same | torch.eye(len(group), dtype=torch.bool)


def standardised(rows: Rows, views: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cells by the maps' own mean and deviation, as a gallery's statistics do it in use.

    Args:
        rows: N maps.
        views: which of each; V.

    Returns:
        (N, R, R, C) maps, (N, R, R) validity, (N * V, k, k, C) views, (N * V, k, k) validity.
    """
    maps, maps_valid = _float(rows.maps), _float(rows.maps_valid)
    seen = _float(rows.views[:, views]).flatten(0, 1)
    seen_valid = _float(rows.views_valid[:, views]).flatten(0, 1)
    mean, deviation = cell_statistics(maps, maps_valid)
    return (
        (maps - mean) / deviation * maps_valid[..., None],
        maps_valid,
        (seen - mean) / deviation * seen_valid[..., None],
        seen_valid,
    )


def _float(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
