"""Ablations whose candidates are places on a map: lists mined from a generated town's gallery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablation_helpers import write_grid
from skylink.ablation.grid_file import read_grid
from skylink.ablation.held_out import HeldOut
from skylink.ablation.report import write_report
from skylink.ablation.result import Done, Failed
from skylink.ablation.run import Ablation
from skylink.encoder import load_encoder
from skylink.errors import QueriesError
from skylink.gallery import Gallery
from skylink.mining.gallery import GalleryMine
from skylink.mining.lists import Forcing, Lists, write_lists
from skylink.queries import QueryRow
from skylink.reranker import Fusion, make_reranker, rerank
from skylink.retriever import make_retriever
from skylink.soft_labels import SoftLabels
from skylink.types import Query

DEEP, STRIDE = 12, 40.0


@pytest.fixture
def mined(
    town_gallery: Gallery, town_rows: list[QueryRow], town_folder: Path, tmp_path: Path
) -> Path:
    """A folder with `train`, `held` and `test` lists of the town's photos."""
    base = make_retriever("descriptor", town_gallery, load_encoder("embedded"))
    parts: list[tuple[str, Sequence[QueryRow], str, Forcing]] = [
        ("train", town_rows[1:3], "train", "appended"),
        ("held", town_rows[3:5], "train", "not-forced"),
        ("test", [town_rows[0], town_rows[5]], "test", "not-forced"),
    ]
    for name, rows, split, forcing in parts:
        mine = GalleryMine(
            town_gallery, rows, base, town_folder / "photos", split=split, top_k=DEEP
        )
        lists = Lists(path=tmp_path / f"{name}.jsonl", rows=range(len(rows)), forcing=forcing)
        write_lists(mine, lists, SoftLabels())
    return tmp_path


def opened(
    folder: Path,
    town: Path,
    checkpoint: Path | str,
    rows: str,
    *,
    gallery: bool = True,
    **grid: Any,
) -> Ablation:
    path = write_grid(folder, checkpoint, rows=rows, seeds="[0]", steps=2, **grid)
    place = f'folder = "{town / "photos"}"\ngallery = "{town / "gallery"}"\n'
    text = path.read_text().replace("[data]\n", f"[data]\n{place}")
    path.write_text(text.replace('checkpoints = ["none"]\n', ""))
    return Ablation(read_grid(path), folder / "out")


@pytest.mark.slow
def test_controls_beside_a_language_model_at_several_depths(
    mined: Path, town_folder: Path, checkpoint: Path
) -> None:
    rows = """
[[rows]]
title = "what scores"
models = ["base", "hog", "correlation", "pairs-head", "lvlm-head"]
labels = ["overlap"]
"""
    ablation = opened(mined, town_folder, checkpoint, rows, more=f"depths = [3, {DEEP}]")
    assert len(ablation.cells) == 4
    ablation.run()
    (part,) = write_report(ablation)
    assert not [row.failed for row in part.rows if row.failed]
    assert len(part.rows) == 1 + 4 * 2 * 2
    found = {(row.arm.model, row.depth, row.ranking): row for row in part.rows}
    for model in ("hog", "correlation"):
        (result,) = (r for cell, r in ablation.results().items() if cell.arm.model == model)
        assert isinstance(result.found, Done)
        # both lists have the place; of neighbouring tiles any may be first
        assert max(result.found.at(DEEP).pure.errors_m or [np.inf]) < STRIDE
        assert found[model, DEEP, "pure"].calm is None
    assert found["lvlm-head", 3, "pure"].train_seconds is not None
    document = json.loads((ablation.out / "ablation.json").read_text())
    written = document["parts"][0]["rows"]
    assert {row["depth"] for row in written} == {None, 3, DEEP}
    (head, *_) = (row for row in written if row["model"] == "lvlm-head")
    assert head["labels"] == found["lvlm-head", 3, "pure"].arm.labels  # their source ...
    assert head["label_statistics"]["lists"] > 0
    table = (ablation.out / "ablation.md").read_text()
    assert f"| hog |  |  | {DEEP} | pure | " in table
    # and they are finished: the same grid has nothing to run
    again = Ablation(ablation.grid, ablation.out)
    assert len(again.results()) == len(again.cells)


@pytest.mark.parametrize("swapped", ["data", "test"])
def test_lists_are_used_on_the_gallery_that_they_were_mined_on(
    mined: Path, town_folder: Path, tmp_path: Path, swapped: str
) -> None:
    """Another build, here of the same map: it may have other areas, tiles or features."""
    other = tmp_path / "other"
    Gallery.build([town_folder / "map.tif"], other, tile_m=(160.0,), stride_m=80.0)
    rows = '[[rows]]\nmodels = ["correlation"]\nrankings = ["pure"]\n'
    grid = opened(mined, town_folder, "none", rows).grid
    part = getattr(grid, swapped).model_copy(update={"gallery": other})
    with pytest.raises(QueriesError, match="was mined on another gallery"):
        Ablation(grid.model_copy(update={swapped: part}), tmp_path / "out")


def test_the_controls_are_the_re_rankers_of_that_name(
    mined: Path, town_folder: Path, town_gallery: Gallery, town_queries: list[Query]
) -> None:
    rows = '[[rows]]\nmodels = ["hog", "correlation"]\nrankings = ["pure"]\n'
    ablation = opened(mined, town_folder, "none", rows, more="depths = [4]")
    ablation.run()
    found = {cell.arm.model: result.found for cell, result in ablation.results().items()}
    held: HeldOut = ablation.held
    for model, name in (("hog", "hog"), ("correlation", "dense")):
        reranker = make_reranker(name, town_gallery, load_encoder("embedded"))
        assert reranker is not None
        done = found[model]
        assert isinstance(done, Done)
        ranks = []
        for pick, query in zip(held, [town_queries[0], town_queries[5]], strict=True):
            assert pick.mined.query == query.name
            candidates = [c.on_map() for c in pick.mined.candidates]
            ranked = rerank(reranker, query, candidates[:4], Fusion()).candidates
            names = [c.id for c in (*ranked, *candidates[4:])]
            right = {c.id for c in pick.mined.candidates if c.is_ground_truth}
            ranks.append(next((i for i, n in enumerate(names, 1) if n in right), None))
        assert list(done.at(4).pure.ranks) == ranks


def test_without_a_gallery_it_says_so(folder: Path) -> None:
    """On lists of pictures the controls on maps fail by themselves, and the others go on."""
    rows = '[[rows]]\nmodels = ["hog", "pairs-head"]\nrankings = ["pure"]\n'
    path = write_grid(folder, "none", rows=rows, seeds="[0]", steps=1, name="pictures")
    ablation = Ablation(read_grid(path), folder / "elsewhere")
    ablation.run()
    found = {cell.arm.model: result.found for cell, result in ablation.results().items()}
    failed = found["hog"]
    assert isinstance(failed, Failed)
    assert "places on a map" in failed.cause
    assert "test.gallery" in (failed.hint or "")
    assert isinstance(found["pairs-head"], Done)


def test_a_model_that_sees_lists_whole_is_asked_at_every_depth(
    mined: Path, town_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever plugs in such a model: its scores of 3 are not those of 12, cut."""
    asked: list[set[int]] = []

    class Whole:
        listwise = True
        trained = None

        def scores(self, lists: Any) -> list[Any]:
            asked.append({len(pick.rows) for pick in lists.picks})
            # the last of those that it sees comes first
            return [np.arange(len(pick.rows), dtype=np.float64) for pick in lists.picks]

    monkeypatch.setattr("skylink.ablation.run.make_fixed", lambda work: Whole())
    rows = '[[rows]]\nmodels = ["hog"]\nrankings = ["pure"]\n'
    ablation = opened(mined, town_folder, "none", rows, more="depths = [3, 5]")
    ablation.run()
    assert asked == [{3}, {5}, {3}, {5}]
    (result,) = ablation.results().values()
    assert isinstance(result.found, Done)
    for depth in (3, 5):
        errors = result.found.at(depth).pure.errors_m
        last = [pick.mined.candidates[depth - 1].measured.distance_m for pick in ablation.held]
        assert errors == pytest.approx(last)


@pytest.mark.slow
def test_relational_models_by_labels_losses_and_depths(
    mined: Path, town_folder: Path, town_gallery: Gallery
) -> None:
    rows = """
[[rows]]
models = ["correlation", "late", "transformer"]
losses = ["hard", "relational"]
labels = ["overlap", "cosine"]
rankings = ["pure"]
[relational]
layers = 1
width = 16
"""
    ablation = opened(mined, town_folder, "none", rows, more="depths = [4, 8]")
    # a hard loss has no source of labels
    assert len(ablation.cells) == 1 + 2 * 3
    ablation.run()
    (part,) = write_report(ablation)
    assert not [row.failed for row in part.rows if row.failed]
    assert len(part.rows) == 7 * 2
    for cell, result in ablation.results().items():
        assert isinstance(result.found, Done)
        if cell.arm.model == "correlation":
            continue
        assert result.found.trained is not None
        assert result.found.trained.steps == 2
    # what is left can be used
    (folder,) = (ablation.out / "cells").glob("late*hard*/relational.onnx")
    reranker = make_reranker(
        f"relational:{folder.parent}", town_gallery, load_encoder(town_gallery.info.encoder.name)
    )
    assert reranker is not None
    assert reranker.name == f"relational:{folder.parent.name}"


def test_relational_models_need_a_gallery(folder: Path) -> None:
    rows = '[[rows]]\nmodels = ["late", "pairs-head"]\nrankings = ["pure"]\n'
    path = write_grid(folder, "none", rows=rows, seeds="[0]", steps=1, name="pictures")
    ablation = Ablation(read_grid(path), folder / "elsewhere")
    ablation.run()
    found = {cell.arm.model: result.found for cell, result in ablation.results().items()}
    failed = found["late"]
    assert isinstance(failed, Failed)
    assert "data.gallery" in failed.cause
    assert isinstance(found["pairs-head"], Done)
