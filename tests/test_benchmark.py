"""Figures of base and re-ranker against a brute-force recomputation of the whole order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark_helpers import (
    DATASETS,
    Once,
    Scripted,
    brute_figures,
    brute_order,
    descriptors,
    load,
    write_npz,
)
from skylink.bases import Base, open_base, relevance_of, to_run
from skylink.benchmark import (
    BenchmarkResults,
    benchmark_results,
    ranked_under,
    recall_intervals,
)
from skylink.datasets import Task
from skylink.errors import RunError
from skylink.metrics import block_bootstrap
from skylink.relevance import Distractors, Relevance
from skylink.rerank_run import Reranked, rerank_lists
from skylink.runfiles import write_run

PROTOCOLS = [(name, None) for name in DATASETS] + [
    ("university1652", "S2D"), ("sues200", "S2D-300"), ("denseuav", "S2D"),
    ("gtauav", "same-area S2D"), ("vigor", "cross-area"), ("cvact", "test"),
    ("uavvisloc", "map 09"),
]  # fmt: skip


def run(
    task: Task, folder: Path, *, top_k: int, fails: Sequence[str] = ()
) -> tuple[Relevance, Base, Reranked]:
    relevance = relevance_of(task)
    base = open_base(str(write_npz(folder / "d.npz", task)), task, relevance)
    done = rerank_lists(task, base.rows, base.scores, Scripted(fails=fails), top_k=top_k)
    return relevance, base, done


def results_of(
    task: Task, relevance: Relevance, base: Base, done: Reranked | None, *, top_k: int,
    distractors: Distractors = Distractors.kept,
) -> BenchmarkResults:  # fmt: skip
    return benchmark_results(
        task, relevance, base, done, reranker="scripted", top_k=top_k, distractors=distractors
    )


@pytest.mark.parametrize(("name", "protocol"), PROTOCOLS)
@pytest.mark.parametrize("convention", Distractors)
def test_figures_are_those_of_the_whole_reordered_gallery(
    name: str, protocol: str | None, convention: Distractors, once: Once, tmp_path: Path
) -> None:
    task = load(once, name, protocol)
    top_k = 6
    fails = [task.queries[1].id]
    relevance, base, done = run(task, tmp_path, top_k=top_k, fails=fails)
    results = results_of(task, relevance, base, done, top_k=top_k, distractors=convention)
    sides = descriptors(task)
    orders = {
        "retrieved": brute_order(task, *sides),
        "reranked": brute_order(task, *sides, top_k=top_k, fails=fails),
    }
    other = next(c for c in Distractors if c is not convention)
    assert (results.other_convention is not None) == bool(relevance.distractors.any())
    for which, order in orders.items():
        sets = [(convention, getattr(results, which))]
        if results.other_convention is not None:
            sets.append((other, results.other_convention[which]))
        for how, figures in sets:
            expected = brute_figures(order, relevance, how)
            assert {key: figures[key] for key in expected} == pytest.approx(expected), (which, how)
            assert figures["ap"] == figures["ap_step"]
            given = [
                set(o[:top_k]) & set(task.positives[q]) for q, o in enumerate(orders["retrieved"])
            ]
            ceiling = 100 * np.mean([bool(g) for g in given])
            assert figures[f"oracle_recall@1_of_{top_k}"] == pytest.approx(ceiling)
            assert figures["recall@1"] <= ceiling + 1e-9
    assert results.rerank_failed == 1
    assert results.reranked_queries == len(task.queries) - 1
    assert results.rerank_notes == {"told to fail": 1}


@pytest.mark.parametrize("name", ["denseuav", "gtauav", "uavvisloc", "vigor", "cvact"])
def test_metres_are_those_of_the_lists(name: str, once: Once, tmp_path: Path) -> None:
    task = load(once, name)
    relevance, base, done = run(task, tmp_path, top_k=5)
    figures = results_of(task, relevance, base, done, top_k=5).reranked
    assert figures is not None
    metres = np.array([task.distances_m(q, rows[:3].tolist()) for q, rows in enumerate(done.rows)])
    assert figures["median_error_m"] == pytest.approx(np.median(metres[:, 0]))
    assert figures["within_50_m"] == pytest.approx(100 * np.mean(metres[:, 0] <= 50))
    assert figures["dis@3_m"] == pytest.approx(metres.mean())
    weights = np.array([3, 2, 1]) / 6
    assert figures["sdm_gta@3"] == pytest.approx(np.mean(np.exp(-0.001 * metres) @ weights))
    assert ("sdm_denseuav@3" in figures) == (task.metres == "geodesic")
    if task.metres == "geodesic":
        degrees = [
            [np.hypot(task.gallery[g].lon - q.lon, task.gallery[g].lat - q.lat) for g in rows[:3]]
            for q, rows in zip(task.queries, done.rows, strict=True)
        ]  # fmt: skip
        expected = np.mean(np.exp(-5000 * np.array(degrees)) @ weights)
        assert figures["sdm_denseuav@3"] == pytest.approx(expected)


def test_queries_without_a_list_are_far_off(once: Once, tmp_path: Path) -> None:
    task = load(once, "denseuav")
    relevance, base, _ = run(task, tmp_path, top_k=5)
    rows = base.rows[:, :2].copy()
    rows[: len(rows) // 2 + 1] = -1
    path = write_run(tmp_path / "few.jsonl", to_run(task, rows, base.scores[:, :2]))
    few = open_base(str(path), task, relevance)
    results = results_of(task, relevance, few, None, top_k=20)
    figures = results.retrieved
    assert figures["median_error_m"] is None
    assert figures["unanswered"] == len(rows) // 2 + 1
    assert figures["recall@5"] is None, "lists of two can't tell"
    assert figures["oracle_recall@1_of_20"] is None
    assert "sdm_gta@3" not in figures
    assert results.reranked is None
    assert results.reranked_minus_retrieved_interval is None
    assert BenchmarkResults.model_validate_json(results.model_dump_json()) == results
    assert "Infinity" not in results.model_dump_json()


def test_lists_of_distractors_alone_have_no_first_place(once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    relevance = relevance_of(task)
    distractor = int(np.flatnonzero(relevance.distractors)[0])
    lines = [f"{q.id} Q0 {task.gallery[distractor].id} 1 0.5 x\n" for q in task.queries]
    (tmp_path / "x.run").write_text("".join(lines))
    base = open_base(str(tmp_path / "x.run"), task, relevance)
    assert results_of(task, relevance, base, None, top_k=5).retrieved["recall@1"] == 0
    with pytest.raises(RunError, match="nothing but distractors") as caught:
        results_of(task, relevance, base, None, top_k=5, distractors=Distractors.dropped)
    assert "--distractors kept" in (caught.value.hint or "")


def test_dropping_moves_the_rest_up() -> None:
    relevance = Relevance.from_lists([[0], [2]], 4)
    rows = np.array([[1, 0, 3, 2], [3, -1, -1, -1]])
    scores = np.array([[4.0, 3, 2, 1], [9, 0, 0, 0]])
    moved, values = ranked_under(rows, relevance, Distractors.dropped, scores)
    assert moved.tolist() == [[0, 2, -1, -1], [-1, -1, -1, -1]]
    assert values[0, :2].tolist() == [3, 1]
    assert ranked_under(rows, relevance, Distractors.kept, scores)[0] is rows


@pytest.mark.parametrize("name", ["university1652", "uavvisloc", "denseuav"])
def test_intervals_are_the_plain_bootstraps(name: str, once: Once) -> None:
    task = load(once, name)
    rng = np.random.default_rng(5)
    hits = [rng.random(len(task.queries)) < share for share in (0.4, 0.7)]
    blocks: Any = [q.place for q in task.queries]
    if name == "uavvisloc":  # 6 frames of each of two flights
        blocks = [q.path.parent.parent.name for q in task.queries]
    nothing = np.zeros(len(task.queries))
    pairs = [(nothing, hits[0]), (nothing, hits[1]), (hits[0], hits[1])]
    expected = []
    for pair in pairs:
        spread = block_bootstrap(100.0 * pair[0], 100.0 * pair[1], blocks)
        expected.append(pytest.approx((spread.low, spread.high)))
    assert recall_intervals(task, hits) == expected
    assert recall_intervals(task, hits[:1]) == expected[:1]
    one = replace(
        task, queries=task.queries[:1], positives=task.positives[:1], weights=None,
        semi_positives=None, semi_weights=None,
    )  # fmt: skip
    assert recall_intervals(one, [hits[0][:1]]) == [None]


def test_results_say_what_ran(once: Once, tmp_path: Path) -> None:
    task = load(once, "sues200")
    relevance, base, done = run(task, tmp_path, top_k=3)
    found = json.loads(results_of(task, relevance, base, done, top_k=3).model_dump_json())
    assert found["protocol"] == "SUES-200 D2S-150, test split, distractors kept"
    assert (found["queries"], found["gallery"], found["top_k"]) == (6, 6, 3)
    before, after = (f["recall@1"] / 100 * 6 for f in (found["retrieved"], found["reranked"]))
    assert found["flips"]["fixed"] - found["flips"]["broken"] == pytest.approx(after - before)
    low, high = found["reranked_minus_retrieved_interval"]
    assert low <= found["reranked"]["recall@1"] - found["retrieved"]["recall@1"] <= high
