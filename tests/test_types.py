"""The vocabulary's own checks."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.errors import OptionError, SkyLinkError, TelemetryError
from skylink.types import MAX_TILT_DEG, CameraPose, Prior, Telemetry

FULL = Telemetry(
    lon=35.2,
    lat=32.1,
    relative_altitude_m=120.0,
    heading_deg=-30.0,
    camera_tilt_from_nadir_deg=45.0,
    horizontal_fov_deg=73.7,
)
NAMES = [field.name for field in dataclasses.fields(Telemetry)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_telemetry_refuses_what_is_not_finite(name: str, value: float) -> None:
    with pytest.raises(TelemetryError, match=name) as caught:
        Telemetry(**{name: value})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lon", 180.1),
        ("lon", -181.0),
        ("lat", 90.5),
        ("lat", -91.0),
        ("relative_altitude_m", 0.0),
        ("relative_altitude_m", -5.0),
        ("relative_altitude_m", 20_001.0),
        ("camera_tilt_from_nadir_deg", -0.1),
        ("camera_tilt_from_nadir_deg", MAX_TILT_DEG + 0.1),
        ("horizontal_fov_deg", 0.0),
        ("horizontal_fov_deg", 180.0),
    ],
)
def test_telemetry_refuses_what_is_out_of_range(name: str, value: float) -> None:
    with pytest.raises(TelemetryError, match=f"{name} = {value}"):
        Telemetry(**{name: value})


def test_telemetry_takes_its_bounds() -> None:
    Telemetry(lon=-180, lat=90, relative_altitude_m=0.5, camera_tilt_from_nadir_deg=MAX_TILT_DEG)
    Telemetry(lon=180, lat=-90, heading_deg=1e6, camera_tilt_from_nadir_deg=0)


def test_a_pose_needs_four_values() -> None:
    assert FULL.is_pose
    assert FULL.without("lon", "lat").is_pose
    assert not Telemetry().is_pose
    for name in NAMES[2:]:
        assert not FULL.without(name).is_pose
    assert Telemetry(
        relative_altitude_m=1, heading_deg=0, camera_tilt_from_nadir_deg=0, horizontal_fov_deg=90
    ).is_pose  # zeros are known values


@given(st.sets(st.sampled_from(NAMES)))
def test_without_and_updated_are_opposites(names: set[str]) -> None:
    less = FULL.without(*names)
    assert {name for name in NAMES if getattr(less, name) is None} == names
    assert less.updated(FULL) == FULL
    assert FULL.updated(less) == FULL
    assert Telemetry().updated(less) == less


def test_what_the_other_knows_wins() -> None:
    other = Telemetry(heading_deg=0.0)
    assert FULL.updated(other).heading_deg == 0.0
    assert FULL.updated(other).lat == 32.1


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.lat = 1.0  # type: ignore[misc]


def test_camera_pose_offset() -> None:
    pose = CameraPose(altitude_m=100, heading_deg=270, tilt_deg=45, hfov_deg=60)
    assert pose.forward_m == pytest.approx(100)
    assert pose.offset_m == pytest.approx((-100, 0), abs=1e-9)


@pytest.mark.parametrize(
    ("lon", "lat", "radius_m"),
    [
        (181, 0, 1),
        (0, 91, 1),
        (0, 0, 0),
        (0, 0, -1),
        (math.nan, 0, 1),
        (0, math.inf, 1),
        (0, 0, math.nan),
        (0, 0, math.inf),
    ],
)
def test_priors_are_checked(lon: float, lat: float, radius_m: float) -> None:
    with pytest.raises(OptionError, match="prior"):
        Prior(lon=lon, lat=lat, radius_m=radius_m)


def test_errors_carry_a_message_and_a_hint() -> None:
    error = TelemetryError("what", hint="do")
    assert isinstance(error, SkyLinkError)
    assert (str(error), error.message, error.hint) == ("what", "what", "do")
    assert SkyLinkError("x").hint is None
