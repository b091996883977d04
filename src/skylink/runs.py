"""Runs and judgments: what any retriever or re-ranker, ours or not, is scored from.

A `Run` has a ranked list for each query, `Qrels` say what is right. `runfiles.py` reads and writes
both. A query of the qrels without a list counts as not found and is counted; a positive that a list
does not hold counts as not retrieved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skylink.errors import RunError
from skylink.relevance import Relevance
from skylink.retrieval_metrics import NOT_FOUND, Denominator, PositiveRanks, RetrievalFigures

MAX_ID = 1024
"""Characters of a query's or document's id."""


@dataclass(frozen=True, slots=True, eq=False)
class RankedList:
    """The candidates of one query, best first.

    Attributes:
        ids: K different ids.
        scores: (K,) float64, finite, never rising. Equal scores keep their order.

    Raises:
        RunError: it is not so.
    """

    ids: tuple[str, ...]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.ids),) or self.scores.dtype != np.float64:
            raise RunError(f"{len(self.ids)} candidates, but scores {self.scores.shape}")
        if not np.isfinite(self.scores).all():
            bad = self.ids[int(np.flatnonzero(~np.isfinite(self.scores))[0])]
            raise RunError(f"the score of {bad!r} is NaN or infinite: it can't be ranked")
        if (self.scores[1:] > self.scores[:-1]).any():
            raise RunError("scores rise along the list", hint="higher is better: negate distances")
        if len(set(self.ids)) < len(self.ids):
            twice = next(i for n, i in enumerate(self.ids) if i in self.ids[:n])
            raise RunError(f"the candidate {twice!r} is there twice")

    @classmethod
    def by_score(cls, ids: Sequence[str], scores: ArrayLike) -> RankedList:
        """Sort by score, highest first; equal scores stay in the given order."""
        values = np.asarray(scores, dtype=np.float64)
        if values.shape != (len(ids),):
            raise RunError(f"{len(ids)} candidates, but scores {values.shape}")
        order = np.argsort(-values, kind="stable")
        return cls(tuple(ids[i] for i in order.tolist()), values[order])

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self.ids, self.scores.tolist(), strict=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RankedList):
            return NotImplemented
        return self.ids == other.ids and np.array_equal(self.scores, other.scores)

    __hash__ = None  # type: ignore[assignment]  # it holds an array


@dataclass(frozen=True, slots=True)
class Run(Mapping[str, RankedList]):
    """Query id -> its candidates, in the order that the queries came.

    Attributes:
        lists: by query id.
        tag: the name of what made it; TREC's last column.
    """

    lists: Mapping[str, RankedList]
    tag: str = "skylink"

    def __getitem__(self, query: str) -> RankedList:
        return self.lists[query]

    def __iter__(self) -> Iterator[str]:
        return iter(self.lists)

    def __len__(self) -> int:
        return len(self.lists)

    @classmethod
    def from_arrays(
        cls,
        query_ids: Sequence[str],
        gallery_ids: Sequence[str],
        rows: NDArray[Any],
        scores: NDArray[Any],
        *,
        tag: str = "skylink",
    ) -> Run:
        """From gallery rows and scores of each query's candidates, both (Q, K), best first.

        A row of -1 means that there are no more. Queries without any candidate get no list.

        Raises:
            RunError: shapes differ, an id or candidate is there twice, or scores are out of order.
        """
        rows, scores = np.asarray(rows), np.asarray(scores, dtype=np.float64)
        if rows.ndim != 2 or rows.shape != scores.shape or len(rows) != len(query_ids):
            raise RunError(
                f"{len(query_ids)} queries, rows {rows.shape} and scores {scores.shape} don't fit"
            )
        if len(set(query_ids)) < len(query_ids) or len(set(gallery_ids)) < len(gallery_ids):
            raise RunError("a query's or gallery image's id is there twice")
        if rows.size and not -1 <= rows.min() <= rows.max() < len(gallery_ids):
            raise RunError(f"a row is not one of 0..{len(gallery_ids) - 1}")
        lists = {}
        for query, line, values in zip(query_ids, rows, scores, strict=True):
            listed = line >= 0
            if listed.any():
                ids = tuple(gallery_ids[row] for row in line[listed].tolist())
                lists[query] = RankedList(ids, values[listed])
        return cls(lists, tag)


@dataclass(frozen=True, slots=True)
class Qrels(Mapping[str, Mapping[str, int]]):
    """Query id -> document id -> grade: 1 and above is right, 0 and below is wrong.

    A query whose documents are all wrong is a query without positives. Documents that are not
    judged are wrong, as in trec_eval.
    """

    judged: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __getitem__(self, query: str) -> Mapping[str, int]:
        return self.judged[query]

    def __iter__(self) -> Iterator[str]:
        return iter(self.judged)

    def __len__(self) -> int:
        return len(self.judged)

    def positives(self, query: str) -> frozenset[str]:
        """Ids of what is right for a query."""
        return frozenset(doc for doc, grade in self.judged[query].items() if grade > 0)

    @classmethod
    def from_relevance(
        cls, relevance: Relevance, query_ids: Sequence[str], gallery_ids: Sequence[str]
    ) -> Qrels:
        """Every positive gets the grade 1, whatever its weight.

        TREC names a query only by judging a document, so that one without positives has the first
        gallery image judged wrong, which it is.

        Raises:
            RunError: the ids are not as many as the relevance has rows, or not all different.
        """
        for name, ids, count in (
            ("query", query_ids, relevance.queries),
            ("gallery", gallery_ids, relevance.gallery),
        ):
            if len(ids) != count or len(set(ids)) < count:
                raise RunError(f"{len(ids)} {name} ids for {count} rows, or one is there twice")
        judged = {}
        for query, (start, stop) in enumerate(
            zip(relevance.indptr[:-1].tolist(), relevance.indptr[1:].tolist(), strict=True)
        ):
            rows = relevance.positives[start:stop].tolist()
            grades = {gallery_ids[row]: 1 for row in rows} or {gallery_ids[0]: 0}
            judged[query_ids[query]] = grades
        return cls(judged)


def run_ranks(
    run: Run, qrels: Qrels, *, gallery: int | None = None, ignore_unjudged: bool = False
) -> PositiveRanks:
    """Ranks of the positives of every query of the qrels, in their order.

    Args:
        run: what was found.
        qrels: what is right.
        gallery: images in the gallery, where known: recall at 1 % depends on it.
        ignore_unjudged: leave out queries of the run that the qrels don't know, as trec_eval does
            in silence.

    Raises:
        RunError: the qrels are empty, or don't know a query of the run.
    """
    if not qrels:
        raise RunError("the qrels have no queries")
    unknown = [query for query in run if query not in qrels]
    if unknown and (not ignore_unjudged or len(unknown) == len(run)):
        raise RunError(
            f"{len(unknown)} of {len(run)} queries of the run are not in the qrels, "
            f"the first is {unknown[0]!r} (the qrels begin with {next(iter(qrels))!r})",
            hint="run and qrels must name queries alike; "
            "add the missing judgments, or take these queries out of the run",
        )
    depth = max((len(ranked) for ranked in run.values()), default=0)
    if gallery is not None and gallery < depth:
        raise RunError(f"a list has {depth} candidates, but the gallery only {gallery}")
    ranks: list[int] = []
    indptr = [0]
    for query in qrels:
        positives = qrels.positives(query)
        listed = run.lists[query].ids if query in run.lists else ()
        found = [rank for rank, doc in enumerate(listed, 1) if doc in positives]
        ranks += found + [NOT_FOUND] * (len(positives) - len(found))
        indptr.append(len(ranks))
    return PositiveRanks(
        indptr=np.array(indptr, dtype=np.int64),
        ranks=np.array(ranks, dtype=np.int64),
        depth=depth,
        ranked=gallery,
        gallery=gallery,
        unanswered=sum(query not in run.lists for query in qrels),
    )


def evaluate_run(
    run: Run,
    qrels: Qrels,
    *,
    k: Sequence[int] = (1, 5, 10),
    oracle_k: int = 10,
    denominator: Denominator = Denominator.all_queries,
    gallery: int | None = None,
    ignore_unjudged: bool = False,
) -> RetrievalFigures:
    """The figures of a run; arguments as for `run_ranks` and `PositiveRanks.figures`.

    Raises:
        RunError: see `run_ranks`; or no query has a positive and `denominator` needs one.
    """
    ranks = run_ranks(run, qrels, gallery=gallery, ignore_unjudged=ignore_unjudged)
    try:
        return ranks.figures(k=k, oracle_k=oracle_k, denominator=denominator)
    except ValueError as error:
        raise RunError(str(error)) from error
