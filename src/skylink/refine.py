"""Where within a tile a photo was taken: dense correlation around it, under poses near the tile's.

Descriptors and re-rankers choose a tile, whose centre is up to half a stride off on each axis. The
photo's feature map is correlated with the map's over that reach, at the altitudes that relief may
ask for, and poses are tried around the best: metres off, at the cost of some ten views, however
large the map is. Nothing farther from the centre than the next tiles' centres and a cell is an
answer: that would be a place of tiles that were ranked lower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from skylink.camera import ViewRenderer
from skylink.densemap import RIM_CELLS, Kernels, kernels_of
from skylink.encoder import Encoder
from skylink.hypotheses import RELIEF_FACTORS, SearchSpace, hypotheses
from skylink.retrievers.climb import climb
from skylink.retrievers.parts import MapParts
from skylink.retrievers.peaks import Peak, local_peak
from skylink.types import CameraPose, Candidate, Prior, Query

if TYPE_CHECKING:
    from skylink.gallery import Gallery


class Refiner:
    """See the module.

    Args:
        gallery: with a feature raster.
        encoder: the one that built it.
        space: how far telemetry may be off.
    """

    def __init__(self, gallery: Gallery, encoder: Encoder, space: SearchSpace) -> None:
        self._gallery, self._encoder, self._space = gallery, encoder, space
        self._parts = MapParts(gallery, encoder)

    def refine(self, query: Query, tile: Candidate, prior: Prior | None = None) -> Candidate | None:
        """The tile, its place and pose refined; its score and id stay.

        None where nothing can be compared: the tile has no pose, the photo shows too little ground
        under it, the map is empty there, or what fits best under each pose lies outside the prior.

        Args:
            query: the photo.
            tile: a candidate of descriptor search, under the pose that matched it.
            prior: where the drone might be.
        """
        pose = tile.pose
        maps = self._parts.around([tile], tile.level) if pose is not None else []
        if pose is None or not maps:
            return None
        area, dense_map = maps[0]
        level = self._gallery.levels[tile.level]
        renderer = ViewRenderer(query.image)

        def kernels(poses: Sequence[CameraPose]) -> Kernels:
            return kernels_of(
                renderer, poses, gsd_m=level.gsd_m, encoder=self._encoder,
                normaliser=self._parts.normaliser(tile.level),
            )  # fmt: skip

        def allowed(peak: Peak) -> bool:
            x, y = peak.position
            near = max(abs(x - tile.x_m), abs(y - tile.y_m)) <= level.stride_m + level.cell_m
            return near and (prior is None or peak.drone_within(prior, area.frame))

        row, column = (round(index) for index in dense_map.index(tile.x_m, tile.y_m))
        reach = max(RIM_CELLS, math.ceil(level.stride_m / 2 / level.cell_m))
        poses = [replace(pose, altitude_m=pose.altitude_m * f) for f in RELIEF_FACTORS]
        made = kernels(poses)
        peaks = []
        for each, kernel, usable in zip(poses, made.values, made.usable, strict=True):
            if usable:
                peak = local_peak(dense_map, area.index, kernel, each, row, column, reach=reach)
                moved = peak.moved(kernel, each)  # on the reach's rim it is placed to a cell only
                peaks.append(moved if allowed(moved) else peak)
        peaks = [peak for peak in peaks if peak.score > 0 and allowed(peak)]
        if not peaks:
            return None
        best = max(peaks, key=lambda peak: peak.score)
        around = hypotheses(query.telemetry, self._space, tile_m=level.tile_m, relief=False)
        found = climb([best], kernels, around, separation_m=0.0, allowed=allowed)[0]
        x, y = found.position
        lon, lat = area.frame.point(x_m=x, y_m=y)
        return replace(tile, lon=lon, lat=lat, x_m=x, y_m=y, pose=found.pose)
