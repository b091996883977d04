"""Soft labels of candidates on maps: their overlap with the truth."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def relevance(
    overlap: Tensor, *, labels: Literal["overlap", "hard"], threshold: float, power: float
) -> Tensor:
    """Labels of each row's candidates, 0..1.

    Args:
        overlap: (Q, N) IoU of N candidates with Q true places.
        labels: `hard`: 1 for the row's best (equals share), if it overlaps at all, else 0.
        threshold: overlaps below become 0, except for the row's best.
        power: the rest are raised to it.
    """
    best = (overlap == overlap.amax(1, keepdim=True)) & (overlap > 0)
    if labels == "hard":
        return best.to(overlap.dtype)
    kept = (overlap >= threshold) | best
    return torch.where(kept, overlap, torch.zeros_like(overlap)) ** power


def square_overlap(a: Tensor, b: Tensor, side: float) -> Tensor:
    """IoU of axis-parallel squares of one side, (N, M).

    Args:
        a, b: (N, 2) and (M, 2) centres, in cells.
        side: of the squares, cells.
    """
    apart = (a[:, None] - b[None]).abs()
    common = (side - apart).clamp(min=0).prod(-1)
    return common / (2 * side**2 - common)


def place_overlap(places: Tensor, size: int, side: float) -> Tensor:
    """IoU of a view's square at every place of a surface with the true one, (V, size, size).

    Args:
        places: (V, 2) true rows and columns, in cells from the map's top left corner.
        size: places along a surface's side, one a cell, from 0.
        side: of the square, cells.
    """
    steps = torch.arange(size, dtype=places.dtype)
    along = (side - (steps - places[..., None]).abs()).clamp(min=0)  # (V, 2, size)
    common = along[:, 0, :, None] * along[:, 1, None, :]
    return common / (2 * side**2 - common)
