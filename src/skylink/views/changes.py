"""What differs between a satellite image and a drone photo of the same ground, years apart.

Each change is a function of (H, W, 3) uint8 RGB, a strength and a random generator that all chance
comes from. Strength 0 changes nothing, 1 is what training uses at most, more is possible. They
are coarser than `skylink.conditions` and much faster: those are controlled tests of one condition,
these are mixed, thousands a minute, so that nothing but the ground's structure can be relied on.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
Rng = np.random.Generator


def colours(image: U8, strength: float, rng: Rng) -> U8:
    """Another sensor, light and season: gain, gamma and cast, saturation, another green.

    Season: what is green becomes browner, paler or darker, whatever else stays.
    """
    x = image.astype(np.float32) / 255
    if rng.random() < 0.7:
        green = np.clip((x[..., 1] - 0.5 * (x[..., 0] + x[..., 2])) * 8 + 0.3, 0, 1)[..., None]
        target = np.array([rng.uniform(0.7, 1.5), rng.uniform(0.6, 1.2), rng.uniform(0.6, 1.2)])
        x = x * (1 - green) + x * green * (1 + strength * (target - 1)).astype(np.float32)
    grey = x.mean(axis=2, keepdims=True)
    x = grey + (x - grey) * np.float32(max(0.0, 1 + strength * rng.uniform(-1.0, 0.6)))
    gamma = math.exp(strength * rng.normal(0, 0.45))
    x = np.clip(x, 0, 1) ** np.float32(gamma)
    gain = np.exp(strength * (rng.normal(0, 0.25) + rng.normal(0, 0.12, 3)))
    x = x * gain.astype(np.float32) + np.float32(strength * rng.uniform(-0.1, 0.15))
    contrast = math.exp(strength * rng.normal(0, 0.3))
    x = (x - x.mean()) * np.float32(contrast) + x.mean()
    return np.asarray(np.clip(x * 255, 0, 255), np.uint8)


def shadows(image: U8, strength: float, rng: Rng) -> U8:
    """Shadows fall elsewhere: soft polygons along one direction of the sun."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    sun = rng.uniform(0, 2 * math.pi)
    along = np.array([math.cos(sun), math.sin(sun)])
    across = np.array([-along[1], along[0]])
    for _ in range(rng.poisson(14 * strength)):
        at = rng.uniform((0, 0), (width, height))
        long, wide = rng.uniform(4, 40), rng.uniform(3, 22)
        corners = [at, at + wide * across, at + wide * across + long * along, at + long * along]
        cv2.fillConvexPoly(mask, np.array(corners).astype(np.int32), 255)
    soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.7, 2.0)).astype(np.float32) / 255
    dark = np.array(rng.uniform(0.3, 0.7) * np.array([0.9, 1.0, 1.15]), np.float32)
    return np.asarray(np.clip(image * (1 - soft[..., None] * (1 - dark)), 0, 255), np.uint8)


def objects(image: U8, strength: float, rng: Rng) -> U8:
    """Things come and go: plain shapes, and pieces of the same image elsewhere."""
    out = image.copy()
    height, width = image.shape[:2]
    for _ in range(rng.poisson(10 * strength)):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        size = rng.uniform(3, 22, 2)
        if rng.random() < 0.5:  # a car, a roof, a pool, a bare patch
            colour = tuple(
                int(c) for c in np.clip(rng.normal(128, 60) + rng.normal(0, 15, 3), 0, 255)
            )
            box = cv2.boxPoints(
                ((x, y), (float(size[0]), float(size[1])), float(rng.uniform(0, 180)))
            )
            cv2.fillConvexPoly(out, box.astype(np.int32), colour)
        else:
            w, h = (int(s * 1.5) + 2 for s in size)
            sx, sy = (
                int(rng.integers(0, max(1, width - w))),
                int(rng.integers(0, max(1, height - h))),
            )
            dx, dy = min(x, width - w), min(y, height - h)
            if dx >= 0 and dy >= 0:
                out[dy : dy + h, dx : dx + w] = image[sy : sy + h, sx : sx + w]
    return out


def relief(image: U8, strength: float, rng: Rng) -> tuple[U8, NDArray[np.float32]]:
    """The ground is not flat: a smooth displacement of some pixels, zero on average.

    Returns:
        The warped image, and (H, W, 2) float32 how far each of its pixels was taken from, x and y.
    """
    height, width = image.shape[:2]
    flow = np.zeros((height, width, 2), np.float32)
    for period, pixels in ((120.0, 4.0), (40.0, 2.0)):
        shape = (max(2, round(height / period)) + 2, max(2, round(width / period)) + 2, 2)
        knots = rng.normal(0, strength * pixels, shape).astype(np.float32)
        flow += cv2.resize(knots, (width, height), interpolation=cv2.INTER_CUBIC)
    flow -= flow.mean(axis=(0, 1))
    x = np.arange(width, dtype=np.float32)[None, :] + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    warped = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped, np.uint8), flow


def optics(image: U8, strength: float, rng: Rng) -> U8:
    """Another camera: blur, noise, haze, JPEG."""
    out: NDArray[Any] = image
    if strength == 0:
        return image
    if rng.random() < 0.5:
        out = cv2.GaussianBlur(out, (0, 0), 0.3 + 1.2 * strength * rng.random())
    if rng.random() < 0.3:
        haze = np.float32(min(0.9, strength * rng.uniform(0, 0.45)))
        out = np.asarray(out * (1 - haze) + haze * 215, np.uint8)
    if rng.random() < 0.5:
        noise = rng.normal(0, 10 * strength * rng.random(), out.shape)
        out = np.asarray(np.clip(out + noise, 0, 255), np.uint8)
    if rng.random() < 0.5:
        quality = max(5, int(rng.uniform(95 - 60 * strength, 96)))
        ok, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if ok:
            out = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return np.asarray(out, np.uint8)
