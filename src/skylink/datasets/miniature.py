"""Pictures for miniatures: made-up ground from a seed, seen from above and from the street.

The views of a place show the same ground at another heading, scale and light, so that retrieval on
a miniature is neither trivial nor hopeless. Quick and small; `skylink.town` makes the real thing.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from skylink.files import write_atomic

U8 = NDArray[np.uint8]

TILE_PX = 96
_PALETTE = np.array(
    [(88, 122, 66), (132, 148, 88), (168, 156, 112), (70, 96, 60), (120, 118, 110)], np.uint8
)
_ROOFS = np.array([(176, 92, 70), (150, 150, 156), (96, 84, 80), (206, 200, 190)], np.uint8)


def ground(seed: int, *key: int, width: int = 256, height: int = 256) -> U8:
    """(height, width, 3) RGB of fields, roads and houses; another one for each key."""
    rng = np.random.default_rng((seed, *key))
    noise = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 24)
    rank = np.digitize(noise, np.quantile(noise, (0.2, 0.4, 0.6, 0.8)))
    image = np.ascontiguousarray(_PALETTE[rng.permutation(len(_PALETTE))][rank])
    area = width * height / 256**2
    for _ in range(max(2, round(3 * area))):
        ends = rng.integers(0, (width, height), (2, 2)).tolist()
        cv2.line(image, ends[0], ends[1], (104, 102, 104), int(rng.integers(3, 8)), cv2.LINE_AA)
    for _ in range(round(26 * area)):
        centre = rng.uniform(0, (width, height)).tolist()
        size = rng.uniform(8, 34, 2).tolist()
        box = cv2.boxPoints((centre, size, float(rng.uniform(0, 90)))).astype(np.int32)
        cv2.fillConvexPoly(image, box, _ROOFS[rng.integers(len(_ROOFS))].tolist(), cv2.LINE_AA)
    grain = rng.normal(0, 7, (height, width, 1))
    return _clipped(image + grain)


def view(
    image: U8,
    seed: int,
    *key: int,
    centre: tuple[float, float] | None = None,
    heading_deg: float = 0.0,
    span_px: float = 160.0,
    size: tuple[int, int] = (TILE_PX, TILE_PX),
) -> U8:
    """A photo from above: `span_px` of the ground wide, `heading_deg` up, its own light and noise.

    Returns:
        (size[1], size[0], 3) uint8 RGB.
    """
    rng = np.random.default_rng((seed, 7, *key))
    x, y = centre or (image.shape[1] / 2, image.shape[0] / 2)
    width, height = size
    matrix = cv2.getRotationMatrix2D((x, y), heading_deg, width / span_px)
    matrix[:, 2] += np.array([width / 2 - x, height / 2 - y])
    seen = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101
    )
    light = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)
    return _clipped(seen * light + rng.normal(0, 3, seen.shape))


def panorama(image: U8, seed: int, *key: int) -> U8:
    """(48, 96, 3) RGB: the ground around its centre, north in the middle, below a sky."""
    rng = np.random.default_rng((seed, 11, *key))
    centre = (image.shape[1] / 2, image.shape[0] / 2)
    rolled = cv2.warpPolar(image, (32, 96), centre, min(image.shape[:2]) / 3, cv2.INTER_AREA)
    floor = cv2.rotate(rolled, cv2.ROTATE_90_COUNTERCLOCKWISE)  # far away on top
    floor = np.roll(floor, -24, axis=1)  # it began in the east
    sky = np.broadcast_to(np.array([150, 180, 214], np.uint8), (16, 96, 3))
    return _clipped(np.concatenate([sky, floor]) + rng.normal(0, 3, (48, 96, 1)))


def write_picture(path: Path, image: U8) -> None:
    """A JPEG, PNG or TIFF by the path's suffix."""
    kind = {".png": "PNG", ".tif": "TIFF"}.get(path.suffix.lower(), "JPEG")
    options = {"quality": 90} if kind == "JPEG" else {}
    data = io.BytesIO()
    Image.fromarray(image).save(data, kind, **options)
    write_atomic(path, data.getvalue())


def write_geotiff(
    path: Path, image: U8, *, left_lon: float, top_lat: float, lon_px: float, lat_px: float
) -> None:
    """A GeoTIFF in EPSG:4326, north up; `lon_px`, `lat_px` are degrees a pixel, positive."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype.update({33550: 12, 33922: 12, 34735: 3})  # DOUBLE, DOUBLE, SHORT
    tags[33550] = (lon_px, lat_px, 0.0)
    tags[33922] = (0.0, 0.0, 0.0, left_lon, top_lat, 0.0)
    tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 1, 2048, 0, 1, 4326)
    data = io.BytesIO()
    Image.fromarray(image).save(data, "TIFF", tiffinfo=tags)
    write_atomic(path, data.getvalue())


def headings(count: int) -> list[float]:
    """Headings of a camera that circles a place, degrees."""
    return [math.fmod(17.0 + 360.0 * step / count, 360.0) for step in range(count)]


def _clipped(values: NDArray[np.floating]) -> U8:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)
