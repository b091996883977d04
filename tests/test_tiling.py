"""The grid: every tile in exactly one chunk, chunks without gaps, areas that are connected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from map_helpers import pixel_transform, texture, write_tif
from skylink.errors import MapError
from skylink.geo import LocalFrame
from skylink.imagery import open_sources
from skylink.tiling import CHUNK_CELLS, Area, Grid, Level, group_areas


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Areas of up to some chunks a side, at plausible sizes of tile, stride and encoder."""
    input_px, stride_px = draw(
        st.sampled_from([(224, 16), (32, 16), (224, 14), (225, 16), (384, 32), (64, 8)])
    )
    tile_m = draw(st.floats(5, 2000))
    chunk_m = CHUNK_CELLS * stride_px * tile_m / input_px
    width, height = (draw(st.floats(0.05, 3.5)) * chunk_m for _ in range(2))
    stride = tile_m * draw(st.floats(0.15, 1.0))
    x, y = (draw(st.floats(-2e5, 2e5)) for _ in range(2))
    area = Area(
        index=0, frame=LocalFrame(10, 50), bounds=(x, y - height, x + width, y), sources=(0,)
    )
    return Grid(
        area,
        Level(index=0, tile_m=tile_m, stride_m=stride, input_px=input_px, stride_px=stride_px),
    )


@settings(deadline=None, max_examples=60)
@given(grids())
def test_every_tile_belongs_to_exactly_one_chunk(grid: Grid) -> None:
    seen: list[tuple[int, int]] = []
    for chunk in grid.chunks():
        left, bottom, right, top = grid.read_bounds(chunk)
        half = grid.level.tile_m / 2
        for spot in grid.tiles_in(chunk):
            seen.append((spot.row, spot.col))
            assert chunk.x_min - 1e-6 <= spot.x_m < chunk.x_min + chunk.size_m + 1e-6
            # the read with its halo shows the whole tile
            assert left - 1e-6 <= spot.x_m - half
            assert spot.x_m + half <= right + 1e-6
            assert bottom - 1e-6 <= spot.y_m - half
            assert spot.y_m + half <= top + 1e-6
    rows, cols = grid.tile_shape
    assert sorted(seen) == [(r, c) for r in range(rows) for c in range(cols)]


@settings(deadline=None, max_examples=60)
@given(grids())
def test_tiles_reach_every_edge(grid: Grid) -> None:
    spots = [spot for chunk in grid.chunks() for spot in grid.tiles_in(chunk)]
    x_min, y_min, x_max, y_max = grid.area.bounds
    xs, ys = (np.unique([getattr(s, name) for s in spots]) for name in ("x_m", "y_m"))
    pixel, stride = grid.level.gsd_m, grid.level.stride_m
    for values, low, high in ((xs, x_min, x_max), (ys, y_min, y_max)):
        assert low - pixel <= values[0] <= low + max(stride, high - low) / 2 + pixel
        assert high - max(stride, high - low) / 2 - pixel <= values[-1] <= high + pixel
        assert np.all(np.diff(values) <= stride + 1.01 * pixel)


@settings(deadline=None, max_examples=60)
@given(grids())
def test_chunks_partition_the_cells(grid: Grid) -> None:
    rows, cols = grid.cell_shape
    chunk_rows, chunk_cols = grid.chunk_shape
    assert (chunk_rows - 1) * CHUNK_CELLS < rows <= chunk_rows * CHUNK_CELLS
    assert (chunk_cols - 1) * CHUNK_CELLS < cols <= chunk_cols * CHUNK_CELLS
    x_min, y_min, x_max, y_max = grid.area.bounds
    cell = grid.level.cell_m
    assert x_min + cols * cell >= x_max - 1e-6 > x_min + (cols - 1) * cell - 1e-6
    assert y_max - rows * cell <= y_min + 1e-6 < y_max - (rows - 1) * cell + 2e-6
    first, last = grid.chunk(0, 0), grid.chunk(chunk_rows - 1, chunk_cols - 1)
    assert (first.x_min, first.y_max) == (x_min, y_max)
    assert last.x_min == pytest.approx(x_min + (chunk_cols - 1) * CHUNK_CELLS * cell)
    assert grid.read_px == (CHUNK_CELLS + 2 * grid.halo_cells) * grid.level.stride_px
    assert grid.read_px % 32 == 0


def maps_at(tmp_path: Path, places: list[tuple[float, float]], size: int = 100) -> list[Path]:
    return [
        write_tif(
            tmp_path / f"{i}.tif",
            texture(size, size, seed=i),
            crs="EPSG:4326",
            transform=pixel_transform("EPSG:4326", lon=lon, lat=lat, size=size, gsd_m=1.0),
        )
        for i, (lon, lat) in enumerate(places)
    ]


def test_maps_within_500_m_are_one_area(tmp_path: Path) -> None:
    metre = 1 / 111_320
    places = [
        (0.0, 0.0),
        (5000 * metre, 0.0),  # far: another area
        (590 * metre, 0.0),  # 490 m from the first
        (590 * metre, 650 * metre),  # 550 m from the third
        (1180 * metre, 0.0),  # joined through the third
    ]
    areas = group_areas(open_sources(maps_at(tmp_path, places)))
    assert [area.sources for area in areas] == [(0, 2, 4), (1,), (3,)]
    assert [area.index for area in areas] == [0, 1, 2]
    first = areas[0]
    assert first.width_m == pytest.approx(1280, abs=4)
    assert first.height_m == pytest.approx(100, abs=4)
    x, y = first.frame.to_xy(lon=590 * metre, lat=0.0)
    assert (abs(x), abs(y)) == (pytest.approx(0, abs=2), pytest.approx(0, abs=2))


def test_area_across_the_antimeridian(tmp_path: Path) -> None:
    areas = group_areas(open_sources(maps_at(tmp_path, [(179.999, -17.0), (-179.998, -17.0)])))
    assert len(areas) == 1
    assert areas[0].width_m == pytest.approx(0.003 * 106_500 + 100, rel=0.02)


def test_a_map_inside_another_is_the_same_area(tmp_path: Path) -> None:
    big = write_tif(
        tmp_path / "big.tif",
        texture(50, 50),
        crs="EPSG:4326",
        transform=pixel_transform("EPSG:4326", lon=0, lat=0, size=50, gsd_m=200.0),
    )
    small = maps_at(tmp_path, [(0.01, 0.01)])
    assert len(group_areas(open_sources([*small, big]))) == 1


def test_a_chain_of_maps_that_is_too_long(tmp_path: Path) -> None:
    paths = [
        write_tif(
            tmp_path / f"{i}.tif",
            texture(20, 20),
            crs="EPSG:4326",
            transform=pixel_transform("EPSG:4326", lon=2.5 * i, lat=0, size=20, gsd_m=13_900.0),
        )
        for i in range(2)
    ]
    with pytest.raises(MapError, match="join into one area of"):
        group_areas(open_sources(paths))
