"""Changes between a satellite image and a drone photo: bounded, seeded, none at strength 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from map_helpers import texture
from skylink.views import changes

ALL = [changes.colours, changes.shadows, changes.objects, changes.optics]
Change = Callable[..., Any]


@pytest.mark.parametrize("change", ALL)
def test_nothing_changes_at_strength_0(change: Change) -> None:
    image = texture(96, 128)
    for seed in range(8):
        out = change(image, 0.0, np.random.default_rng(seed))
        assert np.abs(out.astype(int) - image).max() <= 1  # rounding of colours


@pytest.mark.parametrize("change", ALL)
def test_strength_changes_more(change: Change) -> None:
    image = texture(96, 128)
    weak, strong = (
        np.mean([
            np.abs(change(image, s, np.random.default_rng(i)).astype(int) - image).mean()
            for i in range(12)
        ])
        for s in (0.1, 1.0)
    )  # fmt: skip
    assert strong > 2 * weak > 0


@pytest.mark.parametrize("change", ALL)
@given(strength=st.floats(0, 3), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_strength_gives_a_picture(change: Change, strength: float, seed: int) -> None:
    image = texture(64, 48)
    out = change(image, strength, np.random.default_rng(seed))
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    assert np.array_equal(out, change(image, strength, np.random.default_rng(seed)))


def test_relief_tells_where_each_pixel_was_taken_from() -> None:
    ramp = np.zeros((90, 120, 3), np.uint8)
    ramp[..., 0] = np.arange(120)[None] * 2
    ramp[..., 1] = np.arange(90)[:, None] * 2
    warped, flow = changes.relief(ramp, 1.0, np.random.default_rng(3))
    assert np.abs(flow).max() > 1
    assert flow.mean(axis=(0, 1)) == pytest.approx(0, abs=1e-4)
    inner = (slice(25, -25), slice(25, -25))
    x = np.arange(120)[None] + flow[..., 0]
    y = np.arange(90)[:, None] + flow[..., 1]
    assert np.abs(warped[..., 0] / 2 - x)[inner].max() < 0.6
    assert np.abs(warped[..., 1] / 2 - y)[inner].max() < 0.6
    assert not changes.relief(ramp, 0.0, np.random.default_rng(3))[1].any()
