"""Evaluation of a retrieval benchmark: ranks and figures from descriptors, scores or lists.

Fast because nothing is sorted: the rank of a positive is one more than the number of gallery images
that come before it, which is counted in the scores of a block of queries (a matrix product). Scores
are inner products of the descriptors as given; unit-norm ones make them cosines.

Ties go to the lower gallery row, as in `np.argsort(-scores, kind="stable")`: never to the positive
because it is one. NaN and infinity are refused: peers' `argsort()[::-1]` puts NaN first. Misuse
raises `ValueError` here as in `metrics.py`; `descriptors.py` and `runs.py` check what users bring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skylink.relevance import Distractors, Relevance
from skylink.retrieval_metrics import (
    NOT_FOUND,
    Denominator,
    IntArray,
    PositiveRanks,
    RetrievalFigures,
)

SORT_ABOVE = 64
"""Positives of one query from which sorting its scores once is cheaper than counting for each."""

_CHECKED_ROWS = 4096


def rank_metrics(
    query_descriptors: NDArray[Any],
    gallery_descriptors: NDArray[Any],
    relevance: Relevance,
    *,
    distractors: Distractors,
    k: Sequence[int] = (1, 5, 10),
    oracle_k: int = 10,
    denominator: Denominator = Denominator.all_queries,
    memory_mb: int = 256,
) -> RetrievalFigures:
    """All figures of a benchmark from descriptors; see `ranks_of_positives` and `RetrievalFigures`.

    Args:
        query_descriptors: (Q, D) real numbers.
        gallery_descriptors: (G, D).
        relevance: who is right for whom.
        distractors: the gallery convention, which no default can choose for you.
        k, oracle_k, denominator: see `PositiveRanks.figures`.
        memory_mb: bound of a block of scores, beside the descriptors themselves.
    """
    ranks = ranks_of_positives(
        query_descriptors,
        gallery_descriptors,
        relevance,
        distractors=distractors,
        memory_mb=memory_mb,
    )
    return ranks.figures(k=k, oracle_k=oracle_k, denominator=denominator)


def ranks_of_positives(
    query_descriptors: NDArray[Any],
    gallery_descriptors: NDArray[Any],
    relevance: Relevance,
    *,
    distractors: Distractors,
    memory_mb: int = 256,
) -> PositiveRanks:
    """Ranks by inner product.

    Computed in float64 where a descriptor is, else in float32. Rounding there depends on the matrix
    product's blocks, so equal descriptors may differ in the last bit: as in every other evaluation.

    Raises:
        ValueError: shapes don't fit, or a descriptor or score is NaN or infinite.
    """
    wide = any(np.asarray(a).dtype == np.float64 for a in (query_descriptors, gallery_descriptors))
    kind = np.float64 if wide else np.float32
    query = _matrix("query", query_descriptors, relevance.queries)
    gallery = _matrix("gallery", gallery_descriptors, relevance.gallery)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query has {query.shape[1]} dimensions and gallery {gallery.shape[1]}")
    ranked, rows = relevance.under(distractors)
    if len(rows) < relevance.gallery:
        gallery = gallery[rows]
    transposed = gallery.astype(kind, copy=False).T
    blocks = (
        np.matmul(query[part].astype(kind, copy=False), transposed)
        for part in _parts(ranked, np.dtype(kind).itemsize, memory_mb)
    )
    with np.errstate(over="ignore", invalid="ignore"):  # refused as a score that is not finite
        return _counted(blocks, ranked, relevance.gallery)


def ranks_from_scores(
    scores: NDArray[Any], relevance: Relevance, *, distractors: Distractors, memory_mb: int = 256
) -> PositiveRanks:
    """Ranks by a given matrix (Q, G) of scores, higher is better; it may be memory-mapped.

    Raises:
        ValueError: the shape doesn't fit, or a score is NaN or infinite.
    """
    if scores.shape != (relevance.queries, relevance.gallery) or scores.dtype.kind not in "fiu":
        raise ValueError(
            f"scores is {scores.dtype} of shape {scores.shape}, not real numbers "
            f"({relevance.queries}, {relevance.gallery})"
        )
    ranked, rows = relevance.under(distractors)
    parts = _parts(ranked, scores.dtype.itemsize, memory_mb)
    whole = len(rows) == relevance.gallery
    blocks = (scores[part] if whole else scores[part][:, rows] for part in parts)
    return _counted(blocks, ranked, relevance.gallery)


def ranks_from_lists(
    lists: ArrayLike, relevance: Relevance, *, distractors: Distractors
) -> PositiveRanks:
    """Ranks in lists of the best K, such as a re-ranker's; positives beyond them are `NOT_FOUND`.

    Args:
        lists: (Q, K) gallery rows, best first, each once; shorter ones end in -1.
        relevance: who is right for whom.
        distractors: dropped ones leave the lists, so that fewer than K ranks are known.

    Raises:
        ValueError: a row is out of range or twice in a list, or something follows a -1.
    """
    rows = np.asarray(lists)
    if rows.ndim != 2 or len(rows) != relevance.queries or rows.dtype.kind not in "iu":
        raise ValueError(f"lists has the shape {rows.shape}, not ({relevance.queries}, K) rows")
    rows = rows.astype(np.int64)
    listed = rows >= 0
    if (rows < -1).any() or (rows >= relevance.gallery).any():
        raise ValueError(f"a list has a row that is not one of 0..{relevance.gallery - 1}")
    if (listed[:, 1:] & ~listed[:, :-1]).any():
        raise ValueError("a list goes on after a -1")
    query, _ = np.nonzero(listed)
    keys = query * relevance.gallery + rows[listed]
    order = np.argsort(keys)
    if (np.diff(keys[order]) == 0).any():
        raise ValueError("a list has a gallery row twice")
    ranked = len(relevance.under(distractors)[1])
    counts = listed
    if distractors is Distractors.dropped:
        counts = listed & ~relevance.distractors[rows]
    rank_at = np.cumsum(counts, axis=1)
    # each (query, row) pair as one number, so that positives are looked up in one search
    of_query = np.repeat(np.arange(relevance.queries), np.diff(relevance.indptr))
    wanted = of_query * relevance.gallery + relevance.positives
    ranks = np.full(len(wanted), NOT_FOUND, np.int64)
    if len(keys):
        place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
        found = keys[order[place]] == wanted
        ranks[found] = rank_at[listed][order[place[found]]]
    ranks = ranks[np.lexsort((ranks, of_query))]
    dropped = (listed & ~counts).sum(axis=1)
    return PositiveRanks(
        indptr=relevance.indptr,
        ranks=ranks,
        depth=min(ranked, rows.shape[1] - int(dropped.max(initial=0))),
        ranked=ranked,
        gallery=relevance.gallery,
        unanswered=int((~listed.any(axis=1)).sum()),
    )


def _counted(blocks: Iterator[NDArray[Any]], relevance: Relevance, gallery: int) -> PositiveRanks:
    """Ranks in blocks of scores (B, G) that follow each other through the queries."""
    ranks = np.empty(len(relevance.positives), np.int64)
    query = 0
    for scores in blocks:
        if not np.isfinite(scores).all():
            bad = query + int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
            raise ValueError(f"query {bad} has a score that is NaN or infinite: it can't be ranked")
        for row in scores:
            start, stop = relevance.indptr[query], relevance.indptr[query + 1]
            ranks[start:stop] = _ranks(row, relevance.positives[start:stop])
            query += 1
    return PositiveRanks(
        indptr=relevance.indptr,
        ranks=ranks,
        depth=relevance.gallery,
        ranked=relevance.gallery,
        gallery=gallery,
    )


def _ranks(scores: NDArray[Any], positives: IntArray) -> IntArray:
    """Ascending ranks, from 1, of some rows (P,) among all scores (G,)."""
    if len(positives) > SORT_ABOVE:
        # from the end, reversed: stable and descending without a sign, which unsigned ones lack
        order = len(scores) - 1 - np.argsort(scores[::-1], kind="stable")[::-1]
        wanted = np.zeros(len(scores), bool)
        wanted[positives] = True
        return np.flatnonzero(wanted[order]) + 1
    ranks = []
    for row in positives.tolist():
        score = scores[row]
        earlier = np.count_nonzero(scores[:row] >= score)  # a tie goes to the lower row
        ranks.append(1 + earlier + np.count_nonzero(scores[row + 1 :] > score))
    return np.array(sorted(ranks), dtype=np.int64)


def _parts(relevance: Relevance, itemsize: int, memory_mb: int) -> Iterator[slice]:
    """Slices of the queries whose scores fit the memory; at least one query each."""
    if memory_mb < 1:
        raise ValueError(f"memory_mb = {memory_mb} is not at least 1")
    step = max(1, memory_mb * 2**20 // max(1, relevance.gallery * itemsize))
    return (slice(i, i + step) for i in range(0, relevance.queries, step))


def _matrix(name: str, values: NDArray[Any], count: int) -> NDArray[Any]:
    matrix = np.asarray(values)
    if matrix.ndim != 2 or len(matrix) != count or matrix.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} descriptors are {matrix.dtype} of shape {matrix.shape}, not real ({count}, D)"
        )
    for start in range(0, count, _CHECKED_ROWS):
        finite = np.isfinite(matrix[start : start + _CHECKED_ROWS]).all(axis=1)
        if not finite.all():
            bad = start + int(np.flatnonzero(~finite)[0])
            raise ValueError(f"{name} descriptor {bad} is NaN or infinite: it can't be ranked")
    return matrix
