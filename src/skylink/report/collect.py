"""From an evaluation to the details of its queries: one's own map, or a benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skylink.bases import Base
from skylink.benchmark import list_distances_m, ranked_under, reranked_ranks
from skylink.camera import ground_width_m
from skylink.datasets import Item, Task
from skylink.evaluate import Evaluation
from skylink.figures import Outcome
from skylink.gallery import Gallery
from skylink.relevance import Distractors, Relevance
from skylink.report.details import (
    SHOWN,
    Header,
    Place,
    QueryDetails,
    digest,
    relative,
    write_details,
)
from skylink.rerank_run import Reranked
from skylink.retrieval_metrics import NOT_FOUND
from skylink.types import Candidate

MARGIN = 1.15
"""Pictures of the map are this much wider than what the photo shows."""


def write_gallery_details(results: Path, evaluation: Evaluation, gallery: Gallery) -> Path:
    """The details of an evaluation on one's own map, beside its results.

    Args:
        results: where `evaluation.to_json()` was written.
        evaluation: whose outcomes are told.
        gallery: what was searched.

    Raises:
        OutputError: they can't be written.
    """
    header = Header(
        kind="gallery",
        source=relative(gallery.path, results.parent),
        results_sha256=digest(evaluation.to_json()),
        queries=len(evaluation.outcomes),
        ranked=evaluation.results.top_k,
    )
    tolerance = evaluation.results.tolerance_m
    queries = [_located(o, gallery, tolerance, results.parent) for o in evaluation.outcomes]
    return write_details(results, header, queries)


def _located(outcome: Outcome, gallery: Gallery, tolerance_m: float, folder: Path) -> QueryDetails:
    row, estimate = outcome.row, outcome.estimate
    path = relative(row.path, folder)
    on_ground = row.ground_lon is not None and row.ground_lat is not None
    lon, lat = (row.ground_lon, row.ground_lat) if on_ground else (row.truth_lon, row.truth_lat)
    if estimate is None:
        return QueryDetails(
            query=row.file, path=path, lon=lon, lat=lat, failed=True, note=outcome.error
        )
    base = _places(outcome.base, outcome.base_m, gallery, tolerance_m)
    final = _places(estimate.candidates, outcome.final_m, gallery, tolerance_m)
    answer = None
    if estimate.refined:
        within = replace(estimate.candidates[0], lon=estimate.lon, lat=estimate.lat,
                         pose=estimate.pose)  # fmt: skip
        errors = np.array([outcome.answer_m])
        (answer,) = _places([within], errors, gallery, tolerance_m)
    truth = []
    if on_ground:
        shown = base[0]
        truth = [
            Place(
                id="truth", right=True, error_m=0.0, lon=lon, lat=lat, area=shown.area,
                level=shown.level, heading_deg=shown.heading_deg, width_m=shown.width_m,
            )
        ]  # fmt: skip
    return QueryDetails(
        query=row.file,
        path=path,
        lon=lon,
        lat=lat,
        base=base,
        final=final if estimate.reranked else [],
        answer=answer,
        positives=truth,
        base_rank=_first(outcome.base_m <= tolerance_m),
        final_rank=_first(outcome.final_m <= tolerance_m),
        confidence=estimate.confidence,
        radius_m=estimate.radius_m if math.isfinite(estimate.radius_m) else None,
        radius_90_m=estimate.radius_90_m if math.isfinite(estimate.radius_90_m) else None,
        located=estimate.located,
        reranked=estimate.reranked,
        failed=estimate.rerank_failed,
        note=estimate.rerank_note,
    )


def _first(hits: NDArray[np.bool_]) -> int | None:
    """The rank, from 1, of the first hit."""
    return int(np.argmax(hits)) + 1 if hits.any() else None


def _places(
    candidates: Sequence[Candidate], errors_m: NDArray[np.float64], gallery: Gallery,
    tolerance_m: float,
) -> list[Place]:  # fmt: skip
    return [
        Place(
            id=c.id,
            score=c.score if math.isfinite(c.score) else None,
            right=bool(error <= tolerance_m),
            error_m=round(float(error), 2) if math.isfinite(error) else None,
            lon=c.lon,
            lat=c.lat,
            area=c.area,
            level=c.level,
            heading_deg=c.pose.heading_deg % 360 if c.pose else 0.0,
            width_m=MARGIN * ground_width_m(c.pose) if c.pose else gallery.levels[c.level].tile_m,
        )
        for c, error in zip(candidates[:SHOWN], errors_m, strict=False)
    ]


def write_benchmark_details(
    results: Path,
    text: str,
    task: Task,
    relevance: Relevance,
    base: Base,
    reranked: Reranked | None,
    *,
    root: Path,
    distractors: Distractors,
) -> Path:
    """The details of an evaluation on a benchmark, beside its results.

    Args:
        results: where the results were written, and `text`, their content.
        task, relevance, base, reranked: what they are of.
        root: the dataset's folder.
        distractors: the convention of the lists and ranks that are told.

    Raises:
        OutputError: they can't be written.
    """
    ranks = {"base": base.ranks[distractors]}
    lists = {"base": ranked_under(base.rows, relevance, distractors, base.scores)}
    if reranked is not None:
        ranks["final"] = reranked_ranks(base, reranked, relevance, distractors)
        lists["final"] = ranked_under(reranked.rows, relevance, distractors, reranked.scores)
    header = Header(
        kind="benchmark",
        source=relative(root, results.parent),
        results_sha256=digest(text),
        queries=len(task.queries),
        ranked=ranks["base"].depth,
    )
    firsts = {which: found.first() for which, found in ranks.items()}
    lists["positives"] = _padded(task.positives), np.full((len(task.queries), SHOWN), np.nan)
    paths = [_path(item, root) for item in task.gallery]
    drawn = {which: _Tiles(task, rows, scores, paths) for which, (rows, scores) in lists.items()}
    queries = []
    for index, item in enumerate(task.queries):
        first = {k: int(v[index]) if v[index] != NOT_FOUND else None for k, v in firsts.items()}
        done = reranked is not None and bool(reranked.reranked[index])
        queries.append(
            QueryDetails(
                query=item.id,
                path=_path(item, root),
                window=item.window,
                lon=item.lon,
                lat=item.lat,
                base=drawn["base"].of(index),
                final=drawn["final"].of(index) if done else [],
                positives=drawn["positives"].of(index),
                base_rank=first["base"],
                final_rank=first.get("final", first["base"]),
                reranked=done,
                failed=reranked is not None and bool(reranked.failed[index]),
            )
        )
    return write_details(results, header, queries)


def _padded(lists: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """(Q, SHOWN) the first of each list, -1 after its end."""
    rows = np.full((len(lists), SHOWN), -1, np.int64)
    for row, listed in zip(rows, lists, strict=True):
        row[: len(listed[:SHOWN])] = listed[:SHOWN]
    return rows


class _Tiles:
    """Gallery images of a task's lists.

    Args:
        task: whose lists.
        rows: (Q, K), -1 after the end.
        scores: (Q, K), NaN where there are none.
        paths: of the gallery, as `Place.path`.
    """

    def __init__(
        self,
        task: Task,
        rows: NDArray[np.int64],
        scores: NDArray[np.float64],
        paths: Sequence[str | None],
    ) -> None:
        self._task, self._paths = task, paths
        self._rows, self._scores = rows[:, :SHOWN], scores[:, :SHOWN]
        self._metres = list_distances_m(task, self._rows) if task.metres else None

    def of(self, query: int) -> list[Place]:
        """One query's."""
        right = self._task.positives[query]
        return [
            self._place(query, rank, int(row), int(row) in right)
            for rank, row in enumerate(self._rows[query])
            if row >= 0
        ]

    def _place(self, query: int, rank: int, row: int, right: bool) -> Place:
        item, score = self._task.gallery[row], float(self._scores[query, rank])
        return Place(
            id=item.id,
            score=None if math.isnan(score) else score,
            right=right,
            error_m=None if self._metres is None else round(float(self._metres[query, rank]), 2),
            path=self._paths[row],
            window=item.window,
            lon=item.lon,
            lat=item.lat,
        )


def _path(item: Item, root: Path) -> str | None:
    """The file below the dataset's folder, where the id does not say it."""
    try:
        path = item.path.relative_to(root).as_posix()
    except ValueError:  # the dataset lies behind a link
        path = str(item.path.absolute())
    return None if path == item.id else path
