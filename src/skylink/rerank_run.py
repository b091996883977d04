"""Re-rank lists that any base made: query by query, with a journal that a kill can't hurt."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from skylink.datasets import Item, PictureReader, Task
from skylink.errors import OptionError, OutputError, RerankError, SkyLinkError, first_complaint
from skylink.files import output_errors, write_atomic
from skylink.prompt import Facts
from skylink.reranker import Fusion, Reranker, rerank
from skylink.showing import Showing, within_pixels
from skylink.types import Candidate, Query, Telemetry

Progress = Callable[[int, int, str], None]
MAX_JOURNAL_LINE = 1_000_000


class TileShow:
    """Shows a benchmark's own pictures: photo and tiles as they are, only made smaller.

    Args:
        task: whose gallery the candidates' ids name.
        size_px: side of the largest square picture.
    """

    def __init__(self, task: Task, *, size_px: int = 448) -> None:
        self._items = {item.id: item for item in task.gallery}
        self._read = PictureReader().read
        self.size_px = size_px

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> Showing:
        """See `showing.Show`; a picture that can't be read names its file."""
        try:
            pictures = [self._read(self._items[c.id]) for c in candidates]
        except SkyLinkError as error:
            raise RerankError(error.message) from error
        return Showing(
            name=query.name,
            photo=within_pixels(query.image, self.size_px**2),
            candidates=[within_pixels(picture, self.size_px**2) for picture in pictures],
            ids=[c.id for c in candidates],
            photo_facts=Facts(altitude_m=query.telemetry.relative_altitude_m),
            candidate_facts=[Facts()] * len(candidates),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranked:
    """Lists after re-ranking.

    Attributes:
        rows: (Q, K) int64, best first, -1 after the end.
        scores: (Q, K) float64, never rising: fused scores of what was re-ranked, lifted above the
            rest of the list; the base's where a query was not re-ranked.
        reranked: (Q,) bool: the re-ranker ran and decided.
        failed: (Q,) bool: it was tried and failed.
        notes: why queries were not re-ranked, with how often.
        ms_per_query: of re-ranking, over the queries of this call; None if all were done before.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    reranked: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    notes: dict[str, int]
    ms_per_query: float | None


class _Entry(BaseModel):
    """A finished query: a line of the journal.

    `rows` and `scores` are what the re-ranker was given, in its order; empty where it did not run.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    query: str
    reranked: bool = False
    failed: bool = False
    note: str = ""
    rows: list[int] = []
    scores: list[FiniteFloat] = []

    def fits(self, listed: Sequence[int]) -> bool:
        """Whether it is about these gallery rows."""
        whole = len(self.scores) == len(self.rows)
        return whole and sorted(self.rows) == (sorted(listed) if self.reranked else [])


@dataclass
class _Journal:
    """Finished queries, a line each, after one that says what they depend on.

    A half-written last line is dropped. Queries that failed are tried again: a server may be back.
    """

    path: Path | None
    header: dict[str, Any]
    done: dict[str, _Entry] = field(default_factory=dict)

    def open(self) -> None:
        """Take what an earlier run finished, if it was the same run; else begin anew."""
        if self.path is None:
            return
        lines: list[bytes] = []
        with output_errors(self.path):
            if self.path.exists():
                with self.path.open("rb") as file:
                    while (line := file.readline(MAX_JOURNAL_LINE)).endswith(b"\n"):
                        lines.append(line)
        if not lines or lines[0] != _line(self.header):
            write_atomic(self.path, _line(self.header))
            return
        try:
            entries = [_Entry.model_validate_json(line) for line in lines[1:]]
        except ValidationError as error:
            raise OutputError(
                f"{self.path} is damaged: {first_complaint(error)}", hint="remove it to begin anew"
            ) from error
        self.done = {entry.query: entry for entry in entries if not entry.failed}
        write_atomic(self.path, b"".join(lines))

    def add(self, entry: _Entry) -> None:
        """Keep one more."""
        self.done[entry.query] = entry
        if self.path is not None:
            with output_errors(self.path), self.path.open("ab") as file:
                file.write(entry.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())


def rerank_lists(
    task: Task,
    rows: NDArray[np.int64],
    scores: NDArray[np.float64],
    reranker: Reranker,
    *,
    top_k: int,
    fusion: Fusion | None = None,
    strict: bool = False,
    journal: Path | None = None,
    made_from: object = None,
    progress: Progress = lambda *_: None,
) -> Reranked:
    """Re-rank the first `top_k` of each list; what comes after them stays where it is.

    Args:
        task: whose queries and gallery the lists are about.
        rows, scores: (Q, K), best first, rows end in -1 (`Base`).
        reranker: made for this task's pictures.
        top_k: how many candidates it is given.
        fusion: see `Fusion`.
        strict: a query that fails is an error, not `reranked = False`.
        journal: file of finished queries; a run that was killed goes on after the last of them.
            The caller removes it when the result is safe.
        made_from: what the re-ranker was made from, of a telling `repr`: a journal of another one
            is begun anew.
        progress: called with (done, total, words).

    Raises:
        OptionError: `top_k` is not at least 1.
        RerankError: with `strict`, a query failed.
        OutputError: the journal can't be written, or is damaged.
    """
    if top_k < 1:
        raise OptionError(f"top-k {top_k} is not at least 1")
    fusion = fusion or Fusion()
    done = _Journal(journal, _fingerprint(task, rows, scores, reranker, top_k, fusion, made_from))
    done.open()
    new_rows, new_scores = rows.copy(), scores.copy()
    ran = np.zeros(len(rows), bool)
    failed = np.zeros(len(rows), bool)
    notes: dict[str, int] = {}
    spent, fresh = 0.0, 0
    with PictureReader() as reader:
        for index, item in enumerate(task.queries):
            listed = rows[index, :top_k][rows[index, :top_k] >= 0].tolist()
            entry = done.done.get(item.id)
            if entry is None or not entry.fits(listed):
                start = time.perf_counter()
                candidates = [
                    _candidate(task, row, float(scores[index, rank]))
                    for rank, row in enumerate(listed)
                ]
                entry = _rerank_one(item, candidates, listed, reranker, fusion, reader)
                spent, fresh = spent + time.perf_counter() - start, fresh + 1
                if entry.failed and strict:
                    raise RerankError(f"{item.id}: {entry.note}")
                done.add(entry)
            ran[index], failed[index] = entry.reranked, entry.failed
            if entry.note:
                notes[entry.note] = notes.get(entry.note, 0) + 1
            if entry.reranked:
                count = len(entry.rows)
                new_rows[index, :count] = entry.rows
                beyond = rows[index, count:] >= 0
                new_scores[index, :count] = _above(entry.scores, scores[index, count:][beyond])
            words = "re-ranked" if entry.reranked else "as it was"
            progress(index + 1, len(rows), f"{item.id}: {words}")
    return Reranked(
        rows=new_rows,
        scores=new_scores,
        reranked=ran,
        failed=failed,
        notes=notes,
        ms_per_query=1e3 * spent / fresh if fresh else None,
    )


def _rerank_one(
    item: Item,
    candidates: Sequence[Candidate],
    rows: Sequence[int],
    reranker: Reranker,
    fusion: Fusion,
    reader: PictureReader,
) -> _Entry:
    """Re-rank one query's candidates, which are these gallery rows."""
    try:
        known = Telemetry(
            relative_altitude_m=item.altitude_m if (item.altitude_m or 0.0) > 0.5 else None
        )
        query = Query(name=item.id, image=reader.read(item), telemetry=known, path=item.path)
    except SkyLinkError as error:
        return _Entry(query=item.id, failed=True, note=error.message)
    ranking = rerank(reranker, query, candidates, fusion)
    if not ranking.reranked:
        return _Entry(query=item.id, failed=ranking.failed, note=ranking.note)
    row_of = {c.id: row for c, row in zip(candidates, rows, strict=True)}
    return _Entry(
        query=item.id,
        reranked=True,
        note=ranking.note,
        rows=[row_of[c.id] for c in ranking.candidates],
        scores=[c.score for c in ranking.candidates],
    )


def _candidate(task: Task, row: int, score: float) -> Candidate:
    """A gallery image as a candidate; a benchmark's has no place on a map of ours."""
    item = task.gallery[row]
    nowhere = float("nan")
    return Candidate(
        lon=nowhere if item.lon is None else item.lon,
        lat=nowhere if item.lat is None else item.lat,
        score=score, id=item.id, area=0, level=0, x_m=nowhere, y_m=nowhere,
    )  # fmt: skip


def _above(fused: Sequence[float], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fused scores, lifted so that the lowest of them is above the rest of the list."""
    values = np.asarray(fused, np.float64)
    if not len(rest):
        return values
    return np.asarray(values - values.min() + float(rest[0]) + 1.0)


def _fingerprint(
    task: Task,
    rows: NDArray[np.int64],
    scores: NDArray[np.float64],
    reranker: Reranker,
    top_k: int,
    fusion: Fusion,
    made_from: object,
) -> dict[str, Any]:
    """What a journal's lines depend on; another fingerprint begins anew."""
    digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes())
    digest.update(np.ascontiguousarray(scores).tobytes())
    for item in (*task.queries, *task.gallery):
        digest.update(f"{item.id}\n{item.path}\n".encode())
    return {
        "task": task.title,
        "split": task.split,
        "lists": digest.hexdigest(),
        "reranker": getattr(reranker, "about", reranker.name),
        "made_from": repr(made_from),
        "top_k": top_k,
        "base_weight": fusion.base_weight,
        "gate_margin": fusion.gate_margin,
    }


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"
