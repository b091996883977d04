"""What a chunk stores of its pixels and cells, as bytes and back."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.errors import GalleryError

JPEG_QUALITY = 92


def pack_valid(valid: NDArray[np.bool_]) -> bytes:
    """Bits of a bool array."""
    return np.packbits(valid).tobytes()


def unpack_valid(data: bytes, side: int) -> NDArray[np.bool_]:
    """(side, side) bool of `pack_valid`."""
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=side * side)
    return bits.reshape(side, side).astype(bool)


def pack_image(rgb: NDArray[np.uint8], valid: NDArray[np.bool_]) -> tuple[bytes, bytes]:
    """(JPEG, mask) of (S, S, 3) and (S, S); the mask is empty where all is valid."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), settings)
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG")
    mask = b"" if valid.all() else zlib.compress(pack_valid(valid), 6)
    return data.tobytes(), mask


def unpack_image(
    image: bytes, mask: bytes, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(side, side, 3) uint8 RGB and (side, side) bool of `pack_image`.

    Raises:
        GalleryError: the bytes are damaged.
    """
    bgr = cv2.imdecode(np.frombuffer(image, dtype=np.uint8), cv2.IMREAD_COLOR)
    if bgr is None or bgr.shape != (side, side, 3):
        raise GalleryError("a stored picture of the map is damaged", hint="build the gallery again")
    valid = np.ones((side, side), dtype=bool)
    if mask:
        try:
            valid = unpack_valid(zlib.decompress(mask), side)
        except (zlib.error, ValueError) as error:
            raise GalleryError(
                "a stored mask of the map is damaged", hint="build the gallery again"
            ) from error
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8), valid
