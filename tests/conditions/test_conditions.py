"""The contract that every condition keeps, at every severity."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from map_helpers import texture
from skylink.conditions import (
    CONDITIONS,
    KINDS,
    SEVERITIES,
    Condition,
    apply,
    select_conditions,
    view_shift_m,
)
from skylink.errors import OptionError
from skylink.types import Query, Telemetry

POSE = Telemetry(
    relative_altitude_m=100, heading_deg=30, camera_tilt_from_nadir_deg=30, horizontal_fov_deg=70
)
TELEMETRY_ONLY = {"heading-error", "tilt-error", "altitude-error"}
CROPS = {"off-centre-crop"}
NOT_RANDOM = {"dark", "over-exposed", "low-contrast", "defocus", "jpeg", "low-resolution"}

all_conditions = pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)


def ground(height: int = 300, width: int = 400, seed: int = 1) -> NDArray[np.uint8]:
    """Coarse fields with fine grain, in all grey levels."""
    coarse = cv2.resize(texture(120, 160, seed), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = np.random.default_rng(seed).integers(0, 256, (height // 2, width // 2, 3), np.uint8)
    fine = cv2.resize(fine, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(np.rint(0.7 * coarse + 0.3 * fine), np.uint8)


@pytest.fixture(scope="module")
def query() -> Query:
    return Query(name="a photo.jpg", image=ground(), telemetry=POSE)


@pytest.fixture(scope="module")
def many() -> list[Query]:
    """Enough photos for means over what is random."""
    return [Query(name=f"{i}.jpg", image=ground(seed=10 * i), telemetry=POSE) for i in range(8)]


def same(a: Query, b: Query) -> bool:
    return a.telemetry == b.telemetry and np.array_equal(a.image, b.image)


def difference(query: Query, condition: Condition, severity: int) -> float:
    """Mean absolute difference of grey levels."""
    image = apply(query, condition.name, severity).image
    return float(np.abs(image.astype(np.float32) - query.image).mean())


def test_the_list() -> None:
    assert len(CONDITIONS) == 19
    assert {c.kind for c in CONDITIONS.values()} == set(KINDS)
    for name, condition in CONDITIONS.items():
        assert condition.name == name
        assert len(condition.levels) == len(SEVERITIES)
        steps = np.sign(np.diff(condition.levels))
        assert abs(steps.sum()) == 4, "levels rise or fall throughout"
        assert condition.about.endswith(".")
        assert f"{condition.level(3):g}" in condition.words(3)


def test_the_documents_table_is_this_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text(encoding="utf-8")
    rows = [
        [c.strip() for c in line.split("|")[1:-1]] for line in text.split("\n") if "| `" in line
    ]
    documented = {row[0].strip("`"): row[2:] for row in rows if len(row) == 7}
    assert documented == {n: [f"{v:g}" for v in c.levels] for n, c in CONDITIONS.items()}


@all_conditions
@pytest.mark.parametrize("severity", SEVERITIES)
def test_contract(condition: Condition, severity: int, query: Query) -> None:
    before = query.image.copy()
    query.image.flags.writeable = False
    changed = apply(query, condition.name, severity, seed=3)
    assert np.array_equal(query.image, before)
    assert changed.name == query.name
    assert changed.image.dtype == np.uint8
    assert changed.image.flags["C_CONTIGUOUS"]
    if condition.name in CROPS:
        left = condition.level(severity)
        assert changed.image.shape == (round(300 * left), round(400 * left), 3)
    else:
        assert changed.image.shape == query.image.shape
    assert not same(changed, query)
    if condition.name in TELEMETRY_ONLY:
        assert changed.image is query.image
    else:
        assert not np.shares_memory(changed.image, query.image)
    assert same(changed, apply(query, condition.name, severity, seed=3))


@all_conditions
def test_chance_depends_on_seed_and_name_but_not_on_order(
    condition: Condition, query: Query
) -> None:
    def results(query: Query) -> list[Query]:
        return [apply(query, condition.name, 3, seed) for seed in range(12)]

    first = results(query)
    again = [apply(query, condition.name, 3, seed) for seed in reversed(range(12))]
    assert all(same(a, b) for a, b in zip(first, reversed(again), strict=True))
    differ = any(not same(first[0], other) for other in first[1:])
    assert differ == (condition.name not in NOT_RANDOM)
    renamed = results(dataclasses.replace(query, name="another"))
    moved = any(not same(a, b) for a, b in zip(first, renamed, strict=True))
    assert moved == (condition.name not in NOT_RANDOM)


@all_conditions
def test_severity_0_changes_nothing(condition: Condition, query: Query) -> None:
    assert apply(query, condition.name, 0) is query
    assert view_shift_m(query, condition.name, 0) == (0.0, 0.0)


@pytest.mark.parametrize(
    "name", [n for n in CONDITIONS if n not in TELEMETRY_ONLY | CROPS | {"rotation"}]
)
def test_damage_grows_with_severity(name: str, many: list[Query]) -> None:
    damage = [
        np.mean([difference(query, CONDITIONS[name], severity) for query in many])
        for severity in SEVERITIES
    ]
    assert damage[0] > 0.1, "severity 1 is seen"
    # what is redrawn for each severity (where shadows fall) may cost a little order
    assert all(later > 0.97 * earlier for earlier, later in itertools.pairwise(damage))
    assert damage[-1] > 1.4 * damage[0]


@pytest.mark.parametrize("name", [n for n in CONDITIONS if n not in TELEMETRY_ONLY])
def test_what_was_changed_has_no_file(name: str, query: Query) -> None:
    """A re-ranker that reads the file again would see the photo as it was."""
    filed = dataclasses.replace(query, path=Path("a photo.jpg"))
    assert apply(filed, name, 2).path is None


@all_conditions
def test_photos_without_any_telemetry(condition: Condition) -> None:
    bare = Query(name="bare", image=ground())
    changed = apply(bare, condition.name, 4)
    assert (changed is bare) == (condition.name in TELEMETRY_ONLY)
    assert changed.telemetry == Telemetry()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(CONDITIONS)),
    severity=st.sampled_from(SEVERITIES),
    height=st.integers(16, 70),
    width=st.integers(16, 70),
    grey=st.sampled_from([0, 7, 255]),
    tilt=st.sampled_from([None, 0.0, 45.0, 80.0]),
    hfov=st.sampled_from([None, 1.0, 60.0, 170.0]),
    altitude=st.sampled_from([None, 0.5, 20_000.0]),
)
def test_any_photo_and_pose(
    name: str, severity: int, height: int, width: int, grey: int,
    tilt: float | None, hfov: float | None, altitude: float | None,
) -> None:  # fmt: skip
    """Plain, tiny, wide-angled and near-horizontal photos: no error, no absurd telemetry."""
    telemetry = Telemetry(
        relative_altitude_m=altitude, heading_deg=350.0, camera_tilt_from_nadir_deg=tilt,
        horizontal_fov_deg=hfov,
    )  # fmt: skip
    query = Query(name="x", image=np.full((height, width, 3), grey, np.uint8), telemetry=telemetry)
    changed = apply(query, name, severity)
    assert changed.image.dtype == np.uint8
    assert min(changed.image.shape[:2]) >= 16
    shift = view_shift_m(query, name, severity)
    assert (shift is None) == (name in CROPS and not telemetry.is_pose)
    if shift is not None:
        assert np.isfinite(shift).all()


def test_selection() -> None:
    assert [c.name for c in select_conditions("all")] == list(CONDITIONS)
    assert {c.kind for c in select_conditions("light")} == {"light"}
    assert [c.name for c in select_conditions(" snow, fog,FOG")] == ["fog", "snow"]
    assert [c.name for c in select_conditions("over_exposed")] == ["over-exposed"]
    mixed = select_conditions("jpeg,weather")
    assert [c.name for c in mixed] == ["fog", "rain", "snow", "jpeg"]


@pytest.mark.parametrize(
    ("text", "near"),
    [("fogg", "fog"), ("wether", "weather"), ("motionblur", "motion-blur"), ("fog,", ""), ("", "")],
)
def test_unknown_conditions_name_the_nearest(text: str, near: str) -> None:
    with pytest.raises(OptionError, match="there is no condition") as caught:
        select_conditions(text)
    hint = caught.value.hint or ""
    assert hint.startswith(f"did you mean {near}? " if near else "known are all, viewpoint")
    assert "low-resolution" in hint


def test_unknown_severities(query: Query) -> None:
    for severity in (-1, 6):
        with pytest.raises(OptionError, match=r"not in 0\.\.5"):
            apply(query, "fog", severity)
        with pytest.raises(OptionError, match=r"not in 0\.\.5"):
            view_shift_m(query, "fog", severity)
    with pytest.raises(OptionError, match="no condition 'mist'"):
        apply(query, "mist", 1)
