"""Opening and reading a gallery: tiles, features, statistics and pictures of the map."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skylink import tables
from skylink.chunkdata import unpack_image, unpack_valid
from skylink.errors import GalleryError
from skylink.gallery_data import (
    TILE_COLUMNS,
    FeatureRaster,
    LevelStatistics,
    Tiles,
    tiles_of,
)
from skylink.gallery_info import FULL_CHECK_BYTES, GalleryInfo, check_files, read_info
from skylink.geo import distance_m
from skylink.mappictures import MapPictures
from skylink.tiling import CHUNK_CELLS, Area, Bounds, Grid, Level
from skylink.types import Prior

if TYPE_CHECKING:
    from skylink.encoder import Encoder

__all__ = ["FeatureRaster", "Gallery", "LevelStatistics", "Tiles"]

Progress = Callable[[int, int, str], None]
METRES_A_DEGREE = 110_500.0
"""The least length of a degree of latitude on WGS 84, a little less to be safe."""


class Gallery:
    """All reference imagery of a map: encoded tiles, feature rasters and the pictures themselves.

    Open one with `Gallery.open`, make one with `Gallery.build`. Reading is safe from several
    threads; not across `fork`.
    """

    def __init__(self, path: Path, info: GalleryInfo) -> None:
        self.path = path
        self.info = info
        self.areas: list[Area] = info.make_areas()
        self.levels: list[Level] = info.make_levels()
        self._lock = threading.RLock()
        self._pictures = MapPictures(self._stored_picture)

    @classmethod
    def open(cls, path: str | Path) -> Gallery:
        """Open a finished gallery.

        Sizes of all files are checked, and their hashes too where they are 64 MB or less together
        (`verify` checks them all).

        Raises:
            GalleryError: none here, not finished, another schema, missing or changed files.
        """
        folder = Path(path)
        info = read_info(folder)
        total = sum(file.size for file in info.files)
        check_files(folder, info, hashes=total <= FULL_CHECK_BYTES)
        return cls(folder, info)

    @classmethod
    def build(
        cls,
        maps: Sequence[str | Path],
        out: str | Path,
        *,
        tile_m: Sequence[float] = (160.0,),
        stride_m: float = 40.0,
        encoder: Encoder | None = None,
        progress: Progress | None = None,
        attribution: str | None = None,
        store_imagery: bool = True,
    ) -> Gallery:
        """Build a gallery, or continue a build that was interrupted; see `build.build_gallery`."""
        from skylink.build import build_gallery

        build_gallery(
            maps,
            Path(out),
            tile_m=tile_m,
            stride_m=stride_m,
            encoder=encoder,
            progress=progress,
            attribution=attribution,
            store_imagery=store_imagery,
        )
        return cls.open(out)

    @property
    def tile_count(self) -> int:
        """How many tiles it holds."""
        return self.info.tiles_kept

    @property
    def area_km2(self) -> float:
        """Ground with valid pixels, square kilometres."""
        return self.info.area_km2

    def bounds_lonlat(self) -> list[list[tuple[float, float]]]:
        """Closed footprints of the sources as (lon, lat) in -180..180, counter-clockwise."""
        return [list(source.ring) for source in self.info.sources]

    def verify(self) -> None:
        """Read every data file and compare its hash.

        Raises:
            GalleryError: naming the first file that is missing or changed.
        """
        check_files(self.path, self.info, hashes=True)

    def check_encoder(self, encoder: Encoder) -> None:
        """Refuse an encoder whose vectors don't compare with the stored ones.

        Raises:
            GalleryError: another model, other weights or other preprocessing.
        """
        built = self.info.encoder
        if encoder.fingerprint != built.fingerprint:
            raise GalleryError(
                f"{self.path}: built with encoder {built.name} (fingerprint "
                f"{built.fingerprint[:12]}), not with {encoder.name} ({encoder.fingerprint[:12]})",
                hint=f"use that encoder, or build again: `{self.info.command(self.path)}`",
            )

    def tiles(self, *, prior: Prior | None = None, levels: Sequence[int] | None = None) -> Tiles:
        """The tiles, or those whose centre is within the prior's disc, or of some levels.

        Without a prior all are loaded once and kept; with one, only those near it are read unless
        all are loaded already.
        """
        if prior is None or "_all_tiles" in self.__dict__:
            found = self._all_tiles
        else:
            found = self._load_tiles(_box_filter(prior))
        keep = np.ones(len(found), dtype=bool)
        if levels is not None:
            keep &= np.isin(found.level, np.asarray(list(levels), dtype=np.int32))
        if prior is not None:
            away = distance_m(lon1=prior.lon, lat1=prior.lat, lon2=found.lon, lat2=found.lat)
            keep &= away <= prior.radius_m
        return found if keep.all() else found.select(keep)

    def tiles_at(self, rows: Sequence[int] | NDArray[np.int64]) -> Tiles:
        """Tiles by their row ids in `tiles_table` (as an index finds them), in the order given."""
        ids = [int(row) for row in rows]
        with tables.storage_errors(self.path, writing=False):
            found = tables.take(self.tiles_table(), sorted(set(ids)), list(TILE_COLUMNS))
        place = {row: i for i, row in enumerate(found["_rowid"].to_pylist())}
        tiles, _ = tiles_of(found)
        return tiles.select(np.array([place[i] for i in ids], dtype=np.int64))

    def tiles_table(self) -> Any:
        """The lancedb table of tiles, for an index or a query of one's own (read only)."""
        return self._table(tables.TILES)

    def statistics(self, level: int) -> LevelStatistics:
        """Means and deviations of one level."""
        self._check_level(level)
        data = self._statistics
        return LevelStatistics(
            descriptor_mean=data[f"l{level}_descriptor_mean"],
            descriptor_std=data[f"l{level}_descriptor_std"],
            descriptor_basis=data.get(f"l{level}_descriptor_basis"),
            feature_mean=data[f"l{level}_feature_mean"],
            feature_covariance=data[f"l{level}_feature_covariance"],
            cells=int(data[f"l{level}_cells"]),
        )

    def features(
        self, *, area: int, level: int, bounds: Bounds | None = None
    ) -> FeatureRaster | None:
        """The feature cells that touch `bounds` (x_min, y_min, x_max, y_max), local metres.

        Only the chunks that intersect are read. None where the encoder has no feature map, or
        the bounds miss the area.
        """
        grid = self._grid(area, level)
        channels = self.info.encoder.channels
        window = _cell_window(grid, bounds)
        if channels == 0 or window is None:
            return None
        top, bottom, left, right = window
        values = np.zeros((bottom - top, right - left, channels), dtype=np.float16)
        valid = np.zeros(values.shape[:2], dtype=bool)
        wanted = {
            row_id: key
            for key, row_id in self._chunk_rows.items()
            if key[:2] == (area, level)
            and top // CHUNK_CELLS <= key[2] <= (bottom - 1) // CHUNK_CELLS
            and left // CHUNK_CELLS <= key[3] <= (right - 1) // CHUNK_CELLS
        }
        ids = list(wanted)
        for start in range(0, len(ids), 32):
            part = self._take(ids[start : start + 32], ["values", "valid"])
            for row_id, packed, bits in zip(
                part["_rowid"].to_pylist(), part["values"], part["valid"], strict=True
            ):
                _, _, row, col = wanted[row_id]
                y, x = row * CHUNK_CELLS - top, col * CHUNK_CELLS - left
                y0, x0 = max(0, y), max(0, x)
                y1 = min(y + CHUNK_CELLS, valid.shape[0])
                x1 = min(x + CHUNK_CELLS, valid.shape[1])
                inner = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
                cells = np.frombuffer(packed.as_buffer(), dtype=np.float16)
                values[y0:y1, x0:x1] = cells.reshape(CHUNK_CELLS, CHUNK_CELLS, channels)[inner]
                valid[y0:y1, x0:x1] = unpack_valid(bits.as_py(), CHUNK_CELLS)[inner]
        cell = grid.level.cell_m
        x_min, _, _, y_max = grid.area.bounds
        return FeatureRaster(
            values=values,
            valid=valid,
            x0_m=x_min + (left + 0.5) * cell,
            y0_m=y_max - (top + 0.5) * cell,
            cell_m=cell,
        )

    def picture(
        self,
        *,
        area: int,
        level: int,
        x_m: float,
        y_m: float,
        size_px: int,
        gsd_m: float,
        heading_deg: float = 0.0,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The stored imagery around a point, turned so that the heading is up.

        Args:
            area, level: which frame, and which level's imagery.
            x_m, y_m: the centre, local metres.
            size_px: side of the result.
            gsd_m: metres a pixel of the result.
            heading_deg: direction that is up, degrees clockwise from the local frame's north.

        Returns:
            rgb (S, S, 3) uint8, zero where not valid, and valid (S, S) bool.

        Raises:
            GalleryError: the gallery was built without imagery.
        """
        if not self.info.imagery:
            raise GalleryError(
                f"{self.path}: built without imagery, so there is no picture of the map",
                hint=f"build it with imagery: `{self.info.command(self.path)}`",
            )
        return self._pictures.view(
            self._grid(area, level),
            x_m=x_m,
            y_m=y_m,
            size_px=size_px,
            gsd_m=gsd_m,
            heading_deg=heading_deg,
        )

    def _stored_picture(
        self, area: int, level: int, row: int, col: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        """One chunk's imagery and validity; None where there is no map."""
        row_id = self._chunk_rows.get((area, level, row, col))
        if row_id is None:
            return None
        part = self._take([row_id], ["image", "mask"])
        side = CHUNK_CELLS * self.levels[level].stride_px
        return unpack_image(part["image"][0].as_py(), part["mask"][0].as_py(), side)

    @cached_property
    def _all_tiles(self) -> Tiles:
        return self._load_tiles("")

    @cached_property
    def _database(self) -> Any:
        return tables.connect(self.path / self.info.data)

    @cached_property
    def _features(self) -> Any:
        return self._table(tables.FEATURES)

    @cached_property
    def _chunk_rows(self) -> dict[tuple[int, int, int, int], int]:
        """(area, level, row, col) of every stored chunk -> its row id."""
        with tables.storage_errors(self.path, writing=False):
            found = tables.row_ids(self._features, ["area", "level", "row", "col"])
        names = ("area", "level", "row", "col", "_rowid")
        columns = [found[name].to_pylist() for name in names]
        return {(a, b, c, d): i for a, b, c, d, i in zip(*columns, strict=True)}

    @cached_property
    def _statistics(self) -> dict[str, NDArray[Any]]:
        path = self.path / self.info.data / "statistics.npz"
        try:
            with np.load(path, allow_pickle=False) as data:
                return dict(data)
        except (OSError, ValueError) as error:
            raise GalleryError(f"{path}: cannot be read: {error}") from error

    def _table(self, name: str) -> Any:
        with self._lock, tables.storage_errors(self.path, writing=False):
            return self._database.open_table(name)

    def _take(self, ids: list[int], columns: list[str]) -> Any:
        with tables.storage_errors(self.path, writing=False):
            return tables.take(self._features, ids, columns)

    def _load_tiles(self, where: str) -> Tiles:
        with tables.storage_errors(self.path, writing=False):
            found = tables.scan(self.tiles_table(), list(TILE_COLUMNS), where=where)
        tiles, order = tiles_of(found)
        return tiles if np.array_equal(order, np.arange(len(order))) else tiles.select(order)

    def _grid(self, area: int, level: int) -> Grid:
        self._check_level(level)
        if not 0 <= area < len(self.areas):
            raise IndexError(f"area {area}: the gallery has {len(self.areas)}")
        return Grid(self.areas[area], self.levels[level])

    def _check_level(self, level: int) -> None:
        if not 0 <= level < len(self.levels):
            raise IndexError(f"level {level}: the gallery has {len(self.levels)}")


def _cell_window(grid: Grid, bounds: Bounds | None) -> tuple[int, int, int, int] | None:
    """(top, bottom, left, right) of the cells that touch bounds, or None."""
    rows, cols = grid.cell_shape
    if bounds is None:
        return 0, rows, 0, cols
    x_min, _, _, y_max = grid.area.bounds
    cell = grid.level.cell_m
    left = max(0, math.floor((bounds[0] - x_min) / cell))
    right = min(cols, math.ceil((bounds[2] - x_min) / cell))
    top = max(0, math.floor((y_max - bounds[3]) / cell))
    bottom = min(rows, math.ceil((y_max - bounds[1]) / cell))
    return (top, bottom, left, right) if bottom > top and right > left else None


def _box_filter(prior: Prior) -> str:
    """SQL that keeps a superset of the disc: latitudes always, longitudes only where safe."""
    reach = prior.radius_m / METRES_A_DEGREE * 1.001
    south, north = prior.lat - reach, prior.lat + reach
    where = f"lat >= {south!r} AND lat <= {north!r}"
    widest = max(abs(south), abs(north))
    if widest < 85:
        across = reach / math.cos(math.radians(widest)) * 1.01
        west, east = prior.lon - across, prior.lon + across
        if west > -180 and east < 180:
            where += f" AND lon >= {west!r} AND lon <= {east!r}"
    return where
