"""Every dataset: its miniature loads and checks clean, and damage is reported with what to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from skylink.datasets import REGISTRY, Dataset, PictureReader, Report, find_dataset
from skylink.datasets.base import MINIATURE
from skylink.errors import DatasetError, OptionError, OutputError
from skylink.photo import SUFFIXES

Miniature = Callable[[str], Path]

FOLDERS = ("drone", "images", "panorama", "panos", "query_drone", "streetview")
"""Where photos lie, in one dataset or another."""

every = pytest.mark.parametrize("dataset", REGISTRY.values(), ids=list(REGISTRY))


def pictures(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)


def said(report: Report, *words: str) -> None:
    """One of the problems says all of this and what to do."""
    texts = [f"{p.what}\n{p.fix}" for p in report.problems]
    assert not report.ok
    assert any(all(word in text for word in words) for text in texts), texts
    assert all(p.fix for p in report.findings)


@every
def test_facts_are_stated(dataset: Dataset) -> None:
    assert dataset.citation.startswith("@")
    assert "title={" in dataset.citation
    assert "http" in dataset.obtain
    assert dataset.terms
    assert dataset.layout
    assert dataset.tasks()
    assert dataset.sizes


@every
def test_miniature_loads_in_every_protocol(dataset: Dataset, miniature: Miniature) -> None:
    loaded = 0
    for split in dataset.splits:
        for name in dataset.tasks():
            if (dataset.name, name, split) == ("cvact", "test", "train"):
                continue  # it has no such split
            if name.startswith("map ") and name not in ("map 01", "map 09"):
                continue  # flights that the miniature leaves out
            task = dataset.load(miniature(dataset.name), name.upper(), split)
            loaded += 1
            assert (task.name, task.split) == (name, split)
            assert all(item.path.is_file() for item in (*task.queries, *task.gallery))
            places = [item.place for item in task.gallery]
            for query, rows in zip(task.queries, task.positives, strict=True):
                assert rows
                if query.place is not None:
                    same = tuple(i for i, place in enumerate(places) if place == query.place)
                    assert rows == same
    assert loaded >= len(dataset.splits)


@every
def test_miniature_checks_clean(dataset: Dataset, miniature: Miniature) -> None:
    report = dataset.check(miniature(dataset.name), full=True)
    assert report.ok, report.problems
    assert report.miniature
    assert report.decoded == report.pictures > 0
    assert [count.what for count in report.counts if count.expected is None] == []
    assert {count.what for count in report.counts} >= set(dataset.sizes)


@every
def test_miniature_is_the_same_for_one_seed(
    dataset: Dataset, miniature: Miniature, tmp_path: Path
) -> None:
    again = dataset.write_miniature(tmp_path / "again", seed=3)
    first = miniature(dataset.name)
    names = [path.relative_to(first) for path in pictures(first)]
    assert names == [path.relative_to(again) for path in pictures(again)]
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in names[::7])


@every
def test_without_the_mark_it_is_measured_by_published_counts(
    dataset: Dataset, copied: Miniature
) -> None:
    root = copied(dataset.name)
    (root / MINIATURE).unlink()
    report = dataset.check(root)
    assert not report.miniature
    said(report, "published", "do not compare")


@every
def test_truncated_picture(dataset: Dataset, copied: Miniature) -> None:
    root = copied(dataset.name)
    used = {item.path for item in _items(dataset, root) if item.window is None}
    victim = next(path for path in pictures(root) if path in used)
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    said(dataset.check(root, full=True), victim.name, "cannot be read", "unpack")


@every
def test_missing_folder(dataset: Dataset, copied: Miniature) -> None:
    root = copied(dataset.name)
    lost = max(path for path in root.rglob("*") if path.is_dir() and path.name in FOLDERS)
    shutil.rmtree(lost)
    report = dataset.check(root)
    said(report, str(lost.relative_to(root)), "missing", "unpack")


@every
def test_an_empty_folder_and_none_at_all(dataset: Dataset, tmp_path: Path) -> None:
    report = dataset.check(tmp_path)
    assert not report.ok
    assert report.decoded == 0
    said(dataset.check(tmp_path / "nowhere"), "is not a folder", "unpacked")
    with pytest.raises(DatasetError) as caught:
        dataset.load(tmp_path, dataset.tasks()[0], dataset.splits[0])
    assert caught.value.hint


@every
def test_stray_folders_and_files_are_noted(dataset: Dataset, copied: Miniature) -> None:
    root = copied(dataset.name)
    (root / "my notes").mkdir()
    (root / ".DS_Store").write_bytes(b"x")
    report = dataset.check(root)
    assert report.ok
    notes = " ".join(finding.what for finding in report.findings)
    assert "my notes is not of" in notes
    assert "1 hidden files ignored" in notes


@every
def test_unknown_protocol_and_split(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no protocol 'X2Y'") as caught:
        dataset.load(tmp_path, "X2Y")
    assert dataset.tasks()[0] in (caught.value.hint or "")
    with pytest.raises(OptionError, match="no split 'val'"):
        dataset.load(tmp_path, dataset.tasks()[0], "val")  # type: ignore[arg-type]


def test_names_and_aliases() -> None:
    assert find_dataset(" U1652 ") is REGISTRY["university1652"]
    assert find_dataset("GTA-UAV") is REGISTRY["gtauav"]
    with pytest.raises(OptionError, match="no dataset is called 'mars'") as caught:
        find_dataset("mars")
    assert all(name in (caught.value.hint or "") for name in REGISTRY)
    spellings = [s for d in REGISTRY.values() for s in (d.name, *d.aliases)]
    assert len(spellings) == len(set(spellings))


def test_miniature_needs_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="not an empty folder"):
        REGISTRY["cvusa"].write_miniature(tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_miniatures_of_two_seeds_differ(miniature: Miniature, tmp_path: Path) -> None:
    other = REGISTRY["cvusa"].write_miniature(tmp_path / "other", seed=4)
    assert pictures(other)[0].read_bytes() != pictures(miniature("cvusa"))[0].read_bytes()


def test_damaged_mark(copied: Miniature) -> None:
    root = copied("cvusa")
    (root / MINIATURE).write_text(json.dumps({"counts": {"train pairs": "4"}}))
    said(REGISTRY["cvusa"].check(root), "damaged")


def test_reader_gives_pixels_of_files_and_windows(miniature: Miniature) -> None:
    with PictureReader() as reader:
        for name in ("denseuav", "uavvisloc"):
            task = REGISTRY[name].load(miniature(name), REGISTRY[name].tasks()[0])
            for item in (task.queries[0], task.gallery[-1]):
                image = reader.read(item)
                assert image.dtype == np.uint8
                assert image.ndim == 3
                assert image.std() > 5
                if item.window:
                    assert image.shape[:2] == item.window[:1:-1]


def _items(dataset: Dataset, root: Path):  # type: ignore[no-untyped-def]
    for split in dataset.splits:
        task = dataset.load(root, dataset.tasks()[0], split)
        yield from (*task.queries, *task.gallery)


@every
def test_the_documentation_says_the_same(dataset: Dataset) -> None:
    text = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    assert dataset.layout in text
    assert f"`{dataset.name}`" in text
    for fact in (dataset.title, dataset.terms, dataset.obtain):
        assert fact in " ".join(text.split())
