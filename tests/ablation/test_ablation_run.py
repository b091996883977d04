"""Tests of `skylink.ablation.run` and its report: cells, going on, failing, and the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ablation_helpers import write_grid
from skylink.ablation.grid_file import read_grid
from skylink.ablation.report import unfinished, write_report
from skylink.ablation.result import Done, Failed
from skylink.ablation.run import Ablation
from skylink.errors import OptionError, OutputError, QueriesError
from skylink.lvlm.adapter import read_info
from skylink.training.trainer import Trainer
from training_helpers import write_lists


def opened(folder: Path, checkpoint: Path | str, **grid: Any) -> Ablation:
    return Ablation(read_grid(write_grid(folder, checkpoint, **grid)), folder / "out")


def report_of(ablation: Ablation) -> dict[str, Any]:
    write_report(ablation)
    return json.loads((ablation.out / "ablation.json").read_text())


def cells_of(ablation: Ablation) -> list[dict[str, Any]]:
    return [
        json.loads(path.read_text()) for path in sorted((ablation.out / "cells").glob("*.json"))
    ]


def test_two_rows_two_seeds_and_the_table_by_hand(checkpoint: Path, folder: Path) -> None:
    ablation = opened(folder, checkpoint)
    seen: list[tuple[int, int]] = []
    ablation.run(lambda done, total, words: seen.append((done, total)))
    assert seen[-1] == (2, 2)
    document = report_of(ablation)
    assert (document["format"], document["version"]) == ("skylink-ablation", 1)
    assert document["test"]["base_recall_at_1"] == 25.0
    pure, fused, base = document["parts"][0]["rows"]
    assert [row["model"] for row in (pure, fused, base)] == ["lvlm-head", "lvlm-head", "base"]
    assert base["recall_at_1"] == {"mean": 25.0, "std": None, "values": [25.0]}
    assert base["against_base"] is None
    files = cells_of(ablation)
    assert [each["seed"] for each in files] == [0, 1]
    for row, ranking in ((pure, "pure"), (fused, "fused")):
        ranks = [each["found"]["depths"][0][ranking]["ranks"] for each in files]
        by_hand = [100 * sum(rank == 1 for rank in each) / 16 for each in ranks]
        assert row["recall_at_1"]["values"] == pytest.approx(by_hand)
        assert row["recall_at_1"]["mean"] == pytest.approx(sum(by_hand) / 2)
        std = abs(by_hand[0] - by_hand[1]) / 2**0.5
        assert row["recall_at_1"]["std"] == pytest.approx(std)
        assert row["calm"]["recall_variance"] == pytest.approx(std**2)
        # one right candidate a list: its precision is 1 / its rank
        precision = [np.mean([1 / rank for rank in each]) for each in ranks]
        assert row["ap_step"]["values"] == pytest.approx([100 * p for p in precision])
        change = row["against_base"]
        assert change["mean"] == pytest.approx(sum(by_hand) / 2 - 25)
        assert change["low"] <= change["mean"] <= change["high"]
        assert row["median_error_m"] is None
    assert pure["recall_at_1"]["mean"] > 25
    log = Path(next(folder.glob("out/cells/*seed0-*/training/log.jsonl")))
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    stability = files[0]["found"]["trained"]["stability"]
    assert stability["loss_variance"] == pytest.approx(
        np.var([entry["loss"] for entry in entries[3:]], ddof=1)
    )
    assert stability["grad_norm_max"] == max(entry["grad_norm"] for entry in entries)
    table = (folder / "out" / "ablation.md").read_text()
    mean, std = pure["recall_at_1"]["mean"], pure["recall_at_1"]["std"]
    assert f"| lvlm-head | relational | overlap | pure | {mean:.2f} ± {std:.2f} |" in table
    assert "| base |  |  |  | 25.00 |" in table
    assert "2 of 2" in table
    assert "| overlap | relational | 16 | 100.0 % | 0.0 % |" in table
    picture = cv2.imread(str(folder / "out" / "ablation.png"))
    assert picture is not None
    assert picture.std() > 5


@pytest.mark.slow
def test_finished_cells_are_used_again_and_others_run(
    checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(folder, checkpoint, seeds="[0]").run()
    info = read_info(next(folder.glob("out/cells/*/skylink.json")).parent)
    assert info is not None
    assert not list(folder.glob("out/cells/*/training/step-*.pt"))
    ran: list[int] = []
    run = Trainer.run

    def counted(trainer: Trainer, *args: Any) -> Any:
        ran.append(trainer.config.seed)
        return run(trainer, *args)

    monkeypatch.setattr(Trainer, "run", counted)
    opened(folder, checkpoint, seeds="[0, 1]").run()
    assert ran == [1]
    # other choices are other cells, and a damaged file is none
    opened(folder, checkpoint, seeds="[0]", steps=2).run()
    assert ran == [1, 0]
    broken = next(folder.glob("out/cells/*seed1-*.json"))
    broken.write_text(broken.read_text()[:100])
    opened(folder, checkpoint, seeds="[0, 1]").run()
    assert ran == [1, 0, 1]


@pytest.mark.slow
def test_every_model_and_collapsed_labels(checkpoint: Path, folder: Path) -> None:
    rows = """
[[rows]]
title = "what scores | varies"
isolates = "lvlm"
models = ["lvlm-lora", "lvlm-head", "lvlm-zero-shot", "shuffled-tiles", "pairs-head", "base"]
losses = ["relational+threshold"]
[[rows]]
title = "losses"
isolates = "loss"
models = ["lvlm-head"]
losses = ["hard", "relational", "relational+threshold"]
[pairs]
encoder = "embedded"
hidden = 16
"""
    ablation = opened(folder, checkpoint, rows=rows, seeds="[3]")
    assert len(ablation.cells) == 7
    ablation.run()
    parts = write_report(ablation)
    assert not [row.failed for part in parts for row in part.rows if row.failed]
    assert unfinished(parts) == (0, 0)
    first = {(row.arm.model, row.ranking): row for row in parts[0].rows}
    assert all(row.recall_at_1 is not None for row in first.values())
    assert first["lvlm-zero-shot", "pure"].train_seconds is None
    # one seed; overlap of the others is 0.25, below the threshold
    assert first["lvlm-lora", "pure"].recall_at_1.std is None
    assert first["lvlm-lora", "pure"].equals_hard
    assert first["lvlm-lora", "pure"].against_first is None
    assert first["pairs-head", "fused"].against_first is not None
    hard, soft, collapsed = (row for row in parts[1].rows if row.ranking == "pure")
    assert [row.equals_hard for row in (hard, soft, collapsed)] == [False, False, True]
    assert hard.labels is None
    assert hard.recall_at_1 == collapsed.recall_at_1
    assert soft.labels is not None
    assert soft.labels.soft_share == 1.0
    table = (folder / "out" / "ablation.md").read_text()
    assert "relational+threshold (= hard labels)" in table
    assert "what scores \\| varies (the loss is fixed and the LVLM varied)" in table
    # the controls and what is not trained leave nothing that could be used by mistake
    finished = {path.parent.name for path in folder.glob("out/cells/*/skylink.json")}
    assert all(name.startswith(("lvlm-lora", "lvlm-head")) for name in finished)


def test_a_failing_cell_is_recorded_and_the_others_go_on(
    checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = """
[[rows]]
models = ["lvlm-head"]
losses = ["relational"]
labels = ["cosine", "overlap"]
rankings = ["pure"]
"""
    ablation = opened(folder, checkpoint, rows=rows, seeds="[0]")
    ablation.run()
    found = {cell.arm.labels: result.found for cell, result in ablation.results().items()}
    assert isinstance(found["overlap"], Done)
    failed = found["cosine"]
    assert isinstance(failed, Failed)
    assert "cosine was not measured" in failed.cause
    document = report_of(ablation)
    row = document["parts"][0]["rows"][0]
    assert row["recall_at_1"] is None
    assert row["failed"][0]["seed"] == 0
    assert "## Failed" in (ablation.out / "ablation.md").read_text()
    # it is tried again, and an error that nobody expected is recorded as well

    def broken(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("skylink.ablation.run.make_lvlm", broken)
    ablation.run()
    causes = [r.found.cause for r in ablation.results().values() if isinstance(r.found, Failed)]
    assert causes == ["RuntimeError: out of memory"]


def test_a_full_disk_ends_the_run(
    checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablation = opened(folder, checkpoint, seeds="[0]")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        ablation.run()
    assert not list(folder.glob("out/cells/*.json"))


def test_parts_share_the_cells(checkpoint: Path, folder: Path) -> None:
    rows = '[[rows]]\nmodels = ["pairs-head"]\n'
    ablation = opened(folder, checkpoint, rows=rows, seeds="[0, 1, 2]", steps=2)
    ablation.run(part=(2, 2))
    assert [cell.seed for cell in ablation.results()] == [1]
    assert unfinished(write_report(ablation)) == (0, 2)
    assert "1 of 3" in (ablation.out / "ablation.md").read_text()
    ablation.run(part=(1, 2))
    assert unfinished(write_report(ablation)) == (0, 0)


def test_lists_that_nothing_may_be_measured_on(
    checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = write_grid(folder, checkpoint)
    grid.write_text(grid.read_text().replace("test.jsonl", "held.jsonl"))
    with pytest.raises(OptionError, match="queries of test lists are in training"):
        Ablation(read_grid(grid), folder / "out")
    write_lists(folder, name="more", split="test", ground_truth="not-forced")
    (folder / "more" / "3.png").unlink()
    grid.write_text(grid.read_text().replace('lists = ["held.jsonl"]', 'lists = ["more.jsonl"]'))
    with pytest.raises(QueriesError, match=r"more/3\.png"):
        Ablation(read_grid(grid), folder / "out")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError) as caught:
        Ablation(read_grid(grid), folder / "out")
    assert "--part" in (caught.value.hint or "")
