"""Statistics of labels: by hand, and what is said of labels that teach nothing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skylink.errors import QueriesError
from skylink.label_statistics import LabelCounter
from skylink.soft_labels import SoftLabels


def one_hot(k: int, at: int = 0) -> np.ndarray:
    return np.arange(k) == at


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
