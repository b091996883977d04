"""Tools that the conditions share: linear light, smooth noise, blending.

Photos come with 500 to 4,096 pixels across, and what is downstream reduces them to the map's
resolution: a blur of three pixels would be strong on one and nothing on the other. Lengths are
therefore shares of the photo's width, and grain is as coarse as a pixel of a photo
`REFERENCE_WIDTH_PX` wide.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

REFERENCE_WIDTH_PX = 1024

_STEPS = 16384
"""Of linear light: fine enough that no step is wider than a quarter of a grey level."""


def _encode(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB's curve (IEC 61966-2-1), 0..1 to 0..1."""
    high = 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, high)


def _decode(encoded: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


_LINEAR = _decode(np.arange(256) / 255).astype(np.float32)
_GREY = np.rint(255 * _encode(np.arange(_STEPS) / (_STEPS - 1))).astype(np.uint8)


def to_linear(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """sRGB grey levels as light, float32 0..1, same shape."""
    return np.asarray(_LINEAR[image])


def from_linear(light: ArrayLike) -> NDArray[np.uint8]:
    """Light as sRGB grey levels; what is below 0 or above 1 is clipped."""
    steps = np.clip(np.asarray(light) * (_STEPS - 1) + 0.5, 0, _STEPS - 1)
    return np.asarray(_GREY[steps.astype(np.uint16)])


def exposed(image: NDArray[np.uint8], stops: ArrayLike) -> NDArray[np.uint8]:
    """The photo with 2**stops of the light; stops is a number, or (3,) one a channel."""
    gains = 2.0 ** np.broadcast_to(np.asarray(stops, np.float64), (3,))
    table = from_linear(_LINEAR[:, None] * gains)  # (256, 3)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


def blended(
    image: NDArray[np.uint8], colour: ArrayLike, share: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The photo behind a veil, mixed as light.

    Args:
        image: (H, W, 3) uint8.
        colour: the veil's light, 0..1, broadcastable to (H, W, 3).
        share: (H, W) float32 0..1, how much of the veil is seen.
    """
    light = to_linear(image)
    return from_linear(light + share[..., None] * (np.asarray(colour, np.float32) - light))


def smooth_noise(
    generator: np.random.Generator, shape: tuple[int, int], *, cells: float, octaves: int = 1
) -> NDArray[np.float32]:
    """A random landscape, (H, W) float32 of mean 0 and standard deviation 1.

    Args:
        generator: source of chance.
        shape: (H, W).
        cells: hills across the width, at the coarsest.
        octaves: how many times to add hills of half the size and half the height.
    """
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        cell_px = width / (cells * 2**octave)
        size = [max(2, math.ceil(side / cell_px) + 1) for side in (height, width)]
        hills = generator.standard_normal(size, np.float32) * 0.5**octave
        total += cv2.resize(hills, (width, height), interpolation=cv2.INTER_CUBIC)
    total -= total.mean()
    return np.asarray(total / max(float(total.std()), 1e-6), np.float32)


def reference_size(image: NDArray[np.uint8]) -> tuple[int, int]:
    """(height, width) of the photo, reduced to `REFERENCE_WIDTH_PX` where it is wider."""
    height, width = image.shape[:2]
    scale = min(1.0, REFERENCE_WIDTH_PX / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def enlarged(layer: NDArray[np.float32], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A layer drawn at `reference_size`, at the photo's size."""
    height, width = image.shape[:2]
    if layer.shape[:2] == (height, width):
        return layer
    return np.asarray(cv2.resize(layer, (width, height), interpolation=cv2.INTER_LINEAR))
