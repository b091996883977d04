"""Miniatures of all datasets, written once a run, and copies of them to damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from skylink.datasets import REGISTRY

Miniature = Callable[[str], Path]


@pytest.fixture(scope="session")
def miniature(once: Callable[[str, Callable[[Path], None]], Path]) -> Miniature:
    """The miniature of a dataset by name: shared, so not to be changed."""

    def make(name: str) -> Path:
        return once(f"dataset-{name}", lambda folder: _write(name, folder))

    return make


@pytest.fixture
def copied(miniature: Miniature, tmp_path: Path) -> Miniature:
    """A copy of a dataset's miniature that a test may damage."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(miniature(name), tmp_path / name))

    return copy


def _write(name: str, folder: Path) -> None:
    REGISTRY[name].write_miniature(folder, seed=3)
