"""Peaks of a correlation surface: places with a pose, scored exactly and set apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.densemap import RIM_CELLS, DenseMap, subcell
from skylink.geo import LocalFrame, distance_m
from skylink.types import CameraPose, Prior

CELLS_A_PEAK = 1000
"""After a pass in few channels one place for so many cells of the map, PEAKS at least, is scored in
all channels at its own cell: chance peaks grow with the map. On 100 km2 R@1 rose from 87 to 88
with all telemetry, and from 72 to 75 without a heading (docs/log.md)."""

PEAKS = 48
"""Places of the whole-map pass that are scored again in all channels, at least."""

EXACT_PEAKS = 20
"""The same where the whole-map pass had all channels already: only the sub-cell place is open."""

PEAKS_A_CANDIDATE = 2
"""Of the places, this many for each candidate asked for: some lie too near a better one."""


@dataclass(frozen=True)
class Peak:
    """A place and pose with its exact score; row and column are of the map's surface."""

    score: float
    row: float
    column: float
    pose: CameraPose
    dense_map: DenseMap
    area: int

    @property
    def position(self) -> tuple[float, float]:
        """Local (x_m, y_m) of the view point."""
        return self.dense_map.position(self.row, self.column)

    def drone_within(self, prior: Prior, frame: LocalFrame) -> bool:
        """Whether the drone would be within the prior (geodesic), to a cell.

        Args:
            prior: where it might be.
            frame: the area's.
        """
        x, y = self.position
        east, north = self.pose.offset_m
        lon, lat = frame.point(x_m=x - east, y_m=y - north)
        away = distance_m(lon1=lon, lat1=lat, lon2=prior.lon, lat2=prior.lat)
        return float(away) <= max(prior.radius_m, self.dense_map.cell_m)

    def moved(self, kernel: NDArray[np.float32], pose: CameraPose) -> Peak:
        """The best place within two cells of this one for another kernel."""
        rows, columns = self.dense_map.shape
        row = min(max(round(self.row), 0), rows - 1)
        column = min(max(round(self.column), 0), columns - 1)
        return local_peak(self.dense_map, self.area, kernel, pose, row, column)


def local_peak(
    dense_map: DenseMap,
    area: int,
    kernel: NDArray[np.float32],
    pose: CameraPose,
    row: int,
    column: int,
    *,
    reach: int = RIM_CELLS,
) -> Peak:
    """The exact best place within `reach` cells of a surface index."""
    r, c, score = subcell(dense_map.around(kernel, row, column, reach=reach))
    return Peak(score, row + r - reach, column + c - reach, pose, dense_map, area)


def find_peaks(
    dense_map: DenseMap,
    area: int,
    best: NDArray[np.float32],
    argbest: NDArray[np.int32],
    kernels: NDArray[np.float32],
    poses: Sequence[CameraPose],
    *,
    separation_m: float,
    k: int,
    exact: bool,
) -> list[Peak]:
    """The highest local maxima of a surface, scored in all channels and placed within the cell.

    Args:
        best, argbest: (rows, columns) the best score over hypotheses, and whose it is.
        kernels, poses: of the hypotheses.
        separation_m: maxima are sought within half of this.
        k: how many candidates are asked for.
        exact: whether the scores are of all channels already.
    """
    radius = max(1, round(separation_m / 2 / dense_map.cell_m))
    highest = cv2.dilate(best, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8))
    rows, columns = np.nonzero((best >= highest) & np.isfinite(best))
    count = max(EXACT_PEAKS if exact else PEAKS, PEAKS_A_CANDIDATE * k)
    first = count if exact else max(count, best.size // CELLS_A_PEAK)
    order = np.argsort(-best[rows, columns], kind="stable")[:first]
    if first > count:
        scores = [
            dense_map.around(kernels[argbest[row, column]], row, column, reach=0)[0, 0]
            for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
        ]
        order = order[np.argsort(-np.array(scores), kind="stable")[:count]]
    return [
        local_peak(dense_map, area, kernels[index], poses[index], int(row), int(column))
        for row, column in zip(rows[order], columns[order], strict=True)
        for index in [int(argbest[row, column])]
    ]


def separate(peaks: Sequence[Peak], *, separation_m: float) -> list[Peak]:
    """Best first; a peak too near a better one is dropped (greedy non-maximum suppression)."""
    kept: list[tuple[int, float, float]] = []
    chosen = []
    for peak in sorted(peaks, key=lambda p: -p.score):
        x, y = peak.position
        if all(a != peak.area or math.hypot(x - u, y - v) >= separation_m for a, u, v in kept):
            kept.append((peak.area, x, y))
            chosen.append(peak)
    return chosen
