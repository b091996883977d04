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
from skylink.localization_metrics import dis_at, sdm_denseuav, sdm_gta
from skylink.metrics import block_bootstrap, flips, median_error_m, within_m
from skylink.protocol import ranks_from_lists
from skylink.relevance import Distractors, Relevance
from skylink.rerank_run import Reranked
from skylink.retrieval_metrics import NOT_FOUND, PositiveRanks

SCHEMA = 1
SDM_K = (1, 3, 5)
RADII_M = (25.0, 50.0, 100.0)
Number = float | str | None


class BenchmarkResults(BaseModel):
    """results.json of a benchmark. Keys are stable within a schema version.

    Attributes:
        protocol: dataset, protocol, split and gallery convention, in words.
        retrieved, reranked: figures (`RetrievalFigures.as_dict`, `ap` = `ap_step`, and metres where
            the dataset has positions) under `distractors`; re-ranked is None without a re-ranker.
        other_convention: the same two under the other convention, where they differ.
        flips: queries whose first place was put right, and put wrong.
        reranked_minus_retrieved_interval: of recall@1, percent, 95 %, paired; queries of one place
            are drawn together.
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
    reranked_minus_retrieved_interval: tuple[float, float] | None
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
    """All figures of one base and at most one re-ranker on one task."""
    after = None
    if reranked is not None:
        after = {c: reranked_ranks(base, reranked, relevance, c) for c in Distractors}
    other = next(c for c in Distractors if c is not distractors)
    before_hits = base.ranks[distractors].hit_at(1)
    after_hits = before_hits if after is None else after[distractors].hit_at(1)
    fixed, broken = flips(before_hits, after_hits)
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
        retrieved=_figures(task, base.rows, base.ranks[distractors], top_k),
        reranked=None
        if reranked is None or after is None
        else _figures(task, reranked.rows, after[distractors], top_k),
        other_convention={
            "retrieved": _figures(task, base.rows, base.ranks[other], top_k),
            "reranked": None
            if reranked is None or after is None
            else _figures(task, reranked.rows, after[other], top_k),
        }
        if relevance.distractors.any()
        else None,
        flips={"fixed": fixed, "broken": broken},
        reranked_minus_retrieved_interval=_interval(task, before_hits, after_hits)
        if after is not None
        else None,
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


def _figures(
    task: Task, rows: NDArray[np.int64], ranks: PositiveRanks, top_k: int
) -> dict[str, Number]:
    found = ranks.figures(k=(1, 5, 10, 20), oracle_k=top_k).as_dict()
    return {**found, "ap": found["ap_step"], **_metres(task, rows)}


def _metres(task: Task, rows: NDArray[np.int64]) -> dict[str, Number]:
    """Figures of distance, where the dataset has positions; a query without a list is missed."""
    if task.metres is None:
        return {}
    depth = min(rows.shape[1], max(SDM_K))
    errors = np.full((len(rows), depth), np.inf)
    for query, line in enumerate(rows[:, :depth]):
        listed = line[line >= 0]
        errors[query, : len(listed)] = task.distances_m(query, listed.tolist())
    figures: dict[str, Number] = {
        "median_error_m": median_error_m(errors[:, 0]),
        **{f"within_{radius:g}_m": within_m(errors[:, 0], radius) for radius in RADII_M},
    }
    for k in (k for k in SDM_K if k <= depth):
        figures[f"sdm_gta@{k}"] = float(sdm_gta(errors, k).mean())
        if task.metres == "geodesic":
            figures[f"sdm_denseuav@{k}"] = _sdm_degrees(task, rows, k)
        whole = np.isfinite(errors[:, :k]).all(axis=1)
        figures[f"dis@{k}_m"] = float(dis_at(errors[whole], k).mean()) if whole.any() else None
    return figures


def _sdm_degrees(task: Task, rows: NDArray[np.int64], k: int) -> float:
    found = task.positions("gallery")[rows[:, :k]]
    found[rows[:, :k] < 0] = np.nan
    truth = task.positions("queries")
    return float(
        sdm_denseuav(
            lon=found[..., 0], lat=found[..., 1], true_lon=truth[:, 0], true_lat=truth[:, 1], k=k
        ).mean()
    )


def _interval(
    task: Task, before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Of the difference of recall@1, percent; photos of one place are not independent."""
    blocks: list[Any] = [item.place or item.id for item in task.queries]
    if len(set(blocks)) < 2:
        return None
    interval = block_bootstrap(100.0 * before, 100.0 * after, blocks)
    return interval.low, interval.high
