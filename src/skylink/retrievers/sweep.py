"""One map under many poses: the best score at each place, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skylink.densemap import DenseMap, Kernels
from skylink.tiling import Area
from skylink.types import CameraPose, Prior, Surface


class Sweep:
    """Keeps, for each place of a map, the best score so far and whose it was.

    Args:
        dense_map: what is searched.
        area: the part of the gallery that it is of.
        prior: nothing outside of it is considered.
        coarse: search in few channels; large maps know no other way.

    Attributes:
        best: (rows, columns) float32 score; -inf where nothing was compared.
        argbest: (rows, columns) int32 index of the pose.
        exact: whether the scores are those of all channels.
    """

    def __init__(
        self, dense_map: DenseMap, area: Area, prior: Prior | None, *, coarse: bool
    ) -> None:
        self.dense_map, self.area = dense_map, area
        self.best = np.full(dense_map.shape, -np.inf, np.float32)
        self.argbest = np.zeros(dense_map.shape, np.int32)
        self.exact = dense_map.all_channels and not coarse
        self._coarse = coarse
        self._away: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        if prior is not None:
            px, py = (float(v) for v in area.frame.to_xy(lon=prior.lon, lat=prior.lat))
            rows, columns = (np.arange(n, dtype=np.float64) for n in dense_map.shape)
            x = dense_map.x0_m + dense_map.cell_m * columns
            y = dense_map.y0_m - dense_map.cell_m * rows
            self._away = x - px, y[:, None] - py
            self._radius_m = max(prior.radius_m, dense_map.cell_m)  # no finer than the cells

    def add(self, kernels: Kernels, poses: Sequence[CameraPose], first: int) -> None:
        """Compare one batch of kernels everywhere.

        Args:
            kernels, poses: of the batch.
            first: index of the batch's first pose among all.
        """
        usable = np.flatnonzero(kernels.usable)
        if not len(usable):
            return
        surfaces = self.dense_map.everywhere(kernels.values[usable], coarse=self._coarse)
        for at, scores in zip(usable.tolist(), surfaces, strict=True):
            if self._away is not None:  # the prior is about the drone itself
                east, north = poses[at].offset_m
                away = np.hypot(self._away[0] - east, self._away[1] - north)
                scores = np.where(away <= self._radius_m, scores, -np.inf)
            better = scores > self.best
            self.best[better] = scores[better]
            self.argbest[better] = first + at

    @property
    def surface(self) -> Surface:
        """For the evidence picture."""
        dense_map = self.dense_map
        return Surface(
            score=self.best, x0_m=dense_map.x0_m, y0_m=dense_map.y0_m, cell_m=dense_map.cell_m,
            frame=self.area.frame, area=self.area.index,
        )  # fmt: skip
