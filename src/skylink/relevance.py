"""Who is right for whom in a retrieval benchmark, and which gallery images are distractors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skylink.retrieval_metrics import BoolArray, IntArray

JUNK_LABEL = -1
"""The gallery label of Sample4Geo, DAC, CAMP, MEAN and Game4Loc for images that no query shows."""


class Distractors(StrEnum):
    """What becomes of gallery images whose place no query shows. Numbers differ: say which.

    University-1652, drone to satellite: 951 images kept, 701 with distractors dropped.
    """

    kept = "distractors kept"
    """University-1652's baseline, MCCG, SUES-200's benchmark."""
    dropped = "distractors dropped as junk"
    """Sample4Geo, DAC, CAMP, MEAN, Game4Loc: labelled -1 and taken out before ranking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relevance:
    """Which gallery rows are right for which query, sparse (CSR).

    Attributes:
        indptr: (Q+1,) int64; query q has `positives[indptr[q]:indptr[q+1]]`.
        positives: (nnz,) int64 gallery rows, ascending within a query, each once.
        weights: (nnz,) float32 > 0, such as GTA-UAV's overlap (IoU); 1 where there are none.
            Retrieval metrics take every positive alike: `at_least` draws a line first.
        gallery: number of gallery rows.
        distractors: (gallery,) bool, rows that no query of the benchmark shows.

    Raises:
        ValueError: the arrays don't fit each other.
    """

    indptr: IntArray
    positives: IntArray
    weights: NDArray[np.float32]
    gallery: int
    distractors: BoolArray

    def __post_init__(self) -> None:
        counts = np.diff(self.indptr)
        if len(self.indptr) < 2 or self.indptr[0] != 0 or (counts < 0).any():
            raise ValueError("indptr does not start at 0 and rise, or there are no queries")
        if self.indptr[-1] != len(self.positives) or self.positives.shape != self.weights.shape:
            raise ValueError("indptr, positives and weights don't have the same length")
        if ((self.positives < 0) | (self.positives >= self.gallery)).any():
            raise ValueError(f"a positive is not one of the {self.gallery} gallery rows")
        query = np.repeat(np.arange(len(counts)), counts)
        if ((np.diff(query) == 0) & (np.diff(self.positives) <= 0)).any():
            raise ValueError("the positives of a query are not ascending, or one is there twice")
        if not (np.isfinite(self.weights) & (self.weights > 0)).all():
            raise ValueError("a weight is not a positive number")
        if self.distractors.dtype != np.bool_ or self.distractors.shape != (self.gallery,):
            raise ValueError(f"distractors is not bool ({self.gallery},)")
        if self.distractors[self.positives].any():
            raise ValueError("a positive is marked as a distractor")

    @property
    def queries(self) -> int:
        """Number of queries."""
        return len(self.indptr) - 1

    @classmethod
    def from_labels(cls, query_labels: ArrayLike, gallery_labels: ArrayLike) -> Relevance:
        """Positives are the gallery images with the query's label; other rows are distractors.

        Args:
            query_labels: (Q,) whole numbers or texts.
            gallery_labels: (G,) of the same kind. The number -1 is the label of junk.
        """
        query, gallery = _labels("query", query_labels), _labels("gallery", gallery_labels)
        if query.dtype.kind != gallery.dtype.kind:
            raise ValueError("query labels and gallery labels are not of one kind: 839 is not 0839")
        if query.dtype.kind == "i" and (query == JUNK_LABEL).any():
            raise ValueError("a query has the label -1, which marks junk in the gallery")
        order = np.argsort(gallery, kind="stable")
        first = np.searchsorted(gallery, query, side="left", sorter=order)
        counts = np.searchsorted(gallery, query, side="right", sorter=order) - first
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        positives = order[np.arange(indptr[-1]) + np.repeat(first - indptr[:-1], counts)]
        return cls._of(indptr, positives.astype(np.int64), None, len(gallery))

    @classmethod
    def from_lists(
        cls,
        positives: Sequence[Sequence[int]],
        gallery: int,
        weights: Sequence[Sequence[float]] | None = None,
        *,
        distractors: Sequence[int] | None = None,
    ) -> Relevance:
        """From each query's gallery rows, in any order, and their weights.

        Args:
            positives: Q lists of rows in 0..gallery-1; an empty list is a query without positives.
            gallery: number of gallery rows.
            weights: Q lists as long as those.
            distractors: rows that no query shows; by default those that are positives of none.
                Semi-positives, such as GTA-UAV's, are neither: give the rows where there are some.
        """
        lengths = [len(rows) for rows in positives]
        if weights is not None and [len(w) for w in weights] != lengths:
            raise ValueError("weights and positives differ in length")
        indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        flat = np.array([row for rows in positives for row in rows], dtype=np.int64)
        order = np.lexsort((flat, np.repeat(np.arange(len(lengths)), lengths)))
        heavy = None
        if weights is not None:
            heavy = np.array([w for ws in weights for w in ws], dtype=np.float32)[order]
        relevance = cls._of(indptr, flat[order], heavy, gallery)
        if distractors is None:
            return relevance
        return replace(relevance, distractors=np.isin(np.arange(gallery), distractors))

    def at_least(self, weight: float) -> Relevance:
        """Positives of at least this weight alone; the distractors stay what they were."""
        keep = self.weights >= weight
        indptr = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])[self.indptr]
        return replace(
            self, indptr=indptr, positives=self.positives[keep], weights=self.weights[keep]
        )

    def select(self, queries: ArrayLike) -> Relevance:
        """Some queries (numbers, (n,)). Distractors stay those of the whole benchmark."""
        chosen = np.asarray(queries, dtype=np.int64)
        counts = np.diff(self.indptr)[chosen]
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        at = np.arange(indptr[-1]) + np.repeat(self.indptr[chosen] - indptr[:-1], counts)
        return replace(self, indptr=indptr, positives=self.positives[at], weights=self.weights[at])

    def under(self, distractors: Distractors) -> tuple[Relevance, IntArray]:
        """The same under a convention, and the gallery rows (n,) that are ranked under it."""
        if distractors is Distractors.kept:
            return self, np.arange(self.gallery)
        rows = np.flatnonzero(~self.distractors)
        relevance = Relevance(
            indptr=self.indptr,
            positives=np.searchsorted(rows, self.positives),
            weights=self.weights,
            gallery=len(rows),
            distractors=np.zeros(len(rows), bool),
        )
        return relevance, rows

    @classmethod
    def _of(
        cls,
        indptr: IntArray,
        positives: IntArray,
        weights: NDArray[np.float32] | None,
        gallery: int,
    ) -> Relevance:
        if ((positives < 0) | (positives >= gallery)).any():
            raise ValueError(f"a positive is not one of the {gallery} gallery rows")
        distractors = np.ones(gallery, bool)
        distractors[positives] = False
        weights = np.ones(len(positives), np.float32) if weights is None else weights
        return cls(
            indptr=indptr,
            positives=positives,
            weights=weights,
            gallery=gallery,
            distractors=distractors,
        )


def _labels(name: str, values: ArrayLike) -> NDArray[Any]:
    labels = np.asarray(values)
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise ValueError(f"{name} labels are {labels.dtype} {labels.shape}, not numbers or texts")
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)
