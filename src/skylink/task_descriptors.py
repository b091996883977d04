"""Descriptors of a task's pictures, in its order: made by an encoder here, or read from files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skylink.datasets import Item, PictureReader, Task
from skylink.descriptors import DescriptorPair, DescriptorSet, read_npy, read_pair
from skylink.errors import OptionError
from skylink.relevance import JUNK_LABEL

if TYPE_CHECKING:
    from skylink.encoder import Encoder

Progress = Callable[[int, int, str], None]


def read_descriptors(spec: str, task: Task) -> DescriptorPair:
    """Descriptors from `.npz`, `.mat` or `QUERY.npy,GALLERY.npy`, in the task's order.

    Raises:
        OptionError: they don't fit the task.
        DescriptorError: they can't be read.
    """
    paths = descriptor_files(spec)
    if len(paths) == 1:
        return _in_order(read_pair(spec), task, spec)
    if len(paths) != 2:
        raise OptionError(
            f"{spec}: {len(paths)} files, not two", hint="write it as QUERY.npy,GALLERY.npy"
        )
    query, gallery = (read_npy(path, path.with_suffix(".txt")) for path in paths)
    return _in_order(DescriptorPair(query, gallery), task, spec)


def descriptor_files(spec: str) -> list[Path]:
    """The files that a name of descriptors stands for: one `.npz` or `.mat`, or `.npy` files."""
    return [Path(spec)] if Path(spec).is_file() else [Path(part) for part in spec.split(",")]


def make_descriptors(spec: str, task: Task, progress: Progress) -> tuple[DescriptorPair, str]:
    """Descriptors by an encoder, and its fingerprint.

    Raises:
        ModelError, PhotoError: it can't be loaded or run, or a picture can't be read.
    """
    from skylink.encoder import load_encoder

    encoder = load_encoder(spec)
    sides: list[DescriptorSet] = []
    for what, items in (("queries", task.queries), ("gallery", task.gallery)):

        def report(done: int, total: int, _: str, what: str = what) -> None:
            progress(done, total, what)

        values = encode_items(items, encoder, report)
        sides.append(DescriptorSet.make(values, ids=tuple(item.id for item in items)))
    return DescriptorPair(*sides), encoder.fingerprint


def encode_items(
    items: Sequence[Item], encoder: Encoder, progress: Progress
) -> NDArray[np.float32]:
    """(N, D) float32, unit norm; parts of large maps are cut out one after the other."""
    from skylink.encode import BATCH, encode_files, to_square

    if all(item.window is None for item in items):
        return encode_files([item.path for item in items], encoder, progress=progress)
    found = []
    with PictureReader() as reader:
        for start in range(0, len(items), BATCH):
            some = items[start : start + BATCH]
            pictures = [to_square(reader.read(item), encoder) for item in some]
            found.append(encoder.encode(np.stack(pictures)))
            progress(start + len(some), len(items), "images")
    return np.concatenate(found)


def _in_order(pair: DescriptorPair, task: Task, name: str) -> DescriptorPair:
    """Descriptors in the task's order: by id, or as they stand where the file has no ids."""
    return DescriptorPair(
        _side(pair.query, task.queries, f"{name}: queries"),
        _side(pair.gallery, task.gallery, f"{name}: gallery"),
    )


def _side(given: DescriptorSet, items: Sequence[Item], what: str) -> DescriptorSet:
    wanted = tuple(item.id for item in items)
    hint = "name images by their path below the dataset's folder"
    if given.ids == tuple(map(str, range(len(given)))):
        if len(given) != len(wanted):
            raise OptionError(
                f"{what}: {len(given)} rows without ids, but the task has {len(wanted)}",
                hint="store ids (paths below the dataset's folder) beside the descriptors",
            )
        _check_labels(given, items, what)
        return DescriptorSet(wanted, None, given.values)
    row_of = {name: row for row, name in enumerate(given.ids)}
    if wanted[0] not in row_of:  # `pytorch_result.mat` holds whole paths
        row_of = _by_ending(given.ids, max(name.count("/") for name in wanted))
    missing = [name for name in wanted if row_of.get(name, -1) < 0]
    if missing:
        raise OptionError(
            f"{what}: {len(missing)} of {len(wanted)} have no descriptor, "
            f"the first is {missing[0]!r} (the file begins with {given.ids[0]!r})",
            hint=hint,
        )
    rows = np.array([row_of[name] for name in wanted], np.int64)
    return DescriptorSet(wanted, None, np.ascontiguousarray(given.values[rows]))


def _check_labels(given: DescriptorSet, items: Sequence[Item], what: str) -> None:
    """Rows without ids are taken in the task's order: their labels must not contradict it.

    Labels may be any numbering of the places; distractors may share the label of junk.
    """
    if given.labels is None:
        return
    place_of: dict[str | int, str] = {}
    for row, (label, item) in enumerate(zip(given.labels.tolist(), items, strict=True)):
        if item.place is None or label == JUNK_LABEL:
            continue
        if place_of.setdefault(label, item.place) != item.place:
            raise OptionError(
                f"{what}: row {row} has the label {label} of {place_of[label]!r}, but would be "
                f"{item.id}: the rows are in another order than the task's",
                hint="store ids (paths below the dataset's folder) beside the descriptors",
            )


def _by_ending(paths: Sequence[str], depth: int) -> dict[str, int]:
    """Rows by every ending of a path of up to `depth` folders and a name; -1 where two share it."""
    rows: dict[str, int] = {}
    for row, path in enumerate(paths):
        parts = path.replace("\\", "/").split("/")
        for start in range(max(0, len(parts) - depth - 1), len(parts)):
            ending = "/".join(parts[start:])
            rows[ending] = -1 if ending in rows else row
    return rows
