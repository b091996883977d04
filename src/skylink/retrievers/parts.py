"""Which parts of a gallery dense search looks at: all of it, a prior's part, chosen regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skylink.densemap import DenseMap, Normaliser, normaliser_for
from skylink.encoder import Encoder
from skylink.retriever import DENSE_CELLS
from skylink.types import Candidate, Prior

if TYPE_CHECKING:
    from skylink.gallery import Gallery
    from skylink.tiling import Area, Bounds

Part = tuple["Area", DenseMap]


class MapParts:
    """Loads maps for correlation; keeps those of whole areas, with their spectra.

    Args:
        gallery: with a feature raster.
        encoder: the one that built it.
    """

    def __init__(self, gallery: Gallery, encoder: Encoder) -> None:
        self._gallery, self._encoder = gallery, encoder
        self._kernel = encoder.input_px // encoder.stride_px
        self._normalisers: dict[int, Normaliser] = {}
        self._whole: dict[tuple[int, int], DenseMap] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of features and spectra held for whole areas."""
        return sum(dense_map.nbytes for dense_map in self._whole.values())

    def normaliser(self, level: int) -> Normaliser:
        """Of a level, made once."""
        if level not in self._normalisers:
            self._normalisers[level] = normaliser_for(
                self._gallery.statistics(level), self._encoder
            )
        return self._normalisers[level]

    def whole(
        self, level: int, prior: Prior | None, reach_m: float, *, coarse: bool
    ) -> list[Part] | None:
        """Whole areas, or what the prior covers of them; None if one is too large for that.

        Args:
            level: of the gallery.
            prior: where the drone might be.
            reach_m: how far from the drone its view point may be, metres.
            coarse: whether it is to be searched in few channels.
        """
        maps: list[Part] = []
        size, cell = self._gallery.levels[level].tile_m, self._gallery.levels[level].cell_m
        for area in self._gallery.areas:
            bounds: Bounds | None = None
            west, south, east, north = area.bounds
            if prior is not None:
                x, y = (float(v) for v in area.frame.to_xy(lon=prior.lon, lat=prior.lat))
                if not math.isfinite(x + y):
                    continue
                margin = prior.radius_m * 1.001 + reach_m + size
                bounds = (x - margin, y - margin, x + margin, y + margin)
                west, south = max(west, bounds[0]), max(south, bounds[1])
                east, north = min(east, bounds[2]), min(north, bounds[3])
                if west >= east or south >= north:
                    continue
            if (east - west) * (north - south) / cell**2 > DENSE_CELLS:
                return None
            dense_map = self._load(area, level, bounds)
            if dense_map is not None:
                dense_map.prepare(coarse=coarse)
                maps.append((area, dense_map))
        return maps

    def around(self, tiles: Sequence[Candidate], level: int) -> list[Part]:
        """Regions of two tiles' width around some places, overlapping ones merged."""
        half = self._gallery.levels[level].tile_m
        boxes: list[tuple[int, Bounds]] = []
        for c in tiles:
            box = (c.x_m - half, c.y_m - half, c.x_m + half, c.y_m + half)
            met = [b for b in boxes if b[0] == c.area and _overlap(b[1], box)]
            boxes = [b for b in boxes if b not in met]
            joined = list(zip(box, *(b for _, b in met), strict=True))
            box = (min(joined[0]), min(joined[1]), max(joined[2]), max(joined[3]))
            boxes.append((c.area, box))
        maps = [
            (self._gallery.areas[area], self._load(self._gallery.areas[area], level, box))
            for area, box in boxes
        ]
        return [(area, dense_map) for area, dense_map in maps if dense_map is not None]

    def _load(self, area: Area, level: int, bounds: Bounds | None) -> DenseMap | None:
        key = area.index, level
        if bounds is None and key in self._whole:
            return self._whole[key]
        raster = self._gallery.features(area=area.index, level=level, bounds=bounds)
        if raster is None:
            return None
        dense_map = DenseMap(raster, self.normaliser(level), self._kernel)
        if bounds is None:
            self._whole[key] = dense_map
        return dense_map


def _overlap(a: Bounds, b: Bounds) -> bool:
    return a[0] < b[2] and a[2] > b[0] and a[1] < b[3] and a[3] > b[1]
