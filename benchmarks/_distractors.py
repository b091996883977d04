"""A map that is a small part of a large area: what lies around it looks like ground, but is not it.

Around a real map: aerial scenes of other places, each cut at random, enlarged by 1 to 1.5, turned
and mirrored, cell beside cell, and generated towns among them. Around a generated town: the same
town cut into 60 m patches, turned, mirrored and shuffled, so that textures and colours are the
town's and the layout is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.windows import Window

from skylink.town import Town, render_map
from skylink.town.light import SATELLITE

Picture = NDArray[np.uint8]

PATCH_PX = 86
SCENE_PX = 256
TOWNS, TOWN_M = 4, 1200.0
"""Generated towns, each used in `TURNS` orientations."""
TURNS = 4


def _turned(picture: Picture, generator: np.random.Generator) -> Picture:
    """One of the eight orientations of a square."""
    turned = np.rot90(picture, int(generator.integers(4)))
    return np.ascontiguousarray(turned[::-1] if generator.random() < 0.5 else turned)


def shuffled(town: Picture, generator: np.random.Generator) -> Picture:
    """The town's patches in another order, each turned and mirrored at random."""
    n = town.shape[0] // PATCH_PX
    cut = town[: n * PATCH_PX, : n * PATCH_PX]
    patches = cut.reshape(n, PATCH_PX, n, PATCH_PX, 3).swapaxes(1, 2)
    patches = patches.reshape(-1, PATCH_PX, PATCH_PX, 3)
    patches = np.stack([_turned(p, generator) for p in patches[generator.permutation(n * n)]])
    joined = patches.reshape(n, n, PATCH_PX, PATCH_PX, 3).swapaxes(1, 2)
    return joined.reshape(n * PATCH_PX, n * PATCH_PX, 3)


def scenes(folder: Path, generator: np.random.Generator) -> Callable[[], Picture]:
    """Pieces of a folder's pictures (JPEG), in random order, no picture twice before all were."""
    files = sorted(folder.rglob("*.jpg"))
    order: list[int] = []

    def piece() -> Picture:
        if not order:
            order.extend(int(i) for i in generator.permutation(len(files)))
        picture = cv2.imread(str(files[order.pop()]), cv2.IMREAD_COLOR_RGB)
        side = min(picture.shape[:2])
        cut = round(side / generator.uniform(1.0, 1.5))
        top, left = (int(generator.integers(n - cut + 1)) for n in picture.shape[:2])
        small = np.asarray(picture[top : top + cut, left : left + cut], np.uint8)
        resized = cv2.resize(small, (SCENE_PX, SCENE_PX), interpolation=cv2.INTER_CUBIC)
        return _turned(np.asarray(resized, np.uint8), generator)

    return piece


def write_around(
    path: Path, middle: Picture, gsd_m: float, side_m: float, piece: Callable[[], Picture],
    *, crs: str, centre: tuple[float, float], unit: float = 1.0, towns: bool = False, seed: int = 0,
) -> None:  # fmt: skip
    """A GeoTIFF of `side_m` square with `middle` at its centre and pieces elsewhere.

    Args:
        middle: (H, W, 3) RGB at `gsd_m` metres a pixel.
        piece: gives square pictures of one size.
        crs, centre: of the raster, and where the middle's centre lies in it.
        unit: CRS units a metre on the ground (Web Mercator's are shorter than a metre).
        towns: put generated towns among the pieces.
    """
    generator = np.random.default_rng(seed)
    side = round(side_m / gsd_m)
    pixel = gsd_m * unit
    top_left = Affine(
        pixel, 0, centre[0] - pixel * side / 2, 0, -pixel, centre[1] + pixel * side / 2
    )
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8",
        "crs": crs, "transform": top_left, "tiled": True, "blockxsize": 256, "blockysize": 256,
        "compress": "jpeg", "photometric": "ycbcr", "bigtiff": "if_safer",
    }  # fmt: skip

    def put(raster: rasterio.DatasetWriter, picture: Picture, left: int, top: int) -> None:
        picture = picture[: side - top, : side - left]
        window = Window(left, top, picture.shape[1], picture.shape[0])
        raster.write(np.moveaxis(picture, 2, 0), window=window)

    with rasterio.open(path, "w", **profile) as raster:
        step = piece().shape[0]
        for top in range(0, side, step):
            band = np.concatenate([piece() for _ in range(0, side, step)], axis=1)
            put(raster, band, 0, top)
        left, top = (side - middle.shape[1]) // 2, (side - middle.shape[0]) // 2
        if towns:
            # on a ring around the middle, well apart from it and from each other
            every = [
                np.rot90(
                    render_map(Town.generate(seed=100 + t, size_m=TOWN_M), SATELLITE, gsd_m), r
                )
                for t in range(TOWNS)
                for r in range(TURNS)
            ]
            ring = 0.35 * side
            for number, town in enumerate(every):
                angle = 2 * math.pi * (number + generator.uniform(-0.1, 0.1)) / len(every)
                x = side / 2 + ring * math.cos(angle) - town.shape[1] / 2
                y = side / 2 + ring * math.sin(angle) - town.shape[0] / 2
                if 0 <= x < side - town.shape[1] and 0 <= y < side - town.shape[0]:
                    put(raster, np.ascontiguousarray(town), int(x), int(y))
        put(raster, middle, left, top)


def read_map(path: Path, gsd_m: float) -> tuple[Picture, str, tuple[float, float], float]:
    """A Web Mercator map at another resolution: picture, CRS, centre in the CRS, units a metre."""
    with rasterio.open(path) as raster:
        left, bottom, right, top = raster.bounds
        latitude = 2 * math.atan(math.exp((bottom + top) / 2 / 6378137.0)) - math.pi / 2
        unit = 1 / math.cos(latitude)
        width, height = (round(n / unit / gsd_m) for n in (right - left, top - bottom))
        bands = raster.read((1, 2, 3), out_shape=(3, height, width), resampling=Resampling.average)
        picture = np.ascontiguousarray(np.moveaxis(bands, 0, 2))
        return picture, raster.crs.to_string(), ((left + right) / 2, (bottom + top) / 2), unit
