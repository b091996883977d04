"""Light: exposure, contrast, colour of the light, and the long shadows of a low sun.

Exposure, colour and shadow act on light (linear), not on grey levels, and are stored in 8 bits
again: what falls between two levels or above the last one is lost, as in a camera.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.camera import ground_to_pixel
from skylink.conditions.condition import Condition, with_image
from skylink.conditions.pixels import (
    enlarged,
    exposed,
    from_linear,
    reference_size,
    to_linear,
)
from skylink.hypotheses import ASSUMED_HFOV_DEG
from skylink.types import CameraPose, Query

SKY_SHARE = (0.16, 0.2, 0.28)
"""Of the light in the sun, what is left in its shadow: the sky's, which is blue."""

OBJECTS = 40
"""Houses and trees in the photo and around it, where their shadows may still reach in."""


def dark(query: Query, stops: float, generator: np.random.Generator) -> Query:
    """Under-exposed by `stops`."""
    return with_image(query, exposed(query.image, -stops))


def over_exposed(query: Query, stops: float, generator: np.random.Generator) -> Query:
    """Over-exposed by `stops`: bright parts are white."""
    return with_image(query, exposed(query.image, stops))


def low_contrast(query: Query, share: float, generator: np.random.Generator) -> Query:
    """`share` of the photo's contrast is left, around each channel's mean."""
    mean = query.image.mean(axis=(0, 1))
    table = np.rint(mean + share * (np.arange(256)[:, None] - mean)).astype(np.uint8)
    return with_image(query, np.asarray(cv2.LUT(query.image, table[None]), np.uint8))


def colour_cast(query: Query, stops: float, generator: np.random.Generator) -> Query:
    """Red and blue are `stops` apart: a warm or a cold white balance, by chance."""
    half = stops / 2 if generator.random() < 0.5 else -stops / 2
    return with_image(query, exposed(query.image, (half, 0.0, -half)))


def long_shadow(query: Query, elevation_deg: float, generator: np.random.Generator) -> Query:
    """Shadows of things that the map does not show, under a sun `elevation_deg` above the horizon.

    Houses and trees stand at random places, 2 to 8 % of the distance to the ground in height (2 to
    8 m at 100 m). Their shadows lie on the ground in the photo's perspective. With tilt or field
    of view unknown: straight down, `ASSUMED_HFOV_DEG`.
    """
    height, width = reference_size(query.image)
    pose = CameraPose(
        altitude_m=math.cos(math.radians(query.telemetry.camera_tilt_from_nadir_deg or 0.0)),
        heading_deg=0.0,
        tilt_deg=query.telemetry.camera_tilt_from_nadir_deg or 0.0,
        hfov_deg=query.telemetry.horizontal_fov_deg or ASSUMED_HFOV_DEG,
    )  # the distance to the ground at the centre is 1: all lengths are shares of it
    to_pixel = ground_to_pixel(pose, width_px=width, height_px=height)
    azimuth = generator.uniform(0, 2 * math.pi)
    away = np.array([math.sin(azimuth), math.cos(azimuth)])
    away /= math.tan(math.radians(elevation_deg))
    mask = np.zeros((height, width), np.uint8)
    margin = 0.25 * width
    for index in range(OBJECTS):
        spot = generator.uniform((-margin, -margin, 1.0), (width + margin, height + margin, 1.0))
        tall, size, shape, turn = generator.uniform((0.02, 0, 0.4, 0), (0.08, 1, 1, math.pi))
        x, y, front = np.linalg.solve(to_pixel, spot)
        if front <= 0:  # beyond the horizon
            continue
        if index % 2:  # a house stands on the ground
            wide, corners, start = 0.04 + 0.08 * size, 4, 0.0
        else:  # a tree's crown begins above it
            wide, corners, start, shape = 0.02 + 0.04 * size, 12, 0.35 * tall, 1.0
        outline = _outline(wide=wide, deep=wide * shape, corners=corners, turn=turn)
        outline += np.array([x, y]) / front
        shadow = np.concatenate([outline + start * away, outline + tall * away])
        pixels = _projected(to_pixel, shadow)
        if pixels is not None:
            cv2.fillConvexPoly(mask, cv2.convexHull(pixels), 255, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(0.5, width / 600))
    share = enlarged(np.asarray(soft, np.float32), query.image)
    light = to_linear(query.image)
    light *= 1 - share[..., None] * (1 - np.array(SKY_SHARE, np.float32))
    return with_image(query, from_linear(light))


def _outline(*, wide: float, deep: float, corners: int, turn: float) -> NDArray[np.float64]:
    """(corners, 2) outline around the origin: a box for 4, near a disc for many."""
    angles = (np.arange(corners) + 0.5) * 2 * math.pi / corners
    box = np.stack([wide * np.cos(angles), deep * np.sin(angles)], axis=1) / math.sqrt(2)
    c, s = math.cos(turn), math.sin(turn)
    return np.asarray(box @ np.array([[c, s], [-s, c]]))


def _projected(
    to_pixel: NDArray[np.float64], ground: NDArray[np.float64]
) -> NDArray[np.int32] | None:
    """(N, 2) sixteenths of pixels; None where a part is behind the camera or far outside."""
    points = np.column_stack([ground, np.ones(len(ground))]) @ to_pixel.T
    if (points[:, 2] < 1e-3).any():
        return None
    pixels = points[:, :2] / points[:, 2:]
    if np.abs(pixels).max() > 30_000:  # OpenCV draws in 32-bit fixed point
        return None
    return np.asarray(np.rint(pixels * 16), np.int32)


LIGHT = (
    Condition(
        name="dark", kind="light", apply=dark,
        about="Under-exposed: dusk, or a wrong shutter.",
        measure="under-exposed by", unit="stops", levels=(1.0, 2.0, 3.0, 4.0, 5.0),
    ),
    Condition(
        name="over-exposed", kind="light", apply=over_exposed,
        about="Over-exposed: bright parts are clipped to white.",
        measure="over-exposed by", unit="stops", levels=(0.5, 1.0, 1.5, 2.0, 3.0),
    ),
    Condition(
        name="low-contrast", kind="light", apply=low_contrast,
        about="Flat light: contrast around the mean is reduced.",
        measure="share of contrast left", unit="", levels=(0.6, 0.4, 0.25, 0.15, 0.08),
    ),
    Condition(
        name="long-shadow", kind="light", apply=long_shadow,
        about="Shadows of things that the map does not show, under a low sun.",
        measure="sun's elevation", unit="degrees", levels=(45.0, 30.0, 20.0, 12.0, 7.0),
    ),
    Condition(
        name="colour-cast", kind="light", apply=colour_cast,
        about="A warm or a cold white balance.",
        measure="red and blue apart by", unit="stops", levels=(0.5, 1.0, 1.5, 2.0, 3.0),
    ),
)  # fmt: skip
