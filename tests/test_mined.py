"""Mined lists: labelled again, as candidates of a retriever, and contradictions."""

from __future__ import annotations

import numpy as np
import pytest

from mined_helpers import candidate, mined
from skylink.errors import QueriesError
from skylink.mined import MapPlace
from skylink.soft_labels import SoftLabels
from skylink.types import CameraPose, Telemetry


def test_lists_can_be_labelled_again(tmp_path) -> None:
    one = mined()
    assert one.labels.tolist() == [0.5, 1.0, 0.0]
    soft = one.relabelled(SoftLabels(source="cosine", threshold=0.0))
    np.testing.assert_allclose(soft.labels, [0.85, 1.0, 0.0])
    hard = one.relabelled(SoftLabels(source="cosine", threshold=0.9))
    assert hard.labels.tolist() == [0, 1, 0]
    assert hard.ground_truth.tolist() == [False, True, False]
    with pytest.raises(QueriesError, match=r"0839/a\.jpg.*overlap was not measured"):
        one.relabelled(SoftLabels())
    by_quantile = SoftLabels(source="cosine", quantile=0.5).fitted(
        (m.query, m.values("cosine"), m.ground_truth) for m in [one]
    )
    assert by_quantile.threshold == pytest.approx(0.425)  # half way from 0 to 0.85


def test_a_candidate_on_the_map_is_one_of_a_retriever() -> None:
    pose = CameraPose(altitude_m=80.0, heading_deg=10.0, tilt_deg=5.0, hfov_deg=70.0)
    place = MapPlace(area=1, level=0, x_m=10.0, y_m=-5.0, lon=35.2, lat=32.1, pose=pose)
    found = candidate("pose-1", 2, path=None, place=place).on_map()
    assert (found.id, found.score, found.base_score) == ("pose-1", 0.8, 0.8)
    assert (found.lon, found.lat, found.area, found.pose) == (35.2, 32.1, 1, pose)
    with pytest.raises(QueriesError, match="'0840' is a picture"):
        candidate("0840", 1).on_map()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"telemetry": Telemetry(lon=1.0, lat=2.0)}, "telemetry has a position"),
        ({"candidates": (candidate("a", 1), candidate("a", 2))}, "'a' is there twice"),
        ({"candidates": (candidate("a", 1), candidate("b", 1))}, "'b' is not in the order"),
        ({"candidates": (candidate("a", 2), candidate("b", 1))}, "'b' is not in the order"),
        (
            {"candidates": (candidate("a", 1), candidate("b", 2, base_score=0.95))},
            "rises at candidate 'b'",
        ),
        ({"candidates": (candidate("a", 1), candidate("b", None))}, "'b' has no rank"),
        ({"candidates": (candidate("a", 1), candidate("b", 2, path=None))}, "neither a path"),
        (
            {"candidates": (candidate("a", 1), candidate("b", 2, is_ground_truth=True))},
            "ground truth 'b' has the label 0",
        ),
        (
            {"candidates": (candidate("a", 1, base_score=None), candidate("b", 2))},
            "'a' has a rank, but no base score",
        ),
    ],
)
def test_lists_that_contradict_themselves_name_the_query(changes, message) -> None:
    with pytest.raises(QueriesError, match=message) as caught:
        mined("q7", **changes)
    assert "query 'q7'" in caught.value.message
