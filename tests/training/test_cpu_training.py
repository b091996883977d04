"""What `scripts/cpu_training.py` learns from: lists of views, and a grid that `ablate` reads."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from skylink.files import write_atomic
from skylink.mined import MinedList
from skylink.town import Town, write_map

pytest.importorskip("torch")
SCRIPT = Path(__file__).parents[2] / "scripts" / "cpu_training.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cpu_training", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def scenes(script: ModuleType, folder: Path, seed: int) -> Any:
    """Pieces of a small town's map."""
    town = Town.generate(seed=seed, size_m=500, cell_m=1)
    return script.Scenes(write_map(town, folder / f"town-{seed}.tif", gsd_m=1), None)


def test_lists_of_views_show_the_right_crop_once_and_label_by_overlap(
    script: ModuleType, tmp_path: Path
) -> None:
    made: list[MinedList] = list(script.view_lists(tmp_path, scenes(script, tmp_path, 3), 4, 5))
    assert [mined.query for mined in made] == [f"view-0000{number}" for number in range(4)]
    for mined in made:
        assert mined.ground_truth.sum() == 1
        overlap = mined.values("overlap")
        assert overlap[mined.ground_truth] == overlap.max() > 0.6
        assert ((overlap > 0) & (overlap < 0.6)).sum() <= 2
        assert all((tmp_path / c.path).is_file() for c in mined.candidates if c.path)
    orders = {tuple(mined.ground_truth) for mined in made}
    assert len(orders) > 1  # the base is chance


def test_the_grid_is_one_that_ablate_reads(script: ModuleType, tmp_path: Path) -> None:
    from skylink.ablation.grid_file import read_grid

    text = script.grid_text(
        tmp_path / "train.jsonl", tmp_path / "test.jsonl", tmp_path / "c", range(3), script.SMALL
    )
    write_atomic(tmp_path / "grid.toml", text)
    grid = read_grid(tmp_path / "grid.toml")
    assert grid.seeds == (0, 1, 2)
    assert grid.optimizer.steps == script.SMALL.steps
