"""The page: everything about some runs in one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from skylink import __version__
from skylink.errors import OptionError
from skylink.files import write_atomic
from skylink.report import curves, heat, queries, tables
from skylink.report.markup import Html, join, tag, text
from skylink.report.pictures import Budget
from skylink.report.read import Run, read_runs

PICTURES = 12
"""Queries of each kind that are shown with their pictures."""


def write_report(
    results: Sequence[str | Path],
    out: str | Path,
    *,
    title: str = "Evaluation",
    pictures: int = PICTURES,
) -> Path:
    """Write one HTML page about some results files: no scripts, no network, pictures inside.

    Args:
        results: files that `evaluate` wrote; what lies beside them is found (details of the
            queries, conditions). What is missing is said on the page.
        out: the page.
        title: its heading.
        pictures: how many queries of each kind (fixed, broken, wrong) to show; 0 shows none.

    Raises:
        ReportError: a results file can't be read.
        OptionError: `pictures` is negative.
        OutputError: the page can't be written.
    """
    if pictures < 0:
        raise OptionError(f"pictures {pictures} is negative", hint="0 shows none")
    return write_atomic(out, render(read_runs(results), title=title, pictures=pictures))


def render(runs: Sequence[Run], *, title: str, pictures: int = PICTURES) -> str:
    """The page's text."""
    budget = Budget()
    sections: list[tuple[str, str, Html]] = []
    protocols = list(dict.fromkeys(run.protocol for run in runs))
    for number, protocol in enumerate(protocols):
        same = [run for run in runs if run.protocol == protocol]
        sections.append((f"figures-{number}", protocol, _figures(same)))
    harder = [heat.heat_map(run) for run in runs if run.conditions is not None]
    if harder:
        sections.append(("conditions", "Challenging conditions", join(*harder)))
    if pictures and any(run.details is not None for run in runs):
        shown = [queries.cards(run, budget, each=pictures) for run in runs]
        words = tag(
            "p",
            "Each card: the photo, the first place before and after re-ranking, and a right "
            "answer. Maps of one's own are turned as the photo is, and about as wide as the "
            "ground that it shows.",
        )
        content = join(words, *shown, queries.problems(budget))
        sections.append(("queries", "Queries", content))
    notes = [note for run in runs for note in run.notes]
    links = [tag("li", tag("a", name, href=f"#{key}")) for key, name, _ in sections]
    body = [
        tag("header", tag("h1", title), tag("nav", tag("ul", *links), aria_label="Contents")),
        *(tag("p", note, class_="note", role="note") for note in notes),
        *(tag("section", tag("h2", name), part, id=key) for key, name, part in sections),
    ]
    files = resources.files("skylink.report")
    return Template((files / "page.html").read_text(encoding="utf-8")).substitute(
        title=text(title),
        style=(files / "page.css").read_text(encoding="utf-8"),
        body=join(*body),
        version=text(__version__),
    )


def _figures(runs: Sequence[Run]) -> Html:
    """Tables and charts of the runs of one protocol."""
    facts = list(dict.fromkeys(fact for run in runs for fact in run.facts))
    return join(
        tag("p", "; ".join(facts), class_="facts") if facts else Html(""),
        tables.main_table(runs),
        tables.change_table(runs),
        tables.other_table(runs),
        tag("div", *curves.charts(runs), class_="charts"),
        tables.honesty_table(runs),
        *(tables.groups_table(run) for run in runs),
        *(tables.failures_table(run) for run in runs),
    )
