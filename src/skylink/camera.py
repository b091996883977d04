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


class ViewRenderer:
    """Warps one photo to views of the ground; keeps the photo's halvings for all of them.

    Args:
        image: (H, W, 3) uint8 RGB.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.height_px, self.width_px = image.shape[:2]
        self._halvings = [image]

    def render(self, pose: CameraPose, *, gsd_m: float, size_px: int) -> View:
        """A north-up square of the ground, centred on the pose's view point.

        Args:
            pose: the camera's attitude; the view point lies `pose.offset_m` from under the camera.
            gsd_m: metres a pixel of the result.
            size_px: side of the result.

        Returns:
            The view with its validity mask: False outside the photo, behind the camera, and within
            `HORIZON_MARGIN_DEG` of the horizon. The image is zero there.
        """
        east, north = pose.offset_m
        half = (size_px - 1) / 2
        # view pixel (u, v) -> metres under the camera -> photo pixel
        to_ground = np.array(
            [[gsd_m, 0, east - half * gsd_m], [0, -gsd_m, north + half * gsd_m], [0, 0, 1]]
        )
        to_photo = ground_to_pixel(pose, width_px=self.width_px, height_px=self.height_px)
        homography = to_photo @ to_ground
        source = self._source(pose, gsd_m)
        scale_x = source.shape[1] / self.width_px  # odd sides don't halve evenly: one an axis
        scale_y = source.shape[0] / self.height_px
        u = np.arange(size_px, dtype=np.float64)
        v = u[:, None]
        px, py, depth = (a * u + (b * v + c) for a, b, c in homography)
        visible = depth > 1e-6
        far = pose.altitude_m / math.tan(math.radians(HORIZON_MARGIN_DEG))
        reach = half * gsd_m * math.sqrt(2) + math.hypot(east, north)
        if reach > far:
            ground_e, ground_n = (a * u + (b * v + c) for a, b, c in to_ground[:2])
            visible &= ground_e**2 + ground_n**2 < far**2
        inverse = 1 / np.maximum(depth, 1e-6)
        px *= inverse
        py *= inverse
        visible &= (px >= -0.5) & (px <= self.width_px - 0.5)
        visible &= (py >= -0.5) & (py <= self.height_px - 0.5)
        map_x = ((px + 0.5) * scale_x - 0.5).astype(np.float32)
        map_y = ((py + 0.5) * scale_y - 0.5).astype(np.float32)
        warped = cv2.remap(source, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        warped = cv2.bitwise_and(warped, warped, mask=visible.view(np.uint8))
        return View(image=np.asarray(warped, np.uint8), mask=visible, gsd_m=gsd_m, pose=pose)

    def _source(self, pose: CameraPose, gsd_m: float) -> NDArray[np.uint8]:
        """The halving of the photo that is just finer than the view: no aliasing.

        Judged at the view point, the part of the photo that matters most.
        """
        slant = pose.altitude_m / math.cos(math.radians(pose.tilt_deg))
        photo_gsd = slant / focal_px(hfov_deg=pose.hfov_deg, width_px=self.width_px)
        wanted = max(0, math.floor(math.log2(gsd_m / photo_gsd) + 0.3)) if photo_gsd > 0 else 0
        while len(self._halvings) <= wanted and min(self._halvings[-1].shape[:2]) >= 16:
            last = self._halvings[-1]
            size = (max(1, last.shape[1] // 2), max(1, last.shape[0] // 2))
            small = cv2.resize(last, size, interpolation=cv2.INTER_AREA)
            self._halvings.append(np.asarray(small, dtype=np.uint8))
        return self._halvings[min(wanted, len(self._halvings) - 1)]


def render_view(image: NDArray[np.uint8], pose: CameraPose, *, gsd_m: float, size_px: int) -> View:
    """One view of one photo; see `ViewRenderer.render`."""
    return ViewRenderer(image).render(pose, gsd_m=gsd_m, size_px=size_px)


def ground_width_m(pose: CameraPose) -> float:
    """Ground covered by the photo's width at its view point, metres."""
    slant = pose.altitude_m / math.cos(math.radians(pose.tilt_deg))
    return 2 * slant * math.tan(math.radians(pose.hfov_deg) / 2)


def altitude_for_width_m(*, width_m: float, tilt_deg: float, hfov_deg: float) -> float:
    """Altitude at which the photo's width covers `width_m` of ground at its view point."""
    slant = width_m / 2 / math.tan(math.radians(hfov_deg) / 2)
    return slant * math.cos(math.radians(tilt_deg))
