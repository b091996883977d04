"""Poses in question: how many, in which range, and that the true one is nearly among them."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skylink.camera import ground_width_m
from skylink.errors import OptionError
from skylink.hypotheses import (
    COMPASS_STEP_DEG,
    HEADINGS,
    HEADINGS_A_VIEW,
    MAX_HYPOTHESES,
    RELIEF_FACTORS,
    UNKNOWN_TILTS_DEG,
    UNKNOWN_WIDTHS,
    SearchSpace,
    choose_level,
    hypotheses,
    neighbours,
)
from skylink.types import MAX_TILT_DEG, CameraPose, Telemetry

TILE_M = 160.0
KNOWN = Telemetry(
    relative_altitude_m=120.0,
    heading_deg=30.0,
    camera_tilt_from_nadir_deg=40.0,
    horizontal_fov_deg=70.0,
)


def maybe(low: float, high: float) -> st.SearchStrategy[float | None]:
    return st.none() | st.floats(low, high)


telemetries = st.builds(
    Telemetry,
    relative_altitude_m=maybe(1, 5000),
    heading_deg=maybe(-720, 720),
    camera_tilt_from_nadir_deg=maybe(0, MAX_TILT_DEG),
    horizontal_fov_deg=maybe(5, 150),
)
spaces = st.builds(
    SearchSpace,
    heading_error_deg=maybe(0, 180),
    altitude_error=maybe(0, 0.9),
    tilt_error_deg=maybe(0, 45),
)


def apart_deg(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


@pytest.mark.parametrize(
    ("unknown", "space", "count", "words", "aligned"),
    [
        ((), {}, 3, "3 altitudes for relief", True),
        (("heading_deg",), {}, HEADINGS, "24 headings", False),
        (("relative_altitude_m",), {}, 4, "4 altitudes", False),
        (("camera_tilt_from_nadir_deg",), {}, 6, "2 tilts x 3 altitudes for relief", False),
        (("horizontal_fov_deg",), {}, 3, "3 altitudes for relief", False),
        (("heading_deg", "relative_altitude_m", "camera_tilt_from_nadir_deg"), {}, 24 * 2 * 4,
         "24 headings x 2 tilts x 4 altitudes", False),
        ((), {"heading_error_deg": 20}, 15,
         "5 headings within 20 degrees x 3 altitudes for relief", True),
        ((), {"altitude_error": 0.3}, 5, "5 altitudes within 30%", True),
        ((), {"altitude_error": 0.01}, 3, "3 altitudes within 1%", True),
        ((), {"tilt_error_deg": 10}, 9,
         "3 tilts within 10 degrees x 3 altitudes for relief", True),
        ((), {"heading_error_deg": 0, "altitude_error": 0, "tilt_error_deg": 0}, 3,
         "3 altitudes for relief", True),
        # an error says nothing where the value is not known
        (("heading_deg",), {"heading_error_deg": 20}, HEADINGS, "24 headings", False),
        # with every heading, as few altitudes as refinement can close
        (("heading_deg",), {"altitude_error": 0.3}, 24 * 3,
         "24 headings x 3 altitudes within 30%", False),
        (("heading_deg",), {"altitude_error": 0.9}, 24 * 9,
         "24 headings x 9 altitudes within 90%", False),
        (("relative_altitude_m",), {"altitude_error": 0.3}, 4, "4 altitudes", False),
    ],
)  # fmt: skip
def test_counts_and_words(
    unknown: tuple[str, ...], space: dict[str, float], count: int, words: str, aligned: bool
) -> None:
    tried = hypotheses(KNOWN.without(*unknown), SearchSpace(**space), tile_m=TILE_M)
    assert len(tried.poses) == len(set(tried.poses)) == count
    assert tried.words == words
    assert tried.aligned is aligned


def test_without_relief_full_telemetry_is_one_pose() -> None:
    tried = hypotheses(KNOWN, SearchSpace(), tile_m=TILE_M, relief=False)
    assert tried.words == "one pose"
    (pose,) = tried.poses
    assert pose == CameraPose(altitude_m=120, heading_deg=30, tilt_deg=40, hfov_deg=70)


def test_the_most_likely_comes_first() -> None:
    space = SearchSpace(heading_error_deg=20, altitude_error=0.3, tilt_error_deg=10)
    first = hypotheses(KNOWN, space, tile_m=TILE_M).poses[0]
    assert (first.heading_deg, first.tilt_deg) == (30, 40)
    assert first.altitude_m == pytest.approx(120)
    relief = [p.altitude_m / 120 for p in hypotheses(KNOWN, SearchSpace(), tile_m=TILE_M).poses]
    assert relief == pytest.approx(RELIEF_FACTORS)


@settings(max_examples=60, deadline=None)
@given(telemetry=telemetries, space=spaces, tile_m=st.floats(20, 2000), relief=st.booleans())
def test_every_pose_is_valid_or_the_lot_refused(
    telemetry: Telemetry, space: SearchSpace, tile_m: float, relief: bool
) -> None:
    try:
        tried = hypotheses(telemetry, space, tile_m=tile_m, relief=relief)
    except OptionError:  # its words: test_too_many_are_refused
        return
    assert 1 <= len(tried.poses) <= MAX_HYPOTHESES
    for pose in tried.poses:
        assert 0 <= pose.heading_deg <= 360  # -1e-99 % 360 is 360
        assert 0 <= pose.tilt_deg <= MAX_TILT_DEG
        assert 0 < pose.altitude_m < math.inf
        assert math.isfinite(pose.forward_m)
        assert pose.hfov_deg == (telemetry.horizontal_fov_deg or 70)
    if telemetry.relative_altitude_m is None:
        widths = {round(ground_width_m(p) / tile_m, 6) for p in tried.poses}
        assert sorted(widths) == pytest.approx(sorted(UNKNOWN_WIDTHS))
    if telemetry.camera_tilt_from_nadir_deg is None:
        assert {p.tilt_deg for p in tried.poses} == set(UNKNOWN_TILTS_DEG)
    assert tried.aligned is telemetry.is_pose
    for pose in neighbours(tried.poses[-1], tried):
        assert 0 <= pose.heading_deg <= 360
        assert 0 <= pose.tilt_deg <= MAX_TILT_DEG
        assert pose.altitude_m > 0


@example(true=0.0, error=180.0, share=1.0)
@given(true=st.floats(0, 360), error=maybe(0.1, 180), share=st.floats(-1, 1))
def test_the_true_heading_is_within_half_a_step(
    true: float, error: float | None, share: float
) -> None:
    told = None if error is None else true + share * error
    telemetry = dataclasses.replace(KNOWN, heading_deg=told)
    tried = hypotheses(telemetry, SearchSpace(heading_error_deg=error), tile_m=TILE_M)
    nearest = min(apart_deg(p.heading_deg, true) for p in tried.poses)
    assert nearest <= tried.heading_step_deg + 1e-6
    assert tried.heading_step_deg <= 180 / HEADINGS


@given(share=st.floats(-1, 1), error=st.floats(0.001, 0.9))
def test_the_true_altitude_is_within_half_a_step(share: float, error: float) -> None:
    telemetry = dataclasses.replace(KNOWN, relative_altitude_m=100.0)
    tried = hypotheses(telemetry, SearchSpace(altitude_error=error), tile_m=TILE_M)
    factors = {p.altitude_m / 100 for p in tried.poses}
    assert min(factors) == pytest.approx(1 - error)
    assert max(factors) == pytest.approx(1 + error)
    true = 1 + share * error
    assert min(abs(f - true) for f in factors) <= tried.altitude_step - 1 + 1e-9
    assert 1 < tried.altitude_step < 1.08


@given(share=st.floats(-1, 1), error=st.floats(0.001, 0.9))
def test_with_every_heading_the_true_altitude_is_within_half_a_step(
    share: float, error: float
) -> None:
    telemetry = dataclasses.replace(KNOWN, relative_altitude_m=100.0, heading_deg=None)
    tried = hypotheses(telemetry, SearchSpace(altitude_error=error), tile_m=TILE_M)
    factors = {p.altitude_m / 100 for p in tried.poses}
    true = 1 + share * error
    assert min(abs(f - true) for f in factors) <= tried.altitude_step - 1 + 1e-9
    assert tried.altitude_step <= 1.1 + 1e-9
    assert tried.poses[0].altitude_m == pytest.approx(100)


@settings(max_examples=60, deadline=None)
@given(telemetry=telemetries, space=spaces)
def test_views_are_shared_by_neighbouring_headings_only(
    telemetry: Telemetry, space: SearchSpace
) -> None:
    try:
        tried = hypotheses(telemetry, space, tile_m=TILE_M)
    except OptionError:
        return
    assert len(tried.turns_deg) == len(tried.poses)
    views = [tried.view(i) for i in range(len(tried.poses))]
    shared = 1 if telemetry.heading_deg is not None else HEADINGS_A_VIEW
    assert len(set(views)) == len(set(tried.poses)) // shared
    for view, pose, turn in zip(views, tried.poses, tried.turns_deg, strict=True):
        assert dataclasses.replace(view, heading_deg=pose.heading_deg) == pose
        assert apart_deg(view.heading_deg + turn, pose.heading_deg) < 1e-6
        assert abs(turn) <= 180 / HEADINGS * (HEADINGS_A_VIEW - 1)


def test_the_likeliest_poses_are_tried_first() -> None:
    """Whole turns of headings, from the usual widths outward, both tilts of each."""
    tried = hypotheses(Telemetry(), SearchSpace(), tile_m=TILE_M)
    order = [(round(ground_width_m(p) / TILE_M, 6), p.tilt_deg) for p in tried.poses[::HEADINGS]]
    assert order[:3] == [(1.0, 0.0), (1.0, 45.0), (1.45, 0.0)]
    assert len(set(order)) == len(order) == 8
    for start in range(0, len(tried.poses), HEADINGS):
        part = tried.poses[start : start + HEADINGS]
        assert len({p.heading_deg for p in part}) == HEADINGS
        assert len({(p.altitude_m, p.tilt_deg) for p in part}) == 1


def test_where_each_part_of_the_pose_comes_from() -> None:
    def source(telemetry: Telemetry, **errors: float) -> dict[str, str]:
        return dict(hypotheses(telemetry, SearchSpace(**errors), tile_m=TILE_M).pose_from)

    assert set(source(KNOWN).values()) == {"known"}
    assert source(KNOWN, altitude_error=0.3) == {
        "heading": "known", "altitude": "within", "tilt": "known", "fov": "known",
    }  # fmt: skip
    exif_alone = Telemetry(horizontal_fov_deg=70.0)
    assert source(exif_alone, heading_error_deg=20) == {
        "heading": "searched", "altitude": "searched", "tilt": "searched", "fov": "known",
    }  # fmt: skip
    assert source(Telemetry())["fov"] == "assumed"


@settings(max_examples=60, deadline=None)
@given(share=st.floats(-1, 1), error=st.floats(0.1, 45), tilt=st.floats(0, MAX_TILT_DEG))
def test_the_true_tilt_is_within_half_a_step(share: float, error: float, tilt: float) -> None:
    true = min(MAX_TILT_DEG, max(0.0, tilt + share * error))
    telemetry = dataclasses.replace(KNOWN, camera_tilt_from_nadir_deg=tilt)
    tried = hypotheses(telemetry, SearchSpace(tilt_error_deg=error), tile_m=TILE_M)
    nearest = min(abs(p.tilt_deg - true) for p in tried.poses)
    assert nearest <= tried.tilt_step_deg + 1e-9
    assert tried.tilt_step_deg <= 5  # half of the ten degrees that they are apart at most


@pytest.mark.parametrize(
    "space",
    [
        {"heading_error_deg": 180.1}, {"heading_error_deg": -1}, {"heading_error_deg": math.nan},
        {"altitude_error": 0.91}, {"altitude_error": math.inf}, {"tilt_error_deg": 46},
    ],
)  # fmt: skip
def test_errors_out_of_range(space: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(space)).replace("_", "-")):
        SearchSpace(**space)


def test_too_many_are_refused() -> None:
    wide = SearchSpace(heading_error_deg=180, altitude_error=0.9, tilt_error_deg=45)
    with pytest.raises(OptionError, match="camera poses") as caught:
        hypotheses(KNOWN, wide, tile_m=TILE_M)
    assert "smaller errors" in (caught.value.hint or "")
    nothing = Telemetry()
    assert len(hypotheses(nothing, SearchSpace(), tile_m=TILE_M).poses) <= MAX_HYPOTHESES


def test_neighbours_lie_in_each_open_direction() -> None:
    tried = hypotheses(KNOWN, SearchSpace(), tile_m=TILE_M)
    near = neighbours(tried.poses[0], tried)
    headings = sorted({p.heading_deg for p in near})
    assert headings == [30 - COMPASS_STEP_DEG, 30, 30 + COMPASS_STEP_DEG]
    assert {p.tilt_deg for p in near} == {40}  # known: not open
    factors = sorted({round(p.altitude_m / 120, 3) for p in near})
    assert factors == pytest.approx([1.15**-0.5, 1, 1.15**0.5], abs=1e-3)
    open_tilt = hypotheses(KNOWN.without("camera_tilt_from_nadir_deg"), SearchSpace(), tile_m=160)
    assert {p.tilt_deg for p in neighbours(open_tilt.poses[0], open_tilt)} == {0, 15}  # not below 0
    north = dataclasses.replace(tried.poses[0], heading_deg=1.0)
    assert 357 in {p.heading_deg for p in neighbours(north, tried)}


def test_choose_level() -> None:
    tiles = (80.0, 160.0, 320.0)
    nadir = dataclasses.replace(KNOWN, camera_tilt_from_nadir_deg=0.0, horizontal_fov_deg=90.0)
    for altitude, level in ((10, 0), (40, 0), (56, 0), (58, 1), (80, 1), (120, 2), (900, 2)):
        telemetry = dataclasses.replace(nadir, relative_altitude_m=float(altitude))
        assert choose_level(telemetry, tiles) == level  # the ground's width is 2 altitudes
    assert choose_level(nadir.without("relative_altitude_m"), tiles) == 0
    assert choose_level(nadir.without("relative_altitude_m"), (320.0, 80.0)) == 1
    tilted = dataclasses.replace(nadir, relative_altitude_m=50.0, camera_tilt_from_nadir_deg=60.0)
    assert choose_level(tilted, tiles) == 1  # seen from twice as far
    assert choose_level(tilted, (50.0,)) == 0
