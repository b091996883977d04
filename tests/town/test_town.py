"""The made-up town: that its map and photos tell the same truth."""

from __future__ import annotations

import csv
import dataclasses
import math

import cv2
import numpy as np
import pytest
from PIL import Image

from skylink.camera import ground_to_pixel, render_view
from skylink.errors import OptionError, OutputError
from skylink.town import (
    DRONE,
    SATELLITE,
    Town,
    plan_shots,
    render_map,
    render_photo,
    write_inputs,
    write_map,
)
from skylink.types import CameraPose

SIZE_M, CELL_M = 320.0, 1.0


@pytest.fixture(scope="module")
def town() -> Town:
    return Town.generate(seed=3, size_m=SIZE_M, cell_m=CELL_M)


@pytest.fixture(scope="module")
def satellite(town: Town) -> np.ndarray:
    return render_map(town, SATELLITE, gsd_m=CELL_M)


def _pose(tilt_deg: float = 0.0, heading_deg: float = 0.0, altitude_m: float = 100.0) -> CameraPose:
    return CameraPose(
        altitude_m=altitude_m, heading_deg=heading_deg, tilt_deg=tilt_deg, hfov_deg=70.0
    )


def _under(view: tuple[float, float], pose: CameraPose) -> dict[str, float]:
    """Where the camera stands so that it looks at `view`."""
    east, north = pose.offset_m
    return {"x_m": view[0] - east, "y_m": view[1] - north}


def _flat(town: Town) -> Town:
    """The town ironed: everything on one level, so that photos obey plane geometry exactly."""
    level = np.full_like(town.height, 5.0)
    owner = np.zeros_like(town.owner)
    return dataclasses.replace(town, height=level, terrain=level, owner=owner, _lights={})


def _edges(image: np.ndarray) -> np.ndarray:
    """Grey without its broad shades: what stays the same in another light."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return cv2.GaussianBlur(grey, (0, 0), 1.0) - cv2.GaussianBlur(grey, (0, 0), 12.0)


def _likeness(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    x, y = a[mask] - a[mask].mean(), b[mask] - b[mask].mean()
    return float((x * y).sum() / math.sqrt(float((x * x).sum() * (y * y).sum())))


def _scores(photo: np.ndarray, pose: CameraPose, satellite: np.ndarray, at: tuple[float, float]):
    """Likeness of the photo's view to the map at the true place, and at places 10..70 m off."""
    size = 97
    view = render_view(photo, pose, gsd_m=CELL_M, size_px=size)
    mask = cv2.erode(view.mask.astype(np.uint8), np.ones((9, 9))) > 0
    seen, ground = _edges(view.image), _edges(satellite)

    def crop(x: float, y: float) -> np.ndarray:
        centre = (SIZE_M / 2 + x) / CELL_M - 0.5, (SIZE_M / 2 - y) / CELL_M - 0.5
        return cv2.getRectSubPix(ground, (size, size), centre)

    shifts = [
        (r * math.cos(a), r * math.sin(a))
        for r in (10.0, 25.0, 45.0, 70.0)
        for a in np.arange(0, 6.2, 0.6)
    ]
    here = _likeness(seen, crop(*at), mask)
    return here, [_likeness(seen, crop(at[0] + dx, at[1] + dy), mask) for dx, dy in shifts]


def test_same_seed_same_bytes_other_seed_other_town(town: Town) -> None:
    again = Town.generate(seed=3, size_m=SIZE_M, cell_m=CELL_M)
    other = Town.generate(seed=4, size_m=SIZE_M, cell_m=CELL_M)
    for name in ("height", "terrain", "colour", "material", "tone", "owner"):
        assert getattr(town, name).tobytes() == getattr(again, name).tobytes(), name
    assert np.mean(town.colour != other.colour) > 0.5
    pose = _pose(tilt_deg=30)
    one = render_photo(town, x_m=0, y_m=0, pose=pose, width_px=160, height_px=90)
    two = render_photo(again, x_m=0, y_m=0, pose=pose, width_px=160, height_px=90)
    assert one.tobytes() == two.tobytes()
    assert render_map(town).tobytes() == render_map(again).tobytes()


def test_arrays_are_as_documented(town: Town) -> None:
    n = round(SIZE_M / CELL_M)
    assert town.height.shape == town.terrain.shape == (n, n)
    assert town.height.dtype == town.terrain.dtype == np.float32
    assert town.colour.shape == (n, n, 3)
    assert town.colour.dtype == np.uint8
    assert (town.height >= town.terrain - 1e-3).all()
    assert town.owner.max() <= len(town.things.buildings)
    assert len(town.things.buildings) > 20
    assert len(town.things.trees) > 50
    assert len(town.things.cars) > 10


@pytest.mark.parametrize(
    "options", [{"size_m": 50.0}, {"size_m": 1e6}, {"cell_m": 0.01}, {"seed": -1}]
)
def test_absurd_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        Town.generate(**options)  # type: ignore[arg-type]


def test_map_georeference_leads_back_to_a_landmark(town: Town, tmp_path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.warp import transform

    path = write_map(town, tmp_path / "new" / "map.tif", gsd_m=CELL_M)
    assert [p.name for p in path.parent.iterdir()] == ["map.tif"]
    building = max(town.things.buildings, key=lambda b: b.w * b.d)
    lon, lat = town.frame.point(x_m=building.x, y_m=building.y)
    with rasterio.open(path) as file:
        assert file.count == 3
        assert file.dtypes == ("uint8",) * 3
        (x,), (y,) = transform("EPSG:4326", file.crs, [lon], [lat])
        row, column = file.index(x, y)
        back_x, back_y = file.xy(row, column)
        picture = np.moveaxis(file.read(), 0, -1)
    assert (x, y) == pytest.approx((building.x, building.y), abs=0.01)
    assert math.hypot(back_x - building.x, back_y - building.y) <= 0.75 * CELL_M
    assert town.grid.at(building.x, building.y) == (row, column)
    assert np.abs(picture.astype(int) - render_map(town, gsd_m=CELL_M)).mean() < 6  # JPEG


def test_unwritable_map_says_so_and_keeps_the_old_file(town: Town, tmp_path) -> None:
    target = tmp_path / "map.tif"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(OutputError, match=r"map\.tif"):
        write_map(town, target, gsd_m=CELL_M)
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]
    assert (target / "old").read_text() == "old"


@pytest.mark.parametrize(
    ("tilt", "heading"), [(0.0, 0.0), (0.0, 215.0), (35.0, 70.0), (50.0, 310.0)]
)
def test_flat_ground_obeys_the_pinhole_of_skylink_camera(
    town: Town, tilt: float, heading: float
) -> None:
    """A patch painted on flat ground appears where `ground_to_pixel` says, to half a pixel."""
    flat = _flat(town)
    pose, view = _pose(tilt, heading, 90.0), (12.0, -9.0)
    camera = _under(view, pose)
    for spot in ((view[0] + 8, view[1] + 5), (view[0] - 14, view[1] - 6)):
        colour = np.zeros_like(flat.colour)
        row, column = flat.grid.at(*spot)
        colour[row - 2 : row + 3, column - 2 : column + 3] = 255
        plain = dataclasses.replace(
            flat, colour=colour, material=np.zeros_like(flat.material), _lights={}
        )
        look = dataclasses.replace(DRONE, noise=0.0, haze=0.0)
        photo = render_photo(
            plain, **camera, pose=pose, look=look, width_px=480, height_px=360
        ).astype(float)
        xs, ys = plain.grid.axes()
        ground = np.array([xs[column] - camera["x_m"], ys[row] - camera["y_m"], 1.0])
        px, py, depth = ground_to_pixel(pose, width_px=480, height_px=360) @ ground
        v, u = np.mgrid[0:360, 0:480]
        near = np.hypot(u - px / depth, v - py / depth) < 40  # farther off are mirror images
        light = np.where(near, photo.mean(axis=2) ** 2, 0)
        assert light.max() > 150**2
        found = (u * light).sum() / light.sum(), (v * light).sum() / light.sum()
        assert found == pytest.approx((px / depth, py / depth), abs=0.6)


@pytest.mark.parametrize("tilt", [0.0, 30.0, 48.0])
def test_photo_matches_the_map_at_its_true_place(
    town: Town, satellite: np.ndarray, tilt: float
) -> None:
    """Under another sun and season and after changes, the true place is still the likeliest."""
    later = town.changed(1)
    view, pose = (10.0, 15.0), _pose(tilt, 130.0, 90.0)
    photo = render_photo(later, **_under(view, pose), pose=pose, width_px=480, height_px=360)
    here, elsewhere = _scores(photo, pose, satellite, view)
    assert here > 0.2
    assert here > max(elsewhere) + 0.05


def test_changes_touch_a_part_only(town: Town) -> None:
    later = town.changed(1)
    same = town.changed(1)
    assert later.colour.tobytes() == same.colour.tobytes()
    moved = (later.colour != town.colour).any(axis=-1)
    assert 0.005 < moved.mean() < 0.35
    assert (town.changed(2).colour != later.colour).any()
    assert later.terrain is town.terrain
    assert len(later.things.trees) < len(town.things.trees)


def test_roofs_lean_away_from_nadir_and_hide_what_is_behind(town: Town) -> None:
    """A tower's roof shows where `ground_to_pixel` puts a point of its height, not its foot."""
    flat = _flat(town)
    height, colour = flat.height.copy(), np.full_like(flat.colour, 90)
    row, column = flat.grid.at(25.0, 0.0)
    tower = np.s_[row - 4 : row + 5, column - 4 : column + 5]
    height[tower] += 40.0
    colour[tower] = (250, 40, 40)
    scene = dataclasses.replace(
        flat, height=height, colour=colour, material=np.zeros_like(flat.material), _lights={}
    )
    pose = _pose(altitude_m=100.0)
    photo = render_photo(scene, x_m=0, y_m=0, pose=pose, width_px=400, height_px=400)
    red = photo[..., 0].astype(int) - photo[..., 1] > 60
    u = np.nonzero(red)[1]
    xs, _ = scene.grid.axes()
    foot = ground_to_pixel(pose, width_px=400, height_px=400) @ [xs[column] + 4.5, 0, 1]
    roof = ground_to_pixel(_pose(altitude_m=60.0), width_px=400, height_px=400) @ [
        xs[column] + 4.5,
        0,
        1,
    ]
    assert roof[0] / roof[2] - foot[0] / foot[2] > 45
    assert u.max() == pytest.approx(roof[0] / roof[2], abs=5)  # a cell's width


def test_sky_above_the_horizon_and_ground_beyond_the_edge(town: Town) -> None:
    photo = render_photo(
        town, x_m=0, y_m=0, pose=_pose(tilt_deg=80, altitude_m=60), width_px=160, height_px=120
    )
    sky = photo[:20].astype(float).mean(axis=(0, 1))
    assert sky[2] > sky[0]
    assert photo[:20].std(axis=(0, 1)).max() < photo[60:].std(axis=(0, 1)).min()


def test_shots_keep_to_the_map() -> None:
    town = Town.generate(seed=5, size_m=600, cell_m=2.0)
    shots = plan_shots(town, seed=5, photos=40)
    assert plan_shots(town, seed=5, photos=40) == shots
    assert {0.0} < {s.pose.tilt_deg for s in shots}
    for shot in shots:
        assert max(abs(v) for v in shot.view_m) <= 600 / 2 - 120 + 1e-6
        assert 80 <= shot.pose.altitude_m <= 150
        assert 0 <= shot.pose.tilt_deg <= 50


def test_inputs_tell_the_truth_twice(tmp_path) -> None:
    """The CSV and the photos' own EXIF and XMP agree; camera and ground points fit together."""
    made = write_inputs(tmp_path / "demo", seed=3, photos=2, size_m=SIZE_M, cell_m=2.0)
    assert made.map == tmp_path / "demo" / "map.tif"
    assert made.queries == tmp_path / "demo" / "photos" / "queries.csv"
    with made.queries.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["file"] for r in rows] == [p.name for p in made.photos]
    town = Town.generate(seed=3, size_m=SIZE_M, cell_m=2.0)
    for row, path, shot in zip(rows, made.photos, plan_shots(town, seed=3, photos=2), strict=True):
        x, y = town.frame.to_xy(lon=float(row["ground_lon"]), lat=float(row["ground_lat"]))
        assert (float(x), float(y)) == pytest.approx(shot.view_m, abs=0.01)
        with Image.open(path) as image:
            assert image.size == (960, 540)
            exif, xmp = image.getexif(), image.info["xmp"].decode()
        gps = exif.get_ifd(0x8825)
        d, m, s = (float(v) for v in gps[2])
        assert d + m / 60 + s / 3600 == pytest.approx(float(row["lat"]), abs=1e-7)
        hfov = math.degrees(2 * math.atan(0.4 * math.hypot(36, 24) / exif.get_ifd(0x8769)[0xA405]))
        assert hfov == pytest.approx(float(row["horizontal_fov_deg"]), abs=0.5)
        focal = 480 / math.tan(math.radians(float(row["horizontal_fov_deg"])) / 2)
        assert f'CalibratedFocalLength="{focal:.1f}' in xmp
        assert f'RelativeAltitude="{float(row["relative_altitude_m"]):+.2f}"' in xmp
        assert f'GimbalPitchDegree="{float(row["camera_tilt_from_nadir_deg"]) - 90:+.2f}"' in xmp
        assert float(row["relative_altitude_m"]) == pytest.approx(shot.pose.altitude_m, rel=0.1)
