"""Folders of satellite images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from map_helpers import texture
from skylink.errors import QueriesError
from skylink.views import MapPool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"s{i}.png"), texture(60 + 80 * i, 90 + 80 * i, i))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_splits_share_nothing(folder: Path) -> None:
    held, learnt = MapPool([folder], every=3), MapPool([folder], every=3, skip=True)
    assert [p.name for p in held.files] == ["s0.png", "s3.png"]
    assert [p.name for p in learnt.files] == ["s1.png", "s2.png", "s4.png"]


@pytest.mark.parametrize("index", range(5))
def test_squares_of_any_size_by_seed(folder: Path, index: int) -> None:
    pool = MapPool([folder])
    squares = [pool.square(index, np.random.default_rng(s), 128) for s in (1, 1, 2)]
    assert all(s.shape == (128, 128, 3) for s in squares)
    assert np.array_equal(squares[0], squares[1])
    assert not np.array_equal(squares[0], squares[2])


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(QueriesError, match="no images"):
        MapPool([tmp_path])
