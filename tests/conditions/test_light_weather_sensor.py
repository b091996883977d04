"""That dark is dark and fog lies where it is far: what each condition does to a photo."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from map_helpers import texture
from skylink.conditions import CONDITIONS, SEVERITIES, apply
from skylink.conditions.pixels import from_linear, smooth_noise, to_linear
from skylink.conditions.weather import ground_distance
from skylink.types import Query, Telemetry

GREY = 128


def plain(grey: int = GREY, *, tilt: float | None = None, width: int = 400) -> Query:
    telemetry = Telemetry(camera_tilt_from_nadir_deg=tilt, horizontal_fov_deg=60)
    image = np.full((width * 3 // 4, width, 3), grey, np.uint8)
    return Query(name="plain", image=image, telemetry=telemetry)


def image_of(
    name: str, severity: int, query: Query | None = None, seed: int = 0
) -> NDArray[np.uint8]:
    return apply(query or plain(), name, severity, seed).image


def test_linear_light_there_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(from_linear(to_linear(levels)), levels)
    assert to_linear(np.array([188], np.uint8))[0] == pytest.approx(0.5, abs=0.005)
    assert from_linear([-1.0, 2.0]).tolist() == [0, 255]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_exposure_is_in_stops(severity: int) -> None:
    for name, sign in (("dark", -1), ("over-exposed", 1)):
        stops = sign * CONDITIONS[name].level(severity)
        light = to_linear(image_of(name, severity, plain(60)))
        expected = to_linear(np.uint8([60]))[0] * 2.0**stops  # type: ignore[arg-type]
        assert light.mean() == pytest.approx(expected, abs=0.002, rel=0.02)
    assert (image_of("over-exposed", 3, plain(240)) == 255).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_left(severity: int) -> None:
    query = dataclasses.replace(plain(), image=texture(100, 120, 2))
    flat = image_of("low-contrast", severity, query)
    share = CONDITIONS["low-contrast"].level(severity)
    assert flat.mean((0, 1)) == pytest.approx(query.image.mean((0, 1)), abs=1)
    assert flat.std((0, 1)) == pytest.approx(share * query.image.std((0, 1)), rel=0.05)


def test_casts_are_warm_or_cold() -> None:
    looks = set()
    for seed in range(8):
        red, green, blue = image_of("colour-cast", 3, seed=seed)[0, 0].astype(int)
        assert green == GREY
        assert (red - green) * (blue - green) < 0
        looks.add(red > blue)
    assert looks == {True, False}


def test_shadows_are_darker_longer_with_a_lower_sun_and_leave_light_between() -> None:
    shares = []
    for severity in SEVERITIES:
        images = [image_of("long-shadow", severity, plain(200), seed) for seed in range(6)]
        for image in images:
            assert image.max() == 200
            assert 80 < image.min() < 120
        shares.append(np.mean([(image[..., 1] < 160).mean() for image in images]))
    assert shares == sorted(shares)
    assert 0.05 < shares[0] < 0.25
    assert 0.35 < shares[-1] < 0.8


def test_shadows_shrink_with_distance() -> None:
    """Of an oblique photo, shadows at the top are far away, and small."""
    images = [image_of("long-shadow", 2, plain(200, tilt=65), seed) for seed in range(6)]
    shaded = np.mean([image[..., 1] < 160 for image in images], axis=(0, 2))
    assert 0 < 3 * shaded[:75].mean() < shaded[-75:].mean()


def test_fog_is_thicker_where_the_ground_is_farther() -> None:
    oblique = image_of("fog", 2, plain(30, tilt=50)).mean(axis=(1, 2))
    assert oblique[:20].mean() > oblique[-20:].mean() + 40
    down = image_of("fog", 2, plain(30, tilt=0)).mean(axis=(1, 2))
    assert abs(down[:20].mean() - down[-20:].mean()) < 30


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_leaves_the_contrast_that_its_visibility_says(severity: int) -> None:
    visibility = CONDITIONS["fog"].level(severity)
    centre = (slice(140, 160), slice(190, 210))
    left = [
        to_linear(image_of("fog", severity, plain(220), seed)[centre]).mean()
        - to_linear(image_of("fog", severity, plain(20), seed)[centre]).mean()
        for seed in range(12)
    ]
    before = np.diff(to_linear(np.array([20, 220], np.uint8)))[0]
    assert np.mean(left) / before == pytest.approx(0.02 ** (1 / visibility), rel=0.25)


def test_distance_of_the_ground_by_hand() -> None:
    down = ground_distance(plain(tilt=0), 301, 401)
    assert down[150, 200] == pytest.approx(1)
    assert down[150, 0] == pytest.approx(1 / np.cos(np.radians(30)), rel=0.005)
    tilted = ground_distance(plain(tilt=45), 301, 401)
    f = 200.5 / np.tan(np.radians(30))
    angle = np.radians(45) + np.arctan(150 / f)  # of the top row's middle from straight down
    assert tilted[0, 200] == pytest.approx(np.cos(np.radians(45)) / np.cos(angle), rel=0.001)
    assert np.isfinite(ground_distance(plain(tilt=80), 301, 401)).all()


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("tilt", [0.0, 60.0])
def test_rain_covers_its_share(severity: int, tilt: float) -> None:
    rain = image_of("rain", severity, plain(0, tilt=tilt, width=800))[..., 1]
    streaks = (rain > rain.min() + 3).mean()
    share = CONDITIONS["rain"].level(severity) / 100
    assert 0.9 * share < streaks < 2 * share + 0.01  # their soft edges count as well


def test_rain_runs_towards_the_point_below_the_camera() -> None:
    """Streaks of an oblique photo are upright; straight down they lie in all directions."""

    def upright(tilt: float) -> float:
        ratio = []
        for seed in range(6):
            grey = image_of("rain", 3, plain(0, tilt=tilt), seed)[..., 1].astype(np.float32)
            across, along = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
            ratio.append(np.abs(across).mean() / np.abs(along).mean())
        return float(np.mean(ratio))

    assert upright(75) > 2 * upright(0)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow_and_mud_cover_their_share(severity: int) -> None:
    white = image_of("snow", severity, plain(40))[..., 1] > 180
    assert white.mean() == pytest.approx(CONDITIONS["snow"].level(severity) / 100, abs=0.06)
    covered = image_of("occlusion", severity, plain(255))[..., 1] < 175
    assert covered.mean() == pytest.approx(CONDITIONS["occlusion"].level(severity) / 100, abs=0.01)


def test_snow_lies_on_bright_ground_first() -> None:
    half = plain(40).image.copy()
    half[:, :200] = 160
    query = dataclasses.replace(plain(), image=half)
    image = np.mean([image_of("snow", 2, query, seed)[..., 1] > 190 for seed in range(6)], axis=0)
    assert image[:, :200].mean() > 2 * image[:, 200:].mean()


def test_blur_is_relative_to_the_width() -> None:
    for name in ("defocus", "motion-blur"):
        radius = []
        for width in (401, 802):
            dot = plain(0, width=width).image.copy()
            row, col = dot.shape[0] // 2, width // 2
            dot[row - 2 : row + 3, col - 2 : col + 3] = 255
            image = image_of(name, 5, dataclasses.replace(plain(), image=dot))[..., 0]
            rows, cols = np.nonzero(image)
            radius.append(np.hypot(rows - row, cols - col).max() / width)
        assert radius[0] == pytest.approx(radius[1], rel=0.25)
        level = CONDITIONS[name].level(5) / 100
        assert level * 0.45 < radius[0] < level * 1.6


def test_motion_blurs_along_one_direction() -> None:
    grain = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    query = dataclasses.replace(plain(), image=grain)
    grey = image_of("motion-blur", 5, query)[20:-20, 20:-20, 1].astype(np.float32)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    tensor = np.array([[(dx * dx).mean(), (dx * dy).mean()], [(dx * dy).mean(), (dy * dy).mean()]])
    low, high = np.linalg.eigvalsh(tensor)
    assert high > 10 * low


@pytest.mark.parametrize("width", [400, 2048])
def test_noise_has_its_deviation_at_any_size(width: int) -> None:
    image = image_of("noise", 2, plain(width=width))
    assert image.std() == pytest.approx(CONDITIONS["noise"].level(2), rel=0.05)
    assert image.mean() == pytest.approx(GREY, abs=0.5)
    channels = np.corrcoef(image.reshape(-1, 3).T)
    assert np.abs(channels - np.eye(3)).max() < 0.05


def test_low_resolution_leaves_smaller_photos_alone() -> None:
    query = plain(width=120)
    assert apply(query, "low-resolution", 1) is query
    assert apply(query, "low-resolution", 3) is not query
    detail = dataclasses.replace(plain(), image=texture(300, 400, 3))
    image = image_of("low-resolution", 5, detail)
    small = cv2.resize(detail.image, (40, 30), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(image[5::10, 5::10].astype(int) - small).mean() < 5


def test_smooth_noise_is_normalised_and_smooth() -> None:
    field = smooth_noise(np.random.default_rng(0), (90, 160), cells=4, octaves=2)
    assert field.shape == (90, 160)
    assert field.mean() == pytest.approx(0, abs=1e-3)
    assert field.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(field, axis=1)).mean() < 0.1
