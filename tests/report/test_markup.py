"""Markup that escapes, and charts whose numbers are where they should be."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from skylink.names import shown
from skylink.report.chart import Series, line_chart, ticks
from skylink.report.markup import Html, join, tag


class Reader(HTMLParser):
    """Collects texts and attributes of one element."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= dict(attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_stays_text(inside: str, title: str) -> None:
    reader = Reader()
    reader.feed(tag("p", inside, title=title))
    reader.close()
    assert reader.tags == ["p"]
    assert "".join(reader.texts) == "\n".join(shown(line) for line in inside.split("\n"))
    assert reader.attributes["title"] == "\n".join(shown(line) for line in title.split("\n"))


def test_markup_is_not_escaped_twice() -> None:
    inner = tag("b", "a < b", class_="x", data_y=None, aria_hidden="true")
    assert inner == '<b class="x" aria-hidden="true">a &lt; b</b>'
    assert tag("p", inner, "&") == f"<p>{inner}&amp;</p>"
    assert isinstance(join(inner, "&"), Html)
    assert tag("img", src="data:,", alt='"') == '<img src="data:," alt="&quot;">'


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_are_few_round_and_inside(low: float, span: float, most: int) -> None:
    if low + span <= low:
        return
    found = ticks(low, low + span, most)
    assert len(found) <= most + 1
    slack = 1e-6 * max(span, 1e-3)
    assert all(low - slack <= t <= low + span + slack for t in found)
    assert found == sorted(set(found))


def test_a_chart_has_its_lines_where_they_belong() -> None:
    series = [
        Series(name="rising <fast>", points=[(0, 0), (5, 50), (10, 100)]),
        Series(name="one", points=[(5, 50)], colour=1),
        Series(name="dots", points=[(0, 100), (10, 0)], colour=7, sizes=[3, 4]),
    ]
    chart = line_chart(series, title="T", x_label="x", y_label="y", x_range=(0, 10), diagonal=True)
    assert 'd="M46.0 276.0L296.0 144.0L546.0 12.0"' in chart
    assert 'cx="296.0" cy="144.0"' in chart
    assert 'class="dot s1" cx="46.0" cy="12.0" r="3"' in chart
    assert "rising &lt;fast&gt;" in chart
    assert "<fast>" not in chart
    assert 'role="img"' in chart
