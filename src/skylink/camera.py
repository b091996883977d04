"""The camera over flat ground: pinhole geometry from photo pixels to metres and back.

Frame: x east, y north, z up, metres; origin on the ground under the camera. The ground is taken
as flat at the camera's relative altitude below it; relief shows up as a position error that
`estimate.py` and docs/estimate.md account for.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.types import CameraPose, View

HORIZON_MARGIN_DEG = 7.0
"""Rays closer than this to the horizon are cut: they hit the ground some 8 altitudes away, where
one photo pixel covers many metres and any relief displaces the hit by hundreds."""


def vertical_fov_deg(*, hfov_deg: float, width_px: int, height_px: int) -> float:
    """Field of view over the image's height for square pixels, degrees."""
    return math.degrees(2 * math.atan(math.tan(math.radians(hfov_deg) / 2) * height_px / width_px))


def focal_px(*, hfov_deg: float, width_px: int) -> float:
    """Focal length in pixels."""
    return width_px / 2 / math.tan(math.radians(hfov_deg) / 2)


def camera_axes(pose: CameraPose) -> NDArray[np.float64]:
    """(3, 3) rows: the camera's right, down and forward unit vectors in east, north, up."""
    h, t = math.radians(pose.heading_deg), math.radians(pose.tilt_deg)
    ahead = np.array([math.sin(h), math.cos(h), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    right = np.array([math.cos(h), -math.sin(h), 0.0])
    forward = math.sin(t) * ahead - math.cos(t) * up
    down = np.cross(forward, right)
    return np.stack([right, down, forward])


def ground_to_pixel(pose: CameraPose, *, width_px: int, height_px: int) -> NDArray[np.float64]:
    """(3, 3) homography from ground metres (east, north, 1) under the camera to photo pixels.

    Pixel coordinates are OpenCV's: (0, 0) is the centre of the first pixel. The third homogeneous
    coordinate is the depth along the optical axis in metres: positive in front of the camera.
    """
    f = focal_px(hfov_deg=pose.hfov_deg, width_px=width_px)
    intrinsics = np.array(
        [[f, 0, (width_px - 1) / 2], [0, f, (height_px - 1) / 2], [0, 0, 1]], dtype=np.float64
    )
    axes = camera_axes(pose)
    ground = np.stack([axes[:, 0], axes[:, 1], axes @ np.array([0, 0, -pose.altitude_m])], axis=1)
    return np.asarray(intrinsics @ ground, dtype=np.float64)


def render_view(
    image: NDArray[np.uint8], pose: CameraPose, *, gsd_m: float, size_px: int
) -> View:
    """Warp a photo to a north-up square of the ground centred on its view point.

    Args:
        image: (H, W, 3) uint8 RGB.
        pose: the camera's attitude; the view point lies `pose.offset_m` from under the camera.
        gsd_m: metres a pixel of the result.
        size_px: side of the result.

    Returns:
        The view with its validity mask: False outside the photo, behind the camera, and within
        `HORIZON_MARGIN_DEG` of the horizon. The image is zero there.
    """
    height, width = image.shape[:2]
    east, north = pose.offset_m
    half = (size_px - 1) / 2
    # view pixel (u, v) -> metres under the camera -> photo pixel
    to_ground = np.array(
        [[gsd_m, 0, east - half * gsd_m], [0, -gsd_m, north + half * gsd_m], [0, 0, 1]]
    )
    homography = ground_to_pixel(pose, width_px=width, height_px=height) @ to_ground
    v, u = np.mgrid[0:size_px, 0:size_px].astype(np.float64)
    px, py, depth = np.tensordot(homography, np.stack([u, v, np.ones_like(u)]), axes=1)
    ground_e, ground_n, _ = np.tensordot(to_ground, np.stack([u, v, np.ones_like(u)]), axes=1)
    far = pose.altitude_m / math.tan(math.radians(HORIZON_MARGIN_DEG))
    usable = (depth > 1e-6) & (ground_e**2 + ground_n**2 < far**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        px, py = px / depth, py / depth
    usable &= (px >= -0.5) & (px <= width - 0.5) & (py >= -0.5) & (py <= height - 0.5)
    map_x = np.where(usable, px, -1).astype(np.float32)
    map_y = np.where(usable, py, -1).astype(np.float32)
    source, scale = _shrunk(image, pose, gsd_m)
    if scale != 1:
        map_x, map_y = (map_x + 0.5) * scale - 0.5, (map_y + 0.5) * scale - 0.5
    warped = cv2.remap(source, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    warped[~usable] = 0
    return View(
        image=np.asarray(warped, dtype=np.uint8), mask=usable, gsd_m=gsd_m, pose=pose
    )


def _shrunk(
    image: NDArray[np.uint8], pose: CameraPose, gsd_m: float
) -> tuple[NDArray[np.uint8], float]:
    """The photo reduced by area averaging when it is finer than the view: no aliasing.

    The scale is chosen where the photo is coarsest among what matters, at the view point, so that
    nothing of the view's own resolution is lost there.
    """
    slant = pose.altitude_m / math.cos(math.radians(pose.tilt_deg))
    photo_gsd = slant / focal_px(hfov_deg=pose.hfov_deg, width_px=image.shape[1])
    scale = photo_gsd / gsd_m
    if scale > 0.75:
        return image, 1.0
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8), size[0] / image.shape[1]


def fit_altitude_m(*, ground_width_m: float, hfov_deg: float) -> float:
    """Altitude at which a nadir photo of this field of view covers `ground_width_m`."""
    return ground_width_m / 2 / math.tan(math.radians(hfov_deg) / 2)
