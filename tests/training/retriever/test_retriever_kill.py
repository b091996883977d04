"""Whole runs of `skylink train-retriever`, killed without warning.

In one process they come to the same bits, in two to the same to 1e-4.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("timm")

from process_helpers import ENVIRONMENT, ONE, TWO, killed, whole
from retriever_helpers import benchmark_of, encoder_of, log_of, retriever_config
from skylink.training.config_file import toml_text
from skylink.training.retriever.config import RetrieverConfig

pytestmark = pytest.mark.slow


@pytest.fixture
def config(once: Any, tmp_path: Path) -> RetrieverConfig:
    """Steps of seven pictures in three chunks, which two processes share unevenly."""
    return retriever_config(
        encoder_of(once), benchmark_of(once), tmp_path / "whole",
        optimizer={"steps": 9}, data={"mine_every": 1, "hard": 2}, validation={"every": 2},
        checkpoints={"every": 1}, compute={"pictures_at_once": 3},
    )  # fmt: skip


def command(program: list[str], config: RetrieverConfig) -> list[str]:
    path = config.out.with_suffix(".toml")
    path.write_text(toml_text(config))
    return [*program, "train-retriever", str(path)]


def broken(program: list[str], config: RetrieverConfig, moments: list[int]) -> str:
    """A run that is killed after these steps, begun again each time, and then ends: its words."""
    args = command(program, config)
    for step in moments:
        killed(args, config.out / "training" / "log.jsonl", after=step)
    return whole(args)


def validation(config: RetrieverConfig) -> dict[str, Any]:
    """Figures of the finished folder."""
    found = json.loads((config.out / "skylink.json").read_text())["about"]["validation"]
    assert found["trained"].keys() == {"recall@1", "mrr"}
    return dict(found)


def test_a_run_that_is_killed_goes_on_bit_for_bit(config: RetrieverConfig) -> None:
    whole(command(ONE, config))
    other = config.model_copy(update={"out": config.out.with_name("broken")})
    broken(ONE, other, [2, 6])
    assert log_of(other) == log_of(config)
    one, two = (c.out / "model.safetensors" for c in (config, other))
    assert one.read_bytes() == two.read_bytes()


def test_two_processes_killed_come_to_the_same(config: RetrieverConfig) -> None:
    pytest.importorskip("accelerate")
    whole(command(ONE, config))
    other = config.model_copy(update={"out": config.out.with_name("broken")})
    said = broken(TWO, other, [4])
    assert "2 processes share the chunks of each step, 6 at the most" in said
    one, two = log_of(config), log_of(other)
    assert len(two) == 9
    for mine, theirs in zip(two, one, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4)
    assert validation(other) == validation(config)
    weights, expected = (load_file(c.out / "model.safetensors") for c in (other, config))
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)


def test_where_one_process_fails_the_other_ends(config: RetrieverConfig, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    assert config.data.root is not None
    root = tmp_path / "root"
    shutil.copytree(config.data.root, root)
    for photo in (root / "train" / "drone").rglob("image-01.*"):
        photo.write_bytes(b"no picture")
    data = config.data.model_copy(update={"root": root})
    args = command(TWO, config.model_copy(update={"data": data}))
    done = subprocess.run(args, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "image-01" in done.stderr
    assert "bug in SkyLink" not in done.stderr
