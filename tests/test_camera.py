"""The camera over flat ground, against geometry worked out another way."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink import camera
from skylink.types import CameraPose

poses = st.builds(
    CameraPose,
    altitude_m=st.floats(5, 2000),
    heading_deg=st.floats(-360, 720),
    tilt_deg=st.floats(0, 80),
    hfov_deg=st.floats(20, 120),
)
sizes = st.tuples(st.integers(16, 5000), st.integers(16, 5000))


def project(pose: CameraPose, size: tuple[int, int], east: float, north: float) -> np.ndarray:
    """Photo pixel of a ground point (metres from under the camera)."""
    h = camera.ground_to_pixel(pose, width_px=size[0], height_px=size[1])
    x, y, depth = h @ np.array([east, north, 1.0])
    assert depth > 0
    return np.array([x / depth, y / depth])


@given(poses, sizes)
def test_the_view_point_is_the_image_centre(pose: CameraPose, size: tuple[int, int]) -> None:
    centre = project(pose, size, *pose.offset_m)
    np.testing.assert_allclose(centre, [(size[0] - 1) / 2, (size[1] - 1) / 2], atol=1e-6)


@given(poses, sizes, st.floats(-1, 1), st.floats(0, 1))
def test_pixel_to_ground_and_back(
    pose: CameraPose, size: tuple[int, int], u: float, v: float
) -> None:
    """Rays traced one by one, with axes from spherical angles, agree with the homography."""
    f = camera.focal_px(hfov_deg=pose.hfov_deg, width_px=size[0])
    x, y = u * size[0] / 2, v * size[1] / 2  # below the centre, so that the ray meets the ground
    h, t = math.radians(pose.heading_deg), math.radians(pose.tilt_deg)
    ahead = math.sin(t) * f - math.cos(t) * y
    down = math.cos(t) * f + math.sin(t) * y
    scale = pose.altitude_m / down
    east = scale * (ahead * math.sin(h) + x * math.cos(h))
    north = scale * (ahead * math.cos(h) - x * math.sin(h))
    pixel = project(pose, size, east, north)
    np.testing.assert_allclose(
        pixel, [(size[0] - 1) / 2 + x, (size[1] - 1) / 2 + y], atol=1e-5, rtol=1e-7
    )
    homography = camera.ground_to_pixel(pose, width_px=size[0], height_px=size[1])
    ground = np.linalg.inv(homography) @ [*pixel, 1.0]
    np.testing.assert_allclose(ground[:2] / ground[2], [east, north], rtol=1e-5, atol=1e-3)


@given(poses)
def test_axes_are_a_right_handed_frame(pose: CameraPose) -> None:
    axes = camera.camera_axes(pose)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    assert axes[0, 2] == 0  # no roll: the camera's right is level


@given(poses, st.floats(-180, 180), st.floats(-50, 50), st.floats(-50, 50))
def test_turning_the_camera_turns_the_ground(
    pose: CameraPose, turn: float, east: float, north: float
) -> None:
    turned = dataclasses.replace(pose, heading_deg=pose.heading_deg + turn)
    a = math.radians(turn)
    moved = [
        east * math.cos(a) + north * math.sin(a),
        -east * math.sin(a) + north * math.cos(a),
        1.0,
    ]
    before = camera.ground_to_pixel(pose, width_px=640, height_px=480) @ [east, north, 1.0]
    after = camera.ground_to_pixel(turned, width_px=640, height_px=480) @ moved
    np.testing.assert_allclose(before, after, atol=1e-6 * pose.altitude_m)


def nadir(**changes: float) -> CameraPose:
    values = {"altitude_m": 100.0, "heading_deg": 0.0, "tilt_deg": 0.0, "hfov_deg": 90.0}
    return CameraPose(**(values | changes))


def test_angles_by_hand() -> None:
    assert camera.focal_px(hfov_deg=90, width_px=1000) == pytest.approx(500)
    assert camera.vertical_fov_deg(hfov_deg=90, width_px=1000, height_px=1000) == pytest.approx(90)
    narrow = camera.vertical_fov_deg(hfov_deg=90, width_px=1600, height_px=900)
    assert narrow == pytest.approx(2 * math.degrees(math.atan(9 / 16)))
    altitude = camera.altitude_for_width_m(width_m=200, tilt_deg=60, hfov_deg=90)
    assert altitude == pytest.approx(50)
    assert nadir(tilt_deg=45, heading_deg=90).offset_m == pytest.approx((100, 0), abs=1e-9)
    assert nadir(tilt_deg=45, heading_deg=180).offset_m == pytest.approx((0, -100), abs=1e-9)


def test_nadir_by_hand() -> None:
    """90 degrees at 100 m: 200 m over the width; the top of the picture is the heading."""
    centre = np.array([499.5, 499.5])
    size = (1000, 1000)
    np.testing.assert_allclose(project(nadir(), size, 50, 0) - centre, [250, 0], atol=1e-9)
    np.testing.assert_allclose(project(nadir(), size, 0, 50) - centre, [0, -250], atol=1e-9)
    east_up = nadir(heading_deg=90)
    np.testing.assert_allclose(project(east_up, size, 50, 0) - centre, [0, -250], atol=1e-9)
    np.testing.assert_allclose(project(east_up, size, 0, 50) - centre, [-250, 0], atol=1e-9)


def test_tilt_by_hand() -> None:
    """At 45 degrees with 90 degrees of view, the bottom edge looks straight down."""
    pixel = project(nadir(tilt_deg=45), (1000, 1000), 0, 0)
    np.testing.assert_allclose(pixel, [499.5, 999.5], atol=1e-6)


def ground_colour(east: np.ndarray, north: np.ndarray, cell_m: float) -> np.ndarray:
    """A checkerboard, made unlike itself when turned or mirrored: red east, green north of 0."""
    check = (np.floor(east / cell_m) + np.floor(north / cell_m)) % 2
    return np.stack([100 + 100 * (east > 0), 100 + 100 * (north > 0), 255 * check], axis=-1)


def photograph(pose: CameraPose, width: int, height: int, cell_m: float) -> np.ndarray:
    """The painted ground seen by a camera, 2 x 2 samples a pixel, sky black."""
    inverse = np.linalg.inv(camera.ground_to_pixel(pose, width_px=width, height_px=height))
    total = np.zeros((height, width, 3))
    for dx in (-1 / 4, 1 / 4):
        for dy in (-1 / 4, 1 / 4):
            y, x = np.mgrid[0:height, 0:width].astype(float)
            ground = np.tensordot(inverse, np.stack([x + dx, y + dy, np.ones_like(x)]), axes=1)
            colours = ground_colour(ground[0] / ground[2], ground[1] / ground[2], cell_m)
            total += np.where(ground[2][..., None] > 0, colours, 0)
    return np.asarray(np.rint(total / 4), np.uint8)


@pytest.mark.parametrize(
    ("pose", "gsd_m"),
    [
        (nadir(), 0.5),
        (nadir(heading_deg=30), 0.5),
        (nadir(heading_deg=200, tilt_deg=40, hfov_deg=70), 0.4),
        (nadir(heading_deg=305, tilt_deg=60, altitude_m=60, hfov_deg=80), 0.5),
        (nadir(heading_deg=77), 1.3),  # coarser than the photo by 4: the shrunk source
        (nadir(heading_deg=77, tilt_deg=30), 2.0),
    ],
)
def test_a_painted_ground_is_recovered_in_metres(pose: CameraPose, gsd_m: float) -> None:
    cell_m, size_px = 20.0, 161
    photo = photograph(pose, 600, 409, cell_m)
    view = camera.render_view(photo, pose, gsd_m=gsd_m, size_px=size_px)
    assert view.image.shape == (size_px, size_px, 3)
    assert view.mask.shape == (size_px, size_px)
    east0, north0 = pose.offset_m
    step = (np.arange(size_px) - (size_px - 1) / 2) * gsd_m
    east, north = np.meshgrid(east0 + step, north0 - step)
    expected = ground_colour(east, north, cell_m)
    # away from the edges of the paint, where a pixel mixes colours
    clear = view.mask.copy()
    for value in (east, north):
        off = np.abs(value / cell_m - np.rint(value / cell_m)) * cell_m
        clear &= off > 2.5 * gsd_m
    clear &= np.hypot(east, north) < 2.0 * pose.altitude_m  # farther, photo pixels are too large
    assert clear.sum() > 1000  # else nothing was compared
    wrong = np.abs(view.image.astype(int) - expected).max(axis=-1) > 40
    assert wrong[clear].mean() < 0.003
    assert not view.image[~view.mask].any()


def test_the_mask_of_a_nadir_photo_is_its_rectangle() -> None:
    photo = np.full((300, 400, 3), 200, np.uint8)  # 200 m x 150 m on the ground
    gsd_m = 0.97  # at 1.0 the edges fall on pixel centres, to be decided by rounding
    view = camera.render_view(photo, nadir(), gsd_m=gsd_m, size_px=301)
    rows, columns = np.flatnonzero(view.mask.any(axis=1)), np.flatnonzero(view.mask.any(axis=0))
    assert columns.size == pytest.approx(200 / gsd_m, abs=1)
    assert rows.size == pytest.approx(150 / gsd_m, abs=1)
    assert view.mask.sum() == rows.size * columns.size
    assert np.array_equal(view.mask, view.mask[::-1, ::-1])
    assert np.all(view.image[view.mask] == 200)
    turned = camera.render_view(photo, nadir(heading_deg=90), gsd_m=gsd_m, size_px=301)
    assert np.array_equal(turned.mask, np.rot90(view.mask))


def test_near_the_horizon_the_mask_is_cut() -> None:
    photo = np.full((600, 800, 3), 255, np.uint8)
    pose = nadir(tilt_deg=80, hfov_deg=80)
    view = camera.render_view(photo, pose, gsd_m=10.0, size_px=401)
    assert view.mask[200, 200]  # the view point itself is seen
    half = np.arange(401) - 200
    east = pose.offset_m[0] + half[None, :] * 10.0
    north = pose.offset_m[1] - half[:, None] * 10.0
    distance = np.broadcast_to(np.hypot(east, north), view.mask.shape)
    far = pose.altitude_m / math.tan(math.radians(camera.HORIZON_MARGIN_DEG))
    assert distance[view.mask].max() <= far
    assert distance[view.mask].max() > far - 15
    behind = np.broadcast_to(north < -pose.altitude_m * 0.2, view.mask.shape)
    assert not view.mask[behind].any()


def test_a_photo_shrunk_to_few_pixels_stays_centred() -> None:
    """30 rows shrink to 1.5, rounded to 2: the middle must stay the middle."""
    ramp = np.linspace(0, 255, 30).astype(np.uint8)
    photo = np.repeat(np.repeat(ramp[:, None, None], 400, axis=1), 3, axis=2)
    view = camera.render_view(photo, nadir(), gsd_m=10.0, size_px=21)
    assert view.image[10, 10, 0] == pytest.approx(127, abs=3)


@given(poses)
def test_any_pose_renders(pose: CameraPose) -> None:
    photo = np.full((30, 40, 3), 99, np.uint8)
    view = camera.render_view(photo, pose, gsd_m=pose.altitude_m / 20, size_px=33)
    assert view.mask[16, 16]
    assert view.image[view.mask].min() >= 98
    assert not view.image[~view.mask].any()
