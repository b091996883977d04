"""Evidence pictures: one for each photo that shows people why the estimate is what it is.

+-- title: name, place, radius, confidence, what was searched, re-ranked or not ----------+
| photo                     | aligned view        | match score over the map              |
| telemetry and best pose                         |                                       |
| candidates, best first                          | the place, close up                   |
"""

from __future__ import annotations

import io
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skylink import __version__
from skylink import evidence_draw as draw
from skylink.camera import ViewRenderer, ground_width_m
from skylink.evidence_draw import Canvas, MapPanel
from skylink.evidence_map import (
    Places,
    draw_close_up,
    draw_overview,
    footprint_m,
    map_picture,
    places,
)
from skylink.files import write_atomic
from skylink.geo import distance_m
from skylink.names import shown
from skylink.results import total_ms
from skylink.types import CameraPose, Candidate, Estimate, Query, Retrieval

if TYPE_CHECKING:
    from PIL.Image import Image

    from skylink.gallery import Gallery

WIDTH, HEIGHT = 1800, 1100
MARGIN, TITLE, GAP = 28, 30, 20
TOP = 112
"""Where the panels' titles start, pixels."""
LEFT, RIGHT = 1124, 600
"""Widths of the two columns."""
VIEW_PX = 508
CROPS = 5
OVERVIEW_PX = 478
JPEG_QUALITY = 90
MIN_EXTENT_M = 30.0


def write_evidence(
    folder: str | Path,
    query: Query,
    estimate: Estimate,
    retrieval: Retrieval,
    gallery: Gallery,
    *,
    truth: tuple[float, float] | None = None,
    used: set[str] | None = None,
) -> Path:
    """Draw and write one photo's picture (JPEG, 1800 x 1100 px).

    Args:
        folder: where to; made if missing. The file's name comes from the query's and never
            leaves the folder.
        truth: the true view point as (lon, lat), where it is known.
        used: file names given so far in this run; extended. With it, photos of the same name
            get files of their own.

    Raises:
        OutputError: the folder can't be written to.
    """
    picture = draw_evidence(query, estimate, retrieval, gallery, truth=truth)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    name = file_name(query.name, used if used is not None else set())
    return write_atomic(Path(folder) / name, data.getvalue())


def file_name(name: str, used: set[str]) -> str:
    """A file name for a query's name: safe on any system, inside its folder, not yet in `used`."""
    plain = unicodedata.normalize("NFC", shown(name))
    parts = [part for part in re.split(r"[\\/]+", plain) if part.strip(" .")]
    stem = re.sub(r"\.(jpe?g|png|tiff?|webp)$", "", "_".join(parts), flags=re.IGNORECASE)
    safe = re.sub(r"[^\w.+-]+", "_", stem).strip("._-")
    while len(safe.encode()) > 150:
        safe = safe[:-1]
    if not safe or re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", safe, re.IGNORECASE):
        safe = f"photo_{safe}".rstrip("_")
    unique, number = safe, 1
    while unique.casefold() in used:
        number += 1
        unique = f"{safe}-{number}"
    used.add(unique.casefold())
    return f"{unique}.jpg"


def draw_evidence(
    query: Query,
    estimate: Estimate,
    retrieval: Retrieval,
    gallery: Gallery,
    *,
    truth: tuple[float, float] | None = None,
) -> Image:
    """The picture itself; see `write_evidence`."""
    canvas = Canvas(WIDTH, HEIGHT)
    height, width = query.image.shape[:2]
    at = places(estimate, retrieval, gallery, photo_shape=(height, width), truth=truth)
    _header(canvas, query, estimate, retrieval)

    top = TOP + TITLE
    _title(canvas, MARGIN, "photo", f"{width} x {height} px", LEFT - VIEW_PX - GAP)
    canvas.picture(MARGIN, top, _letterboxed(query.image, LEFT - VIEW_PX - GAP, VIEW_PX))

    tile_m = gallery.levels[at.level].tile_m if gallery.levels else 160.0
    extent = _extent_m(estimate.pose, tile_m)
    view = _view(query, estimate, extent)
    left = MARGIN + LEFT - VIEW_PX
    _title(canvas, left, *_view_title(estimate, extent), VIEW_PX)
    canvas.picture(left, top, view)

    _facts(canvas, MARGIN, top + VIEW_PX + 28, query, estimate)

    side = (LEFT - (CROPS - 1) * 14) // CROPS
    top_crops = HEIGHT - 46 - 48 - side
    _crops(canvas, MARGIN, top_crops, side, estimate, gallery, extent, (height, width), truth, at)

    left = MARGIN + LEFT + GAP
    searched = "match score over the map" if retrieval.surface else "candidates on the map"
    _title(canvas, left, searched, "white dots: other candidates", RIGHT)
    draw_overview(canvas, left, top, (RIGHT, OVERVIEW_PX), gallery, retrieval.surface, at)
    top_close = top + OVERVIEW_PX + 38
    note = "yellow: what the photo shows" if at.outline else ""
    _title(canvas, left, "the place, close up", note, RIGHT, y=top_close - TITLE)
    close_size = (RIGHT, HEIGHT - 46 - top_close)
    draw_close_up(canvas, left, top_close, close_size, gallery, at)
    _footer(canvas, gallery)
    return canvas.image


def _header(canvas: Canvas, query: Query, estimate: Estimate, retrieval: Retrieval) -> None:
    """Name, place, radius, confidence, what was searched, re-ranked or not."""
    confidence = estimate.confidence
    good, fair = (46, 160, 87), (191, 135, 0)
    colour = (190, 58, 58) if not estimate.located else good if confidence >= 0.7 else fair
    words = f"confidence {confidence:.2f}"
    if not estimate.located:
        words = f"not found on this map: {words}"
    wide = canvas.width(words, size=20, bold=True) + 32
    canvas.box(WIDTH - MARGIN - wide, 24, wide, 38, fill=colour, radius=19)
    canvas.text(WIDTH - MARGIN - wide / 2, 43, words, size=20, bold=True, anchor="mm")

    end = canvas.text(
        MARGIN, 54, shown(query.name), size=30, bold=True, max_width=760, colour=draw.WHITE
    )
    place = f"lon {estimate.lon:.6f}  lat {estimate.lat:.6f}   ± {estimate.radius_m:.0f} m"
    place += f" (90 %: {estimate.radius_90_m:.0f} m)"
    room = WIDTH - MARGIN - wide - 24 - (end + 32)
    canvas.text(end + 32, 54, place, size=24, colour=draw.FOUND, max_width=room)

    if estimate.reranked:
        reranked = f"re-ranked: yes, by {estimate.reranker}"
    else:
        reranked = "re-ranked: no" + (f" ({estimate.rerank_note})" if estimate.rerank_note else "")
    taken = total_ms(estimate)
    parts = [
        f"{estimate.retriever or retrieval.retriever} search",
        estimate.searched or retrieval.searched,
        reranked,
        "placed within the tile" if estimate.refined else "",
        f"{taken:.0f} ms" if taken is not None else "",
    ]
    line = "   ·   ".join(part for part in parts if part)
    canvas.text(MARGIN, 90, line, size=17, colour=draw.FAINT, max_width=WIDTH - 2 * MARGIN)


def _title(canvas: Canvas, x: int, words: str, detail: str, width: int, *, y: int = TOP) -> None:
    """A panel's title with a detail in grey, above the panel."""
    end = canvas.text(x, y + 20, words, size=16, bold=True)
    room = x + width - end - 14
    if detail and room > 40:
        canvas.text(end + 14, y + 20, detail, size=13, colour=draw.FAINT, max_width=room)


def _letterboxed(rgb: draw.U8, width: int, height: int) -> draw.U8:
    """The picture as large as it fits, in the middle of a plain panel."""
    panel = np.full((height, width, 3), draw.PANEL, dtype=np.uint8)
    small = draw.contain(rgb, width, height)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    panel[top : top + small.shape[0], left : left + small.shape[1]] = small
    return panel


def _extent_m(pose: CameraPose | None, tile_m: float) -> float:
    """Side of the view and of the candidates' pictures: the photo's ground, at most a tile."""
    if pose is None:
        return tile_m
    return float(np.clip(1.6 * ground_width_m(pose), MIN_EXTENT_M, tile_m))


def _view(query: Query, estimate: Estimate, extent_m: float) -> draw.U8:
    """The photo as a north-up view under the best pose, or its middle where there is none."""
    if estimate.pose is None:
        height, width = query.image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        middle = query.image[top : top + side, left : left + side]
        return draw.contain(middle, VIEW_PX, VIEW_PX)
    renderer = ViewRenderer(query.image)
    view = renderer.render(estimate.pose, gsd_m=extent_m / VIEW_PX, size_px=VIEW_PX)
    return draw.over_hatching(view.image, view.mask)


def _view_title(estimate: Estimate, extent_m: float) -> tuple[str, str]:
    across = f"north up, {extent_m:.0f} m across"
    if estimate.pose is None:
        return "photo as it was used", "no telemetry: not aligned"
    if estimate.aligned:
        return "aligned view", across
    return "view under the best pose found", across


def _facts(canvas: Canvas, x: int, y: int, query: Query, estimate: Estimate) -> None:
    """Two lines: what telemetry said, and under which pose the photo matched."""
    told, pose = query.telemetry, estimate.pose
    rows = (
        ("altitude", told.relative_altitude_m, pose.altitude_m if pose else None, "m"),
        ("heading", told.heading_deg, pose.heading_deg if pose else None, "°"),
        ("tilt", told.camera_tilt_from_nadir_deg, pose.tilt_deg if pose else None, "°"),
        ("field of view", told.horizontal_fov_deg, pose.hfov_deg if pose else None, "°"),
    )
    canvas.text(x, y, "telemetry", size=14, colour=draw.FAINT)
    canvas.text(x, y + 24, "best match", size=14, colour=draw.FAINT)
    step = (LEFT - 120) / 4
    for column, (name, value, matched, unit) in enumerate(rows):
        left = x + 120 + column * step
        for line, number in enumerate((value, matched)):
            if number is not None and unit == "°" and name == "heading":
                number %= 360
            text = "not known" if number is None else f"{number:.1f}{' ' * (unit == 'm')}{unit}"
            colour = draw.FAINT if number is None else draw.TEXT
            end = canvas.text(left, y + 24 * line, name + " ", size=14, colour=draw.FAINT)
            canvas.text(end + 2, y + 24 * line, text, size=14, bold=True, colour=colour)


def _crops(
    canvas: Canvas,
    x: int,
    y: int,
    side: int,
    estimate: Estimate,
    gallery: Gallery,
    extent_m: float,
    photo_shape: tuple[int, int],
    truth: tuple[float, float] | None,
    at: Places,
) -> None:
    """The map at the best candidates, with the photo's outline, rank, score and distance.

    The first is shown at the estimate's place where that was found within its tile.
    """
    count = len(estimate.candidates)
    detail = f"best {min(count, CROPS)} of {count}; the map, north up, {extent_m:.0f} m across"
    _title(canvas, x, "candidates", detail if count else "none", LEFT, y=y - TITLE)
    for index, candidate in enumerate(estimate.candidates[:CROPS]):
        if index == 0 and estimate.refined:
            x_m, y_m = at.found
            candidate = replace(
                candidate, lon=estimate.lon, lat=estimate.lat, x_m=x_m, y_m=y_m, pose=estimate.pose
            )
        left = x + index * (side + 14)
        centre = (candidate.x_m, candidate.y_m)
        rgb = map_picture(
            gallery, candidate.area, candidate.level, centre, (side, side), extent_m / side
        )
        panel = MapPanel(rgb, x_m=centre[0], y_m=centre[1], gsd_m=extent_m / side)
        if candidate.pose is not None:
            ring = footprint_m(candidate.pose, shape=photo_shape)
            edge_m = [(centre[0] + east, centre[1] + north) for east, north in ring]
            panel.line(edge_m, colour=draw.CAMERA, width=1, closed=True)
        best = index == 0
        edge, width = (draw.FOUND, 3) if best else (draw.EDGE, 1)
        canvas.picture(left, y, panel.rgb, edge=edge, width=width)
        canvas.label(left + 6, y + 6, f"{index + 1}", size=15, colour=draw.WHITE)
        score = f"score {candidate.score:.3f}"
        if candidate.base_score is not None:
            score += f"   base {candidate.base_score:.3f}"
        canvas.text(left, y + side + 20, score, size=14, bold=best, max_width=side)
        away = _distance(candidate, estimate, truth, best=best)
        canvas.text(left, y + side + 40, away, size=13, colour=draw.FAINT, max_width=side)


def _distance(
    candidate: Candidate, estimate: Estimate, truth: tuple[float, float] | None, *, best: bool
) -> str:
    lon, lat = truth if truth is not None else (estimate.lon, estimate.lat)
    metres = float(distance_m(lon1=candidate.lon, lat1=candidate.lat, lon2=lon, lat2=lat))
    words = f"{metres / 1000:.2f} km" if metres >= 1000 else f"{metres:.0f} m"
    if truth is not None:
        return f"{words} from the truth"
    return "the estimate" if best and metres < 1 else f"{words} from the estimate"


def _footer(canvas: Canvas, gallery: Gallery) -> None:
    credit = gallery.info.attribution
    canvas.text(
        WIDTH - MARGIN,
        HEIGHT - 16,
        f"SkyLink {__version__}",
        size=12,
        colour=draw.FAINT,
        anchor="rs",
    )
    if credit:
        words = f"imagery: {shown(credit)}"
        canvas.text(MARGIN, HEIGHT - 16, words, size=12, colour=draw.FAINT, max_width=1500)
