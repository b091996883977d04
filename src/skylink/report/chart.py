"""Line charts as inline SVG, coloured by the page's own style: light, dark and print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from skylink.report.markup import Html, join, tag

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 44
COLOURS = 6
"""Series colours that the style has."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line, or some dots.

    Attributes:
        name: in the legend.
        points: (x, y), x rising.
        colour: which of the page's series colours; counted round.
        dashed: a base's, beside its re-ranked one of the same colour.
        sizes: radius of a dot at each point, pixels, instead of a line; empty: a line.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dashed: bool = False
    sizes: Sequence[float] = ()


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float] = (0.0, 100.0),
    diagonal: bool = False,
    note: str = "",
) -> Html:
    """A figure: the chart, its legend and its numbers as a table that can be opened.

    Args:
        series: the lines.
        title: heading.
        x_label, y_label: axes, with units.
        x_range, y_range: ends of the axes.
        diagonal: draw the line on which y is as far along its axis as x is.
        note: below it.
    """

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_range[0]) / ((x_range[1] - x_range[0]) or 1)
        up = (y - y_range[0]) / ((y_range[1] - y_range[0]) or 1)
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )

    parts = []
    for x in ticks(*x_range):
        (px, bottom), (_, top) = at(x, y_range[0]), at(x, y_range[1])
        parts.append(tag("line", class_="grid", x1=px, y1=bottom, x2=px, y2=top))
        parts.append(
            tag("text", f"{x:g}", class_="tick", x=px, y=bottom + 16, text_anchor="middle")
        )
    for y in ticks(*y_range):
        (left, py), (right, _) = at(x_range[0], y), at(x_range[1], y)
        parts.append(tag("line", class_="grid", x1=left, y1=py, x2=right, y2=py))
        parts.append(tag("text", f"{y:g}", class_="tick", x=left - 7, y=py + 4, text_anchor="end"))
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        tag("text", x_label, class_="axis", x=middle_x, y=HEIGHT - 6, text_anchor="middle")
    )
    parts.append(
        tag(
            "text", y_label, class_="axis", text_anchor="middle",
            transform=f"translate(12 {middle_y}) rotate(-90)",
        )
    )  # fmt: skip
    if diagonal:
        (x1, y1), (x2, y2) = at(x_range[0], y_range[0]), at(x_range[1], y_range[1])
        parts.append(tag("line", class_="ideal", x1=x1, y1=y1, x2=x2, y2=y2))
    for one in series:
        places = [at(x, y) for x, y in one.points]
        style = f"series s{one.colour % COLOURS}" + (" dashed" if one.dashed else "")
        if len(places) > 1 and not one.sizes:
            path = "M" + "L".join(f"{x} {y}" for x, y in places)
            parts.append(tag("path", class_=style, d=path))
        sizes = one.sizes or ([4.0] * len(places) if len(places) == 1 else [])
        for (x, y), size in zip(places, sizes, strict=False):
            dot = f"dot s{one.colour % COLOURS}"
            parts.append(tag("circle", class_=dot, cx=x, cy=y, r=round(size, 1)))
    words = f"{title}: {y_label} by {x_label}; " + ", ".join(one.name for one in series)
    chart = tag(
        "svg", tag("title", words), *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img"
    )  # fmt: skip
    return tag(
        "figure",
        tag("h3", title),
        chart,
        tag("figcaption", _legend(series), tag("p", note) if note else Html("")),
        _numbers(series, x_label, y_label),
        class_="chart",
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, at most about `most`."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _legend(series: Sequence[Series]) -> Html:
    def sample(one: Series) -> Html:
        style = f"series s{one.colour % COLOURS}" + (" dashed" if one.dashed else "")
        line = tag("path", class_=style, d="M1 6L31 6")
        if one.sizes:
            line = tag("circle", class_=f"dot s{one.colour % COLOURS}", cx=16, cy=6, r=5)
        return tag("svg", line, viewBox="0 0 32 12", class_="sample", aria_hidden="true")

    return tag("ul", *(tag("li", sample(one), one.name) for one in series), class_="legend")


def _numbers(series: Sequence[Series], x_label: str, y_label: str) -> Html:
    """A few of the points of each line, for who can't see them or wants to copy them."""
    rows = []
    for one in series:
        step = max(1, math.ceil(len(one.points) / 10))
        some = [*one.points[:-1:step], *one.points[-1:]]
        cells = [tag("td", f"{x:.3g} → {y:.1f}") for x, y in some]
        rows.append(tag("tr", tag("th", one.name, scope="row"), *cells))
    summary = tag("summary", f"numbers ({x_label} → {y_label})")
    table = tag("div", tag("table", tag("tbody", *rows)), class_="scroll", tabindex="0")
    return tag("details", summary, join(table))
