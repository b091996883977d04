"""Tables of a report: figures with intervals, what re-ranking changed, groups, failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from skylink.report.markup import Html, join, tag
from skylink.report.read import Figures, Interval, Run

COLUMNS = (
    ("recall@1", "R@1 %", "a right answer in the first place; 95 % interval below"),
    ("recall@5", "R@5 %", "a right answer among the first 5"),
    ("recall@10", "R@10 %", "a right answer among the first 10"),
    ("recall@20", "R@20 %", "a right answer among the first 20"),
    ("recall@1%", "R@1% %", "among the first round(N / 100), at least 1"),
    ("recall@1%_floor", "R@1% floor %", "among the first floor(N / 100), at least 1: Sample4Geo"),
    ("recall@top1", "R@top1 %", "among the first round(N / 100) + 1: University-1652"),
    ("ap_step", "AP step %", "average precision in steps: TREC, scikit-learn, GTA-UAV"),
    ("ap_trapezoid", "AP trapez. %", "average precision by trapezoids: University-1652"),
    ("mrr", "MRR %", "mean reciprocal rank of the first right answer"),
    ("median_error_m", "median m", "median distance of the first place from the truth"),
    ("within_25_m", "≤ 25 m %", "first place within 25 m of the truth"),
    ("within_50_m", "≤ 50 m %", "first place within 50 m of the truth"),
    ("sdm_gta@3", "SDM@3 GTA", "SDM@3 by metres, 0..1: GTA-UAV"),
    ("sdm_denseuav@3", "SDM@3 Dense", "SDM@3 by degrees, 0..1: DenseUAV"),
    ("dis@1_m", "Dis@1 m", "mean distance of the first place from the truth"),
)
LOWER_IS_BETTER = {"median_error_m", "dis@1_m"}
MOST_FAILURES = 50
Row = tuple[str, str, Figures]
"""Name, file, figures."""


def table(
    head: Sequence[str | Html], rows: Iterable[Sequence[str | Html]], *, caption: str
) -> Html:
    """A table that scrolls where it is too wide; the first cell of each row is its heading."""
    top = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head)))
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:]))
        for row in rows
    ]
    whole = tag("table", tag("caption", caption), top, tag("tbody", *body))
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def main_table(runs: Sequence[Run]) -> Html:
    """All runs of a protocol, base beside re-ranked; a base that two share is shown once."""
    rows: list[Row] = []
    for run in runs:
        _add(rows, run, run.base[1], None if run.final is None else run.final[1])
        if run.answer is not None:
            ranked = run.base[0] if run.final is None else f"{run.base[0]} + {run.final[0]}"
            rows.append((f"{ranked}, placed within the tile", run.name, run.answer))
    return _figures(rows, caption=f"Base beside re-ranked, {runs[0].queries:,} queries")


def other_table(runs: Sequence[Run]) -> Html:
    """The same under the other convention about distractors."""
    rows: list[Row] = []
    words = ""
    for run in runs:
        if run.other is None:
            continue
        words, base, final = run.other
        _add(rows, run, base, final)
    if not rows:
        return Html("")
    caption = f"The same lists, {words}"
    return tag("details", tag("summary", caption), _figures(rows, caption=caption))


def _add(rows: list[Row], run: Run, base: Figures, final: Figures | None) -> None:
    """A run's rows; its base only if it is not there yet."""
    name = run.base[0]
    if not any(name == other and base == figures for other, _, figures in rows):
        rows.append((name, run.name, base))
    if final is not None and run.final is not None:
        rows.append((f"{name} + {run.final[0]}", run.name, final))


def change_table(runs: Sequence[Run]) -> Html:
    """What re-ranking changed."""
    head = ("re-ranked", "R@1 change", "95 % interval", "fixed", "broken", "best possible R@1 %")
    rows = []
    extra = [key for key in ("top-k", "re-ranked", "re-ranking failed", "not located")
             if any(run.counts.get(key) is not None for run in runs)]  # fmt: skip
    for run in runs:
        if run.final is None:
            continue
        before, after = (each[1].get("recall@1") for each in (run.base, run.final))
        change = "-" if before is None or after is None else f"{after - before:+.1f}"
        ceiling = run.base[1].get(f"oracle_recall@1_of_{run.counts.get('top-k')}")
        if ceiling is None:
            ceiling = run.base[1].get(f"recall@{run.counts.get('top-k')}")
        rows.append(
            (
                _name(f"{run.base[0]} + {run.final[0]}", run.name),
                change,
                _interval(run.change, "+.1f"),
                str(run.flips.get("fixed", "-")),
                str(run.flips.get("broken", "-")),
                _number(ceiling),
                *(f"{run.counts.get(key, '-')}" for key in extra),
            )
        )
    if not rows:
        return Html("")
    return table((*head, *extra), rows, caption="What re-ranking changed")


def groups_table(run: Run) -> Html:
    """Figures apart by group, such as a flight."""
    if not run.groups:
        return Html("")
    caption = f"{run.name}: by group"
    rows = []
    for name, pair in run.groups.items():
        cells = [
            _number(figures.get(key) if figures else None)
            for figures in pair
            for key in ("recall@1", "median_error_m")
        ]
        rows.append((name or "(none)", *cells))
    head = ("group", "base R@1 %", "median m", "re-ranked R@1 %", "median m")
    return tag("details", tag("summary", caption), table(head, rows, caption=caption))


def honesty_table(runs: Sequence[Run]) -> Html:
    """Whether radius and confidence mean what they say."""
    keys = (
        ("within_radius", "truth within the radius % (50 is meant)"),
        ("within_radius_90", "within the 90 % radius % (90 is meant)"),
        ("expected_calibration_error", "calibration error, 0..1"),
        ("auroc_confidence", "confidence tells right from wrong, AUROC"),
        ("answered", "found on this map, by their confidence %"),
        ("right_when_answered", "right of these %"),
    )
    rows = [
        (run.name, *(_number(run.honesty.get(key), 2) for key, _ in keys))
        for run in runs
        if run.honesty
    ]
    if not rows:
        return Html("")
    return table(("run", *(words for _, words in keys)), rows, caption="Radius and confidence")


def failures_table(run: Run) -> Html:
    """What failed and why."""
    if not run.failures:
        return Html("")
    rows = list(run.failures.items())
    more = f", the first {MOST_FAILURES} of {len(rows)}" if len(rows) > MOST_FAILURES else ""
    caption = f"{run.name}: what was not located or not re-ranked{more}"
    body = table(("what", "why"), rows[:MOST_FAILURES], caption=caption)
    return tag("details", tag("summary", caption), body)


def _figures(rows: Sequence[Row], *, caption: str) -> Html:
    known = [
        (key, words, meaning)
        for key, words, meaning in COLUMNS
        if any(figures.get(key) is not None for _, _, figures in rows)
    ]
    head = [Html("method"), *(tag("abbr", words, title=meaning) for _, words, meaning in known)]
    best = {key: _best(key, [figures for _, _, figures in rows]) for key, _, _ in known}
    lines = []
    for name, file, figures in rows:
        cells = []
        for key, _, _ in known:
            value = figures.get(key)
            cell: str = _number(value, 3 if key.startswith("sdm") else 1)
            if value is not None and value == best[key] and len(rows) > 1:
                cell = tag("strong", cell)
            interval = figures.get("recall@1_interval_95") if key == "recall@1" else None
            if interval is not None:
                cell = join(cell, tag("small", _interval(interval, ".1f")))
            cells.append(cell)
        lines.append((_name(name, file), *cells))
    return table(head, lines, caption=caption)


def _best(key: str, all_figures: Sequence[Mapping[str, Any]]) -> float | None:
    values = [figures[key] for figures in all_figures if figures.get(key) is not None]
    return (min if key in LOWER_IS_BETTER else max)(values, default=None)


def _name(name: str, file: str) -> Html:
    return join(name, tag("small", file)) if name != file else join(name)


def _number(value: Any, decimals: int = 1) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _interval(interval: Interval | None, style: str) -> str:
    return "-" if interval is None else " .. ".join(format(bound, style) for bound in interval)
