"""Overlapping photos: warps are recovered, samples lie where they say, the list is checked."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from map_helpers import texture
from skylink.errors import QueriesError, SkyLinkError
from skylink.views import Difficulty, Overlap, OverlapPool, find_overlaps
from skylink.views.overlap_pool import similarity
from skylink.views.overlaps import (
    LONG_SIDE_PX,
    pairs_by_name,
    pairs_by_place,
    read_overlaps,
    write_overlaps,
)

EXACT = Difficulty(change=0, heading_deg=0, altitude=0, widths=(1.2, 1.2))


def ground() -> NDArray[np.uint8]:
    """A textured plain of 900 x 1200 px, with detail for SIFT."""
    fine = texture(900, 1200, 3).astype(int)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    coarse = cv2.resize(noise, (1200, 900), interpolation=cv2.INTER_CUBIC).astype(int)
    return ((fine + coarse) // 2).astype(np.uint8)


def warp(angle_deg: float, scale: float, x: float, y: float) -> NDArray[np.float64]:
    """From the ground's pixels to a photo's of 640 x 480."""
    return similarity(angle_deg, scale, np.array([x, y]), np.array([320.0, 240.0]))


WARPS = [warp(0, 1, 500, 400), warp(20, 0.9, 600, 450), warp(-35, 1.1, 560, 380)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos of the plain, and one of another."""
    folder = tmp_path_factory.mktemp("root") / "site"
    folder.mkdir()
    plain = ground()
    for number, to_photo in enumerate(WARPS):
        photo = cv2.warpPerspective(plain, to_photo, (LONG_SIDE_PX, 480))
        cv2.imwrite(str(folder / f"p{number}.png"), photo[..., ::-1])
    cv2.imwrite(str(folder / "p3.png"), ground()[::-1][:480, :640])
    return folder


@pytest.fixture(scope="module")
def found(site: Path) -> list[Overlap]:
    return find_overlaps(site)


def test_known_warps_are_recovered(found: list[Overlap]) -> None:
    pairs = {(int(o.first.stem[1]), int(o.second.stem[1])): o for o in found}
    assert pairs.keys() >= {(0, 1), (0, 2), (1, 2)}
    assert all(3 not in pair for pair in pairs)
    spots = np.array([[[100.0, 100], [500, 120], [320, 400]]])
    for (i, j), overlap in pairs.items():
        true = WARPS[i] @ np.linalg.inv(WARPS[j])
        there = cv2.perspectiveTransform(spots, overlap.homography)
        assert np.abs(there - cv2.perspectiveTransform(spots, true)).max() < 2
        assert 0.25 <= overlap.share <= 1


def test_what_a_sample_shows_lies_where_it_says(found: list[Overlap]) -> None:
    assert sum(compared_samples(found, seed) for seed in range(8)) >= 10


def compared_samples(found: list[Overlap], seed: int) -> int:
    """Of the samples of a seed, those that could be compared with the map, and fit it."""
    pool, compared = OverlapPool(found), 0
    made = [
        pool.samples(
            seed % len(pool), np.random.default_rng(seed), count=2, map_px=256, view_px=96,
            difficulty=EXACT,
        )
        for _ in range(2)
    ]  # fmt: skip
    for sample, again in zip(*made, strict=True):
        assert np.array_equal(sample.view, again.view)
        assert np.array_equal(sample.map, made[0][0].map)
        rows, columns = np.nonzero(sample.view_mask)
        y = np.rint(rows - 48 + sample.row).astype(int)
        x = np.rint(columns - 48 + sample.column).astype(int)
        inside = (y >= 4) & (x >= 4) & (y < 252) & (x < 252)
        rows, columns, y, x = (v[inside] for v in (rows, columns, y, x))
        known = sample.map_mask[y, x]
        if known.sum() < 400:  # the photo shows little of this map there: `sources.usable`
            continue
        compared += 1
        view = sample.view[rows, columns].astype(int)[known]
        there, off = (
            float(np.abs(view - sample.map[y[known] + d, x[known]].astype(int)).mean())
            for d in (0, 4)
        )
        assert there < 0.5 * off
    return compared


def test_a_list_is_read_as_written_within_the_folder(
    found: list[Overlap], site: Path, tmp_path: Path
) -> None:
    path = tmp_path / "overlaps.csv"
    write_overlaps(path, found, site.parent)
    assert str(site.parent) not in path.read_text()
    again = read_overlaps(path, site.parent)
    for a, b in zip(found, again, strict=True):
        assert (a.first, a.second) == (b.first, b.second)
        assert np.array_equal(a.homography, b.homography)
    pool = OverlapPool.of(site.parent, ["none"], cache=path)  # the folder isn't looked at
    assert len(pool) == len(found)
    with pytest.raises(QueriesError, match="is not within"):
        write_overlaps(path, found, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("first,", "one,"),
        ("site/p0.png", "/etc/passwd"),
        ("site/p0.png", "../p0.png"),
        ("1.0,", "nan,"),
        ("1.0,", "x,"),
        (",1.0", ""),
    ],
)
def test_a_damaged_list_is_refused(
    found: list[Overlap], site: Path, tmp_path: Path, old: str, new: str
) -> None:
    path = tmp_path / "overlaps.csv"
    write_overlaps(path, found, site.parent)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(QueriesError):
        read_overlaps(path, site.parent)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "overlaps.csv"
    path.write_bytes(data)
    with pytest.raises(SkyLinkError):
        read_overlaps(path, path.parent)


def test_nothing_found_says_so(tmp_path: Path) -> None:
    with pytest.raises(QueriesError, match="no overlapping"):
        OverlapPool([])
    with pytest.raises(QueriesError, match="can't be read"):
        find_overlaps(tmp_path / "none")


def test_photos_are_compared_with_the_nearest() -> None:
    places = [(0.0, 0.0), (1.0, 0.0), None, (2.5, 0.0), (100.0, 0.0)]
    assert pairs_by_place(places, 1) == {(0, 1), (1, 3), (3, 4)}
    assert pairs_by_place(places, 9) == {(0, 1), (0, 3), (0, 4), (1, 3), (1, 4), (3, 4)}
    assert pairs_by_name([2, 5, 7], 1) == {(2, 5), (5, 7)}
    assert (0, 8) in pairs_by_name(range(20), 5)
    assert (0, 7) not in pairs_by_name(range(20), 5)


def test_positions_beside_the_folder_choose_the_pairs(site: Path) -> None:
    """p0 and p2 are far from each other by their positions, and both near p1."""
    lines = ["file,lat,lon", "site/p0.png,10,20", "site/p1.png,10,20.001", "site/p2.png,10,20.002"]
    beside = site.with_suffix(".csv")
    beside.write_text("\n".join(lines))
    try:
        pairs = {(o.first.name, o.second.name) for o in find_overlaps(site, neighbours=1)}
    finally:
        beside.unlink()
    assert pairs == {("p0.png", "p1.png"), ("p1.png", "p2.png")}
