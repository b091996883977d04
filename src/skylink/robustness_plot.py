"""The heat map of an evaluation under conditions: base beside re-ranked, and their difference."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skylink.files import write_atomic
from skylink.robustness import Cell, Figures, Robustness

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_INCHES, COLUMN_INCHES = 0.30, 0.58
CHANGE_RANGE = 10.0
"""The scale of differences spans at least this many points of recall, so that noise stays pale."""


def heat_map(robustness: Robustness, *, title: str = "") -> Figure:
    """Recall@1 within the tolerance, percent: a row a condition, a column a severity.

    The first column has the unchanged photos. Where a re-ranker ran, a second panel has its figures
    and a third the difference, on a scale of its own whose middle is no change. `cividis` and
    `PuOr` read alike with and without colour blindness; every cell has its number as well. Cells
    that were not run are empty; a condition that changed no photo is marked by a star.

    Returns:
        A matplotlib figure (made without pyplot: no global state, no window).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(cell.condition for cell in robustness.cells))
    severities = sorted({cell.severity for cell in robustness.cells})
    base = _grid(robustness, names, severities, "retrieved")
    panels = [(f"base: {robustness.retriever}", base, "cividis", (0.0, 100.0), "{:.0f}")]
    if robustness.clean.reranked is not None:
        final = _grid(robustness, names, severities, "reranked")
        change = final - base
        reach = max(CHANGE_RANGE, float(np.nanmax(np.abs(change))))
        words = f"re-ranked: {robustness.reranker}"
        panels.append((words, final, "cividis", (0.0, 100.0), "{:.0f}"))
        panels.append(("re-ranked minus base", change, "PuOr", (-reach, reach), "{:+.0f}"))
    size = (
        2.2 + len(panels) * (COLUMN_INCHES * (len(severities) + 1) + 0.25),
        1.5 + ROW_INCHES * len(names),
    )
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    untouched = {cell.condition for cell in robustness.cells if not cell.changed}
    labels = [f"{name} *" if name in untouched else name for name in names]
    for axes, (words, grid, colours, limits, style) in zip(all_axes, panels, strict=True):
        _panel(axes, grid, colours=colours, limits=limits, style=style)
        axes.set_title(words, fontsize=9, parse_math=False)
        axes.set_xticks(range(len(severities) + 1), ["none", *map(str, severities)], fontsize=8)
        for row in _borders(names, robustness.cells):
            axes.axhline(row, color="white", linewidth=3)
    all_axes[0].set_yticks(range(len(names)), labels, fontsize=8)
    figure.supxlabel("severity", fontsize=8)
    what = f"recall@1 within {robustness.tolerance_m:g} m, %, of {robustness.queries} photos"
    figure.suptitle(f"{title}: {what}" if title else what, fontsize=9, parse_math=False)
    return figure


def save_heat_map(path: str | Path, robustness: Robustness, *, title: str = "") -> Path:
    """Write `heat_map` as a PNG.

    Raises:
        OutputError: the file can't be written.
    """
    data = io.BytesIO()
    heat_map(robustness, title=title).savefig(data, format="png")
    return write_atomic(path, data.getvalue())


def _grid(
    robustness: Robustness, names: Sequence[str], severities: Sequence[int], which: str
) -> NDArray[np.float64]:
    """(conditions, 1 + severities) recall@1; NaN where a cell was not run."""
    found = {(cell.condition, cell.severity): cell.figures for cell in robustness.cells}

    def value(figures: Figures | None) -> float:
        ranking = getattr(figures, which, None)
        return np.nan if ranking is None else float(ranking.recall_1)

    clean = value(robustness.clean)
    return np.array(
        [
            [clean, *(value(found.get((name, severity))) for severity in severities)]
            for name in names
        ]
    )


def _panel(
    axes: Any, grid: NDArray[np.float64], *, colours: str, limits: tuple[float, float], style: str
) -> None:
    """One grid with its numbers, dark on light cells and light on dark ones."""
    drawn = axes.imshow(grid, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.axvline(0.5, color="white", linewidth=3)
    for row, col in np.argwhere(np.isfinite(grid)):
        red, green, blue, _ = drawn.to_rgba(grid[row, col])
        bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.45
        text = style.format(grid[row, col]).replace("-0", "0").replace("+0", "0")
        axes.text(
            col, row, text, ha="center", va="center", fontsize=8,
            color="black" if bright else "white",
        )  # fmt: skip


def _borders(names: Sequence[str], cells: Sequence[Cell]) -> list[float]:
    """Between rows where the kind of condition changes."""
    kinds = {cell.condition: cell.kind for cell in cells}
    return [i - 0.5 for i in range(1, len(names)) if kinds[names[i]] != kinds[names[i - 1]]]
