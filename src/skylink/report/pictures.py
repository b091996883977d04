"""Pictures of queries and candidates as data URIs, of bounded size each and together."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skylink.datasets import Item, PictureReader
from skylink.errors import PhotoError, SkyLinkError
from skylink.photo import load_photo
from skylink.report.details import Details, Place, QueryDetails, Window
from skylink.showing import within_pixels

if TYPE_CHECKING:
    from skylink.gallery import Gallery

SIDE_PX = 288
QUALITY = 80
MAX_BYTES = 24_000_000
"""Of all pictures of a page, as data URIs."""


class Budget:
    """What the pictures of a page may still take, and those that could not be shown.

    Attributes:
        left: bytes.
        problems: why, in order, each once.
        refused: pictures that no room was left for.
    """

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self.left = limit
        self.problems: dict[str, None] = {}
        self.refused = 0


class Pictures:
    """Pictures of one run.

    Args:
        details: of the run.
        budget: shared by all runs of a page.
    """

    def __init__(self, details: Details, budget: Budget) -> None:
        self._details, self._budget = details, budget
        self._reader = PictureReader()
        self._gallery: Gallery | None = None

    def photo(self, query: QueryDetails) -> str | None:
        """The query's photo; None where it can't be read or there is no room."""
        return self._uri(lambda: self._file(self._details.photo(query), query.window))

    def place(self, place: Place) -> str | None:
        """A candidate, or a right answer."""
        if self._details.header.kind == "benchmark":
            path = self._details.source / (place.path or place.id)
            return self._uri(lambda: self._file(path, place.window))
        return self._uri(lambda: self._map(place))

    def close(self) -> None:
        """Close the maps that were cut from."""
        self._reader.close()

    def _uri(self, read: Callable[[], NDArray[np.uint8]]) -> str | None:
        try:
            picture = read()
        except SkyLinkError as error:
            self._budget.problems[error.message] = None
            return None
        uri = data_uri(picture)
        if len(uri) > self._budget.left:
            self._budget.refused += 1
            return None
        self._budget.left -= len(uri)
        return uri

    def _file(self, path: Path, window: Window | None) -> NDArray[np.uint8]:
        if window is None:
            return load_photo(path).image
        return self._reader.read(Item(id=path.name, path=path, window=window))

    def _map(self, place: Place) -> NDArray[np.uint8]:
        """The map around a place, turned and as wide as the photo's ground."""
        from skylink.gallery import Gallery

        if self._gallery is None:
            self._gallery = Gallery.open(self._details.source)
        gallery = self._gallery
        area, level = place.area, place.level
        if (
            area is None
            or level is None
            or not (0 <= area < len(gallery.areas) and 0 <= level < len(gallery.levels))
            or place.lon is None
            or place.lat is None
        ):
            raise PhotoError(f"{place.id} is not of the gallery {gallery.path}")
        x_m, y_m = gallery.areas[area].frame.to_xy(lon=place.lon, lat=place.lat)
        width_m = min(place.width_m or gallery.levels[level].tile_m, 20_000.0)
        picture, valid = gallery.picture(
            area=area, level=level, x_m=float(x_m), y_m=float(y_m), size_px=SIDE_PX,
            gsd_m=width_m / SIDE_PX, heading_deg=place.heading_deg,
        )  # fmt: skip
        if not valid.any():
            raise PhotoError(f"the map has no picture at {place.lon:.5f}, {place.lat:.5f}")
        return picture


def data_uri(picture: NDArray[np.uint8]) -> str:
    """A small JPEG of an RGB picture (H, W, 3), whole, as text for `src`."""
    small = Image.fromarray(within_pixels(picture, SIDE_PX**2))
    small.thumbnail((2 * SIDE_PX, SIDE_PX))  # panoramas
    data = io.BytesIO()
    small.save(data, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
