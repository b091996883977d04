"""What proposes candidates on a benchmark: any model, descriptors, or a list made elsewhere.

A base is named on the command line by what it is:

- an encoder (`embedded`, `timm:NAME`, `sample4geo:PATH`, ...: docs/encoders.md), run here;
- a file of descriptors (`.npz`, `.mat`: docs/benchmarks.md), compared here;
- a file of candidates (TREC run or JSONL), taken as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.datasets import Item, PictureReader, Task
from skylink.descriptors import DescriptorPair, DescriptorSet, read_pair
from skylink.errors import OptionError
from skylink.index import ExactIndex
from skylink.protocol import ranks_from_lists, ranks_of_positives
from skylink.relevance import Distractors, Relevance
from skylink.retrieval_metrics import PositiveRanks
from skylink.runfiles import read_run
from skylink.runs import Run, RunError

if TYPE_CHECKING:
    from skylink.encoder import Encoder

DESCRIPTORS = (".npz", ".mat")
RUNS = (".run", ".trec", ".txt", ".jsonl", ".run.gz", ".trec.gz", ".txt.gz", ".jsonl.gz")
DEPTH = 100
"""Candidates that are kept for each query, where the base knows more."""
PLACES = ("University-1652", "SUES-200", "DenseUAV")
"""Datasets whose gallery is a set of places, where peers differ over distractors."""
BLOCK = 2048
"""Queries compared at once: their scores against a gallery of 50,000 take 400 MB."""

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
    lower = spec.lower()
    if lower.endswith(RUNS):
        return _from_run(spec, read_run(spec), task, relevance)
    start = time.perf_counter()
    if lower.endswith(DESCRIPTORS) and ":" not in spec:
        pair = _in_order(read_pair(spec), task, spec)
    else:
        pair = _encoded(spec, task, progress)
    base = _from_descriptors(spec, pair, relevance)
    spent = 1e3 * (time.perf_counter() - start) / len(task.queries)
    return Base(
        name=base.name, rows=base.rows, scores=base.scores, ranks=base.ranks, ms_per_query=spent
    )


def to_run(base: Base, task: Task) -> Run:
    """The base's lists as a run, with the dataset's ids."""
    return Run.from_arrays(
        [q.id for q in task.queries],
        [g.id for g in task.gallery],
        base.rows,
        base.scores,
        tag=Path(base.name).name.replace(" ", "_") or "base",
    )


def _from_descriptors(name: str, pair: DescriptorPair, relevance: Relevance) -> Base:
    query, gallery = pair.query.values, pair.gallery.values
    depth = min(DEPTH, len(gallery))
    index = ExactIndex(gallery)
    found = [index.search(query[i : i + BLOCK], depth) for i in range(0, len(query), BLOCK)]
    return Base(
        name=name,
        rows=np.concatenate([rows for rows, _ in found]).astype(np.int64),
        scores=np.concatenate([scores for _, scores in found]).astype(np.float64),
        ranks={
            convention: ranks_of_positives(query, gallery, relevance, distractors=convention)
            for convention in Distractors
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
    row_of = {name: row for row, name in enumerate(given.ids)}
    if given.ids == tuple(map(str, range(len(given)))):
        if len(given) != len(wanted):
            raise OptionError(
                f"{what}: {len(given)} rows without ids, but the task has {len(wanted)}",
                hint="store ids (paths below the dataset's folder) beside the descriptors",
            )
        return DescriptorSet(wanted, None, given.values)
    if wanted[0] not in row_of:  # `pytorch_result.mat` holds whole paths
        row_of = _by_ending(given.ids, max(name.count("/") for name in wanted))
    missing = [name for name in wanted if row_of.get(name, -1) < 0]
    if missing:
        raise OptionError(
            f"{what}: {len(missing)} of {len(wanted)} have no descriptor, "
            f"the first is {missing[0]!r} (the file begins with {given.ids[0]!r})",
            hint="name images by their path below the dataset's folder",
        )
    rows = np.array([row_of[name] for name in wanted], np.int64)
    return DescriptorSet(wanted, None, np.ascontiguousarray(given.values[rows]))


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
    from skylink.encode import BATCH, encode_files

    if all(item.window is None for item in items):
        return encode_files([item.path for item in items], encoder, progress=progress)
    found = []
    side = encoder.input_px
    with PictureReader() as reader:
        for start in range(0, len(items), BATCH):
            some = items[start : start + BATCH]
            pictures = [
                cv2.resize(reader.read(item), (side, side), interpolation=cv2.INTER_AREA)
                for item in some
            ]
            found.append(encoder.encode(np.stack(pictures).astype(np.uint8)))
            progress(start + len(some), len(items), "images")
    return np.concatenate(found)
