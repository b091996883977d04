"""Synthetic views: what they show lies where `row, column` say, and masks tell what is shown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from map_helpers import texture
from skylink.views import Difficulty, synthetic_sample
from skylink.views.sample import Sample

EXACT = Difficulty(
    change=0, heading_deg=0, tilt_deg=0, altitude=0, max_tilt_deg=45, widths=(0.6, 1.2)
)


def displaced(sample: Sample) -> tuple[float, float]:
    """1 - correlation with the map, over what the view shows: at the told place, and the least of
    places 6 px off."""
    side = sample.view.shape[0]
    rows, columns = np.nonzero(sample.view_mask)
    y = np.rint(rows - side / 2 + sample.row).astype(int)
    x = np.rint(columns - side / 2 + sample.column).astype(int)
    inside = (y >= 8) & (x >= 8) & (y < sample.map.shape[0] - 8) & (x < sample.map.shape[1] - 8)
    view = sample.view[rows[inside], columns[inside]].ravel()
    there, off = (
        min(
            1 - np.corrcoef(view, sample.map[y[inside] + dy, x[inside] + dx].ravel())[0, 1]
            for dy, dx in moves
        )
        for moves in ([(0, 0)], [(6, 0), (-6, 0), (0, 6), (0, -6)])
    )
    return float(there), float(off)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_what_a_view_shows_lies_where_it_says(seed: int) -> None:
    image = texture(256, 256, seed % 7)
    sample = synthetic_sample(image, np.random.default_rng(seed), view_px=128, difficulty=EXACT)
    assert sample.view.shape == (128, 128, 3)
    assert not sample.view[~sample.view_mask].any()
    if sample.view_mask.mean() < 0.05:
        return
    there, off = displaced(sample)
    assert there < 0.1
    assert there < 0.4 * off


def test_relief_moves_the_truth_with_what_is_shown() -> None:
    """Views that changed in every way still fit the told place better than ones beside it."""
    hard = Difficulty(
        change=1, heading_deg=0, tilt_deg=0, altitude=0, max_tilt_deg=20, widths=(0.5, 0.8)
    )
    fits = []
    for seed in range(12):
        image, rng = texture(256, 256, seed), np.random.default_rng(seed)
        fits.append(displaced(synthetic_sample(image, rng, view_px=128, difficulty=hard)))
    there, off = np.mean(fits, axis=0)
    assert there < 0.75 * off


def test_a_wrong_heading_is_seen_and_the_same_seed_gives_the_same() -> None:
    image = texture(256, 256, 1)
    turned = Difficulty(change=0, heading_deg=0, tilt_deg=0, altitude=0, turned=1.0)
    a, b, c = (
        synthetic_sample(image, np.random.default_rng(s), view_px=128, difficulty=turned)
        for s in (5, 5, 6)
    )
    assert np.array_equal(a.view, b.view)
    assert (a.row, a.column) == (b.row, b.column)
    assert not np.array_equal(a.view, c.view)
    straight = synthetic_sample(
        image, np.random.default_rng(5), view_px=128,
        difficulty=Difficulty(change=0, heading_deg=0, tilt_deg=0, altitude=0),
    )  # fmt: skip
    assert displaced(straight)[0] < displaced(a)[0]


def test_narrow_photos_fill_less_of_a_view() -> None:
    image = texture(256, 256, 2)
    shares = [
        np.mean([
            synthetic_sample(
                image, np.random.default_rng(s), view_px=128,
                difficulty=Difficulty(widths=(width, width)),
            ).view_mask.mean()
            for s in range(10)
        ])
        for width in (0.3, 0.6, 1.4)
    ]  # fmt: skip
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.06, abs=0.06)
