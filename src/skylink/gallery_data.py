"""What a gallery gives out: tiles, feature rasters, statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skylink.tiling import Bounds

_ORDER = ("area", "level", "row", "col")
_PLACE = ("area", "level", "lon", "lat", "x_m", "y_m")
TILE_COLUMNS = ("id", *_PLACE, "row", "col", "descriptor")
"""What `tiles_of` needs of the table."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Tiles as columns, N rows.

    Attributes:
        id: (N,) str; "a0-l0-r12-c7" is area 0, level 0, row 12, column 7.
        area, level: (N,) int32.
        lon, lat: (N,) float64, WGS 84 degrees of the centre.
        x_m, y_m: (N,) float64, the same in the area's local frame.
        descriptor: (N, D) float16, unit norm, standardised by the level's statistics.
    """

    id: NDArray[np.str_]
    area: NDArray[np.int32]
    level: NDArray[np.int32]
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    descriptor: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.id)

    def select(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Tiles:
        """The rows where `keep` (N,) is True, or by number and in that order."""
        return Tiles(**{name: column[keep] for name, column in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class FeatureRaster:
    """The feature map of (a part of) an area, north up.

    Attributes:
        values: (rows, cols, C) float16; zero where not valid.
        valid: (rows, cols) bool; more than half of the cell's pixels are valid.
        x0_m, y0_m: local coordinates of the CENTRE of cell (0, 0); y falls with rows.
        cell_m: side of a cell, metres.
    """

    values: NDArray[np.float16]
    valid: NDArray[np.bool_]
    x0_m: float
    y0_m: float
    cell_m: float

    @property
    def bounds(self) -> Bounds:
        """(x_min, y_min, x_max, y_max) of the outer edges, local metres."""
        rows, cols = self.valid.shape
        half = self.cell_m / 2
        return (
            self.x0_m - half,
            self.y0_m + half - rows * self.cell_m,
            self.x0_m - half + cols * self.cell_m,
            self.y0_m + half,
        )


@dataclass(frozen=True, kw_only=True)
class LevelStatistics:
    """What is usual on this map, at one level.

    Attributes:
        descriptor_mean, descriptor_std: (D,) float32 over the tiles' raw descriptors.
        feature_mean: (C,) float64 over valid cells.
        feature_covariance: (C, C) float64.
        cells: how many valid cells there are.
    """

    descriptor_mean: NDArray[np.float32]
    descriptor_std: NDArray[np.float32]
    feature_mean: NDArray[np.float64]
    feature_covariance: NDArray[np.float64]
    cells: int


def tiles_of(table: Any, dimensions: int) -> tuple[Tiles, NDArray[np.int64]]:
    """An arrow table with `TILE_COLUMNS` as `Tiles`, and the order by area, level, row, column."""
    table = table.combine_chunks()
    flat = table["descriptor"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    tiles = Tiles(
        id=np.array(table["id"].to_pylist(), dtype=np.str_),
        descriptor=flat.astype(np.float16, copy=False).reshape(-1, dimensions),
        **{name: table[name].to_numpy() for name in _PLACE},
    )
    order = np.lexsort([table[name].to_numpy() for name in reversed(_ORDER)])
    return tiles, order.astype(np.int64)
