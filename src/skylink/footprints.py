"""Footprints on the ground: rectangles, and how much of them is shared (IoU)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MAX_CORNERS = 64

FloatArray = NDArray[np.float64]
Polygon = list[tuple[float, float]]


def rectangles(
    x_m: ArrayLike,
    y_m: ArrayLike,
    width_m: ArrayLike,
    height_m: ArrayLike,
    heading_deg: ArrayLike = 0.0,
) -> FloatArray:
    """(N, 4, 2) footprints of rectangles around (x, y), metres; arrays of (N,) or numbers.

    `heading_deg` turns them clockwise from north; 0 are squares as tiles are.
    """
    x, y, width, height, heading = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(v, float)) for v in (x_m, y_m, width_m, height_m, heading_deg))
    )
    right = np.array([-0.5, 0.5, 0.5, -0.5]) * width[:, None]
    ahead = np.array([-0.5, -0.5, 0.5, 0.5]) * height[:, None]
    cos, sin = np.cos(np.radians(heading))[:, None], np.sin(np.radians(heading))[:, None]
    east = x[:, None] + right * cos + ahead * sin
    north = y[:, None] - right * sin + ahead * cos
    return np.stack([east, north], axis=2)


def iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """(N, M) intersection over union of convex polygons (N, V, 2) and (M, W, 2).

    Corners in either direction. Clipped half-plane by half-plane (Sutherland and Hodgman), after a
    look at which boxes meet at all. OpenCV 5.0's `intersectConvexConvex` gives 0 for nested
    rectangles that share parts of edges, as tiles of one grid do.

    Raises:
        ValueError: a polygon has no area, is not convex, crosses itself, or is not (N, 3 to 64, 2).
    """
    one, other = _counter_clockwise(a), _counter_clockwise(b)
    middle = one.mean(axis=(0, 1))  # small numbers lose no digits
    one, other = one - middle, other - middle
    areas, other_areas = _area(one), _area(other)
    gap = np.maximum(
        one.min(axis=1)[:, None] - other.max(axis=1), other.min(axis=1) - one.max(axis=1)[:, None]
    ).max(axis=2)
    out = np.zeros((len(one), len(other)))
    for i, j in np.argwhere(gap < 0):
        shared = _clipped_area(list(map(tuple, one[i].tolist())), other[j].tolist())
        out[i, j] = shared / (areas[i] + other_areas[j] - shared)
    return np.clip(out, 0.0, 1.0)


def _counter_clockwise(polygons: FloatArray) -> FloatArray:
    found = np.asarray(polygons, dtype=np.float64)
    if found.ndim != 3 or found.shape[2] != 2 or not 3 <= found.shape[1] <= _MAX_CORNERS:
        raise ValueError(f"footprints {found.shape} are not (N, 3 to {_MAX_CORNERS}, 2)")
    flipped = _area(found - found[:, :1]) < 0
    found = np.where(flipped[:, None, None], found[:, ::-1], found)
    edges = np.roll(found, -1, axis=1) - found
    after = np.roll(edges, -1, axis=1)
    turn = np.arctan2(
        edges[..., 0] * after[..., 1] - edges[..., 1] * after[..., 0], (edges * after).sum(axis=2)
    )
    # a convex ring never turns right and turns once around; a star turns twice
    convex = (turn > -1e-6).all(axis=1) & (np.abs(turn.sum(axis=1) - 2 * math.pi) < 1e-3)
    wrong = ~convex | (_area(found - found[:, :1]) <= 0)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"footprint {at + 1} is not a convex polygon with an area")
    return found


def _area(polygons: FloatArray) -> FloatArray:
    """(N,) signed areas of (N, V, 2), positive counter-clockwise."""
    x, y = polygons[..., 0], polygons[..., 1]
    cross = x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)
    return np.asarray(cross.sum(axis=1) / 2, dtype=np.float64)


def _clipped_area(polygon: Polygon, window: list[list[float]]) -> float:
    """Area of a polygon within a counter-clockwise convex window."""
    for (ax, ay), (bx, by) in zip(window, [*window[1:], window[0]], strict=True):
        kept: Polygon = []
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in polygon]
        for k, (x, y) in enumerate(polygon):
            before, side = sides[k - 1], sides[k]
            if (before < 0) != (side < 0):
                share = before / (before - side)
                px, py = polygon[k - 1]
                kept.append((px + share * (x - px), py + share * (y - py)))
            if side >= 0:
                kept.append((x, y))
        polygon = kept
    pairs = zip(polygon, [*polygon[1:], *polygon[:1]], strict=True)
    return max(0.0, sum(x * v - u * y for (x, y), (u, v) in pairs) / 2)
