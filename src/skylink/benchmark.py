"""Figures of a base and a re-ranker on a published protocol: base beside re-ranked, always both.

Re-ranking the best K changes the ranks of the positives among them and of no other, so metrics of
the whole gallery (AP with its tail, recall at 1 %) stay exact, not cut at K.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from skylink.bases import Base
from skylink.datasets import Task
from skylink.errors import RunError
from skylink.figures import BLOCK_FRAMES
from skylink.geo import distance_m
from skylink.localization_metrics import dis_at, sdm_denseuav, sdm_gta
from skylink.metrics import consecutive_blocks, flips, median_error_m, within_m
from skylink.protocol import ranks_from_lists
from skylink.relevance import Distractors, Relevance
from skylink.rerank_run import Reranked
from skylink.retrieval_metrics import NOT_FOUND, PositiveRanks

SCHEMA = 1
SDM_K = (1, 3, 5)
RADII_M = (25.0, 50.0, 100.0)
SAMPLES = 2000
Percents = tuple[float, float]
Number = float | str | Percents | None


class BenchmarkResults(BaseModel):
    """results.json of a benchmark. Keys are stable within a schema version.

    Attributes:
        protocol: dataset, protocol, split and gallery convention, in words.
        retrieved, reranked: figures (`RetrievalFigures.as_dict`, `ap` = `ap_step`,
            `recall@1_interval_95`, and metres where the dataset has positions) under `distractors`;
            re-ranked is None without a re-ranker. `oracle_recall@1_of_K` is what a perfect one
            would reach with the same K candidates, distractors among them. A `median_error_m` that
            is infinite is null, and `dis@K_m` is over the queries that have K candidates.
        other_convention: the same two under the other convention, where they differ.
        flips: queries whose first place was put right, and put wrong.
        reranked_minus_retrieved_interval: of recall@1, percent, 95 %, paired; queries of one place
            are drawn together, or runs of ten where places have no labels: frames follow each
            other.
        reranked_queries, rerank_failed: how many.
        rerank_notes: why queries were not re-ranked.
    """

    schema_version: int = SCHEMA
    protocol: str
    dataset: str
    task: str
    split: str
    distractors: str
    queries: int
    gallery: int
    retriever: str
    reranker: str
    top_k: int
    retrieved: dict[str, Number]
    reranked: dict[str, Number] | None
    other_convention: dict[str, dict[str, Number] | None] | None
    flips: dict[str, int]
    reranked_minus_retrieved_interval: Percents | None
    reranked_queries: int
    rerank_failed: int
    rerank_notes: dict[str, int]
    ms_per_query: dict[str, float | None]
    notes: list[str] = Field(default_factory=list)


def benchmark_results(
    task: Task,
    relevance: Relevance,
    base: Base,
    reranked: Reranked | None,
    *,
    reranker: str,
    top_k: int,
    distractors: Distractors,
) -> BenchmarkResults:
    """All figures of one base and at most one re-ranker on one task.

    Raises:
        RunError: a list has nothing but distractors, and those are dropped.
    """
    after = None
    if reranked is not None:
        after = {c: reranked_ranks(base, reranked, relevance, c) for c in Distractors}
    if base.ranks[distractors].depth < 1:
        raise RunError(
            f"{base.name}: some lists hold nothing but distractors, so that their first place is "
            "not known once these are dropped",
            hint="bring longer lists, or use --distractors kept",
        )

    # the re-ranker is given distractors too, whatever becomes of them afterwards
    ceiling = base.ranks[Distractors.kept].figures(oracle_k=top_k).oracle_recall_at_1

    def figures(convention: Distractors) -> list[dict[str, Number] | None]:
        """Base and re-ranked."""
        found = [_figures(task, base.rows, base.ranks[convention], relevance, convention)]
        if reranked is not None and after is not None:
            ranks = after[convention]
            found.append(_figures(task, reranked.rows, ranks, relevance, convention))
        for each in found:
            each[f"oracle_recall@1_of_{top_k}"] = ceiling
        return [*found, None][:2]

    hits = [base.ranks[distractors].hit_at(1)]
    if after is not None:
        hits.append(after[distractors].hit_at(1))
    fixed, broken = flips(hits[0], hits[-1])
    retrieved, final = figures(distractors)
    assert retrieved is not None
    spreads = recall_intervals(task, hits)
    retrieved["recall@1_interval_95"] = spreads[0]
    if final is not None:
        final["recall@1_interval_95"] = spreads[1]
    other = None
    if relevance.distractors.any():
        other = next(c for c in Distractors if c is not distractors)
    return BenchmarkResults(
        protocol=f"{task.title}, {task.split} split, {distractors.value}",
        dataset=task.dataset,
        task=task.name,
        split=task.split,
        distractors=distractors.value,
        queries=len(task.queries),
        gallery=len(task.gallery),
        retriever=base.name,
        reranker=reranker,
        top_k=top_k,
        retrieved=retrieved,
        reranked=final,
        other_convention=None
        if other is None
        else dict(zip(("retrieved", "reranked"), figures(other), strict=True)),
        flips={"fixed": fixed, "broken": broken},
        reranked_minus_retrieved_interval=None if after is None else spreads[2],
        reranked_queries=0 if reranked is None else int(reranked.reranked.sum()),
        rerank_failed=0 if reranked is None else int(reranked.failed.sum()),
        rerank_notes={} if reranked is None else reranked.notes,
        ms_per_query={
            "retrieve": base.ms_per_query,
            "rerank": None if reranked is None else reranked.ms_per_query,
        },
        notes=list(task.notes),
    )


def reranked_ranks(
    base: Base, reranked: Reranked, relevance: Relevance, distractors: Distractors
) -> PositiveRanks:
    """Ranks in the whole gallery after re-ranking: new ones in the list, the base's beyond it."""
    listed = ranks_from_lists(reranked.rows, relevance, distractors=distractors)
    before = base.ranks[distractors]
    # both ascend within a query, and a list holds the same positives before and after: those found
    # come first in both
    ranks = np.where(listed.ranks == NOT_FOUND, before.ranks, listed.ranks)
    return PositiveRanks(
        indptr=before.indptr,
        ranks=ranks,
        depth=before.depth,
        ranked=before.ranked,
        gallery=before.gallery,
        unanswered=before.unanswered,
    )


def ranked_under(
    rows: NDArray[np.int64],
    relevance: Relevance,
    distractors: Distractors,
    scores: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(Q, K) lists and scores without what a convention drops; the rest moves up, then -1."""
    values = np.zeros(rows.shape) if scores is None else scores
    if distractors is Distractors.kept:
        return rows, values
    stays = (rows >= 0) & ~relevance.distractors[rows]
    order = np.argsort(~stays, axis=1, kind="stable")
    moved = np.take_along_axis(rows, order, 1)
    moved[~np.take_along_axis(stays, order, 1)] = -1
    return moved, np.take_along_axis(values, order, 1)


def _figures(
    task: Task,
    rows: NDArray[np.int64],
    ranks: PositiveRanks,
    relevance: Relevance,
    distractors: Distractors,
) -> dict[str, Number]:
    found = ranks.figures(k=(1, 5, 10, 20)).as_dict()
    del found["oracle_recall@1_of_10"]
    metres = _metres(task, ranked_under(rows, relevance, distractors)[0])
    return {**found, "ap": found["ap_step"], **metres}


def _metres(task: Task, rows: NDArray[np.int64]) -> dict[str, Number]:
    """Figures of distance, where the dataset has positions; a query without a list is missed."""
    if task.metres is None:
        return {}
    depth = min(rows.shape[1], max(SDM_K))
    errors = list_distances_m(task, rows[:, :depth])
    median = median_error_m(errors[:, 0])
    figures: dict[str, Number] = {
        "median_error_m": median if np.isfinite(median) else None,
        **{f"within_{radius:g}_m": within_m(errors[:, 0], radius) for radius in RADII_M},
    }
    for k in (k for k in SDM_K if k <= depth):
        figures[f"sdm_gta@{k}"] = float(sdm_gta(errors, k).mean())
        if task.metres == "geodesic":
            figures[f"sdm_denseuav@{k}"] = _sdm_degrees(task, rows, k)
        whole = np.isfinite(errors[:, :k]).all(axis=1)
        figures[f"dis@{k}_m"] = float(dis_at(errors[whole], k).mean()) if whole.any() else None
    return figures


def list_distances_m(task: Task, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(Q, K) metres from each query to gallery rows (Q, K); infinite for a row of -1.

    As `Task.distances_m`, but all at once.

    Raises:
        DatasetError: the dataset has no positions.
    """
    truth = task.positions("queries")[:, None]
    found = task.positions("gallery")[rows]
    if task.metres == "geodesic":
        lon, lat = np.broadcast_to(truth, found.shape)[rows >= 0].T
        there = distance_m(
            lon1=lon, lat1=lat, lon2=found[rows >= 0][:, 0], lat2=found[rows >= 0][:, 1]
        )
    else:
        there = np.hypot(*(found - truth)[rows >= 0].T)
    metres = np.full(rows.shape, np.inf)
    metres[rows >= 0] = there
    return metres


def _sdm_degrees(task: Task, rows: NDArray[np.int64], k: int) -> float:
    found = task.positions("gallery")[rows[:, :k]]
    found[rows[:, :k] < 0] = np.nan
    truth = task.positions("queries")
    return float(
        sdm_denseuav(
            lon=found[..., 0], lat=found[..., 1], true_lon=truth[:, 0], true_lat=truth[:, 1], k=k
        ).mean()
    )


def recall_intervals(task: Task, hits: list[NDArray[np.bool_]]) -> list[Percents | None]:
    """95 % intervals of recall@1, percent: of each of one or two rankings, then of the difference.

    The intervals of `metrics.block_bootstrap`, from the same draws, but from each block's sum alone
    and all at once: with 90,000 blocks that is seconds, not minutes. None where there is one block.

    Args:
        task: its places, or the order of its queries, are the blocks.
        hits: (Q,) each: base, or base and re-ranked.
    """
    labels: Any = [item.place for item in task.queries]
    if None in labels:
        labels = consecutive_blocks([str(q.path.parent) for q in task.queries], BLOCK_FRAMES)
    _, member = np.unique(labels, return_inverse=True)
    count = np.bincount(member)
    if len(count) < 2:
        return [None] * (2 * len(hits) - 1)
    right = np.stack([np.bincount(member, weights=100.0 * each) for each in hits])
    rng = np.random.default_rng(0)
    means = np.empty((SAMPLES, len(hits)))
    for sample in means:
        drawn = rng.integers(0, len(count), len(count))
        sample[:] = right[:, drawn].sum(axis=1) / count[drawn].sum()
    series = [*means.T, *np.diff(means, axis=1).T]
    bounds = (np.quantile(values, [0.025, 0.975]) for values in series)
    return [(float(low), float(high)) for low, high in bounds]
