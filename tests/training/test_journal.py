"""Tests of `skylink.training.journal`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from skylink.training.journal import Journal


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


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

        def close(self) -> None:
            seen.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    journal = Journal(tmp_path, after=7)
    journal.add(8, loss=0.5, lr_lora=None)
    journal.close()
    assert seen == [("tensorboard", 8), ("loss", 0.5, 8), "closed"]


def test_without_tensorboard_there_is_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    Journal(tmp_path, after=0).add(1, loss=2.0)
    assert steps(tmp_path) == [1]
