"""Pictures as servers take them: data URIs."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from skylink.remote.options import ImageFormat
from skylink.showing import Image

JPEG_QUALITY = 95


def data_uri(image: Image, *, image_px: int, image_format: ImageFormat) -> str:
    """`data:image/png;base64,...` of a picture.

    Args:
        image: (H, W, 3) uint8 RGB.
        image_px: its longer side is made no longer than this.
        image_format: PNG keeps every pixel, so that a server scores what would be scored here.
    """
    height, width = image.shape[:2]
    scale = image_px / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if image_format == "jpeg" else []
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(f".{image_format}", bgr, flags)
    return f"data:image/{image_format};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def image_part(uri: str) -> dict[str, object]:
    """A message part that shows it."""
    return {"type": "image_url", "image_url": {"url": uri}}
