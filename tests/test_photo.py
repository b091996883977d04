"""Photos in: every usable kind becomes upright RGB; everything else is a clear PhotoError."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from skylink.errors import PhotoError
from skylink.photo import MAX_PIXELS, MAX_SIDE_PX, expand_photos, load_photo
from skylink.types import Query, Telemetry

REAL = Path(__file__).parents[2] / "shared" / "data" / "exif"


def scene(size: tuple[int, int] = (120, 80)) -> Image.Image:
    """Red quarter top left, green top right, blue bottom left, white bottom right."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    w, h = size[0] // 2, size[1] // 2
    draw.rectangle((0, 0, w - 1, h - 1), "red")
    draw.rectangle((w, 0, size[0], h - 1), "lime")
    draw.rectangle((0, h, w - 1, size[1]), "blue")
    return image


def corners(query: Query) -> str:
    """The colours of the quarters, row by row, as one letter each."""
    h, w = query.image.shape[:2]
    letters = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 1): "W", (0, 0, 0): "K"}
    points = [
        (h // 4, w // 4),
        (h // 4, 3 * w // 4),
        (3 * h // 4, w // 4),
        (3 * h // 4, 3 * w // 4),
    ]
    return "".join(letters[tuple((query.image[p] > 127).astype(int).tolist())] for p in points)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    scene().save(path)
    query = load_photo(path)
    assert query.image.shape == (80, 120, 3)
    assert query.image.dtype == np.uint8
    assert query.image.flags.writeable
    assert corners(query) == "RGBW"
    assert query.name == path.name
    assert query.path == path
    assert load_photo(str(path), name="x/y").name == "x/y"


@pytest.mark.parametrize(
    ("orientation", "upright"),
    list(enumerate(["RGBW", "GRWB", "WBGR", "BWRG", "RBGW", "BRWG", "WGBR", "GWRB", "RGBW"], 1)),
)
def test_exif_orientation(tmp_path: Path, orientation: int, upright: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    scene().save(path, exif=exif, quality=95)
    query = load_photo(path)
    assert corners(query) == upright
    assert query.image.shape[:2] == ((120, 80) if 5 <= orientation <= 8 else (80, 120))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("L", None),
        ("P", "RGBW"),
        ("CMYK", "RGBW"),
        ("YCbCr", "RGBW"),
        ("1", None),
        ("RGBA", "RGBW"),
    ],
)
def test_modes(tmp_path: Path, mode: str, expected: str | None) -> None:
    path = tmp_path / "a.tif"
    scene().convert(mode).save(path)
    query = load_photo(path)
    assert query.image.shape == (80, 120, 3)
    if expected:
        assert corners(query) == expected


def test_transparent_parts_are_black(tmp_path: Path) -> None:
    picture = scene().convert("RGBA")
    picture.paste((255, 0, 0, 0), (0, 0, 60, 40))
    picture.save(tmp_path / "rgba.png")
    assert corners(load_photo(tmp_path / "rgba.png")) == "KGBW"
    palette = scene().convert("P", palette=Image.Palette.ADAPTIVE)
    palette.info["transparency"] = palette.getpixel((5, 5))
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((5, 5)))
    assert corners(load_photo(tmp_path / "p.png")) == "KGBW"
    grey = Image.new("LA", (40, 40), (255, 0))
    grey.save(tmp_path / "la.png")
    assert load_photo(tmp_path / "la.png").image.max() == 0


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_deep_grey_is_stretched(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(900, 3000, 200 * 50).reshape(50, 200)  # 12-bit values in 16 bits
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / f"a{suffix}")
    image = load_photo(tmp_path / f"a{suffix}").image
    assert (image.min(), image.max()) == (0, 255)
    assert abs(int(image[25, 100, 0]) - 128) < 5
    assert np.all(image[..., 0] == image[..., 2])


def test_float_grey_with_nan_and_flat_grey(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 1600, dtype=np.float32).reshape(40, 40)
    values[0, :4] = np.nan, np.inf, -np.inf, 1e30
    Image.fromarray(values).save(tmp_path / "f.tif")
    assert load_photo(tmp_path / "f.tif").image.max() == 255
    for flat in (np.full((40, 40), 7, np.uint16), np.full((40, 40), np.nan, np.float32)):
        Image.fromarray(flat).save(tmp_path / "flat.tif")
        assert load_photo(tmp_path / "flat.tif").image.max() == 0


def test_first_page_and_first_frame(tmp_path: Path) -> None:
    other = Image.new("RGB", (30, 30), "black")
    scene().save(tmp_path / "a.tif", save_all=True, append_images=[other])
    scene().save(tmp_path / "a.webp", save_all=True, append_images=[other.resize((120, 80))])
    assert corners(load_photo(tmp_path / "a.tif")) == "RGBW"
    assert corners(load_photo(tmp_path / "a.webp")) == "RGBW"


@pytest.mark.parametrize(("suffix", "width"), [(".jpg", 8400), (".png", 4400)])
def test_very_large_photos_are_reduced(tmp_path: Path, suffix: str, width: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA405] = 24
    scene((width, width // 2)).save(tmp_path / f"a{suffix}", exif=exif, compress_level=1)
    scene((1200, 600)).save(tmp_path / f"small{suffix}", exif=exif)
    query, small = load_photo(tmp_path / f"a{suffix}"), load_photo(tmp_path / f"small{suffix}")
    assert query.image.shape == (MAX_SIDE_PX, MAX_SIDE_PX // 2, 3)
    assert corners(query) == corners(small) == "BRWG"
    assert query.telemetry == small.telemetry  # reducing leaves the field of view as it was
    assert query.telemetry.horizontal_fov_deg is not None


def test_telemetry_of_the_file_and_of_the_caller(tmp_path: Path) -> None:
    xmp = b'<x drone-dji:RelativeAltitude="50" drone-dji:GimbalYawDegree="10"/>'
    scene().save(tmp_path / "a.jpg", xmp=xmp)
    known = Telemetry(heading_deg=99, camera_tilt_from_nadir_deg=45)
    assert load_photo(tmp_path / "a.jpg").telemetry == Telemetry(
        relative_altitude_m=50, heading_deg=10
    )
    assert load_photo(tmp_path / "a.jpg", telemetry=known).telemetry == Telemetry(
        relative_altitude_m=50, heading_deg=99, camera_tilt_from_nadir_deg=45
    )


def test_names_of_any_kind(tmp_path: Path) -> None:
    folder = tmp_path / "Ünïcode фото 航拍"
    folder.mkdir()
    path = folder / "a b'c\"d ☀.JPG"
    scene().save(path, "JPEG")
    assert corners(load_photo(path)) == "RGBW"
    assert expand_photos([folder]) == [path]


def refused(path: Path, *words: str) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        load_photo(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    text = f"{caught.value.message} {caught.value.hint}"
    for word in words:
        assert word in text
    return caught.value


def test_what_is_no_photo(tmp_path: Path) -> None:
    refused(tmp_path / "none.jpg", "does not exist")
    refused(tmp_path, "is a folder")
    (tmp_path / "empty.jpg").touch()
    refused(tmp_path / "empty.jpg", "empty")
    (tmp_path / "text.jpg").write_text("not a photo" * 100)
    refused(tmp_path / "text.jpg", "not a JPEG, PNG, TIFF or WebP")
    (tmp_path / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    refused(tmp_path / "a.svg", "not a JPEG")
    scene().save(tmp_path / "a.gif")
    refused(tmp_path / "a.gif", "convert")
    refused(tmp_path / ("x" * 400 + ".jpg"), "cannot read")
    scene((15, 100)).save(tmp_path / "thin.png")
    refused(tmp_path / "thin.png", "too small", "15 x 100")
    with pytest.raises(PhotoError):
        load_photo("a\0b.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    refused(tmp_path / "pipe.jpg", "not a regular file")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene().save(tmp_path / "a.jpg")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)  # root may read all, so chmod proves nothing
    refused(tmp_path / "a.jpg", "Permission denied", "permissions")


def test_raw_files_are_not_taken_for_their_thumbnails(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.dng", "TIFF", tiffinfo={50706: b"\x01\x04\x00\x00"})
    refused(tmp_path / "a.dng", "DNG", "JPEG")


def png_of_size(path: Path, width: int, height: int) -> None:
    """A PNG whose header claims this size and whose pixels are missing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data)
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize("size", [(100_000, 100_000), (20_000, 9_000), (2_000_000, 100)])
def test_bombs_are_refused_by_their_header(tmp_path: Path, size: tuple[int, int]) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    png_of_size(tmp_path / "bomb.png", *size)
    refused(tmp_path / "bomb.png", "too large")


def test_large_but_allowed_headers_raise_no_warning(tmp_path: Path) -> None:
    png_of_size(tmp_path / "a.png", 12_000, 10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(tmp_path / "a.png", "truncated")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_photos_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a{suffix}")
    whole = (tmp_path / f"a{suffix}").read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole[: max(12, int(len(whole) * share))])
    refused(cut)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    suffix=st.sampled_from([".jpg", ".png", ".tif", ".webp"]),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_give_a_photo_or_a_photo_error(tmp_path: Path, suffix, damage) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    path = tmp_path / f"a{suffix}"
    scene((48, 32)).save(path, exif=exif)
    data = bytearray(path.read_bytes())
    for where, value in damage:
        data[int(where * len(data))] = value
    path.write_bytes(bytes(data))
    with contextlib.suppress(PhotoError):
        assert load_photo(path).image.ndim == 3


def test_expanding_folders_and_files(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.webp", "._a.png", "notes.txt", "a.jpg.part"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub.jpg").mkdir()
    photos = [tmp_path / name for name in ("a.png", "b.JPG", "c.webp")]
    assert expand_photos([tmp_path]) == photos
    assert expand_photos([photos[2], str(tmp_path)]) == [photos[2], *photos[:2]]
    assert expand_photos([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]  # named outright


def test_nothing_to_expand(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no photos given"):
        expand_photos([])
    with pytest.raises(PhotoError, match="no photos in the folder") as caught:
        expand_photos([tmp_path])
    assert ".webp" in (caught.value.hint or "")
    with pytest.raises(PhotoError, match="does not exist"):
        expand_photos([tmp_path / "gone.jpg"])


@pytest.mark.real
@pytest.mark.skipif(
    not REAL.is_dir(),
    reason=f"needs real camera files in {REAL}, which are not part of the repository",
)
def test_real_photos() -> None:
    photos = expand_photos([REAL])
    assert len(photos) == 3
    for query in map(load_photo, photos):
        assert max(query.image.shape) == 4000
        assert query.telemetry.horizontal_fov_deg is not None
        assert 40 < query.image.mean() < 220
