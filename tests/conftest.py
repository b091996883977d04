"""A made-up town, its gallery and its photos: made once, shared by all tests and xdist workers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from scene_helpers import photos_of_town
from skylink.gallery import Gallery
from skylink.queries import QueryRow, read_queries
from skylink.town import write_inputs
from skylink.types import Query

Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fill a folder once in this run, whichever worker comes first; the others wait for it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder, done = root / f"once-{name}", root / f"once-{name}.done"
        with (root / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                folder.mkdir(exist_ok=True)
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def town_folder(once: Once) -> Path:
    """map.tif, photos/ (6, with queries.csv) and gallery/ of a 500 m town, embedded encoder."""

    def fill(folder: Path) -> None:
        inputs = write_inputs(folder, seed=7, size_m=500, cell_m=1, photos=6)
        Gallery.build([inputs.map], folder / "gallery")

    return once("town", fill)


@pytest.fixture(scope="session")
def town_gallery(town_folder: Path) -> Gallery:
    """One level, 160 m tiles every 40 m."""
    return Gallery.open(town_folder / "gallery")


@pytest.fixture(scope="session")
def town_rows(town_folder: Path) -> list[QueryRow]:
    """The photos' telemetry and truth."""
    return read_queries(town_folder / "photos" / "queries.csv")


@pytest.fixture(scope="session")
def town_queries(town_rows: Sequence[QueryRow]) -> list[Query]:
    """The photos, loaded: telemetry without the position."""
    return [row.load() for row in town_rows]


@pytest.fixture(scope="session")
def elsewhere_queries() -> list[Query]:
    """Three photos of another town, which the gallery does not show."""
    return photos_of_town(seed=21, photos=3, size_m=420)
