"""What telemetry does not know becomes a search: the camera poses under which a photo is tried.

Three steps of knowledge for each angle or length: known (one value), known within an error (a few
values around it), unknown (the whole range). Altitude is special: what drones report is the height
above take-off, not above the ground in view, so even a known altitude is tried at three values
(measured on real flights, docs/log.md: the median error of the camera's position fell from 21 to
15 m).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skylink.camera import altitude_for_width_m, ground_width_m
from skylink.errors import OptionError
from skylink.types import CameraPose, Telemetry

RELIEF_FACTORS = (1.0, 1 / 1.15, 1.15)
"""Altitudes tried for a known one, most likely first: relief moves the ground by some 15 %."""

HEADINGS = 24
"""Headings tried where the heading is unknown: 15 degrees apart. A heading wrong by 10 degrees
cost a prototype 13 points of recall on real flights; refinement closes the 7.5 that remain."""

HEADINGS_A_VIEW = 3
"""Neighbouring headings that share an encoded view (turning.py), where the heading is unknown."""

UNKNOWN_TILTS_DEG = (0.0, 45.0)
"""Tilts tried where the tilt is unknown: mapping flights look down, most others half ahead."""

UNKNOWN_WIDTHS = (1.0, 1.45, 0.7, 2.1)
"""Ground widths tried where the altitude is unknown, as multiples of the level's tile, most likely
first: galleries are built for the width that photos show."""

ASSUMED_HFOV_DEG = 70.0
"""Field of view where it is unknown. Only its product with the altitude matters for a photo taken
straight down, and that is searched."""

COMPASS_STEP_DEG = 4.0
"""A known heading is refined by this much around the best places: what compasses are off by."""

MAX_HYPOTHESES = 480


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """How far telemetry may be off; None: as good as it says.

    Attributes:
        heading_error_deg: a known heading is within this, degrees (0..180).
        altitude_error: a known altitude is within this fraction of itself (0..0.9).
        tilt_error_deg: a known tilt is within this, degrees (0..45).

    Raises:
        OptionError: a value outside its range.
    """

    heading_error_deg: float | None = None
    altitude_error: float | None = None
    tilt_error_deg: float | None = None

    def __post_init__(self) -> None:
        limits = {"heading_error_deg": 180.0, "altitude_error": 0.9, "tilt_error_deg": 45.0}
        for name, limit in limits.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 <= value <= limit):
                raise OptionError(f"{name.replace('_', '-')} {value!r} is not in 0..{limit:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypotheses:
    """The poses to try for one photo on one level, and how to refine around the best.

    Attributes:
        poses: the grid, most likely first.
        turns_deg: for each pose, how far its heading is from that of the view that is encoded for
            it: neighbours share a view (turning.py).
        heading_step_deg, altitude_step, tilt_step_deg: half a grid spacing, what the grid leaves
            open (altitude as a factor > 1).
        aligned: every part of the pose came from telemetry.
        words: for people: "24 headings x 3 altitudes".
        pose_from: where each part of the pose (heading, altitude, tilt, fov) comes from: `known`,
            `within` a stated error, `searched`, or, the field of view, `assumed`.
    """

    poses: Sequence[CameraPose]
    turns_deg: Sequence[float]
    heading_step_deg: float
    altitude_step: float
    tilt_step_deg: float
    aligned: bool
    words: str
    pose_from: Mapping[str, str]

    def view(self, index: int) -> CameraPose:
        """The pose whose view is encoded for pose `index`."""
        pose, turn = self.poses[index], self.turns_deg[index]
        return _changed(pose, "heading_deg", pose.heading_deg - turn) if turn else pose


def _spread(error: float, spacing: float) -> list[float]:
    """Offsets over [-error, error] about `spacing` apart, the middle first."""
    steps = max(1, math.ceil(error / spacing))
    offsets = [error * i / steps for i in range(-steps, steps + 1)]
    return sorted(offsets, key=abs)


def hypotheses(
    telemetry: Telemetry, space: SearchSpace, *, tile_m: float, relief: bool = True
) -> Hypotheses:
    """The poses under which a photo should be tried on a level whose tiles are `tile_m` wide.

    Args:
        relief: try a known altitude at RELIEF_FACTORS. Global descriptors are too blunt for it:
            their best altitude is a matter of chance (R@1 fell from 40 to 30 on real flights).

    Raises:
        OptionError: the combination asks for more than MAX_HYPOTHESES poses.
    """
    hfov = telemetry.horizontal_fov_deg or ASSUMED_HFOV_DEG
    known_heading, known_tilt = telemetry.heading_deg, telemetry.camera_tilt_from_nadir_deg
    words = []

    heading_step = COMPASS_STEP_DEG
    if known_heading is None:
        heading_step = 180.0 / HEADINGS
        headings = [360.0 * i / HEADINGS for i in range(HEADINGS)]
        middle = (HEADINGS_A_VIEW - 1) / 2
        turns = [360.0 / HEADINGS * (i % HEADINGS_A_VIEW - middle) for i in range(HEADINGS)]
        words.append(f"{HEADINGS} headings")
    elif space.heading_error_deg:
        offsets = _spread(min(space.heading_error_deg, 180.0 * 30 / 31), 12.0)  # 31 at the most
        heading_step = abs(offsets[1]) / 2
        headings = [known_heading + offset for offset in offsets]
        words.append(f"{len(headings)} headings within {space.heading_error_deg:g} degrees")
    else:
        headings = [known_heading]
    if known_heading is not None:
        turns = [0.0] * len(headings)

    tilt_step = 0.0
    if known_tilt is None:
        tilts = list(UNKNOWN_TILTS_DEG)
        tilt_step = 15.0
        words.append(f"{len(tilts)} tilts")
    elif space.tilt_error_deg:
        offsets = _spread(space.tilt_error_deg, 10.0)
        tilt_step = abs(offsets[1]) / 2
        tilts = list(dict.fromkeys(min(80.0, max(0.0, known_tilt + o)) for o in offsets))
        words.append(f"{len(tilts)} tilts within {space.tilt_error_deg:g} degrees")
    else:
        tilts = [known_tilt]

    altitude_step = math.sqrt(RELIEF_FACTORS[2])
    altitude = telemetry.relative_altitude_m
    if altitude is None:
        words.append(f"{len(UNKNOWN_WIDTHS)} altitudes")
        altitude_step = math.sqrt(UNKNOWN_WIDTHS[1] / UNKNOWN_WIDTHS[0])
    elif space.altitude_error and known_heading is None:
        # each tried with every heading: as few as refinement can close, in the middle of their part
        half = max(1, math.ceil((space.altitude_error - 0.1) / 0.2 - 1e-9))
        count = 2 * half + 1
        altitude_step = 1 + space.altitude_error / count
        factors = 1 + 2 * space.altitude_error / count * np.arange(-half, half + 1)
        factors = factors[np.argsort(np.abs(factors - 1), kind="stable")]
        words.append(f"{count} altitudes within {space.altitude_error:.0%}")
    elif space.altitude_error:
        count = max(3, 2 * math.ceil(space.altitude_error / 0.15) + 1)
        factors = np.linspace(1 - space.altitude_error, 1 + space.altitude_error, count)
        factors = factors[np.argsort(np.abs(factors - 1), kind="stable")]
        altitude_step = 1 + space.altitude_error / (count - 1)
        words.append(f"{count} altitudes within {space.altitude_error:.0%}")
    elif known_heading is None:  # the altitudes are tried when the best headings are refined
        factors, altitude_step = np.array([1.0]), RELIEF_FACTORS[2]
    elif not relief:
        factors = np.array([1.0])
    else:
        factors = np.array(RELIEF_FACTORS)
        words.append(f"{len(factors)} altitudes for relief")

    poses = []
    for tilt, factor in _likely_first(tilts, UNKNOWN_WIDTHS if altitude is None else factors):
        if altitude is None:
            width_m = factor * tile_m
            height = altitude_for_width_m(width_m=width_m, tilt_deg=tilt, hfov_deg=hfov)
        else:
            height = altitude * factor
        poses += [
            CameraPose(altitude_m=height, heading_deg=h % 360, tilt_deg=tilt, hfov_deg=hfov)
            for h in headings
        ]
    if len(poses) > MAX_HYPOTHESES:
        raise OptionError(
            f"{len(poses)} camera poses would have to be tried for each photo",
            hint="give more telemetry or smaller errors",
        )
    return Hypotheses(
        poses=poses,
        turns_deg=turns * (len(poses) // len(turns)),
        heading_step_deg=heading_step,
        altitude_step=altitude_step,
        tilt_step_deg=tilt_step,
        aligned=telemetry.is_pose,
        words=" x ".join(words) or "one pose",
        pose_from={
            "heading": _source(known_heading, space.heading_error_deg),
            "altitude": _source(altitude, space.altitude_error),
            "tilt": _source(known_tilt, space.tilt_error_deg),
            "fov": "assumed" if telemetry.horizontal_fov_deg is None else "known",
        },
    )


def _likely_first(tilts: Sequence[float], factors: Iterable[float]) -> list[tuple[float, float]]:
    """All pairs of two lists that have the most likely first, likewise."""
    ranked = sorted(
        (i + j, j, i, tilt, float(factor))
        for i, tilt in enumerate(tilts)
        for j, factor in enumerate(factors)
    )
    return [(tilt, factor) for *_, tilt, factor in ranked]


def _source(value: float | None, error: float | None) -> str:
    return "searched" if value is None else "within" if error else "known"


def neighbours(pose: CameraPose, around: Hypotheses) -> list[CameraPose]:
    """Poses half a grid step from `pose` in each open direction: the refinement."""
    near = []
    for name, step in (
        ("heading_deg", around.heading_step_deg),
        ("tilt_deg", around.tilt_step_deg),
    ):
        if step:
            near += [_changed(pose, name, getattr(pose, name) + sign * step) for sign in (-1, 1)]
    if around.altitude_step > 1:
        near += [
            _changed(pose, "altitude_m", pose.altitude_m * factor)
            for factor in (1 / around.altitude_step, around.altitude_step)
        ]
    return near


def _changed(pose: CameraPose, name: str, value: float) -> CameraPose:
    values = {
        "altitude_m": pose.altitude_m,
        "heading_deg": pose.heading_deg,
        "tilt_deg": pose.tilt_deg,
        "hfov_deg": pose.hfov_deg,
        name: value,
    }
    values["heading_deg"] %= 360
    values["tilt_deg"] = min(80.0, max(0.0, values["tilt_deg"]))
    return CameraPose(**values)


def choose_level(telemetry: Telemetry, tiles_m: Sequence[float]) -> int:
    """Index of the level whose tiles are nearest (by ratio) to the ground that the photo shows.

    Without an altitude: the level with the smallest tiles, on which widths are searched.
    """
    altitude = telemetry.relative_altitude_m
    if altitude is None:
        return int(np.argmin(tiles_m))
    pose = CameraPose(
        altitude_m=altitude,
        heading_deg=0.0,
        tilt_deg=telemetry.camera_tilt_from_nadir_deg or 0.0,
        hfov_deg=telemetry.horizontal_fov_deg or ASSUMED_HFOV_DEG,
    )
    width = ground_width_m(pose)
    return int(np.argmin([abs(math.log(width / tile)) for tile in tiles_m]))
