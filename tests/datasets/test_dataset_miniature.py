"""Made-up pictures: views that turn the right way, and a GeoTIFF that others can read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from skylink.datasets import miniature
from skylink.datasets.pictures import tiff_size
from skylink.errors import DatasetError


def compass() -> np.ndarray:
    """Grey, with a white spot in the north and a black one in the east of the middle."""
    image = np.full((200, 200, 3), 128, np.uint8)
    image[50:70, 90:110] = 255
    image[90:110, 130:150] = 0
    return image


def test_the_heading_is_up() -> None:
    north = miniature.view(compass(), 0, span_px=160)
    east = miniature.view(compass(), 0, heading_deg=90, span_px=160)
    top, right, left = np.s_[20:28, 44:52], np.s_[44:52, 68:76], np.s_[44:52, 20:28]
    assert north[top].mean() > 200
    assert north[right].mean() < 40
    assert east[top].mean() < 40
    assert east[left].mean() > 200  # north is on the left of who looks east


def test_panorama_has_north_in_the_middle_and_east_right_of_it() -> None:
    seen = miniature.panorama(compass(), 0)
    assert seen.shape == (48, 96, 3)
    around = seen[16:].mean(axis=(0, 2))
    assert abs(int(np.argmax(around)) - 48) <= 3
    assert abs(int(np.argmin(around)) - 72) <= 3


def test_grounds_differ_by_key_only() -> None:
    first, again, other = (miniature.ground(1, key) for key in (5, 5, 6))
    assert (first == again).all()
    assert np.abs(first.astype(int) - other).mean() > 10


def test_geotiff_is_where_it_says(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    image = miniature.ground(0, width=60, height=40)
    miniature.write_geotiff(path, image, left_lon=10, top_lat=50, lon_px=0.001, lat_px=0.002)
    with rasterio.open(path) as dataset:
        assert dataset.crs.to_epsg() == 4326
        assert tuple(dataset.bounds) == pytest.approx((10, 49.92, 10.06, 50))
        assert (np.moveaxis(dataset.read(), 0, -1) == image).all()
    assert tiff_size(path) == (60, 40)


@pytest.mark.parametrize("data", [b"", b"II*\0", b"not a tiff at all", b"II+\0\x08\0\0\0"])
def test_what_is_no_tiff(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "map.tif").write_bytes(data)
    with pytest.raises(DatasetError, match="not a TIFF"):
        tiff_size(tmp_path / "map.tif")
