"""What proposes candidates on a benchmark: any model, descriptors, or a list made elsewhere.

A base is named on the command line by what it is:

- an encoder (`embedded`, `timm:NAME`, `sample4geo:PATH`, ...), run here;
- descriptors (`.npz`, `.mat`, or `QUERY.npy,GALLERY.npy` with a `.txt` of ids beside each: see
  `descriptors.py`), compared here;
- a file of candidates (JSONL, or a TREC run of any other name), taken as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skylink.datasets import Item, PictureReader, Task
from skylink.descriptors import DescriptorPair, DescriptorSet, read_npy, read_pair
from skylink.errors import OptionError, RunError
from skylink.index import top_k
from skylink.protocol import ranks_from_lists, ranks_from_scores
from skylink.relevance import JUNK_LABEL, Distractors, Relevance
from skylink.retrieval_metrics import PositiveRanks
from skylink.runfiles import read_run
from skylink.runs import Run

if TYPE_CHECKING:
    from skylink.encoder import Encoder

DESCRIPTORS = (".npz", ".mat")
RUNS = (".run", ".trec", ".txt", ".jsonl", ".run.gz", ".trec.gz", ".txt.gz", ".jsonl.gz")
DEPTH = 100
"""Candidates that are kept for each query, where the base knows more."""
PLACES = ("University-1652", "SUES-200", "DenseUAV")
"""Datasets whose gallery is a set of places, where peers differ over distractors."""
BLOCK_BYTES = 256_000_000
"""Of scores: queries are compared with the gallery in blocks of as many as fit."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base's answer to a task.

    Attributes:
        name: as it was asked for.
        rows: (Q, K) int64 gallery rows, best first; shorter lists end in -1.
        scores: (Q, K) float64, never rising; only those of listed rows mean something.
        ranks: where the positives came, in the whole gallery where that is known, under both
            conventions about distractors.
        ms_per_query: time of encoding and comparing; None for lists made elsewhere.
    """

    name: str
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    ranks: dict[Distractors, PositiveRanks]
    ms_per_query: float | None


def relevance_of(task: Task) -> Relevance:
    """Who is right for whom, and which gallery images count as distractors.

    Only galleries of places have distractors, places that nobody asks for; the tiles of a map that
    no photo shows are ordinary wrong answers.
    """
    distractors = task.distractor_rows if task.dataset in PLACES else ()
    return Relevance.from_lists(
        task.positives, len(task.gallery), task.weights, distractors=distractors
    )


def open_base(
    spec: str, task: Task, relevance: Relevance, *, progress: Progress = lambda *_: None
) -> Base:
    """The base of a name or file on a task.

    Raises:
        OptionError: it doesn't fit the task.
        DescriptorError, RunError, ModelError, PhotoError: it can't be read, loaded or run.
    """
    kind = _kind(spec)
    if kind == "run":
        return _from_run(spec, read_run(spec), task, relevance)
    start = time.perf_counter()
    pair = _encoded(spec, task, progress) if kind == "encoder" else _read(spec, kind, task)
    base = _from_descriptors(spec, pair, relevance)
    spent = 1e3 * (time.perf_counter() - start) / len(task.queries)
    return replace(base, ms_per_query=spent)


def _kind(spec: str) -> str:
    """`run`, `npy` or `descriptors` for files by their names; else `encoder`."""
    lower = spec.lower()
    file = Path(spec).is_file()
    if not file and "," in spec and all(part.endswith(".npy") for part in lower.split(",")):
        return "npy"
    if not file and ":" in spec:
        return "encoder"
    if lower.endswith(DESCRIPTORS):
        return "descriptors"
    return "run" if file or lower.endswith(RUNS) else "encoder"


def _read(spec: str, kind: str, task: Task) -> DescriptorPair:
    """Descriptors from files, in the task's order."""
    if kind == "descriptors":
        return _in_order(read_pair(spec), task, spec)
    paths = [Path(part) for part in spec.split(",")]
    if len(paths) != 2:
        raise OptionError(
            f"{spec}: {len(paths)} files, not two", hint="write it as QUERY.npy,GALLERY.npy"
        )
    query, gallery = (read_npy(path, path.with_suffix(".txt")) for path in paths)
    return _in_order(DescriptorPair(query, gallery), task, spec)


def to_run(
    task: Task, rows: NDArray[np.int64], scores: NDArray[np.float64], *, tag: str = "skylink"
) -> Run:
    """Lists of gallery rows, best first, as a run with the dataset's ids.

    Scores are lowered where they tie or nearly do: in the run they fall along each list even when
    they are read as float32, as trec_eval does. It sorts ties by id, ours keep their order; so the
    order, and with it every figure, is the same for all readers.

    Args:
        task: names queries and gallery.
        rows: (Q, K) gallery rows; those of -1 are left out, wherever they stand.
        scores: (Q, K), never rising along a list.
        tag: the name of what made it; blanks become `_`.
    """
    falling = np.zeros(rows.shape)
    for query, line in enumerate(rows):
        listed = np.flatnonzero(line >= 0)
        falling[query, listed] = _falling(scores[query, listed])
    return Run.from_arrays(
        [q.id for q in task.queries],
        [g.id for g in task.gallery],
        rows,
        falling,
        tag="_".join(tag.split()) or "skylink",
    )


def _falling(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores, lowered where float32 can't tell one from the one before it."""
    most = float(np.finfo(np.float32).max) / 2  # leaves room below for the longest list
    values = np.clip(scores, -most, most)
    found = values.astype(np.float32)
    if (found[1:] < found[:-1]).all():
        return values
    for rank in range(1, len(found)):
        if found[rank] >= found[rank - 1]:
            found[rank] = np.nextafter(found[rank - 1], np.float32(-np.inf))
            values[rank] = found[rank]
    return values


def _from_descriptors(name: str, pair: DescriptorPair, relevance: Relevance) -> Base:
    """Lists and ranks from the same scores, so that they never contradict each other."""
    query, gallery = pair.query.values, np.ascontiguousarray(pair.gallery.values.T)
    depth = min(DEPTH, gallery.shape[1])
    block = max(1, BLOCK_BYTES // (4 * gallery.shape[1]))
    lists: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    parts: dict[Distractors, list[PositiveRanks]] = {c: [] for c in Distractors}
    for start in range(0, len(query), block):
        scores = query[start : start + block] @ gallery
        lists.append(top_k(scores, depth))
        some = relevance.select(np.arange(start, start + len(scores)))
        for convention, ranks in parts.items():
            ranks.append(ranks_from_scores(scores, some, distractors=convention))
    return Base(
        name=name,
        rows=np.concatenate([rows for rows, _ in lists]),
        scores=np.concatenate([best for _, best in lists]).astype(np.float64),
        ranks={
            convention: replace(
                ranks[0],
                indptr=relevance.indptr,
                ranks=np.concatenate([part.ranks for part in ranks]),
            )
            for convention, ranks in parts.items()
        },
        ms_per_query=None,
    )


def _from_run(name: str, run: Run, task: Task, relevance: Relevance) -> Base:
    row_of = {item.id: row for row, item in enumerate(task.gallery)}
    known = {item.id for item in task.queries}
    strange = [query for query in run if query not in known]
    if strange:
        raise RunError(
            f"{name}: {len(strange)} of its queries are not in {task.title}, "
            f"the first is {strange[0]!r} (ours begin with {task.queries[0].id!r})",
            hint="name queries and gallery by their path below the dataset's folder",
        )
    depth = max(len(ranked) for ranked in run.values())
    rows = np.full((len(task.queries), depth), -1, np.int64)
    scores = np.zeros(rows.shape)
    for index, item in enumerate(task.queries):
        if item.id not in run:
            continue
        ranked = run[item.id]
        missing = next((doc for doc in ranked.ids if doc not in row_of), None)
        if missing is not None:
            raise RunError(
                f"{name}: candidate {missing!r} of {item.id} is not in the gallery of {task.title} "
                f"(which begins with {task.gallery[0].id!r})",
                hint="name queries and gallery by their path below the dataset's folder",
            )
        rows[index, : len(ranked)] = [row_of[doc] for doc in ranked.ids]
        scores[index, : len(ranked)] = ranked.scores
    ranks = {c: ranks_from_lists(rows, relevance, distractors=c) for c in Distractors}
    return Base(name=name, rows=rows, scores=scores, ranks=ranks, ms_per_query=None)


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


def _encoded(spec: str, task: Task, progress: Progress) -> DescriptorPair:
    from skylink.encoder import load_encoder

    encoder = load_encoder(spec)
    sides: list[DescriptorSet] = []
    for what, items in (("queries", task.queries), ("gallery", task.gallery)):

        def report(done: int, total: int, _: str, what: str = what) -> None:
            progress(done, total, what)

        values = _encode(items, encoder, report)
        sides.append(DescriptorSet.make(values, ids=tuple(item.id for item in items)))
    return DescriptorPair(*sides)


def _encode(items: Sequence[Item], encoder: Encoder, progress: Progress) -> NDArray[np.float32]:
    """Descriptors of items; parts of large maps are cut out one after the other."""
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
