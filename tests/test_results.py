from __future__ import annotations

import csv
import io
import itertools
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyproj import Geod
from rich.console import Console

from skylink.names import readable, shown
from skylink.results import (
    CSV_COLUMNS,
    Outcome,
    radius_geometry,
    to_csv,
    to_geojson,
    to_table,
)
from skylink.types import CameraPose, Candidate, Estimate

GEOD = Geod(ellps="WGS84")


def estimate(**changes: object) -> Estimate:
    candidates = [
        Candidate(lon=35.0 + i, lat=32.0, score=0.9 - i / 10, id=f"pose-{i}", area=0, level=0,
                  x_m=0.0, y_m=0.0)
        for i in range(7)
    ]  # fmt: skip
    values: dict[str, object] = {
        "name": "a.jpg",
        "lon": 35.209516400318826,
        "lat": 32.10263264998675,
        "radius_m": 21.345678,
        "radius_90_m": 61.238,
        "confidence": 0.91234567,
        "located": True,
        "candidates": candidates,
        "reranked": False,
        "rerank_note": "the base was sure",
        "camera_lon": 35.2097,
        "camera_lat": 32.1026,
        "pose": CameraPose(altitude_m=80, heading_deg=-90, tilt_deg=45, hfov_deg=70),
        "aligned": True,
        "retriever": "dense",
        "searched": "1 heading x 1 scale",
        "ms": {"retrieve": 100.25, "rerank": 3.0},
    }
    return Estimate(**(values | changes))  # type: ignore[arg-type]


def located(**changes: object) -> Outcome:
    found = estimate(**changes)
    return Outcome(name=found.name, estimate=found)


FAILED = Outcome(name="b.jpg", error="b.jpg is empty (0 bytes)", hint="copy it again")


def rings(geometry: dict) -> list[list[list[float]]]:
    if geometry["type"] == "Polygon":
        return geometry["coordinates"]
    return [polygon[0] for polygon in geometry["coordinates"]]


def signed_area(ring: list[list[float]]) -> float:
    x0, y0 = ring[0]
    return sum(
        (a[0] - x0) * (b[1] - y0) - (b[0] - x0) * (a[1] - y0) for a, b in itertools.pairwise(ring)
    )


def inside(ring: list[list[float]], x: float, y: float) -> bool:
    crossings = 0
    for (ax, ay), (bx, by) in itertools.pairwise(ring):
        if (ay > y) != (by > y) and x < ax + (y - ay) / (by - ay) * (bx - ax):
            crossings += 1
    return crossings % 2 == 1


def test_geojson_has_point_radii_and_camera() -> None:
    parsed = json.loads(to_geojson([located(), FAILED], attribution="© Someone"))
    assert parsed["type"] == "FeatureCollection"
    assert parsed["attribution"] == "© Someone"
    view, radius, radius_90, camera, failed = parsed["features"]
    assert [f["properties"]["kind"] for f in parsed["features"]] == [
        "view", "radius", "radius_90", "camera", "failed",
    ]  # fmt: skip
    assert view["geometry"] == {"type": "Point", "coordinates": [35.2095164, 32.1026326]}
    properties = view["properties"]
    assert properties["radius_m"] == 21.35
    assert properties["radius_90_m"] == 61.24
    assert properties["confidence"] == 0.9123
    assert properties["located"] is True
    assert properties["heading_deg"] == 270.0
    assert properties["altitude_m"] == 80.0
    assert properties["rerank_note"] == "the base was sure"
    assert properties["candidates"][1] == [36.0, 32.0, 0.8]
    assert len(properties["candidates"]) == 5
    assert radius["geometry"]["type"] == "Polygon"
    assert radius_90["properties"] == {"name": "a.jpg", "kind": "radius_90", "radius_m": 61.24}
    areas = [signed_area(rings(f["geometry"])[0]) for f in (radius, radius_90)]
    assert areas[1] / areas[0] == pytest.approx((61.24 / 21.35) ** 2, rel=0.01)
    assert camera["geometry"]["coordinates"] == [35.2097, 32.1026]
    assert failed["geometry"] is None
    assert failed["properties"]["error"] == "b.jpg is empty (0 bytes)"


def test_geojson_never_has_nan() -> None:
    nan = math.nan
    bad = Candidate(
        lon=0.0, lat=0.0, score=-math.inf, id="x", area=0, level=0, x_m=0.0, y_m=0.0
    )  # fmt: skip
    text = to_geojson(
        [
            located(radius_m=math.inf, radius_90_m=nan, confidence=nan, camera_lon=nan,
                    candidates=[bad], pose=None)
        ]
    )  # fmt: skip
    parsed = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    (view,) = parsed["features"]  # neither radius nor camera
    assert view["properties"]["radius_m"] is None
    assert view["properties"]["radius_90_m"] is None
    assert view["properties"]["camera_lat"] is None
    assert view["properties"]["candidates"] == [[0.0, 0.0, None]]


@given(
    lon=st.floats(-180, 180),
    lat=st.floats(-90, 90),
    radius_m=st.floats(1, 400_000),
)
@example(lon=179.9999, lat=10.0, radius_m=50.0)
@example(lon=-180.0, lat=-17.0, radius_m=30.0)
@example(lon=12.0, lat=89.9999, radius_m=100.0)
@example(lon=-170.0, lat=-89.9999, radius_m=1000.0)
@example(lon=0.0, lat=90.0, radius_m=10.0)
@example(lon=100.0, lat=-90.0, radius_m=10.0)
@example(lon=180.0, lat=80.0, radius_m=300_000.0)
def test_radius_geometry_follows_rfc_7946(lon: float, lat: float, radius_m: float) -> None:
    geometry = radius_geometry(lon=lon, lat=lat, radius_m=radius_m)
    assert geometry is not None
    for ring in rings(geometry):
        assert len(ring) >= 4
        assert ring[0] == ring[-1]
        assert signed_area(ring) > 0, "counter-clockwise"
        assert all(-180 <= x <= 180 and -90 <= y <= 90 for x, y in ring)
        assert all(a != b for a, b in itertools.pairwise(ring))
        # no edge jumps over the antimeridian (only a ring around a pole is that wide)
        if abs(lat) < 80:
            assert max(x for x, _ in ring) - min(x for x, _ in ring) < 180
    if abs(lat) < 85:
        area = sum(GEOD.polygon_area_perimeter(*zip(*r, strict=True))[0] for r in rings(geometry))
        if radius_m > 10:
            assert area == pytest.approx(math.pi * radius_m**2, rel=0.02)
        centred = (((lon + 180) % 360) - 180, lon)
        assert any(inside(r, x, lat) for r in rings(geometry) for x in centred) or (
            180 - abs(lon) < 1e-5
        )


def test_radius_at_the_antimeridian_is_cut_in_two() -> None:
    geometry = radius_geometry(lon=179.9999, lat=-16.5, radius_m=100.0)
    assert geometry is not None
    assert geometry["type"] == "MultiPolygon"
    west, east = rings(geometry)
    assert max(x for x, _ in west) == 180.0
    assert min(x for x, _ in east) == -180.0


def test_radius_around_a_pole_reaches_it() -> None:
    for lat in (89.9999, -89.9999):
        geometry = radius_geometry(lon=30.0, lat=lat, radius_m=5_000.0)
        assert geometry is not None
        (ring,) = rings(geometry)
        assert math.copysign(90.0, lat) in {y for _, y in ring}
        assert {-180.0, 180.0} <= {x for x, _ in ring}


@pytest.mark.parametrize("radius_m", [0.0, -1.0, math.nan, math.inf, 1e-4, 6e6])
def test_no_radius_no_polygon(radius_m: float) -> None:
    assert radius_geometry(lon=1.0, lat=2.0, radius_m=radius_m) is None


def test_csv_columns_and_values() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv([located(), FAILED]))))
    assert tuple(rows[0]) == CSV_COLUMNS
    first, second = rows
    assert first["status"] == "located"
    assert first["lon"] == "35.2095164"
    assert first["heading_deg"] == "270.00"
    assert first["reranked"] == "0"
    assert first["total_ms"] == "103.2"
    assert second["status"] == "failed"
    assert second["lon"] == ""
    assert second["error"] == "b.jpg is empty (0 bytes)"


def test_a_photo_that_is_not_found_is_marked_everywhere() -> None:
    """The best guess is there, and nothing takes it for an answer."""
    unsure = located(located=False, confidence=0.1234)
    (row,) = csv.DictReader(io.StringIO(to_csv([unsure])))
    assert (row["status"], row["lon"], row["confidence"]) == ("not found", "35.2095164", "0.1234")
    assert row["radius_90_m"] == "61.24"
    view = json.loads(to_geojson([unsure]))["features"][0]
    assert view["properties"]["located"] is False
    assert view["geometry"]["coordinates"] == [35.2095164, 32.1026326]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(to_table([unsure]))
    assert "not found on this map (confidence 0.12); best guess" in console.export_text()


def test_csv_and_geojson_with_odd_names() -> None:
    odd = 'x,"y"\n\udcff;ü 写真.jpg'
    text = to_csv([Outcome(name=odd, error="bad \udcfe")])
    text.encode()  # lone surrogates would not encode
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["name"] == 'x,"y"\n\\xff;ü 写真.jpg'
    geojson = to_geojson([located(name=odd)])
    geojson.encode()
    assert json.loads(geojson)["features"][0]["properties"]["name"] == row["name"]


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_any_name_can_be_written(name: str) -> None:
    assert len(readable(name).encode()) >= len(name)
    assert shown(name).isprintable()


def test_table_lists_every_photo_and_failure() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(to_table([located(name="[red]a[/red].jpg"), FAILED]))
    text = console.export_text()
    assert "[red]a[/red].jpg" in text
    assert "35.2095164" in text
    assert "0.91" in text
    assert "b.jpg is empty" in text
