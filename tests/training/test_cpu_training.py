"""The training that a bare CPU can do, in small and from nothing: it learns what carries over."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

SCRIPT = Path(__file__).parents[2] / "scripts" / "cpu_training.py"
ROW = re.compile(r"^\| (.+?) \| ([\d.]+) \|$", re.MULTILINE)


def run(out: Path) -> str:
    """Run the script in small; what it printed."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(out), "--small", "--seeds", "1"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_model_trained_in_minutes_beats_its_untrained_self_on_ground_it_never_saw(
    tmp_path: Path,
) -> None:
    printed = run(tmp_path / "out")
    recalls = {name: float(value) for name, value in ROW.findall(printed)}
    (trained,) = (value for name, value in recalls.items() if name.startswith("lvlm-lora"))
    # some 70 lists of six: twice the standard error of a share is about 11 points
    assert trained > recalls["prepared, untrained"] + 15
    assert trained > recalls["random"] + 15
    table = (tmp_path / "out" / "ablation" / "ablation.md").read_text(encoding="utf-8")
    assert "lvlm-lora (prepared)" in table
    assert "failed" not in table

    # what is there is kept: nothing is made or trained again
    again = run(tmp_path / "out")
    assert "generating" not in again
    assert "tower: step" not in again
    assert {n: float(v) for n, v in ROW.findall(again)} == recalls
