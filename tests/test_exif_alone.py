"""A photo that knows its lens and no more: heading, altitude and tilt are searched, and named."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from scene_helpers import HFOV_DEG, Scene, error_m, scene, scene_encoder, scene_gallery
from skylink.camera import ground_width_m
from skylink.hypotheses import UNKNOWN_WIDTHS, SearchSpace, hypotheses
from skylink.localizer import Localizer
from skylink.photo import load_photo
from skylink.results import Outcome, pose_found, to_csv, to_geojson, to_table
from skylink.types import Estimate

REAL = Path(__file__).parents[2] / "shared" / "data" / "exif"
EVERYTHING = "24 headings x 2 tilts x 4 altitudes"
ABOVE_SEA_M = 987.0
HEADING_DEG, ALTITUDE_M = 70.0, 130.0


@pytest.fixture(scope="module")
def hills(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("hills"))


@pytest.fixture(scope="module")
def localizer(hills: Scene, tmp_path_factory: pytest.TempPathFactory) -> Localizer:
    gallery = scene_gallery([hills], tmp_path_factory.mktemp("gallery") / "g")
    return Localizer(gallery, encoder=scene_encoder())


@pytest.fixture(scope="module")
def photo(hills: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From 139 m above a known place, with a lens of 60 degrees and a GPS receiver in its EXIF."""
    query = hills.photo(col=240, row=200, heading_deg=HEADING_DEG)
    tags = Image.Exif()
    # 60 degrees over a width of 4:3: half a diagonal of 21.63 mm is 5/4 of half the width
    tags.get_ifd(0x8769)[0xA405] = 30  # mm, 35 mm equivalent: 60.0 degrees
    tags.get_ifd(0x8825).update({1: "N", 2: (32.0, 6.0, 0.0), 3: "E", 4: (35.0, 12.0, 0.0),
                                 6: ABOVE_SEA_M})  # fmt: skip
    path = tmp_path_factory.mktemp("photo") / "IMG_1.jpg"
    Image.fromarray(query.image).save(path, quality=95, exif=tags)
    return path


@pytest.fixture(scope="module")
def found(localizer: Localizer, photo: Path) -> Estimate:
    return localizer.locate(photo)


def test_the_lens_is_known_and_nothing_else(photo: Path) -> None:
    telemetry = load_photo(photo).telemetry
    assert telemetry.horizontal_fov_deg == pytest.approx(HFOV_DEG, abs=0.1)
    assert telemetry.lat == pytest.approx(32.1)
    assert telemetry.relative_altitude_m is None  # 987 m is above the sea
    assert telemetry.heading_deg is None
    assert telemetry.camera_tilt_from_nadir_deg is None


def test_place_and_pose_are_found(found: Estimate, hills: Scene) -> None:
    assert error_m(found.candidates[0], hills.point(col=240, row=200)) < 10
    assert found.pose is not None
    assert abs((found.pose.heading_deg - HEADING_DEG + 180) % 360 - 180) < 8
    assert found.pose.altitude_m == pytest.approx(139, rel=0.15)
    assert found.pose.tilt_deg < 20
    assert found.pose.hfov_deg == pytest.approx(HFOV_DEG, abs=0.1)
    assert not found.aligned
    assert found.camera_lon is None  # not without an altitude that someone measured
    assert found.searched == EVERYTHING
    assert (found.poses_tried, found.poses_planned, found.cut) == (192, 192, False)


def test_results_say_what_was_found_and_what_was_known(found: Estimate) -> None:
    assert found.pose is not None
    outcome = Outcome(name="IMG_1.jpg", estimate=found)
    words = pose_found(found)
    assert words == (
        f"found heading {found.pose.heading_deg:.0f} deg, altitude {found.pose.altitude_m:.0f} m, "
        f"tilt {found.pose.tilt_deg:.0f} deg"
    )
    assert words in str(next(iter(to_table([outcome]).columns[-1].cells)))
    source = {"heading": "searched", "altitude": "searched", "tilt": "searched", "fov": "known"}
    view = json.loads(to_geojson([outcome]))["features"][0]["properties"]
    assert view["pose_from"] == source
    assert view["altitude_m"] == pytest.approx(found.pose.altitude_m, abs=0.01)
    assert view["fov_deg"] == pytest.approx(HFOV_DEG, abs=0.1)
    assert (view["poses_tried"], view["poses_planned"], view["cut"]) == (192, 192, False)
    (row,) = csv.DictReader(io.StringIO(to_csv([outcome])))
    assert row["pose_from"] == "heading=searched altitude=searched tilt=searched fov=known"
    assert (row["poses_tried"], row["poses_planned"], row["cut"]) == ("192", "192", "0")


def test_without_a_lens_the_assumption_is_said(hills: Scene, localizer: Localizer) -> None:
    photo = hills.photo(col=240, row=200)
    known = photo.telemetry.without("horizontal_fov_deg")
    estimate = localizer.locate(type(photo)(name="x", image=photo.image, telemetry=known))
    assert estimate.pose_from["fov"] == "assumed"
    assert pose_found(estimate) == "with an assumed field of view of 70 deg"


needs_real = pytest.mark.skipif(
    not REAL.is_dir(),
    reason=f"needs real camera files in {REAL}, which are not part of the repository",
)


@pytest.mark.real
@needs_real
@pytest.mark.parametrize("file", ["caliterra_IMG_9354.jpg", "lewis_img_4074.jpg"])
def test_real_cameras_without_a_gimbal(localizer: Localizer, file: str) -> None:
    """Neither shows this map: what is asked is what was known, and what was searched."""
    estimate = localizer.locate(REAL / file)
    assert estimate.pose_from == {
        "heading": "searched", "altitude": "searched", "tilt": "searched", "fov": "known",
    }  # fmt: skip
    assert estimate.searched == EVERYTHING
    assert pose_found(estimate).startswith("found heading ")
    assert estimate.pose is not None
    widest_m = 96.0 * max(UNKNOWN_WIDTHS) * 1.4  # refined beyond the grid at the most
    assert ground_width_m(estimate.pose) < widest_m  # 300 m above the sea would be 400 m wide


@pytest.mark.real
@needs_real
def test_a_real_camera_with_a_gimbal() -> None:
    telemetry = load_photo(REAL / "beach_DJI_0018.JPG").telemetry
    tried = hypotheses(telemetry, SearchSpace(), tile_m=70.0)
    assert set(tried.pose_from.values()) == {"known"}
    assert tried.aligned
    assert tried.words == "3 altitudes for relief"
    assert {round(p.altitude_m, 1) for p in tried.poses} == {34.6, 39.8, 45.8}  # not 198 m
