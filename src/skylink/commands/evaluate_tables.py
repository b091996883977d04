"""What `skylink evaluate` prints and draws of one's own map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skylink.evaluate import Evaluation
    from skylink.figures import Ranking


def summary_table(evaluation: Evaluation) -> Any:
    """Base beside re-ranked, a row a figure."""
    from rich import box
    from rich.table import Table

    results = evaluation.results
    base, final = results.retrieved, results.reranked
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(f"{results.queries} photos, {results.telemetry}")
    table.add_column(f"base: {results.retriever}", justify="right")
    table.add_column(f"re-ranked: {results.reranker}", justify="right")

    def row(name: str, field: str, unit: str = "%") -> None:
        cells = [_figure(getattr(r, field, None) if r else None, unit) for r in (base, final)]
        table.add_row(name, *cells)

    row(f"recall@1 within {results.tolerance_m:g} m", "recall_1")
    table.add_row("  95 % interval", _interval(base), _interval(final))
    for k in (5, 10, 20):
        row(f"recall@{k}", f"recall_{k}")
    row("average precision", "ap")
    row("median error", "median_error_m", "m")
    row("within 25 m", "within_25_m")
    row("within 50 m", "within_50_m")
    if final is not None:
        change = results.reranked_minus_retrieved_interval
        words = "" if change is None else f"{change[0]:+.1f} .. {change[1]:+.1f} %"
        table.add_row("  difference of recall@1, 95 % interval", "", words)
        flips = results.flips
        table.add_row("put right / put wrong", "", f"{flips['fixed']} / {flips['broken']}")
        table.add_row("photos re-ranked", "", str(results.reranked_queries))
    answer = results.answer
    if answer is not None and answer.refined:
        table.add_row(
            f"place within the best tile: within {results.tolerance_m:g} m",
            "",
            _figure(answer.within_tolerance, "%"),
        )
        table.add_row("  median error", "", _figure(answer.median_error_m, "m"))
        table.add_row("  within 25 m", "", _figure(answer.within_25_m, "%"))
    if results.camera is not None:
        row_name = f"camera position, median error ({results.camera.queries} photos)"
        table.add_row(row_name, "", _figure(results.camera.median_error_m, "m"))
    if results.honesty is not None:
        told = results.honesty
        table.add_row("truth within the 50 % radius", "", _figure(told.within_radius, "%"))
        table.add_row("truth within the 90 % radius", "", _figure(told.within_radius_90, "%"))
        error = f"{told.expected_calibration_error:.3f}"
        table.add_row("calibration error of the confidence", "", error)
        table.add_row(
            f"found on this map (confidence >= {told.min_confidence:.2f})",
            "",
            _figure(told.answered, "%"),
        )
        table.add_row("  right within 50 m of these", "", _figure(told.right_when_answered, "%"))
    for stage, name in (("total_median", "time a photo, median"), ("total_p95", "  95 %")):
        if stage in results.ms_per_query:
            table.add_row(name, "", f"{results.ms_per_query[stage]:.0f} ms")
    table.add_row("failed", "", str(results.failed))
    return table


def groups_table(evaluation: Evaluation, column: str) -> Any:
    """A row a group."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from skylink.names import shown

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(Text(shown(column)))
    titles = ["photos", "base recall@1", "median error", "re-ranked recall@1", "median error"]
    refined = any(g.answer and g.answer.refined for g in evaluation.results.groups.values())
    if refined:
        titles += ["answer", "median error"]
    for title in titles:
        table.add_column(title, justify="right")
    for name, group in evaluation.results.groups.items():
        cells = []
        for ranking in (group.retrieved, group.reranked):
            cells.append(_figure(ranking.recall_1 if ranking else None, "%"))
            cells.append(_figure(ranking.median_error_m if ranking else None, "m"))
        if refined:
            answer = group.answer
            cells.append(_figure(answer.within_tolerance if answer else None, "%"))
            cells.append(_figure(answer.median_error_m if answer else None, "m"))
        table.add_row(Text(shown(name)), str(group.queries), *cells)
    return table


def _figure(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f} {unit}"


def _interval(ranking: Ranking | None) -> str:
    if ranking is None or ranking.recall_1_interval is None:
        return "-"
    low, high = ranking.recall_1_interval
    return f"{low:.1f} .. {high:.1f} %"


def save_plot(path: Path, evaluation: Evaluation, *, title: str) -> None:
    """Recall by distance, base beside re-ranked."""
    import numpy as np

    from skylink.plot import save_recall_plot

    results = evaluation.results
    curves = {f"base ({results.retriever})": np.array([o.base_m[0] for o in evaluation.outcomes])}
    if results.reranked is not None:
        name = f"re-ranked ({results.reranker})"
        curves[name] = np.array([o.final_m[0] for o in evaluation.outcomes])
    if results.answer is not None and results.answer.refined:
        curves["place within the tile"] = np.array([o.answer_m for o in evaluation.outcomes])
    save_recall_plot(path, curves, tolerance_m=results.tolerance_m, title=title)
