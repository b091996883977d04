"""Where the pixels of a map lie: affine, projective or polynomial, in the map's own CRS.

Pixel coordinates here count from the outer corner of the first pixel (its centre is at 0.5, 0.5),
as GDAL's geotransforms do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class PixelTransform(Protocol):
    """Both ways between pixel coordinates and CRS coordinates."""

    def to_crs(self, cols: ArrayLike, rows: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """(x, y) in the CRS's units of pixel coordinates."""

    def to_pixel(self, xs: ArrayLike, ys: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """(col, row) of CRS coordinates; any float, also outside the image."""

    def signature(self) -> str:
        """The numbers as text: part of what identifies a map."""


@dataclass(frozen=True)
class Projective:
    """An affine or projective relation: `matrix` maps (col, row, 1) to (x - x0, y - y0, w)."""

    matrix: FloatArray
    x0: float
    y0: float

    def to_crs(self, cols: ArrayLike, rows: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """(x, y) in the CRS's units of pixel coordinates."""
        x, y = _apply(self.matrix, cols, rows)
        return x + self.x0, y + self.y0

    def to_pixel(self, xs: ArrayLike, ys: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """(col, row) of CRS coordinates."""
        inverse = np.asarray(np.linalg.inv(self.matrix), dtype=np.float64)
        x, y = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
        return _apply(inverse, x - self.x0, y - self.y0)

    def signature(self) -> str:
        """The numbers as text."""
        return repr((self.matrix.tolist(), self.x0, self.y0))


@dataclass(frozen=True)
class Polynomial:
    """A least-squares polynomial through ground control points, fitted in both directions."""

    order: int
    forward: FloatArray
    backward: FloatArray
    pixel_scale: FloatArray
    crs_scale: FloatArray

    def to_crs(self, cols: ArrayLike, rows: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """(x, y) in the CRS's units of pixel coordinates."""
        return self._evaluate(cols, rows, self.forward, self.pixel_scale, self.crs_scale)

    def to_pixel(self, xs: ArrayLike, ys: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """(col, row) of CRS coordinates."""
        return self._evaluate(xs, ys, self.backward, self.crs_scale, self.pixel_scale)

    def _evaluate(
        self, a: ArrayLike, b: ArrayLike, terms: FloatArray, scale_in: FloatArray, out: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        u = (np.asarray(a, dtype=np.float64) - scale_in[0]) / scale_in[2]
        v = (np.asarray(b, dtype=np.float64) - scale_in[1]) / scale_in[2]
        with np.errstate(invalid="ignore", over="ignore"):
            both = _terms(u, v, self.order) @ terms
        return both[..., 0] * out[2] + out[0], both[..., 1] * out[2] + out[1]

    def signature(self) -> str:
        """The numbers as text."""
        numbers = (self.forward, self.pixel_scale, self.crs_scale)
        return repr([self.order, *(n.tolist() for n in numbers)])


def affine(coefficients: tuple[float, float, float, float, float, float]) -> Projective:
    """From a geotransform as rasterio has it: x = a col + b row + c, y = d col + e row + f.

    Raises:
        ValueError: the pixels have no area.
    """
    a, b, c, d, e, f = coefficients
    if not np.all(np.isfinite(coefficients)) or abs(a * e - b * d) < 1e-300:
        raise ValueError("its pixels have no area")
    return Projective(np.array([[a, b, 0.0], [d, e, 0.0], [0.0, 0.0, 1.0]]), c, f)


def from_points(
    *, cols: ArrayLike, rows: ArrayLike, xs: ArrayLike, ys: ArrayLike
) -> PixelTransform:
    """Through ground control points: 3 affine, 4 projective (exact), 6 and more quadratic.

    Raises:
        ValueError: fewer than three points, or points on one line.
    """
    pixel = np.stack([np.asarray(cols, float), np.asarray(rows, float)], axis=1)
    world = np.stack([np.asarray(xs, float), np.asarray(ys, float)], axis=1)
    if len(pixel) < 3:
        raise ValueError(f"{len(pixel)} control points: at least three are needed")
    pixel_scale, world_scale = _scale(pixel), _scale(world)
    p = (pixel - pixel_scale[:2]) / pixel_scale[2]
    w = (world - world_scale[:2]) / world_scale[2]
    for points in (p, w):
        if np.linalg.matrix_rank(points - points.mean(axis=0), tol=1e-6) < 2:
            raise ValueError("its control points or corners lie on one line")
    if len(pixel) == 4:
        matrix = _homography(p, w)
        if matrix is not None:
            to_unit = np.array(
                [[1, 0, -pixel_scale[0]], [0, 1, -pixel_scale[1]], [0, 0, pixel_scale[2]]]
            )
            back = np.diag([world_scale[2], world_scale[2], 1.0])
            return Projective(back @ matrix @ to_unit, world_scale[0], world_scale[1])
    order = 2 if len(pixel) >= 6 else 1
    if order == 2 and np.linalg.matrix_rank(_terms(p[:, 0], p[:, 1], 2), tol=1e-6) < 6:
        order = 1
    forward = np.linalg.lstsq(_terms(p[:, 0], p[:, 1], order), w, rcond=None)[0]
    backward = np.linalg.lstsq(_terms(w[:, 0], w[:, 1], order), p, rcond=None)[0]
    return Polynomial(order, forward, backward, pixel_scale, world_scale)


def _apply(matrix: FloatArray, a: ArrayLike, b: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """A 3 x 3 matrix on points of any one shape; not finite behind the horizon of the matrix."""
    u, v = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    m = matrix
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = m[0, 0] * u + m[0, 1] * v + m[0, 2], m[1, 0] * u + m[1, 1] * v + m[1, 2]
        if m[2, 0] == 0 and m[2, 1] == 0:
            return x / m[2, 2], y / m[2, 2]
        depth = m[2, 0] * u + m[2, 1] * v + m[2, 2]
        depth = np.where(depth * m[2, 2] > 0, depth, np.nan)
        return x / depth, y / depth


def _scale(points: FloatArray) -> FloatArray:
    """(centre x, centre y, half extent): numbers near one for the fits."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = float((high - low).max()) / 2
    if not np.isfinite(extent) or extent == 0:
        raise ValueError("its control points or corners are all at one place")
    return np.array([*(low + high) / 2, extent])


def _terms(u: FloatArray, v: FloatArray, order: int) -> FloatArray:
    """Monomials (..., 3) or (..., 6)."""
    columns = [np.ones_like(u), u, v]
    if order == 2:
        columns += [u * u, u * v, v * v]
    return np.stack(columns, axis=-1)


def _homography(p: FloatArray, w: FloatArray) -> FloatArray | None:
    """The exact projective map of four points, or None where three lie on one line."""
    rows = []
    for (u, v), (x, y) in zip(p, w, strict=True):
        rows.append([u, v, 1, 0, 0, 0, -u * x, -v * x])
        rows.append([0, 0, 0, u, v, 1, -u * y, -v * y])
    system = np.array(rows)
    if np.linalg.cond(system) > 1e10:
        return None
    matrix = np.append(np.linalg.solve(system, w.reshape(-1)), 1.0).reshape(3, 3)
    depths = p @ matrix[2, :2] + 1
    return matrix if depths.min() > 1e-6 else None
