"""Geodesy: known distances, round trips, and frames across the antimeridian and the poles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from skylink import geo
from skylink.geo import LocalFrame

lons = st.floats(-180, 180)
lats = st.floats(-90, 90)
offsets = st.floats(-50_000, 50_000)
centres = [(0.0, 0.0), (35.2, 32.1), (180.0, -17.0), (-179.999, 66.0), (10.0, 90.0), (0.0, -90.0)]
frames = st.sampled_from([LocalFrame(lon=lon, lat=lat) for lon, lat in centres])


def metres(a: tuple[float, float], b: tuple[float, float]) -> float:
    return float(geo.distance_m(lon1=a[0], lat1=a[1], lon2=b[0], lat2=b[1]))


def test_known_distances() -> None:
    assert metres((0, 0), (1, 0)) == pytest.approx(111_319.49, abs=0.01)  # a degree of the equator
    assert metres((0, 0), (0, 1)) == pytest.approx(110_574.39, abs=0.01)  # and of a meridian
    assert metres((0, 60), (1, 60)) == pytest.approx(55_799.47, abs=1)  # half, not Mercator's whole
    assert metres((179.9999, 0), (-179.9999, 0)) == pytest.approx(22.26, abs=0.01)
    assert metres((0, 90), (137, 90)) == pytest.approx(0, abs=1e-6)


def test_distances_broadcast() -> None:
    assert geo.distance_m(lon1=0, lat1=0, lon2=0, lat2=0).shape == ()
    grid = geo.distance_m(lon1=np.zeros((3, 1)), lat1=0.0, lon2=np.arange(4), lat2=[[0.0]])
    assert grid.shape == (3, 4)
    assert grid.dtype == np.float64
    assert np.all(np.diff(grid, axis=1) > 0)
    assert np.all(grid[0] == grid[2])


@given(lons, lats, lons, lats)
def test_distance_is_symmetric(lon1: float, lat1: float, lon2: float, lat2: float) -> None:
    there = metres((lon1, lat1), (lon2, lat2))
    assert 0 <= there < 20_004_000
    assert metres((lon2, lat2), (lon1, lat1)) == pytest.approx(there, abs=1e-4)


@given(lons, st.floats(-89, 89), offsets, offsets)
def test_destination_is_as_far_as_asked(
    lon: float, lat: float, east_m: float, north_m: float
) -> None:
    there = geo.destination(lon=lon, lat=lat, east_m=east_m, north_m=north_m)
    assert metres((lon, lat), there) == pytest.approx(math.hypot(east_m, north_m), abs=1e-3)
    assert -180 <= there[0] <= 180


def test_destination_goes_where_asked() -> None:
    assert geo.destination(lon=5, lat=50, east_m=0, north_m=0) == (5, 50)
    lon, lat = geo.destination(lon=5, lat=50, east_m=0, north_m=1000)
    assert lon == pytest.approx(5)
    assert lat > 50
    lon, lat = geo.destination(lon=179.9999, lat=0, east_m=1000, north_m=0)
    assert lon == pytest.approx(-179.9911, abs=1e-4)


@pytest.mark.parametrize(("lon", "lat"), [(5.0, 50.0), (179.999, 10.0), (0.0, 0.0)])
def test_circle(lon: float, lat: float) -> None:
    ring = geo.circle(lon=lon, lat=lat, radius_m=500, points=24)
    assert len(ring) == 25
    assert ring[0] == ring[-1]
    assert all(metres((lon, lat), point) == pytest.approx(500) for point in ring)
    frame = LocalFrame(lon=lon, lat=lat)
    x, y = frame.to_xy(lon=[p[0] for p in ring], lat=[p[1] for p in ring])
    area = 0.5 * float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))
    assert area == pytest.approx(math.pi * 500**2, rel=0.02)  # positive: counter-clockwise


@given(frames, offsets, offsets)
@example(LocalFrame(lon=180.0, lat=-17.0), 7e-8, 1.0)  # PROJ says 180.00000000000065 degrees
def test_frames_round_trip_anywhere(frame: LocalFrame, x: float, y: float) -> None:
    point = frame.point(x_m=x, y_m=y)
    assert -180 <= point[0] <= 180
    assert -90 <= point[1] <= 90
    back = frame.to_xy(lon=point[0], lat=point[1])
    assert (float(back[0]), float(back[1])) == pytest.approx((x, y), abs=1e-3)


@given(frames, offsets, offsets, offsets, offsets)
def test_frames_keep_distances(
    frame: LocalFrame, x1: float, y1: float, x2: float, y2: float
) -> None:
    flat = math.hypot(x2 - x1, y2 - y1)
    geodesic = metres(frame.point(x_m=x1, y_m=y1), frame.point(x_m=x2, y_m=y2))
    assert geodesic == pytest.approx(flat, rel=1e-4, abs=0.01)


def test_frame_axes() -> None:
    frame = LocalFrame(lon=35.2, lat=32.1)
    assert frame.point(x_m=0, y_m=0) == pytest.approx((35.2, 32.1))
    assert frame.point(x_m=100, y_m=0)[0] > 35.2
    assert frame.point(x_m=0, y_m=100)[1] > 32.1
    x, y = frame.to_xy(lon=np.full((2, 3), 35.2), lat=np.full((2, 3), 32.1))
    assert x.shape == y.shape == (2, 3)


def test_a_frame_is_continuous_over_the_antimeridian() -> None:
    frame = LocalFrame(lon=180.0, lat=-17.0)
    x, _ = frame.to_xy(lon=[179.99, 180.0, -180.0, -179.99], lat=[-17.0] * 4)
    assert x == pytest.approx([-1064.6, 0, 0, 1064.6], abs=1)


def test_a_frame_is_continuous_over_the_pole() -> None:
    frame = LocalFrame(lon=0.0, lat=89.999)
    lon, lat = frame.to_lonlat(x_m=np.zeros(3), y_m=np.array([0.0, 100.0, 223.4]))
    assert lat == pytest.approx([89.999, 89.9999, 89.999], abs=1e-5)
    assert abs(lon[2]) == pytest.approx(180)


def test_convergence() -> None:
    frame = LocalFrame(lon=10.0, lat=50.0)
    assert frame.convergence_deg(x_m=0, y_m=0) == pytest.approx(0, abs=1e-3)
    for x in (-20_000.0, 20_000.0):
        turned = frame.convergence_deg(x_m=x, y_m=0)
        # the meridians lean together to the north by the difference of longitude times sin(lat)
        lon, lat = frame.point(x_m=x, y_m=0)
        assert turned == pytest.approx((lon - 10) * math.sin(math.radians(lat)), abs=0.01)
        assert abs(turned) < 0.3
    # heading north on the grid is heading `convergence` in truth
    start = frame.point(x_m=20_000, y_m=0)
    turn = math.radians(frame.convergence_deg(x_m=20_000, y_m=0))
    end = geo.destination(
        lon=start[0], lat=start[1], east_m=1000 * math.sin(turn), north_m=1000 * math.cos(turn)
    )
    x, y = frame.to_xy(lon=end[0], lat=end[1])
    assert (float(x), float(y)) == pytest.approx((20_000, 1000), abs=0.1)


def test_centre() -> None:
    assert geo.centre_lonlat(lon=[10, 12], lat=[50, 50])[0] == pytest.approx(11)
    lon, lat = geo.centre_lonlat(lon=[179, -179], lat=[5, 5])
    assert abs(lon) == pytest.approx(180)
    assert lat == pytest.approx(5, abs=0.01)
    assert geo.centre_lonlat(lon=[0, 90, 180, -90], lat=[89] * 4)[1] == pytest.approx(90)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=6), lons)
def test_centre_turns_with_the_points(points: list[tuple[float, float]], turn: float) -> None:
    lon, lat = (np.array(v) for v in zip(*points, strict=True))
    before = geo.centre_lonlat(lon=lon, lat=lat)
    after = geo.centre_lonlat(lon=lon + turn, lat=lat)
    assume(abs(before[1]) < 80)
    assert math.remainder(after[0] - before[0] - turn, 360) == pytest.approx(0, abs=1e-9)
    assert after[1] == pytest.approx(before[1])
