"""A drone's view of a piece of satellite imagery, as if photographed years later.

    map -> relief, new and vanished things, other colours -> photo by a true camera pose
        -> optics -> north-up view by the pose that telemetry would tell, with errors

The view is rendered by the product's own `ViewRenderer`, so that masks, blur of what is far and
errors of telemetry come about as in use. One map pixel counts as one metre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.camera import ViewRenderer, altitude_for_width_m, ground_to_pixel
from skylink.types import CameraPose
from skylink.views import changes
from skylink.views.sample import Sample

PHOTO_PX = (360, 240)
"""Of the synthetic photo: enough for a view of 224 px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """How far views are from the map; the defaults are what training uses.

    Attributes:
        change: strength of colours, shadows, things, relief and optics, drawn up to it; see
            `changes`.
        heading_deg, tilt_deg: standard deviation of telemetry's errors.
        altitude: standard deviation of the altitude's error, a share of it.
        turned: share of the views whose heading is not known at all: they are turned anyhow.
        max_tilt_deg: tilts are drawn from 0 to this.
        widths: ground widths of the photo at its centre, as shares of the view's side.
    """

    change: float = 1.0
    heading_deg: float = 4.0
    tilt_deg: float = 2.0
    altitude: float = 0.07
    turned: float = 0.0
    max_tilt_deg: float = 58.0
    widths: tuple[float, float] = (0.55, 1.6)


def synthetic_sample(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    view_px: int = 224,
    difficulty: Difficulty | None = None,
    source: str = "",
) -> Sample:
    """One sample from one map.

    Args:
        image: (M, M, 3) uint8 RGB map, M a multiple of 32.
        rng: all chance comes from it.
        view_px: side of the view.
        difficulty: how far it is from the map.
        source: kept in the sample.
    """
    hard = difficulty or Difficulty()
    side = image.shape[0]
    strength = hard.change * rng.uniform(0.25, 1.0)
    changed, flow = changes.relief(image, strength, rng)
    changed = changes.objects(changed, strength, rng)
    changed = changes.shadows(changed, strength, rng)
    changed = changes.colours(changed, strength, rng)
    for _ in range(20):
        pose = _draw_pose(rng, view_px, hard)
        margin = 0.12 * side
        column, row = rng.uniform(margin, side - margin, 2)
        photo, known = _photograph(changed, pose, column=column, row=row)
        if known.mean() > 0.5 * 255:
            break
    photo = changes.optics(photo, strength, rng)
    told = replace(
        pose,
        heading_deg=(pose.heading_deg + rng.normal(0, hard.heading_deg)) % 360,
        tilt_deg=min(65.0, max(0.0, pose.tilt_deg + rng.normal(0, hard.tilt_deg))),
        altitude_m=pose.altitude_m * math.exp(rng.normal(0, hard.altitude)),
    )
    if rng.random() < hard.turned:
        told = replace(told, heading_deg=float(rng.uniform(0, 360)))
    view = ViewRenderer(photo).render(told, gsd_m=1.0, size_px=view_px)
    mask = view.mask
    if known.min() == 0:
        seen = ViewRenderer(np.repeat(known[..., None], 3, axis=2))
        mask = mask & (seen.render(told, gsd_m=1.0, size_px=view_px).image[..., 0] > 250)
    # what the photo shows at its centre was displaced by the relief
    at = flow[min(side - 1, int(row)), min(side - 1, int(column))]
    return Sample(
        map=image,
        map_mask=np.ones((side, side), bool),
        view=np.where(mask[..., None], view.image, 0).astype(np.uint8),
        view_mask=mask,
        row=float(row + at[1]),
        column=float(column + at[0]),
        source=source,
    )


def _draw_pose(rng: np.random.Generator, view_px: int, hard: Difficulty) -> CameraPose:
    tilt = float(rng.uniform(0, hard.max_tilt_deg)) if rng.random() < 0.8 else 0.0
    hfov = float(rng.uniform(50, 84))
    low, high = np.log(hard.widths)
    width = view_px * math.exp(rng.uniform(low, high))
    return CameraPose(
        altitude_m=altitude_for_width_m(width_m=width, tilt_deg=tilt, hfov_deg=hfov),
        heading_deg=float(rng.uniform(0, 360)),
        tilt_deg=tilt,
        hfov_deg=hfov,
    )


def _photograph(
    image: NDArray[np.uint8], pose: CameraPose, *, column: float, row: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The photo whose centre shows map pixel (row, column), and 255 where it shows the map."""
    east, north = pose.offset_m
    width, height = PHOTO_PX
    to_ground = np.array([[1, 0, east - column], [0, -1, north + row], [0, 0, 1]], np.float64)
    homography = ground_to_pixel(pose, width_px=width, height_px=height) @ to_ground
    photo = cv2.warpPerspective(image, homography, PHOTO_PX, flags=cv2.INTER_AREA)
    whole = np.full(image.shape[:2], 255, np.uint8)
    known = cv2.warpPerspective(whole, homography, PHOTO_PX, flags=cv2.INTER_NEAREST)
    return np.asarray(photo, np.uint8), np.asarray(known, np.uint8)
