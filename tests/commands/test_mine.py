"""`skylink mine`: on miniatures and on a made-up town, and what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmark_helpers import miniature, write_npz
from skylink.cli import app
from skylink.datasets import find_dataset
from skylink.minedfile import MinedFile, read_header


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["mine", *(str(word) for word in words)])


@pytest.fixture
def university(once, tmp_path) -> tuple[object, ...]:
    """A miniature, and descriptors of its training split as a base."""
    root = miniature(once, "university1652")
    task = find_dataset("university1652").load(root, "D2S", "train")
    base = write_npz(tmp_path / "base.npz", task)
    return "--benchmark", "university1652", "--root", root, "--retriever", base, "--top-k", 3


def test_a_benchmark_with_places_held_out(university, tmp_path) -> None:
    out, back = tmp_path / "train.jsonl", tmp_path / "validation.jsonl"
    result = run(*university, "--out", out, "--held-out", 0.3, "--validation-out", back)
    assert result.exit_code == 0, result.output
    assert "no leakage: 12 queries and 4 places of the test split" in result.stderr
    assert "Mining 12 queries of University-1652 D2S, train split: the best 3" in result.stderr
    assert "skylink train" in result.stderr
    assert str(back) in result.stderr
    assert "base R@1 %" in result.stdout
    train, validation = MinedFile(out), MinedFile(back)
    assert len(train) + len(validation) == 12
    places = [{query.split("/")[2] for query in lists.queries} for lists in (train, validation)]
    assert not places[0] & places[1]
    assert train.header.provenance.ground_truth == "appended"
    assert validation.header.provenance.ground_truth == "not-forced"
    assert validation.header.provenance.split == "train"
    assert train.header.provenance.labels.threshold == 0.9
    again = run(*university, "--out", tmp_path / "more.jsonl", "--against", back)
    assert again.exit_code == 1
    assert f"{len(validation)} queries are in training and in test" in again.stderr
    assert not (tmp_path / "more.jsonl").exists()


def test_a_base_that_knows_the_queries_is_warned_of(once, tmp_path) -> None:
    root = miniature(once, "university1652")
    task = find_dataset("university1652").load(root, "D2S", "train")
    base = write_npz(tmp_path / "base.npz", task, noise=0.0)
    result = run("--benchmark", "university1652", "--root", root, "--retriever", base,
                 "--top-k", 3, "--out", tmp_path / "a.jsonl")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "the base finds 100.0 % of these queries at once" in result.stderr
    assert "labels collapsed" in result.stderr


def test_lists_of_the_test_split_are_never_forced(once, tmp_path) -> None:
    root = miniature(once, "university1652")
    task = find_dataset("university1652").load(root, "D2S", "test")
    base = write_npz(tmp_path / "base.npz", task, noise=9.0)
    words = ("--benchmark", "university1652", "--root", root, "--retriever", base,
             "--split", "test", "--top-k", 2, "--out", tmp_path / "a.jsonl")  # fmt: skip
    for more in (["--force"], ["--replace-last"]):
        refused = run(*words, *more)
        assert refused.exit_code == 1
        assert "never forced into lists of the test split" in refused.stderr
    refused = run(*words, "--held-out", 0.3, "--validation-out", tmp_path / "v.jsonl")
    assert refused.exit_code == 1
    assert not list(tmp_path.glob("*.jsonl"))
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "These lists are for judging" in result.stderr
    header = read_header(tmp_path / "a.jsonl")
    assert header.provenance.ground_truth == "not-forced"
    assert header.summary.forced == 0


def test_folds_are_written_to_train_bases_by_and_then_mined_in(once, tmp_path) -> None:
    root = miniature(once, "university1652")
    task = find_dataset("university1652").load(root, "D2S", "train")
    bases = [write_npz(tmp_path / f"{seed}.npz", task, seed=seed) for seed in range(2)]
    words = ("--benchmark", "university1652", "--root", root, "--folds", 2, "--top-k", 3,
             "--out", tmp_path / "a.jsonl")  # fmt: skip
    result = run(*words, "--folds-out", tmp_path / "folds.csv")
    assert result.exit_code == 0, result.output
    with (tmp_path / "folds.csv").open() as file:
        fold = {row["query"]: int(row["fold"]) for row in csv.DictReader(file)}
    assert set(fold.values()) == {0, 1}
    assert not (tmp_path / "a.jsonl").exists()
    one = run(*words, "--retriever", bases[0])
    assert one.exit_code == 1
    assert "1 bases for 2 folds" in one.stderr
    result = run(*words, "--retriever", bases[0], "--retriever", bases[1])
    assert result.exit_code == 0, result.output
    lists = MinedFile(tmp_path / "a.jsonl")
    assert lists.header.provenance.folds == 2
    alone = []
    for base in bases:
        assert run("--benchmark", "university1652", "--root", root, "--top-k", 3, "--retriever",
                   base, "--out", tmp_path / "b.jsonl").exit_code == 0  # fmt: skip
        alone.append({m.query: m for m in MinedFile(tmp_path / "b.jsonl")})
    for mined in lists:
        assert mined == alone[fold[mined.query]][mined.query]


def test_ones_own_map(town_folder: Path, tmp_path: Path) -> None:
    words = ("--gallery", town_folder / "gallery", "--queries",
             town_folder / "photos" / "queries.csv", "--retriever", "descriptor")  # fmt: skip
    result = run(*words, "--top-k", 4, "--out", tmp_path / "a.jsonl")
    assert result.exit_code == 0, result.output
    assert "by descriptor search" in result.stderr
    assert f"data.gallery = {town_folder / 'gallery'}" in result.stderr
    lists = MinedFile(tmp_path / "a.jsonl")
    assert len(lists) == 6
    assert lists.header.provenance.labels.source == "overlap"
    assert lists.header.summary.labels.soft_share > 0
    assert all(one.ground_truth.any() for one in lists)
    columns = run(*words, "--top-k", 4, "--out", tmp_path / "a.parquet")
    assert columns.exit_code == 0, columns.output
    assert list(MinedFile(tmp_path / "a.parquet")) == list(lists)
    assert read_header(tmp_path / "a.parquet") == lists.header
    quantile = run(*words, "--top-k", 4, "--labels", "cosine", "--label-quantile", 0.75,
                   "--replace-last", "--out", tmp_path / "b.jsonl")  # fmt: skip
    assert quantile.exit_code == 0, quantile.output
    header = read_header(tmp_path / "b.jsonl")
    assert header.provenance.labels.quantile == 0.75
    assert header.provenance.labels.threshold is not None
    assert header.summary.candidates == 24


def test_a_photo_that_can_not_be_read_is_named_and_the_others_go_on(
    town_folder: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for file in (town_folder / "photos").iterdir():
        (photos / file.name).write_bytes(file.read_bytes())
    next(iter(sorted(photos.glob("*.jpg")))).write_bytes(b"not a photo")
    result = run("--gallery", town_folder / "gallery", "--queries", photos / "queries.csv",
                 "--retriever", "descriptor", "--out", tmp_path / "a.jsonl")  # fmt: skip
    assert result.exit_code == 3, result.output
    assert "not a photo" not in result.stdout
    assert "1 queries have no list" in result.stderr
    assert len(MinedFile(tmp_path / "a.jsonl")) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "what should be mined?"),
        (["--gallery", "g", "--benchmark", "gtauav"], "not both"),
        (["--gallery", "g"], "which photos?"),
        (["--benchmark", "gtauav"], "needs --root"),
        (["--gallery", "g", "--held-out", "0.1"], "go together"),
        (["--gallery", "g", "--labels", "iou"], "unknown source of labels 'iou'"),
        (["--gallery", "g", "--threshold", "2"], "threshold = 2.0"),
        (["--gallery", "g", "--threshold", "0.5", "--label-quantile", "0.5"], "leave out one"),
        (["--gallery", "g", "--split", "val"], "--split 'val'"),
        (["--gallery", "g", "--replace-last", "--no-force"], "--no-force does not"),
        (["--gallery", "g", "--queries", "q.csv", "--folds", "2"], "--folds is for benchmarks"),
        (["--gallery", "g", "--against", "none.jsonl"], "cannot read none.jsonl"),
    ],
)
def test_what_can_not_be_done_says_so(words, message, tmp_path) -> None:
    result = run("--out", tmp_path / "a.jsonl", *words)
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert not (tmp_path / "a.jsonl").exists()
