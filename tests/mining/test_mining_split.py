"""Parts that share no place: by position, by place, in folds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skylink.errors import OptionError
from skylink.mining.split import LEFT_OUT, Sites, components, fold_of, hold_out

points = st.lists(
    st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000)), min_size=2, max_size=40, unique=True
)
names = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40)


@given(points, st.floats(0.05, 0.9), st.floats(0, 500), st.integers(0, 9))
@settings(deadline=None)
def test_nothing_held_out_is_near_what_is_mined(xy, fraction, reach, seed) -> None:
    sites = Sites(xy_m=np.array(xy), reach_m=reach)
    try:
        parts = hold_out(sites, fraction, seed=seed)
    except OptionError:
        return
    assert set(parts.tolist()) <= {0, 1, LEFT_OUT}
    mined, held = (sites.xy_m[parts == part] for part in (0, 1))
    away = np.abs(mined[:, None] - held[None]).max(axis=2)
    assert away.min() > reach
    left = sites.xy_m[parts == LEFT_OUT]
    assert (np.abs(left[:, None] - held[None]).max(axis=2).min(axis=1) <= reach).all()
    assert len(held) >= max(1, math.floor(fraction * len(xy)))
    np.testing.assert_array_equal(parts, hold_out(sites, fraction, seed=seed))


def test_a_row_of_photos_is_cut_once() -> None:
    xy = np.stack([np.arange(20) * 50.0, np.zeros(20)], axis=1)
    parts = hold_out(Sites(xy_m=xy, reach_m=0.0), 0.25, seed=3)
    assert (parts == 1).sum() == 5
    assert np.count_nonzero(np.diff(parts)) == 1
    with_gap = hold_out(Sites(xy_m=xy, reach_m=120.0), 0.25, seed=3)
    np.testing.assert_array_equal(with_gap == 1, parts == 1)
    assert (with_gap == LEFT_OUT).any()


@given(names, st.floats(0.05, 0.9), st.integers(0, 9))
def test_places_stay_whole(place, fraction, seed) -> None:
    if len(set(place)) < 2:
        with pytest.raises(OptionError, match="too few places"):
            hold_out(Sites(place=place), fraction, seed=seed)
        return
    try:
        parts = hold_out(Sites(place=place), fraction, seed=seed)
    except OptionError:
        return
    of = {name: {int(p) for n, p in zip(place, parts, strict=True) if n == name} for name in place}
    assert all(len(found) == 1 for found in of.values())
    assert {0, 1} == set(parts.tolist())


def test_the_order_of_queries_changes_nothing_and_the_seed_does() -> None:
    place = [str(i // 3) for i in range(300)]
    parts = hold_out(Sites(place=place), 0.2, seed=1)
    turned = hold_out(Sites(place=place[::-1]), 0.2, seed=1)
    np.testing.assert_array_equal(parts, turned[::-1])
    assert 0.15 < (parts == 1).mean() < 0.25
    assert (parts != hold_out(Sites(place=place), 0.2, seed=2)).any()


@given(points, st.integers(2, 5), st.integers(0, 5))
def test_folds_are_about_equal_strips(xy, folds, seed) -> None:
    sites = Sites(xy_m=np.array(xy))
    if len(xy) < folds:
        with pytest.raises(OptionError, match="too few places"):
            fold_of(sites, folds, seed=seed)
        return
    sizes = np.bincount(fold_of(sites, folds, seed=seed), minlength=folds)
    assert sizes.max() - sizes.min() <= 1


def test_folds_of_places() -> None:
    place = [str(i // 4) for i in range(40)]
    parts = fold_of(Sites(place=place), 3, seed=0)
    assert set(parts.tolist()) == {0, 1, 2}
    assert all(len(set(parts[i : i + 4].tolist())) == 1 for i in range(0, 40, 4))


def test_queries_that_share_an_answer_share_a_place() -> None:
    a, b, c, d, e = components([(1, 2), (7,), (2, 3), (3,), (8, 9)])
    assert a == c == d
    assert len({a, b, e}) == 3


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, math.nan])
def test_shares_that_are_none(fraction) -> None:
    with pytest.raises(OptionError, match="not a share"):
        hold_out(Sites(place=["a", "b"]), fraction)


def test_one_fold_is_none() -> None:
    with pytest.raises(OptionError, match="1 folds"):
        fold_of(Sites(place=["a", "b"]), 1)
