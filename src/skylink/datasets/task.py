"""What a benchmark asks: which queries are searched in which gallery, and what counts as right."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skylink.errors import DatasetError
from skylink.geo import distance_m

Split = Literal["train", "test"]
Metres = Literal["geodesic", "local"]
Rows = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One picture of a benchmark, and what the dataset says of it. None is "not said".

    Attributes:
        id: unique within its side, stable, without spaces: the path relative to the dataset.
        path: the file.
        place: label of the place it shows, where the dataset has such labels.
        lon, lat: position, WGS 84 degrees: the ground point at the picture's centre for tiles, and
            whatever the dataset gives for photos (its module says which).
        x_m, y_m: position in the dataset's own local frame, metres; only distances have a meaning.
        altitude_m: height of the camera above the ground, metres.
        heading_deg: camera heading, degrees clockwise from true north.
        window: (column, row, width, height) in pixels where the picture is a part of the file.
        extra: numbers under the dataset's own names, in its own units and conventions.
    """

    id: str
    path: Path
    place: str | None = None
    lon: float | None = None
    lat: float | None = None
    x_m: float | None = None
    y_m: float | None = None
    altitude_m: float | None = None
    heading_deg: float | None = None
    window: tuple[int, int, int, int] | None = None
    extra: Mapping[str, float] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One protocol: who is searched in what.

    Attributes:
        dataset: the dataset's title.
        name: the protocol within it, such as `D2S`.
        split: whose photos are asked.
        queries, gallery: what is asked and what it is searched in, in a stable order.
        positives: for each query, the gallery rows that answer it: ascending, at least one.
        weights: for each query, a weight in 0..1 for each of its positives (IoU), or None.
        semi_positives: for each query, rows that show a part of it; never among its positives.
        semi_weights: the same weights for those.
        notes: what was left out in loading, and why; for people.
        metres: how `distances_m` measures: on the ellipsoid, in the dataset's plane, or not at all.

    Raises:
        DatasetError: empty sides, ids that repeat or have spaces, rows that do not exist.
    """

    dataset: str
    name: str
    split: Split
    queries: tuple[Item, ...]
    gallery: tuple[Item, ...]
    positives: tuple[Rows, ...]
    weights: tuple[tuple[float, ...], ...] | None = None
    semi_positives: tuple[Rows, ...] | None = None
    semi_weights: tuple[tuple[float, ...], ...] | None = None
    notes: tuple[str, ...] = ()
    metres: Metres | None = field(init=False)

    def __post_init__(self) -> None:
        for side, items in (("queries", self.queries), ("gallery", self.gallery)):
            self._check_ids(side, items)
        self._check_rows("positives", self.positives, self.weights)
        if any(not rows for rows in self.positives):
            first = next(
                q.id for q, rows in zip(self.queries, self.positives, strict=True) if not rows
            )
            raise self._wrong(f"query {first} has no positive in the gallery")
        if self.semi_positives is not None:
            self._check_rows("semi-positives", self.semi_positives, self.semi_weights)
        object.__setattr__(self, "metres", _metres((*self.queries, *self.gallery)))

    @property
    def title(self) -> str:
        """Dataset and protocol, such as `University-1652 D2S`."""
        return f"{self.dataset} {self.name}"

    @property
    def distractor_rows(self) -> Rows:
        """Gallery rows that are a positive or semi-positive of no query, ascending.

        The baselines of University-1652 and SUES-200 rank them like any other; Sample4Geo and its
        descendants drop them as junk. Both conventions are in print: say which one is meant.
        """
        asked = {row for rows in self.positives for row in rows}
        asked.update(row for rows in self.semi_positives or () for row in rows)
        return tuple(row for row in range(len(self.gallery)) if row not in asked)

    def positions(self, side: Literal["queries", "gallery"]) -> NDArray[np.float64]:
        """(N, 2) float64: longitude and latitude, degrees, or local x and y, metres (`metres`).

        Raises:
            DatasetError: the dataset has no positions.
        """
        items = self.queries if side == "queries" else self.gallery
        return self._positions(items)

    def distances_m(self, query: int, rows: Sequence[int]) -> NDArray[np.float64]:
        """Metres from a query to gallery rows, (len(rows),) float64.

        Raises:
            DatasetError: the dataset has no positions.
        """
        (x, y), *_ = self._positions([self.queries[query]])
        found = self._positions([self.gallery[row] for row in rows])
        if self.metres == "geodesic":
            return distance_m(lon1=x, lat1=y, lon2=found[:, 0], lat2=found[:, 1])
        return np.asarray(np.hypot(found[:, 0] - x, found[:, 1] - y), dtype=np.float64)

    def rows_within_m(self, query: int, metres: float) -> Rows:
        """Gallery rows at most so many metres from a query, ascending."""
        near = self.distances_m(query, range(len(self.gallery))) <= metres
        return tuple(int(row) for row in np.flatnonzero(near))

    def reversed(self, name: str) -> Task:
        """The same pairs asked the other way round; gallery items without a pair are not asked."""
        positives, weights = _transposed(self.positives, self.weights, len(self.gallery))
        asked = [row for row, pairs in enumerate(positives) if pairs]
        semi = semi_weights = None
        if self.semi_positives is not None:
            semi, semi_weights = _transposed(
                self.semi_positives, self.semi_weights, len(self.gallery)
            )
        return Task(
            dataset=self.dataset,
            name=name,
            split=self.split,
            queries=tuple(self.gallery[row] for row in asked),
            gallery=self.queries,
            positives=tuple(positives[row] for row in asked),
            weights=weights and tuple(weights[row] for row in asked),
            semi_positives=semi and tuple(semi[row] for row in asked),
            semi_weights=semi_weights and tuple(semi_weights[row] for row in asked),
            notes=self.notes,
        )

    def _positions(self, items: Sequence[Item]) -> NDArray[np.float64]:
        if self.metres is None:
            raise DatasetError(
                f"{self.title} has no positions: distances cannot be measured",
                hint="use recall and average precision, which need none",
            )
        if self.metres == "geodesic":
            points = [(item.lon, item.lat) for item in items]
        else:
            points = [(item.x_m, item.y_m) for item in items]
        return np.array(points, dtype=np.float64).reshape(-1, 2)

    def _check_ids(self, side: str, items: Sequence[Item]) -> None:
        if not items:
            raise self._wrong(f"the {side} are empty")
        seen: set[str] = set()
        for item in items:
            if not item.id or any(c.isspace() for c in item.id):
                raise self._wrong(f"{item.id!r} in the {side} is not an id without spaces")
            if item.id in seen:
                raise self._wrong(f"{item.id} is in the {side} twice")
            seen.add(item.id)

    def _check_rows(
        self, what: str, lists: Sequence[Rows], weights: Sequence[Sequence[float]] | None
    ) -> None:
        if len(lists) != len(self.queries) or (weights is not None and len(weights) != len(lists)):
            raise self._wrong(f"{what} and queries are not of one length")
        for query, rows in zip(self.queries, lists, strict=True):
            rising = all(a < b for a, b in itertools.pairwise(rows))
            if rows and not (rising and rows[0] >= 0 and rows[-1] < len(self.gallery)):
                raise self._wrong(f"{what} of {query.id} are not ascending rows of the gallery")
        for query, rows, values in zip(self.queries, lists, weights or (), strict=False):
            if len(values) != len(rows) or not all(
                math.isfinite(value) and 0 <= value <= 1 for value in values
            ):
                raise self._wrong(f"weights of the {what} of {query.id} are not one in 0..1 each")

    def _wrong(self, what: str) -> DatasetError:
        return DatasetError(
            f"{self.title} ({self.split}): {what}",
            hint="the copy is not as published: see what the dataset's check says",
        )


def escaped(relative: str) -> str:
    """A relative path as an id without whitespace, the other way of writing it in a URL."""
    return "".join(f"%{ord(c):02X}" if c.isspace() else c for c in relative)


def _metres(items: Iterable[Item]) -> Metres | None:
    geodesic = local = True
    for item in items:
        geodesic &= item.lon is not None and item.lat is not None
        local &= item.x_m is not None and item.y_m is not None
    return "geodesic" if geodesic else "local" if local else None


def _transposed(
    lists: Sequence[Rows], weights: Sequence[Sequence[float]] | None, size: int
) -> tuple[tuple[Rows, ...], tuple[tuple[float, ...], ...] | None]:
    """For each row, the lists that have it (ascending, as the lists are), and their weights."""
    rows: list[list[int]] = [[] for _ in range(size)]
    values: list[list[float]] = [[] for _ in range(size)]
    for index, members in enumerate(lists):
        for place, row in enumerate(members):
            rows[row].append(index)
            if weights is not None:
                values[row].append(weights[index][place])
    kept = None if weights is None else tuple(tuple(each) for each in values)
    return tuple(tuple(each) for each in rows), kept
