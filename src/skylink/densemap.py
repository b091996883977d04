"""A part of the map made ready for dense search: normalised features and their spectra.

Every cell's feature vector is standardised by the map's own channel mean and deviation, projected
by a trained encoder's dense head if there is one, and scaled to unit length; a query's cells
likewise, where the view is valid. The match score is the mean cosine of the two times the square
root of the view's valid share (`weigh` says why).
Method and figures: docs/log.md, 2026-11-22.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skylink.camera import ViewRenderer
from skylink.correlation import SpectralMap, correlate_window
from skylink.encoder import Encoder, cell_masks, fill_invalid
from skylink.types import CameraPose, View

if TYPE_CHECKING:
    from skylink.embedded.encoder import CellProjection
    from skylink.gallery import FeatureRaster, LevelStatistics

Floats = NDArray[np.float32]

FULL_SPECTRA_BYTES = 192_000_000
"""Maps whose spectra would need more are searched in COARSE_CHANNELS under few poses, too."""

COARSE_CHANNELS = 32
"""Principal channels of the coarse pass. Alone they cost a prototype 5 points of recall on
real flights; with the peaks scored again in all channels nothing is lost (docs/log.md)."""

SAMPLE = 16_384
"""Cells of a map, at least, that the directions of its coarse pass are found from."""

MIN_VALID_CELLS = 12
"""A view with fewer valid cells matches anything by chance."""

RIM_CELLS = 2
"""Cells around a place on the map that are looked at for its exact position."""


class Normaliser:
    """Standardises feature vectors by a level's own statistics.

    Args:
        statistics: of the gallery's level.
        project: a trained encoder's `relational_cells`, applied to standardised cells.

    Attributes:
        channels: of the vectors that `unit` gives.
    """

    def __init__(self, statistics: LevelStatistics, project: CellProjection | None = None) -> None:
        covariance = np.asarray(statistics.feature_covariance, np.float64)
        deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
        self._mean = np.asarray(statistics.feature_mean, np.float32)
        self._scale = (1 / deviation).astype(np.float32)
        correlation = covariance / np.outer(deviation, deviation)
        _, vectors = np.linalg.eigh(correlation)
        self._basis = np.ascontiguousarray(vectors[:, ::-1][:, :COARSE_CHANNELS], np.float32)
        self._project = project
        self.channels = len(self._mean) if project is None else project.cell_channels

    def unit(self, features: NDArray[np.floating], valid: NDArray[np.bool_]) -> Floats:
        """(..., C) float32 unit vectors; zero where not valid (...,)."""
        out = np.asarray(features, np.float32) - self._mean
        out *= self._scale
        if self._project is not None:
            return self._project.relational_cells(out, np.asarray(valid, bool))
        norm = np.linalg.norm(out, axis=-1, keepdims=True)
        out *= valid[..., None] / np.maximum(norm, 1e-6)
        return np.asarray(out, dtype=np.float32)

    def basis(self, unit: NDArray[np.floating]) -> Floats:
        """(channels, COARSE_CHANNELS) principal directions of the map's unit vectors.

        Args:
            unit: (rows, columns, channels) of the map. What projected cells spread along is not
                known from the statistics: it is taken from some SAMPLE of them.
        """
        if self._project is None:
            return self._basis
        step = max(1, math.isqrt(unit.shape[0] * unit.shape[1] // SAMPLE))
        some = unit[::step, ::step].reshape(-1, unit.shape[-1]).astype(np.float64)
        _, vectors = np.linalg.eigh(some.T @ some)
        return np.ascontiguousarray(vectors[:, ::-1][:, :COARSE_CHANNELS], np.float32)

    def coarse(self, unit: Floats, basis: Floats | None = None) -> Floats:
        """(..., COARSE_CHANNELS) float32: principal components of unit vectors, unit again.

        Args:
            unit: (..., channels).
            basis: of the map, see `basis`; None: the statistics' own.
        """
        out = unit @ (self._basis if basis is None else basis)
        norm = np.linalg.norm(out, axis=-1, keepdims=True)
        return np.asarray(out / np.maximum(norm, 1e-6), dtype=np.float32)


def normaliser_for(statistics: LevelStatistics, encoder: Encoder) -> Normaliser:
    """Of a level, with the encoder's dense head if it has one."""
    from skylink.embedded.encoder import CellProjection

    return Normaliser(statistics, encoder if isinstance(encoder, CellProjection) else None)


@dataclass(frozen=True)
class Kernels:
    """Views as correlation kernels.

    Attributes:
        values: (H, k, k, C) float32; weighted unit vectors, zero where not valid, so that a
            correlation is a score in -1..1: mean cosine x sqrt(valid share).
        usable: (H,) bool: at least MIN_VALID_CELLS cells are valid.
    """

    values: Floats
    usable: NDArray[np.bool_]


def weigh(counts: NDArray[np.intp], side: int) -> Floats:
    """(H, 1, 1, 1) what a sum of cosines over `counts` cells is multiplied by to make a score.

    1 / sqrt(n * k^2): the mean cosine times the square root of the view's valid share. The mean
    over few cells is higher by chance (its noise goes with 1 / sqrt(n)); so scaled, scores under
    poses that show more or less ground compare. On real flights without telemetry it raised R@1
    from 73 to 81 (docs/log.md).
    """
    return (1 / np.sqrt(np.maximum(counts, 1) * float(side**2))).astype(np.float32)[
        :, None, None, None
    ]


def make_kernels(views: Sequence[View], encoder: Encoder, normaliser: Normaliser) -> Kernels:
    """Encode views of one size as kernels."""
    masks = np.stack([view.mask for view in views])
    images = fill_invalid(np.stack([view.image for view in views]), masks)
    valid = cell_masks(masks, encoder.stride_px) > 0
    counts = valid.sum(axis=(1, 2))
    values = normaliser.unit(encoder.feature_map(images), valid)
    values *= weigh(counts, views[0].mask.shape[0] // encoder.stride_px)
    return Kernels(values=values, usable=counts >= MIN_VALID_CELLS)


def kernels_of(
    renderer: ViewRenderer,
    poses: Sequence[CameraPose],
    *,
    gsd_m: float,
    encoder: Encoder,
    normaliser: Normaliser,
) -> Kernels:
    """A photo under some poses, as kernels for a map of `gsd_m` metres a pixel."""
    views = [renderer.render(pose, gsd_m=gsd_m, size_px=encoder.input_px) for pose in poses]
    return make_kernels(views, encoder, normaliser)


class DenseMap:
    """One rectangle of one area and level, ready for correlation.

    Args:
        raster: features as the gallery stores them.
        normaliser: of the level.
        kernel: cells along a view's side.

    Attributes:
        area, level: set by the loader.
        cell_m: metres a cell.
        all_channels: whether `everywhere` can use all of them; large maps have COARSE_CHANNELS.
    """

    def __init__(self, raster: FeatureRaster, normaliser: Normaliser, kernel: int) -> None:
        self.kernel = kernel
        self.cell_m = raster.cell_m
        self._pad = kernel // 2
        offset = kernel / 2 - self._pad - 0.5  # cells from the centre of cell (0, 0)
        self.x0_m = raster.x0_m + offset * raster.cell_m
        self.y0_m = raster.y0_m - offset * raster.cell_m
        self._normaliser = normaliser
        # float16 keeps a 100 km2 map in some 170 MB; rows at a time bound the temporary copies
        rim = self._pad + RIM_CELLS
        shape = tuple(n + 2 * rim for n in raster.values.shape[:2])
        self._unit = np.zeros((*shape, normaliser.channels), np.float16)
        inner = self._unit[rim:-rim, rim:-rim]
        for top in range(0, len(inner), 64):
            rows = slice(top, top + 64)
            inner[rows] = normaliser.unit(raster.values[rows], raster.valid[rows])
        self._inner = inner
        cells = inner.shape[0] * inner.shape[1]
        bytes_a_channel = cells * 8 * (64 / (65 - kernel)) ** 2 / 2
        self.all_channels = bytes_a_channel * inner.shape[2] <= FULL_SPECTRA_BYTES

    @cached_property
    def _fine(self) -> SpectralMap:
        return SpectralMap(self._inner, self.kernel)

    @cached_property
    def _basis(self) -> Floats:
        return self._normaliser.basis(self._inner)

    @cached_property
    def _coarse(self) -> SpectralMap:
        channels = min(COARSE_CHANNELS, self._inner.shape[2])
        coarse = np.empty((*self._inner.shape[:2], channels), np.float16)
        for top in range(0, len(coarse), 64):
            rows = slice(top, top + 64)
            coarse[rows] = self._normaliser.coarse(
                self._inner[rows].astype(np.float32), self._basis
            )
        return SpectralMap(coarse, self.kernel)

    @property
    def nbytes(self) -> int:
        """Bytes held, spectra included once they are made."""
        made: list[SpectralMap] = [
            self.__dict__[name] for name in ("_fine", "_coarse") if name in self.__dict__
        ]
        return self._unit.nbytes + sum(spectra.nbytes for spectra in made)

    def prepare(self, *, coarse: bool) -> None:
        """Make the spectra that `everywhere` needs, once; they are kept."""
        _ = self._coarse if coarse or not self.all_channels else self._fine

    def everywhere(self, kernels: Floats, *, coarse: bool = False) -> Floats:
        """(H, rows, columns) float32 match scores.

        Args:
            kernels: (H, k, k, C), see `Kernels`.
            coarse: in COARSE_CHANNELS, three times as fast; large maps know no other way. Scores
                are then approximate, and `around` gives exact ones.
        """
        if self.all_channels and not coarse:
            return self._fine.correlate(kernels)
        counts = (np.abs(kernels).sum(-1) > 0).sum((1, 2))
        values = self._normaliser.coarse(kernels, self._basis) * weigh(counts, self.kernel)
        return self._coarse.correlate(np.asarray(values, np.float32))

    def around(self, kernel: Floats, row: int, column: int, *, reach: int = RIM_CELLS) -> Floats:
        """(2 reach + 1, 2 reach + 1) float32 exact scores in all channels around a surface index.

        Args:
            kernel: (k, k, C), see `Kernels`.
            row, column: in the surface; with a larger reach than RIM_CELLS, any.
            reach: cells to either side; what lies beyond the map is zero.
        """
        side = self.kernel + 2 * reach
        window = np.zeros((side, side, self._unit.shape[2]), np.float32)
        top, left = row + RIM_CELLS - reach, column + RIM_CELLS - reach
        there = self._unit[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
        y, x = max(0, -top), max(0, -left)
        window[y : y + there.shape[0], x : x + there.shape[1]] = there
        return correlate_window(window, kernel)

    def position(self, row: float, column: float) -> tuple[float, float]:
        """Local (x_m, y_m) of a surface index."""
        return self.x0_m + column * self.cell_m, self.y0_m - row * self.cell_m

    def index(self, x_m: float, y_m: float) -> tuple[float, float]:
        """Surface (row, column) of a local position."""
        return (self.y0_m - y_m) / self.cell_m, (x_m - self.x0_m) / self.cell_m

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a surface."""
        odd = self.kernel % 2
        return self._inner.shape[0] + 1 - odd, self._inner.shape[1] + 1 - odd


def subcell(scores: Floats) -> tuple[float, float, float]:
    """(row, column, score) of the peak of a small window, by a parabola on each axis.

    The row and column are relative to the window's first; a peak on the rim stays on its cell.
    """
    row, column = (int(i) for i in np.unravel_index(int(scores.argmax()), scores.shape))
    peak = float(scores[row, column])
    offsets = []
    for line, at in ((scores[:, column], row), (scores[row, :], column)):
        shift = 0.0
        if 0 < at < len(line) - 1:
            before, here, after = (float(v) for v in line[at - 1 : at + 2])
            curvature = before - 2 * here + after
            if curvature < -1e-12:
                shift = max(-0.5, min(0.5, 0.5 * (before - after) / curvature))
        offsets.append(at + shift)
    return offsets[0], offsets[1], peak
