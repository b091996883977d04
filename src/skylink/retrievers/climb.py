"""Poses between the grid's, tried around the best places: a finer pose, a place within its cell.

What a search leaves open is half a grid step of heading, tilt and altitude. Steps of that size are
taken around the best places, and after searches of many poses half such steps as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from skylink.densemap import Kernels
from skylink.hypotheses import Hypotheses, neighbours
from skylink.retrievers.peaks import Peak, separate
from skylink.types import CameraPose

SURE = 0.05
"""Places this much below the best one are left as they are."""

CLIMBED = 3
"""Best places around which poses are tried in the first round."""

ONE_ROUND = 8
"""With no more hypotheses than this one round is enough."""


def climb(
    peaks: list[Peak],
    kernels: Callable[[Sequence[CameraPose]], Kernels],
    around: Hypotheses,
    *,
    separation_m: float,
    allowed: Callable[[Peak], bool] = lambda _: True,
    proceed: Callable[[], bool] = lambda: True,
) -> list[Peak]:
    """The peaks, best first, each at the best pose and place that was met on the way.

    Args:
        peaks: best first.
        kernels: of the photo under some poses.
        around: what was searched: how far poses are from each other.
        separation_m: peaks nearer to a better one are dropped.
        allowed: whether a place may be taken.
        proceed: whether there is time for another round.
    """
    single = len(around.poses) <= ONE_ROUND
    for count in (CLIMBED,) if single else (CLIMBED, 2):
        attempts = [
            (i, pose)
            for i, peak in enumerate(peaks[:count])
            if peak.score > peaks[0].score - SURE
            for pose in neighbours(peak.pose, around)
        ]
        if not attempts or not proceed():
            break
        made = kernels([pose for _, pose in attempts])
        for (i, pose), kernel, usable in zip(attempts, made.values, made.usable, strict=True):
            if usable:
                moved = peaks[i].moved(kernel, pose)
                if moved.score > peaks[i].score and allowed(moved):
                    peaks[i] = moved
        peaks = separate(peaks, separation_m=separation_m)
        around = replace(
            around,
            heading_step_deg=around.heading_step_deg / 2,
            tilt_step_deg=around.tilt_step_deg / 2,
            altitude_step=math.sqrt(around.altitude_step),
        )
    return peaks
