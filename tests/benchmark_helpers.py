"""Miniatures of benchmarks, made-up descriptors, a scripted re-ranker, brute-force figures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skylink.datasets import REGISTRY, Task
from skylink.errors import RerankError
from skylink.relevance import Distractors, Relevance
from skylink.types import Candidate, Query

DATASETS = tuple(REGISTRY)
Once = Callable[[str, Callable[[Path], None]], Path]


def miniature(once: Once, name: str) -> Path:
    """The miniature of a dataset by name: shared, so not to be changed."""
    return once(f"dataset-{name}", lambda folder: _write(name, folder))


def _write(name: str, folder: Path) -> None:
    REGISTRY[name].write_miniature(folder, seed=3)


def load(once: Once, name: str, task: str | None = None) -> Task:
    """A protocol of a miniature; its first one by default."""
    dataset = REGISTRY[name]
    return dataset.load(miniature(once, name), task or dataset.tasks()[0])


def descriptors(task: Task, *, seed: int = 0, noise: float = 1.6) -> tuple[NDArray[Any], ...]:
    """Queries and gallery (N, 24): photos look somewhat like their first right answer."""
    rng = np.random.default_rng(seed)
    gallery = rng.standard_normal((len(task.gallery), 24))
    query = gallery[[rows[0] for rows in task.positives]]
    query = query + noise * rng.standard_normal(query.shape)
    return query.astype(np.float32), gallery.astype(np.float32)


def write_npz(path: Path, task: Task, *, seed: int = 0, noise: float = 1.6) -> Path:
    """Those descriptors as a file with ids, in another order than the task's."""
    query, gallery = descriptors(task, seed=seed, noise=noise)
    order = np.random.default_rng(1).permutation(len(query))
    np.savez(
        path,
        query=query[order],
        gallery=gallery[::-1],
        query_ids=np.array([task.queries[row].id for row in order]),
        gallery_ids=np.array([item.id for item in task.gallery[::-1]]),
    )
    return path


def made_up_score(query: str, candidate: str) -> float:
    """One of six values, so that there are ties; always the same for the same names."""
    return float(hashlib.sha256(f"{query}|{candidate}".encode()).digest()[0] % 6)


class Scripted:
    """A re-ranker of made-up scores that fails where it is told to."""

    name = "scripted"

    def __init__(self, *, fails: Sequence[str] = (), answer: Any = None) -> None:
        self.fails, self.answer = fails, answer
        self.asked: list[str] = []

    def score(self, query: Query, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        self.asked.append(query.name)
        if query.name in self.fails:
            if isinstance(self.answer, Exception):
                raise self.answer
            if self.answer is not None:
                return np.full(len(candidates), self.answer, np.float32)
            raise RerankError("told to fail")
        return np.array([made_up_score(query.name, c.id) for c in candidates], np.float32)


def brute_order(
    task: Task, query: NDArray[Any], gallery: NDArray[Any], *, top_k: int = 0,
    fails: Sequence[str] = (),
) -> list[list[int]]:  # fmt: skip
    """The complete gallery in order for each query, the best `top_k` by made-up scores."""
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (query, gallery)]
    orders = []
    for item, row in zip(task.queries, unit[0] @ unit[1].T, strict=True):
        order = sorted(range(len(row)), key=lambda g, row=row: -row[g])
        if top_k > 1 and item.id not in fails:
            head = sorted(
                order[:top_k],
                key=lambda g, item=item: -made_up_score(item.id, task.gallery[g].id),
            )
            order = head + order[top_k:]
        orders.append(order)
    return orders


def brute_figures(
    orders: Sequence[Sequence[int]], relevance: Relevance, distractors: Distractors
) -> dict[str, float]:
    """R@K, both APs, R@1 %, MRR of complete orders, percent: loops over the definitions."""
    sums = dict.fromkeys(
        ("recall@1", "recall@5", "recall@10", "recall@20", "recall@top1", "recall@1%",
         "recall@1%_floor", "ap_step", "ap_trapezoid", "mrr"), 0.0,
    )  # fmt: skip
    for query, order in enumerate(orders):
        start, stop = relevance.indptr[query], relevance.indptr[query + 1]
        right = set(relevance.positives[start:stop].tolist())
        ranked = [
            g for g in order if distractors is Distractors.kept or not relevance.distractors[g]
        ]
        ranks = [rank for rank, g in enumerate(ranked, 1) if g in right]
        ks = {f"recall@{k}": k for k in (1, 5, 10, 20)}
        ks["recall@top1"] = round(len(order) / 100) + 1
        ks["recall@1%"] = max(1, round(len(ranked) / 100))
        ks["recall@1%_floor"] = max(1, len(ranked) // 100)
        for name, k in ks.items():
            sums[name] += ranks[0] <= k
        sums["mrr"] += 1 / ranks[0]
        for n, rank in enumerate(ranks, 1):
            before = (n - 1) / (rank - 1) if rank > 1 else 1.0
            sums["ap_step"] += n / rank / len(ranks)
            sums["ap_trapezoid"] += (n / rank + before) / 2 / len(ranks)
    return {name: 100 * value / len(orders) for name, value in sums.items()}
