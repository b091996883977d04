"""Footprints: overlap by hand and by counted points, and polygons that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skylink.footprints import iou, rectangles

sides = st.floats(1, 500)
turns = st.floats(-360, 360)
near = st.floats(-300, 300)
boxes = st.tuples(near, near, sides, sides, turns)


@settings(deadline=None)
@given(boxes, boxes, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_overlap_is_symmetric_bounded_and_blind_to_place_and_direction(a, b, dx, dy) -> None:
    one, other = rectangles(*a), rectangles(*b)
    value = iou(one, other)[0, 0]
    assert 0 <= value <= 1
    assert iou(other, one)[0, 0] == pytest.approx(value, abs=1e-9)
    assert iou(one[:, ::-1], other)[0, 0] == pytest.approx(value, abs=1e-9)
    away = np.array([dx, dy])
    assert iou(one + away, other + away)[0, 0] == pytest.approx(value, abs=1e-6)
    assert iou(one, one)[0, 0] == pytest.approx(1, abs=1e-9)


@settings(deadline=None)
@given(boxes, boxes)
def test_overlap_agrees_with_counted_points(a, b) -> None:
    u, v = np.meshgrid(*[(np.arange(200) + 0.5) / 200 - 0.5] * 2)
    x, y, width, height, heading = a
    cos, sin = math.cos(math.radians(heading)), math.sin(math.radians(heading))
    east = x + u * width * cos + v * height * sin - b[0]
    north = y - u * width * sin + v * height * cos - b[1]
    cos, sin = math.cos(math.radians(b[4])), math.sin(math.radians(b[4]))
    within = (abs(east * cos - north * sin) < b[2] / 2) & (abs(east * sin + north * cos) < b[3] / 2)
    shared = within.mean() * width * height
    value = iou(rectangles(*a), rectangles(*b))[0, 0]
    assert value == pytest.approx(shared / (width * height + b[2] * b[3] - shared), abs=0.02)


def test_nested_tiles_that_share_edges() -> None:
    """Where OpenCV finds nothing in common."""
    found = iou(rectangles(0.0, 0.0, 2.0, 1.0, 1.0), rectangles(0.0, 0.0, 2.0, 62.5, 1.0))
    assert found[0, 0] == pytest.approx(1 / 62.5)


@settings(deadline=None)
@given(near, near, sides, sides)
def test_upright_squares_by_hand(x, y, side, other_side) -> None:
    across = min(side, x * 2 + other_side) / 2 - max(-side, x * 2 - other_side) / 2
    down = min(side, y * 2 + other_side) / 2 - max(-side, y * 2 - other_side) / 2
    shared = max(0.0, across) * max(0.0, down)
    expected = shared / (side**2 + other_side**2 - shared)
    found = iou(rectangles(0.0, 0.0, side, side), rectangles(x, y, other_side, other_side))
    assert found[0, 0] == pytest.approx(expected, abs=1e-9)


def test_overlap_of_turned_and_other_polygons_by_hand() -> None:
    square = rectangles(0.0, 0.0, 2.0, 2.0)
    octagon = 4 * 2 * (math.sqrt(2) - 1)  # where a square meets itself turned by 45 degrees
    turned = iou(square, rectangles(0.0, 0.0, 2.0, 2.0, 45.0))[0, 0]
    assert turned == pytest.approx(octagon / (8 - octagon))
    triangle = np.array([[[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0]]])
    assert iou(square, triangle)[0, 0] == pytest.approx(0.5)
    assert iou(square, rectangles(2.0, 0.0, 2.0, 2.0))[0, 0] == 0  # they touch


def test_headings_turn_clockwise_from_north() -> None:
    (corners,) = rectangles(10.0, 20.0, 2.0, 6.0, 90.0)  # looking east: long from west to east
    np.testing.assert_allclose(corners.min(axis=0), [7, 19])
    np.testing.assert_allclose(corners.max(axis=0), [13, 21])
    ahead = rectangles(0.0, 0.0, 0.001, 10.0, 30.0)[0, 2:].mean(axis=0)
    np.testing.assert_allclose(ahead, [5 * math.sin(math.pi / 6), 5 * math.cos(math.pi / 6)])


@pytest.mark.parametrize(
    "ring",
    [
        [(0, 0), (1, 1), (2, 2), (3, 3)],  # no area
        [(0, 0), (1, 1), (1, 0), (0, 1)],  # crosses itself
        [(0, 0), (4, 0), (1, 1), (0, 4)],  # a dent
        [(math.cos(a * 4 * math.pi / 5), math.sin(a * 4 * math.pi / 5)) for a in range(5)],  # star
    ],
)
def test_polygons_that_are_not_convex_are_refused(ring) -> None:
    square = rectangles(0.0, 0.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="footprint 1 is not a convex polygon"):
        iou(np.array([ring], dtype=float), square)
