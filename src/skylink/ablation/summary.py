"""From cells to rows: means over seeds and their spread, paired intervals, stability.

Percent throughout for recall and average precision. The spread is the standard deviation over seeds
(n - 1), which one seed does not have. An interval is of the difference of two rows on the same
queries, each query's hits averaged over seeds first, by a paired bootstrap of blocks of queries
that succeed and fail together (`HeldOut.blocks`): it says how far other queries might change the
difference, and the spread how far other seeds might.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from skylink.ablation.grid import Arm, Cell, Grid, Ranking, Row, Rows
from skylink.ablation.result import AtDepth, Done, Failed, Outcome, Result, Trained
from skylink.label_statistics import LabelStatistics
from skylink.metrics import block_bootstrap, median_error_m


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure under several seeds.

    Attributes:
        mean: over seeds.
        std: over seeds (n - 1); None for one.
        values: of each seed.
    """

    mean: float
    std: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(mean=float(np.mean(values)), std=std, values=tuple(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Recall at 1 of a row minus that of another, points.

    Attributes:
        mean: as observed.
        low, high: 95 % interval; None where all queries are of one block.
    """

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    """How calmly trainings went.

    Attributes:
        loss_variance: of steps' losses over the last half, mean over seeds.
        grad_norm_mean: mean over steps and seeds, before clipping.
        grad_norm_max: the largest of any step and seed.
        recall_variance: of recall at 1 over seeds, squared points; None for one seed.
    """

    loss_variance: float
    grad_norm_mean: float
    grad_norm_max: float
    recall_variance: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSummary:
    """A row of the table; None where it is not known.

    Attributes:
        arm, ranking, depth: what it is; see `grid.Row`.
        seeds: of its finished cells.
        wanted: how many seeds there should be; 0 for the base, which needs none.
        failed: seed and cause.
        recall_at_1, ap_step: percent.
        median_error_m: metres, where positions are known.
        by_flight: recall at 1 of each flight, percent, where there are several on a map.
        against_base, against_first: differences to the base, and to the first row of its part
            with the same ranking and depth; None for these themselves.
        calm: of its trainings.
        train_seconds, judge_seconds: mean over seeds.
        labels: statistics of what was learnt.
        equals_hard: its labels are one-hot: soft ones collapsed to the hard one.
        fusions: weight of the base and gate of each seed, where fused.
    """

    arm: Arm
    ranking: Ranking
    depth: int | None = None
    seeds: tuple[int, ...] = ()
    wanted: int = 0
    failed: tuple[tuple[int, str], ...] = ()
    recall_at_1: Spread | None = None
    ap_step: Spread | None = None
    median_error_m: Spread | None = None
    by_flight: dict[str, Spread] = field(default_factory=dict)
    against_base: Difference | None = None
    against_first: Difference | None = None
    calm: Calm | None = None
    train_seconds: float | None = None
    judge_seconds: float | None = None
    labels: LabelStatistics | None = None
    equals_hard: bool = False
    fusions: tuple[tuple[float, float | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the table; see `grid.Rows`."""

    title: str
    isolates: str | None
    rows: tuple[RowSummary, ...]


def summarise(
    grid: Grid,
    blocks: NDArray[np.int64],
    base: Outcome,
    results: Mapping[Cell, Result],
    *,
    flights: Sequence[str] = (),
) -> tuple[Part, ...]:
    """Every part of the table, from what is finished so far.

    Args:
        grid: what was compared.
        blocks: (Q,) of the test lists: `HeldOut.blocks`.
        base: what the base's own order is worth.
        results: of cells that are finished or have failed.
        flights: (Q,) their names, or empty: `HeldOut.flights`.
    """
    return tuple(_part(grid, rows, blocks, results, base, flights) for rows in grid.rows)


def _part(
    grid: Grid,
    rows: Rows,
    blocks: NDArray[np.int64],
    results: Mapping[Cell, Result],
    base: Outcome,
    flights: Sequence[str],
) -> Part:
    firsts: dict[tuple[Ranking, int | None], Row] = {}
    made = []
    for row in grid.table(rows):
        key = row.ranking, row.depth
        first = None if row.arm.model == "base" else firsts.setdefault(key, row)
        made.append(_row(grid, row, first, blocks, results, base, flights))
    return Part(title=rows.title, isolates=rows.isolates, rows=tuple(made))


def _row(
    grid: Grid,
    row: Row,
    first: Row | None,
    blocks: NDArray[np.int64],
    results: Mapping[Cell, Result],
    base: Outcome,
    flights: Sequence[str],
) -> RowSummary:
    if row.arm.model == "base":
        return _figures(row, [base], flights)
    cells = grid.cells_of(row.arm)
    ended = {cell.seed: results[cell].found for cell in cells if cell in results}
    failed = tuple((seed, each.cause) for seed, each in ended.items() if isinstance(each, Failed))
    found = {seed: each for seed, each in ended.items() if isinstance(each, Done)}
    outcomes = _outcomes(row, found.values())
    made = _figures(row, outcomes, flights)
    made = replace(made, seeds=tuple(found), wanted=len(cells), failed=failed)
    if not found:
        return made
    others: list[Outcome] = []
    if first is not None and first != row:
        ends = [results[cell].found for cell in grid.cells_of(first.arm) if cell in results]
        others = _outcomes(first, [each for each in ends if isinstance(each, Done)])
    trained = [each.trained for each in found.values() if each.trained is not None]
    assert made.recall_at_1 is not None
    return replace(
        made,
        against_base=difference([base], outcomes, blocks),
        against_first=difference(others, outcomes, blocks) if others else None,
        calm=_calm(trained, made.recall_at_1),
        train_seconds=float(np.mean([each.seconds for each in trained])) if trained else None,
        judge_seconds=float(np.mean([each.judge_seconds for each in found.values()])),
        labels=trained[0].labels if trained else None,
        equals_hard=any(each.equals_hard for each in trained),
        fusions=tuple((at.base_weight, at.gate_margin) for at in _measured(row, found.values()))
        if row.ranking == "fused"
        else (),
    )


def _figures(row: Row, outcomes: Sequence[Outcome], flights: Sequence[str]) -> RowSummary:
    made = RowSummary(arm=row.arm, ranking=row.ranking, depth=row.depth)
    if not outcomes:
        return made
    errors = [each.errors_m for each in outcomes if each.errors_m is not None]
    return replace(
        made,
        recall_at_1=Spread.of([100 * float(np.mean(o.hits)) for o in outcomes]),
        ap_step=Spread.of([100 * float(np.mean(o.precisions)) for o in outcomes]),
        median_error_m=Spread.of([median_error_m(each) for each in errors]) if errors else None,
        by_flight=_by_flight(outcomes, flights),
    )


def _by_flight(outcomes: Sequence[Outcome], flights: Sequence[str]) -> dict[str, Spread]:
    names, which = np.unique(np.array(flights, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        return {}
    hits = [np.array(each.hits) for each in outcomes]
    return {
        str(name): Spread.of([100 * float(each[which == number].mean()) for each in hits])
        for number, name in enumerate(names)
    }


def difference(
    one: Sequence[Outcome], other: Sequence[Outcome], blocks: NDArray[np.int64]
) -> Difference:
    """Recall at 1 of `other` minus that of `one`, each with its seeds' outcomes of Q queries."""
    a, b = (100 * np.mean([o.hits for o in outcomes], axis=0) for outcomes in (one, other))
    if len(np.unique(blocks)) < 2:
        return Difference(mean=float(b.mean() - a.mean()), low=None, high=None)
    interval = block_bootstrap(a, b, blocks)
    return Difference(mean=interval.mean, low=interval.low, high=interval.high)


def _outcomes(row: Row, found: Iterable[Done]) -> list[Outcome]:
    return [at.fused if row.ranking == "fused" else at.pure for at in _measured(row, found)]


def _measured(row: Row, found: Iterable[Done]) -> list[AtDepth]:
    assert row.depth is not None  # only the base has none
    return [each.at(row.depth) for each in found]


def _calm(trained: Sequence[Trained], recall: Spread) -> Calm | None:
    known = [each.stability for each in trained if each.stability is not None]
    if not known:
        return None
    return Calm(
        loss_variance=float(np.mean([s.loss_variance for s in known])),
        grad_norm_mean=float(np.mean([s.grad_norm_mean for s in known])),
        grad_norm_max=max(s.grad_norm_max for s in known),
        recall_variance=None if recall.std is None else recall.std**2,
    )
