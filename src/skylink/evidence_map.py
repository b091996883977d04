"""The two maps of an evidence picture: scores over the whole area, and the place close up."""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from skylink.camera import HORIZON_MARGIN_DEG, camera_axes
from skylink.errors import GalleryError
from skylink.evidence_draw import (
    CAMERA,
    FAINT,
    FOUND,
    TRUTH,
    U8,
    WHITE,
    Canvas,
    MapPanel,
    Point,
    colour_bar,
    hatched,
    over_hatching,
    scale_bar,
)
from skylink.types import CameraPose, Estimate, Retrieval, Surface

if TYPE_CHECKING:
    from skylink.gallery import Gallery
    from skylink.geo import LocalFrame

MAX_OVERVIEW_M = 12_000.0
"""Of larger areas only the surroundings of the estimate are drawn."""

MAX_CLOSE_M = 1_500.0
"""The camera and the truth are left off the close-up where they are farther away."""

_thumbnails: weakref.WeakKeyDictionary[Gallery, dict[tuple[float, ...], U8]]
_thumbnails = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """What is drawn on both maps, in the local metres of the estimate's area.

    Attributes:
        area, level: which frame, and whose imagery.
        frame: the area's local frame.
        found: the estimate's view point.
        radius_m, radius_90_m: its radii for 50 and 90 %.
        camera: the estimated camera position; None where not known.
        truth: the true view point; None where not known.
        outline: the photo's edge on the ground; empty where no pose is known.
        ranked: the candidates in that area, best first, with their rank from 1.
    """

    area: int
    level: int
    frame: LocalFrame
    found: Point
    radius_m: float
    radius_90_m: float
    camera: Point | None
    truth: Point | None
    outline: Sequence[Point]
    ranked: Sequence[tuple[int, Point]]


def places(
    estimate: Estimate,
    retrieval: Retrieval,
    gallery: Gallery,
    *,
    photo_shape: tuple[int, int],
    truth: Point | None,
) -> Places:
    """Everything that is known of where things are, in one frame."""
    best = estimate.candidates[0] if estimate.candidates else None
    surface = retrieval.surface
    area = best.area if best is not None else surface.area if surface is not None else 0
    frame = gallery.areas[area].frame

    def local(lon: float | None, lat: float | None) -> Point | None:
        if lon is None or lat is None:
            return None
        x, y = frame.to_xy(lon=lon, lat=lat)
        return float(x), float(y)

    found = local(estimate.lon, estimate.lat) or (0.0, 0.0)
    outline: list[Point] = []
    if estimate.pose is not None:
        turn = frame.convergence_deg(x_m=found[0], y_m=found[1])
        pose = dataclasses.replace(estimate.pose, heading_deg=estimate.pose.heading_deg - turn)
        outline = [(found[0] + e, found[1] + n) for e, n in footprint_m(pose, shape=photo_shape)]
    return Places(
        area=area,
        level=best.level if best is not None else 0,
        frame=frame,
        found=found,
        radius_m=estimate.radius_m if math.isfinite(estimate.radius_m) else 0.0,
        radius_90_m=estimate.radius_90_m if math.isfinite(estimate.radius_90_m) else 0.0,
        camera=local(estimate.camera_lon, estimate.camera_lat),
        truth=local(*truth) if truth is not None else None,
        outline=outline,
        ranked=[
            (rank, (c.x_m, c.y_m))
            for rank, c in enumerate(estimate.candidates, start=1)
            if c.area == area
        ],
    )


def footprint_m(pose: CameraPose, *, shape: tuple[int, int]) -> list[Point]:
    """The photo's edge on flat ground: (east, north) metres from the view point, one ring.

    Rays that miss the ground, or meet it near the horizon, end where views are cut.
    """
    height, width = shape
    tan_x = math.tan(math.radians(pose.hfov_deg) / 2)
    tan_y = tan_x * height / width
    side = np.linspace(-1, 1, 13)[:-1]
    one = np.ones_like(side)
    u = np.concatenate([side, one, -side, -one])
    v = np.concatenate([-one, side, one, -side])
    rays = np.stack([u * tan_x, v * tan_y, np.ones_like(u)], axis=1) @ camera_axes(pose)
    level = np.hypot(rays[:, 0], rays[:, 1])
    far = 1 / math.tan(math.radians(HORIZON_MARGIN_DEG))
    down = np.maximum(-rays[:, 2], np.maximum(level / far, 1e-9))
    ground = rays[:, :2] * (pose.altitude_m / down)[:, None]
    east, north = pose.offset_m
    return [(float(e - east), float(n - north)) for e, n in ground]


def draw_overview(
    canvas: Canvas,
    x: int,
    y: int,
    size: tuple[int, int],
    gallery: Gallery,
    surface: Surface | None,
    at: Places,
) -> None:
    """The whole area, or what was searched of it, under the match scores."""
    width, height = size
    if surface is not None and surface.area != at.area:
        surface = None
    west, south, east, north = _extent(gallery, surface, at)
    gsd = max((east - west) / width, (north - south) / height)
    middle = ((west + east) / 2, (south + north) / 2)
    panel = MapPanel(
        _thumbnail(gallery, at, middle, size, gsd), x_m=middle[0], y_m=middle[1], gsd_m=gsd
    )
    scores = panel.heat(surface) if surface is not None else None
    for _, (cx, cy) in reversed(at.ranked[1:]):
        panel.dot(cx, cy, colour=WHITE, radius_px=3.5)
    _mark(panel, at, small=True)
    canvas.picture(x, y, panel.rgb)
    scale_bar(canvas, x, y, panel)
    _name_marks(canvas, x, y, panel, at)
    if scores is not None:
        bar = 150
        left, top = x + width - bar - 20, y + 12
        canvas.box(left - 8, top - 4, bar + 16, 36, fill=(0, 0, 0, 150), radius=5)
        canvas.picture(left, top + 3, colour_bar(bar, 9), edge=None)
        canvas.text(left, top + 27, f"{scores[0]:.2f}", size=11)
        canvas.text(left + bar / 2, top + 27, "match score", size=11, colour=FAINT, anchor="ms")
        canvas.text(left + bar, top + 27, f"{scores[1]:.2f}", size=11, anchor="rs")


def draw_close_up(
    canvas: Canvas, x: int, y: int, size: tuple[int, int], gallery: Gallery, at: Places
) -> None:
    """The place with its radius, the photo's outline, the camera, and the truth if known."""
    width, height = size
    reach = max(60.0, 1.6 * at.radius_m)
    near = [p for p in (at.camera, at.truth) if p and math.dist(p, at.found) < MAX_CLOSE_M]
    near += [p for p in at.outline if math.dist(p, at.found) < 400]
    shown_points = [at.found, *near]
    xs, ys = ([p[i] for p in shown_points] for i in (0, 1))
    centre = ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2)
    half_x = max((max(xs) - min(xs)) / 2 * 1.2, abs(centre[0] - at.found[0]) + reach)
    half_y = max((max(ys) - min(ys)) / 2 * 1.2, abs(centre[1] - at.found[1]) + reach)
    gsd = max(2 * half_x / width, 2 * half_y / height)
    picture = map_picture(gallery, at.area, at.level, centre, size, gsd)
    panel = MapPanel(picture, x_m=centre[0], y_m=centre[1], gsd_m=gsd)
    if at.outline:
        panel.line(at.outline, colour=CAMERA, width=2, closed=True, fill=0.08)
    _mark(panel, at, small=False)
    canvas.picture(x, y, panel.rgb)
    scale_bar(canvas, x, y, panel)
    marked = [panel.pixel(*p) for p in (at.found, at.camera, at.truth) if p]
    covered = any(u < 0.4 * width and v < 0.3 * height for u, v in marked)
    _name_marks(canvas, x, y, panel, at, corner_right=covered)


def _mark(panel: MapPanel, at: Places, *, small: bool) -> None:
    """The estimate with its radius, the camera's wedge, the truth."""
    if at.camera is not None and at.outline and math.dist(at.camera, at.found) < 20_000:
        if not small:
            ends = sorted(at.outline, key=lambda p: _bearing(at, p))
            for end in (ends[0], ends[-1]):
                panel.line([at.camera, end], colour=CAMERA, width=1)
        panel.line([at.camera, at.found], colour=CAMERA, width=2)
        panel.dot(*at.camera, colour=CAMERA, radius_px=4 if small else 6)
    pixels = at.radius_m / panel.gsd_m
    if pixels > 7:
        panel.circle(*at.found, at.radius_m, colour=FOUND)
        if not small:
            panel.circle(*at.found, at.radius_90_m, colour=FOUND, fill=0.0)
    if small:
        panel.dot(*at.found, colour=FOUND, radius_px=max(9.0, min(pixels + 4, 12)), ring=True)
    panel.dot(*at.found, colour=FOUND, radius_px=3 if small else 4.5)
    if at.truth is not None:
        panel.cross(*at.truth, colour=TRUTH, size_px=5 if small else 8)


def _bearing(at: Places, point: Point) -> float:
    """Direction of a point as the camera sees it, 0 towards the view point."""
    assert at.camera is not None
    (cx, cy), (fx, fy), (px, py) = at.camera, at.found, point
    ahead = math.atan2(fx - cx, fy - cy) if math.dist(at.camera, at.found) > 1 else 0.0
    return math.remainder(math.atan2(px - cx, py - cy) - ahead, 2 * math.pi)


def _name_marks(
    canvas: Canvas, x: int, y: int, panel: MapPanel, at: Places, *, corner_right: bool = False
) -> None:
    """A legend of what is drawn, in one of the panel's upper corners."""
    marks = [("●", FOUND, f"50 % within {at.radius_m:.0f} m, 90 % {at.radius_90_m:.0f} m")]
    if at.camera is not None:
        marks.append(("●", CAMERA, "camera"))
    if at.truth is not None:
        away = math.dist(at.truth, at.found)
        where = "" if panel.shows(*at.truth) else ", off this map"
        marks.append(("✕", TRUTH, f"truth, {_metres(away)} off{where}"))
    words = max(canvas.width(text, size=12) for _, _, text in marks)
    if corner_right:
        x += int(panel.width - words - 50)
    canvas.box(x + 8, y + 8, words + 34, 19 * len(marks) + 9, fill=(0, 0, 0, 150), radius=5)
    for row, (sign, colour, text) in enumerate(marks):
        base = y + 26 + 19 * row
        canvas.text(x + 16, base, sign, size=12, colour=colour)
        canvas.text(x + 34, base, text, size=12)


def _metres(length: float) -> str:
    return f"{length / 1000:.1f} km" if length >= 1000 else f"{length:.0f} m"


def _extent(
    gallery: Gallery, surface: Surface | None, at: Places
) -> tuple[float, float, float, float]:
    """(x_min, y_min, x_max, y_max) to draw, local metres."""
    bounds = gallery.areas[at.area].bounds
    if surface is not None:
        rows, cols = surface.score.shape
        half = 0.5 * surface.cell_m
        searched = (
            surface.x0_m - half,
            surface.y0_m + half - rows * surface.cell_m,
            surface.x0_m - half + cols * surface.cell_m,
            surface.y0_m + half,
        )
        # a prior's surroundings where that is less than the map, else the map
        if searched[2] - searched[0] < 0.8 * (bounds[2] - bounds[0]):
            bounds = searched
    half = MAX_OVERVIEW_M / 2
    x0, y0, x1, y1 = bounds
    if x1 - x0 > MAX_OVERVIEW_M:
        middle = min(max(at.found[0], x0 + half), x1 - half)
        x0, x1 = middle - half, middle + half
    if y1 - y0 > MAX_OVERVIEW_M:
        middle = min(max(at.found[1], y0 + half), y1 - half)
        y0, y1 = middle - half, middle + half
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _thumbnail(
    gallery: Gallery, at: Places, middle: Point, size: tuple[int, int], gsd_m: float
) -> U8:
    """The overview's map; kept, since all photos of a run share it."""
    kept = _thumbnails.setdefault(gallery, {})
    key = (at.area, at.level, *(round(v, 3) for v in (*middle, *size, gsd_m)))
    if key not in kept:
        if len(kept) >= 8:
            kept.clear()
        kept[key] = map_picture(gallery, at.area, at.level, middle, size, gsd_m)
    return kept[key].copy()


def map_picture(
    gallery: Gallery, area: int, level: int, centre: Point, size: tuple[int, int], gsd_m: float
) -> U8:
    """(height, width, 3) map around a local point, hatched where there is none."""
    width, height = size
    side = max(size)
    try:
        rgb, valid = gallery.picture(
            area=area, level=level, x_m=centre[0], y_m=centre[1], size_px=side, gsd_m=gsd_m
        )
    except GalleryError:  # built without imagery: the marks are still worth seeing
        return hatched(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    cut = np.s_[top : top + height, left : left + width]
    return over_hatching(rgb[cut], valid[cut])
