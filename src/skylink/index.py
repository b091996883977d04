"""Nearest descriptors: exact by one matrix product, or approximate by a Lance index. One interface.

`ExactIndex` is the oracle of `LanceIndex` in the tests and up to EXACT_TILES the faster of the two.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

EXACT_TILES = 200_000
"""Up to here all descriptors are kept in memory (float32) and compared; above, the ANN index."""

PROBED_SHARE = 0.1
"""Of the partitions, read for a query: recall@10 above 0.95 on a million descriptors
(benchmarks/search.py; a share of 0.03 gave 0.89)."""


class Index(Protocol):
    """Finds the descriptors with the highest inner product."""

    def search(
        self, queries: Floats, k: int, *, where: str | None = None
    ) -> tuple[NDArray[np.int64], Floats]:
        """Rows and scores (H, k'), best first, k' <= k; -inf where a query found fewer than others.

        Args:
            queries: (H, D) float32, unit norm.
            where: an SQL condition on the table's columns (`LanceIndex` only).
        """
        ...


def top_k(scores: Floats, k: int) -> tuple[NDArray[np.int64], Floats]:
    """The k highest of each row (H, N), best first; ties by lower index, so always the same."""
    k = min(k, scores.shape[1])
    if k < scores.shape[1]:
        part = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        # ties at the border: argpartition may pick any of the equals, so take all of them
        border = np.take_along_axis(scores, part, 1).min(axis=1)
        rows = [np.flatnonzero(line >= low) for line, low in zip(scores, border, strict=True)]
    else:
        rows = [np.arange(scores.shape[1])] * len(scores)
    best = [
        r[np.argsort(-line[r], kind="stable")[:k]] for r, line in zip(rows, scores, strict=True)
    ]
    index = np.stack(best).astype(np.int64)
    return index, np.take_along_axis(scores, index, 1)


class ExactIndex:
    """Every descriptor is compared.

    Args:
        descriptors: (N, D) any float; kept as float32.
    """

    def __init__(self, descriptors: NDArray[Any]) -> None:
        self._transposed = np.ascontiguousarray(np.asarray(descriptors, np.float32)).T

    def search(
        self, queries: Floats, k: int, *, where: str | None = None
    ) -> tuple[NDArray[np.int64], Floats]:
        """See `Index.search`; rows are positions in the array given at construction."""
        if where is not None:
            raise ValueError("an exact index takes no condition: select the rows before")
        return top_k(np.asarray(queries, np.float32) @ self._transposed, k)


class LanceIndex:
    """The approximate index of a Lance table (see `create_ann_index`).

    Args:
        table: with a column `descriptor` of unit-norm vectors.
    """

    def __init__(self, table: Any) -> None:
        self._table = table
        self._probes = max(20, round(PROBED_SHARE * _partitions(table.count_rows())))

    def search(
        self, queries: Floats, k: int, *, where: str | None = None
    ) -> tuple[NDArray[np.int64], Floats]:
        """See `Index.search`; rows are the table's row ids."""
        rows, scores = [], []
        for query in queries:
            search = (
                self._table.search(query, vector_column_name="descriptor")
                .distance_type("cosine")
                .nprobes(self._probes)
                .with_row_id(True)
                .select(["_distance"])
                .limit(k)
            )
            if where:
                search = search.where(where, prefilter=True)
            found = search.to_arrow()
            rows.append(np.asarray(found["_rowid"], np.int64))
            scores.append(1 - np.asarray(found["_distance"], np.float32))
        longest = max(len(r) for r in rows)
        found_rows = np.zeros((len(rows), longest), np.int64)
        found_scores = np.full((len(rows), longest), -np.inf, np.float32)
        for i, (r, s) in enumerate(zip(rows, scores, strict=True)):
            found_rows[i, : len(r)], found_scores[i, : len(s)] = r, s
        return found_rows, found_scores


def create_ann_index(table: Any, rows: int) -> None:
    """Train and store the approximate index of a table's `descriptor` column.

    An inverted file of whole vectors in some sqrt(rows) partitions. Product quantisation was no
    better here: training it took forty times longer (docs/log.md).
    """
    from lancedb.index import IvfFlat

    config = IvfFlat(
        distance_type="cosine",
        num_partitions=_partitions(rows),
        max_iterations=10,
        sample_rate=32,
    )
    table.create_index("descriptor", config=config)


def _partitions(rows: int) -> int:
    return max(1, min(4096, round(math.sqrt(rows))))
