"""Tests of `skylink.ablation.grid` and its file: what is compared, and typos."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ablation_helpers import write_grid
from skylink.ablation.grid import Arm, Grid, Rows
from skylink.ablation.grid_file import example_text, read_grid
from skylink.errors import OptionError


def grid_of(rows: list[dict[str, Any]], **more: Any) -> Grid:
    values: dict[str, Any] = {
        "checkpoints": ["a", "b"], "seeds": [4, 5], "rows": rows,
        "data": {"train": "train.jsonl", "validation": ["held.jsonl"]},
        "test": {"lists": ["test.jsonl"]},
    }  # fmt: skip
    return Grid.model_validate(values | more)


def test_the_example_is_a_grid_with_both_isolated_comparisons(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(example_text())
    grid = read_grid(path)
    assert [rows.isolates for rows in grid.rows] == ["lvlm", "loss"]
    assert grid.data.train == tmp_path / "train.jsonl"
    assert grid.test.folder == tmp_path
    models = {model for rows in grid.rows for model in rows.models}
    assert len(models) == 6  # the others need a map
    # every key that stands in it, commented or not, is one
    text = "\n".join(
        line.removeprefix("# ") if " = " in line else line for line in example_text().splitlines()
    )
    text = text.replace("# [loss_params", "[loss_params")
    assert Grid.model_validate(tomllib.loads(text)).thresholds.quantile == 0.8


def test_cells_are_shared_and_only_what_matters_tells_them_apart() -> None:
    grid = grid_of(
        [
            {"models": ["base", "lvlm-zero-shot", "lvlm-head"], "losses": ["hard"],
             "labels": ["overlap", "cosine"], "checkpoints": ["a"]},
            {"models": ["lvlm-head", "pairs-head"], "losses": ["hard", "relational"]},
        ]
    )  # fmt: skip
    first = grid.rows[0].arms(grid.checkpoints)
    assert first == [
        Arm(model="base"),
        Arm(model="lvlm-zero-shot", checkpoint="a"),
        Arm(model="lvlm-head", checkpoint="a", loss="hard"),
    ]
    cells = list(grid.cells())
    assert len(cells) == len(set(cells)) == 1 + 2 * 6
    assert [(row.arm.model, row.ranking) for row in grid.table(grid.rows[0])] == [
        ("base", "pure"), ("lvlm-zero-shot", "pure"), ("lvlm-zero-shot", "fused"),
        ("lvlm-head", "pure"), ("lvlm-head", "fused"),
    ]  # fmt: skip
    assert [cell.seed for cell in grid.cells_of(first[2])] == [4, 5]
    assert [cell.seed for cell in grid.cells_of(first[1])] == [0]


@pytest.mark.parametrize(
    ("loss", "threshold", "quantile"),
    [("relational", 0.0, None), ("relational+threshold", 0.7, None), ("ranknet", 0.0, None)],
)
def test_a_cell_is_a_training(loss: str, threshold: float, quantile: float | None) -> None:
    grid = grid_of(
        [{"models": ["lvlm-lora"], "losses": [loss], "labels": ["distance"]}],
        thresholds={"distance": 0.7, "scale_m": 30}, loss_params={"relational": {"temperature": 2}},
    )  # fmt: skip
    cell = next(grid.cells())
    config = grid.config(cell, Path("out"))
    assert (config.checkpoint, config.seed, config.tune.how) == ("a", 4, "lora")
    assert config.loss.name == loss.removesuffix("+threshold")
    assert config.loss.params == ({"temperature": 2.0} if "relational" in loss else {})
    assert (config.labels.source, config.labels.threshold) == ("distance", threshold)
    assert (config.labels.quantile, config.labels.scale_m) == (quantile, 30)


def test_depths_are_rows_of_the_same_cells() -> None:
    rows = [{"models": ["base", "hog", "lvlm-head"], "losses": ["hard"], "checkpoints": ["a"]}]
    grid = grid_of(rows, depths=[10, 50])
    assert grid.ranked == (10, 50)
    assert len(list(grid.cells())) == 3
    table = [(row.arm.model, row.depth, row.ranking) for row in grid.table(grid.rows[0])]
    assert table == [("base", None, "pure")] + [
        (model, depth, ranking)
        for model in ("hog", "lvlm-head")
        for depth in (10, 50)
        for ranking in ("pure", "fused")
    ]
    assert grid_of(rows, validation={"depth": 7}).ranked == (7,)
    for depths, words in (([10, 10], "twice"), ([1], "depths"), ([], "depths")):
        with pytest.raises((OptionError, ValidationError), match=words):
            grid_of(rows, depths=depths)


def test_a_grid_without_a_language_model_needs_no_checkpoint() -> None:
    rows = [{"models": ["base", "correlation", "hog", "pairs-head"], "losses": ["hard"]}]
    grid = grid_of(rows, checkpoints=[])
    assert [str(cell) for cell in grid.cells()] == [
        "correlation", "hog", "pairs-head, hard, seed 4", "pairs-head, hard, seed 5",
    ]  # fmt: skip
    assert grid.own("pairs-head") == grid.pairs
    assert grid.own("hog") is None
    with pytest.raises(OptionError, match="lvlm-head, and no checkpoint") as caught:
        grid_of([{"models": ["base", "lvlm-head"]}], checkpoints=[])
    assert "skylink models" in (caught.value.hint or "")


def test_a_quantile_takes_the_place_of_thresholds() -> None:
    rows = [{"models": ["lvlm-head"], "losses": ["relational+threshold", "hard"]}]
    grid = grid_of(rows, thresholds={"quantile": 0.8})
    soft, hard = (grid.config(cell, Path("out")).labels for cell in list(grid.cells())[:2])
    assert (soft.threshold, soft.quantile) == (None, 0.8)
    assert hard.source == "stored"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"isolates": "loss", "models": ["lvlm-head", "lvlm-lora"], "losses": ["hard"]}, "loss"),
        ({"isolates": "loss", "models": ["lvlm-head"], "losses": ["hard", "relational"]}, "model"),
        ({"isolates": "lvlm", "models": ["lvlm-head"], "checkpoints": ["a"]}, "lvlm"),
        ({"isolates": "lvlm", "models": ["lvlm-head", "lvlm-lora"],
          "losses": ["hard", "relational"]}, "lvlm"),
        ({"models": ["lvlm-head"], "losses": []}, "no losses"),
        ({"models": ["lvlm-head"], "checkpoints": ["c"]}, "'c'"),
    ],
)  # fmt: skip
def test_comparisons_that_are_none_are_refused(rows: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        grid_of([rows])


def test_rows_that_isolate_may_have_the_base_and_the_untrained_model_beside_them() -> None:
    kept: list[Rows] = []
    for rows in (
        {"isolates": "lvlm", "models": ["base", "lvlm-zero-shot", "lvlm-lora"],
         "checkpoints": ["a"]},
        {"isolates": "loss", "models": ["base", "lvlm-lora"], "losses": ["hard", "relational"],
         "checkpoints": ["a"]},
    ):  # fmt: skip
        kept += grid_of([rows]).rows
    assert len(kept) == 2


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("models =", "modles =", "rows.0.modles", "'rows.models'"),
        ("seeds =", "seed =", "no key seed", "'seeds'"),
        ("[optimizer]", "[optimiser]", "optimiser", "'optimizer'"),
        ("lr_head", "lr_haed", "optimizer.lr_haed", "'optimizer.lr_head'"),
        ('"relational"', '"relationnal"', "relationnal", "'relational'"),
        ('"relational"', '"hard+threshold"', "hard", "hard"),
        ('"lvlm-head"', '"lvlm-haed"', "rows.0.models.0", "--print-grid"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "twice", "[0, 1, 2]"),
        ("seeds = [0, 1]", "seeds = []", "seeds", "--print-grid"),
        ('validation = ["held.jsonl"]', "", "data.validation is empty", "skylink mine"),
        ("[test]", "[tests]", "no key tests", "'test'"),
        ("[test]", "[test", "is not TOML", "quotes"),
        ("[asking]", "[loss_params.hard]\ntemperature = 1.0\n[asking]", "no row", "relational"),
        ("[asking]", "[loss_params.relational]\nheat = 1.0\n[asking]", "heat", "temperature"),
    ],
)
def test_typos_name_the_nearest_key(
    tmp_path: Path, old: str, new: str, message: str, hint: str
) -> None:
    path = write_grid(tmp_path, "model")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(OptionError) as caught:
        read_grid(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
