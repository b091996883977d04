"""Pictures of the map at any place, scale and heading, put together from stored chunks."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.tiling import Grid

CACHED = 24

Picture = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""(H, W, 3) RGB and (H, W) validity."""


class MapPictures:
    """Composes and turns chunk pictures; keeps the last ones decoded. Safe from several threads.

    Args:
        load: (area, level, chunk row, chunk col) -> the chunk's picture, or None.
    """

    def __init__(self, load: Callable[[int, int, int, int], Picture | None]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int, int, int, int], Picture | None] = OrderedDict()

    def view(
        self, grid: Grid, *, x_m: float, y_m: float, size_px: int, gsd_m: float, heading_deg: float
    ) -> Picture:
        """See `Gallery.picture`."""
        own = grid.level.gsd_m
        shrink = max(1, round(gsd_m / own))
        while grid.chunk_px % shrink:
            shrink -= 1
        step, side = own * shrink, grid.chunk_px // shrink
        angle = math.radians(heading_deg)
        cos, sin = math.cos(angle) * gsd_m, math.sin(angle) * gsd_m
        x_min, _, _, y_max = grid.area.bounds
        middle = (size_px - 1) / 2
        # result pixel (u, v) -> stored pixel (col, row) counted from the area's corner
        matrix = np.array([[cos, -sin, x_m - x_min], [sin, cos, y_max - y_m]]) / step
        matrix[:, 2] -= matrix[:, :2] @ [middle, middle] + 0.5
        corners = matrix @ np.array(
            [[0, size_px, 0, size_px], [0, 0, size_px, size_px], [1, 1, 1, 1]]
        )
        # only what the area has: a view far outside it needs no canvas
        rows, cols = grid.chunk_shape
        low = np.clip(np.floor(corners.min(axis=1)) - 2, 0, [cols * side, rows * side]).astype(int)
        high = np.clip(np.ceil(corners.max(axis=1)) + 2, 0, [cols * side, rows * side]).astype(int)
        rgb = np.zeros((size_px, size_px, 3), dtype=np.uint8)
        if (high <= low).any():
            return rgb, np.zeros((size_px, size_px), dtype=bool)
        canvas = np.zeros((high[1] - low[1], high[0] - low[0], 3), dtype=np.uint8)
        known = np.zeros(canvas.shape[:2], dtype=np.uint8)
        for row in range(low[1] // side, (high[1] - 1) // side + 1):
            for col in range(low[0] // side, (high[0] - 1) // side + 1):
                piece = self._chunk(grid, row, col, shrink)
                if piece is None:
                    continue
                y, x = row * side - low[1], col * side - low[0]
                y0, x0 = max(0, y), max(0, x)
                y1, x1 = min(y + side, canvas.shape[0]), min(x + side, canvas.shape[1])
                canvas[y0:y1, x0:x1] = piece[0][y0 - y : y1 - y, x0 - x : x1 - x]
                known[y0:y1, x0:x1] = piece[1][y0 - y : y1 - y, x0 - x : x1 - x] * np.uint8(255)
        matrix[:, 2] -= low
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        rgb = np.asarray(cv2.warpAffine(canvas, matrix, (size_px, size_px), flags=flags), np.uint8)
        valid = np.asarray(cv2.warpAffine(known, matrix, (size_px, size_px), flags=flags)) >= 128
        rgb[~valid] = 0
        return rgb, valid

    def _chunk(self, grid: Grid, row: int, col: int, shrink: int) -> Picture | None:
        """One chunk's picture, reduced by area averaging."""
        place = (grid.area.index, grid.level.index, row, col)
        with self._lock:
            if (*place, shrink) in self._kept:
                self._kept.move_to_end((*place, shrink))
                return self._kept[*place, shrink]
        found = self._load(*place)
        if found is not None and shrink > 1:
            size = (grid.chunk_px // shrink, grid.chunk_px // shrink)
            share = found[1].astype(np.uint8) * np.uint8(255)
            found = (
                np.asarray(cv2.resize(found[0], size, interpolation=cv2.INTER_AREA), np.uint8),
                np.asarray(cv2.resize(share, size, interpolation=cv2.INTER_AREA)) >= 128,
            )
        with self._lock:
            self._kept[*place, shrink] = found
            if len(self._kept) > CACHED:
                self._kept.popitem(last=False)
        return found
