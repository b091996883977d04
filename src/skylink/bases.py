"""What proposes candidates on a benchmark: any model, descriptors, or a list made elsewhere.

A base is named on the command line by what it is:

- an encoder (`embedded`, `timm:NAME`, `sample4geo:PATH`, ...), run here;
- descriptors (`.npz`, `.mat`, or `QUERY.npy,GALLERY.npy` with a `.txt` of ids beside each: see
  `descriptors.py`), compared here;
- a file of candidates (JSONL, or a TREC run of any other name), taken as it is.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skylink.datasets import Task
from skylink.descriptors import DescriptorPair
from skylink.errors import OptionError, RunError
from skylink.index import top_k
from skylink.protocol import ranks_from_lists, ranks_from_scores
from skylink.relevance import Distractors, Relevance
from skylink.retrieval_metrics import PositiveRanks
from skylink.runfiles import read_run
from skylink.runs import Run
from skylink.task_descriptors import (
    descriptor_files,
    encode_items,
    make_descriptors,
    read_descriptors,
)

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
        fingerprint: of the encoder, or the hash of the files.
        descriptors: (G, D) float32, unit norm, of the gallery, where they were asked for and the
            base has any.
    """

    name: str
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    ranks: dict[Distractors, PositiveRanks]
    ms_per_query: float | None
    fingerprint: str = ""
    descriptors: NDArray[np.float32] | None = None


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
    spec: str,
    task: Task,
    relevance: Relevance,
    *,
    progress: Progress = lambda *_: None,
    keep_descriptors: bool = False,
) -> Base:
    """The base of a name or file on a task.

    Args:
        spec: see the module.
        task, relevance: see `relevance_of`.
        progress: called with (done, total, words) while pictures are encoded.
        keep_descriptors: the gallery's are kept with the result.

    Raises:
        OptionError: it doesn't fit the task.
        DescriptorError, RunError, ModelError, PhotoError: it can't be read, loaded or run.
    """
    kind = _kind(spec)
    if kind == "run":
        listed = _from_run(spec, read_run(spec), task, relevance)
        return replace(listed, fingerprint=_hash_of(spec))
    start = time.perf_counter()
    if kind == "encoder":
        pair, fingerprint = make_descriptors(spec, task, progress)
    else:
        pair, fingerprint = read_descriptors(spec, task), _hash_of(*descriptor_files(spec))
    base = _from_descriptors(spec, pair, relevance)
    spent = 1e3 * (time.perf_counter() - start) / len(task.queries)
    kept = pair.gallery.values if keep_descriptors else None
    return replace(base, ms_per_query=spent, fingerprint=fingerprint, descriptors=kept)


def gallery_descriptors(
    spec: str, task: Task, *, progress: Progress = lambda *_: None
) -> NDArray[np.float32]:
    """(G, D) float32, unit norm: a task's gallery as an encoder or a file of descriptors sees it.

    Raises:
        OptionError: a list of candidates has no descriptors, or those don't fit the task.
        DescriptorError, ModelError, PhotoError: they can't be read, loaded or made.
    """
    kind = _kind(spec)
    if kind == "run":
        raise OptionError(f"{spec} is a list of candidates and has no descriptors")
    if kind != "encoder":
        return read_descriptors(spec, task).gallery.values
    from skylink.encoder import load_encoder

    return encode_items(task.gallery, load_encoder(spec), progress)


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


def _hash_of(*files: str | Path) -> str:
    """Of files' contents, which have just been read."""
    digest = hashlib.sha256()
    for name in files:
        with Path(name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


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
