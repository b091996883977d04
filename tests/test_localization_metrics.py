"""SDM and Dis@K by hand and against the published loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skylink.localization_metrics import dis_at, sdm_denseuav, sdm_gta

distances = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 6)),
    elements=st.floats(0, 5000) | st.just(math.inf),
)


@given(distances, st.data())
def test_gta_against_its_loop(distance_m, data) -> None:
    k = data.draw(st.integers(1, distance_m.shape[1]))
    values = zip(distance_m, sdm_gta(distance_m, k), dis_at(distance_m, k), strict=True)
    for row, sdm, dis in values:
        top = sum((k - i) * math.exp(-0.001 * row[i]) for i in range(k))
        assert sdm == pytest.approx(top / sum(k - i for i in range(k)))
        assert dis == pytest.approx(sum(row[:k]) / k)
        assert 0 <= sdm <= 1


@given(
    hnp.arrays(np.float64, (3, 5, 2), elements=st.floats(-1e-3, 1e-3)),
    st.integers(1, 5),
)
def test_denseuav_against_its_loop(offset, k) -> None:
    true = np.array([[120.38, 30.32], [120.4, 30.3], [-70.1, -33.4]])
    places = true[:, None] + offset
    sdm = sdm_denseuav(
        lon=places[..., 0],
        lat=places[..., 1],
        true_lon=true[:, 0],
        true_lat=true[:, 1],
        k=k,
    )
    for q in range(3):
        weight = np.ones(k) - np.arange(k) / k
        gap = np.sqrt(((places[q, :k] - true[q]) ** 2).sum(axis=1))
        assert sdm[q] == pytest.approx(float((weight / np.exp(gap * 5e3)).sum() / weight.sum()))


def test_by_hand() -> None:
    metres = [[0.0, 1000.0, 0.0], [1000.0, math.inf, math.inf]]
    e = math.exp(-1)
    assert sdm_gta(metres, 1) == pytest.approx([1, e])
    assert sdm_gta(metres, 3) == pytest.approx([(3 + 2 * e + 1) / 6, 3 * e / 6])
    assert dis_at(metres, 2).tolist() == [500.0, math.inf]
    # 0.0002 degrees, once to the east and once to the north: alike, though not in metres
    sdm = sdm_denseuav(
        lon=[[120.0002], [120.0]], lat=[[30.0], [30.0002]], true_lon=[120, 120.0],
        true_lat=[30, 30.0], k=1,
    )  # fmt: skip
    assert sdm == pytest.approx([e, e])


def test_a_missing_candidate_adds_nothing() -> None:
    place = {"true_lon": [120.0], "true_lat": [30.0]}
    sdm = sdm_denseuav(lon=[[120.0, math.nan]], lat=[[30.0, math.nan]], **place, k=2)
    assert sdm == pytest.approx([2 / 3])
    with pytest.raises(ValueError, match="NaN"):
        sdm_denseuav(lon=[[120.0]], lat=[[math.nan]], **place, k=1)


def test_the_metre_that_float32_loses_is_not_lost_in_silence() -> None:
    """The published script rounds to float32: an error of 0.3 m there is none, or 0.8 m."""
    lon = np.array([[120.000003]])
    exact = sdm_denseuav(lon=lon, lat=[[30.0]], true_lon=[120.0], true_lat=[30.0], k=1)
    assert exact == pytest.approx([math.exp(-0.015)], rel=1e-6)
    with pytest.raises(ValueError, match="float32"):
        sdm_denseuav(
            lon=lon.astype(np.float32), lat=[[30.0]], true_lon=[120.0], true_lat=[30.0], k=1
        )


@pytest.mark.parametrize(
    ("distance_m", "k"),
    [
        ([[1.0]], 0),
        ([[1.0]], 2),
        ([[-1.0]], 1),
        ([[math.nan]], 1),
        ([1.0], 1),
        (np.ones((0, 3)), 1),
    ],
)
def test_nonsense_is_refused(distance_m, k) -> None:
    for metric in (sdm_gta, dis_at):
        with pytest.raises(ValueError, match=r"k =|distance"):
            metric(distance_m, k)
    with pytest.raises(ValueError, match="true_lon"):
        sdm_denseuav(lon=[[1.0]], lat=[[1.0]], true_lon=[math.nan], true_lat=[1.0], k=1)
