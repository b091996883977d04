"""Order K things by comparing pairs, with a bounded number of comparisons.

A bottom-up merge sort: it needs at most K ceil(log2 K) comparisons, and all merges of a level are
independent, so that they can be asked together. It starts from the order given (the retriever's),
and where comparisons run out that order decides.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]
Compare = Callable[[Sequence[Pair]], Sequence[float]]


def tournament(k: int, compare: Compare, *, max_comparisons: int) -> NDArray[np.float32]:
    """Scores (K,) of a merge sort: K for the best down to 1.

    Args:
        k: how many things, in the order of the base, best first.
        compare: for a batch of pairs (i, j), how much better i fits than j (log-odds; > 0: i is
            better). A tie keeps the base's order.
        max_comparisons: never more pairs than this are asked.
    """
    runs = [[i] for i in range(k)]
    left = max(0, max_comparisons)
    while len(runs) > 1:
        merged: list[list[int] | None] = [None] * ((len(runs) + 1) // 2)
        if len(runs) % 2:
            merged[-1] = runs[-1]
        merges = {n: _merge(runs[2 * n], runs[2 * n + 1]) for n in range(len(runs) // 2)}
        asked = {n: next(merge) for n, merge in merges.items()}
        while asked:
            batch = dict(list(asked.items())[:left])
            left -= len(batch)
            answers = compare(list(batch.values())) if batch else []
            verdicts: dict[int, float] = dict(zip(batch, answers, strict=True))
            for n in list(asked):
                # not asked any more: the base's order decides, which is the order of numbers
                first, second = asked.pop(n)
                verdict = verdicts.get(n, float(second - first))
                try:
                    asked[n] = merges[n].send(verdict)
                except StopIteration as end:
                    merged[n] = end.value
        runs = [run for run in merged if run is not None]
    scores = np.zeros(k, np.float32)
    for rank, index in enumerate(runs[0] if runs else []):
        scores[index] = k - rank
    return scores


def _merge(a: list[int], b: list[int]) -> Generator[Pair, float, list[int]]:
    """Merge two runs, best first: yields the pair to compare, is sent how much the first fits."""
    out: list[int] = []
    i = j = 0
    while i < len(a) and j < len(b):
        verdict = yield a[i], b[j]
        if verdict >= 0:
            out.append(a[i])
            i += 1
        else:
            out.append(b[j])
            j += 1
    return out + a[i:] + b[j:]
