"""Whole runs of `skylink ablate`, killed without warning."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ablation_helpers import write_grid

pytestmark = pytest.mark.slow

ROWS = """
[[rows]]
models = ["lvlm-lora", "pairs-head"]
"""


def command(grid: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "skylink", "ablate", str(grid), "--out", str(out)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def whole(args: list[str]) -> None:
    done = subprocess.run(args, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def killed(args: list[str], out: Path, pattern: str, count: int) -> None:
    """Kill -9 as soon as so many files are there."""
    with subprocess.Popen(
        args, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        limit = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < limit:
            if len(list(out.glob(pattern))) >= count:
                break
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)


def figures(out: Path) -> list[dict[str, Any]]:
    """All that a run came to but for how long it took."""
    rows = [row for part in json.loads((out / "ablation.json").read_text())["parts"]
            for row in part["rows"]]  # fmt: skip
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows]


def test_a_killed_ablation_comes_to_the_same_table(checkpoint: Path, folder: Path) -> None:
    grid = write_grid(folder, checkpoint, rows=ROWS, steps=10)
    whole(command(grid, folder / "unbroken"))
    out = folder / "broken"
    killed(command(grid, out), out, "cells/lvlm-lora*/training/step-*3.pt", 1)
    killed(command(grid, out), out, "cells/*.json", 2)
    finished = {path: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}
    assert finished
    whole(command(grid, out))
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    assert figures(out) == figures(folder / "unbroken")
