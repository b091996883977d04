from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encoder_helpers import scenes
from skylink import encode
from skylink.encode import AHEAD, RESIZES, encode_files, to_square
from skylink.encoder import Floats, Images, Masks, unit_parts
from skylink.errors import ModelError, OptionError, PhotoError

SIDE = 32


class Tiny:
    """Means of 8 px cells; counts what it's asked for."""

    name = "tiny"
    fingerprint = "0123456789abcdef"
    input_px = SIDE
    stride_px = 16
    channels = 0
    parts: tuple[int, ...] = (48,)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, images: Images, masks: Masks | None = None) -> Floats:
        assert masks is None
        self.batches.append(len(images))
        cells = images.reshape(len(images), 4, 8, 4, 8, 3).mean((2, 4))
        return unit_parts(cells.reshape(len(images), -1) + 1, self.parts)

    def feature_map(self, images: Images) -> Floats:
        raise NotImplementedError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """25 pictures of several sizes and formats, each another."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for i, picture in enumerate(scenes(25, 60)):
        path = folder / f"{i:02}{'.png' if i % 3 else '.jpg'}"
        Image.fromarray(picture[: 40 + i % 20]).save(path)
        paths.append(path)
    return paths


def plain(files: Sequence[Path], encoder: Tiny) -> Floats:
    """One by one, with nothing in parallel."""
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in files]
    return np.concatenate([encoder.encode(to_square(p, encoder)[None]) for p in pictures])


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (1, 7), (3, 4), (8, 32), (2, 25)])
def test_it_is_the_plain_way_but_overlapped(files: list[Path], workers: int, batch: int) -> None:
    encoder = Tiny()
    seen: list[tuple[int, int, str]] = []
    rows = encode_files(
        files, encoder, workers=workers, batch=batch, progress=lambda *step: seen.append(step)
    )
    assert rows.dtype == np.float32
    assert np.array_equal(rows, plain(files, Tiny()))
    assert encoder.batches == [min(batch, 25 - i) for i in range(0, 25, batch)]
    assert seen == [(min(i + batch, 25), 25, "images") for i in range(0, 25, batch)]


def test_a_file_may_come_twice(files: list[Path]) -> None:
    rows = encode_files([files[3], files[1], str(files[3])], Tiny())
    assert np.array_equal(rows[0], rows[2])
    assert not np.array_equal(rows[0], rows[1])


def test_memory_is_bounded(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the encoder is, at most AHEAD batches are decoded and not yet encoded."""
    ahead: list[int] = []
    decoded = 0
    lock = threading.Lock()
    real = encode.load_photo

    def counting(path: Path) -> Any:
        nonlocal decoded
        with lock:
            decoded += 1
        return real(path)

    class Slow(Tiny):
        def encode(self, images: Images, masks: Masks | None = None) -> Floats:
            threading.Event().wait(0.02)
            with lock:
                ahead.append(decoded - sum(self.batches))
            return super().encode(images, masks)

    monkeypatch.setattr(encode, "load_photo", counting)
    encode_files(files, Slow(), workers=8, batch=2)
    assert max(ahead) <= AHEAD * 2
    assert max(ahead) > 2  # decoding did go on meanwhile


@pytest.fixture
def with_bad(files: list[Path], tmp_path: Path) -> list[Path]:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff not a photo")
    return [*files[:4], bad, *files[4:6], tmp_path / "missing.png"]


def test_an_unreadable_image_is_named(with_bad: list[Path]) -> None:
    before = set(threading.enumerate())
    with pytest.raises(PhotoError, match=r"bad\.jpg"):
        encode_files(with_bad, Tiny(), batch=2)
    assert set(threading.enumerate()) <= before


def test_skipped_images_are_nan_and_logged(
    with_bad: list[Path], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    encoder = Tiny()
    with caplog.at_level(logging.WARNING, "skylink.encode"):
        rows = encode_files(with_bad, encoder, batch=2, on_error="skip", cache=tmp_path / "cache")
    assert np.isnan(rows[[4, 7]]).all()
    good = [0, 1, 2, 3, 5, 6]
    assert np.array_equal(rows[good], plain([with_bad[i] for i in good], Tiny()))
    assert [r.message.split()[0] for r in caplog.records] == ["skipped:", "skipped:"]
    assert "bad.jpg" in caplog.text
    assert "missing.png" in caplog.text
    assert not (tmp_path / "cache").exists()


def test_a_batch_of_which_nothing_can_be_read(with_bad: list[Path]) -> None:
    rows = encode_files([with_bad[4], with_bad[7]], Tiny(), on_error="skip")
    assert rows.shape == (2, 48)
    assert np.isnan(rows).all()


def test_the_second_run_is_read(files: list[Path], tmp_path: Path) -> None:
    first, second = Tiny(), Tiny()
    seen: list[tuple[int, int, str]] = []
    rows = encode_files(files, first, cache=tmp_path)
    again = encode_files(files, second, cache=tmp_path, progress=lambda *s: seen.append(s))
    assert np.array_equal(rows, again)
    assert (first.batches, second.batches) == ([25], [])
    assert seen == [(25, 25, "images")]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_makes_the_cache_stale(files: list[Path], tmp_path: Path) -> None:
    copies = []
    for path in files[:3]:
        copies.append(tmp_path / path.name)
        copies[-1].write_bytes(path.read_bytes())
    cache = tmp_path / "cache"

    def computed(paths: Sequence[Path], encoder: Tiny) -> bool:
        encode_files(paths, encoder, cache=cache)
        return bool(encoder.batches)

    assert computed(copies, Tiny())
    assert not computed(copies, Tiny())
    assert computed(copies[::-1], Tiny())  # the order is the rows' order
    os.utime(copies[0], (1, 1))
    assert computed(copies, Tiny())
    copies[1].write_bytes(files[4].read_bytes())
    assert computed(copies, Tiny())
    other = Tiny()
    other.fingerprint = "other"
    assert computed(copies, other)
    resized = Tiny()
    resized.resize = "pil-bicubic"  # type: ignore[attr-defined]
    assert computed(copies, resized)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"nonsense", "shape", "nan", "pickle"])
def test_a_damaged_cache_is_made_again(
    files: list[Path], tmp_path: Path, damage: bytes | str
) -> None:
    rows = encode_files(files, Tiny(), cache=tmp_path)
    (stored,) = tmp_path.iterdir()
    wrong = {
        "shape": rows[:, :3],
        "nan": np.full_like(rows, np.nan),
        "pickle": np.array([{"a": 1}], dtype=object),
    }
    if isinstance(damage, bytes):
        stored.write_bytes(damage)
    else:
        np.savez(stored, descriptors=wrong[damage])
    encoder = Tiny()
    assert np.array_equal(encode_files(files, encoder, cache=tmp_path), rows)
    assert encoder.batches == [25]
    assert np.array_equal(encode_files(files, Tiny(), cache=tmp_path), rows)


def test_bad_options(files: list[Path]) -> None:
    for wrong in ({"workers": 0}, {"batch": 0}):
        with pytest.raises(OptionError):
            encode_files(files, Tiny(), **wrong)
    with pytest.raises(OptionError, match="0 images"):
        encode_files([], Tiny())


def test_an_encoder_that_breaks_its_contract(files: list[Path]) -> None:
    class Short(Tiny):
        def encode(self, images: Images, masks: Masks | None = None) -> Floats:
            return super().encode(images, masks)[:-1]

    class Nan(Tiny):
        def encode(self, images: Images, masks: Masks | None = None) -> Floats:
            return super().encode(images, masks) * np.float32(np.nan)

    class Odd(Tiny):
        resize = "nearest"

    for kind in (Short, Nan):
        with pytest.raises(ModelError, match="tiny returned"):
            encode_files(files, kind())
    with pytest.raises(ModelError, match="'nearest'"):
        encode_files(files, Odd())


# resizing


def resized(how: str, picture: np.ndarray, side: int) -> np.ndarray:
    encoder = Tiny()
    encoder.input_px, encoder.resize = side, how  # type: ignore[attr-defined]
    return to_square(picture, encoder)


def test_resizing_is_the_one_of_the_named_library() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    by_pillow = Image.fromarray(picture).resize((40, 40), Image.Resampling.BICUBIC)
    assert np.array_equal(resized("pil-bicubic", picture, 40), np.asarray(by_pillow))
    by_opencv = cv2.resize(picture, (40, 40), interpolation=cv2.INTER_LINEAR_EXACT)
    assert np.array_equal(resized("opencv-linear", picture, 40), by_opencv)
    assert np.abs(by_opencv.astype(int) - np.asarray(by_pillow)).max() > 3  # it matters


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(RESIZES)), st.integers(16, 90), st.integers(16, 90), st.integers(32, 64)
)
def test_any_picture_becomes_a_square(how: str, height: int, width: int, side: int) -> None:
    flat = np.full((height, width, 3), (10, 120, 250), np.uint8)
    square = resized(how, flat, side)
    assert square.shape == (side, side, 3)
    assert square.dtype == np.uint8
    assert (square == flat[0, 0]).all()


def test_a_square_of_the_right_side_is_left_alone() -> None:
    picture = scenes(1, 40)[0]
    for how in RESIZES:
        assert resized(how, picture, 40) is picture
