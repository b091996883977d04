"""Scoring runs: by hand, against full rankings, and against ir_measures on our own files."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, R, Success

from skylink.errors import RunError
from skylink.protocol import ranks_from_scores
from skylink.relevance import Distractors, Relevance
from skylink.retrieval_metrics import NOT_FOUND, Denominator, OnePercent
from skylink.runfiles import write_trec_qrels, write_trec_run
from skylink.runs import Qrels, RankedList, Run, evaluate_run, run_ranks


def ranked(**scores: float) -> RankedList:
    return RankedList.by_score(list(scores), list(scores.values()))


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, Relevance, int]:
    """Distinct scores, labels, and how deep a run goes."""
    queries, gallery = draw(st.integers(1, 5)), draw(st.integers(2, 10))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.permuted(np.tile(np.arange(gallery) / 8, (queries, 1)), axis=1)
    places = draw(st.integers(1, 5))
    relevance = Relevance.from_labels(
        rng.integers(0, places, queries), rng.integers(0, places, gallery)
    )
    return scores, relevance, draw(st.integers(1, gallery))


def run_of(scores: np.ndarray, k: int) -> Run:
    rows = np.argsort(-scores, axis=1)[:, :k]
    names = [f"q{i}" for i in range(len(scores))], [f"g{i}" for i in range(scores.shape[1])]
    return Run.from_arrays(*names, rows, np.take_along_axis(scores, rows, 1), tag="base")


def qrels_of(relevance: Relevance) -> Qrels:
    names = [f"q{i}" for i in range(relevance.queries)], [f"g{i}" for i in range(relevance.gallery)]
    return Qrels.from_relevance(relevance, *names)


@given(scored())
def test_a_full_run_scores_as_the_score_matrix(case) -> None:
    scores, relevance, k = case
    whole = ranks_from_scores(scores, relevance, distractors=Distractors.kept)
    deep = evaluate_run(
        run_of(scores, scores.shape[1]), qrels_of(relevance), gallery=scores.shape[1]
    )
    assert deep == whole.figures()
    cut = run_ranks(run_of(scores, k), qrels_of(relevance))
    np.testing.assert_array_equal(cut.ranks, np.where(whole.ranks <= k, whole.ranks, NOT_FOUND))
    assert cut.depth == k


@settings(max_examples=40, deadline=None)
@given(case=scored())
def test_ir_measures_reads_our_files_and_agrees(case, tmp_path_factory) -> None:
    scores, relevance, k = case
    folder = tmp_path_factory.mktemp("trec")
    run, qrels = run_of(scores, k), qrels_of(relevance)
    write_trec_run(folder / "base.run", run)
    write_trec_qrels(folder / "test.qrels", qrels)
    theirs = ir_measures.calc_aggregate(
        [AP, RR, R @ 2, Success @ 1, Success @ 2],
        list(ir_measures.read_trec_qrels(str(folder / "test.qrels"))),
        list(ir_measures.read_trec_run(str(folder / "base.run"))),
    )
    ranks = run_ranks(run, qrels)
    ours = evaluate_run(run, qrels, k=(1, 2))
    assert 100 * theirs[AP] == pytest.approx(ours.ap_step)
    assert 100 * theirs[RR] == pytest.approx(ours.mrr)
    assert 100 * theirs[Success @ 1] == pytest.approx(ours.recall[1])
    if k >= 2:
        assert 100 * theirs[Success @ 2] == pytest.approx(ours.recall[2])
    # TREC's R@2 is the share of the positives found, not whether one was: another metric
    found = [
        np.mean(part <= 2) if len(part) else 0.0
        for part in np.split(ranks.ranks, ranks.indptr[1:-1])
    ]
    assert theirs[R @ 2] == pytest.approx(np.mean(found))


def test_by_hand() -> None:
    qrels = Qrels({"a": {"x": 1, "y": 2, "z": 0}, "b": {"x": 1}, "c": {"x": 0}, "d": {"w": 1}})
    run = Run({"a": ranked(z=0.9, x=0.8), "b": ranked(x=0.7, z=0.1), "c": ranked(x=1.0)})
    figures = evaluate_run(run, qrels, k=(1, 2, 3), oracle_k=2)
    assert figures.recall == {1: 25.0, 2: 50.0, 3: None}
    assert figures.ap_step == pytest.approx(100 * (1 / 2 / 2 + 1) / 4)
    assert (figures.queries, figures.without_positives, figures.unanswered) == (4, 1, 1)
    assert figures.one_percent[OnePercent.rounded] is None
    assert figures.oracle_recall_at_1 == 50.0
    sized = evaluate_run(run, qrels, gallery=4, denominator=Denominator.answerable)
    assert sized.one_percent[OnePercent.rounded] == pytest.approx(100 / 3)
    assert sized.gallery == sized.ranked == 4
    assert evaluate_run(Run({}), qrels).unanswered == 4


def test_queries_that_nobody_judged() -> None:
    qrels = Qrels({"a": {"x": 1}})
    run = Run({"a": ranked(x=1.0), "b": ranked(x=1.0)})
    with pytest.raises(RunError, match=r"1 of 2 queries.*'b'"):
        evaluate_run(run, qrels)
    assert evaluate_run(run, qrels, ignore_unjudged=True).queries == 1
    with pytest.raises(RunError, match="1 of 1"):  # no name in common is a mistake, never a 0 %
        evaluate_run(Run({"A": ranked(x=1.0)}), qrels, ignore_unjudged=True)
    with pytest.raises(RunError, match="no queries"):
        evaluate_run(run, Qrels({}))
    with pytest.raises(RunError, match="no query has a positive"):
        evaluate_run(Run({}), Qrels({"a": {"x": 0}}), denominator=Denominator.answerable)
    with pytest.raises(RunError, match="gallery only 1"):
        evaluate_run(Run({"a": ranked(x=1.0, y=0.5)}), qrels, gallery=1)


def test_equal_scores_keep_their_order() -> None:
    assert ranked(b=0.5, a=0.5, c=0.9).ids == ("c", "b", "a")
    assert list(ranked(b=0.5, c=0.9)) == [("c", 0.9), ("b", 0.5)]
    assert ranked(a=1.0) == ranked(a=1.0) != ranked(a=0.5)


@pytest.mark.parametrize(
    ("ids", "scores", "message"),
    [
        (("a", "b"), [0.1, 0.2], "rise"),
        (("a", "a"), [0.2, 0.1], "'a' is there twice"),
        (("a", "b"), [0.2, np.nan], "'b' is NaN"),
        (("a", "b"), [np.inf, 0.1], "'a' is NaN or infinite"),
        (("a", "b"), [0.1], "2 candidates"),
    ],
)
def test_lists_are_checked(ids, scores, message) -> None:
    with pytest.raises(RunError, match=message):
        RankedList(ids, np.array(scores))


def test_runs_from_arrays() -> None:
    rows = np.array([[2, 0], [1, -1], [-1, -1]])
    scores = np.array([[0.9, 0.1], [0.4, -np.inf], [-np.inf, -np.inf]])
    run = Run.from_arrays(["a", "b", "c"], ["x", "y", "z"], rows, scores)
    assert dict(run) == {"a": ranked(z=0.9, x=0.1), "b": ranked(y=0.4)}
    for bad in (
        lambda: Run.from_arrays(["a"], ["x"], rows, scores),
        lambda: Run.from_arrays(["a", "b", "b"], ["x", "y", "z"], rows, scores),
        lambda: Run.from_arrays(["a", "b", "c"], ["x", "y"], rows, scores),
        lambda: Run.from_arrays(["a", "b", "c"], ["x", "y", "z"], rows, scores[:, ::-1]),
    ):
        with pytest.raises(RunError):
            bad()


def test_qrels_from_relevance() -> None:
    relevance = Relevance.from_labels([1, 9], [1, 2, 1])
    qrels = Qrels.from_relevance(relevance, ["a", "b"], ["x", "y", "z"])
    assert dict(qrels) == {"a": {"x": 1, "z": 1}, "b": {"x": 0}}
    assert qrels.positives("a") == {"x", "z"}
    assert qrels.positives("b") == frozenset()
    for ids in (["a"], ["a", "a"]):
        with pytest.raises(RunError, match="query ids"):
            Qrels.from_relevance(relevance, ids, ["x", "y", "z"])
