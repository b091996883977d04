from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skylink.errors import GalleryError, OutputError
from skylink.evidence import HEIGHT, WIDTH, draw_evidence, file_name, write_evidence
from skylink.evidence_draw import FOUND, TRUTH, MapPanel
from skylink.evidence_map import footprint_m
from skylink.geo import LocalFrame
from skylink.types import CameraPose, Candidate, Estimate, Query, Retrieval, Surface, Telemetry

FRAME = LocalFrame(35.2, 32.1)
POSE = CameraPose(altitude_m=80.0, heading_deg=30.0, tilt_deg=35.0, hfov_deg=70.0)


class Map:
    """A gallery as evidence pictures see it: a green plain of 1000 x 600 m."""

    def __init__(self, *, imagery: bool = True, attribution: str = "© Nobody") -> None:
        self.areas = [SimpleNamespace(frame=FRAME, bounds=(-500.0, -300.0, 500.0, 300.0))]
        self.levels = [SimpleNamespace(tile_m=160.0, gsd_m=0.7)]
        self.info = SimpleNamespace(attribution=attribution, imagery=imagery)
        self.pictures = 0

    def picture(
        self, *, area: int, level: int, x_m: float, y_m: float, size_px: int, gsd_m: float
    ) -> tuple[Any, Any]:
        if not self.info.imagery:
            raise GalleryError("no imagery")
        self.pictures += 1
        offsets = (np.arange(size_px) - (size_px - 1) / 2) * gsd_m
        valid = (abs(x_m + offsets)[None, :] < 500) & (abs(y_m - offsets)[:, None] < 300)
        rgb = np.zeros((size_px, size_px, 3), np.uint8)
        rgb[valid] = (70, 110, 60)
        return rgb, valid


def candidate(rank: int, x: float, y: float) -> Candidate:
    lon, lat = FRAME.point(x_m=x, y_m=y)
    return Candidate(
        lon=lon, lat=lat, score=0.3 - rank / 20, id=f"pose-{rank}", area=0, level=0, x_m=x, y_m=y,
        pose=POSE, base_score=0.2,
    )  # fmt: skip


def case(**changes: Any) -> tuple[Query, Estimate, Retrieval]:
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 255, (300, 400, 3)).astype(np.uint8)
    query = Query(name="flight/a photo.jpg", image=photo, telemetry=Telemetry(heading_deg=30.0))
    candidates = [candidate(i, 40.0 * i - 60, 25.0 * i) for i in range(7)]
    score = rng.normal(0.05, 0.02, (54, 90)).astype(np.float32)
    score[20, 40] = 0.4
    score[:, :5] = -np.inf
    surface = Surface(score=score, x0_m=-495.0, y0_m=295.0, cell_m=11.0, frame=FRAME, area=0)
    east, north = POSE.offset_m
    camera = FRAME.point(x_m=-60 - east, y_m=-north)
    values: dict[str, Any] = {
        "name": query.name, "lon": candidates[0].lon, "lat": candidates[0].lat,
        "radius_m": 22.0, "radius_90_m": 61.0, "confidence": 0.8, "located": True,
        "candidates": candidates, "reranked": False,
        "camera_lon": camera[0], "camera_lat": camera[1], "pose": POSE, "aligned": True,
        "retriever": "dense", "searched": "3 altitudes", "ms": {"retrieve": 120.0},
    }  # fmt: skip
    estimate = Estimate(**(values | changes))
    return query, estimate, Retrieval(candidates=candidates, surface=surface, retriever="dense")


def has_colour(picture: Image.Image, colour: tuple[int, int, int], box: tuple[int, ...]) -> bool:
    pixels = np.asarray(picture.crop(box)).reshape(-1, 3).astype(int)
    return bool((np.abs(pixels - colour).sum(axis=1) < 12).any())


CLOSE_UP = (1172, 658, 1772, 1054)


def test_picture_shows_estimate_and_truth() -> None:
    query, estimate, retrieval = case()
    lon, lat = FRAME.point(x_m=-40, y_m=10)
    with_truth = draw_evidence(query, estimate, retrieval, Map(), truth=(lon, lat))  # type: ignore[arg-type]
    without = draw_evidence(query, estimate, retrieval, Map())  # type: ignore[arg-type]
    assert with_truth.size == (WIDTH, HEIGHT)
    for picture in (with_truth, without):
        assert has_colour(picture, FOUND, CLOSE_UP)
    assert has_colour(with_truth, TRUTH, CLOSE_UP)
    assert not has_colour(without, TRUTH, CLOSE_UP)


@pytest.mark.parametrize(
    "changes",
    [
        {"pose": None, "camera_lon": None, "camera_lat": None, "aligned": False},
        {"candidates": []},
        {"radius_m": math.inf, "confidence": 0.0},
        {"radius_m": 5000.0},
        {"radius_90_m": math.inf},
        {"located": False, "confidence": 0.1},
        {"refined": True, "candidates": [candidate(0, -75.0, 20.0)]},
        {"reranked": True, "reranker": "matching", "rerank_note": "x" * 500},
        {"pose": dataclasses.replace(POSE, tilt_deg=79.0, altitude_m=3000.0)},
        {"pose": dataclasses.replace(POSE, altitude_m=2.0)},
        {"name": "\udcff写真" * 60},
    ],
    ids=lambda c: next(iter(c)),
)
def test_odd_estimates_are_drawn(changes: dict[str, Any]) -> None:
    query, estimate, retrieval = case(**changes)
    query = dataclasses.replace(query, name=estimate.name)
    picture = draw_evidence(query, estimate, retrieval, Map(), truth=(34.0, 31.0))  # type: ignore[arg-type]
    assert picture.size == (WIDTH, HEIGHT)


def test_without_surface_or_imagery() -> None:
    query, estimate, retrieval = case()
    bare = dataclasses.replace(retrieval, surface=None)
    draw_evidence(query, estimate, bare, Map(imagery=False))  # type: ignore[arg-type]
    empty = np.full((3, 4), -np.inf, np.float32)
    assert retrieval.surface is not None
    nothing = dataclasses.replace(retrieval.surface, score=empty)
    draw_evidence(query, estimate, dataclasses.replace(retrieval, surface=nothing), Map())  # type: ignore[arg-type]


def test_the_overview_map_is_read_once_a_gallery() -> None:
    query, estimate, retrieval = case()
    gallery = Map()
    draw_evidence(query, estimate, retrieval, gallery)  # type: ignore[arg-type]
    first = gallery.pictures
    draw_evidence(query, estimate, retrieval, gallery)  # type: ignore[arg-type]
    assert gallery.pictures == 2 * first - 1


def test_written_inside_the_folder_under_distinct_names(tmp_path: Path) -> None:
    query, estimate, retrieval = case()
    used: set[str] = set()
    folder = tmp_path / "évidence dir"
    names = ["../../x.jpg", "x.jpg", "X.png", "a/b.jpg", "a_b.jpg", "..", "写真 1.jpg", "con.jpg"]
    paths = [
        write_evidence(
            folder,
            dataclasses.replace(query, name=name),
            estimate,
            retrieval,
            Map(),  # type: ignore[arg-type]
            used=used,
        )
        for name in names
    ]
    assert {path.parent for path in paths} == {folder}
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in paths)
    assert [p.name for p in paths] == [
        "x.jpg", "x-2.jpg", "X-3.jpg", "a_b.jpg", "a_b-2.jpg", "photo.jpg", "写真_1.jpg",
        "photo_con.jpg",
    ]  # fmt: skip
    with Image.open(paths[0]) as image:
        assert image.size == (WIDTH, HEIGHT)


@settings(max_examples=200)
@given(st.lists(st.text(st.characters(codec=None, exclude_categories=()), max_size=200)))
def test_file_names_are_safe_and_distinct(names: list[str]) -> None:
    used: set[str] = set()
    files = [file_name(name, used) for name in names]
    assert len({f.casefold() for f in files}) == len(files)
    for file in files:
        assert len(file.encode()) < 255
        assert not set(file) & set('/\\:*?"<>|\0\n')
        assert not file.startswith((".", "-"))


def test_unwritable_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    query, estimate, retrieval = case()
    with pytest.raises(OutputError):
        write_evidence(tmp_path / "file", query, estimate, retrieval, Map())  # type: ignore[arg-type]


def test_footprint_looking_down_is_the_photo_turned() -> None:
    pose = CameraPose(altitude_m=100, heading_deg=90, tilt_deg=0, hfov_deg=90)
    ring = footprint_m(pose, shape=(300, 400))
    east, north = (np.array([p[i] for p in ring]) for i in (0, 1))
    # 90 degrees at 100 m: 200 m wide; the top of the photo is east, so its width runs north
    assert (north.min(), north.max()) == pytest.approx((-100, 100))
    assert (east.min(), east.max()) == pytest.approx((-75, 75))


def test_footprint_ends_before_the_horizon() -> None:
    pose = CameraPose(altitude_m=100, heading_deg=0, tilt_deg=75, hfov_deg=90)
    ring = np.array(footprint_m(pose, shape=(400, 400)))
    assert np.isfinite(ring).all()
    under = ring + np.array(pose.offset_m)  # from the point under the camera
    assert np.hypot(*under.T).max() == pytest.approx(100 / math.tan(math.radians(7)))


def test_heat_lands_where_the_surface_says() -> None:
    score = np.zeros((11, 21), np.float32)
    score[2, 15] = 1.0
    surface = Surface(score=score, x0_m=-100.0, y0_m=50.0, cell_m=10.0, frame=FRAME, area=0)
    panel = MapPanel(np.full((300, 400, 3), 90, np.uint8), x_m=10.0, y_m=-5.0, gsd_m=0.8)
    panel.heat(surface)
    row, col = np.unravel_index(panel.rgb.astype(int).sum(axis=2).argmax(), (300, 400))
    u, v = panel.pixel(50.0, 30.0)  # cell (2, 15)
    assert (col, row) == pytest.approx((u, v), abs=7)
