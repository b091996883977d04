"""Evaluation under challenging conditions: every condition at every severity, base beside
re-ranked, against the same photos unchanged. Keys are stable within ROBUSTNESS_SCHEMA.

All figures come from `skylink.evaluate`, with the same options for each cell; only the photos or
their telemetry differ. Where a condition moves a photo's view point (a crop), the truth of the
view point, or of the camera where only that is known, is moved as far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from skylink.conditions import SEVERITIES, Condition, apply, view_shift_m
from skylink.errors import OptionError
from skylink.evaluate import WITHOUT, evaluate
from skylink.figures import Ranking, Results
from skylink.geo import LocalFrame
from skylink.queries import QueryRow
from skylink.types import Prior, Query

if TYPE_CHECKING:
    from skylink.localizer import Localizer

ROBUSTNESS_SCHEMA = 1


class Figures(BaseModel):
    """Base and re-ranked figures of one run over all photos; see `figures.Results`."""

    failed: int
    retrieved: Ranking
    reranked: Ranking | None
    reranked_minus_retrieved_interval: tuple[float, float] | None
    flips: dict[str, int]
    reranked_queries: int
    rerank_failed: int

    @classmethod
    def of(cls, results: Results) -> Figures:
        """The part of an evaluation's results that cells keep."""
        return cls.model_validate(results.model_dump(include=set(cls.model_fields)))


class Cell(BaseModel):
    """One condition at one severity.

    Attributes:
        condition, kind, severity: which; severity in 1..5.
        level, unit: the physical parameter at that severity, and its unit.
        words: the same for people: "heading wrong by 20 degrees".
        changed: photos that the condition changed. The others stayed as they were, since it does
            not apply to them (a heading error where no heading is known or used).
        figures: over all photos, changed or not.
    """

    condition: str
    kind: str
    severity: int = Field(ge=1, le=SEVERITIES[-1])
    level: float
    unit: str
    words: str
    changed: int
    figures: Figures


class Robustness(BaseModel):
    """The figures of all cells, beside those of the unchanged photos (`clean`)."""

    schema_version: int = ROBUSTNESS_SCHEMA
    protocol: str
    queries: int
    tolerance_m: float
    retriever: str
    reranker: str
    top_k: int
    telemetry: str
    seed: int
    clean: Figures
    cells: list[Cell]

    def to_json(self) -> str:
        """The file's text, indented."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def evaluate_conditions(
    localizer: Localizer,
    rows: Sequence[QueryRow],
    conditions: Sequence[Condition],
    severities: Sequence[int] = SEVERITIES,
    *,
    tolerance_m: float = 50.0,
    without: str | None = None,
    perturb: bool = False,
    seed: int = 0,
    prior: Prior | None = None,
    group_by: str | None = None,
    clean: Results | None = None,
    done: Sequence[Cell] = (),
    on_cell: Callable[[Cell], None] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Robustness:
    """Evaluate every usable row under each condition at each severity.

    Args:
        localizer: retriever, re-ranker and gallery.
        rows: of `read_queries`.
        conditions: of `skylink.conditions.CONDITIONS`.
        severities: in 1..5.
        tolerance_m, without, perturb, seed, prior, group_by: as for `evaluate`; `group_by` decides
            which frames intervals resample together. The seed is also that of the conditions.
        clean: the results of `evaluate` on the same rows with the same options, if it ran before.
        done: cells of an earlier run that was stopped; they are not run again. The caller sees to
            it that they belong to the same run.
        on_cell: called with each new cell as soon as it is finished, to store it.
        progress: called with (done, total, words) before each photo.

    Raises:
        OptionError: no conditions or severities, a severity outside 1..5, or as for `evaluate`.
        QueriesError, GalleryError, ModelError, RerankError: as for `evaluate`.
    """
    known = {(cell.condition, cell.severity): cell for cell in done}
    plan = [(condition, severity) for condition in conditions for severity in severities]
    _check(plan)
    todo = sum((c.name, severity) not in known for c, severity in plan) + (clean is None)
    started = 0

    def run(change: _Change | None, words: str) -> Results:
        nonlocal started

        def report(index: int, photos: int, name: str) -> None:
            if progress is not None:
                progress((started - 1) * photos + index, todo * photos, f"{words}: {name}")

        started += 1
        return evaluate(
            localizer, rows, tolerance_m=tolerance_m, without=without, perturb=perturb, seed=seed,
            prior=prior, group_by=group_by, change=change, on_query=report,
        ).results  # fmt: skip

    unchanged = clean if clean is not None else run(None, "unchanged")
    cells = []
    for condition, severity in plan:
        cell = known.get((condition.name, severity))
        if cell is None:
            change = _Change(condition, severity, seed, forgotten=WITHOUT.get(without or "", ()))
            results = run(change, f"{condition.name} {severity}")
            cell = Cell(
                condition=condition.name,
                kind=condition.kind,
                severity=severity,
                level=condition.level(severity),
                unit=condition.unit,
                words=condition.words(severity),
                changed=change.changed,
                figures=Figures.of(results),
            )
            if on_cell is not None:
                on_cell(cell)
        cells.append(cell)
    return Robustness(
        protocol=unchanged.protocol,
        queries=unchanged.queries,
        tolerance_m=unchanged.tolerance_m,
        retriever=unchanged.retriever,
        reranker=unchanged.reranker,
        top_k=unchanged.top_k,
        telemetry=unchanged.telemetry,
        seed=seed,
        clean=Figures.of(unchanged),
        cells=cells,
    )


def _check(plan: Sequence[tuple[Condition, int]]) -> None:
    if not plan:
        raise OptionError(
            "no conditions to evaluate", hint="name at least one condition and one severity"
        )
    wrong = next((severity for _, severity in plan if severity not in SEVERITIES), None)
    if wrong is not None:
        raise OptionError(f"severity {wrong!r} is not in 1..{SEVERITIES[-1]}")


class _Change:
    """One condition at one severity as the `change` of `evaluate`; counts what it changed."""

    def __init__(
        self, condition: Condition, severity: int, seed: int, *, forgotten: Sequence[str]
    ) -> None:
        self._which = (condition.name, severity, seed)
        self._forgotten = forgotten
        self.changed = 0

    def __call__(self, row: QueryRow, query: Query) -> tuple[QueryRow, Query]:
        shift = view_shift_m(query, *self._which)
        if shift is None:  # where the truth would be is not known
            return row, query
        harder = apply(query, *self._which)
        told = query.telemetry.without(*self._forgotten)
        same_words = harder.telemetry.without(*self._forgotten) == told
        self.changed += not (harder.image is query.image and same_words)
        return _moved(row, shift), harder


def _moved(row: QueryRow, shift_m: tuple[float, float]) -> QueryRow:
    """The row with its truths some metres (east, north) away."""
    if shift_m == (0.0, 0.0):
        return row
    east, north = shift_m
    if row.ground_lon is not None and row.ground_lat is not None:
        lon, lat = LocalFrame(row.ground_lon, row.ground_lat).point(x_m=east, y_m=north)
        row = replace(row, ground_lon=lon, ground_lat=lat)
    if row.truth_lon is not None and row.truth_lat is not None:
        lon, lat = LocalFrame(row.truth_lon, row.truth_lat).point(x_m=east, y_m=north)
        row = replace(row, truth_lon=lon, truth_lat=lat)
    return row
