"""Wrong telemetry by exactly what the table says, and crops whose truth moves with them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from map_helpers import texture
from skylink.camera import focal_px, ground_to_pixel
from skylink.conditions import CONDITIONS, SEVERITIES, apply, view_shift_m
from skylink.types import CameraPose, Query, Telemetry

SEEDS = range(16)


def photo(*, tilt: float = 0.0, heading: float = 0.0, hfov: float = 60.0) -> Query:
    return Query(
        name="x", image=texture(90, 120, 4),
        telemetry=Telemetry(
            relative_altitude_m=100, heading_deg=heading, camera_tilt_from_nadir_deg=tilt,
            horizontal_fov_deg=hfov,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("severity", SEVERITIES)
def test_errors_are_as_large_as_said_and_to_both_sides(severity: int) -> None:
    query = photo(tilt=40, heading=10)
    told = {
        name: [apply(query, name, severity, seed).telemetry for seed in SEEDS]
        for name in ("heading-error", "tilt-error", "altitude-error")
    }
    heading = {t.heading_deg for t in told["heading-error"]}
    level = CONDITIONS["heading-error"].level(severity)
    assert heading == {10 - level, 10 + level}
    tilt = {t.camera_tilt_from_nadir_deg for t in told["tilt-error"]}
    level = CONDITIONS["tilt-error"].level(severity)
    assert tilt == {40 - level, 40 + level}
    altitude = {t.relative_altitude_m for t in told["altitude-error"]}
    level = CONDITIONS["altitude-error"].level(severity)
    assert sorted(altitude) == pytest.approx([100 / level, 100 * level])


def test_a_tilt_stays_a_tilt() -> None:
    for seed in SEEDS:
        down = apply(photo(tilt=0), "tilt-error", 5, seed).telemetry
        assert down.camera_tilt_from_nadir_deg == 25
        flat = apply(photo(tilt=78), "tilt-error", 5, seed).telemetry
        assert flat.camera_tilt_from_nadir_deg == 53


@pytest.mark.parametrize("severity", SEVERITIES)
def test_crops_of_nadir_photos_are_photos_from_another_place(severity: int) -> None:
    """Straight down: the crop is what a drone with the new field of view sees `shift` away."""
    query = photo(heading=90)
    f = focal_px(hfov_deg=60, width_px=120)
    places = set()
    for seed in SEEDS:
        crop = apply(query, "off-centre-crop", severity, seed)
        height, width = crop.image.shape[:2]
        hfov = crop.telemetry.horizontal_fov_deg
        assert hfov is not None
        assert focal_px(hfov_deg=hfov, width_px=width) == pytest.approx(f)
        assert crop.telemetry.heading_deg == 90
        shift = view_shift_m(query, "off-centre-crop", severity, seed)
        assert shift is not None
        east, north = shift  # looking east: right of the photo is south, up is east
        col, row = 59.5 - north * f / 100, 44.5 - east * f / 100
        left, top = round(col - (width - 1) / 2), round(row - (height - 1) / 2)
        assert np.array_equal(crop.image, query.image[top : top + height, left : left + width])
        places.add((left, top))
    assert len(places) == 4, "any corner"


def test_the_view_point_of_an_oblique_crop_is_the_ground_at_its_centre() -> None:
    query = photo(tilt=50, heading=200)
    pose = CameraPose(altitude_m=100, heading_deg=200, tilt_deg=50, hfov_deg=60)
    for seed in SEEDS:
        crop = apply(query, "off-centre-crop", 4, seed)
        shift = view_shift_m(query, "off-centre-crop", 4, seed)
        assert shift is not None
        ground = np.array([pose.offset_m[0] + shift[0], pose.offset_m[1] + shift[1], 1.0])
        x, y, depth = ground_to_pixel(pose, width_px=120, height_px=90) @ ground
        assert depth > 0
        col, row = x / depth, y / depth
        height, width = crop.image.shape[:2]
        top, left = round(row - (height - 1) / 2), round(col - (width - 1) / 2)
        assert (top, left) in {
            (0, 0),
            (0, 120 - width),
            (90 - height, 0),
            (90 - height, 120 - width),
        }
        assert np.array_equal(crop.image, query.image[top:, left:][:height, :width])


def test_near_the_horizon_the_lower_corner_is_taken() -> None:
    query = photo(tilt=75)
    for seed in SEEDS:
        shift = view_shift_m(query, "off-centre-crop", 5, seed)
        assert shift is not None
        assert shift[1] < 0, "nearer to the drone, which looks north"


def test_a_crop_without_a_pose_has_no_known_truth() -> None:
    query = photo()
    for name in ("heading_deg", "relative_altitude_m", "horizontal_fov_deg"):
        less = dataclasses.replace(query, telemetry=query.telemetry.without(name))
        assert view_shift_m(less, "off-centre-crop", 2) is None
        assert apply(less, "off-centre-crop", 2).image.shape == (72, 96, 3)


def test_rotation() -> None:
    query = photo(tilt=20, heading=5)
    half = apply(query, "rotation", 5)
    assert np.array_equal(half.image, query.image[::-1, ::-1])
    assert half.telemetry.heading_deg is None
    assert half.telemetry.camera_tilt_from_nadir_deg == 20
    assert half.telemetry.horizontal_fov_deg == pytest.approx(60)
    for seed in SEEDS:
        quarter = apply(query, "rotation", 3, seed)
        hfov = quarter.telemetry.horizontal_fov_deg
        assert hfov is not None
        share = math.tan(math.radians(hfov / 2)) / math.tan(math.radians(30))
        assert share == pytest.approx(90 / 120)  # the width shows what the height did
    turns = {apply(query, "rotation", 3, seed).image.tobytes() for seed in SEEDS}
    assert len(turns) == 2, "left or right"


def test_rotation_leaves_no_empty_corner() -> None:
    white = dataclasses.replace(photo(), image=np.full((90, 160, 3), 255, np.uint8))
    cross = white.image.copy()
    cross[[0, -1]] = cross[:, [0, -1]] = 0  # its frame would show first
    framed = dataclasses.replace(white, image=cross)
    for severity in (1, 2, 4):
        image = apply(framed, "rotation", severity).image
        assert (image[10:-10, 10:-10] == 255).all()
        assert (image < 255).any(), "the largest rectangle touches the frame"
