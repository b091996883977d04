"""A `{z}/{x}/{y}` folder of tiles as one map source in Web Mercator (EPSG:3857)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from skylink.errors import MapError
from skylink.mapsource import FULL_HASH_BYTES, MapSource, make_source
from skylink.pixelgrid import affine

HALF_WORLD_M = 20_037_508.342789244
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CACHED_TILES = 256


@dataclass(frozen=True)
class TileIndex:
    """What is in the folder at its highest zoom, with y counted from the north (XYZ)."""

    root: Path
    zoom: int
    tile_px: int
    x0: int
    y0: int
    files: dict[tuple[int, int], Path]
    present: NDArray[np.bool_]


def is_tile_folder(root: Path) -> bool:
    """Whether the folder has `z/x` subfolders with numbers for names."""
    return any(_numbered(child) for _, child in _numbered(root))


def open_tile_folder(root: Path) -> MapSource:
    """The highest zoom of a tile folder.

    Tiles count rows from the north (XYZ); a folder with `tilemapresource.xml` (TMS, as gdal2tiles
    writes without --xyz) from the south.

    Raises:
        MapError: no tiles, or the first one is not an image.
    """
    flipped = (root / "tilemapresource.xml").exists()
    for zoom, folder in sorted(_numbered(root), reverse=True):
        files: dict[tuple[int, int], Path] = {}
        for x, column in _numbered(folder):
            for file in column.iterdir():
                if file.suffix.lower() in SUFFIXES and file.stem.isdecimal():
                    y = int(file.stem)
                    files[x, (1 << zoom) - 1 - y if flipped else y] = file
        if files:
            break
    else:
        raise MapError(
            f"{root}: no tiles found in it",
            hint="tiles are expected at z/x/y.png (or jpg, jpeg, webp) in this folder",
        )
    xs, ys = (np.array(sorted({key[i] for key in files})) for i in (0, 1))
    if min(xs[0], ys[0]) < 0 or max(xs[-1], ys[-1]) >= 1 << zoom:
        raise MapError(f"{root}: a tile of zoom {zoom} has a number outside 0..{(1 << zoom) - 1}")
    x0, y0 = int(xs[0]), int(ys[0])
    nx, ny = int(xs[-1]) - x0 + 1, int(ys[-1]) - y0 + 1
    pixel_m = 2 * HALF_WORLD_M / (1 << zoom)
    if max(nx, ny) * pixel_m > 80_000_000 / 2:
        raise MapError(f"{root}: zoom {zoom} covers the world: give a folder of one region")
    present = np.zeros((ny, nx), dtype=bool)
    for x, y in files:
        present[y - y0, x - x0] = True
    first = files[min(files)]
    tile_px = _decode(first, None, 1).shape[0]
    index = TileIndex(root, zoom, tile_px, x0, y0, files, present)
    pixel_m /= tile_px
    return make_source(
        path=root,
        kind="tiles",
        crs_wkt="EPSG:3857",
        width=nx * tile_px,
        height=ny * tile_px,
        transform=affine(
            (
                pixel_m,
                0.0,
                -HALF_WORLD_M + x0 * tile_px * pixel_m,
                0.0,
                -pixel_m,
                HALF_WORLD_M - y0 * tile_px * pixel_m,
            )
        ),
        bands=f"{len(files)} tiles of {tile_px} px at zoom {zoom}" + (", TMS" if flipped else ""),
        sha256=_folder_hash(index),
        attribution=_attribution(root),
        open_reader=lambda: TileReader(index),
    )


class TileReader:
    """Reads windows of the mosaic, decoding only the tiles that they touch."""

    def __init__(self, index: TileIndex) -> None:
        self._index = index
        self._cache: OrderedDict[tuple[int, int, int, int], NDArray[np.uint8]] = OrderedDict()

    def factor(self, wanted: int) -> int:
        """Powers of two that divide a tile."""
        factor = 1
        size = self._index.tile_px
        while factor * 1.5 <= wanted and size % (factor * 2) == 0:
            factor *= 2
        return factor

    def occupied(self, col: int, row: int, width: int, height: int) -> bool:
        """Whether there is a tile in the window."""
        size = self._index.tile_px
        part = self._index.present[
            row // size : -(-(row + height) // size), col // size : -(-(col + width) // size)
        ]
        return bool(part.any())

    def read(
        self, col: int, row: int, width: int, height: int, *, fx: int, fy: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """See `PixelReader.read`; missing tiles are not valid."""
        size = self._index.tile_px
        rgba = np.zeros((height // fy, width // fx, 4), dtype=np.uint8)
        for j in range(row // size, -(-(row + height) // size)):
            for i in range(col // size, -(-(col + width) // size)):
                tile = self._tile(i, j, fx, fy)
                if tile is None:
                    continue
                # offsets of this tile in the reduced window; all are whole numbers
                top, left = (j * size - row) // fy, (i * size - col) // fx
                y0, x0 = max(top, 0), max(left, 0)
                y1 = min(top + size // fy, rgba.shape[0])
                x1 = min(left + size // fx, rgba.shape[1])
                rgba[y0:y1, x0:x1] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] >= 128

    def _tile(self, i: int, j: int, fx: int, fy: int) -> NDArray[np.uint8] | None:
        key = (i, j, fx, fy)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        path = self._index.files.get((i + self._index.x0, j + self._index.y0))
        if path is None:
            return None
        tile = _decode(path, self._index.tile_px, fx, fy)
        self._cache[key] = tile
        if len(self._cache) > CACHED_TILES:
            self._cache.popitem(last=False)
        return tile

    def close(self) -> None:
        """Forget decoded tiles."""
        self._cache.clear()


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Subfolders named by a number."""
    return [(int(p.name), p) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir()]


def _decode(path: Path, size: int | None, fx: int, fy: int | None = None) -> NDArray[np.uint8]:
    """(H, W, 4) uint8 of one tile, resized to `size` and reduced by (fx, fy)."""
    try:
        with Image.open(path) as image:
            rgba = image.convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise MapError(
            f"{path}: this tile is corrupt, truncated or not an image: {error}",
            hint="fetch the tile again, or delete it to leave a hole in the map",
        ) from error
    if size is not None and rgba.size != (size, size):
        rgba = rgba.resize((size, size), Image.Resampling.BILINEAR)
    if fx > 1 or (fy or fx) > 1:
        rgba = rgba.reduce((fx, fy or fx))
    return np.asarray(rgba, dtype=np.uint8)


def _folder_hash(index: TileIndex) -> str:
    """Names and sizes of all tiles, and the contents of all below 1 GB, else of 256 of them."""
    names = sorted(index.files)
    sizes = [index.files[key].stat().st_size for key in names]
    digest = hashlib.sha256()
    full = sum(sizes) < FULL_HASH_BYTES
    if full:
        sampled = set(names)
    else:
        step = math.ceil(len(names) / 256)
        sampled = set(names[::step])
    for key, size in zip(names, sizes, strict=True):
        digest.update(f"{index.zoom}/{key[0]}/{key[1]} {size}\n".encode())
        if key in sampled:
            digest.update(index.files[key].read_bytes())
    return ("sha256:" if full else "sha256-sampled:") + digest.hexdigest()


def _attribution(root: Path) -> str:
    """From `metadata.json` or `tile.json` where the tool that made the tiles left one."""
    for name in ("metadata.json", "tile.json", "tilejson.json"):
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((root / name).read_text(encoding="utf-8"))
            if isinstance(found, dict) and isinstance(found.get("attribution"), str):
                return str(found["attribution"])
    return ""
