"""Datasets that are folders of places: `<side>/<place id>/<pictures>`, right where ids agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skylink.datasets.report import Finding
from skylink.datasets.task import Item, Split, Task
from skylink.datasets.tree import Tree
from skylink.errors import DatasetError

Said = Callable[[str, str, str], Mapping[str, Any]]
"""What a dataset says of a picture, by its side's folder, its place and its file's name: fields of
`Item`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Where a protocol's queries and gallery lie, in each split."""

    queries: str
    gallery: str


def place_items(tree: Tree, folder: str, said: Said | None = None) -> tuple[Item, ...]:
    """The pictures of a folder of places, by place and name.

    Raises:
        DatasetError: the folder is missing, or there is no picture in it.
    """
    items = tuple(
        tree.item(
            f"{folder}/{place}/{name}", place=place, **(said(folder, place, name) if said else {})
        )
        for place, names in tree.places(folder)
        for name in names
    )
    if not items:
        ignored = ", ".join(f"{n} {kind}" for kind, n in sorted(tree.ignored.items()))
        raise DatasetError(
            f"{tree.root / folder} has no pictures in folders of places"
            + (f" ({ignored} ignored)" if ignored else ""),
            hint="unpack the dataset again; pictures lie in one folder a place, links do not count",
        )
    return items


def place_task(
    tree: Tree,
    sides: Sides,
    *,
    dataset: str,
    name: str,
    split: Split,
    said: Said | None = None,
) -> Task:
    """Each query is answered by every gallery picture of its place.

    Raises:
        DatasetError: a side is missing or empty, or a query's place is not in the gallery.
    """
    queries = place_items(tree, sides.queries, said)
    gallery = place_items(tree, sides.gallery, said)
    rows: dict[str | None, list[int]] = {}
    for row, item in enumerate(gallery):
        rows.setdefault(item.place, []).append(row)
    unanswered = sorted({str(q.place) for q in queries if q.place not in rows})
    if unanswered:
        more = " ..." if len(unanswered) > 5 else ""
        raise DatasetError(
            f"{tree.root / sides.queries}: {len(unanswered)} places are not in {sides.gallery}: "
            f"{', '.join(unanswered[:5])}{more}",
            hint="both must be of one split of one release: unpack both again",
        )
    return Task(
        dataset=dataset,
        name=name,
        split=split,
        queries=queries,
        gallery=gallery,
        positives=tuple(tuple(rows[query.place]) for query in queries),
    )


def place_counts(tree: Tree, folders: Sequence[str]) -> dict[str, int]:
    """`<folder> places` and `<folder> images` of those folders that are there."""
    counts: dict[str, int] = {}
    for folder in folders:
        if tree.has(folder):
            sizes = [len(names) for _, names in tree.places(folder)]
            counts[f"{folder} places"] = len(sizes)
            counts[f"{folder} images"] = sum(sizes)
    return counts


def shared_places(tree: Tree, train: Sequence[str], test: Sequence[str]) -> list[Finding]:
    """Places that lie in both splits: then training has seen the test."""
    seen, asked = (
        {place for folder in folders if tree.has(folder) for place in tree.folders(folder)}
        for folders in (train, test)
    )
    both = sorted(seen & asked)
    if not both:
        return []
    return [
        Finding(
            kind="problem",
            what=f"{len(both)} places are in {train[0]} and in {test[0]}: {', '.join(both[:5])}"
            + (" ..." if len(both) > 5 else ""),
            fix="the splits must not share places: split or unpack the dataset again",
        )
    ]
