"""Retrieval metrics from the ranks of the positives alone, each variant under its own name.

Recall and average precision need no sorted gallery: they need to know at which ranks the right
images came. `PositiveRanks` holds these, whatever they were made from (`protocol.py`: descriptors,
score matrices, ranked lists; `runs.py`: run files), and gives per-query values, which paired
bootstrap and flips need, and the figures of a table.

Peers differ in three places, and a number without its variant means nothing:
- average precision in steps (scikit-learn, TREC, GTA-UAV) or by trapezoids (University-1652,
  Sample4Geo and most others): a single positive at rank 2 scores 0.5 or 0.25;
- "1 %" (`OnePercent`);
- queries without positives (`Denominator`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NOT_FOUND = int(np.iinfo(np.int64).max)
"""The rank of a positive that a ranking of the best K does not hold."""


class OnePercent(StrEnum):
    """The K of "recall at 1 %" for a gallery of N."""

    rounded = "recall@1%"
    """K = round(N / 100), at least 1; N counts the ranked images."""
    floored = "recall@1%_floor"
    """K = floor(N / 100), at least 1: Sample4Geo and others on CVUSA, CVACT and VIGOR."""
    top1 = "recall@top1"
    """K = round(N / 100) + 1: "Recall@top1" of University-1652, SUES-200 and GTA-UAV reads the
    curve at the index round(N / 100), from 0. N counts dropped distractors too, as it does there.
    """

    def k(self, *, ranked: int, gallery: int) -> int:
        """K, from 1, of a gallery of which `ranked` images were ranked."""
        if self is OnePercent.top1:
            return round(gallery * 0.01) + 1
        return max(1, ranked // 100 if self is OnePercent.floored else round(ranked * 0.01))


class Denominator(StrEnum):
    """Over how many queries a mean is taken."""

    all_queries = "all queries"
    """Queries without positives score 0. University-1652's script skips them but divides by all,
    which is the same; so does the recall, not the AP, of GTA-UAV's."""
    answerable = "queries with positives"
    """Queries without positives are left out: scikit-learn-style mAP, the AP of GTA-UAV."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalFigures:
    """Figures of one ranking of a benchmark; percentages in 0..100.

    Attributes:
        queries: how many there are, those without positives included.
        without_positives: queries that nothing in the gallery is right for.
        unanswered: queries that the run has no list for; they count as not found.
        denominator: what the means are over.
        gallery: images in the gallery; None where it is not known (a run file).
        ranked: of them, those that were ranked: without dropped distractors.
        depth: how many of the best were kept for each query; `ranked` for a full ranking.
        recall: recall@K by K: a positive among the first K. None for K > depth, where the list
            can't tell.
        one_percent: recall at 1 % by variant; None also where the gallery's size is not known.
        ap_step, ap_trapezoid: mean average precision in the two definitions. In a list that does
            not hold all positives those missing count as precision 0, so both are lower bounds.
        mrr: mean reciprocal rank of the first positive.
        oracle_k, oracle_recall_at_1: recall@1 that a perfect re-ranker of the best `oracle_k`
            would reach; it equals recall@oracle_k.
    """

    queries: int
    without_positives: int
    unanswered: int
    denominator: Denominator
    gallery: int | None
    ranked: int | None
    depth: int
    recall: Mapping[int, float | None]
    one_percent: Mapping[OnePercent, float | None]
    ap_step: float
    ap_trapezoid: float
    mrr: float
    oracle_k: int
    oracle_recall_at_1: float | None

    def as_dict(self) -> dict[str, float | str | None]:
        """Flat and ready for JSON: `recall@1`, `recall@1%`, `recall@top1`, `ap_step`, ..."""
        return {
            "queries": self.queries,
            "without_positives": self.without_positives,
            "unanswered": self.unanswered,
            "denominator": self.denominator.value,
            "gallery": self.gallery,
            "ranked": self.ranked,
            "depth": self.depth,
            **{f"recall@{k}": value for k, value in self.recall.items()},
            **{variant.value: value for variant, value in self.one_percent.items()},
            "ap_step": self.ap_step,
            "ap_trapezoid": self.ap_trapezoid,
            "mrr": self.mrr,
            f"oracle_recall@1_of_{self.oracle_k}": self.oracle_recall_at_1,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PositiveRanks:
    """At which ranks the positives of each query came.

    Attributes:
        indptr: (Q+1,) int64; query q has `ranks[indptr[q]:indptr[q+1]]`.
        ranks: (nnz,) int64 from 1, ascending within a query; `NOT_FOUND` where not retrieved.
        depth: how many of the best each query's ranking holds at least.
        ranked: gallery images that took part in the ranking; None where not known.
        gallery: all gallery images, dropped distractors included; None where not known.
        unanswered: queries that have no ranking at all.

    Raises:
        ValueError: the arrays don't fit each other, or a rank is out of range or order.
    """

    indptr: IntArray
    ranks: IntArray
    depth: int
    ranked: int | None = None
    gallery: int | None = None
    unanswered: int = 0

    def __post_init__(self) -> None:
        if self.indptr.ndim != 1 or len(self.indptr) < 2:
            raise ValueError("there are no queries")
        counts = np.diff(self.indptr)
        if self.indptr[0] != 0 or (counts < 0).any() or self.indptr[-1] != len(self.ranks):
            raise ValueError("indptr does not partition the ranks")
        if (self.ranks < 1).any():
            raise ValueError("a rank is not at least 1")
        same_query = np.diff(self._query()) == 0
        step = np.diff(self.ranks)
        if (same_query & (step <= 0) & (self.ranks[1:] != NOT_FOUND)).any():
            raise ValueError("the ranks of a query are not ascending")

    @property
    def positives(self) -> IntArray:
        """(Q,) how many images are right for each query."""
        return np.diff(self.indptr)

    def first(self) -> IntArray:
        """(Q,) rank of the best positive; `NOT_FOUND` where none was retrieved or none exists."""
        best = np.full(len(self.indptr) - 1, NOT_FOUND, np.int64)
        some = self.positives > 0
        best[some] = self.ranks[self.indptr[:-1][some]]
        return best

    def hit_at(self, k: int) -> BoolArray:
        """(Q,) bool: a positive among the first k. What flips and bootstrap intervals take.

        Raises:
            ValueError: k is not at least 1, or beyond what the rankings hold.
        """
        if k < 1:
            raise ValueError(f"k = {k} is not at least 1")
        if not self._holds(k):
            raise ValueError(f"k = {k}, but the rankings hold only the best {self.depth}")
        return self.first() <= k

    def average_precision_step(self) -> FloatArray:
        """(Q,) 0..1, as `metrics.average_precision_step`; 0 for queries without positives."""
        return self._mean_over_positives(self._nth() / self.ranks)

    def average_precision_trapezoid(self) -> FloatArray:
        """(Q,) 0..1, as `metrics.average_precision_trapezoid`."""
        nth, rank = self._nth(), self.ranks
        before = np.where(rank > 1, (nth - 1) / np.maximum(rank - 1, 1), 1.0)
        return self._mean_over_positives((nth / rank + before) / 2)

    def reciprocal_rank(self) -> FloatArray:
        """(Q,) 0..1: 1 / rank of the best positive, 0 where there is none."""
        first = self.first()
        return np.where(first == NOT_FOUND, 0.0, 1.0 / first)

    def figures(
        self,
        *,
        k: Sequence[int] = (1, 5, 10),
        oracle_k: int = 10,
        denominator: Denominator = Denominator.all_queries,
    ) -> RetrievalFigures:
        """The figures of a table.

        Args:
            k: the Ks of recall@K.
            oracle_k: how many of the best a re-ranker is given.
            denominator: what the means are over.

        Raises:
            ValueError: a K below 1, or no query has a positive to take a mean over.
        """
        answerable = self.positives > 0
        over = answerable if denominator is Denominator.answerable else np.ones_like(answerable)
        if not over.any():
            raise ValueError("no query has a positive: there is nothing to take a mean over")

        def percent(values: FloatArray | BoolArray) -> float:
            return 100.0 * float(values[over].mean())

        def recall(at: int) -> float | None:
            return percent(self.hit_at(at)) if at < 1 or self._holds(at) else None

        one_percent: dict[OnePercent, float | None] = dict.fromkeys(OnePercent)
        if self.ranked is not None and self.gallery is not None:
            for variant in OnePercent:
                one_percent[variant] = recall(variant.k(ranked=self.ranked, gallery=self.gallery))
        return RetrievalFigures(
            queries=len(answerable),
            without_positives=int((~answerable).sum()),
            unanswered=self.unanswered,
            denominator=denominator,
            gallery=self.gallery,
            ranked=self.ranked,
            depth=self.depth,
            recall={at: recall(at) for at in k},
            one_percent=one_percent,
            ap_step=percent(self.average_precision_step()),
            ap_trapezoid=percent(self.average_precision_trapezoid()),
            mrr=percent(self.reciprocal_rank()),
            oracle_k=oracle_k,
            oracle_recall_at_1=recall(oracle_k),
        )

    def _holds(self, k: int) -> bool:
        """Whether recall@k is known: within the lists, or beyond a ranking of everything."""
        return k <= self.depth or self.depth == self.ranked

    def _query(self) -> IntArray:
        """(nnz,) the query of each positive."""
        return np.repeat(np.arange(len(self.indptr) - 1), self.positives)

    def _nth(self) -> IntArray:
        """(nnz,) from 1: which of its query's positives each is, best first."""
        return np.arange(1, len(self.ranks) + 1) - np.repeat(self.indptr[:-1], self.positives)

    def _mean_over_positives(self, precision: FloatArray) -> FloatArray:
        precision = np.where(self.ranks == NOT_FOUND, 0.0, precision)
        count = self.positives
        total = np.bincount(self._query(), weights=precision, minlength=len(count))
        return np.asarray(total / np.maximum(count, 1), dtype=np.float64)
