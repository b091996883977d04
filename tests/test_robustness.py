"""Cells worked out on a localizer that answers by what it is shown, and the town end to end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scene_helpers import candidate
from skylink.conditions import CONDITIONS, apply, view_shift_m
from skylink.errors import OptionError, QueriesError
from skylink.evaluate import evaluate
from skylink.gallery import Gallery
from skylink.geo import LocalFrame, distance_m
from skylink.hypotheses import SearchSpace
from skylink.localizer import Localizer
from skylink.queries import QueryRow
from skylink.robustness import Cell, Robustness, evaluate_conditions
from skylink.robustness_partial import PartialCells, run_key
from skylink.types import CameraPose, Estimate, Query, Retrieval, Telemetry

FRAME = LocalFrame(35.2, 32.1)
GREY = 128
TELEMETRY = Telemetry(
    relative_altitude_m=100, heading_deg=0, camera_tilt_from_nadir_deg=0, horizontal_fov_deg=60
)


@dataclasses.dataclass
class Fragile:
    """Its base fails on any changed picture; its re-ranker only where less than half the light
    is left. Where it sees a smaller photo it answers `crop_at` metres east and north of the truth.
    """

    reranks: bool = True
    crop_at: tuple[float, float] = (0.0, 0.0)
    top_k: int = 1
    space: SearchSpace = dataclasses.field(default_factory=SearchSpace)
    seen: list[Query] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.retriever = SimpleNamespace(name="dense")
        self.reranker = SimpleNamespace(name="told") if self.reranks else None
        self.gallery = SimpleNamespace(tile_count=4)
        self.min_confidence = 0.5

    def locate_detailed(self, query: Query, *, prior: None) -> tuple[Estimate, Retrieval]:
        self.seen.append(query)
        pose = CameraPose(altitude_m=100, heading_deg=0, tilt_deg=0, hfov_deg=60)
        east, north = self.crop_at if len(query.image) < 60 else (0.0, 0.0)
        light = query.image.mean() / GREY
        base, final = (
            [candidate(east_m=east + (900 * wrong), north_m=north, pose=pose)]
            for wrong in (abs(light - 1) > 0.02, light < 0.5)
        )
        ranked = final if self.reranks else base
        estimate = Estimate(
            name=query.name, lon=ranked[0].lon, lat=ranked[0].lat, radius_m=10, radius_90_m=30,
            confidence=0.5, located=True, candidates=ranked, reranked=self.reranks,
            ms={"retrieve": 1.0, "rerank": 1.0, "total": 2.0},
        )  # fmt: skip
        return estimate, Retrieval(candidates=base, retriever="dense")


@pytest.fixture
def rows(tmp_path: Path) -> list[QueryRow]:
    """Four photos; the heading of the first is not known, the last one's file is missing."""
    made = []
    for line, name in enumerate("abcd", start=2):
        path = tmp_path / f"{name}.png"
        if name != "d":
            Image.fromarray(np.full((60, 80, 3), GREY, np.uint8)).save(path)
        telemetry = TELEMETRY.without("heading_deg") if name == "a" else TELEMETRY
        made.append(
            QueryRow(
                file=path.name, path=path, line=line, telemetry=telemetry, truth_lon=FRAME.lon,
                truth_lat=FRAME.lat, ground_lon=FRAME.lon, ground_lat=FRAME.lat,
            )
        )  # fmt: skip
    return made


def run(localizer: Any, rows: list[QueryRow], *names: str, **options: Any) -> Robustness:
    return evaluate_conditions(localizer, rows, [CONDITIONS[name] for name in names], **options)


def test_cells_by_hand(rows: list[QueryRow]) -> None:
    """Grey 128 is 93 one stop darker and 45 three stops darker: 0.73 and 0.35 of it."""
    found = run(Fragile(), rows, "dark", "heading-error", severities=(1, 3))
    assert (found.queries, found.retriever, found.reranker) == (4, "dense", "told")
    assert (found.seed, found.tolerance_m, found.telemetry) == (0, 50.0, "as given")
    assert (found.clean.retrieved.recall_1, found.clean.failed) == (75, 1)
    cells = {(c.condition, c.severity): c for c in found.cells}
    assert list(cells) == [
        ("dark", 1), ("dark", 3), ("heading-error", 1), ("heading-error", 3)
    ]  # fmt: skip
    dark = cells["dark", 1]
    assert (dark.kind, dark.level, dark.unit, dark.changed) == ("light", 1.0, "stops", 3)
    assert dark.words == "under-exposed by 1 stops"
    for severity, reranked, fixed in ((1, 75, 3), (3, 0, 0)):
        figures = cells["dark", severity].figures
        assert figures.retrieved.recall_1 == 0
        assert figures.reranked is not None
        assert figures.reranked.recall_1 == reranked
        assert figures.flips == {"fixed": fixed, "broken": 0}
        assert (figures.failed, figures.reranked_queries, figures.rerank_failed) == (1, 3, 0)
    turned = cells["heading-error", 3]
    assert turned.changed == 2, "one heading is not known, one file is missing"
    assert turned.figures.retrieved.recall_1 == 75


def test_the_localizer_sees_what_apply_makes(rows: list[QueryRow]) -> None:
    told = Fragile()
    clean = evaluate(told, rows).results  # type: ignore[arg-type]
    told.seen.clear()
    run(told, rows, *("noise", "altitude-error"), severities=(4,), seed=5, clean=clean)
    expected = [
        apply(row.load(), name, 4, seed=5)
        for name in ("noise", "altitude-error")
        for row in rows[:3]
    ]
    assert len(told.seen) == 6, "the unchanged photos are not located again"
    for seen, made in zip(told.seen, expected, strict=True):
        assert np.array_equal(seen.image, made.image)
        assert seen.telemetry == made.telemetry


def test_dropped_telemetry_stays_dropped(rows: list[QueryRow]) -> None:
    told = Fragile()
    found = run(told, rows, "heading-error", "noise", severities=(3,), without="heading")
    assert all(query.telemetry.heading_deg is None for query in told.seen)
    assert [cell.changed for cell in found.cells] == [0, 3]
    assert found.telemetry == "without heading"


def test_the_truth_moves_with_a_crop(rows: list[QueryRow]) -> None:
    """The view point of a crop is the ground at its centre: that answer is right, the old wrong."""
    row = rows[1]
    shift = view_shift_m(row.load(), "off-centre-crop", 5)
    assert shift is not None
    assert np.hypot(*shift) > 30
    for answer, right in ((shift, 100), ((0.0, 0.0), 0)):
        for known in (row, dataclasses.replace(row, ground_lon=None, ground_lat=None)):
            told = Fragile(crop_at=answer)
            told.camera_of = lambda c: (c.lon, c.lat)  # type: ignore[attr-defined]
            found = run(told, [known], "off-centre-crop", severities=(5,), tolerance_m=1.0)
            assert found.cells[0].figures.retrieved.recall_1 == right
            assert found.clean.retrieved.recall_1 == 100


def test_a_crop_that_could_not_be_scored_is_not_made(rows: list[QueryRow]) -> None:
    told = Fragile()
    found = run(told, rows, "off-centre-crop", severities=(5,))
    assert found.cells[0].changed == 2
    heights = [len(query.image) for query in told.seen[3:]]
    assert heights == [60, 30, 30], "the first one's heading is not known"


def test_without_a_reranker(rows: list[QueryRow]) -> None:
    found = run(Fragile(reranks=False), rows, "fog", severities=(1,))
    assert found.reranker == "none"
    assert found.clean.reranked is None
    assert found.cells[0].figures.reranked is None


def test_progress_counts_every_photo(rows: list[QueryRow]) -> None:
    steps: list[tuple[int, int, str]] = []
    run(Fragile(), rows, "fog", severities=(1, 2), progress=lambda *step: steps.append(step))
    assert [step[:2] for step in steps] == [(i, 12) for i in range(12)]
    assert steps[4][2] == "fog 1: a.png"


def test_bad_options(rows: list[QueryRow]) -> None:
    told = Fragile()
    for names, severities in (((), (1,)), (("fog",), ()), (("fog",), (0,)), (("fog",), (6,))):
        with pytest.raises(OptionError):
            run(told, rows, *names, severities=severities)
    assert not told.seen
    with pytest.raises(QueriesError):
        run(told, [], "fog")


def test_json_there_and_back(rows: list[QueryRow]) -> None:
    found = run(Fragile(), rows, "fog", severities=(2,))
    text = found.to_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert Robustness.model_validate_json(text) == found
    data = json.loads(text)
    assert data["schema_version"] == 1
    assert {"condition", "severity", "level", "unit", "changed", "figures"} <= set(data["cells"][0])
    assert "recall@1" in data["cells"][0]["figures"]["retrieved"]


# a run that is stopped


def test_a_stopped_run_goes_on(rows: list[QueryRow], tmp_path: Path) -> None:
    whole = run(Fragile(), rows, "fog", "dark", severities=(1, 2))
    path = tmp_path / "part.jsonl"
    partial = PartialCells(path, "key")

    def stop(cell: Cell) -> None:
        partial.add(cell)
        if len(partial.cells) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Fragile(), rows, "fog", "dark", severities=(1, 2), on_cell=stop)
    again = PartialCells(path, "key")
    assert [(c.condition, c.severity) for c in again.cells] == [("fog", 1), ("fog", 2), ("dark", 1)]
    told = Fragile()
    resumed = run(told, rows, "fog", "dark", severities=(1, 2), done=again.cells, on_cell=again.add)
    assert len(told.seen) == 3 * 2, "the unchanged photos and one cell"
    assert resumed == whole
    again.discard()
    assert not path.exists()


@pytest.mark.parametrize("damage", ["another run", "binary", "empty", "missing"])
def test_what_does_not_belong_is_ignored(rows: list[QueryRow], tmp_path: Path, damage: str) -> None:
    path = tmp_path / "part.jsonl"
    cells = run(Fragile(), rows, "fog", severities=(1,)).cells
    PartialCells(path, "one").add(cells[0])
    if damage == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    elif damage == "empty":
        path.write_text("")
    elif damage == "missing":
        path.unlink()
    partial = PartialCells(path, "two" if damage == "another run" else "one")
    assert partial.cells == []
    partial.add(cells[0])
    assert PartialCells(path, "two" if damage == "another run" else "one").cells == cells


def test_a_torn_line_loses_only_itself(rows: list[QueryRow], tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl"
    partial = PartialCells(path, "one")
    cells = run(Fragile(), rows, "fog", severities=(1, 2)).cells
    for cell in cells:
        partial.add(cell)
    path.write_text(path.read_text()[:-40])
    assert PartialCells(path, "one").cells == cells[:1]


def test_the_key_is_that_of_rows_files_and_options(rows: list[QueryRow]) -> None:
    key = run_key(rows, {"seed": 0})
    assert key == run_key(list(rows), {"seed": 0})
    moved = dataclasses.replace(rows[0], ground_lon=35.3)
    Image.fromarray(np.zeros((70, 80, 3), np.uint8)).save(rows[1].path)
    others = {
        run_key(rows, {"seed": 0}), run_key([moved, *rows[1:]], {"seed": 0}),
        run_key(rows, {"seed": 1}), run_key(rows[:3], {"seed": 0}),
    }  # fmt: skip
    assert len(others) == 4
    assert key not in others


# the town


def test_on_the_town(town_gallery: Gallery, town_rows: list[QueryRow]) -> None:
    """Slight fog and 320 pixels cost nothing there; a cell is the same whatever runs beside it."""
    localizer = Localizer(town_gallery, reranker="dense", top_k=3)
    rows = town_rows[:3]
    found = run(localizer, rows, "fog", "low-resolution", severities=(1,), tolerance_m=25.0)
    again = run(localizer, rows, "fog", severities=(1,), tolerance_m=25.0)
    assert again.cells[0] == found.cells[0]
    assert again.clean == found.clean
    assert found.clean.retrieved.recall_1 == 100
    for cell in found.cells:
        assert (cell.changed, cell.figures.failed) == (3, 0)
        assert cell.figures.reranked_queries == 3
        assert cell.figures.retrieved.recall_1 == 100


def test_crops_of_the_town_are_found_where_they_are(
    town_gallery: Gallery, town_rows: list[QueryRow]
) -> None:
    """The moved truth agrees with the map: crops are found nearer to it than to the old one."""
    localizer = Localizer(town_gallery, top_k=1)
    nearer = []
    for row in town_rows:
        query = row.load()
        shift = view_shift_m(query, "off-centre-crop", 3)
        assert shift is not None
        assert row.ground_lon is not None
        assert row.ground_lat is not None
        place = localizer.locate(apply(query, "off-centre-crop", 3))
        truth = LocalFrame(row.ground_lon, row.ground_lat)
        lon, lat = truth.point(x_m=shift[0], y_m=shift[1])
        moved = distance_m(lon1=place.lon, lat1=place.lat, lon2=lon, lat2=lat)
        old = distance_m(lon1=place.lon, lat1=place.lat, lon2=truth.lon, lat2=truth.lat)
        nearer.append((float(moved), float(old)))
    assert np.median([moved for moved, _ in nearer]) < 12
    assert np.median([old for _, old in nearer]) > 15
