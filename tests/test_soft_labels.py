"""Soft labels from four sources: by hand, by oracle, at thresholds, and what broken lists say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skylink.errors import OptionError, QueriesError
from skylink.footprints import rectangles
from skylink.geo import destination
from skylink.soft_labels import (
    SOURCES,
    LabelList,
    Places,
    SoftLabels,
    measured,
)


def one_hot(k: int, at: int = 0) -> np.ndarray:
    return np.arange(k) == at


def overlap_list(**changes) -> LabelList:
    """Four 100 m tiles: the right one, moved by half, by one tile, and the right one again."""
    footprints = rectangles(np.array([0.0, 50.0, 100.0, 0.0]), 0.0, 100.0, 100.0)
    known = {"name": "q1", "ground_truth": one_hot(4), "candidates": Places(footprints=footprints)}
    return LabelList(**(known | changes))


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
