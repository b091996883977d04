"""Pixels of benchmark items: whole files, and windows of maps too large to open whole."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from skylink.datasets.task import Item
from skylink.errors import DatasetError
from skylink.photo import load_photo

if TYPE_CHECKING:
    from skylink.mapsource import PixelReader

_WIDTH, _HEIGHT = 256, 257
MAX_SIDE_PX = 1_000_000


class PictureReader:
    """Reads pictures; keeps the maps open that it cut windows from. Belongs to one thread."""

    def __init__(self) -> None:
        self._maps: dict[Path, PixelReader] = {}

    def __enter__(self) -> PictureReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def read(self, item: Item) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, upright; what lies outside a map's data is black.

        Raises:
            PhotoError: a whole file can't be read.
            MapError: a map can't be read.
        """
        if item.window is None:
            return load_photo(item.path, name=item.id).image
        if item.path not in self._maps:
            self._maps[item.path] = _open_map(item.path)
        rgb, valid = self._maps[item.path].read(*item.window, fx=1, fy=1)
        rgb[~valid] = 0
        return rgb

    def close(self) -> None:
        """Close the maps."""
        while self._maps:
            self._maps.popitem()[1].close()


def tiff_size(path: Path) -> tuple[int, int]:
    """(width, height) of a TIFF of any size from its header: no pixel is touched.

    Raises:
        DatasetError: not a TIFF, or one with an absurd size.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on what then fails below
            head = file.read(8)
            if head[2:3] == b"\x2b" or head[3:4] == b"\x2b":  # BigTIFF
                head += file.read(8)
            tags = TiffImagePlugin.ImageFileDirectory_v2(head)
            file.seek(tags.next)
            tags.load(file)
            size = int(tags[_WIDTH]), int(tags[_HEIGHT])
    # a damaged header fails in nearly any way (struct.error, SyntaxError, KeyError ...)
    except Exception as error:
        raise DatasetError(
            f"{path} is not a TIFF map: {error}", hint="unpack the dataset again"
        ) from error
    if not all(0 < side <= MAX_SIDE_PX for side in size):
        raise DatasetError(
            f"{path} says that it has {size[0]} x {size[1]} pixels",
            hint="unpack the dataset again",
        )
    return size


def _open_map(path: Path) -> PixelReader:
    """A map by its pixels alone: where it lies is already known."""
    from skylink.corners import Placed
    from skylink.pixelgrid import PixelTransform, affine
    from skylink.rasterfile import open_raster

    def anywhere(width: int, height: int) -> PixelTransform:
        step = 1.0 / max(width, height)
        return affine((step, 0.0, 0.0, 0.0, -step, 0.0))

    return open_raster(path, placed=Placed(path, "", anywhere)).open()
