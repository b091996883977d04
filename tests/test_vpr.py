"""VPR file names, read back as programs of that field read them."""

from __future__ import annotations

import itertools
import math
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.errors import QueriesError
from skylink.geo import distance_m
from skylink.vpr import utm_zone, vpr_names


def test_names_by_hand() -> None:
    """The tower of CN in Toronto: zone 17T, 630,084 m east, 4,833,438 m north."""
    names = vpr_names(
        ["0839/image-01.jpeg", "b@c d"],
        lon=[-79.387139, -79.387139],
        lat=[43.642567, 43.642567],
        heading_deg=[359.6, math.nan],
        height_m=[120.04, math.nan],
    )
    place = "@0630084.30@4833438.59@17@T@043.64257@-079.38714"
    assert names == [
        f"{place}@0839%2Fimage-01.jpeg@@000@@@120.0@@@.jpg",
        f"{place}@b%40c%20d@@@@@@@@.jpg",
    ]
    for name in names:
        assert len(name.split("@")) == 16  # an empty one, and the 15 fields


@given(
    st.integers(-170, 170),
    st.integers(-75, 78),
    st.lists(st.tuples(st.floats(-0.05, 0.05), st.floats(-0.05, 0.05)), min_size=2, max_size=5),
)
def test_first_two_fields_are_metres_of_one_zone(lon, lat, offsets) -> None:
    lons, lats = lon + np.array(offsets)[:, 0], lat + np.array(offsets)[:, 1]
    ids = [f"x@{i}/" for i in range(len(offsets))]
    names = vpr_names(ids, lon=lons, lat=lats)
    fields = [name.split("@") for name in names]
    assert len({f[3] for f in fields}) == 1
    assert [unquote(f[7]) for f in fields] == ids
    for i, j in itertools.combinations(range(len(ids)), 2):
        metres = math.dist(
            (float(fields[i][1]), float(fields[i][2])), (float(fields[j][1]), float(fields[j][2]))
        )
        true = float(distance_m(lon1=lons[i], lat1=lats[i], lon2=lons[j], lat2=lats[j]))
        assert metres == pytest.approx(true, rel=0.004, abs=0.05)
        assert float(fields[i][5]) == pytest.approx(lats[i], abs=1e-5)
        assert float(fields[i][6]) == pytest.approx(lons[i], abs=1e-5)


def test_across_the_border_of_two_zones() -> None:
    names = vpr_names(["w", "e"], lon=[11.9999, 12.0001], lat=[48.0, 48.0])
    east = [float(name.split("@")[1]) for name in names]
    assert abs(east[0] - east[1]) == pytest.approx(14.9, abs=0.1)


def test_southern_and_arctic_zones() -> None:
    name = vpr_names(["a"], lon=[151.2], lat=[-33.85], extension=".png")[0]
    assert name.startswith("@0333471.81@6253018.17@56@H@-33.85000@0151.20000@a@")
    assert name.endswith("@.png")
    zones = {(5, 60): 32, (2, 60): 31, (8.9, 75): 31, (9, 75): 33, (41.9, 75): 37, (180, 0): 1}
    assert {p: utm_zone(lon=p[0], lat=p[1]) for p in zones} == zones
    assert vpr_names(["a"], lon=[10.0], lat=[83.9])[0].split("@")[4] == "X"
    assert vpr_names(["a"], lon=[10.0], lat=[-80.0])[0].split("@")[4] == "C"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lon": [0.0, 30.0]}, "degrees from the middle"),
        ({"lat": [0.0, math.nan]}, "no position"),
        ({"lat": [0.0, 85.0]}, "no UTM"),
        ({"lon": [0.0]}, "shape"),
        ({"ids": ["a", "a"]}, "twice"),
        ({"ids": ["a", "b" * 300]}, "too long"),
        ({"zone": 61}, "zone 61"),
        ({"extension": "/../x.jpg"}, "extension"),
        ({"heading_deg": [0.0, math.inf]}, "infinite"),
    ],
)
def test_nonsense_is_refused(change, message) -> None:
    good = {"ids": ["a", "b"], "lon": [0.0, 1.0], "lat": [0.0, 1.0]}
    vpr_names(**good)
    with pytest.raises(QueriesError, match=message):
        vpr_names(**{**good, **change})
    assert vpr_names([], lon=[], lat=[]) == []
