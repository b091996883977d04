"""A large map cut into overlapping tiles, without reading it: which tile is where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skylink.datasets.task import Item, Rows
from skylink.errors import DatasetError
from skylink.geo import distance_m

MAX_TILES = 200_000
MIN_TILE_PX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPart:
    """One map file, linear in longitude and latitude, and its grid of tiles.

    Attributes:
        file: its path in the dataset.
        size: (width, height) in pixels.
        edges: west, north, east and south edge, WGS 84 degrees.
        tile: (width, height) of a tile, pixels.
        cols, rows: left and top pixels of the tiles, ascending.
        first: gallery row of its first tile; the others follow row by row.
    """

    file: str
    size: tuple[int, int]
    edges: tuple[float, float, float, float]
    tile: tuple[int, int]
    cols: tuple[int, ...]
    rows: tuple[int, ...]
    first: int

    def pixel(self, *, lon: float, lat: float) -> tuple[float, float]:
        """(column, row) of a point, from the outer edge of the first pixel."""
        west, north, east, south = self.edges
        x = (lon - west) / (east - west) * self.size[0]
        return x, (north - lat) / (north - south) * self.size[1]

    def tiles(self, root: Path) -> list[Item]:
        """The tiles as gallery items: windows of the file, placed at their centres."""
        west, north, east, south = self.edges
        width, height = self.tile
        found: list[Item] = []
        for row, top in enumerate(self.rows):
            lat = north - (top + height / 2) / self.size[1] * (north - south)
            for col, left in enumerate(self.cols):
                found.append(
                    Item(
                        id=f"{self.file}#{row:03d}-{col:03d}",
                        path=root / self.file,
                        lon=west + (left + width / 2) / self.size[0] * (east - west),
                        lat=lat,
                        window=(left, top, width, height),
                    )
                )
        return found

    def rows_at(self, *, lon: float, lat: float) -> tuple[int, Rows] | None:
        """(gallery row of the tile with the nearest centre, those of the others that contain the
        point, ascending); None outside the map."""
        hits: list[list[int]] = []
        best: list[int] = []
        at = self.pixel(lon=lon, lat=lat)
        for value, size, side, starts in zip(
            at, self.size, self.tile, (self.cols, self.rows), strict=True
        ):
            if not 0 <= value <= size:
                return None
            over = [i for i, start in enumerate(starts) if start <= value <= start + side]
            hits.append(over)
            best.append(min(over, key=lambda i: abs(starts[i] + side / 2 - value)))
        nearest = self.first + best[1] * len(self.cols) + best[0]
        others = (self.first + row * len(self.cols) + col for row in hits[1] for col in hits[0])
        return nearest, tuple(index for index in others if index != nearest)


def cut_map(
    file: str,
    *,
    size: tuple[int, int],
    edges: tuple[float, float, float, float],
    tile_m: float,
    stride_m: float,
    first: int,
) -> MapPart:
    """Tiles of `tile_m` metres at most `stride_m` apart, evenly spread so that they reach every
    edge; the ground is metres on the ellipsoid along the middle of the map.

    Raises:
        DatasetError: the map is too large for so small tiles.
    """
    west, north, east, south = edges
    middle = (north + south) / 2
    across = float(distance_m(lon1=west, lat1=middle, lon2=east, lat2=middle))
    down = float(distance_m(lon1=west, lat1=north, lon2=west, lat2=south))
    sides: list[int] = []
    starts: list[tuple[int, ...]] = []
    for pixels, metres in zip(size, (across, down), strict=True):
        side = min(pixels, round(tile_m * pixels / metres))
        steps = math.ceil((pixels - side) * metres / (stride_m * pixels))
        if side < MIN_TILE_PX or steps > MAX_TILES:
            break
        sides.append(side)
        starts.append(tuple(np.linspace(0, pixels - side, steps + 1).round().astype(int).tolist()))
    if len(starts) < 2 or len(starts[0]) * len(starts[1]) > MAX_TILES:
        raise DatasetError(
            f"{file} covers {across / 1000:.0f} x {down / 1000:.0f} km: too large to be cut into "
            f"tiles of {tile_m:g} m",
            hint="its corners are not as published: unpack the dataset again",
        )
    return MapPart(
        file=file,
        size=size,
        edges=edges,
        tile=(sides[0], sides[1]),
        cols=starts[0],
        rows=starts[1],
        first=first,
    )
