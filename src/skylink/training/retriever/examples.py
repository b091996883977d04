"""Photos, tiles, and who is right for whom: of a benchmark's training split, or of mined lists."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skylink.datasets import Item, Task, find_dataset
from skylink.errors import OptionError, QueriesError
from skylink.mined import MinedList
from skylink.minedfile import MinedFile, leakage
from skylink.mining.benchmark import refuse_test_leakage, sites_of
from skylink.mining.split import hold_out
from skylink.training.data import refuse_test_split, require_pictures
from skylink.training.retriever.config import Data

NONE = -1
"""In tables of rows: there is no further one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """What is learnt from, or judged by.

    Attributes:
        title: dataset and split, for people.
        photos, tiles: their pictures.
        right: for each photo the tiles that answer it, ascending, at least one.
        labels: for each photo, 0..1 for tiles that are known: right and similar ones.
        same: for each photo, further tiles that show its place and are never negatives.
        hardest: (Q, P) int64 wrong tiles, hardest first, then `NONE`.
        digest: of all this and the sizes of the files.
        notes: for people.
    """

    title: str
    photos: tuple[Item, ...]
    tiles: tuple[Item, ...]
    right: tuple[tuple[int, ...], ...]
    labels: tuple[Mapping[int, float], ...]
    same: tuple[frozenset[int], ...]
    hardest: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    digest: str = field(init=False)
    _tiles_of: Mapping[str, list[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self))
        tiles_of: dict[str, list[int]] = {}
        for row, tile in enumerate(self.tiles):
            if tile.place is not None:
                tiles_of.setdefault(tile.place, []).append(row)
        object.__setattr__(self, "_tiles_of", tiles_of)

    def __len__(self) -> int:
        return len(self.photos)

    def shows_place_of(self, photo: int) -> set[int]:
        """Tiles that show a photo's place, for all that is known: never its negatives."""
        place = self.photos[photo].place
        named = self._tiles_of.get(place, ()) if place is not None else ()
        return {*self.right[photo], *self.same[photo], *named}


def load_examples(data: Data, *, seed: int) -> tuple[Examples, Examples | None]:
    """What a configuration learns from, and what validates it, if anything.

    Raises:
        OptionError: no such benchmark, or it is too small to hold photos back; the training split
            shares queries or places with the test split, or with validation lists.
        DatasetError, QueriesError: the copy or the lists can't be used.
    """
    if data.train is not None:
        return _of_lists(data, data.train)
    assert data.benchmark is not None
    assert data.root is not None
    dataset = find_dataset(data.benchmark)
    task = dataset.load(data.root, data.task or dataset.tasks()[0], "train")
    note = refuse_test_leakage(task, dataset, data.root)
    everyone = list(range(len(task.queries)))
    if data.held_out == 0:
        return _of_task(task, everyone, data, (note,)), None
    parts = hold_out(sites_of(task), data.held_out, seed=seed)
    learnt, held = (np.flatnonzero(parts == part).tolist() for part in (0, 1))
    return _of_task(task, learnt, data, (note,), without=held), _of_task(task, held, data)


def _of_task(
    task: Task,
    queries: Sequence[int],
    data: Data,
    notes: tuple[str, ...] = (),
    without: Sequence[int] = (),
) -> Examples:
    """Some of a task's queries in its gallery; without tiles that answer others alone."""
    kept = {row for query in queries for row in task.positives[query]}
    gone = {row for query in without for row in task.positives[query]} - kept
    rows = [row for row in range(len(task.gallery)) if row not in gone]
    place_of = {row: place for place, row in enumerate(rows)}

    def places(found: Sequence[int]) -> list[int]:
        return [place_of[row] for row in found if row in place_of]

    labels, same = [], []
    for query in queries:
        right = task.positives[query]
        weights = task.weights[query] if task.weights is not None else (1.0,) * len(right)
        known = dict(zip(right, weights, strict=True))
        others: set[int] = set()
        if task.semi_positives is not None:
            others |= set(task.semi_positives[query])
            if task.semi_weights is not None:
                known |= dict(
                    zip(task.semi_positives[query], task.semi_weights[query], strict=True)
                )
        if data.same_place_m:
            others |= set(task.rows_within_m(query, data.same_place_m))
        labels.append({place_of[row]: w for row, w in known.items() if row in place_of})
        same.append(frozenset(places(sorted(others))))
    return Examples(
        title=f"{task.title} ({task.split})",
        photos=tuple(task.queries[query] for query in queries),
        tiles=tuple(task.gallery[row] for row in rows),
        right=tuple(tuple(places(task.positives[query])) for query in queries),
        labels=tuple(labels),
        same=tuple(same),
        hardest=np.full((len(queries), data.pool), NONE, np.int64),
        notes=(*task.notes, *notes),
    )


def _of_lists(data: Data, path: Path) -> tuple[Examples, Examples | None]:
    train = MinedFile(path)
    others = [MinedFile(other) for other in data.validation]
    for file in (train, *others):
        refuse_test_split(file)
    for file in others:
        leakage(train.queries, file.queries, what="queries of validation lists")
    folder = data.folder or path.parent
    examples = _of_files([train], folder, data)
    return examples, _of_files(others, folder, data) if others else None


def _of_files(files: Sequence[MinedFile], folder: Path, data: Data) -> Examples:
    """Lists with a right candidate; tiles are all their candidates."""
    mined = [each for file in files for each in file if each.ground_truth.any()]
    if not mined:
        raise QueriesError(
            f"{files[0].path}: no list has a right candidate",
            hint="mine lists with the ground truth forced in",
        )
    row_of: dict[tuple[object, ...], int] = {}
    tiles: list[Item] = []
    rows = [[_row(each, number, folder, row_of, tiles) for number in range(len(each.candidates))]
            for each in mined]  # fmt: skip
    require_pictures(
        folder,
        {each.path for each in mined} | {c.path for e in mined for c in e.candidates if c.path},
    )
    hardest = np.full((len(mined), data.pool), NONE, np.int64)
    for index, (each, found) in enumerate(zip(mined, rows, strict=True)):
        wrong = [
            row
            for row, c in zip(found, each.candidates, strict=True)
            if not c.is_ground_truth and c.label == 0
        ]
        hardest[index, : min(len(wrong), data.pool)] = wrong[: data.pool]
    where = files[0].header.provenance
    return Examples(
        title=f"{where.dataset} ({where.split}), lists of {where.base}",
        photos=tuple(Item(id=each.query, path=folder / each.path) for each in mined),
        tiles=tuple(tiles),
        right=tuple(
            tuple(sorted({found[i] for i in np.flatnonzero(each.ground_truth)}))
            for each, found in zip(mined, rows, strict=True)
        ),
        labels=tuple(
            {row: c.label for row, c in zip(found, each.candidates, strict=True) if c.label > 0}
            for each, found in zip(mined, rows, strict=True)
        ),
        same=tuple(  # what mining found to be similar is no negative
            frozenset(r for r, c in zip(found, each.candidates, strict=True) if c.label > 0)
            for each, found in zip(mined, rows, strict=True)
        ),
        hardest=hardest,
    )


def _row(
    mined: MinedList,
    number: int,
    folder: Path,
    row_of: dict[tuple[object, ...], int],
    tiles: list[Item],
) -> int:
    candidate = mined.candidates[number]
    if candidate.path is None:
        raise OptionError(
            f"candidate {candidate.id!r} of {mined.query!r} is a place on a map, not a picture",
            hint="retrievers are trained on benchmarks, or on lists that were mined from one",
        )
    key = (candidate.path, candidate.window)
    if key not in row_of:
        row_of[key] = len(tiles)
        tiles.append(Item(id=candidate.id, path=folder / candidate.path, window=candidate.window))
    return row_of[key]


def _digest(examples: Examples) -> str:
    """SHA-256; contents of files would take hours to read."""
    digest = hashlib.sha256()
    for item in (*examples.photos, *examples.tiles):
        try:
            size = item.path.stat().st_size
        except OSError:
            size = -1  # it will be missed when it is read
        digest.update(f"{item.id} {item.place} {item.window} {size}\n".encode())
    for right, labels, same in zip(examples.right, examples.labels, examples.same, strict=True):
        digest.update(f"{right} {sorted(labels.items())} {sorted(same)}\n".encode())
    digest.update(examples.hardest.tobytes())
    return digest.hexdigest()
