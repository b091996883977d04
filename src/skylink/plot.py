"""The figure of `evaluate`: how many photos are placed within how many metres."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from skylink.files import write_atomic
from skylink.metrics import median_error_m, recall_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#5b6b7f", "#0b84c6", "#d9822b", "#2f9e63")


def recall_figure(
    errors_m: Mapping[str, ArrayLike],
    *,
    tolerance_m: float = 50.0,
    max_m: float | None = None,
    title: str = "",
) -> Figure:
    """Recall by distance: a rising line a method, on a scale of metres.

    Args:
        errors_m: method -> (Q,) errors in metres; infinite where a photo failed.
        tolerance_m: drawn as a line across.
        max_m: end of the scale; four tolerances by default.

    Returns:
        A matplotlib figure (made without pyplot: no global state, no window).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    end = max_m if max_m is not None else 4 * tolerance_m
    radii = np.linspace(0, end, 401)
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, (name, errors) in enumerate(errors_m.items()):
        curve = recall_curve(errors, radii)
        within = float(recall_curve(errors, [tolerance_m])[0])
        median = median_error_m(errors)
        middle = f"median {median:.0f} m" if math.isfinite(median) else "median: failed"
        colour = COLOURS[index % len(COLOURS)]
        label = f"{name}: {within:.1f} % within {tolerance_m:g} m, {middle}"
        axes.plot(radii, curve, color=colour, linewidth=2.2, label=label)
        axes.plot([tolerance_m], [within], "o", color=colour, markersize=6)
    axes.axvline(tolerance_m, color="#999999", linewidth=1, linestyle=(0, (4, 4)), zorder=0)
    axes.set(xlim=(0, end), ylim=(0, 100))
    axes.set_xlabel("distance between estimate and truth, m")
    axes.set_ylabel("photos placed within it, %")
    if title:
        axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    axes.grid(color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return figure


def save_recall_plot(
    path: str | Path,
    errors_m: Mapping[str, ArrayLike],
    *,
    tolerance_m: float = 50.0,
    title: str = "",
) -> Path:
    """Write `recall_figure` as a PNG.

    Raises:
        OutputError: the file can't be written.
    """
    import io

    data = io.BytesIO()
    recall_figure(errors_m, tolerance_m=tolerance_m, title=title).savefig(data, format="png")
    return write_atomic(path, data.getvalue())
