"""Tests of `skylink.training.journal`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from skylink.training.journal import Journal


def entries(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    found = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(entry["step"], entry) for entry in found]


def steps(folder: Path) -> list[int]:
    return [step for step, _ in entries(folder)]


def test_what_a_continued_run_writes_again_goes_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path, after=0)
    for step in range(1, 6):
        journal.add(step, loss=1 / step)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # a kill
    journal = Journal(tmp_path, after=3)
    assert steps(tmp_path) == [1, 2, 3]
    journal.add(4, loss=0.0)
    assert steps(tmp_path) == [1, 2, 3, 4]
    Journal(tmp_path, after=0)
    assert steps(tmp_path) == []


def test_tensorboard_gets_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            seen.append((Path(folder).name, purge_step))

        def add_scalar(self, *entry: Any) -> None:
            seen.append(entry)

        def flush(self) -> None:
            seen.append("flushed")

        def close(self) -> None:
            seen.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    journal = Journal(tmp_path, after=7)
    journal.add(8, loss=0.5, lr_lora=None)
    journal.close()
    assert seen == [("tensorboard", 8), ("loss", 0.5, 8), "flushed", "closed"]


def test_tensorboard_reads_what_the_log_says(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    journal = Journal(tmp_path, after=0)
    for step in range(1, 6):
        journal.add(step, loss=1 / step, mrr=0.5 if step == 2 else None)
    time.sleep(1)  # files are read in the order of their seconds
    journal = Journal(tmp_path, after=3)  # the other was killed
    journal.add(4, loss=0.75, mrr=1)
    journal.add(5, loss=None)
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = {name: found.Scalars(name) for name in found.Tags()["scalars"]}
    for name, points in scalars.items():
        said = {step: entry[name] for step, entry in entries(tmp_path) if name in entry}
        known = {step: value for step, value in said.items() if value is not None}
        assert [point.step for point in points] == list(known)
        assert [point.value for point in points] == pytest.approx(list(known.values()))
    assert scalars.keys() == {"loss", "mrr"}


def test_without_tensorboard_there_is_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    Journal(tmp_path, after=0).add(1, loss=2.0)
    assert steps(tmp_path) == [1]
