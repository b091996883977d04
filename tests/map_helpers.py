"""Tiny maps and a tiny encoder for tests: no downloads, every CRS and layout."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from skylink.geo import CrsTransform, LocalFrame


class FakeEncoder:
    """Colours as vectors: 12 + 6 dimensions, 6 feature channels, deterministic and quick."""

    name = "fake"
    stride_px = 16
    parts = (12, 6)

    def __init__(
        self,
        *,
        input_px: int = 32,
        channels: int = 6,
        fingerprint: str = "fake-1",
        delay_s: float = 0.0,
    ) -> None:
        self.input_px = input_px
        self.channels = channels
        self.fingerprint = fingerprint
        self.delay_s = delay_s
        self.encoded = 0

    def encode(
        self, images: NDArray[np.uint8], masks: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        assert images.shape[1:] == (self.input_px, self.input_px, 3)
        assert masks is None or masks.shape == images.shape[:3]
        time.sleep(self.delay_s)
        self.encoded += len(images)
        rows = []
        for image in images:
            small = cv2.resize(image, (2, 2), interpolation=cv2.INTER_AREA).reshape(-1)
            mean, std = cv2.meanStdDev(image)
            rows.append(np.concatenate([small, mean[:, 0], std[:, 0]]))
        return np.asarray(rows, dtype=np.float32)

    def feature_map(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        n, h, w, _ = images.shape
        assert h % 32 == 0
        assert w % 32 == 0
        cells = images.reshape(n, h // 16, 16, w // 16, 16, 3).astype(np.float32)
        both = np.concatenate([cells.mean(axis=(2, 4)), cells.std(axis=(2, 4))], axis=-1)
        return np.asarray(both[..., : self.channels], dtype=np.float32)


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) smooth colours without any zero."""
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 236, (max(2, height // 12), max(2, width // 12), 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).clip(1))


def write_tif(
    path: Path,
    bands: NDArray[Any],
    *,
    crs: str | None = "EPSG:32636",
    transform: Affine | None = None,
    **options: Any,
) -> Path:
    """A GeoTIFF of (bands, H, W) or (H, W, 3); 1 m pixels near Ariel unless told otherwise."""
    if bands.ndim == 3 and bands.shape[2] == 3 and bands.shape[0] > 3:
        bands = np.moveaxis(bands, 2, 0)
    colours = options.pop("colorinterp", None)
    mask = options.pop("mask", None)
    colormap = options.pop("colormap", None)
    tags = options.pop("tags", {})
    with rasterio.open(
        path,
        "w",
        driver=options.pop("driver", "GTiff"),
        count=bands.shape[0],
        height=bands.shape[1],
        width=bands.shape[2],
        dtype=bands.dtype,
        crs=crs,
        transform=transform or Affine(1.0, 0.0, 708_000.0, 0.0, -1.0, 3_554_000.0),
        **options,
    ) as dataset:
        if colours:
            dataset.colorinterp = colours
        dataset.write(bands)
        if mask is not None:
            dataset.write_mask(mask)
        if colormap is not None:
            dataset.write_colormap(1, colormap)
        if tags:
            dataset.update_tags(**tags)
    return path


def pixel_transform(
    crs: str, *, lon: float, lat: float, size: int, gsd_m: float, turn_deg: float = 0.0
) -> Affine:
    """A geotransform of square-ish pixels of about `gsd_m` centred on a place, in any CRS."""
    to_crs = CrsTransform(LocalFrame(lon, lat).proj4, crs)
    x, y = to_crs([0.0, 5.0, 0.0], [0.0, 0.0, -5.0])
    right = math.hypot(x[1] - x[0], y[1] - y[0]) / 5 * gsd_m
    down = math.hypot(x[2] - x[0], y[2] - y[0]) / 5 * gsd_m
    spin = Affine.translation(x[0], y[0]) @ Affine.rotation(turn_deg)
    return spin @ Affine.scale(right, -down) @ Affine.translation(-size / 2, -size / 2)


def blob(size: int, *, col: float, row: float, sigma: float = 2.5) -> NDArray[np.uint8]:
    """(size, size, 3): a bright Gaussian spot on grey, at pixel coordinates counted from the
    first pixel's outer corner."""
    v, u = np.mgrid[0:size, 0:size] + 0.5
    spot = np.exp(-((u - col) ** 2 + (v - row) ** 2) / 2 / sigma**2)
    return np.repeat((40 + 200 * spot)[..., None], 3, axis=2).round().astype(np.uint8)


def spot_px(rgb: NDArray[np.uint8], valid: NDArray[np.bool_]) -> tuple[float, float]:
    """(col, row) of the blob, from the outer corner of the first pixel."""
    weight = np.where(valid, rgb[..., 0].astype(float), 40) - 45
    weight = np.maximum(weight, 0)
    assert weight.sum() > 300, "no spot in the picture"
    v, u = np.mgrid[0 : rgb.shape[0], 0 : rgb.shape[1]] + 0.5
    return float((u * weight).sum() / weight.sum()), float((v * weight).sum() / weight.sum())
