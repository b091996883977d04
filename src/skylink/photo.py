"""Photos in: one file becomes a `Query`, upright, RGB, with the telemetry the camera wrote into it.

Whatever is wrong with a file ends as a `PhotoError` that names it; no photo is ever guessed at,
half decoded or replaced by zeros.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from skylink.errors import PhotoError
from skylink.exif import orientation, read_telemetry
from skylink.types import Query, Telemetry

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
"""What `expand_photos` takes from a folder; a file named outright may have any name."""

MAX_PIXELS = 2 * (1024 * 1024 * 1024 // 4 // 3)
"""179 Mpx: Pillow's own limit against decompression bombs; we ask for no more than it allows."""

MIN_SIDE_PX = 16
MAX_SIDE_PX = 4096
"""Longer photos are reduced while decoding: nothing downstream looks closer than this."""

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
_DNG_VERSION = 50706
_CONVERT_HINT = "convert it to an 8-bit RGB JPEG, PNG, TIFF or WebP"
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_log = logging.getLogger(__name__)


def load_photo(
    path: str | Path, *, telemetry: Telemetry | None = None, name: str | None = None
) -> Query:
    """Read a photo (JPEG, PNG, TIFF, WebP) and what its EXIF and XMP know of the camera.

    Args:
        path: the file.
        telemetry: what is known from elsewhere; it wins, value by value, over the file's own.
        name: how results name the photo; the file's name by default.

    Returns:
        The query: (H, W, 3) uint8 RGB, EXIF orientation applied, long side at most `MAX_SIDE_PX`.
        Transparent parts are black. Grey of more than 8 bits, which has no defined white, is
        stretched between its 0.5 and 99.5 percentiles. Of several pages the first is read.

    Raises:
        PhotoError: missing, unreadable, not a photo, corrupt, truncated, too large or too small.
    """
    path = Path(path)
    with open_photo(path) as image:
        found, notes = read_telemetry(image)
        turn = _TRANSPOSE.get(orientation(image))
        with _decoding(path):
            image.draft(None, _reduced(image.size))  # JPEG only: decodes at 1/2, 1/4 or 1/8
            picture = _to_rgb(image)
            if max(picture.size) > MAX_SIDE_PX:
                small = _reduced(picture.size)
                picture = picture.resize(small, Image.Resampling.BILINEAR, reducing_gap=2.0)
            if turn is not None:
                picture = picture.transpose(turn)
            pixels = np.array(picture, dtype=np.uint8)
    for note in notes:
        _log.debug("%s: %s", path, note)
    merged = found if telemetry is None else found.updated(telemetry)
    return Query(
        name=path.name if name is None else name, image=pixels, telemetry=merged, path=path
    )


@contextlib.contextmanager
def open_photo(path: str | Path) -> Iterator[Image.Image]:
    """The opened, not yet decoded Pillow image; size and format are already checked.

    Raises:
        PhotoError: as for `load_photo`, for everything that the header shows.
    """
    path = Path(path)
    _check_file(path)
    with contextlib.ExitStack() as stack:
        with _decoding(path):
            image = stack.enter_context(Image.open(path, formats=_FORMATS))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(path, f"{width} x {height} pixels")
        if min(width, height) < MIN_SIDE_PX:
            raise PhotoError(
                f"{path} is too small: {width} x {height} pixels",
                hint=f"a photo has at least {MIN_SIDE_PX} pixels a side; is it a thumbnail?",
            )
        if image.format == "TIFF" and _DNG_VERSION in getattr(image, "tag_v2", {}):
            raise PhotoError(
                f"{path} is a raw DNG file, whose picture is not developed",
                hint="develop it to a JPEG or TIFF, or use the JPEG that the drone saved beside it",
            )
        yield image


def expand_photos(paths: Sequence[str | Path]) -> list[Path]:
    """Photo files of `paths`: files as they are, folders as the sorted photos right inside them.

    Hidden files are left out of folders; a file named twice is kept once.

    Raises:
        PhotoError: a path does not exist, a folder has no photo in it, or nothing was given.
    """
    if not paths:
        raise PhotoError("no photos given", hint="name some photos, or a folder that has them")
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        try:
            entries = sorted(path.iterdir()) if path.is_dir() else None
        except OSError as error:
            raise PhotoError(
                f"cannot list {path}: {error.strerror or error}", hint="check its permissions"
            ) from error
        if entries is None:
            _check_file(path)
            found[path] = None
            continue
        photos = [
            entry
            for entry in entries
            if entry.suffix.lower() in SUFFIXES and entry.name[0] != "." and entry.is_file()
        ]
        if not photos:
            raise PhotoError(
                f"no photos in the folder {path}",
                hint=f"photos end in {', '.join(SUFFIXES)}; folders inside it are not searched",
            )
        found.update(dict.fromkeys(photos))
    return list(found)


def _check_file(path: Path) -> None:
    """Refuse what is not an existing, regular, non-empty file."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise PhotoError(f"{path} does not exist", hint="check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(
            f"cannot read {path}: {reason}", hint="check the path and its permissions"
        ) from error
    if path.is_dir():
        raise PhotoError(f"{path} is a folder, not a photo", hint="name the photos in it")
    if not path.is_file():
        raise PhotoError(f"{path} is not a regular file", hint="copy the photo to a file first")
    if status.st_size == 0:
        raise PhotoError(f"{path} is empty (0 bytes)", hint="copy it from the drone again")


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn whatever Pillow raises on `path` into a `PhotoError`; keep its warnings quiet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            yield
        except PermissionError as error:
            raise PhotoError(
                f"cannot read {path}: {error.strerror}", hint="check its permissions"
            ) from error
        except UnidentifiedImageError as error:
            raise PhotoError(
                f"{path} is not a JPEG, PNG, TIFF or WebP photo",
                hint=f"{_CONVERT_HINT}; if it is one by name, it is corrupt",
            ) from error
        except Image.DecompressionBombError as error:
            raise _too_large(path, "a decompression bomb by its size") from error
        except MemoryError as error:
            raise PhotoError(f"not enough memory to decode {path}", hint="reduce it") from error
        # Decoders meet corrupt bytes with nearly any exception (struct.error, SyntaxError,
        # IndexError, zlib.error ...): all of them mean that this file has no usable picture.
        except Exception as error:
            raise PhotoError(
                f"{path} is corrupt or truncated: {error}",
                hint=f"copy it from the drone again, or {_CONVERT_HINT}",
            ) from error


def _too_large(path: Path, what: str) -> PhotoError:
    limit = MAX_PIXELS // 1_000_000
    return PhotoError(
        f"{path} is too large: {what}",
        hint=f"photos may have up to {limit} million pixels; reduce it, or cut it into parts",
    )


def _reduced(size: tuple[int, int]) -> tuple[int, int]:
    """`size` with its long side at most `MAX_SIDE_PX`."""
    scale = min(1.0, MAX_SIDE_PX / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB; see `load_photo` for what becomes of alpha and deep grey."""
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_stretched(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        black = Image.new("RGBA", with_alpha.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, with_alpha).convert("RGB")
    return image.convert("RGB")


def _stretched(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(H, W) grey of any depth as uint8 between its 0.5 and 99.5 percentiles; NaN is black."""
    values = grey.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = (float(v) for v in np.percentile(values[finite], (0.5, 99.5)))
    if not math.isfinite(high - low) or high <= low:
        low, high = float(values[finite].min()), float(values[finite].max())
    span = max(high - low, 1e-30)
    scaled = np.where(finite, (values - low) / span, 0.0)
    return np.asarray(np.rint(np.clip(scaled, 0.0, 1.0) * 255), dtype=np.uint8)
