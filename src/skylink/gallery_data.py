"""What a gallery gives out: tiles, feature rasters, statistics."""

from __future__ import annotations

from collections.abc import Sequence
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
        descriptor_basis: (D, P) float32, orthonormal columns: see `principal_basis`; None where
            descriptors are kept at full length.
        feature_mean: (C,) float64 over valid cells.
        feature_covariance: (C, C) float64.
        cells: how many valid cells there are.
    """

    descriptor_mean: NDArray[np.float32]
    descriptor_std: NDArray[np.float32]
    descriptor_basis: NDArray[np.float32] | None
    feature_mean: NDArray[np.float64]
    feature_covariance: NDArray[np.float64]
    cells: int

    def stored(self, raw: NDArray[np.float32], parts: Sequence[int]) -> NDArray[np.float32]:
        """(N, P) unit-norm float32: an encoder's raw (N, D) descriptors as the tiles keep them."""
        from skylink.encoder import standardise

        unit = standardise(raw, self.descriptor_mean, self.descriptor_std, parts)
        if self.descriptor_basis is None:
            return unit
        short = unit @ self.descriptor_basis
        norm = np.linalg.norm(short, axis=1, keepdims=True)
        return np.asarray(short / np.maximum(norm, 1e-9), dtype=np.float32)


MAX_DIMENSIONS = 512
"""Longer descriptors are stored by this many principal components: on real flights about
the same recall at a third of the memory and time (docs/log.md). Nothing is whitened:
that hurt."""


def principal_basis(standardised: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """(D, P) principal directions of (N, D) unit descriptors; None if D <= MAX_DIMENSIONS.

    Not centred: the cosine between descriptors is what must survive. With fewer rows than P the
    last columns are zero, and nothing of the rows is lost.
    """
    count, dimensions = standardised.shape
    if dimensions <= MAX_DIMENSIONS:
        return None
    rows = np.asarray(standardised, np.float64)
    if count < dimensions:  # the small Gram matrix has the same spectrum
        values, vectors = np.linalg.eigh(rows @ rows.T)
        keep = values > 1e-9 * max(float(values[-1]), 1e-12)
        basis = (rows.T @ vectors[:, keep]) / np.sqrt(values[keep])
    else:
        basis = np.linalg.eigh(rows.T @ rows)[1]
    out = np.zeros((dimensions, MAX_DIMENSIONS), dtype=np.float32)
    first = basis[:, ::-1][:, :MAX_DIMENSIONS]
    out[:, : first.shape[1]] = first
    return out


def tiles_of(table: Any) -> tuple[Tiles, NDArray[np.int64]]:
    """An arrow table with `TILE_COLUMNS` as `Tiles`, and the order by area, level, row, column."""
    table = table.combine_chunks()
    dimensions = table.schema.field("descriptor").type.list_size
    flat = table["descriptor"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    tiles = Tiles(
        id=np.array(table["id"].to_pylist(), dtype=np.str_),
        descriptor=flat.astype(np.float16, copy=False).reshape(-1, dimensions),
        **{name: table[name].to_numpy() for name in _PLACE},
    )
    order = np.lexsort([table[name].to_numpy() for name in reversed(_ORDER)])
    return tiles, order.astype(np.int64)
