"""What `locate` found: a table for people, GeoJSON (RFC 7946) and CSV; fields in docs/cli.md.

Coordinates are WGS 84 degrees, longitude first, rounded to 7 decimals (1 cm). A number that is
not known is null in GeoJSON and empty in CSV, never NaN. Photos that failed are listed as well.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skylink import __version__
from skylink.geo import circle
from skylink.names import readable, shown
from skylink.types import Estimate

if TYPE_CHECKING:
    from rich.table import Table

DECIMALS = 7
MAX_RADIUS_M = 5_000_000.0
"""A circle beyond this says nothing about a place and is left out."""

CANDIDATES = 5
CSV_COLUMNS = (
    "name",
    "status",
    "lon",
    "lat",
    "radius_m",
    "confidence",
    "camera_lon",
    "camera_lat",
    "altitude_m",
    "heading_deg",
    "tilt_deg",
    "aligned",
    "retriever",
    "reranker",
    "reranked",
    "rerank_note",
    "searched",
    "total_ms",
    "error",
    "radius_90_m",
    "fov_deg",
    "pose_from",
    "poses_tried",
    "poses_planned",
    "cut",
    "refined",
)

Position = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One photo's result: an estimate, or why there is none.

    Attributes:
        name: the photo's name.
        estimate: where it was taken; None where that failed.
        error, hint: what went wrong and what to do about it.
    """

    name: str
    estimate: Estimate | None = None
    error: str = ""
    hint: str = ""


def total_ms(found: Estimate) -> float | None:
    """Milliseconds that a photo took, where they were measured."""
    return found.ms.get("total", sum(found.ms.values())) if found.ms else None


def to_table(outcomes: Sequence[Outcome]) -> Table:
    """A `rich` table, one row a photo."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("photo", overflow="fold")
    for title in ("lon", "lat", "50 / 90 % m", "confidence", "camera lon", "camera lat"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("re-ranked", no_wrap=True)
    table.add_column("note", overflow="fold")
    for outcome in outcomes:
        name = Text(shown(outcome.name))
        found = outcome.estimate
        if found is None:
            table.add_row(name, *[""] * 7, Text(shown(outcome.error), style="red"))
            continue
        table.add_row(
            name,
            _fixed(found.lon, DECIMALS),
            _fixed(found.lat, DECIMALS),
            f"{_fixed(found.radius_m, 0)} / {_fixed(found.radius_90_m, 0)}",
            Text(_fixed(found.confidence, 2), style=_confidence_style(found)),
            _fixed(found.camera_lon, DECIMALS),
            _fixed(found.camera_lat, DECIMALS),
            "yes" if found.reranked else "no",
            Text(shown(_note(found))),
        )
    return table


def _confidence_style(found: Estimate) -> str:
    return "red" if not found.located else "green" if found.confidence >= 0.7 else "yellow"


def _note(found: Estimate) -> str:
    notes = [] if found.located else [f"{not_found(found)}; best guess"]
    if not found.aligned:
        notes.append(pose_found(found) or "telemetry incomplete")
    if found.cut:
        notes.append(f"search cut after {found.poses_tried} of {found.poses_planned} poses")
    if found.rerank_note:
        notes.append(found.rerank_note)
    return "; ".join(notes)


def not_found(found: Estimate) -> str:
    """What is said of an estimate that is not `located`."""
    return f"not found on this map (confidence {found.confidence:.2f})"


def pose_found(found: Estimate) -> str:
    """The parts of the pose that telemetry did not give, as they were found."""
    pose = found.pose
    if pose is None:
        return ""
    values = {
        "heading": f"{pose.heading_deg % 360:.0f} deg",
        "altitude": f"{pose.altitude_m:.0f} m",
        "tilt": f"{pose.tilt_deg:.0f} deg",
    }
    open_parts = [part for part in values if found.pose_from.get(part, "known") != "known"]
    words = ", ".join(f"{part} {values[part]}" for part in open_parts)
    if found.pose_from.get("fov") == "assumed":
        assumed = f"with an assumed field of view of {pose.hfov_deg:.0f} deg"
        words = f"{words} {assumed}" if words else assumed
    return f"found {words}" if open_parts else words


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """CSV with a header, the columns of `CSV_COLUMNS`, one row a photo; lines end in LF."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for outcome in outcomes:
        row = dict.fromkeys(CSV_COLUMNS, "")
        row |= {"name": readable(outcome.name), "status": "failed", "error": outcome.error}
        found = outcome.estimate
        if found is not None:
            pose = found.pose
            row |= {
                "status": "located" if found.located else "not found",
                "lon": _fixed(found.lon, DECIMALS),
                "lat": _fixed(found.lat, DECIMALS),
                "radius_m": _fixed(found.radius_m, 2),
                "confidence": _fixed(found.confidence, 4),
                "camera_lon": _fixed(found.camera_lon, DECIMALS),
                "camera_lat": _fixed(found.camera_lat, DECIMALS),
                "altitude_m": _fixed(pose.altitude_m if pose else None, 2),
                "heading_deg": _fixed(pose.heading_deg % 360 if pose else None, 2),
                "tilt_deg": _fixed(pose.tilt_deg if pose else None, 2),
                "aligned": str(int(found.aligned)),
                "retriever": found.retriever,
                "reranker": found.reranker,
                "reranked": str(int(found.reranked)),
                "rerank_note": found.rerank_note,
                "searched": found.searched,
                "total_ms": _fixed(total_ms(found), 1),
                "radius_90_m": _fixed(found.radius_90_m, 2),
                "fov_deg": _fixed(pose.hfov_deg if pose else None, 2),
                "pose_from": " ".join(f"{k}={v}" for k, v in found.pose_from.items()),
                "poses_tried": str(found.poses_tried),
                "poses_planned": str(found.poses_planned),
                "cut": str(int(found.cut)),
                "refined": str(int(found.refined)),
            }
        writer.writerow([readable(row[column]) for column in CSV_COLUMNS])
    return text.getvalue()


def _fixed(value: float | None, decimals: int) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def to_geojson(outcomes: Sequence[Outcome], *, attribution: str = "") -> str:
    """A FeatureCollection: for each photo a point, its radii and, if known, the camera.

    A photo that failed is a feature without geometry that has the error among its properties.
    """
    collection: dict[str, Any] = {
        "type": "FeatureCollection",
        "generator": f"skylink {__version__}",
    }
    if attribution:
        collection["attribution"] = readable(attribution)
    collection["features"] = [feature for o in outcomes for feature in _features(o)]
    return json.dumps(collection, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _features(outcome: Outcome) -> Iterable[dict[str, Any]]:
    name, found = readable(outcome.name), outcome.estimate
    if found is None:
        problem = {"error": readable(outcome.error), "hint": readable(outcome.hint) or None}
        yield _feature(None, {"name": name, "kind": "failed", **problem})
        return
    pose = found.pose
    camera = _point(found.camera_lon, found.camera_lat)
    properties = {
        "name": name,
        "kind": "view",
        "located": found.located,
        "radius_m": _number(found.radius_m, 2),
        "radius_90_m": _number(found.radius_90_m, 2),
        "confidence": _number(found.confidence, 4),
        "reranked": found.reranked,
        "rerank_note": readable(found.rerank_note) or None,
        "camera_lon": camera["coordinates"][0] if camera else None,
        "camera_lat": camera["coordinates"][1] if camera else None,
        "altitude_m": _number(pose.altitude_m if pose else None, 2),
        "heading_deg": _number(pose.heading_deg % 360 if pose else None, 2),
        "tilt_deg": _number(pose.tilt_deg if pose else None, 2),
        "fov_deg": _number(pose.hfov_deg if pose else None, 2),
        "pose_from": dict(found.pose_from) or None,
        "aligned": found.aligned,
        "retriever": found.retriever,
        "reranker": found.reranker,
        "searched": found.searched,
        "poses_tried": found.poses_tried,
        "poses_planned": found.poses_planned,
        "cut": found.cut,
        "refined": found.refined,
        "candidates": [
            [_number(c.lon, DECIMALS), _number(c.lat, DECIMALS), _number(c.score, 6)]
            for c in found.candidates[:CANDIDATES]
        ],
    }
    yield _feature(_point(found.lon, found.lat), properties)
    for kind, radius_m in (("radius", found.radius_m), ("radius_90", found.radius_90_m)):
        shape = radius_geometry(lon=found.lon, lat=found.lat, radius_m=radius_m)
        if shape is not None:
            yield _feature(shape, {"name": name, "kind": kind, "radius_m": _number(radius_m, 2)})
    if camera is not None:
        attitude = {key: properties[key] for key in ("altitude_m", "heading_deg", "tilt_deg")}
        yield _feature(camera, {"name": name, "kind": "camera", **attitude})


def _feature(geometry: dict[str, Any] | None, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _number(value: float | None, decimals: int) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), decimals) + 0.0  # + 0.0: no minus zero


def _point(lon: float | None, lat: float | None) -> dict[str, Any] | None:
    x, y = _number(lon, DECIMALS), _number(lat, DECIMALS)
    return None if x is None or y is None else {"type": "Point", "coordinates": [x, y]}


def radius_geometry(*, lon: float, lat: float, radius_m: float) -> dict[str, Any] | None:
    """A geodesic circle as a GeoJSON geometry, rings counter-clockwise.

    Cut in two at the antimeridian (RFC 7946, 3.1.9); around a pole it runs along the map's edge.
    None where there is no circle to draw: a radius that is not positive and finite, or one
    that is below the coordinates' precision or beyond `MAX_RADIUS_M`.
    """
    if not (math.isfinite(lon) and math.isfinite(lat) and 0 < radius_m <= MAX_RADIUS_M):
        return None
    ring = circle(lon=lon, lat=lat, radius_m=radius_m)
    unrolled = [ring[0]]
    for x, y in ring[1:]:
        before = unrolled[-1][0]
        unrolled.append((before + math.remainder(x - before, 360), y))
    turn = unrolled[-1][0] - unrolled[0][0]
    if abs(turn) > 180:
        parts = [_around_pole(unrolled[:-1], north=turn > 0)]
    else:
        shift = 360.0 * math.floor((min(x for x, _ in unrolled) + 180) / 360)
        moved = [(x - shift, y) for x, y in unrolled[:-1]]  # the least is in -180..180
        west, east = _half(moved, keep_west=True), _half(moved, keep_west=False)
        parts = [west, [(x - 360, y) for x, y in east]]
    rings = [rounded for part in parts if (rounded := _rounded(part))]
    if not rings:
        return None
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": [rings[0]]}
    return {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}


def _around_pole(ring: list[Position], *, north: bool) -> list[Position]:
    """A ring that runs once around the Earth, closed along the antimeridian and the pole."""
    around = sorted((math.remainder(x, 360), y) for x, y in ring)
    (x0, y0), (x1, y1) = around[-1], around[0]
    share = (180 - x0) / (x1 + 360 - x0) if x1 + 360 > x0 else 0.0
    edge = y0 + share * (y1 - y0)
    if north:
        return [(-180.0, edge), *around, (180.0, edge), (180.0, 90.0), (-180.0, 90.0)]
    around.reverse()
    return [(180.0, edge), *around, (-180.0, edge), (-180.0, -90.0), (180.0, -90.0)]


def _half(ring: list[Position], *, keep_west: bool) -> list[Position]:
    """The part of an open ring on one side of longitude 180 (Sutherland and Hodgman's way)."""
    kept: list[Position] = []
    for (x0, y0), (x1, y1) in zip([ring[-1], *ring[:-1]], ring, strict=True):
        inside0, inside1 = ((x <= 180) == keep_west for x in (x0, x1))
        if inside0 != inside1:
            kept.append((180.0, y0 + (180 - x0) / (x1 - x0) * (y1 - y0)))
        if inside1:
            kept.append((x1, y1))
    return kept


def _rounded(ring: list[Position]) -> list[list[float]]:
    """Closed, rounded, without repeated positions; empty where nothing is left of it."""
    positions: list[list[float]] = []
    for x, y in ring:
        position = [round(x, DECIMALS) + 0.0, round(y, DECIMALS) + 0.0]
        if not positions or position != positions[-1]:
            positions.append(position)
    while len(positions) > 1 and positions[0] == positions[-1]:
        positions.pop()
    if len(positions) < 3:
        return []
    closed = [*positions, positions[0]]
    x0, y0 = closed[0]  # differences first: small rings far from the origin lose no digits
    area = sum(
        (a[0] - x0) * (b[1] - y0) - (b[0] - x0) * (a[1] - y0) for a, b in itertools.pairwise(closed)
    )
    return closed if area > 0 else []
