"""A map source: pixels with a georeference, before anything is read of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skylink.errors import MapError
from skylink.geo import (
    CrsTransform,
    LocalFrame,
    centre_lonlat,
    crs_label,
    crs_period,
    distance_m,
    rough_xy,
)
from skylink.pixelgrid import PixelTransform

MAX_SPAN_M = 400_000.0
"""A local metric frame is good to some 250 km from its centre; no mission is larger."""

FULL_HASH_BYTES = 1_000_000_000
EDGE_SEGMENTS = 8

Locator = Callable[
    [NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]
]
"""Local metres (x, y) to pixel coordinates (col, row); not finite outside the CRS's domain."""


class PixelReader(Protocol):
    """An open source. Belongs to the thread that opened it."""

    def factor(self, wanted: int) -> int:
        """The reduction the source can read at that is nearest to `wanted`, at least 1."""

    def occupied(self, col: int, row: int, width: int, height: int) -> bool:
        """False only if surely nothing is stored in the pixel window; cheap."""

    def read(
        self, col: int, row: int, width: int, height: int, *, fx: int, fy: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The window averaged over blocks of fy x fx pixels (multiples that lie inside).

        Returns:
            rgb (height // fy, width // fx, 3) uint8 and valid, bool of the same rows and columns.
        """

    def close(self) -> None:
        """Let go of the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MapSource:
    """One georeferenced image, or a folder of tiles that acts as one.

    Attributes:
        path: as given.
        kind: "raster", "corners" (an image placed by a CSV of corners) or "tiles" (z/x/y).
        crs: short name of the CRS (`EPSG:3857`); `crs_wkt` is the whole of it.
        width, height: pixels.
        transform: pixels to CRS coordinates and back.
        ring: closed outline as (lon, lat), edges densified, counter-clockwise.
        gsd_m: native ground sample distance at the centre, metres.
        bands: which bands become red, green and blue, and how, in words.
        sha256: `sha256:...` over the whole content, or `sha256-sampled:...` over size and samples.
        attribution: what the file says of its owner; may be empty.
        open: opens it for the calling thread.
    """

    path: Path
    kind: str
    crs: str
    crs_wkt: str
    width: int
    height: int
    transform: PixelTransform
    ring: tuple[tuple[float, float], ...]
    gsd_m: float
    bands: str
    sha256: str
    attribution: str
    open: Callable[[], PixelReader]

    def locator(self, frame: LocalFrame) -> Locator:
        """Pixel coordinates from the frame's local metres."""
        to_crs = CrsTransform(frame.proj4, self.crs_wkt)
        period = crs_period(self.crs_wkt)
        middle = float(self.transform.to_crs(self.width / 2, self.height / 2)[0])

        def locate(
            x_m: NDArray[np.float64], y_m: NDArray[np.float64]
        ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            xs, ys = to_crs(x_m, y_m)
            with np.errstate(invalid="ignore"):
                if period is not None:
                    xs = xs - period * np.round((xs - middle) / period)
                return self.transform.to_pixel(xs, ys)

        return locate


def make_source(
    *,
    path: Path,
    kind: str,
    crs_wkt: str,
    width: int,
    height: int,
    transform: PixelTransform,
    bands: str,
    sha256: str,
    attribution: str,
    open_reader: Callable[[], PixelReader],
) -> MapSource:
    """Check a georeference and derive outline and ground sample distance from it.

    Raises:
        MapError: unusable CRS, corners off the Earth, no area, or a span above `MAX_SPAN_M`.
    """
    try:
        to_lonlat = CrsTransform(crs_wkt, "EPSG:4326")
        label = crs_label(crs_wkt)
    except ValueError as error:
        raise MapError(
            f"{path}: its coordinate reference system cannot be used: {error}",
            hint="a local (engineering) system has no place on Earth; assign a real one, e.g. "
            "`gdal_translate -a_srs EPSG:32636 in.tif out.tif`",
        ) from error
    cols, rows = _outline(width, height)
    lon, lat = _lonlat(to_lonlat, transform, cols, rows, path, label)
    centre_lon, centre_lat = _lonlat(
        to_lonlat,
        transform,
        np.array([width / 2, width / 2 + 1, width / 2]),
        np.array([height / 2, height / 2, height / 2 + 1]),
        path,
        label,
    )
    span_hint = (
        "cut out the part that you need first: `gdal_translate -projwin ULX ULY LRX LRY in.tif "
        "out.tif`, and build one gallery for each region"
    )
    across = distance_m(lon1=centre_lon[0], lat1=centre_lat[0], lon2=lon, lat2=lat)
    if across.max() * 2 > MAX_SPAN_M * math.sqrt(2):
        raise MapError(
            f"{path}: spans some {across.max() * 2 / 1000:,.0f} km; "
            f"maps up to {MAX_SPAN_M / 1000:.0f} km can be used",
            hint=span_hint,
        )
    middle = centre_lonlat(lon=lon, lat=lat)
    x, y = rough_xy(lon=lon, lat=lat, centre_lon=middle[0], centre_lat=middle[1])
    if max(np.ptp(x), np.ptp(y)) > MAX_SPAN_M:
        raise MapError(
            f"{path}: spans {max(np.ptp(x), np.ptp(y)) / 1000:,.0f} km; "
            f"maps up to {MAX_SPAN_M / 1000:.0f} km can be used",
            hint=span_hint,
        )
    area = float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
    if not abs(area) > 1e-3:
        raise MapError(
            f"{path}: its georeference gives it no area on the ground",
            hint="check its geotransform or corners with `gdalinfo`",
        )
    if area < 0:
        lon, lat = lon[::-1], lat[::-1]
    size = distance_m(
        lon1=centre_lon[0], lat1=centre_lat[0], lon2=centre_lon[1:], lat2=centre_lat[1:]
    )
    ring = [(float(a), float(b)) for a, b in zip(lon, lat, strict=True)]
    return MapSource(
        path=path,
        kind=kind,
        crs=label,
        crs_wkt=crs_wkt,
        width=width,
        height=height,
        transform=transform,
        ring=(*ring, ring[0]),
        gsd_m=float(np.sqrt(size[0] * size[1])),
        bands=bands,
        sha256=sha256,
        attribution=attribution,
        open=open_reader,
    )


def _outline(width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel coordinates along the four edges, from the first corner, not closed."""
    t = np.linspace(0.0, 1.0, EDGE_SEGMENTS, endpoint=False)
    zero, one = np.zeros_like(t), np.ones_like(t)
    cols = np.concatenate([t, one, 1 - t, zero]) * width
    rows = np.concatenate([zero, t, one, 1 - t]) * height
    return cols, rows


def _lonlat(
    to_lonlat: CrsTransform,
    transform: PixelTransform,
    cols: NDArray[np.float64],
    rows: NDArray[np.float64],
    path: Path,
    label: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    xs, ys = transform.to_crs(cols, rows)
    lon, lat = to_lonlat(xs, ys)
    usable = np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90 + 1e-9) & (np.abs(lon) < 541)
    if not usable.all():
        raise MapError(
            f"{path}: its corners are not on the Earth in {label}: "
            f"x {np.min(xs):g} to {np.max(xs):g}, y {np.min(ys):g} to {np.max(ys):g}",
            hint="the CRS is probably the wrong one, or x and y are swapped; assign the right one "
            "with `gdal_translate -a_srs EPSG:n in.tif out.tif`",
        )
    return (lon + 180) % 360 - 180, np.clip(lat, -90, 90)


def file_hash(path: Path) -> str:
    """`sha256:` of a file below 1 GB, else `sha256-sampled:` of its size and 64 blocks of 1 MB."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < FULL_HASH_BYTES:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(str(size).encode())
        for offset in np.linspace(0, size - (1 << 20), 64).astype(int):
            file.seek(int(offset))
            digest.update(file.read(1 << 20))
    return "sha256-sampled:" + digest.hexdigest()
