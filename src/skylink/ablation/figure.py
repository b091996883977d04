"""The figure of an ablation: recall at 1 of every row, and what it is against the base."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from skylink.ablation.summary import Part, RowSummary
from skylink.ablation.table import loss_of, name_of

COLOURS = {"pure": "#0b84c6", "fused": "#d9822b"}
BASE = "#5b6b7f"
ROW_INCHES = 0.3


def png(parts: Sequence[Part], *, several: bool, each_depth: bool) -> bytes:
    """A PNG: a row a row of the table, parts one below the other.

    Left recall at 1: a dot a seed, a bar at their mean, the base as a dashed line. Right the
    difference to the base with its paired interval.

    Args:
        parts: of the table.
        several: there is more than one checkpoint, so that rows name theirs.
        each_depth: the same of depths.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    counts = [len(part.rows) + 1 for part in parts]
    size = 11.0, 1.2 + ROW_INCHES * sum(counts) + 0.5 * len(parts)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(parts), 2, squeeze=False, height_ratios=counts, sharex="col")
    for (left, right), part in zip(axes, parts, strict=True):
        left.set_title(part.title, loc="left", fontsize=9, parse_math=False)
        for place, row in enumerate(part.rows):
            _draw(left, right, place, row)
        left.set_yticks(
            range(len(part.rows)),
            [_words(row, several, each_depth) for row in part.rows],
            fontsize=7,
        )
        right.set_yticks([])
        for each in (left, right):
            each.set_ylim(len(part.rows) - 0.4, -0.6)
            each.grid(axis="x", color="#e3e6ea", linewidth=0.8)
            each.set_axisbelow(True)
            each.tick_params(axis="x", labelsize=8)
            for side in ("top", "right", "left"):
                each.spines[side].set_visible(False)
        right.axvline(0, color=BASE, linewidth=1, linestyle=(0, (4, 4)))
        if (base := _base_recall(part.rows)) is not None:
            left.axvline(base, color=BASE, linewidth=1, linestyle=(0, (4, 4)))
    axes[-1][0].set_xlabel("recall@1, %: seeds and their mean", fontsize=8)
    axes[-1][1].set_xlabel("against the base, points, 95 % paired interval", fontsize=8)
    marks = [Line2D([], [], color=colour, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=marks, loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def _draw(left: Any, right: Any, place: int, row: RowSummary) -> None:
    recall, change = row.recall_at_1, row.against_base
    colour = BASE if row.arm.model == "base" else COLOURS[row.ranking]
    if recall is None:
        left.text(0.01, place, "failed" if row.failed else "not run yet",
                  transform=left.get_yaxis_transform(), va="center", fontsize=7)  # fmt: skip
        return
    left.plot([recall.mean] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2.5)
    left.plot(recall.values, [place] * len(recall.values), "o", color=colour, markersize=3.5,
              alpha=0.6)  # fmt: skip
    if change is None:
        return
    if change.low is not None and change.high is not None:
        right.plot([change.low, change.high], [place, place], color=colour, linewidth=1.5)
    right.plot([change.mean], [place], "s", color=colour, markersize=4.5)


def _base_recall(rows: Sequence[RowSummary]) -> float | None:
    """Of the base, whether it has a row or is only compared with."""
    for row in rows:
        if row.recall_at_1 is not None:
            change = row.against_base
            return row.recall_at_1.mean - (0 if change is None else change.mean)
    return None


def _words(row: RowSummary, several: bool, each_depth: bool) -> str:
    words = [name_of(row, several), loss_of(row), row.arm.labels]
    if row.arm.model != "base":
        words.append(f"K = {row.depth}" if each_depth else "")
        words.append(row.ranking)
    return ", ".join(word for word in words if word)
