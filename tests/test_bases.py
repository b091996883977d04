"""Bases of every kind on every dataset's miniature, against a brute-force ranking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from benchmark_helpers import DATASETS, Once, brute_order, descriptors, load, write_npz
from map_helpers import FakeEncoder
from skylink import bases
from skylink.bases import Base, open_base, relevance_of, to_run
from skylink.datasets import PictureReader, Task
from skylink.encode import to_square
from skylink.errors import ModelError, OptionError, RunError
from skylink.protocol import ranks_from_lists, ranks_of_positives
from skylink.relevance import Distractors
from skylink.runfiles import write_run


def opened(spec: object, task: Task) -> Base:
    return open_base(str(spec), task, relevance_of(task))


def same_ranks(a: Base, b: Base) -> bool:
    return all(np.array_equal(a.ranks[c].ranks, b.ranks[c].ranks) for c in Distractors)


@pytest.mark.parametrize("name", DATASETS)
def test_descriptors_rank_as_brute_force_does(
    name: str, once: Once, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load(once, name)
    relevance = relevance_of(task)
    path = write_npz(tmp_path / "d.npz", task)
    base = opened(path, task)
    query, gallery = descriptors(task)
    orders = brute_order(task, query, gallery)
    assert base.rows.tolist() == [order[: bases.DEPTH] for order in orders]
    assert (np.diff(base.scores, axis=1) <= 0).all()
    assert base.ms_per_query is not None
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (query, gallery)]
    for convention in Distractors:
        plain = ranks_of_positives(*unit, relevance, distractors=convention)
        assert base.ranks[convention].ranks.tolist() == plain.ranks.tolist()
        assert base.ranks[convention].depth == plain.depth
    monkeypatch.setattr(bases, "BLOCK_BYTES", 4 * len(task.gallery) * 2)  # two queries a block
    blocks = opened(path, task)
    assert np.array_equal(blocks.rows, base.rows)
    assert same_ranks(blocks, base)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("ending", ["run.gz", "jsonl"])
def test_run_files_come_back(name: str, ending: str, once: Once, tmp_path: Path) -> None:
    task = load(once, name)
    base = opened(write_npz(tmp_path / "d.npz", task), task)
    path = write_run(
        tmp_path / f"base.{ending}", to_run(task, base.rows[:, :7], base.scores[:, :7])
    )
    again = opened(path, task)
    assert again.rows.tolist() == base.rows[:, :7].tolist()
    assert again.scores == pytest.approx(base.scores[:, :7], abs=1e-6)
    assert again.ms_per_query is None
    relevance = relevance_of(task)
    for convention in Distractors:
        listed = ranks_from_lists(base.rows[:, :7], relevance, distractors=convention)
        assert again.ranks[convention].ranks.tolist() == listed.ranks.tolist()


@given(
    npst.arrays(
        np.float64,
        st.integers(1, 12),
        elements=st.sampled_from([0.0, 1e-300, 0.1, 0.1 + 1e-12, 5.0, -2.0, 1e300, -1e300, 3e38]),
    )
)
def test_scores_of_runs_fall_for_every_reader(scores: Any) -> None:
    scores = np.sort(scores)[::-1]
    falling = bases._falling(scores)
    assert (np.diff(falling.astype(np.float32)) < 0).all()
    assert (falling <= np.maximum(scores, -1.5e38)).all()


def test_ties_keep_their_order_in_a_run(once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    rows = np.tile([3, 1, -1, -1], (len(task.queries), 1))
    run = to_run(task, rows, np.zeros(rows.shape), tag="two words")
    assert run.tag == "two_words"
    first = run[task.queries[0].id]
    assert first.ids == (task.gallery[3].id, task.gallery[1].id)
    assert first.scores[0] == 0 > first.scores[1] > -1e-40


def test_a_run_need_not_hold_every_query(once: Once, tmp_path: Path) -> None:
    task = load(once, "denseuav")
    path = tmp_path / "some run"  # any name: the file is there
    path.write_text(
        f"{task.queries[1].id} Q0 {task.gallery[2].id} 1 0.5 x\n"
        f"{task.queries[1].id} Q0 {task.gallery[0].id} 2 0.4 x\n"
        f"{task.queries[3].id} Q0 {task.gallery[5].id} 1 9 x\n"
    )
    base = opened(path, task)
    assert base.rows[:4].tolist() == [[-1, -1], [2, 0], [-1, -1], [5, -1]]
    assert base.ranks[Distractors.kept].unanswered == len(task.queries) - 2


def test_ids_that_nobody_knows(once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    path = tmp_path / "x.run"
    path.write_text(f"0004/image-01.jpeg Q0 {task.gallery[0].id} 1 0.5 x\n")
    with pytest.raises(RunError, match=r"1 of its queries .* '0004/image-01.jpeg'") as caught:
        opened(path, task)
    assert "path below the dataset's folder" in (caught.value.hint or "")
    path.write_text(f"{task.queries[0].id} Q0 0004.jpg 1 0.5 x\n")
    with pytest.raises(RunError, match=r"candidate '0004\.jpg' of .* is not in the gallery"):
        opened(path, task)


def whole_paths(items: Any, root: str) -> list[str]:
    return [f"{root}/{item.id}" for item in items]


def test_pytorch_result_mat(once: Once, tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    task = load(once, "university1652")
    query, gallery = descriptors(task)
    order = np.random.default_rng(0).permutation(len(query))
    labels = np.array([int(item.place or 0) for item in task.queries])
    content = {
        "query_f": query[order],
        "query_label": labels[order],
        "query_path": [whole_paths(task.queries, "/data/University-1652")[row] for row in order],
        "gallery_f": gallery,
        "gallery_label": np.array([int(item.place or 0) for item in task.gallery]),
        "gallery_path": whole_paths(task.gallery, "D:\\University-1652"),
    }
    path = tmp_path / "pytorch_result.mat"
    io.savemat(path, content)
    base = opened(path, task)
    assert base.rows.tolist() == brute_order(task, query, gallery)

    for key in ("query_path", "gallery_path"):
        del content[key]
    io.savemat(path, content)
    with pytest.raises(OptionError, match="the rows are in another order than the task's"):
        opened(path, task)
    content |= {"query_f": query, "query_label": np.unique(labels, return_inverse=True)[1]}
    io.savemat(path, content)  # labels may be any numbering
    assert opened(path, task).rows.tolist() == base.rows.tolist()


def test_npy_files_with_ids(once: Once, tmp_path: Path) -> None:
    task = load(once, "vigor")
    query, gallery = descriptors(task)
    for name, values, items in (
        ("q", query, task.queries), ("g", gallery, task.gallery),
    ):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", values)
        (tmp_path / f"{name}.txt").write_text("".join(f"{item.id}\n" for item in items))
    base = opened(f"{tmp_path}/q.npy,{tmp_path}/g.npy", task)
    assert base.rows.tolist() == brute_order(task, query, gallery)
    with pytest.raises(OptionError, match="3 files, not two"):
        opened(",".join([f"{tmp_path}/q.npy"] * 3), task)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query_ids": None, "query": 3}, "3 rows without ids, but the task has 12"),
        ({"gallery_ids": "places"}, "6 of 6 have no descriptor"),
    ],
)
def test_descriptors_that_do_not_fit(
    change: dict[str, Any], said: str, once: Once, tmp_path: Path
) -> None:
    task = load(once, "university1652")
    arrays = dict(np.load(write_npz(tmp_path / "d.npz", task)))
    if "query" in change:
        arrays["query"] = arrays["query"][: change["query"]]
        del arrays["query_ids"]
    else:
        arrays["gallery_ids"] = np.array([f"place {n}" for n in range(6)])
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(OptionError, match=said) as caught:
        opened(tmp_path / "e.npz", task)
    assert "path" in (caught.value.hint or "")


def test_endings_that_two_share_are_not_guessed(once: Once, tmp_path: Path) -> None:
    task = load(once, "university1652")
    query, gallery = descriptors(task)
    twice = [f"/a/{item.id}" for item in task.gallery]
    twice[1] = f"/b/{task.gallery[0].id}"
    np.savez(
        tmp_path / "d.npz", query=query, gallery=gallery,
        query_ids=np.array([item.id for item in task.queries]), gallery_ids=np.array(twice),
    )  # fmt: skip
    with pytest.raises(OptionError, match="2 of 6 have no descriptor"):
        opened(tmp_path / "d.npz", task)


@pytest.mark.parametrize("name", DATASETS)
def test_an_encoder_sees_whole_pictures_and_windows(
    name: str, once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load(once, name)
    encoder = FakeEncoder(input_px=32)
    monkeypatch.setattr("skylink.encoder.load_encoder", lambda spec: encoder)
    seen: list[str] = []
    base = open_base(
        "fake", task, relevance_of(task), progress=lambda done, total, what: seen.append(what)
    )
    with PictureReader() as reader:
        sides = [
            encoder.encode(np.stack([to_square(reader.read(item), encoder) for item in items]))
            for items in (task.queries, task.gallery)
        ]
    query, gallery = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    scores = query @ gallery.T  # colours of made-up ground are alike: scores nearly tie
    assert base.scores == pytest.approx(-np.sort(-scores, axis=1)[:, : bases.DEPTH], abs=1e-5)
    assert base.scores == pytest.approx(np.take_along_axis(scores, base.rows, 1), abs=1e-5)
    assert {"queries", "gallery"} == set(seen)


def test_names_of_nothing(once: Once) -> None:
    task = load(once, "university1652")
    with pytest.raises(ModelError):
        opened("no-such-thing", task)
    with pytest.raises(RunError, match="cannot read"):
        opened("missing.run", task)


def test_distractors_are_of_galleries_of_places(once: Once) -> None:
    assert relevance_of(load(once, "university1652")).distractors.sum() == 2
    map_tiles = load(once, "gtauav")
    assert map_tiles.distractor_rows
    assert not relevance_of(map_tiles).distractors.any()
    assert not relevance_of(replace(map_tiles, semi_positives=None)).distractors.any()
