"""Soft labels from four sources: by hand, by oracle, at thresholds, and what broken lists say."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skylink.errors import OptionError, QueriesError
from skylink.geo import destination
from skylink.soft_labels import (
    SOURCES,
    LabelCounter,
    LabelList,
    Places,
    SoftLabels,
    iou,
    measured,
    rectangles,
)

sides = st.floats(1, 500)
turns = st.floats(-360, 360)
near = st.floats(-300, 300)
boxes = st.tuples(near, near, sides, sides, turns)


def one_hot(k: int, at: int = 0) -> np.ndarray:
    return np.arange(k) == at


def overlap_list(**changes) -> LabelList:
    """Four 100 m tiles: the right one, moved by half, by one tile, and the right one again."""
    footprints = rectangles(np.array([0.0, 50.0, 100.0, 0.0]), 0.0, 100.0, 100.0)
    known = {"name": "q1", "ground_truth": one_hot(4), "candidates": Places(footprints=footprints)}
    return LabelList(**(known | changes))


# footprints


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


# the four sources


def test_overlap_by_hand_is_the_default() -> None:
    labels = SoftLabels().labels_for(overlap_list())
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels, [1, 1 / 3, 0, 1], rtol=1e-6)


def test_the_true_place_may_be_a_photos_footprint() -> None:
    photo = Places(footprints=rectangles(10.0, 0.0, 80.0, 80.0))
    seen = overlap_list(truth=photo)
    shares = [6400 / 10000, 5000 / 10000 * 0.8]  # inside the first; half of it on the second
    expected = [shares[0], 4000 / (10000 + 6400 - 4000), 0.0, shares[0]]
    np.testing.assert_allclose(measured(seen, "overlap"), expected, atol=1e-9)
    np.testing.assert_allclose(SoftLabels().labels_for(seen)[:2], [1, expected[1]], rtol=1e-6)
    own = SoftLabels(keep_ground_truth_one=False, threshold=0.9).labels_for(seen)
    np.testing.assert_allclose(own, [0.64, 0, 0, 0], rtol=1e-6)


def test_cosine_above_a_threshold_is_the_papers_label() -> None:
    angles = np.radians([0.0, 20.0, 60.0, 180.0])
    descriptors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1], [5], [0.2], [3]]
    seen = LabelList(
        name="q", ground_truth=one_hot(4), candidates=Places(descriptors=descriptors)
    )  # fmt: skip
    np.testing.assert_allclose(measured(seen, "cosine"), np.cos(angles), atol=1e-12)
    for tau, kept in ((0.0, 3), (0.4, 3), (0.6, 2), (0.95, 1), (1.0, 1)):
        labels = SoftLabels(source="cosine", threshold=tau).labels_for(seen)
        expected = np.where(np.arange(4) < kept, np.cos(angles), 0)
        np.testing.assert_allclose(labels, expected, rtol=1e-6)


def test_distance_is_geodesic_where_degrees_are_known() -> None:
    points = [destination(lon=179.9999, lat=52.0, east_m=e, north_m=0.0) for e in (0, 50, 100)]
    lon, lat = (np.array(v) for v in zip(*points, strict=True))
    seen = LabelList(name="q", ground_truth=one_hot(3), candidates=Places(lon=lon, lat=lat))
    assert lon[0] > 0 > lon[2]  # across the antimeridian
    np.testing.assert_allclose(measured(seen, "distance"), [0, 50, 100], atol=1e-3)
    labels = SoftLabels(source="distance", scale_m=50.0, threshold=0.2).labels_for(seen)
    np.testing.assert_allclose(labels, [1, math.exp(-1), 0], rtol=1e-4)
    metres = Places(x_m=np.array([3.0, 0.0, 3.0]), y_m=np.array([4.0, 0.0, 0.0]))
    local = LabelList(name="q", ground_truth=one_hot(3, 1), candidates=metres)
    np.testing.assert_allclose(measured(local, "distance"), [5, 0, 3])


def test_of_several_right_candidates_the_best_counts() -> None:
    seen = overlap_list(ground_truth=np.array([True, False, True, False]))
    np.testing.assert_allclose(SoftLabels().labels_for(seen), [1, 1 / 3, 1, 1], rtol=1e-6)


def test_weights_of_the_dataset() -> None:
    weights = np.array([0.5, 0.3, 0.0, 0.14])
    labels = SoftLabels(source="dataset", threshold=0.2).labels_for(overlap_list(weights=weights))
    np.testing.assert_allclose(labels, [1, 0.3, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("source", SOURCES)
@settings(deadline=None)
@given(
    values=hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)),
    threshold=st.floats(0, 1),
    data=st.data(),
)
def test_labels_are_in_range_thresholded_and_monotone(source, values, threshold, data) -> None:
    right = one_hot(len(values), data.draw(st.integers(0, len(values) - 1)))
    config = SoftLabels(source=source, threshold=threshold, scale_m=0.5)
    labels = config.labels_of(values, right, name="q")
    assert labels[right] == 1
    assert ((labels >= 0) & (labels <= 1)).all()
    assert ((labels == 0) | (labels >= np.float32(threshold) - 1e-7)).all()
    order = np.argsort(-values if source == "distance" else values, kind="stable")
    assert (np.diff(labels[order][~right[order]]) >= 0).all()


def test_a_threshold_of_one_is_hard_but_for_equals() -> None:
    values = [1.0, 1 - 1e-9, 0.9999, 0.0]  # the second equals the first but for rounding
    labels = SoftLabels(source="cosine", threshold=1.0).labels_of(values, one_hot(4), name="q")
    assert labels.tolist() == [1, 1, 0, 0]


# quantile


@settings(deadline=None)
@given(
    others=st.lists(st.floats(0, 1), min_size=1, max_size=40),
    quantile=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]),
)
def test_a_quantile_keeps_that_share_of_the_other_candidates(others, quantile) -> None:
    lists = [(str(i), [1.0, value], one_hot(2)) for i, value in enumerate(others)]
    config = SoftLabels(source="cosine", quantile=quantile)
    with pytest.raises(OptionError, match="quantile"):
        config.labels_of([1.0, 0.5], one_hot(2), name="q")
    fitted = config.fitted(lists)
    assert fitted.quantile == quantile
    assert fitted.threshold == pytest.approx(np.quantile(others, quantile), abs=2e-6)
    kept = sum(fitted.labels_of(v, r, name=n)[1] >= fitted.threshold - 1e-6 for n, v, r in lists)
    assert kept >= math.floor((1 - quantile) * len(others))
    assert fitted.fitted(lists) == fitted


def test_a_quantile_needs_candidates_and_none_is_fitted_unasked() -> None:
    with pytest.raises(QueriesError, match="no quantile"):
        SoftLabels(quantile=0.5).fitted([("q", [1.0], one_hot(1))])
    config = SoftLabels(threshold=0.3)
    assert config.fitted([("q", [math.nan], one_hot(1))]) is config


# broken lists and options


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.5])
def test_values_out_of_range_name_the_list(source, value) -> None:
    with pytest.raises(QueriesError, match=r"list 0839/a\.jpg: .* candidate 2 is not in"):
        SoftLabels(source=source).labels_of([0.5, value], one_hot(2), name="0839/a.jpg")


@pytest.mark.parametrize("source", ["overlap", "cosine", "dataset"])
def test_values_above_one_are_refused(source) -> None:
    with pytest.raises(QueriesError, match="not in"):
        SoftLabels(source=source).labels_of([0.5, 1.01], one_hot(2), name="q")


NAN = np.full((4, 2), math.nan)


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("overlap", {"candidates": Places()}, "its footprints are not known"),
        ("cosine", {}, "its descriptors are not known"),
        ("distance", {}, "its x_m are not known"),
        ("dataset", {}, "its weights are not known"),
        ("dataset", {"weights": np.ones(3)}, r"its weights have the shape \(3,\)"),
        ("cosine", {"candidates": Places(descriptors=NAN)}, "its descriptors are NaN"),
        ("cosine", {"candidates": Places(descriptors=NAN[0])}, "have the shape"),
        ("cosine", {"candidates": Places(descriptors=np.zeros((4, 2)))}, "no direction"),
        ("overlap", {"candidates": Places(footprints=np.zeros((4, 4, 2)))}, "not a convex"),
        ("overlap", {"truth": Places()}, "true footprints are not known"),
        ("overlap", {"ground_truth": np.zeros(4, bool)}, "no positive"),
    ],
)
def test_lists_that_can_not_be_labelled_are_named(source, changes, message) -> None:
    with pytest.raises(QueriesError, match=message) as caught:
        SoftLabels(source=source).labels_for(overlap_list(**changes))
    assert "q1" in caught.value.message


def test_no_positive_and_a_ground_truth_that_measures_nothing() -> None:
    with pytest.raises(QueriesError, match="list q has no positive"):
        SoftLabels().labels_of([0.5, 0.5], np.zeros(2, bool), name="q")
    with pytest.raises(QueriesError, match="list q: the ground truth itself has overlap 0"):
        SoftLabels(keep_ground_truth_one=False).labels_of([0.0, 0.5], one_hot(2), name="q")
    with pytest.raises(ValueError):
        SoftLabels().labels_of([0.5, 0.5], one_hot(3), name="q")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "iou"}, "unknown source of labels 'iou'"),
        ({"threshold": 1.5}, "threshold = 1.5"),
        ({"threshold": math.nan}, "threshold = nan"),
        ({"quantile": -0.1}, "quantile = -0.1"),
        ({"scale_m": 0.0}, "scale_m = 0.0"),
        ({"scale_m": math.inf}, "scale_m = inf"),
    ],
)
def test_options_out_of_range(changes, message) -> None:
    with pytest.raises(OptionError, match=message):
        SoftLabels(**changes)


# statistics


def counted(*lists: list[float], right: int = 0):
    counter = LabelCounter()
    for labels in lists:
        counter.add(np.array(labels, np.float32), one_hot(len(labels), right))
    return counter.statistics()


def test_statistics_by_hand() -> None:
    found = counted([1, 0.3, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1])
    assert (found.lists, found.candidates) == (3, 12)
    assert found.soft_share == pytest.approx(2 / 3)
    assert found.one_hot_share == pytest.approx(1 / 3)
    p = np.array([1, 0.3]) / 1.3
    entropy = -(p * np.log(p)).sum()
    assert found.entropy == pytest.approx((entropy + math.log(4)) / 3, rel=1e-6)
    assert found.relative_entropy == pytest.approx((entropy / math.log(4) + 1) / 3, rel=1e-6)
    assert found.histogram == (5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3)
    assert not found.collapsed
    assert found.note == ""


def test_labels_that_collapse_to_one_hot_say_so() -> None:
    values = [[1.0, 0.85, 0.2], [1.0, 0.7, 0.89]]
    for threshold, collapsed in ((0.9, True), (0.8, False)):
        config = SoftLabels(source="cosine", threshold=threshold)
        labels = [config.labels_of(v, one_hot(3), name="q").tolist() for v in values]
        found = counted(*labels)
        assert found.collapsed is collapsed
        assert (found.entropy == 0) is collapsed
        assert ("one-hot" in found.note) is collapsed


def test_flat_labels_say_so_and_two_right_ones_are_not_soft() -> None:
    assert "flat" in counted([1, 0.93, 0.94, 0.92]).note
    counter = LabelCounter()
    counter.add([1.0, 1.0, 0.0], [True, True, False])
    found = counter.statistics()
    assert (found.soft_share, found.one_hot_share, found.collapsed) == (0, 0, False)
    with pytest.raises(QueriesError, match="no lists"):
        LabelCounter().statistics()


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9), min_size=1))
def test_statistics_are_bounded_and_count_everybody(lists) -> None:
    lists = [[1.0, *others] for others in lists]
    found = counted(*lists)
    others = [value for labels in lists for value in labels[1:]]
    assert sum(found.histogram) == len(others)
    assert found.histogram[0] == sum(value == 0 for value in others)
    assert 0 <= found.relative_entropy <= 1 + 1e-9
    assert 0 <= found.entropy <= math.log(10) + 1e-9
    assert found.soft_share == pytest.approx(1 - found.one_hot_share)
    assert found.collapsed == (not any(others))
    assert dataclasses.asdict(found)["lists"] == len(lists)
