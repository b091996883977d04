"""Lists from miniatures of benchmarks: the truth forced in, labels by hand, leakage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark_helpers import miniature, write_npz
from skylink.bases import open_base, relevance_of, to_run
from skylink.datasets import Task, find_dataset
from skylink.errors import OptionError, QueriesError
from skylink.minedfile import MinedFile
from skylink.mining.benchmark import BenchmarkMine, open_mine, refuse_test_leakage, sites_of
from skylink.mining.lists import Forcing, Lists, write_lists
from skylink.mining.split import fold_of, hold_out
from skylink.runfiles import write_run
from skylink.soft_labels import SoftLabels

Once = Callable[[str, Callable[[Path], None]], Path]


def load(once: Once, name: str, task: str | None = None, split: str = "train") -> Task:
    dataset = find_dataset(name)
    return dataset.load(miniature(once, name), task or dataset.tasks()[0], split)


def mine_of(
    once: Once, tmp_path: Path, name: str, task: str | None = None, *, top_k: int = 3, **how
) -> BenchmarkMine:
    """A mine whose base is made-up descriptors."""
    split = how.pop("split", "train")
    loaded = load(once, name, task, split)
    spec = write_npz(tmp_path / "base.npz", loaded, noise=how.pop("noise", 1.6))
    return open_mine(
        loaded, miniature(once, name), relevance_of(loaded), [str(spec)], top_k=top_k, **how
    )


def written(
    mine: BenchmarkMine,
    path: Path,
    labels: SoftLabels,
    forcing: Forcing = "appended",
    rows: Sequence[int] | None = None,
) -> MinedFile:
    rows = range(len(mine.queries)) if rows is None else rows
    write_lists(mine, Lists(path=path, rows=rows, forcing=forcing), labels)
    return MinedFile(path)


def test_lists_are_the_bases_with_the_truth_at_the_end_where_it_was_missed(once, tmp_path) -> None:
    """University-1652: cosines of the base's own gallery descriptors, by hand."""
    mine = mine_of(once, tmp_path, "university1652", "S2D", noise=6.0)
    task = load(once, "university1652", "S2D")
    base = open_base(str(tmp_path / "base.npz"), task, relevance_of(task), keep_descriptors=True)
    found = written(mine, tmp_path / "a.jsonl", SoftLabels(source="cosine", threshold=0.2))
    gallery = [item.id for item in task.gallery]
    forced = 0
    for query, one in enumerate(found):
        right = set(task.positives[query])
        listed = base.rows[query][:3].tolist()
        rows = [gallery.index(c.id) for c in one.candidates]
        assert rows[:3] == listed
        assert [c.rank for c in one.candidates[:3]] == [1, 2, 3]
        assert one.ground_truth.tolist() == [row in right for row in rows]
        if len(rows) == 4:
            forced += 1
            assert not right & set(listed)
            assert rows[3] == next(row for row in base.rows[query] if row in right)
            assert one.candidates[3].rank is None
            assert one.candidates[3].base_score is not None
        for row, c in zip(rows, one.candidates, strict=True):
            cosine = max(float(base.descriptors[row] @ base.descriptors[g]) for g in right)
            assert c.measured.cosine == pytest.approx(cosine, abs=1e-5)
            expected = 1.0 if row in right else (cosine if cosine >= 0.2 else 0.0)
            assert c.label == pytest.approx(expected, abs=1e-5)
        assert (miniature(once, "university1652") / one.path).is_file()
        assert (miniature(once, "university1652") / str(one.candidates[0].path)).is_file()
    header = found.header
    assert header.summary.forced == forced > 0
    assert header.provenance.base_fingerprint == base.fingerprint
    assert header.provenance.base_fingerprint.startswith("sha256:")
    assert header.provenance.dataset == "University-1652 S2D"
    first = [base.rows[q][0] in task.positives[q] for q in range(len(task.queries))]
    assert header.summary.base_r_at_1 == pytest.approx(100 * np.mean(first))


def test_the_same_lists_twice_and_in_the_forms_that_are_asked_for(once, tmp_path) -> None:
    labels = SoftLabels(source="cosine", threshold=0.1)

    def lists(name: str, forcing: Forcing) -> MinedFile:
        mine = mine_of(once, tmp_path, "university1652", "S2D", noise=6.0)
        return written(mine, tmp_path / name, labels, forcing)

    appended = lists("a.jsonl", "appended")
    lists("b.jsonl", "appended")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    replaced, plain = lists("c.jsonl", "replaced-last"), lists("d.jsonl", "not-forced")
    for one, other, bare in zip(appended, replaced, plain, strict=True):
        assert len(other.candidates) == len(bare.candidates) == 3
        assert bare.candidates == one.candidates[:3]
        if len(one.candidates) == 3:
            assert other == one
        else:
            assert other.candidates == (*one.candidates[:2], one.candidates[3])
    assert plain.header.provenance.ground_truth == "not-forced"
    assert plain.header.summary.forced == 0


def test_a_quantile_is_a_threshold_found_in_all_lists(once, tmp_path) -> None:
    asked = SoftLabels(source="cosine", quantile=0.5)
    mine = mine_of(once, tmp_path, "university1652", "S2D", noise=6.0)
    path = tmp_path / "q.jsonl"
    header, fitted = write_lists(mine, Lists(path=path, rows=range(len(mine.queries))), asked)
    others = [
        max(0.0, c.measured.cosine or 0.0)
        for one in MinedFile(path)
        for c in one.candidates
        if not c.is_ground_truth
    ]
    assert fitted.threshold == pytest.approx(np.quantile(others, 0.5))
    assert header.provenance.labels == fitted
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base.npz", "q.jsonl"]


def test_weights_of_the_dataset_and_distances(once, tmp_path) -> None:
    """GTA-UAV gives IoU weights, for semi-positives too, and positions in metres."""
    task = load(once, "gtauav")
    mine = mine_of(once, tmp_path, "gtauav", top_k=20)
    assert mine.default_source == "dataset"
    rows = {item.id: row for row, item in enumerate(task.gallery)}
    found = written(mine, tmp_path / "a.jsonl", SoftLabels(source="dataset"))
    softer = 0
    for query, one in enumerate(found):
        weights = dict(zip(task.positives[query], task.weights[query], strict=True))
        semi = dict(zip(task.semi_positives[query], task.semi_weights[query], strict=True))
        for c in one.candidates:
            row = rows[c.id]
            assert c.measured.weight == pytest.approx((weights | semi).get(row, 0.0))
            assert c.label == pytest.approx(1.0 if row in weights else semi.get(row, 0.0))
            softer += row in semi
            here = task.gallery[row]
            metres = min(
                np.hypot(here.x_m - task.gallery[g].x_m, here.y_m - task.gallery[g].y_m)
                for g in task.positives[query]
            )
            assert c.measured.distance_m == pytest.approx(metres)
    assert softer
    assert all(one.telemetry.relative_altitude_m in (200, 400) for one in found)


def test_a_run_has_no_cosines_until_an_encoder_gives_them(once, tmp_path) -> None:
    task = load(once, "university1652")
    folder, relevance = miniature(once, "university1652"), relevance_of(task)
    npz = write_npz(tmp_path / "base.npz", task)
    base = open_base(str(npz), task, relevance)
    run = str(write_run(tmp_path / "base.run", to_run(task, base.rows[:, :3], base.scores[:, :3])))
    bare = open_mine(task, folder, relevance, [run], top_k=3)
    assert bare.sources == ()
    with pytest.raises(OptionError, match="does not tell cosine") as caught:
        written(bare, tmp_path / "a.jsonl", SoftLabels(source="cosine"))
    assert "--label-encoder" in str(caught.value.hint)
    helped = open_mine(task, folder, relevance, [run], top_k=3, label_encoder=str(npz))
    lists = written(helped, tmp_path / "a.jsonl", SoftLabels(source="cosine"))
    plain = written(
        open_mine(task, folder, relevance, [str(npz)], top_k=3),
        tmp_path / "b.jsonl",
        SoftLabels(source="cosine"),
    )
    assert [m.labels.tolist() for m in lists] == [m.labels.tolist() for m in plain]
    with pytest.raises(OptionError, match="does not tell overlap") as caught:
        written(helped, tmp_path / "a.jsonl", SoftLabels())
    assert "--labels cosine" in str(caught.value.hint)
    with pytest.raises(OptionError, match="lists 3 candidates at the most"):
        open_mine(task, folder, relevance, [run], top_k=4)


def test_queries_that_the_base_did_not_answer_are_left_out_and_counted(once, tmp_path) -> None:
    task = load(once, "university1652")
    relevance = relevance_of(task)
    base = open_base(str(write_npz(tmp_path / "base.npz", task)), task, relevance)
    rows = base.rows.copy()
    rows[0] = -1
    mine = BenchmarkMine(
        task, miniature(once, "university1652"),
        [replace(base, rows=rows, descriptors=np.eye(len(task.gallery), dtype=np.float32))],
        top_k=3,
    )  # fmt: skip
    found = written(mine, tmp_path / "a.jsonl", SoftLabels(source="cosine"))
    assert len(found) == len(task.queries) - 1
    assert list(mine.left_out.values()) == [1]
    with pytest.raises(QueriesError, match=r"no query gave a list: .* fewer than two"):
        written(mine, tmp_path / "b.jsonl", SoftLabels(source="cosine"), rows=[0])


def test_each_fold_is_listed_by_its_own_base(once, tmp_path) -> None:
    task = load(once, "university1652")
    folder, relevance = miniature(once, "university1652"), relevance_of(task)
    specs = [str(write_npz(tmp_path / f"{seed}.npz", task, seed=seed)) for seed in range(2)]
    fold = fold_of(sites_of(task), 2, seed=4)
    mine = open_mine(task, folder, relevance, specs, top_k=3, fold=fold)
    found = written(mine, tmp_path / "a.jsonl", SoftLabels(source="cosine"))
    bases = [open_base(spec, task, relevance) for spec in specs]
    for query, one in enumerate(found):
        scores = [c.base_score for c in one.candidates[:3]]
        assert scores == pytest.approx(bases[fold[query]].scores[query][:3].tolist())
    assert found.header.provenance.folds == 2
    with pytest.raises(OptionError, match="1 bases for 2 folds"):
        open_mine(task, folder, relevance, specs[:1], top_k=3, fold=fold)


@pytest.mark.parametrize("name", ["university1652", "sues200", "gtauav", "uavvisloc", "vigor"])
def test_what_is_held_out_shares_no_right_answer_with_what_is_mined(once, name) -> None:
    task = load(once, name, split=find_dataset(name).splits[0])
    parts = hold_out(sites_of(task), 0.3, seed=1)
    right = [
        {row for query in np.flatnonzero(parts == part) for row in task.positives[query]}
        for part in (0, 1)
    ]
    assert right[0]
    assert right[1]
    assert not right[0] & right[1]


def test_the_truth_is_never_forced_into_test_lists(once, tmp_path) -> None:
    mine = mine_of(once, tmp_path, "university1652", split="test")
    labels = SoftLabels(source="cosine")
    for forcing in ("appended", "replaced-last"):
        with pytest.raises(OptionError, match="never forced into lists of the test split"):
            written(mine, tmp_path / "a.jsonl", labels, forcing)
    found = written(mine, tmp_path / "a.jsonl", labels, "not-forced")
    assert all(c.rank is not None for one in found for c in one.candidates)


def test_leakage_from_the_test_split_is_refused(once, tmp_path) -> None:
    dataset, folder = find_dataset("university1652"), miniature(once, "university1652")
    task = load(once, "university1652")
    assert "no leakage" in refuse_test_leakage(task, dataset, folder)
    test = load(once, "university1652", split="test")
    with pytest.raises(OptionError, match="queries are in training and in test"):
        refuse_test_leakage(test, dataset, folder)
    renamed = replace(task, queries=tuple(
        replace(item, place=test.queries[0].place) for item in task.queries))  # fmt: skip
    with pytest.raises(OptionError, match="1 places are in training and in test"):
        refuse_test_leakage(renamed, dataset, folder)
    assert "not looked for" in refuse_test_leakage(task, dataset, tmp_path)


@pytest.mark.parametrize("top_k", [0, 1, 1000])
def test_lists_that_would_be_too_short_or_too_long(once, tmp_path, top_k) -> None:
    with pytest.raises(OptionError, match=f"top-k {top_k} is not in 2..999"):
        mine_of(once, tmp_path, "university1652", top_k=top_k)
