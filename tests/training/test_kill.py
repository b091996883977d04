"""Whole runs of `skylink train`, killed without warning at random moments.

In one process they come to the same bits, in two to the same to 1e-4.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from process_helpers import ONE, TWO, killed, lines, whole
from skylink.files import write_atomic
from skylink.lvlm.adapter import read_info
from skylink.training.config_file import toml_text
from training_helpers import config_for

pytestmark = pytest.mark.slow

STEPS = 14


def command(program: list[str], checkpoint: Path, folder: Path, out: str) -> list[str]:
    config = config_for(
        checkpoint, folder, judged_by=["held"], out=folder / out,
        tune={"r": 4, "dropout": 0.1}, validation={"every": 5}, checkpoints={"every": 1},
        optimizer={"steps": STEPS, "lists_per_step": 4, "lr_lora": 2e-3},
    )  # fmt: skip
    path = write_atomic(folder / f"{out}.toml", toml_text(config))
    return [*program, "train", str(path)]


def entries(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines(folder / "training" / "log.jsonl")]
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in found]


def moments(seed: int, count: int) -> list[tuple[int, float]]:
    """When to kill: after which steps (ascending, before the last), and how many seconds later."""
    draw = np.random.default_rng(seed)
    steps = np.sort(draw.choice(np.arange(1, STEPS - 1), count, replace=False))
    return [(int(step), float(draw.uniform(0, 0.08))) for step in steps]


def broken(
    program: list[str], checkpoint: Path, folder: Path, when: list[tuple[int, float]]
) -> str:
    """A run that is killed at these moments, begun again each time, and then ends: its words."""
    args = command(program, checkpoint, folder, "broken")
    log = folder / "broken" / "training" / "log.jsonl"
    for after, delay_s in when:
        killed(args, log, after=after, delay_s=delay_s)
        print(f"killed {delay_s:.3f} s after step {after}; {len(lines(log))} are in the log")
    return whole(args)


@pytest.mark.parametrize("seed", [0])
def test_a_run_killed_at_ten_moments_goes_on_bit_for_bit(
    checkpoint: Path, folder: Path, seed: int
) -> None:
    when = moments(seed, 10)
    print(f"seed {seed}: {when}")  # shown where it fails
    whole(command(ONE, checkpoint, folder, "unbroken"))
    broken(ONE, checkpoint, folder, when)
    assert entries(folder / "broken") == entries(folder / "unbroken")
    one, other = read_info(folder / "broken"), read_info(folder / "unbroken")
    assert one is not None
    assert other is not None
    assert one.head_sha256 == other.head_sha256
    assert one.lora_sha256 == other.lora_sha256
    assert one.about["validation"] == other.about["validation"]


@pytest.mark.parametrize("seed", [1])
def test_two_processes_killed_at_three_moments_come_to_the_same(
    checkpoint: Path, folder: Path, seed: int
) -> None:
    pytest.importorskip("accelerate")
    when = moments(seed, 3)
    print(f"seed {seed}: {when}")
    whole(command(ONE, checkpoint, folder, "unbroken"))
    assert "2 processes share" in broken(TWO, checkpoint, folder, when)
    one, two = entries(folder / "unbroken"), entries(folder / "broken")
    assert len(two) == STEPS
    for mine, other in zip(two, one, strict=True):
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-4)
    scores = [read_info(folder / name) for name in ("broken", "unbroken")]
    validations = [info.about["validation"] for info in scores if info is not None]
    assert len(validations) == 2
    for name in ("base", "re-ranker", "fused"):
        assert validations[0][name] == pytest.approx(validations[1][name], abs=1e-4)
