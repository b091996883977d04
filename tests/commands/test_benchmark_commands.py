"""Every dataset's miniature through evaluate, rerank, a run file and its scores, and the report."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark_helpers import DATASETS, Once, Scripted, load, miniature, write_npz
from skylink.cli import app
from skylink.commands import terminal
from skylink.report import read_details

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKYLINK_CACHE", str(tmp_path / "features"))
    monkeypatch.setenv("COLUMNS", "160")


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def figures_of(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def measured(run_file: Path) -> dict[str, float]:
    """By ir_measures, of a run and the qrels beside it, percent."""
    ir = pytest.importorskip("ir_measures")
    qrels = list(ir.read_trec_qrels(f"{run_file}.qrels"))
    found = list(ir.read_trec_run(str(run_file)))
    wanted = {
        "recall@1": ir.Success @ 1,
        "recall@5": ir.Success @ 5,
        "mrr": ir.RR,
        "ap_step": ir.AP,
    }
    values = ir.calc_aggregate(wanted.values(), qrels, found)
    return {name: 100 * values[measure] for name, measure in wanted.items()}


@pytest.mark.parametrize("name", DATASETS)
def test_base_rerank_evaluate_score_report(name: str, once: Once, tmp_path: Path) -> None:
    root, task = miniature(once, name), load(once, name)
    base = write_npz(tmp_path / "base.npz", task)
    out, lists, page = (tmp_path / n for n in ("results.json", "final.run", "report.html"))
    result = run("evaluate", "--benchmark", name, "--root", root, "--retriever", base,
                 "--reranker", "matching", "--top-k", 4, "--out", out,
                 "--save-run", lists)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "re-ranked" in result.stdout
    found = figures_of(out)
    assert found["reranked_queries"] == found["queries"] == len(task.queries)
    assert (found["rerank_failed"], found["reranker"]) == (0, "matching")

    scored = run(
        "evaluate", "--run", lists, "--qrels", f"{lists}.qrels", "--out", tmp_path / "s.json"
    )
    assert scored.exit_code == 0, scored.output
    ours, theirs = figures_of(tmp_path / "s.json"), measured(lists)
    deep = len(task.gallery) > 100  # a positive beyond the list of 100 counts in the results alone
    for key, value in theirs.items():
        if key == "recall@5" and len(task.gallery) < 5:
            assert ours[key] is None, "a list of less than five can't tell"
            continue
        assert ours[key] == pytest.approx(value), key
        if not deep:
            assert found["reranked"][key] == pytest.approx(value), key
    assert found["reranked"]["recall@1"] == pytest.approx(theirs["recall@1"])

    again = run("rerank", base, "--benchmark", name, "--root", root, "--reranker", "matching",
                "--top-k", 4, "--out", tmp_path / "again.run")  # fmt: skip
    assert again.exit_code == 0, again.output
    assert f"Re-ranked {len(task.queries)} queries, 0 failed" in again.stderr
    assert (tmp_path / "again.run").read_text() == lists.read_text()
    scored = run("evaluate", "--benchmark", name, "--root", root, "--retriever",
                 tmp_path / "again.run", "--out", tmp_path / "b.json")  # fmt: skip
    assert scored.exit_code == 0, scored.output
    assert figures_of(tmp_path / "b.json")["retrieved"]["recall@1"] == found["reranked"]["recall@1"]

    made = run("report", out, "--out", page, "--pictures", 3)
    assert made.exit_code == 0, made.output
    html = page.read_text()
    assert "data:image/jpeg;base64," in html
    assert "A picture is missing" not in html
    assert not list(tmp_path.glob("*.journal"))


@pytest.mark.parametrize("name", ["university1652", "uavvisloc"])
def test_the_embedded_encoder_is_the_default_base(name: str, once: Once, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    result = run("evaluate", "--benchmark", name, "--root", miniature(once, name), "--out", out)
    assert result.exit_code == 0, result.output
    found = figures_of(out)
    assert found["retriever"] == "embedded"
    assert found["reranked"] is None
    assert found["ms_per_query"]["retrieve"] > 0
    assert found["retrieved"]["recall@1"] > 100 * 2 / found["gallery"], "better than chance"
    details = read_details(out, out.read_text())
    assert len(details.queries) == found["queries"]
    assert not any(query.final for query in details.queries)


def test_candidates_as_trec_and_as_json_are_the_same_base(once: Once, tmp_path: Path) -> None:
    root, task = miniature(once, "denseuav"), load(once, "denseuav")
    base = write_npz(tmp_path / "base.npz", task)
    outcomes = []
    for ending in ("run", "jsonl"):
        path = tmp_path / f"made.{ending}"
        made = run("evaluate", "--benchmark", "denseuav", "--root", root, "--retriever", base,
                   "--save-run", path)  # fmt: skip
        assert made.exit_code == 0, made.output
        done = run("rerank", path, "--benchmark", "denseuav", "--root", root, "--reranker",
                   "matching", "--top-k", 5, "--out", tmp_path / f"done-{ending}.run")  # fmt: skip
        assert done.exit_code == 0, done.output
        outcomes.append((tmp_path / f"done-{ending}.run").read_text())
    assert outcomes[0] == outcomes[1]


def test_a_dropped_convention_is_that_of_the_saved_run(once: Once, tmp_path: Path) -> None:
    root, task = miniature(once, "university1652"), load(once, "university1652")
    base = write_npz(tmp_path / "base.npz", task, noise=3)
    kept, dropped = {}, {}
    for convention, into in (("kept", kept), ("dropped", dropped)):
        out, lists = tmp_path / f"{convention}.json", tmp_path / f"{convention}.run"
        result = run("evaluate", "--benchmark", "u1652", "--root", root, "--retriever", base,
                     "--distractors", convention, "--out", out, "--save-run", lists)  # fmt: skip
        assert result.exit_code == 0, result.output
        found = figures_of(out)
        into |= found
        for key, value in measured(lists).items():
            assert found["retrieved"][key] == pytest.approx(value), (convention, key)
        details = read_details(out, out.read_text())
        hits = [query.base_rank == 1 for query in details.queries]
        assert 100 * np.mean(hits) == pytest.approx(found["retrieved"]["recall@1"])
        assert [query.base[0].right for query in details.queries] == hits
    assert kept["other_convention"]["retrieved"]["ap_step"] == dropped["retrieved"]["ap_step"]
    assert kept["retrieved"]["ap_step"] < dropped["retrieved"]["ap_step"]


def test_thinning_keeps_the_gallery_and_its_distractors(once: Once, tmp_path: Path) -> None:
    root, task = miniature(once, "university1652"), load(once, "university1652")
    base = write_npz(tmp_path / "base.npz", task)
    out = tmp_path / "results.json"
    result = run("evaluate", "--benchmark", "u1652", "--root", root, "--retriever", base, "--every",
                 5, "--limit", 2, "--distractors", "dropped", "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    found = figures_of(out)
    assert (found["queries"], found["gallery"]) == (2, 6)
    assert found["retrieved"]["ranked"] == 4, "two distractors of the whole protocol"
    assert "only 2 of 12 queries" in found["notes"]
    asked = [q.query for q in read_details(out, out.read_text()).queries]
    assert asked == [task.queries[0].id, task.queries[5].id]


def patched(monkeypatch: pytest.MonkeyPatch, stage: Any) -> None:
    monkeypatch.setattr("skylink.reranker.make_task_reranker", lambda *_: stage)


@pytest.mark.parametrize(
    ("fails", "code"), [(1, terminal.SOME_FAILED), (12, terminal.ALL_FAILED), (0, 0)]
)
def test_failures_are_counted_and_told(
    fails: int, code: int, once: Once, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, task = miniature(once, "university1652"), load(once, "university1652")
    base = write_npz(tmp_path / "base.npz", task)
    stage = Scripted(fails=[item.id for item in task.queries[:fails]], answer=np.nan)
    patched(monkeypatch, stage)
    common = ("--benchmark", "u1652", "--root", root, "--reranker", "scripted", "--top-k", 4)
    result = run("evaluate", *common, "--retriever", base, "--out", tmp_path / "r.json")
    assert result.exit_code == code, result.output
    found = figures_of(tmp_path / "r.json")
    assert (found["rerank_failed"], found["reranked_queries"]) == (fails, 12 - fails)
    other = run("rerank", base, *common, "--out", tmp_path / "r.run")
    assert other.exit_code == code, other.output
    failed = [
        q.failed
        for q in read_details(tmp_path / "r.json", (tmp_path / "r.json").read_text()).queries
    ]
    assert failed == [True] * fails + [False] * (12 - fails)
    if fails:
        assert f"{fails} not re-ranked: re-ranker scripted returned scores" in result.stderr
        for command in (("evaluate", "--retriever", base), ("rerank", base)):
            strict = run(*command, *common, "--strict", "--out", tmp_path / "strict.run")
            assert strict.exit_code == terminal.FAILED
            assert task.queries[0].id in strict.stderr
            assert not (tmp_path / "strict.run").exists()


def test_an_interrupted_evaluation_goes_on(
    once: Once, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, task = miniature(once, "university1652"), load(once, "university1652")
    words = ("evaluate", "--benchmark", "u1652", "--root", root, "--retriever",
             write_npz(tmp_path / "base.npz", task), "--reranker", "scripted",
             "--top-k", 4)  # fmt: skip

    class Stops(Scripted):
        def score(self, query: Any, candidates: Sequence[Any]) -> Any:
            if len(self.asked) == 3:
                raise KeyboardInterrupt
            return super().score(query, candidates)

    patched(monkeypatch, Stops())
    stopped = run(*words, "--out", tmp_path / "r.json")
    assert stopped.exit_code == terminal.INTERRUPTED
    stage = Scripted()
    patched(monkeypatch, stage)
    assert run(*words, "--out", tmp_path / "r.json").exit_code == 0
    assert len(stage.asked) == 12 - 3
    assert run(*words, "--out", tmp_path / "whole.json").exit_code == 0
    parts, whole = figures_of(tmp_path / "r.json"), figures_of(tmp_path / "whole.json")
    for found in (parts, whole):
        del found["ms_per_query"]
    assert parts == whole
    assert not list(tmp_path.glob("*.journal"))


def test_unreadable_pictures(once: Once, tmp_path: Path) -> None:
    root = shutil.copytree(miniature(once, "university1652"), tmp_path / "copy")
    task = load(once, "university1652")
    base = write_npz(tmp_path / "base.npz", task)
    (root / task.queries[4].id).write_bytes(b"\xff\xd8 not much of a JPEG")
    common = ("--benchmark", "u1652", "--root", root, "--reranker", "matching", "--top-k", 3)
    result = run("evaluate", *common, "--retriever", base, "--out", tmp_path / "r.json")
    assert result.exit_code == terminal.SOME_FAILED
    (note,) = figures_of(tmp_path / "r.json")["rerank_notes"]
    assert "image-02.jpeg" in note
    made = run("report", tmp_path / "r.json", "--out", tmp_path / "r.html", "--pictures", 100)
    assert made.exit_code == 0, made.output
    assert "A picture is missing" in (tmp_path / "r.html").read_text()
    encoded = run("evaluate", *common, "--retriever", "embedded")
    assert encoded.exit_code == terminal.FAILED
    assert "image-02.jpeg" in encoded.stderr
    assert "Traceback" not in encoded.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--top-k", 0), "top-k 0 is not at least 1"),
        (("--reranker", "dense"), "'dense' can't re-rank a benchmark's pictures"),
        (("--reranker", "nothing"), "'nothing' can't re-rank"),
        (("--task", "D2X"), "it has D2S, S2D"),
        (("--split", "dev"), "has no split 'dev'"),
        (("--distractors", "some"), "it is kept or dropped"),
        (("--retriever", "nowhere.run"), "cannot read nowhere.run"),
        (("--gallery", "g", "--plot", "p.png"), "--gallery, --plot can't be used with --benchmark"),
        (("--conditions", "fog"), "--conditions can't be used with --benchmark"),
    ],
)
def test_mistakes(words: tuple[object, ...], said: str, once: Once, tmp_path: Path) -> None:
    base = write_npz(tmp_path / "base.npz", load(once, "university1652"))
    start = ("evaluate", "--benchmark", "u1652", "--root", miniature(once, "university1652"))
    given = () if "--retriever" in words else ("--retriever", base)
    result = run(*start, *given, *words)
    assert result.exit_code == terminal.FAILED, result.output
    assert said in " ".join(result.stderr.split())
    assert "hint:" in result.stderr or "cannot read" in said
    assert "Traceback" not in result.output


def test_what_is_missing_is_asked_for(once: Once, tmp_path: Path) -> None:
    without_root = run("evaluate", "--benchmark", "u1652")
    assert without_root.exit_code == terminal.FAILED
    assert "--root DIR" in without_root.stderr
    without_qrels = run("evaluate", "--run", "x.run")
    assert without_qrels.exit_code == terminal.FAILED
    assert "--qrels FILE" in without_qrels.stderr
    nothing = run("rerank", "x.run", "--benchmark", "u1652", "--root",
                  miniature(once, "university1652"), "--reranker", "none",
                  "--out", tmp_path / "x")  # fmt: skip
    assert nothing.exit_code == terminal.FAILED
    assert "--reranker matching" in nothing.stderr


@pytest.mark.slow
def test_a_vision_language_model_reranks_a_benchmark(once: Once, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from skylink.lvlm.random_checkpoint import write_random_checkpoint

    folder = once("commands-model", lambda f: _model(f, write_random_checkpoint))
    root, task = miniature(once, "university1652"), load(once, "university1652")
    out = tmp_path / "r.json"
    result = run("evaluate", "--benchmark", "u1652", "--root", root, "--retriever",
                 write_npz(tmp_path / "base.npz", task), "--reranker",
                 f"lvlm:{folder / 'tiny-qwen3-vl'}", "--lvlm-mode", "listwise", "--lvlm-tokens", 4,
                 "--top-k", 3, "--limit", 3, "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    found = figures_of(out)
    assert "tiny-qwen3-vl" in found["reranker"]
    assert (found["reranked_queries"], found["rerank_failed"]) == (3, 0)


def _model(folder: Path, write: Any) -> None:
    write(folder / "tiny-qwen3-vl", "qwen3_vl")


@pytest.mark.parametrize("base", ["embedded", "vlad", "geoembed"])
def test_unlike_bases_go_through_the_same_command(base: str, once: Once, tmp_path: Path) -> None:
    """The embedded encoder, a classical one, and one that others trained on aerial tiles."""
    if base == "geoembed" and importlib.util.find_spec("geoembed") is None:
        pytest.skip("its weights are not installed: pip install --no-deps geoembed")
    root, out = miniature(once, "sues200"), tmp_path / "results.json"
    result = run("evaluate", "--benchmark", "sues200", "--root", root, "--retriever", base,
                 "--reranker", "matching", "--top-k", 3, "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    figures = figures_of(out)
    assert figures["retriever"] == base
    assert figures["reranked_queries"] == figures["queries"] > 0
    assert figures["retrieved"]["recall@10"] == 100, "the gallery is small"
