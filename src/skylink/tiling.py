"""The grid: areas of connected maps, levels of scale, chunks of cells, positions of tiles.

Everything is counted in whole pixels of a level from the area's north-west corner, so that every
tile belongs to exactly one chunk and chunks join without seams.

    area    one local metric frame; (x_min, y_max) is the corner that all is counted from
    level   tile_m, stride_m and the ground sample distance that a tile has in encoder pixels
    cell    stride_px x stride_px pixels: one vector of the feature map
    chunk   64 x 64 cells, read with a halo so that the tiles centred in it come from one read
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from skylink.errors import MapError
from skylink.geo import EARTH_RADIUS_M, LocalFrame, centre_lonlat, rough_xy
from skylink.mapsource import MAX_SPAN_M, MapSource

CHUNK_CELLS = 64
HALO_CELLS = 8
JOIN_M = 500.0

FloatArray = NDArray[np.float64]
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Area:
    """A connected group of sources.

    Attributes:
        index: its number in the gallery.
        frame: local metric frame centred on it.
        bounds: (x_min, y_min, x_max, y_max), local metres.
        sources: indexes into the gallery's sources, in the order given.
    """

    index: int
    frame: LocalFrame
    bounds: Bounds
    sources: tuple[int, ...]

    @property
    def width_m(self) -> float:
        """Extent to the east, metres."""
        return self.bounds[2] - self.bounds[0]

    @property
    def height_m(self) -> float:
        """Extent to the north, metres."""
        return self.bounds[3] - self.bounds[1]


@dataclass(frozen=True, kw_only=True)
class Level:
    """One scale of a gallery.

    Attributes:
        index: its number in the gallery.
        tile_m: side of a tile on the ground, metres.
        stride_m: distance between tile centres, metres.
        input_px: side of a tile in pixels (the encoder's input).
        stride_px: side of a feature cell in pixels.
    """

    index: int
    tile_m: float
    stride_m: float
    input_px: int
    stride_px: int

    @property
    def gsd_m(self) -> float:
        """Metres a pixel."""
        return self.tile_m / self.input_px

    @property
    def cell_m(self) -> float:
        """Metres a feature cell."""
        return self.gsd_m * self.stride_px


@dataclass(frozen=True, kw_only=True)
class TileSpot:
    """A tile's place: row and column of the tile grid, and its first pixel from the corner."""

    row: int
    col: int
    left_px: int
    top_px: int
    x_m: float
    y_m: float


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """64 x 64 cells.

    Attributes:
        row, col: place in the grid of chunks, counted from the north-west.
        x_min, y_max: its north-west corner, local metres.
        size_m: side without the halo, metres.
    """

    row: int
    col: int
    x_min: float
    y_max: float
    size_m: float


@dataclass(frozen=True)
class Grid:
    """Chunks, cells and tiles of one area at one level."""

    area: Area
    level: Level

    @property
    def chunk_px(self) -> int:
        """Side of a chunk without halo, pixels."""
        return CHUNK_CELLS * self.level.stride_px

    @cached_property
    def halo_cells(self) -> int:
        """Cells around a chunk: enough for tiles centred in it, and a read of 32s of pixels."""
        halo = max(HALO_CELLS, -(-(self.level.input_px // 2 + 1) // self.level.stride_px))
        for cells in range(halo, halo + 32):
            if (CHUNK_CELLS + 2 * cells) * self.level.stride_px % 32 == 0:
                return cells
        return halo

    @property
    def read_px(self) -> int:
        """Side of a chunk with its halo, pixels."""
        return (CHUNK_CELLS + 2 * self.halo_cells) * self.level.stride_px

    @property
    def cell_shape(self) -> tuple[int, int]:
        """(rows, cols) of cells that the area has."""
        cell = self.level.cell_m
        rows, cols = (_count(extent, cell) for extent in (self.area.height_m, self.area.width_m))
        return rows, cols

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """(rows, cols) of chunks."""
        rows, cols = self.cell_shape
        return -(-rows // CHUNK_CELLS), -(-cols // CHUNK_CELLS)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(rows, cols) of tiles."""
        stride = self.level.stride_m
        return _count(self.area.height_m, stride), _count(self.area.width_m, stride)

    def chunk(self, row: int, col: int) -> Chunk:
        """The chunk at a place of the grid."""
        size = self.chunk_px * self.level.gsd_m
        x_min, _, _, y_max = self.area.bounds
        return Chunk(
            row=row, col=col, x_min=x_min + col * size, y_max=y_max - row * size, size_m=size
        )

    def chunks(self) -> Iterator[Chunk]:
        """All chunks, row by row from the north-west."""
        rows, cols = self.chunk_shape
        for row in range(rows):
            for col in range(cols):
                yield self.chunk(row, col)

    def read_bounds(self, chunk: Chunk) -> Bounds:
        """(x_min, y_min, x_max, y_max) of a chunk with its halo, local metres."""
        halo = self.halo_cells * self.level.cell_m
        return (
            chunk.x_min - halo,
            chunk.y_max - chunk.size_m - halo,
            chunk.x_min + chunk.size_m + halo,
            chunk.y_max + halo,
        )

    def tiles_in(self, chunk: Chunk) -> list[TileSpot]:
        """The tiles whose centre lies in the chunk, row by row."""
        rows, tops = self._along(chunk.row, self.tile_shape[0], self.area.height_m)
        cols, lefts = self._along(chunk.col, self.tile_shape[1], self.area.width_m)
        x_min, _, _, y_max = self.area.bounds
        gsd, half = self.level.gsd_m, self.level.input_px / 2
        return [
            TileSpot(
                row=row,
                col=col,
                left_px=left,
                top_px=top,
                x_m=x_min + (left + half) * gsd,
                y_m=y_max - (top + half) * gsd,
            )
            for row, top in zip(rows, tops, strict=True)
            for col, left in zip(cols, lefts, strict=True)
        ]

    def _along(self, chunk: int, count: int, extent_m: float) -> tuple[list[int], list[int]]:
        """Numbers and first pixels of the tiles of one axis whose centre is in a chunk.

        Centres are spaced by the stride, symmetrically in the area, at most half a stride from its
        edges, and moved to whole pixels.
        """
        level = self.level
        start = (extent_m - (count - 1) * level.stride_m) / 2
        low = chunk * self.chunk_px * level.gsd_m
        size = self.chunk_px * level.gsd_m
        first = max(0, math.floor((low - start) / level.stride_m) - 2)
        last = min(count - 1, math.ceil((low + size - start) / level.stride_m) + 2)
        numbers, pixels = [], []
        for number in range(first, last + 1):
            centre_px = (start + number * level.stride_m) / level.gsd_m
            pixel = math.floor(centre_px - level.input_px / 2 + 0.5)
            if (2 * pixel + level.input_px) // (2 * self.chunk_px) == chunk:
                numbers.append(number)
                pixels.append(pixel)
        return numbers, pixels


def group_areas(sources: Sequence[MapSource]) -> list[Area]:
    """Sources whose footprints come within 500 m of each other are one area.

    Raises:
        MapError: an area spans more than 400 km.
    """
    areas = []
    for index, members in enumerate(_connected([s.ring for s in sources])):
        lon, lat = np.concatenate([np.array(sources[i].ring[:-1]) for i in members]).T
        centre = LocalFrame(*centre_lonlat(lon=lon, lat=lat))
        x, y = centre.to_xy(lon=lon, lat=lat)
        middle = centre.point(x_m=float(x.min() + x.max()) / 2, y_m=float(y.min() + y.max()) / 2)
        frame = LocalFrame(round(middle[0], 7), round(middle[1], 7))
        x, y = frame.to_xy(lon=lon, lat=lat)
        bounds = (
            float(math.floor(x.min())),
            float(math.floor(y.min())),
            float(math.ceil(x.max())),
            float(math.ceil(y.max())),
        )
        span = max(bounds[2] - bounds[0], bounds[3] - bounds[1])
        if span > MAX_SPAN_M:
            raise MapError(
                f"these maps join into one area of {span / 1000:,.0f} km; "
                f"areas up to {MAX_SPAN_M / 1000:.0f} km can be used",
                hint="build one gallery for each region",
            )
        areas.append(Area(index=index, frame=frame, bounds=bounds, sources=tuple(members)))
    return areas


def _count(extent: float, step: float) -> int:
    return max(1, math.ceil(extent / step - 1e-9))


def _connected(rings: Sequence[Sequence[tuple[float, float]]]) -> list[list[int]]:
    """Groups of rings, each group and the groups themselves by first appearance."""
    parent = list(range(len(rings)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    points = [_sphere(np.array(ring[:-1])) for ring in rings]
    centres = np.array([p.mean(axis=0) / np.linalg.norm(p.mean(axis=0)) for p in points])
    radii = np.array(
        [np.linalg.norm(p - c, axis=1).max() for p, c in zip(points, centres, strict=True)]
    )
    for i in range(len(rings)):
        chord = np.linalg.norm(centres[i + 1 :] - centres[i], axis=1)
        # 10 % more: an edge between two points of a ring may bulge beyond the circle
        reach = 1.1 * (radii[i + 1 :] + radii[i]) + JOIN_M / EARTH_RADIUS_M
        for j in (np.flatnonzero(chord <= reach) + i + 1).tolist():
            if root(i) != root(j) and _near(rings[i], rings[j]):
                a, b = sorted((root(i), root(j)))
                parent[b] = a
    groups: dict[int, list[int]] = {}
    for i in range(len(rings)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())


def _sphere(lonlat: FloatArray) -> FloatArray:
    lam, phi = np.radians(lonlat).T
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)


def _near(a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]) -> bool:
    """Whether two outlines come within `JOIN_M`, or one lies in the other."""
    lon, lat = np.array(a[:-1]).T
    centre_lon, centre_lat = centre_lonlat(lon=lon, lat=lat)
    first, second = (
        np.stack(
            rough_xy(
                lon=[p[0] for p in ring],
                lat=[p[1] for p in ring],
                centre_lon=centre_lon,
                centre_lat=centre_lat,
            ),
            axis=1,
        )
        for ring in (a, b)
    )
    if _inside(first[0], second) or _inside(second[0], first):
        return True
    return min(_distance(first, second), _distance(second, first)) <= JOIN_M


def _inside(point: FloatArray, ring: FloatArray) -> bool:
    """Even-odd rule; the ring is closed."""
    x, y = point
    x1, y1, x2, y2 = ring[:-1, 0], ring[:-1, 1], ring[1:, 0], ring[1:, 1]
    crosses = (y1 > y) != (y2 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x1 + (y - y1) / (y2 - y1) * (x2 - x1)
    return bool(np.count_nonzero(crosses & (x < at)) % 2)


def _distance(points: FloatArray, ring: FloatArray) -> float:
    """Least distance from points to the segments of a ring, metres (crossing edges: 0 or so)."""
    start, step = ring[:-1], np.diff(ring, axis=0)
    length = np.maximum((step**2).sum(axis=1), 1e-12)
    rel = points[:, None] - start
    t = np.clip((rel * step).sum(axis=2) / length, 0, 1)
    return float(np.linalg.norm(rel - t[..., None] * step, axis=2).min())
