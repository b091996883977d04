"""Viewpoint: telemetry that is wrong, and photos that were cropped or turned after the flight.

What the localizer then knows:

- heading, tilt and altitude errors leave the photo alone; the telemetry says something false and
  the truth stays where it is.
- A photo cropped off its centre keeps heading, tilt and altitude; its field of view is narrowed to
  what is left. Straight down that is exact. Of an oblique photo the crop's centre is not the
  camera's axis, which nobody tells: that is the difficulty. The view point (the ground at the
  photo's centre) moves with the crop, and the truth has to move with it: `view_shift_m`.
- A turned photo is cut to the largest upright rectangle of its shape, as an editor does, so that
  no black corner gives the angle away. Its heading is forgotten, its field of view is that of the
  cut; altitude and tilt stay.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from skylink.camera import ground_to_pixel, vertical_fov_deg
from skylink.conditions.condition import Condition, with_image
from skylink.photo import MIN_SIDE_PX
from skylink.types import MAX_ALTITUDE_M, MAX_TILT_DEG, CameraPose, Query, Telemetry


def _told(query: Query, **values: float) -> Query:
    """The query with other telemetry."""
    return replace(query, telemetry=query.telemetry.updated(Telemetry(**values)))


def _either_way(generator: np.random.Generator) -> int:
    """-1 or 1."""
    return 1 if generator.random() < 0.5 else -1


def heading_error(query: Query, degrees: float, generator: np.random.Generator) -> Query:
    """The heading is said to be `degrees` to the left or right of what it is."""
    heading = query.telemetry.heading_deg
    if heading is None:
        return query
    return _told(query, heading_deg=heading + _either_way(generator) * degrees)


def tilt_error(query: Query, degrees: float, generator: np.random.Generator) -> Query:
    """The tilt is said to be `degrees` more or less, whichever stays in 0..`MAX_TILT_DEG`."""
    tilt = query.telemetry.camera_tilt_from_nadir_deg
    if tilt is None:
        return query
    error = _either_way(generator) * degrees
    if not 0 <= tilt + error <= MAX_TILT_DEG:
        error = -error
    return _told(query, camera_tilt_from_nadir_deg=min(MAX_TILT_DEG, max(0.0, tilt + error)))


def altitude_error(query: Query, factor: float, generator: np.random.Generator) -> Query:
    """The altitude is said to be `factor` times too high or too low: a wrong scale."""
    altitude = query.telemetry.relative_altitude_m
    if altitude is None:
        return query
    wrong = altitude * factor ** _either_way(generator)
    return _told(query, relative_altitude_m=min(MAX_ALTITUDE_M, max(0.5, wrong)))


def _narrowed(query: Query, share: float) -> Query:
    """The query where only `share` of the photo's width is left."""
    hfov = query.telemetry.horizontal_fov_deg
    if hfov is None or share == 1:
        return query
    half = math.atan(math.tan(math.radians(hfov) / 2) * share)
    return _told(query, horizontal_fov_deg=max(1.0, 2 * math.degrees(half)))


def _window(query: Query, kept: float, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """(row, col, height, width) of a random corner; a lower one where the horizon may be seen."""
    height, width = query.image.shape[:2]
    rows = min(height, max(MIN_SIDE_PX, round(kept * height)))
    cols = min(width, max(MIN_SIDE_PX, round(kept * width)))
    lower, right = generator.random(2) < 0.5
    tilt, hfov = query.telemetry.camera_tilt_from_nadir_deg, query.telemetry.horizontal_fov_deg
    if tilt is not None and hfov is not None:
        vfov = vertical_fov_deg(hfov_deg=hfov, width_px=width, height_px=height)
        lower = lower or tilt + vfov / 2 > MAX_TILT_DEG
    return (height - rows if lower else 0), (width - cols if right else 0), rows, cols


def off_centre_crop(query: Query, kept: float, generator: np.random.Generator) -> Query:
    """Only a corner of the photo is left: `kept` of its width and of its height."""
    row, col, rows, cols = _window(query, kept, generator)
    corner = query.image[row : row + rows, col : col + cols].copy()
    return _narrowed(with_image(query, corner), cols / query.image.shape[1])


def crop_view_shift_m(
    query: Query, kept: float, generator: np.random.Generator
) -> tuple[float, float] | None:
    """(east, north) metres from the photo's view point to the crop's; None without a pose."""
    known = query.telemetry
    if (
        known.relative_altitude_m is None
        or known.heading_deg is None
        or known.camera_tilt_from_nadir_deg is None
        or known.horizontal_fov_deg is None
    ):
        return None
    pose = CameraPose(
        altitude_m=known.relative_altitude_m,
        heading_deg=known.heading_deg,
        tilt_deg=known.camera_tilt_from_nadir_deg,
        hfov_deg=known.horizontal_fov_deg,
    )
    row, col, rows, cols = _window(query, kept, generator)
    height, width = query.image.shape[:2]
    centre = np.array([col + (cols - 1) / 2, row + (rows - 1) / 2, 1.0])
    ground = np.linalg.solve(ground_to_pixel(pose, width_px=width, height_px=height), centre)
    east, north = ground[:2] / ground[2]
    return float(east - pose.offset_m[0]), float(north - pose.offset_m[1])


def rotation(query: Query, degrees: float, generator: np.random.Generator) -> Query:
    """The photo turned by `degrees` to the left or right, cut to an upright rectangle."""
    height, width = query.image.shape[:2]
    angle = _either_way(generator) * degrees
    c, s = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    share = min(1.0, width / (width * c + height * s), height / (width * s + height * c))
    centre = ((width - 1) / 2, (height - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, angle, 1 / share)
    image = cv2.warpAffine(
        query.image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    turned = _narrowed(with_image(query, np.asarray(image, np.uint8)), share)
    return replace(turned, telemetry=turned.telemetry.without("heading_deg"))


VIEWPOINT = (
    Condition(
        name="heading-error", kind="viewpoint", apply=heading_error,
        about="The telemetry's heading is wrong, to a random side; the photo is as it was.",
        measure="heading wrong by", unit="degrees", levels=(5.0, 10.0, 20.0, 45.0, 90.0),
    ),
    Condition(
        name="tilt-error", kind="viewpoint", apply=tilt_error,
        about="The telemetry's tilt is wrong, up or down; the photo is as it was.",
        measure="tilt wrong by", unit="degrees", levels=(3.0, 6.0, 10.0, 15.0, 25.0),
    ),
    Condition(
        name="altitude-error", kind="viewpoint", apply=altitude_error,
        about="The telemetry's altitude, and with it the photo's scale, is too high or too low.",
        measure="altitude wrong by a factor of", unit="",
        levels=(1.1, 1.25, 1.5, 2.0, 3.0),
    ),
    Condition(
        name="off-centre-crop", kind="viewpoint", apply=off_centre_crop,
        view_shift_m=crop_view_shift_m,
        about="Only a random corner of the photo is left; the truth moves to the crop's centre.",
        measure="share of width and height left", unit="",
        levels=(0.9, 0.8, 0.7, 0.6, 0.5),
    ),
    Condition(
        name="rotation", kind="viewpoint", apply=rotation,
        about="The photo is turned, to a random side, and cut upright; its heading is forgotten.",
        measure="turned by", unit="degrees", levels=(15.0, 45.0, 90.0, 135.0, 180.0),
    ),
)  # fmt: skip
