"""Weather: fog by the distance of the ground, rain that falls past the camera, snow that lies."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.camera import focal_px
from skylink.conditions.condition import Condition, with_image
from skylink.conditions.pixels import (
    blended,
    enlarged,
    reference_size,
    smooth_noise,
    to_linear,
)
from skylink.hypotheses import ASSUMED_HFOV_DEG
from skylink.types import Query

VISIBILITY = 3.912
"""-ln(0.02): at the meteorological visibility 2 % of the contrast is left (Koschmieder, 1924)."""

FOG_COLOUR = (0.73, 0.76, 0.79)
RAIN_COLOUR = (0.62, 0.65, 0.68)
SNOW_COLOUR = (0.84, 0.87, 0.92)
"""As light, 0..1 (sRGB greys of about 222, 207 and 238)."""


def _camera(query: Query) -> tuple[float, float]:
    """(tilt, field of view) in degrees; straight down and the usual field where not known."""
    known = query.telemetry
    return (
        known.camera_tilt_from_nadir_deg or 0.0,
        known.horizontal_fov_deg or ASSUMED_HFOV_DEG,
    )


def ground_distance(query: Query, height: int, width: int) -> NDArray[np.float32]:
    """(height, width) distance to the ground along each ray, 1 at the photo's centre, at most 30.

    The ray (x, y, 1) in units of the focal length comes down by y sin(tilt) + cos(tilt).
    """
    tilt_deg, hfov = _camera(query)
    tilt, f = math.radians(tilt_deg), focal_px(hfov_deg=hfov, width_px=width)
    x = (np.arange(width) - (width - 1) / 2) / f
    y = ((np.arange(height) - (height - 1) / 2) / f)[:, None]
    down = np.maximum(y * math.sin(tilt) + math.cos(tilt), 1e-6)
    far = np.sqrt(x**2 + y**2 + 1) * math.cos(tilt) / down
    return np.asarray(np.minimum(far, 30.0), np.float32)


def fog(query: Query, visibility: float, generator: np.random.Generator) -> Query:
    """Fog through which one sees `visibility` times as far as the ground at the photo's centre.

    Koschmieder's law: light * t + fog * (1 - t), t = exp(-3.912 distance / visibility); the fog's
    density varies by some 15 %, in banks.
    """
    height, width = reference_size(query.image)
    banks = 1 + 0.15 * np.clip(smooth_noise(generator, (height, width), cells=3, octaves=3), -3, 3)
    depth = VISIBILITY / visibility * ground_distance(query, height, width) * banks
    veil = enlarged((1 - np.exp(-depth)).astype(np.float32), query.image)
    return with_image(query, blended(query.image, FOG_COLOUR, veil))


def rain(query: Query, percent: float, generator: np.random.Generator) -> Query:
    """Streaks over `percent` of the photo, and a veil of as much.

    Drops fall along parallels that meet, for the camera, at the point straight below it; wind and
    flight move that point by 5 to 20 degrees. The streaks run towards it.
    """
    height, width = reference_size(query.image)
    tilt, hfov = _camera(query)
    f = focal_px(hfov_deg=hfov, width_px=width)
    wind, side = math.radians(generator.uniform(5, 20)), generator.uniform(0, 2 * math.pi)
    meet = np.array([width / 2, height / 2 + f * math.tan(math.radians(tilt))])
    meet += f * math.tan(wind) * np.array([math.cos(side), math.sin(side)])
    streaks = np.zeros((height, width), np.uint8)
    for _ in range(5000):  # rounds; far more than it takes
        if np.count_nonzero(streaks) >= percent / 100 * streaks.size:
            break
        middle = generator.uniform((0, 0), (width, height), (20, 2))
        away = middle - meet
        distance = np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1.0)
        length = width * generator.uniform(0.01, 0.06, (20, 1))
        length *= np.clip(distance / (width / 2), 0.15, 1.0)  # seen along their fall, they are dots
        reach = away / distance * length / 2
        bright = generator.integers(70, 190, 20)
        ends = np.rint(np.stack([middle - reach, middle + reach], axis=1) * 16).astype(np.int32)
        thick = max(1, round(width / 800))
        for (start, end), value in zip(ends, bright, strict=True):
            cv2.line(streaks, start.tolist(), end.tolist(), int(value), thick, cv2.LINE_AA, 4)
    layer = cv2.GaussianBlur(streaks.astype(np.float32) / 255, (0, 0), 0.7)
    veil = percent / 100 * (1 - layer) + layer
    share = enlarged(np.asarray(veil, np.float32), query.image)
    return with_image(query, blended(query.image, RAIN_COLOUR, share))


def snow(query: Query, percent: float, generator: np.random.Generator) -> Query:
    """Snow on `percent` of the ground, and some of it falling.

    It lies in patches, longest where the photo is bright: woods and wet roads are free first.
    """
    height, width = reference_size(query.image)
    small = cv2.resize(query.image, (width, height), interpolation=cv2.INTER_AREA)
    mean = to_linear(np.asarray(small, np.uint8)).mean(axis=2)
    light = cv2.GaussianBlur(mean, (0, 0), width / 1000)
    relief = (light - light.mean()) / max(float(light.std()), 1e-6)
    ground = smooth_noise(generator, (height, width), cells=8, octaves=5)
    ground = ground + 0.9 * np.clip(relief, -1.5, 1.5)
    edge = float(np.quantile(ground, 1 - percent / 100))
    lying = np.clip((ground - edge) / 0.9 + 0.5, 0, 1) * 0.9
    falling = np.zeros((height, width), np.uint8)
    least, most = (0.0, 0.0, 0.0006 * width), (width, height, 0.003 * width)
    flakes = generator.uniform(least, most, (round(6 * percent), 3))
    for x, y, radius in np.rint(flakes * 16).astype(np.int32).tolist():
        cv2.circle(falling, (x, y), radius, 230, -1, cv2.LINE_AA, 4)
    air = cv2.GaussianBlur(falling.astype(np.float32) / 255, (0, 0), 0.8)
    share = enlarged((1 - (1 - lying) * (1 - air)).astype(np.float32), query.image)
    shape = enlarged((0.9 + 0.1 * np.clip(relief, -1, 1)).astype(np.float32), query.image)
    colour = shape[..., None] * np.array(SNOW_COLOUR, np.float32)
    return with_image(query, blended(query.image, colour, share))


WEATHER = (
    Condition(
        name="fog", kind="weather", apply=fog,
        about="Fog that grows with the distance of the ground.",
        measure="visibility, in distances to the ground at the centre", unit="",
        levels=(12.0, 6.0, 4.0, 2.5, 1.6),
    ),
    Condition(
        name="rain", kind="weather", apply=rain,
        about="Rain that falls past the camera, and the veil of the rain beyond.",
        measure="of the photo under streaks:", unit="%", levels=(2.0, 5.0, 10.0, 18.0, 30.0),
    ),
    Condition(
        name="snow", kind="weather", apply=snow,
        about="Snow on the ground, in patches, and some of it falling.",
        measure="of the ground covered:", unit="%", levels=(10.0, 25.0, 45.0, 65.0, 85.0),
    ),
)  # fmt: skip
