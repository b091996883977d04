"""The gallery of a report: queries that were fixed, broken or stayed wrong, with their pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skylink.report.details import Place, QueryDetails
from skylink.report.markup import Html, join, tag
from skylink.report.pictures import Budget, Pictures
from skylink.report.read import Run

KINDS = (
    ("fixed", "Put right by re-ranking"),
    ("broken", "Put wrong by re-ranking"),
    ("wrong", "Wrong before and after"),
    ("right", "Right all along"),
)


def kind_of(query: QueryDetails) -> str:
    """One of `KINDS`, by the first place before and after."""
    before, after = (bool(places) and places[0].right for places in (query.base, query.last))
    if before == after:
        return "right" if after else "wrong"
    return "fixed" if after else "broken"


def cards(run: Run, budget: Budget, *, each: int) -> Html:
    """A part for each kind of query, with at most `each` of them, evenly spread."""
    if run.details is None:
        return Html("")
    by_kind: dict[str, list[QueryDetails]] = {kind: [] for kind, _ in KINDS}
    for query in run.details.queries:
        by_kind[kind_of(query)].append(query)
    pictures = Pictures(run.details, budget)
    parts = []
    for kind, words in KINDS:
        queries = by_kind[kind]
        if not queries or (kind in ("fixed", "broken") and run.final is None):
            continue
        some = _spread(queries, max(1, each // 3) if kind == "right" else each)
        shown = f"{len(queries):,}" + (f", {len(some)} shown" if len(some) < len(queries) else "")
        parts.append(tag("h4", f"{words}: {shown}"))
        drawn = (_card(query, kind, pictures, reranks=run.final is not None) for query in some)
        parts.append(tag("div", *drawn, class_="cards"))
    pictures.close()
    title = f"{run.base[0]} + {run.final[0]}" if run.final else run.base[0]
    return tag("section", tag("h3", title, tag("small", run.name)), *parts)


def _spread(queries: Sequence[QueryDetails], most: int) -> list[QueryDetails]:
    if len(queries) <= most:
        return list(queries)
    return [queries[i] for i in np.linspace(0, len(queries) - 1, most).round().astype(int)]


def _card(query: QueryDetails, kind: str, pictures: Pictures, *, reranks: bool) -> Html:
    photo = pictures.photo(query)
    figures = [_picture("photo", photo, query.query, "", [])]
    if query.base:
        figures.append(_place("base's first", query.base[0], pictures))
    if reranks and query.last:
        words = "re-ranked first" if query.reranked else "first, not re-ranked"
        figures.append(_place(words, query.last[0], pictures))
    if query.answer is not None:
        figures.append(_place("placed within the tile", query.answer, pictures))
    told = {place.id for place in (*query.base[:1], *query.last[:1])}
    truths = sorted(query.positives, key=lambda place: place.id in told)  # a new one first
    if truths:
        figures.append(_place("a right answer", truths[0], pictures, verdict=False))
    facts = [_rank("before", query.base_rank)]
    if reranks:
        facts.append(_rank("after", query.final_rank))
    if query.confidence is not None:
        facts.append(f"confidence {query.confidence:.2f}")
    if query.radius_m is not None:
        facts.append(f"50 % radius {query.radius_m:.0f} m")
    if query.radius_90_m is not None:
        facts.append(f"90 % radius {query.radius_90_m:.0f} m")
    if not query.located:
        facts.append("not found on this map: best guess")
    if query.note:
        facts.append(query.note)
    head = tag("header", tag("strong", query.query), tag("span", kind, class_=f"kind {kind}"))
    return tag(
        "article", head, tag("div", *figures, class_="shots"), tag("p", "; ".join(facts)),
        class_="card",
    )  # fmt: skip


def _rank(when: str, rank: int | None) -> str:
    return f"first right answer {when}: " + ("not in the list" if rank is None else f"rank {rank}")


def _place(words: str, place: Place, pictures: Pictures, *, verdict: bool = True) -> Html:
    notes = []
    if place.score is not None:
        notes.append(f"score {place.score:.3g}")
    if place.error_m is not None and verdict:
        far = place.error_m
        notes.append(f"{far / 1000:.1f} km off" if far >= 10_000 else f"{far:.0f} m off")
    state = ("right" if place.right else "wrong") if verdict else ""
    return _picture(words, pictures.place(place), place.id, state, notes)


def _picture(words: str, uri: str | None, name: str, state: str, notes: Sequence[str]) -> Html:
    """One picture with what it is; `state` is also told in words and a sign."""
    alternative = f"{words}: {name}" + (f", {state}" if state else "")
    if uri is None:
        shot = tag("div", "no picture", class_="none", role="img", aria_label=alternative)
    else:
        shot = tag("img", src=uri, alt=alternative, loading="lazy")
    sign = {"right": "✓ right", "wrong": "✗ wrong", "": ""}[state]
    label = [tag("b", words)]
    if sign:
        label.append(tag("span", sign, class_=f"sign {state}"))
    label.append(tag("small", name))
    label += [tag("small", note) for note in notes]
    return tag("figure", shot, tag("figcaption", *label), class_=f"shot {state}".strip())


def problems(budget: Budget) -> Html:
    """Which pictures are missing and why."""
    words = [f"A picture is missing: {problem}" for problem in list(budget.problems)[:10]]
    if len(budget.problems) > 10:
        words.append(f"{len(budget.problems) - 10} more pictures are missing")
    if budget.refused:
        words.append(
            f"{budget.refused} pictures were left out, for the page would be too large: "
            "ask for fewer with --pictures"
        )
    return join(*(tag("p", each, class_="note") for each in words))
