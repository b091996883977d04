"""Where cells lie, noise in metres and rotated rectangles: the town's drawing tools."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Rng = np.random.Generator
Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Patch:
    """A window of the grid seen from a rotated rectangle.

    Attributes:
        window: index of the window into (n, n[, ...]) arrays.
        u, v: float32 metres along and across the rectangle from its centre, a cell each.
    """

    window: tuple[slice, slice]
    u: F32
    v: F32


@dataclass(frozen=True, slots=True)
class Grid:
    """A square of n x n cells around the frame's origin, row 0 in the north.

    Attributes:
        n: cells a side.
        cell_m: metres a cell.
    """

    n: int
    cell_m: float

    @property
    def size_m(self) -> float:
        """The side of the square, metres."""
        return self.n * self.cell_m

    def coarse(self, cell_m: float) -> Grid:
        """The same square in cells of about `cell_m` (never finer than this grid's)."""
        n = max(2, round(self.size_m / max(cell_m, self.cell_m)))
        return Grid(n, self.size_m / n)

    def axes(self) -> tuple[F32, F32]:
        """(n,) x of columns and (n,) y of rows: metres of the cells' centres, float32."""
        return _axes(self.n, self.cell_m)

    def cells(self, x_m: ArrayLike, y_m: ArrayLike) -> tuple[F32, F32]:
        """Fractional (column, row) of points; whole numbers are centres of cells."""
        half = self.size_m / 2
        x, y = np.asarray(x_m, np.float64), np.asarray(y_m, np.float64)
        column = ((x + half) / self.cell_m - 0.5).astype(np.float32)
        return column, ((half - y) / self.cell_m - 0.5).astype(np.float32)

    def at(self, x_m: ArrayLike, y_m: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Index (row, column) of the nearest cells, clamped to the square."""
        column, row = self.cells(x_m, y_m)
        last = self.n - 1
        return (
            np.clip(np.rint(row), 0, last).astype(np.intp),
            np.clip(np.rint(column), 0, last).astype(np.intp),
        )

    def patch(self, x: float, y: float, w: float, d: float, angle: float) -> Patch | None:
        """The window around a rectangle w x d metres whose long axis points `angle` radians."""
        c, s = math.cos(angle), math.sin(angle)
        half_x = (abs(c) * w + abs(s) * d) / 2 + self.cell_m
        half_y = (abs(s) * w + abs(c) * d) / 2 + self.cell_m
        half = self.size_m / 2
        c0 = max(0, int((x - half_x + half) / self.cell_m))
        c1 = min(self.n, int((x + half_x + half) / self.cell_m) + 1)
        r0 = max(0, int((half - y - half_y) / self.cell_m))
        r1 = min(self.n, int((half - y + half_y) / self.cell_m) + 1)
        if c0 >= c1 or r0 >= r1:
            return None
        xs, ys = _axes(self.n, self.cell_m)
        dx, dy = xs[None, c0:c1] - np.float32(x), ys[r0:r1, None] - np.float32(y)
        cos, sin = np.float32(c), np.float32(s)
        return Patch((slice(r0, r1), slice(c0, c1)), dx * cos + dy * sin, dy * cos - dx * sin)

    def draw(self, mask: U8, points: NDArray[np.float64], width_m: float) -> None:
        """Draw an anti-aliased polyline of (N, 2) points in metres into an (n, n) mask."""
        column, row = self.cells(points[:, 0], points[:, 1])
        fixed = np.rint(np.stack([column, row], axis=1) * 16).astype(np.int32)
        thickness = max(1, round(width_m / self.cell_m))
        cv2.polylines(mask, [fixed[:, None, :]], False, 255, thickness, cv2.LINE_AA, 4)


@functools.lru_cache(maxsize=8)
def _axes(n: int, cell_m: float) -> tuple[F32, F32]:
    along = (np.arange(n, dtype=np.float64) + 0.5 - n / 2) * cell_m
    x, y = along.astype(np.float32), (-along).astype(np.float32)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def resized(field: F32, n: int, *, smooth: bool = True) -> F32:
    """An (m, m[, k]) field over the same square in n x n cells."""
    how = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(field, (n, n), interpolation=how), dtype=np.float32)


def fractal(rng: Rng, grid: Grid, scale_m: float, octaves: int = 3, gain: float = 0.5) -> F32:
    """(n, n) float32 noise: patches of about `scale_m` and ever finer, mean 0, spread about 1."""
    total = np.zeros((grid.n, grid.n), dtype=np.float32)
    power, amplitude = 0.0, 1.0
    for octave in range(octaves):
        k = min(grid.n, max(3, round(grid.size_m * 2**octave / scale_m)))
        values = rng.standard_normal((k, k), dtype=np.float32)
        if k < grid.n:
            values = np.asarray(
                cv2.resize(values, (grid.n, grid.n), interpolation=cv2.INTER_CUBIC), np.float32
            )
        total += np.float32(amplitude) * values
        power += amplitude**2
        amplitude *= gain
    return total / np.float32(math.sqrt(power) * 0.75)


def blend(colour: F32, alpha: F32, value: Colour | F32) -> None:
    """Mix `value` into an (h, w, 3) picture in place by an (h, w) alpha in 0..1."""
    paint = np.asarray(value, dtype=np.float32)
    if not colour.flags.c_contiguous:  # a window: small
        colour += alpha[..., None] * (paint - colour)
        return
    flat = colour.reshape(-1, 3)
    share = alpha.ravel()
    at = np.flatnonzero(share > 0)
    old = flat[at]
    new = paint if paint.ndim == 1 else paint.reshape(-1, 3)[at]
    flat[at] = old + share[at, None] * (new - old)
