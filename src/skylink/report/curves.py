"""The charts of a protocol's runs: recall by K, recall by distance, calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skylink.metrics import recall_curve
from skylink.report.chart import Series, line_chart
from skylink.report.details import Details, QueryDetails
from skylink.report.markup import Html
from skylink.report.read import Run

MAX_K = 50
BINS = 10


def charts(runs: Sequence[Run]) -> list[Html]:
    """Whatever can be drawn of the runs of one protocol."""
    drawn = (recall_by_k(runs), recall_by_distance(runs), calibration(runs))
    return [chart for chart in drawn if chart is not None]


def recall_by_k(runs: Sequence[Run]) -> Html | None:
    """Every K where the queries' details are known, else the Ks of the results."""
    series = []
    for colour, run in enumerate(runs):
        for which, name, figures in _rankings(run):
            points = _by_rank(run.details, which) if run.details is not None else []
            if not points:
                found = [(k, figures.get(f"recall@{k}")) for k in (1, 5, 10, 20)]
                points = [(float(k), float(value)) for k, value in found if value is not None]
            if points:
                dashed = which == "base"
                series.append(Series(name=name, points=points, colour=colour, dashed=dashed))
    if not series or all(len(one.points) < 2 for one in series):
        return None
    end = max(one.points[-1][0] for one in series)
    least = min(one.points[0][1] for one in series)
    low = 10 * math.floor((least - 5) / 10) if least > 50 else 0
    return line_chart(
        series,
        title="Recall by K",
        x_label="K, candidates",
        y_label="recall@K, %",
        x_range=(1.0, max(end, 2.0)),
        y_range=(float(low), 100.0),
        note="a right one among the first K; dashed: before re-ranking",
    )


def recall_by_distance(runs: Sequence[Run]) -> Html | None:
    """How many first places lie within how many metres, where distances are known."""
    known = [
        (
            colour + len(runs) * (which == "answer"),  # a line of its own beside the re-ranked one
            run,
            which,
            name,
            _first_errors(run.details, which),
        )
        for colour, run in enumerate(runs)
        if run.details is not None
        for which, name in _placings(run)
    ]
    known = [each for each in known if np.isfinite(each[4]).any()]
    if not known:
        return None
    tolerances = [run.tolerance_m for _, run, *_ in known if run.tolerance_m is not None]
    end = 4 * max(tolerances) if tolerances else 200.0
    radii = np.linspace(0, end, 81)
    series = []
    for colour, _, which, name, errors in known:
        points = list(zip(radii.tolist(), recall_curve(errors, radii).tolist(), strict=True))
        series.append(Series(name=name, points=points, colour=colour, dashed=which == "base"))
    return line_chart(
        series,
        title="Recall by distance",
        x_label="first place to truth, m",
        y_label="queries within it, %",
        x_range=(0.0, end),
        note="queries without a place are infinitely far off; dashed: before re-ranking",
    )


def calibration(runs: Sequence[Run]) -> Html | None:
    """Of ten classes of confidence: how many estimates were right; below the line is too sure."""
    series = []
    for colour, run in enumerate(runs):
        if run.details is None:
            continue
        told = [
            (q.confidence, (q.answer or q.last[0]).right)
            for q in run.details.queries
            if q.confidence is not None and q.last
        ]
        if not told:
            continue
        confidence = np.array([c for c, _ in told])
        right = np.array([r for _, r in told], dtype=np.float64)
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        points, sizes = [], []
        for b in np.unique(bins):
            inside = bins == b
            points.append((float(confidence[inside].mean()), float(100 * right[inside].mean())))
            sizes.append(2.5 + 7 * math.sqrt(inside.sum() / len(bins)))
        last = run.final or run.base
        name = f"{last[0]} ({run.name}), {len(told)} queries"
        series.append(Series(name=name, points=points, colour=colour, sizes=sizes))
    if not series:
        return None
    return line_chart(
        series,
        title="Calibration",
        x_label="confidence",
        y_label="right, %",
        x_range=(0.0, 1.0),
        diagonal=True,
        note="dots grow with the number of queries; on the line, confidence is what it says",
    )


def _rankings(run: Run) -> list[tuple[str, str, dict[str, float | None]]]:
    """(base or final, its name, figures)."""
    found = [("base", f"{run.base[0]} ({run.name})", dict(run.base[1]))]
    if run.final is not None:
        found.append(("final", f"+ {run.final[0]} ({run.name})", dict(run.final[1])))
    return found


def _placings(run: Run) -> list[tuple[str, str]]:
    """(base, final or answer, its name): whatever has a first place."""
    found = [(which, name) for which, name, _ in _rankings(run)]
    if run.answer is not None:
        found.append(("answer", f"placed within the tile ({run.name})"))
    return found


def _by_rank(details: Details, which: str) -> list[tuple[float, float]]:
    """(K, recall@K), as far as the ranks are known, at most to `MAX_K`."""
    end = min(MAX_K, details.header.ranked)
    ranks = [q.base_rank if which == "base" else q.final_rank for q in details.queries]
    first = np.array([end + 1 if rank is None else rank for rank in ranks])
    return [(float(k), float(100 * (first <= k).mean())) for k in range(1, end + 1)]


def _first_errors(details: Details | None, which: str) -> NDArray[np.float64]:
    """(Q,) metres of the first candidates; infinite where there is none."""
    queries: Sequence[QueryDetails] = () if details is None else details.queries
    errors = []
    for query in queries:
        places = query.base if which == "base" else query.last
        if which == "answer" and query.answer is not None:
            places = [query.answer]
        known = places[0].error_m if places else None
        errors.append(math.inf if known is None else known)
    return np.array(errors or [math.inf])
