"""Files to descriptors: decoding goes on while the encoder works, in bounded memory.

A second run over the same files with the same encoder reads the descriptors from a cache.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skylink.encoder import Encoder, Floats
from skylink.errors import ModelError, OptionError, PhotoError
from skylink.files import write_atomic
from skylink.photo import load_photo

Picture = NDArray[np.uint8]
Progress = Callable[[int, int, str], None]

WORKERS, BATCH = 4, 32
AHEAD = 3
"""Batches in memory at a time: one that is encoded, and two that are being decoded."""

USUAL_RESIZE = "area"
"""For encoders that don't say how their pictures were resized: every pixel counts."""

_log = logging.getLogger(__name__)


def _by_pillow(how: Image.Resampling) -> Callable[[Picture, int], Picture]:
    return lambda picture, side: np.asarray(Image.fromarray(picture).resize((side, side), how))


def _by_opencv(how: int) -> Callable[[Picture, int], Picture]:
    return lambda picture, side: np.asarray(
        cv2.resize(picture, (side, side), interpolation=how), np.uint8
    )


def _by_area(picture: Picture, side: int) -> Picture:
    shrinks = side <= min(picture.shape[:2])
    return _by_opencv(cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)(picture, side)


RESIZES: dict[str, Callable[[Picture, int], Picture]] = {
    "area": _by_area,
    "opencv-linear": _by_opencv(cv2.INTER_LINEAR_EXACT),
    "pil-bilinear": _by_pillow(Image.Resampling.BILINEAR),
    "pil-bicubic": _by_pillow(Image.Resampling.BICUBIC),
    "pil-lanczos": _by_pillow(Image.Resampling.LANCZOS),
}
"""Ways to bring a picture to a square. Pillow's look at every pixel; OpenCV's linear one, which
Sample4Geo and its successors train with, at four for each pixel of the result."""


def encode_files(
    paths: Sequence[str | Path],
    encoder: Encoder,
    *,
    workers: int = WORKERS,
    batch: int = BATCH,
    progress: Progress | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    cache: Path | None = None,
) -> Floats:
    """Descriptors of photos, tiles or any images, row i of file i.

    Each is read as `load_photo` does and resized, whole, to the encoder's square input in the way
    that its attribute `resize` names (`area` where it has none).

    Args:
        paths: the files, in the order of the rows; one may come twice.
        encoder: what describes them.
        workers: threads that decode.
        batch: images in one call of the encoder.
        progress: called with (done, total, "images").
        on_error: `skip` gives an unreadable image a row of NaN, which nothing can rank unnoticed,
            and logs a warning that names it; `raise` stops at the first.
        cache: a folder for the descriptors, found again by the encoder's fingerprint and the
            files' paths, sizes and times. Runs with skipped images aren't kept.

    Returns:
        (N, D) float32, unit norm.

    Raises:
        PhotoError: an image can't be read; it is named.
        ModelError: the encoder fails.
        OptionError: no files, no workers or an empty batch.
        OutputError: the cache can't be written to.
    """
    if not paths or workers < 1 or batch < 1:
        raise OptionError(
            f"can't encode {len(paths)} images with {workers} workers in batches of {batch}",
            hint="all three must be at least 1",
        )
    files = [Path(path) for path in paths]
    shape = (len(files), sum(encoder.parts))
    kept = None if cache is None else cache / f"descriptors-{_cache_key(files, encoder)}.npz"
    if kept is not None and (found := _read_cache(kept, shape)) is not None:
        if progress is not None:
            progress(len(files), len(files), "images")
        return found
    rows = np.full(shape, np.nan, np.float32)
    for done, pictures in _decoded(files, encoder, workers, batch, on_error):
        if pictures:
            vectors = encoder.encode(np.stack(list(pictures.values())))
            if vectors.shape != (len(pictures), shape[1]) or not np.isfinite(vectors).all():
                raise ModelError(
                    f"encoder {encoder.name} returned shape {vectors.shape} or values that are not "
                    f"finite, not ({len(pictures)}, {shape[1]})"
                )
            rows[list(pictures)] = vectors
        if progress is not None:
            progress(done, len(files), "images")
    if kept is not None and np.isfinite(rows[:, 0]).all():
        _write_cache(kept, rows)
    return rows


def to_square(picture: Picture, encoder: Encoder) -> Picture:
    """(H, W, 3) uint8 RGB brought to the encoder's (S, S, 3), whole, in the way that it wants.

    Raises:
        ModelError: the encoder names an unknown way to resize.
    """
    how = getattr(encoder, "resize", USUAL_RESIZE)
    if how not in RESIZES:
        raise ModelError(
            f"encoder {encoder.name} wants pictures resized by {how!r}",
            hint=f"known are: {', '.join(RESIZES)}",
        )
    side = encoder.input_px
    return picture if picture.shape[:2] == (side, side) else RESIZES[how](picture, side)


def _decoded(
    files: Sequence[Path],
    encoder: Encoder,
    workers: int,
    batch: int,
    on_error: Literal["raise", "skip"],
) -> Iterator[tuple[int, dict[int, Picture]]]:
    """(files seen, row -> picture), batch by batch, while later batches are being decoded."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    started: deque[tuple[int, Future[Picture]]] = deque()
    waiting = iter(enumerate(files))

    def read(file: Path) -> Picture:
        return to_square(load_photo(file).image, encoder)

    def start(most: int) -> None:
        while len(started) < most and (item := next(waiting, None)) is not None:
            row, file = item
            started.append((row, pool.submit(read, file)))

    try:
        start(AHEAD * batch)
        done = 0
        while started:
            pictures: dict[int, Picture] = {}
            for _ in range(min(batch, len(started))):
                row, picture = started.popleft()
                done += 1
                try:
                    pictures[row] = picture.result()
                except PhotoError as error:
                    if on_error == "raise":
                        raise
                    _log.warning("skipped: %s", error.message)
            start((AHEAD - 1) * batch)  # the batch that is handed out is the other one
            yield done, pictures
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _cache_key(files: Sequence[Path], encoder: Encoder) -> str:
    """32 hexadecimal digits; a file that can't be looked at counts as size -1."""
    digest = hashlib.sha256()
    how = getattr(encoder, "resize", USUAL_RESIZE)
    digest.update(json.dumps([encoder.fingerprint, encoder.input_px, how]).encode())
    for file in files:
        try:
            status = file.stat()
            known = [str(file.absolute()), status.st_size, status.st_mtime_ns]
        except (OSError, ValueError):
            known = [str(file.absolute()), -1, -1]
        digest.update(json.dumps(known).encode())
    return digest.hexdigest()[:32]


def _read_cache(path: Path, shape: tuple[int, int]) -> Floats | None:
    """The rows, or None where there are none or they can't be trusted."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as data:
            rows = data["descriptors"]
    except Exception as error:  # a damaged archive has many ways to fail
        _log.warning("%s can't be read and is made again: %s", path, error)
        return None
    if rows.shape != shape or rows.dtype != np.float32 or not np.isfinite(rows).all():
        _log.warning("%s doesn't hold %d x %d descriptors and is made again", path, *shape)
        return None
    return np.asarray(rows, np.float32)


def _write_cache(path: Path, rows: Floats) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, descriptors=rows)
    write_atomic(path, buffer.getvalue())
