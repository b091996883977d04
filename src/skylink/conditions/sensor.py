"""Sensor: blur, noise, compression, dirt on the lens, too few pixels.

Blur and grain are relative to the photo's width (`pixels.py` says why); compression acts on the
pixels that are there.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.conditions.condition import Condition, with_image
from skylink.conditions.pixels import enlarged, reference_size, smooth_noise
from skylink.types import Query


def _grid(radius_px: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(x, y) of a kernel's cells, the middle one at 0."""
    reach = np.arange(-math.ceil(radius_px), math.ceil(radius_px) + 1, dtype=np.float64)
    return reach[None, :], reach[:, None]


def _filtered(query: Query, kernel: NDArray[np.float64]) -> Query:
    weights = kernel / kernel.sum()
    image = cv2.filter2D(query.image, -1, weights, borderType=cv2.BORDER_REFLECT_101)
    return with_image(query, np.asarray(image, np.uint8))


def defocus(query: Query, percent: float, generator: np.random.Generator) -> Query:
    """Each point is a disc with a radius of `percent` of the photo's width."""
    radius = percent / 100 * query.image.shape[1]
    x, y = _grid(radius)
    return _filtered(query, np.clip(radius + 0.5 - np.hypot(x, y), 0, 1))


def motion_blur(query: Query, percent: float, generator: np.random.Generator) -> Query:
    """Each point is a line of `percent` of the photo's width, in a random direction."""
    half = percent / 200 * query.image.shape[1]
    angle = generator.uniform(0, math.pi)
    x, y = _grid(half)
    along = np.abs(x * math.cos(angle) + y * math.sin(angle))
    across = np.abs(y * math.cos(angle) - x * math.sin(angle))
    return _filtered(query, np.clip(half + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1))


def noise(query: Query, sigma: float, generator: np.random.Generator) -> Query:
    """Normal noise with a standard deviation of `sigma` grey levels, apart for each channel."""
    grain = generator.standard_normal((*reference_size(query.image), 3), np.float32)
    grain = enlarged(grain, query.image)
    grain *= sigma / max(float(grain.std()), 1e-6)  # enlarging had smoothed it
    noisy = np.clip(np.rint(query.image + grain), 0, 255)
    return with_image(query, noisy.astype(np.uint8))


def jpeg(query: Query, quality: float, generator: np.random.Generator) -> Query:
    """Stored as a JPEG of this `quality` (libjpeg's scale, colour at half resolution)."""
    options = [cv2.IMWRITE_JPEG_QUALITY, round(quality)]
    _, data = cv2.imencode(".jpg", query.image[..., ::-1], options)  # OpenCV's order is BGR
    image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return with_image(query, np.ascontiguousarray(image[..., ::-1]))


def occlusion(query: Query, percent: float, generator: np.random.Generator) -> Query:
    """Blots of one dark colour, as of mud on the lens, over `percent` of the photo."""
    height, width = reference_size(query.image)
    field = smooth_noise(generator, (height, width), cells=5, octaves=2)
    edge = float(np.quantile(field, 1 - percent / 100))
    cover = enlarged(np.clip((field - edge) / 0.06 + 0.5, 0, 1).astype(np.float32), query.image)
    colour = generator.uniform(25, 90) * np.array([1.0, 0.87, 0.7], np.float32)  # earth
    image = query.image + cover[..., None] * (colour - query.image)
    return with_image(query, np.rint(image).astype(np.uint8))


def low_resolution(query: Query, width_px: float, generator: np.random.Generator) -> Query:
    """No more detail than a photo `width_px` wide has; the photo keeps its size."""
    height, width = query.image.shape[:2]
    if width <= width_px:
        return query
    size = round(width_px), max(1, round(height * width_px / width))
    small = cv2.resize(query.image, size, interpolation=cv2.INTER_AREA)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return with_image(query, np.asarray(image, np.uint8))


SENSOR = (
    Condition(
        name="defocus", kind="sensor", apply=defocus,
        about="Out of focus: each point is a disc.",
        measure="radius, of the photo's width:", unit="%", levels=(0.2, 0.4, 0.8, 1.4, 2.2),
    ),
    Condition(
        name="motion-blur", kind="sensor", apply=motion_blur,
        about="Blurred along a random direction by the drone's movement.",
        measure="length, of the photo's width:", unit="%", levels=(0.5, 1.0, 2.0, 4.0, 7.0),
    ),
    Condition(
        name="noise", kind="sensor", apply=noise,
        about="Grain of a small sensor at high gain.",
        measure="standard deviation", unit="grey levels", levels=(10.0, 20.0, 35.0, 55.0, 80.0),
    ),
    Condition(
        name="jpeg", kind="sensor", apply=jpeg,
        about="Compressed for a weak radio link.",
        measure="JPEG quality", unit="", levels=(40.0, 20.0, 10.0, 5.0, 2.0),
    ),
    Condition(
        name="occlusion", kind="sensor", apply=occlusion,
        about="Mud on the lens.",
        measure="of the photo covered:", unit="%", levels=(5.0, 10.0, 20.0, 35.0, 50.0),
    ),
    Condition(
        name="low-resolution", kind="sensor", apply=low_resolution,
        about="Reduced for a weak radio link, or filmed with a small sensor.",
        measure="width of the photo", unit="px", levels=(320.0, 160.0, 96.0, 64.0, 40.0),
    ),
)  # fmt: skip
