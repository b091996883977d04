"""Reading a gallery: what was painted on the map comes out where it was painted."""

from __future__ import annotations

import json
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from map_helpers import FakeEncoder, pixel_transform, texture, write_tif
from skylink.errors import GalleryError
from skylink.gallery import Gallery
from skylink.geo import distance_m
from skylink.imagery import Mosaic, open_sources
from skylink.types import Prior

LON, LAT = 35.2, 32.1
SIZE = 1500


@pytest.fixture(scope="module")
def map_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.5 km of smooth colours with a hole of nodata."""
    image = texture(SIZE, SIZE)
    image[200:500, 900:1300] = 0
    transform = pixel_transform("EPSG:3857", lon=LON, lat=LAT, size=SIZE, gsd_m=1.0)
    folder = tmp_path_factory.mktemp("map")
    return write_tif(
        folder / "map.tif", image, crs="EPSG:3857", transform=transform, nodata=0, tiled=True
    )


@pytest.fixture(scope="module")
def gallery(map_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """Two levels; 1 m and 3 m pixels, so 2 x 2 chunks and one."""
    out = tmp_path_factory.mktemp("gallery") / "g"
    return Gallery.build([map_path], out, tile_m=(32.0, 96.0), stride_m=30.0, encoder=FakeEncoder())


@pytest.fixture
def copied(gallery: Gallery, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(gallery.path, tmp_path / "copy"))


def test_info(gallery: Gallery, map_path: Path) -> None:
    info = gallery.info
    assert info.schema_version == 1
    assert [level.gsd_m for level in gallery.levels] == [1.0, 3.0]
    assert [level.cell_m for level in gallery.levels] == [16.0, 48.0]
    assert gallery.tile_count == info.tiles_kept == len(gallery.tiles())
    assert info.tiles_dropped > 0
    assert (info.chunks_stored, info.chunks_total) == (5, 5)
    assert gallery.area_km2 == pytest.approx((SIZE**2 - 300 * 400) / 1e6, rel=0.02)
    assert info.sources[0].path == str(map_path)
    assert Path(info.sources[0].absolute_path).is_absolute()
    assert (info.sources[0].kind, info.sources[0].crs) == ("raster", "EPSG:3857")
    ring = gallery.bounds_lonlat()[0]
    assert ring[0] == ring[-1]
    assert np.mean(ring, axis=0) == pytest.approx((LON, LAT), abs=1e-3)
    assert info.command(gallery.path).startswith(f"skylink build {map_path} --out ")


def test_tiles(gallery: Gallery) -> None:
    tiles = gallery.tiles()
    assert len(set(tiles.id.tolist())) == len(tiles)
    assert tiles.descriptor.shape == (len(tiles), 18)
    assert tiles.descriptor.dtype == np.float16
    norms = np.linalg.norm(tiles.descriptor.astype(np.float64), axis=1)
    assert norms == pytest.approx(np.ones(len(tiles)), abs=2e-3)
    lon, lat = gallery.areas[0].frame.to_lonlat(x_m=tiles.x_m, y_m=tiles.y_m)
    assert np.abs(lon - tiles.lon).max() < 1e-9
    assert np.abs(lat - tiles.lat).max() < 1e-9
    order = np.lexsort([tiles.level, tiles.area])
    assert (order == np.arange(len(order))).all()
    coarse = gallery.tiles(levels=[1])
    assert set(coarse.level.tolist()) == {1}
    assert 0 < len(coarse) < len(tiles)


def test_tiles_by_row_id(gallery: Gallery) -> None:
    found = gallery.tiles_table().search().select(["id"]).with_row_id(True).limit(None).to_arrow()
    names = dict(zip(found["_rowid"].to_pylist(), found["id"].to_pylist(), strict=True))
    rows = [list(names)[i] for i in (900, 3, 3, 1200)]
    tiles = gallery.tiles_at(rows)
    assert tiles.id.tolist() == [names[row] for row in rows]
    everything = gallery.tiles()
    for i, name in enumerate(tiles.id):
        at = int(np.flatnonzero(everything.id == name)[0])
        assert (tiles.descriptor[i] == everything.descriptor[at]).all()
        assert tiles.lon[i] == everything.lon[at]


def test_descriptors_are_the_encoders_own_standardised(gallery: Gallery, map_path: Path) -> None:
    """Encode one tile from the map itself and find the stored vector."""
    from skylink.encoder import standardise

    mosaic = Mosaic(open_sources([map_path]), gallery.areas[0].frame)
    tiles = gallery.tiles(levels=[0])
    statistics = gallery.statistics(0)
    for index in (0, 700, len(tiles) - 1):
        rgb, valid = mosaic.read(
            x_min=float(tiles.x_m[index]) - 16,
            y_max=float(tiles.y_m[index]) + 16,
            gsd_m=1.0,
            width_px=32,
            height_px=32,
        )
        if not valid.all():
            continue
        raw = FakeEncoder().encode(rgb[None])
        expected = standardise(
            raw, statistics.descriptor_mean, statistics.descriptor_std, FakeEncoder.parts
        )
        assert tiles.descriptor[index] == pytest.approx(expected[0], abs=2e-3)


def test_tile_rows_know_footprint_source_and_window(gallery: Gallery, map_path: Path) -> None:
    rows = gallery.tiles_table().search().limit(5000).to_list()
    assert len(rows) == gallery.tile_count
    row = next(r for r in rows if r["id"] == "a0-l0-r40-c10")
    assert (row["source"], row["gsd_m"], row["valid_fraction"]) == (0, 1.0, 1.0)
    corners = np.array(row["footprint"])
    sides = distance_m(
        lon1=corners[:, 0],
        lat1=corners[:, 1],
        lon2=np.roll(corners[:, 0], -1),
        lat2=np.roll(corners[:, 1], -1),
    )
    assert sides == pytest.approx([32] * 4, rel=1e-3)
    assert corners[0, 1] > corners[2, 1]
    (source,) = open_sources([map_path])
    col, height = row["window"][0], row["window"][3]
    x = source.transform.to_crs(col, row["window"][1])[0]
    west = source.transform.to_crs(0, 0)[0]
    assert 32 <= height <= 35
    assert x > west
    assert 0 <= row["window"][1] < SIZE
    # a tile at the hole has less than all, but no less than half
    shares = [r["valid_fraction"] for r in rows]
    assert 0.5 <= min(shares) < 0.99


def test_features_of_all_and_of_a_window(gallery: Gallery) -> None:
    whole = gallery.features(area=0, level=0)
    assert whole is not None
    rows, cols = whole.valid.shape
    assert whole.values.shape == (rows, cols, 6)
    assert whole.values.dtype == np.float16
    x_min, y_min, x_max, y_max = gallery.areas[0].bounds
    assert (whole.x0_m, whole.y0_m) == (x_min + 8, y_max - 8)
    assert whole.bounds[0] == x_min
    assert whole.bounds[3] == y_max
    assert whole.bounds[2] >= x_max
    assert whole.bounds[1] <= y_min
    assert not whole.values[~whole.valid].any()
    # 7 cells of the hole are surely invalid, and all else valid
    assert (~whole.valid).sum() == pytest.approx(300 * 400 / 256, rel=0.15)
    rng = np.random.default_rng(0)
    for _ in range(12):
        a, b = np.sort(rng.uniform(x_min - 200, x_max + 200, 2))
        c, d = np.sort(rng.uniform(y_min - 200, y_max + 200, 2))
        part = gallery.features(area=0, level=0, bounds=(a, c, b, d))
        if part is None:
            assert a > x_max or b < x_min or c > y_max or d < y_min
            continue
        left = round((part.x0_m - whole.x0_m) / 16)
        top = round((whole.y0_m - part.y0_m) / 16)
        inner = np.s_[top : top + part.valid.shape[0], left : left + part.valid.shape[1]]
        assert (part.valid == whole.valid[inner]).all()
        assert (part.values == whole.values[inner]).all()
        assert part.bounds[0] <= max(a, x_min) + 1e-6
        assert part.bounds[2] >= min(b, x_max) - 1e-6
    assert gallery.features(area=0, level=0, bounds=(9e5, 9e5, 9.1e5, 9.1e5)) is None


def test_a_feature_window_reads_only_its_chunks(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    take = Gallery._take
    monkeypatch.setattr(
        Gallery, "_take", lambda self, ids, columns: taken.extend(ids) or take(self, ids, columns)
    )
    x_min, _, _, y_max = gallery.areas[0].bounds
    gallery.features(area=0, level=0, bounds=(x_min, y_max - 10, x_min + 10, y_max))
    assert len(taken) == 1
    gallery.features(area=0, level=0)
    assert len(taken) == 5


def test_feature_cells_lie_where_the_map_has_them(gallery: Gallery, map_path: Path) -> None:
    """The first three channels are the cells' mean colours: compare with the map itself."""
    raster = gallery.features(area=0, level=0)
    assert raster is not None
    mosaic = Mosaic(open_sources([map_path]), gallery.areas[0].frame)
    for row, col in ((3, 5), (63, 64), (64, 63), (80, 20)):
        x, y = raster.x0_m + col * 16, raster.y0_m - row * 16
        rgb, valid = mosaic.read(x_min=x - 8, y_max=y + 8, gsd_m=1, width_px=16, height_px=16)
        assert valid.all()
        assert raster.values[row, col, :3] == pytest.approx(rgb.mean(axis=(0, 1)), abs=0.1)


def test_statistics_are_those_of_the_features(gallery: Gallery) -> None:
    raster = gallery.features(area=0, level=1)
    assert raster is not None
    cells = raster.values[raster.valid].astype(np.float64)
    statistics = gallery.statistics(1)
    assert statistics.cells >= len(cells)
    assert statistics.feature_mean == pytest.approx(cells.mean(axis=0), rel=0.02)
    assert statistics.feature_covariance.shape == (6, 6)
    assert np.diag(statistics.feature_covariance) == pytest.approx(cells.var(axis=0), rel=0.1)
    assert statistics.descriptor_mean.shape == statistics.descriptor_std.shape == (18,)
    with pytest.raises(IndexError, match="level 2"):
        gallery.statistics(2)


@pytest.mark.parametrize("heading", [0.0, 90.0, 217.0])
def test_picture_is_the_map_turned(gallery: Gallery, map_path: Path, heading: float) -> None:
    """Compare with the map read directly at turned positions, over a border of chunks."""
    x_m, y_m, size, gsd = 270.0, -250.0, 120, 1.3
    rgb, valid = gallery.picture(
        area=0, level=0, x_m=x_m, y_m=y_m, size_px=size, gsd_m=gsd, heading_deg=heading
    )
    assert valid.all()
    wide, _ = Mosaic(open_sources([map_path]), gallery.areas[0].frame).read(
        x_min=x_m - 200, y_max=y_m + 200, gsd_m=1.0, width_px=400, height_px=400
    )
    angle = math.radians(heading)
    errors = []
    for u, v in ((0, 0), (119, 0), (60, 60), (30, 100), (119, 119)):
        right, up = (u - 59.5) * gsd, (59.5 - v) * gsd
        dx = right * math.cos(angle) + up * math.sin(angle)
        dy = -right * math.sin(angle) + up * math.cos(angle)
        expected = wide[round(199.5 - dy), round(199.5 + dx)].astype(int)
        errors.append(np.abs(rgb[v, u] - expected).max())
    assert max(errors) < 25, errors
    assert np.mean(errors) < 10


def test_picture_outside_and_in_the_hole(gallery: Gallery) -> None:
    x_min, _, _, y_max = gallery.areas[0].bounds
    options: dict[str, Any] = {"area": 0, "level": 0, "size_px": 64, "gsd_m": 2.0}
    rgb, valid = gallery.picture(x_m=x_min, y_m=y_max, **options)
    assert valid[40:, 40:].all()
    assert not valid[:24].any()
    assert not rgb[~valid].any()
    _, valid = gallery.picture(x_m=x_min + 1100, y_m=y_max - 350, **options)
    assert not valid.any()
    _, valid = gallery.picture(x_m=1e7, y_m=0, **options)
    assert not valid.any()
    whole, valid = gallery.picture(area=0, level=0, x_m=0, y_m=0, size_px=64, gsd_m=40.0)
    assert valid.sum() == pytest.approx((SIZE**2 - 300 * 400) / 1600, rel=0.1)
    assert whole[valid].mean() == pytest.approx(128, abs=20)


def test_pictures_and_features_from_many_threads(gallery: Gallery) -> None:
    fresh = Gallery.open(gallery.path)
    expected = gallery.picture(area=0, level=0, x_m=0, y_m=0, size_px=90, gsd_m=1.0)[0]
    failures: list[Any] = []

    def work() -> None:
        try:
            for _ in range(5):
                rgb, _ = fresh.picture(area=0, level=0, x_m=0, y_m=0, size_px=90, gsd_m=1.0)
                assert (rgb == expected).all()
                assert fresh.features(area=0, level=0) is not None
                assert len(fresh.tiles(levels=[1])) > 0
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# --- priors


def expected_ids(gallery: Gallery, prior: Prior) -> set[str]:
    tiles = gallery.tiles()
    away = distance_m(lon1=prior.lon, lat1=prior.lat, lon2=tiles.lon, lat2=tiles.lat)
    return set(tiles.id[away <= prior.radius_m].tolist())


@pytest.mark.parametrize("radius_m", [1.0, 77.0, 400.0, 5000.0])
def test_prior_is_a_geodesic_disc(gallery: Gallery, radius_m: float) -> None:
    prior = Prior(lon=LON + 0.001, lat=LAT - 0.002, radius_m=radius_m)
    found = Gallery.open(gallery.path).tiles(prior=prior)
    assert set(found.id.tolist()) == expected_ids(gallery, prior)
    # and from what is loaded already
    assert set(gallery.tiles(prior=prior).id.tolist()) == expected_ids(gallery, prior)


@pytest.mark.parametrize(
    ("lon", "lat", "crs"),
    [(180.0, -17.0, "EPSG:3832"), (30.0, 89.995, "EPSG:3413"), (0.0, -90.0, "EPSG:3031")],
)
def test_prior_across_the_antimeridian_and_at_the_poles(
    tmp_path: Path, lon: float, lat: float, crs: str
) -> None:
    transform = pixel_transform(crs, lon=lon, lat=lat, size=600, gsd_m=2.0)
    path = write_tif(tmp_path / "map.tif", texture(600, 600), crs=crs, transform=transform)
    gallery = Gallery.build(
        [path], tmp_path / "g", tile_m=(64.0,), stride_m=40.0, encoder=FakeEncoder()
    )
    assert gallery.area_km2 == pytest.approx(1.44, rel=0.03)
    for offset in (0.0, 0.0005):
        for radius in (150.0, 500.0):
            prior = Prior(lon=lon - offset, lat=lat + (offset if lat < 0 else 0), radius_m=radius)
            found = Gallery.open(gallery.path).tiles(prior=prior)
            assert set(found.id.tolist()) == expected_ids(gallery, prior)
            assert len(found) == pytest.approx(math.pi * radius**2 / 1600, rel=0.15)


# --- checks


def test_check_encoder(gallery: Gallery) -> None:
    gallery.check_encoder(FakeEncoder())
    with pytest.raises(GalleryError, match="built with encoder fake") as caught:
        gallery.check_encoder(FakeEncoder(fingerprint="other"))
    assert "skylink build" in (caught.value.hint or "")


def test_no_gallery(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="no such gallery"):
        Gallery.open(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GalleryError, match="not a gallery"):
        Gallery.open(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(GalleryError, match="this is a file"):
        Gallery.open(tmp_path / "file")


def test_other_schema_version_names_both(copied: Path) -> None:
    info = json.loads((copied / "gallery.json").read_text())
    info["schema_version"] = 7
    (copied / "gallery.json").write_text(json.dumps(info))
    with pytest.raises(GalleryError, match=r"schema version 7.*reads version 1"):
        Gallery.open(copied)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}'])
def test_damaged_json(copied: Path, text: str) -> None:
    (copied / "gallery.json").write_text(text)
    with pytest.raises(GalleryError):
        Gallery.open(copied)


def test_missing_and_changed_files(copied: Path, gallery: Gallery) -> None:
    Gallery.open(copied).verify()
    largest = max(gallery.info.files, key=lambda f: f.size)
    path = copied / largest.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(GalleryError, match="was changed"):
        Gallery.open(copied)
    path.write_bytes(bytes(data[:-1]))
    with pytest.raises(GalleryError, match="bytes, not"):
        Gallery.open(copied)
    path.unlink()
    with pytest.raises(GalleryError, match=r"is missing") as caught:
        Gallery.open(copied)
    assert "build it again" in (caught.value.hint or "")


def test_large_galleries_are_hashed_only_by_verify(
    copied: Path, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skylink.gallery.FULL_CHECK_BYTES", 10)
    path = copied / next(f.path for f in gallery.info.files if f.path.endswith("statistics.npz"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    opened = Gallery.open(copied)
    with pytest.raises(GalleryError, match=r"statistics.npz was changed"):
        opened.verify()


def test_files_outside_the_folder_are_refused(copied: Path) -> None:
    info = json.loads((copied / "gallery.json").read_text())
    info["files"][0]["path"] = "../../etc/passwd"
    (copied / "gallery.json").write_text(json.dumps(info))
    with pytest.raises(GalleryError, match="outside it"):
        Gallery.open(copied)


def test_an_index_made_later_does_not_break_it(copied: Path) -> None:
    table = Gallery.open(copied).tiles_table()
    from lancedb.index import BTree

    table.create_index("level", config=BTree())
    assert len(Gallery.open(copied).tiles()) == Gallery.open(copied).tile_count
