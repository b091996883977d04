"""`skylink datasets`: what there is, miniatures, and checks of copies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmark_helpers import DATASETS, Once, miniature
from skylink.cli import app
from skylink.commands import terminal
from skylink.datasets import REGISTRY


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["datasets", *map(str, words)])


def test_the_list_names_all() -> None:
    result = run()
    assert result.exit_code == 0
    for name, dataset in REGISTRY.items():
        assert name in result.stdout
        assert dataset.title in result.stdout
        assert dataset.tasks()[0] in result.stdout


@pytest.mark.parametrize("name", DATASETS)
def test_one_is_told_in_full(name: str) -> None:
    dataset = REGISTRY[name]
    result = run(dataset.title.upper())
    assert result.exit_code == 0, result.output
    for words in (dataset.obtain, dataset.terms, dataset.layout, dataset.citation):
        assert words in result.stdout


@pytest.mark.parametrize("name", DATASETS)
def test_a_miniature_is_whole(name: str, once: Once) -> None:
    result = run(name, "--check", miniature(once, name), "--full")
    assert result.exit_code == 0, result.output
    assert "The copy is whole" in result.stderr
    assert "its numbers mean nothing" in result.stderr


def test_writing_a_miniature(tmp_path: Path) -> None:
    result = run("cvusa", "--miniature", tmp_path / "mini", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "skylink evaluate --benchmark cvusa --root" in result.stderr
    assert run("cvusa", "--check", tmp_path / "mini").exit_code == 0
    again = run("cvusa", "--miniature", tmp_path / "mini")
    assert again.exit_code == terminal.FAILED
    assert "is not an empty folder" in again.stderr


def test_a_damaged_copy_fails_its_check(once: Once, tmp_path: Path) -> None:
    root = shutil.copytree(miniature(once, "university1652"), tmp_path / "copy")
    picture = next((root / "test" / "query_drone").rglob("*.jpeg"))
    picture.write_bytes(b"")
    result = run("u1652", "--check", root, "--full")
    assert result.exit_code == terminal.FAILED
    assert picture.name in result.stderr
    assert "1 problems" in result.stderr
    shutil.rmtree(root / "test" / "gallery_satellite")
    worse = run("u1652", "--check", root)
    assert worse.exit_code == terminal.FAILED
    assert "gallery_satellite" in worse.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no-such",), "no dataset is called 'no-such'"),
        (("--check", "."), "which dataset?"),
        (("--miniature", "x"), "which dataset?"),
        (("u1652", "--check", "nowhere"), "nowhere"),
    ],
)
def test_mistakes(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    result = run(*words)
    assert result.exit_code == terminal.FAILED
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_export_for_place_recognition(tmp_path: Path) -> None:
    root, out = tmp_path / "mini", tmp_path / "vpr"
    assert run("denseuav", "--miniature", root).exit_code == 0
    result = run("denseuav", "--vpr", out, "--root", root)
    assert result.exit_code == 0, result.output
    task = REGISTRY["denseuav"].load(root, "D2S")
    copied = sorted((out / "images" / "test").rglob("*.*"))
    assert len(copied) == len(task.queries) + len(task.gallery)
    assert all(file.name.count("@") == 15 for file in copied)
    east, north = copied[0].name.split("@")[1:3]
    assert 1e5 < float(east) < 9e5
    assert 0 < float(north) < 1e7
    again = run("denseuav", "--vpr", out, "--root", root)
    assert again.exit_code == 1
    assert "not an empty folder" in again.stderr


def test_places_without_positions_are_not_exported(tmp_path: Path) -> None:
    root = tmp_path / "mini"
    run("university1652", "--miniature", root)
    result = run("university1652", "--vpr", tmp_path / "vpr", "--root", root)
    assert result.exit_code == 1
    assert "no geographic positions" in result.stderr
