"""The conditions of a run as a heat map that is a table: numbers, headings, colours."""

from __future__ import annotations

from collections.abc import Sequence

from skylink.report.markup import Html, join, tag
from skylink.report.read import Run
from skylink.report.tables import table
from skylink.robustness import Cell, Figures, Robustness

MIN_REACH = 10.0
"""The colours of differences span at least this many points, so that noise stays pale."""
_LOW, _MIDDLE, _HIGH = (178, 74, 20), (247, 247, 247), (84, 61, 150)
"""Orange, white, violet: told apart with any colour vision (as in PuOr)."""
_DARK, _BRIGHT = (0, 34, 78), (253, 231, 55)


def heat_map(run: Run) -> Html:
    """Recall@1 by condition and severity: base, re-ranked, and their difference."""
    robustness = run.conditions
    if robustness is None:
        return Html("")
    names = list(dict.fromkeys(cell.condition for cell in robustness.cells))
    severities = sorted({cell.severity for cell in robustness.cells})
    cells = {(cell.condition, cell.severity): cell for cell in robustness.cells}
    panels = ["base"]
    if robustness.clean.reranked is not None:
        panels += ["re-ranked", "difference"]
    reach = max([MIN_REACH, *(abs(_value(c.figures, "difference") or 0) for c in cells.values())])
    spans = [tag("th", "condition", scope="col", rowspan=2)]
    steps = []
    for panel in panels:
        spans.append(tag("th", panel, scope="colgroup", colspan=len(severities) + 1))
        steps.append(tag("th", "none", scope="col", class_="first"))
        steps += [tag("th", str(severity), scope="col") for severity in severities]
    rows, kind = [], ""
    for name in names:
        some = [cells[name, s] for s in severities if (name, s) in cells]
        if some[0].kind != kind:
            kind = some[0].kind
            wide = 1 + len(panels) * (len(severities) + 1)
            rows.append(tag("tr", tag("th", kind, scope="rowgroup", colspan=wide, class_="kind")))
        star = "" if any(cell.changed for cell in some) else " *"
        line = [tag("th", f"{name}{star}", scope="row")]
        for panel in panels:
            line.append(_coloured(_value(robustness.clean, panel), panel, reach, "unchanged"))
            line += [_cell(cells.get((name, s)), panel, reach) for s in severities]
        rows.append(tag("tr", *line))
    caption = (
        f"{run.name}: recall@1 within {robustness.tolerance_m:g} m, %, of {robustness.queries} "
        "photos by condition and severity"
    )
    whole = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *spans), tag("tr", *steps)),
        tag("tbody", *rows), class_="heat",
    )  # fmt: skip
    return join(
        tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption),
        _meanings(robustness, severities),
    )


def _meanings(robustness: Robustness, severities: Sequence[int]) -> Html:
    """What each severity is, and which conditions do not apply."""
    words: dict[str, dict[int, str]] = {}
    for cell in robustness.cells:
        words.setdefault(cell.condition, {})[cell.severity] = cell.words
    rows = [(name, *(each.get(s, "") for s in severities)) for name, each in words.items()]
    summary = "What the severities mean"
    meanings = table(("condition", *map(str, severities)), rows, caption=summary)
    changed = {cell.condition for cell in robustness.cells if cell.changed}
    star = tag("p", "* changed no photo: it does not apply here", class_="facts")
    return join(
        star if set(words) - changed else Html(""),
        tag("details", tag("summary", summary), meanings),
    )


def _value(figures: Figures, panel: str) -> float | None:
    base, final = figures.retrieved.recall_1, figures.reranked
    if panel == "base":
        return base
    if final is None:
        return None
    return final.recall_1 if panel == "re-ranked" else final.recall_1 - base


def _cell(cell: Cell | None, panel: str, reach: float) -> Html:
    if cell is None:
        return tag("td", "")
    return _coloured(_value(cell.figures, panel), panel, reach, cell.words)


def _coloured(value: float | None, panel: str, reach: float, words: str) -> Html:
    if value is None:
        return tag("td", "")
    difference = panel == "difference"
    if difference:
        end = _HIGH if value > 0 else _LOW
        colour = _between(_MIDDLE, end, abs(value) / reach)
    else:
        colour = _between(_DARK, _BRIGHT, value / 100)
    red, green, blue = colour
    ink = "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"
    number = f"{value:+.0f}".replace("-0", "0").replace("+0", "0") if difference else f"{value:.0f}"
    style = f"background:rgb({red},{green},{blue});color:{ink}"
    first = "first" if words == "unchanged" else None
    return tag("td", number, style=style, title=words, class_=first)


def _between(
    start: tuple[int, int, int], end: tuple[int, int, int], share: float
) -> tuple[int, int, int]:
    share = min(1.0, max(0.0, share))
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(start, end, strict=True))
    return red, green, blue
