"""One raster file: its georeference, how it becomes RGB, reading windows of it.

The only file that imports rasterio. A dataset belongs to the thread that opened it.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window

from skylink.corners import Placed
from skylink.errors import MapError
from skylink.mapsource import MapSource, file_hash, make_source
from skylink.pixelgrid import PixelTransform, affine, from_points
from skylink.stretch import stretch_limits, to_rgb

CACHE_BYTES = 256 * 1024 * 1024
MAX_BLOCKS = 8_000_000

GEOREFERENCE_HINT = (
    "give it one: `gdal_translate -a_srs EPSG:4326 -a_ullr LEFT_LON TOP_LAT RIGHT_LON BOTTOM_LAT "
    "in.png out.tif`, or put the image in a folder with a corners.csv "
    "(file,left_lon,top_lat,right_lon,bottom_lat) and give that folder"
)


@dataclass(frozen=True, eq=False)
class RasterPlan:
    """How a raster becomes RGB: found once when it is opened, the same for every window.

    Attributes:
        bands: one or three band indexes (from 1).
        alpha: index of the alpha band, or 0.
        palette: (256 or more, 4) uint8 colours of a paletted band, or None.
        stretch: (bands, 2) low and high values that become 0 and 255, or None for 8 bit.
        masked: whether a nodata value or a mask may mark pixels as not valid.
        blocks: (rows, cols) bool of stored blocks where some are missing, else None.
        block_px: (width, height) of a block.
    """

    bands: tuple[int, ...]
    alpha: int
    palette: NDArray[np.uint8] | None
    stretch: NDArray[np.float64] | None
    masked: bool
    blocks: NDArray[np.bool_] | None
    block_px: tuple[int, int]


def open_raster(path: Path, *, placed: Placed | None = None) -> MapSource:
    """A raster as a map source; the file is closed again.

    Args:
        placed: its corners from a CSV, which then count instead of its own georeference.

    Raises:
        MapError: empty, not an image, damaged, or no usable georeference.
    """
    if path.stat().st_size == 0:
        raise MapError(f"{path}: the file is empty", hint="copy or export it again")
    with _env():
        try:
            dataset = _open(path)
        except RasterioError as error:
            raise MapError(
                f"{path}: not an image that can be read as a map: {error}",
                hint="maps are GeoTIFF (.tif) or any raster that GDAL reads",
            ) from error
        with dataset:
            if dataset.count == 0:
                raise MapError(
                    f"{path}: it holds no picture of its own, only "
                    f"{len(dataset.subdatasets)} subdatasets",
                    hint="extract one: `gdal_translate SUBDATASET out.tif`",
                )
            crs_wkt: str
            transform: PixelTransform
            if placed is not None:
                crs_wkt = "EPSG:4326"
                transform = placed.transform(dataset.width, dataset.height)
            else:
                crs_wkt, transform = _georeference(dataset, path)
            digest = file_hash(path)
            if placed is not None:
                corners = hashlib.sha256((digest + placed.corners).encode()).hexdigest()
                digest = digest.split(":")[0] + ":" + corners
            plan, words = _plan(dataset, path)
            return make_source(
                path=path,
                kind="raster" if placed is None else "corners",
                crs_wkt=crs_wkt,
                width=dataset.width,
                height=dataset.height,
                transform=transform,
                bands=words,
                sha256=digest,
                attribution=_attribution(dataset),
                open_reader=lambda: RasterReader(path, plan),
            )


class RasterReader:
    """Reads windows of one raster; belongs to the thread that opened it."""

    def __init__(self, path: Path, plan: RasterPlan) -> None:
        self._path = path
        self._plan = plan
        with _env():
            try:
                self._dataset = _open(path)
            except RasterioError as error:
                raise MapError(f"{path}: cannot be read any more: {error}") from error

    def factor(self, wanted: int) -> int:
        """Any whole reduction."""
        return max(1, wanted)

    def occupied(self, col: int, row: int, width: int, height: int) -> bool:
        """Whether a block of the window is stored in the file."""
        blocks = self._plan.blocks
        if blocks is None:
            return True
        bw, bh = self._plan.block_px
        part = blocks[row // bh : -(-(row + height) // bh), col // bw : -(-(col + width) // bw)]
        return bool(part.any())

    def read(
        self, col: int, row: int, width: int, height: int, *, fx: int, fy: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """See `PixelReader.read`."""
        with _env():
            return self._read(Window(col, row, width, height), height // fy, width // fx)

    def _read(
        self, window: Any, rows: int, cols: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        plan = self._plan
        reduced = window.width > cols or window.height > rows
        try:
            if plan.palette is not None:
                rgb, valid = self._read_palette(window, rows, cols)
            else:
                values = self._dataset.read(
                    list(plan.bands),
                    window=window,
                    out_shape=(len(plan.bands), rows, cols),
                    resampling=Resampling.average if reduced else Resampling.nearest,
                )
                rgb, valid = to_rgb(values, plan.stretch)
            valid &= _mask(self._dataset, plan, window=window, out_shape=(rows, cols))
        except RasterioIOError as error:
            raise _damaged(self._path, error) from error
        if plan.blocks is not None:
            bw, bh = plan.block_px
            ys = window.row_off + (np.arange(rows) + 0.5) * window.height / rows
            xs = window.col_off + (np.arange(cols) + 0.5) * window.width / cols
            valid &= plan.blocks[np.ix_(ys.astype(int) // bh, xs.astype(int) // bw)]
        return rgb, valid

    def _read_palette(
        self, window: Any, rows: int, cols: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Indexes cannot be averaged, colours can: read up to 4 x finer, look up, then shrink."""
        assert self._plan.palette is not None
        fine = tuple(
            n * max(1, min(4, int(size) // n))
            for n, size in ((rows, window.height), (cols, window.width))
        )
        index = self._dataset.read(self._plan.bands[0], window=window, out_shape=fine)
        index = np.clip(index, 0, len(self._plan.palette) - 1)
        rgba = self._plan.palette[index]
        if fine != (rows, cols):
            rgba = np.asarray(cv2.resize(rgba, (cols, rows), interpolation=cv2.INTER_AREA))
        return np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] >= 128

    def close(self) -> None:
        """Close the file."""
        with _env():
            self._dataset.close()


def _env() -> Any:
    """GDAL with a bounded block cache, on this thread."""
    return rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_TIFF_INTERNAL_MASK=True)


def _open(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(os.fspath(path))


def _georeference(dataset: Any, path: Path) -> tuple[str, PixelTransform]:
    """(WKT, transform) of a raster's own tags, from a geotransform or ground control points."""
    points, points_crs = dataset.gcps
    use_points = dataset.transform.is_identity and len(points) > 0
    if dataset.transform.is_identity and not points:
        raise MapError(f"{path}: has no georeference", hint=GEOREFERENCE_HINT)
    crs = points_crs if use_points else dataset.crs
    if not crs:
        raise MapError(
            f"{path}: has a geotransform but no coordinate reference system",
            hint="say which one its coordinates are in: "
            "`gdal_translate -a_srs EPSG:n in.tif out.tif`",
        )
    try:
        wkt = str(crs.to_wkt(version="WKT2_2019"))
        if use_points:
            columns = [(p.col, p.row, p.x, p.y) for p in points]
            cols, rows, xs, ys = np.array(columns, dtype=np.float64).T
            return wkt, from_points(cols=cols, rows=rows, xs=xs, ys=ys)
        return wkt, affine(tuple(dataset.transform)[:6])
    except CRSError as error:
        raise MapError(
            f"{path}: its coordinate reference system cannot be used: {error}",
            hint="assign one that has a code: `gdal_translate -a_srs EPSG:n in.tif out.tif`",
        ) from error
    except ValueError as error:
        raise MapError(f"{path}: its georeference cannot be used: {error}") from error


def _plan(dataset: Any, path: Path) -> tuple[RasterPlan, str]:
    """Which bands to read and how, in numbers and in words."""
    kinds = list(dataset.colorinterp)
    alpha = kinds.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in kinds else 0
    colours = [i for i in dataset.indexes if i != alpha]
    if not colours:
        raise MapError(f"{path}: has only an alpha band")
    rgb = [
        kinds.index(k) + 1
        for k in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        if k in kinds
    ]
    bands = (
        tuple(rgb) if len(rgb) == 3 else tuple(colours[:3] if len(colours) >= 3 else colours[:1])
    )
    dtype = dataset.dtypes[bands[0] - 1]
    if "complex" in dtype:
        raise MapError(f"{path}: complex values are not a picture", hint="export its amplitude")
    palette = None
    if len(colours) == 1 and kinds[bands[0] - 1] == ColorInterp.palette:
        colour_map = dataset.colormap(bands[0])
        palette = np.zeros((max(colour_map) + 1, 4), dtype=np.uint8)
        for value, colour in colour_map.items():
            palette[value] = colour
    flags = [dataset.mask_flag_enums[i - 1] for i in bands]
    masked = any(MaskFlags.all_valid not in f and MaskFlags.alpha not in f for f in flags)
    bw, bh = dataset.block_shapes[0][1], dataset.block_shapes[0][0]
    blocks = _stored_blocks(dataset, bw, bh)
    draft = RasterPlan(bands, alpha, palette, None, masked, blocks, (bw, bh))
    _probe(dataset, path)
    words = f"{'band' if len(bands) == 1 else 'bands'} {', '.join(map(str, bands))} of "
    words += f"{dataset.count}, {dtype}"
    if palette is not None:
        return draft, words + ", palette"
    if dtype == "uint8":
        return draft, words
    stretch = _stretch(dataset, draft, path)
    words += "; 2-98 % stretch from " + ", ".join(f"{a:g}..{b:g}" for a, b in stretch)
    return RasterPlan(bands, alpha, None, stretch, masked, blocks, (bw, bh)), words


def _stored_blocks(dataset: Any, bw: int, bh: int) -> NDArray[np.bool_] | None:
    """Which blocks a sparse GeoTIFF has; None where all are there or it cannot be known."""
    if dataset.driver not in ("GTiff", "COG"):
        return None
    ny, nx = -(-dataset.height // bh), -(-dataset.width // bw)
    if ny * nx > MAX_BLOCKS:
        return None
    found = np.zeros((ny, nx), dtype=bool)
    item = dataset.get_tag_item
    for j in range(ny):
        found[j] = [item(f"BLOCK_OFFSET_{i}_{j}", "TIFF", bidx=1) is not None for i in range(nx)]
    return None if found.all() else found


def _probe(dataset: Any, path: Path) -> None:
    """Decode the first, middle and last pixels, so that a file cut short is refused at once."""
    strict = rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=dataset.driver == "JPEG")
    with strict:
        for share in (0.0, 0.5, 1.0):
            col, row = int(share * (dataset.width - 1)), int(share * (dataset.height - 1))
            try:
                dataset.read(1, window=Window(col, row, 1, 1))
            except RasterioIOError as error:
                raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> MapError:
    return MapError(
        f"{path}: is corrupt or cut short: {error.__cause__ or error}",
        hint="copy or download it again; `gdalinfo -checksum` reads all of it",
    )


def _stretch(dataset: Any, plan: RasterPlan, path: Path) -> NDArray[np.float64]:
    """(bands, 2) percentiles of a decimated read, or of blocks spread over a very large raster."""
    width, height = dataset.width, dataset.height
    windows = [Window(0, 0, width, height)]
    if width * height > 64_000_000 and not dataset.overviews(plan.bands[0]):
        bw, bh = plan.block_px
        stored = (
            plan.blocks
            if plan.blocks is not None
            else np.ones((-(-height // bh), -(-width // bw)), dtype=bool)
        )
        places = np.argwhere(stored)
        picked = places[np.linspace(0, len(places) - 1, min(64, len(places))).astype(int)]
        windows = [
            Window(i * bw, j * bh, min(bw, width - i * bw), min(bh, height - j * bh))
            for j, i in picked.tolist()
        ]
    samples: list[list[NDArray[np.float64]]] = [[] for _ in plan.bands]
    for window in windows:
        shape = (min(1024, int(window.height)), min(1024, int(window.width)))
        for slot, band in enumerate(plan.bands):
            try:
                values = dataset.read(band, window=window, out_shape=shape)
                mask = _mask(dataset, plan, window=window, out_shape=shape)
            except RasterioIOError as error:
                raise _damaged(path, error) from error
            usable = values[mask & np.isfinite(values)]
            samples[slot].append(usable.astype(np.float64))
    return stretch_limits(samples)


def _mask(
    dataset: Any, plan: RasterPlan, *, window: Any, out_shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which pixels of a window are valid by alpha, mask or nodata; half of them where reduced."""
    reduced = window.height > out_shape[0] or window.width > out_shape[1]
    how = Resampling.average if reduced else Resampling.nearest
    valid = np.ones(out_shape, dtype=bool)
    if plan.alpha:
        # read as a band: GDAL takes it as the others' mask only among two or four bands
        alpha = dataset.read(plan.alpha, window=window, out_shape=out_shape, resampling=how)
        valid &= alpha >= 128 if alpha.dtype == np.uint8 else alpha > 0
    if plan.masked:
        masks = dataset.read_masks(
            list(plan.bands),
            window=window,
            out_shape=(len(plan.bands), *out_shape),
            resampling=how,
        )
        valid &= (masks >= 128).any(axis=0)
    return valid


def _attribution(dataset: Any) -> str:
    """What the file's tags say of its owner."""
    tags = {str(k).upper(): str(v) for k, v in dataset.tags().items()}
    names = ("TIFFTAG_COPYRIGHT", "ATTRIBUTION", "COPYRIGHT", "EXIF_COPYRIGHT", "CREDIT")
    return next((tags[n].strip() for n in names if tags.get(n, "").strip()), "")
