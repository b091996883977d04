"""Re-rank by masked dense correlation: the photo's feature map against each candidate's place.

The score is the highest match score over shifts of up to half a stride: farther ones are another
tile's (with up to a quarter of a tile, R@1 fell from 74 to 68 on real flights). With no learning
and some milliseconds a candidate, it is what any learnt re-ranker has to beat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skylink.camera import ViewRenderer
from skylink.correlation import correlate_window
from skylink.densemap import Normaliser, kernels_of, normaliser_for
from skylink.encoder import Encoder
from skylink.errors import RerankError
from skylink.types import CameraPose, Candidate, Query

if TYPE_CHECKING:
    from skylink.gallery import Gallery


class DenseReranker:
    """See the module.

    Args:
        gallery: with a feature raster.
        encoder: the one that built it.
    """

    name = "dense"

    def __init__(self, gallery: Gallery, encoder: Encoder) -> None:
        self._gallery, self._encoder = gallery, encoder
        self._normalisers: dict[int, Normaliser] = {}

    def score(self, query: Query, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        """See `Reranker.score`; each candidate under its own pose."""
        renderer = ViewRenderer(query.image)
        kernels: dict[tuple[CameraPose, int], NDArray[np.float32]] = {}
        return np.array([self._score(renderer, c, kernels) for c in candidates], np.float32)

    def _score(
        self,
        renderer: ViewRenderer,
        candidate: Candidate,
        kernels: dict[tuple[CameraPose, int], NDArray[np.float32]],
    ) -> float:
        if candidate.pose is None:
            raise RerankError("a candidate has no camera pose to align the photo with")
        level = self._gallery.levels[candidate.level]
        if candidate.level not in self._normalisers:
            self._normalisers[candidate.level] = normaliser_for(
                self._gallery.statistics(candidate.level), self._encoder
            )
        normaliser = self._normalisers[candidate.level]
        key = (candidate.pose, candidate.level)
        if key not in kernels:
            kernels[key] = kernels_of(
                renderer, [candidate.pose], gsd_m=level.gsd_m, encoder=self._encoder,
                normaliser=normaliser,
            ).values[0]  # fmt: skip
        kernel = kernels[key]
        reach = kernel.shape[0] * level.cell_m / 2 + level.stride_m / 2
        x, y = candidate.x_m, candidate.y_m
        raster = self._gallery.features(
            area=candidate.area,
            level=candidate.level,
            bounds=(x - reach, y - reach, x + reach, y + reach),
        )
        if raster is None:
            raise RerankError(f"candidate {candidate.id} has no features")
        unit = normaliser.unit(raster.values, raster.valid)
        west, south, east, north = raster.bounds
        missing = (  # cells beyond the map's edge: nothing matches there
            (y + reach - north, south - (y - reach)), (west - (x - reach), x + reach - east)
        )  # fmt: skip
        pads = [[max(0, math.ceil(m / level.cell_m)) for m in axis] for axis in missing]
        if any(map(any, pads)):
            unit = np.pad(unit, [*pads, [0, 0]])
        return float(correlate_window(unit, kernel).max())
