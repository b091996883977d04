"""Turned kernels: quarter turns exactly, small turns against views rendered at the heading."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from map_helpers import texture
from skylink.densemap import MIN_VALID_CELLS, Kernels, weigh
from skylink.turning import turned

SIDE, CHANNELS = 14, 9


def kernels(seed: int = 0, *, hole: bool = True) -> Kernels:
    """Two kernels of smooth unit vectors, a part of one not valid."""
    fields = [texture(SIDE, SIDE, seed + i).astype(np.float32) for i in range(CHANNELS // 3)]
    one = np.concatenate(fields, axis=2) - 128
    valid = np.ones((2, SIDE, SIDE), bool)
    if hole:
        valid[1, :5] = False
    values = np.stack([one, one[::-1]])
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    values *= valid[..., None]
    counts = valid.sum((1, 2))
    return Kernels(values=values * weigh(counts, SIDE), usable=counts >= MIN_VALID_CELLS)


@pytest.mark.parametrize(("degrees", "quarters"), [(90.0, -1), (180.0, 2), (-90.0, 1)])
def test_quarter_turns_are_exact(degrees: float, quarters: int) -> None:
    """A heading further clockwise turns the north-up picture of the same pixels clockwise."""
    before = kernels()
    after = turned(before, degrees)
    expected = np.rot90(before.values, quarters, axes=(1, 2))
    np.testing.assert_allclose(after.values, expected, atol=1e-5)
    np.testing.assert_array_equal(after.usable, before.usable)


def test_no_turn_is_the_same_object() -> None:
    before = kernels()
    assert turned(before, 0.0) is before


@given(degrees=st.floats(-180, 180), seed=st.integers(0, 20))
def test_scores_keep_their_scale(degrees: float, seed: int) -> None:
    """Unit vectors times the weight of as many cells: a kernel against itself scores the same."""
    after = turned(kernels(seed), degrees)
    for kernel in after.values:
        norms = np.linalg.norm(kernel, axis=-1)
        count = int((norms > 0).sum())
        weight = 1 / np.sqrt(count * SIDE**2)
        np.testing.assert_allclose(norms[norms > 0], weight, rtol=1e-4)
    assert np.isfinite(after.values).all()


def test_there_and_back() -> None:
    before = kernels(3, hole=False)
    back = turned(turned(before, 15.0), -15.0).values
    inner = slice(4, -4)
    a, b = before.values[:, inner, inner], back[:, inner, inner]
    cosine = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    assert np.median(cosine) > 0.9


def test_cells_without_half_of_their_ground_are_not_valid() -> None:
    after = turned(kernels(), 45.0).values[0]
    corners = np.abs(after[[0, 0, -1, -1], [0, -1, 0, -1]]).max()
    assert corners == 0  # they come from outside of the view
    empty = Kernels(
        values=np.zeros((1, SIDE, SIDE, CHANNELS), np.float32), usable=np.zeros(1, bool)
    )
    assert not turned(empty, 15.0).usable.any()
    assert not turned(empty, 15.0).values.any()
