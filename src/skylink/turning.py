"""Kernels of headings that were not encoded: a view's feature map, turned about its centre.

A heading that is off by 10 degrees spoils a match because cells at the view's rim come to lie two
cells off, hardly because their features change. So one encoded view serves the headings on both
sides of it: its unit vectors are interpolated on a turned grid. On real flights a third of the
encodings found nearly as much (docs/log.md). The best places' scores are made exact afterwards, by
encoding their own views.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from skylink.densemap import MIN_VALID_CELLS, Kernels, weigh

Floats = NDArray[np.float32]


@lru_cache(maxsize=32)
def _grid(side: int, degrees: float) -> Floats:
    """(side^2, side^2) float32: bilinear weights of a grid's cells in the same grid, turned."""
    middle = (side - 1) / 2
    row, column = (a.ravel() - middle for a in np.mgrid[:side, :side].astype(np.float64))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    source_row = cos * row - sin * column + middle
    source_column = sin * row + cos * column + middle
    weights = np.zeros((side**2, side**2), np.float32)
    at = np.arange(side**2)
    for r in (np.floor(source_row), np.floor(source_row) + 1):
        for c in (np.floor(source_column), np.floor(source_column) + 1):
            inside = (r >= 0) & (r < side) & (c >= 0) & (c < side)
            share = (1 - np.abs(source_row - r)) * (1 - np.abs(source_column - c))
            cell = (r * side + c).astype(np.intp)
            weights[at[inside], cell[inside]] += share[inside]
    weights.setflags(write=False)
    return weights


def turned(kernels: Kernels, degrees: float) -> Kernels:
    """Kernels of views whose headings are `degrees` further clockwise, all else the same.

    Cells more than half of which were not valid are not valid; weights are made anew.
    """
    if degrees == 0:
        return kernels
    count, side, _, channels = kernels.values.shape
    grid = _grid(side, degrees)
    flat = kernels.values.reshape(count, side**2, channels)
    valid = (np.abs(flat).max(axis=-1) > 0).astype(np.float32) @ grid.T > 0.5
    values = grid @ flat
    norm = np.linalg.norm(values, axis=-1, keepdims=True)
    values *= valid[..., None] / np.maximum(norm, 1e-12)
    counts = valid.sum(axis=1)
    values = values.reshape(kernels.values.shape) * weigh(counts, side)
    return Kernels(values=values, usable=counts >= MIN_VALID_CELLS)
