"""Re-ranking lists query by query: what fails, what a kill leaves, and what stays as it was."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark_helpers import (
    DATASETS,
    Once,
    Scripted,
    brute_order,
    descriptors,
    load,
    miniature,
    write_npz,
)
from skylink.bases import DEPTH, Base, open_base, relevance_of
from skylink.datasets import REGISTRY, Task
from skylink.errors import OptionError, OutputError, RerankError
from skylink.rerank_run import Reranked, TileShow, rerank_lists
from skylink.reranker import Fusion, make_task_reranker
from skylink.types import Query


def base_of(task: Task, folder: Path) -> Base:
    return open_base(str(write_npz(folder / "d.npz", task)), task, relevance_of(task))


def same(a: Reranked, b: Reranked) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("rows", "scores", "reranked", "failed")
    )


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("top_k", [2, 5, 1000])
def test_the_best_k_are_reordered_and_nothing_else(
    name: str, top_k: int, once: Once, tmp_path: Path
) -> None:
    task = load(once, name)
    base = base_of(task, tmp_path)
    done = rerank_lists(task, base.rows, base.scores, Scripted(), top_k=top_k)
    orders = brute_order(task, *descriptors(task), top_k=min(top_k, DEPTH))
    assert done.rows.tolist() == [order[:DEPTH] for order in orders]
    assert (np.diff(done.scores, axis=1) <= 0).all()
    assert np.array_equal(done.scores[:, top_k:], base.scores[:, top_k:])
    assert done.reranked.all()
    assert not done.failed.any()
    assert done.notes == {}
    assert done.ms_per_query is not None


def test_matching_on_real_pictures_is_what_it_says(once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    base = base_of(task, tmp_path)
    stage = make_task_reranker("matching", task)
    assert stage is not None
    done = rerank_lists(task, base.rows, base.scores, stage, top_k=6)
    assert done.reranked.all()
    assert sorted(done.rows[0].tolist()) == list(range(6))
    right = [rows[0] in good for rows, good in zip(done.rows, task.positives, strict=True)]
    before = [rows[0] in good for rows, good in zip(base.rows, task.positives, strict=True)]
    assert sum(right) > sum(before), "local features tell these made-up grounds apart"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "told to fail"),
        (np.nan, "returned scores that are not finite"),
        (np.inf, "returned scores that are not finite"),
        (ValueError("boom"), "failed: ValueError: boom"),
    ],
)
def test_what_fails_keeps_the_bases_order_and_is_counted(
    answer: Any, said: str, once: Once, tmp_path: Path
) -> None:
    task = load(once, "university1652")
    base = base_of(task, tmp_path)
    fails = [task.queries[2].id, task.queries[7].id]
    done = rerank_lists(task, base.rows, base.scores, Scripted(fails=fails, answer=answer), top_k=4)
    assert np.flatnonzero(done.failed).tolist() == [2, 7]
    assert np.flatnonzero(~done.reranked).tolist() == [2, 7]
    assert np.array_equal(done.rows[[2, 7]], base.rows[[2, 7]])
    assert np.array_equal(done.scores[[2, 7]], base.scores[[2, 7]])
    ((note, count),) = done.notes.items()
    assert said in note
    assert count == 2
    with pytest.raises(RerankError, match=fails[0]):
        rerank_lists(
            task, base.rows, base.scores, Scripted(fails=fails, answer=answer), top_k=4, strict=True
        )


def test_lists_with_nothing_to_rank(once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    base = base_of(task, tmp_path)
    one = rerank_lists(task, base.rows, base.scores, Scripted(), top_k=1)
    assert np.array_equal(one.rows, base.rows)
    assert not one.reranked.any()
    assert not one.failed.any()
    assert one.notes == {"fewer than two candidates to rank": len(task.queries)}
    rows, scores = base.rows.copy(), base.scores.copy()
    rows[3] = -1
    rows[4, 2:] = -1
    some = rerank_lists(task, rows, scores, Scripted(), top_k=5)
    assert (some.rows[3] == -1).all()
    assert not some.reranked[3]
    assert sorted(some.rows[4, :2]) == sorted(rows[4, :2])
    assert (some.rows[4, 2:] == -1).all()
    assert some.reranked[4]
    for wrong in (0, -1):
        with pytest.raises(OptionError, match=f"top-k {wrong} is not at least 1"):
            rerank_lists(task, base.rows, base.scores, Scripted(), top_k=wrong)


def test_the_base_takes_part_as_asked(once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    base = base_of(task, tmp_path)
    alone = rerank_lists(
        task, base.rows, base.scores, Scripted(), top_k=6, fusion=Fusion(base_weight=1)
    )
    assert np.array_equal(alone.rows, base.rows)
    assert alone.reranked.all()
    sure = rerank_lists(
        task, base.rows, base.scores, Scripted(), top_k=6, fusion=Fusion(gate_margin=0)
    )
    assert not sure.reranked.any()
    assert not sure.failed.any()
    assert all("the base was sure" in note for note in sure.notes)


def test_pictures_that_can_not_be_read_name_their_file(once: Once, tmp_path: Path) -> None:
    root = shutil.copytree(miniature(once, "university1652"), tmp_path / "copy")
    task = REGISTRY["university1652"].load(root, "D2S")
    base = base_of(task, tmp_path)
    task.queries[0].path.write_bytes(b"not a picture")
    task.queries[1].path.unlink()
    worst = int(base.rows[2, 0])
    task.gallery[worst].path.write_bytes(task.gallery[worst].path.read_bytes()[:300])
    stage = make_task_reranker("matching", task)
    assert stage is not None
    done = rerank_lists(task, base.rows, base.scores, stage, top_k=1000)
    assert done.failed.all(), "every list holds the damaged tile"
    notes = "\n".join(done.notes)
    assert task.queries[0].id in notes
    assert task.queries[1].id in notes
    assert str(task.gallery[worst].path.name) in notes


def test_an_absurd_altitude_is_of_its_photo_alone(once: Once, tmp_path: Path) -> None:
    task = load(once, "denseuav")
    base = base_of(task, tmp_path)
    high = replace(task.queries[1], altitude_m=1e9)
    task = replace(task, queries=(task.queries[0], high, *task.queries[2:]))
    done = rerank_lists(task, base.rows, base.scores, Scripted(), top_k=3)
    assert np.flatnonzero(done.failed).tolist() == [1]
    assert "relative_altitude_m" in next(iter(done.notes))


def test_pictures_are_shown_small(once: Once) -> None:
    task = load(once, "uavvisloc")
    show = TileShow(task, size_px=64)
    photo = np.zeros((300, 400, 3), np.uint8)
    from skylink.rerank_run import _candidate

    showing = show(Query(name="x", image=photo), [_candidate(task, row, 0.0) for row in (5, 0)])
    assert showing.photo.shape == (55, 74, 3)
    assert [p.shape for p in showing.candidates] == [(64, 64, 3)] * 2
    assert list(showing.ids) == [task.gallery[5].id, task.gallery[0].id]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from benchmark_helpers import Scripted
from skylink.bases import open_base, relevance_of
from skylink.datasets import REGISTRY
from skylink.rerank_run import rerank_lists

class Dies(Scripted):
    def score(self, query, candidates):
        if len(self.asked) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(query, candidates)

task = REGISTRY["university1652"].load({root!r}, "D2S")
base = open_base({npz!r}, task, relevance_of(task))
rerank_lists(task, base.rows, base.scores, Dies(), top_k=4, journal=Path({journal!r}))
"""


def test_a_killed_run_goes_on_to_the_same_result(once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    base = base_of(task, tmp_path)
    journal = tmp_path / "out.run.journal"
    code = KILLED.format(
        tests=str(Path(__file__).parent), root=str(miniature(once, "university1652")),
        npz=str(tmp_path / "d.npz"), journal=str(journal),
    )  # fmt: skip
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(journal.read_bytes().splitlines()) == 1 + 5
    with journal.open("ab") as file:  # a line that was being written
        file.write(b'{"query": "half')
    stage = Scripted()
    done = rerank_lists(task, base.rows, base.scores, stage, top_k=4, journal=journal)
    assert stage.asked == [item.id for item in task.queries[5:]]
    assert same(done, rerank_lists(task, base.rows, base.scores, Scripted(), top_k=4))
    again = Scripted()
    last = rerank_lists(task, base.rows, base.scores, again, top_k=4, journal=journal)
    assert again.asked == []
    assert same(last, done)
    assert last.ms_per_query is None


def test_journals_of_other_runs_begin_anew(once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    base = base_of(task, tmp_path)
    journal = tmp_path / "j"

    def asked(rows: Any = base.rows, **how: Any) -> int:
        stage = Scripted()
        options = {"top_k": 4, "journal": journal, **how}
        rerank_lists(task, rows, base.scores, stage, **options)
        return len(stage.asked)

    assert [asked(), asked()] == [12, 0]
    assert [asked(top_k=3), asked(top_k=3)] == [12, 0]
    assert [asked(made_from="adapter 2"), asked(made_from="adapter 2")] == [12, 0]
    assert asked(fusion=Fusion(base_weight=0.5)) == 12
    assert asked(base.rows[:, ::-1]) == 12


def test_failed_queries_are_tried_again(once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    base = base_of(task, tmp_path)
    journal = tmp_path / "j"
    fails = [task.queries[1].id]
    down = Scripted(fails=fails)
    first = rerank_lists(task, base.rows, base.scores, down, top_k=4, journal=journal)
    assert first.failed.sum() == 1
    up = Scripted()
    second = rerank_lists(task, base.rows, base.scores, up, top_k=4, journal=journal)
    assert up.asked == fails
    assert second.reranked.all()
    third = rerank_lists(task, base.rows, base.scores, Scripted(), top_k=4, journal=journal)
    assert same(second, third)


@pytest.mark.parametrize(
    "line", ["no json", "[]", '{"query": 3}', '{"query": "a", "scores": [NaN]}', '{"rows": [1]}']
)
def test_damaged_journals_are_not_believed(line: str, once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    base = base_of(task, tmp_path)
    journal = tmp_path / "j"
    rerank_lists(task, base.rows, base.scores, Scripted(), top_k=4, journal=journal)
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    with pytest.raises(OutputError, match="is damaged") as caught:
        rerank_lists(task, base.rows, base.scores, Scripted(), top_k=4, journal=journal)
    assert caught.value.hint == "remove it to begin anew"


def test_a_journals_rows_are_checked(once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    base = base_of(task, tmp_path)
    journal = tmp_path / "j"
    rerank_lists(task, base.rows, base.scores, Scripted(), top_k=4, journal=journal)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[1]["rows"] = [99, 98, 97, 96]
    lines[2]["scores"] = [1.0]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = Scripted()
    done = rerank_lists(task, base.rows, base.scores, stage, top_k=4, journal=journal)
    assert stage.asked == [item.id for item in task.queries[:2]]
    assert same(done, rerank_lists(task, base.rows, base.scores, Scripted(), top_k=4))
