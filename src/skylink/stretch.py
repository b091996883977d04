"""Bands of any number type to 8-bit RGB, by limits that are the same for all of a source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (2.0, 98.0)


def stretch_limits(samples: Sequence[Sequence[NDArray[np.float64]]]) -> NDArray[np.float64]:
    """(bands, 2) values that become 0 and 255: 2nd and 98th percentile of each band's samples."""
    limits = np.zeros((len(samples), 2))
    for slot, parts in enumerate(samples):
        joined = np.concatenate(parts) if parts else np.zeros(0)
        limits[slot] = np.percentile(joined, PERCENTILES) if joined.size else (0.0, 1.0)
    return limits


def to_rgb(
    values: NDArray[Any], stretch: NDArray[np.float64] | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(bands, H, W) of any type to (H, W, 3) uint8 and where all values are finite."""
    valid = np.ones(values.shape[1:], dtype=bool)
    if stretch is not None:
        if np.issubdtype(values.dtype, np.floating):
            valid = np.isfinite(values).all(axis=0)
        low, high = stretch[:, 0, None, None], stretch[:, 1, None, None]
        scale = 255.0 / np.where(high > low, high - low, np.inf)
        scaled = (np.nan_to_num(values.astype(np.float64)) - low) * scale
        values = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    if len(values) == 1:
        values = np.repeat(values, 3, axis=0)
    return np.ascontiguousarray(np.moveaxis(values, 0, -1)), valid
