"""The part of `skylink evaluate` that `--conditions` adds: the same photos, made harder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skylink.commands import terminal
from skylink.errors import OptionError

if TYPE_CHECKING:
    from skylink.conditions import Condition
    from skylink.figures import Results
    from skylink.localizer import Localizer
    from skylink.queries import QueryRow
    from skylink.robustness import Cell, Figures, Robustness

ROBUSTNESS = "Robustness"

Conditions = Annotated[
    str | None,
    typer.Option(
        "--conditions",
        metavar="all|KIND|NAME,...",
        help="Evaluate again under challenging conditions: `all`, kinds (viewpoint, light, "
        "weather, sensor) or names such as `fog,rain`.",
        rich_help_panel=ROBUSTNESS,
    ),
]
Severities = Annotated[
    str,
    typer.Option(
        "--severities",
        metavar="1,2,...",
        help="Of --conditions, 1 (slight) to 5 (extreme).",
        rich_help_panel=ROBUSTNESS,
    ),
]


@dataclass(frozen=True)
class Plan:
    """What `--conditions` and `--severities` ask for, checked before anything long is done."""

    conditions: Sequence[Condition]
    severities: Sequence[int]

    @classmethod
    def parse(cls, conditions: str | None, severities: str) -> Plan | None:
        """None without `--conditions`.

        Raises:
            OptionError: an unknown condition, or a severity that is not in 1..5.
        """
        if conditions is None:
            return None
        from skylink.conditions import select_conditions

        return cls(select_conditions(conditions), parse_severities(severities))


def parse_severities(text: str) -> list[int]:
    """ "1,3,5" as sorted numbers.

    Raises:
        OptionError: one is not in 1..5.
    """
    words = [word.strip() for word in text.split(",")]
    if any(word not in ("1", "2", "3", "4", "5") for word in words):
        raise OptionError(
            f"severities {text!r} are not numbers in 1..5", hint="such as --severities 1,3,5"
        )
    return sorted({int(word) for word in words})


def beside(path: Path) -> Path:
    """results.json -> results.conditions.json, recall.png -> recall.conditions.png."""
    return path.with_name(f"{path.stem}.conditions{path.suffix}")


def evaluate_plan(
    plan: Plan,
    localizer: Localizer,
    rows: Sequence[QueryRow],
    *,
    clean: Results,
    options: Mapping[str, Any],
    typed: Mapping[str, Any],
    out: Path | None,
    plot: Path | None,
    title: str,
) -> None:
    """Run the cells, print the table, write the figures and the heat map beside `out` and `plot`.

    Args:
        clean: the results on the unchanged photos.
        options: those of `evaluate_conditions`, the same as for `clean`.
        typed: what else was asked for and decides the figures, as it was typed: the localizer's
            own names may say less (the file of a model).
        out, plot: where the evaluation itself is written.
    """
    from skylink.files import write_atomic
    from skylink.robustness import evaluate_conditions
    from skylink.robustness_partial import PartialCells, run_key
    from skylink.robustness_plot import save_heat_map

    partial = None
    if out is not None:
        decides = {
            **typed,
            **options,
            "top_k": localizer.top_k,
            "space": localizer.space,
            "fusion": localizer.fusion,
            "gallery": localizer.gallery.info,
        }
        partial = PartialCells(beside(out).with_suffix(".partial.jsonl"), run_key(rows, decides))
    cells = len(plan.conditions) * len(plan.severities)
    terminal.say(
        f"Conditions: {len(plan.conditions)} at {len(plan.severities)} severities, "
        f"{cells * len(rows):,} photos to locate"
    )
    if partial is not None and partial.cells:
        terminal.say(f"{len(partial.cells)} are done by a run that was stopped: {partial.path}")
    with terminal.progress("photos") as report:
        robustness = evaluate_conditions(
            localizer,
            rows,
            plan.conditions,
            plan.severities,
            clean=clean,
            done=partial.cells if partial is not None else (),
            on_cell=partial.add if partial is not None else None,
            progress=report,
            **options,
        )
    terminal.print_table(conditions_table(robustness))
    if out is not None and partial is not None:
        write_atomic(beside(out), robustness.to_json())
        partial.discard()
        terminal.say(f"Wrote {beside(out)}")
    if plot is not None:
        save_heat_map(beside(plot), robustness, title=title)
        terminal.say(f"Wrote {beside(plot)}")


def conditions_table(robustness: Robustness) -> Any:
    """A row a condition and severity, base beside re-ranked."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(f"recall@1 within {robustness.tolerance_m:g} m")
    table.add_column("level")
    titles = ("base", "re-ranked", "difference, 95 %", "fixed / broken", "changed", "failed")
    for title in titles:
        table.add_column(title, justify="right")
    table.add_row("unchanged", "", *_figures(robustness.clean), "", str(robustness.clean.failed))
    before: Cell | None = None
    for cell in robustness.cells:
        if before is None or cell.condition != before.condition:
            table.add_section()
        failed = str(cell.figures.failed)
        name = f"{cell.condition} {cell.severity}"
        table.add_row(name, cell.words, *_figures(cell.figures), str(cell.changed), failed)
        before = cell
    return table


def _figures(figures: Figures) -> list[str]:
    base = f"{figures.retrieved.recall_1:.1f} %"
    if figures.reranked is None:
        return [base, "-", "", ""]
    change = figures.reranked_minus_retrieved_interval
    interval = "" if change is None else f"{change[0]:+.1f} .. {change[1]:+.1f}"
    flips = f"{figures.flips['fixed']} / {figures.flips['broken']}"
    return [base, f"{figures.reranked.recall_1:.1f} %", interval, flips]
