"""Tests of `skylink.ablation.summary` and its table, from cells written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skylink.ablation.grid import Cell, Grid
from skylink.ablation.report import unfinished
from skylink.ablation.result import (
    AtDepth,
    Done,
    Failed,
    Outcome,
    Result,
    Stability,
    Trained,
    digest_of,
    name_of,
    read_result,
    write_result,
)
from skylink.ablation.summary import Part, summarise
from skylink.ablation.table import markdown

BASE = Outcome(ranks=(1, 2, 2, None), precisions=(1, 0.5, 0.5, 0), errors_m=(5, 90, 80, 500))
BLOCKS = np.array([0, 0, 1, 2])
GRID = Grid.model_validate(
    {
        "checkpoints": ["models/small", "models/large"], "seeds": [0, 1],
        "data": {"train": "train.jsonl", "validation": ["held.jsonl"]},
        "test": {"lists": ["test.jsonl"]},
        "rows": [{"models": ["base", "lvlm-head"], "losses": ["relational"]}],
    }
)  # fmt: skip


def outcome(*ranks: int | None) -> Outcome:
    return Outcome(
        ranks=ranks,
        precisions=tuple(0.0 if rank is None else 1 / rank for rank in ranks),
        errors_m=tuple(400.0 if rank is None else 10.0 * rank for rank in ranks),
    )


def at(depth: int, pure: Outcome, fused: Outcome) -> AtDepth:
    return AtDepth(
        depth=depth, pure=pure, fused=fused, base_weight=0.3, gate_margin=None,
        validation={"base": 0.5},
    )  # fmt: skip


def done(pure: Outcome, fused: Outcome, *, loss: float = 0.1, norm: float = 1.0) -> Done:
    return Done(
        depths=(at(10, pure, fused),), judge_seconds=2.0,
        trained=Trained(
            steps=8, best_step=4, seconds=6.0, labels=None, equals_hard=False,
            stability=Stability(loss_variance=loss, grad_norm_mean=norm, grad_norm_max=2 * norm),
        ),
    )  # fmt: skip


def results(**found: Done | Failed) -> dict[Cell, Result]:
    """By `small0`, `large1`, ..."""
    return {
        cell: Result(cell=str(cell), seed=cell.seed, digest="", found=found[name])
        for cell in GRID.cells()
        if (name := f"{Path(cell.arm.checkpoint).name}{cell.seed}") in found
    }


def page(parts: tuple[Part, ...]) -> str:
    return markdown(
        parts, checkpoints=GRID.checkpoints, queries=4, blocks=3, depths=[10], positions=True
    )


def test_rows_are_means_over_seeds_with_paired_differences() -> None:
    parts = summarise(
        GRID, BLOCKS, BASE,
        results(
            small0=done(outcome(1, 1, 2, None), outcome(1, 1, 1, None), loss=0.1, norm=1.0),
            small1=done(outcome(2, 1, 1, None), outcome(1, 1, 1, None), loss=0.3, norm=3.0),
            large0=Failed(cause="out | of memory"),
        ),
    )  # fmt: skip
    base, pure, fused, large, _ = parts[0].rows
    assert base.recall_at_1 is not None
    assert (base.recall_at_1.mean, base.recall_at_1.std) == (25.0, None)
    assert base.median_error_m is not None
    assert base.median_error_m.mean == 85.0
    assert pure.recall_at_1 is not None
    assert pure.recall_at_1.values == (50.0, 50.0)
    assert pure.median_error_m is not None
    assert pure.median_error_m.mean == 15.0
    assert fused.recall_at_1 is not None
    assert (fused.recall_at_1.mean, fused.recall_at_1.std) == (75.0, 0.0)
    # queries gain (-0.5, +1, +0.5, 0): means of the blocks are 0.25, 0.5 and 0
    assert pure.against_base is not None
    assert pure.against_base.mean == 25.0
    assert (pure.against_base.low, pure.against_base.high) == (0.0, 50.0)
    assert pure.against_first is None
    assert fused.fusions == ((0.3, None), (0.3, None))
    assert pure.calm is not None
    assert (pure.calm.loss_variance, pure.calm.grad_norm_mean) == (pytest.approx(0.2), 2.0)
    assert (pure.calm.grad_norm_max, pure.calm.recall_variance) == (6.0, 0.0)
    assert large.failed == ((0, "out | of memory"),)
    assert unfinished(parts) == (1, 1)
    text = page(parts)
    assert "| lvlm-head (small) | relational | overlap | pure | 50.00 ± 0.00 |" in text
    assert "| 15.0 ± 0.0 | +25.00 [+0.00, +50.00] |  | 2 of 2 |" in text
    assert "| lvlm-head (large) | relational | overlap | pure |  |  |  |  |  | 0 of 2 |" in text
    assert "- lvlm-head of large, relational, overlap, seed 0: out \\| of memory" in text
    assert (
        "| lvlm-head (small) | relational | overlap | 0.2 | 2 | 6 | 0.00 | 6.0 s | 2.0 s |" in text
    )


def test_rows_are_compared_with_the_first_of_their_ranking() -> None:
    parts = summarise(
        GRID, BLOCKS, BASE,
        results(
            small0=done(outcome(1, 1, 1, None), outcome(2, 2, 2, None)),
            large0=done(outcome(2, 2, 1, None), outcome(1, 2, 2, None)),
        ),
    )  # fmt: skip
    _, _, _, pure, fused = parts[0].rows
    assert pure.against_first is not None
    assert pure.against_first.mean == -50.0
    assert fused.against_first is not None
    assert fused.against_first.mean == 25.0
    assert pure.recall_at_1 is not None
    assert pure.recall_at_1.std is None


def test_rows_at_several_depths_share_a_cell_and_are_compared_with_their_own() -> None:
    grid = GRID.model_copy(update={"depths": (2, 20)})
    few, many = outcome(1, 2, 2, None), outcome(1, 1, 1, None)
    found = {
        cell: Result(cell=str(cell), seed=cell.seed, digest="", found=done(few, few).model_copy(
            update={"depths": (at(2, few, few), at(20, many, many))}
        ))
        for cell in grid.cells()
    }  # fmt: skip
    (part,) = summarise(grid, BLOCKS, BASE, found)
    rows = [(row.arm.checkpoint, row.depth, row.ranking) for row in part.rows[1:]]
    assert rows == [
        (name, depth, ranking)
        for name in ("models/small", "models/large")
        for depth in (2, 20)
        for ranking in ("pure", "fused")
    ]
    assert part.rows[0].depth is None
    assert [row.recall_at_1.mean for row in part.rows[1:] if row.recall_at_1] == [
        25.0, 25.0, 75.0, 75.0,
    ] * 2  # fmt: skip
    firsts = [row.against_first and row.against_first.mean for row in part.rows]
    assert firsts == [None] * 5 + [0.0] * 4
    text = markdown(
        (part,), checkpoints=grid.checkpoints, queries=4, blocks=3, depths=[2, 20], positions=True
    )
    assert "| what scores | loss | labels | K | ranking | R@1 |" in text
    assert "| lvlm-head (small) | relational | overlap | 20 | pure | 75.00 ± 0.00 |" in text
    assert "the first K candidates" in text


def test_flights_have_figures_of_their_own() -> None:
    found = results(
        small0=done(outcome(1, 1, 1, None), outcome(1, 1, 1, None)),
        small1=done(outcome(1, 1, None, None), outcome(1, 1, 1, None)),
    )
    parts = summarise(GRID, BLOCKS, BASE, found, flights=["a", "a", "b", "b"])
    base, pure, *_ = parts[0].rows
    assert {name: each.mean for name, each in base.by_flight.items()} == {"a": 50.0, "b": 0.0}
    assert pure.by_flight["b"].values == (50.0, 0.0)
    text = page(parts)
    assert "| what scores | loss | labels | ranking | a | b |" in text
    assert "| lvlm-head (small) | relational | overlap | pure | 100.00 ± 0.00 | 25.00 ±" in text
    assert "## Flights" not in page(summarise(GRID, BLOCKS, BASE, found, flights=["a"] * 4))


def test_one_block_has_no_interval() -> None:
    found = results(small0=done(outcome(1, 1, 1, None), outcome(1, 1, 1, None)))
    parts = summarise(GRID, np.zeros(4, np.int64), BASE, found)
    change = parts[0].rows[1].against_base
    assert change is not None
    assert (change.mean, change.low, change.high) == (50.0, None, None)
    assert "| +50.00 |" in page(parts)


def test_nothing_is_there_yet() -> None:
    parts = summarise(GRID, BLOCKS, BASE, {})
    assert unfinished(parts) == (0, 4)
    assert "0 of 2" in page(parts)


def test_a_result_is_read_again_only_for_the_same_choices(tmp_path: Path) -> None:
    cell = next(GRID.cells())
    found = done(outcome(1, None), outcome(2, 1))

    def digest(lists: list[str], **more: Any) -> str:
        grid = GRID.model_copy(update=more)
        return digest_of(
            cell, grid.config(cell, tmp_path), own=None, depths=grid.ranked, lists=lists
        )

    mine = digest(["a"])
    path = tmp_path / f"{name_of(cell, mine)}.json"
    written = write_result(path, cell, mine, found)
    assert read_result(path, mine, 2) == written
    assert read_result(path, mine, 3) is None
    assert read_result(path, digest(["b"]), 2) is None
    assert digest(["a"], optimizer=GRID.optimizer.model_copy(update={"lr_head": 1.0})) != mine
    assert digest(["a"], depths=(10, 20)) != mine
    assert digest(["a"], depths=(10,)) == mine
    moved = GRID.data.model_copy(update={"train": Path("elsewhere.jsonl")})
    assert digest(["a"], data=moved) == mine
    path.write_text(path.read_text().replace("0.1", "NaN"))
    assert read_result(path, mine, 2) is None
    assert read_result(tmp_path / "none.json", mine, 2) is None
