"""Tests of `skylink train`."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from skylink.cli import app
from skylink.training.config import TrainConfig
from skylink.training.config_file import toml_text
from training_helpers import config_for, write_lists

os.environ["HF_HUB_OFFLINE"] = "1"

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def model(once: Any) -> Path:
    """A tiny random SmolVLM."""
    from skylink.lvlm.random_checkpoint import write_random_checkpoint

    def fill(folder: Path) -> None:
        write_random_checkpoint(folder / "tiny-smolvlm", "smolvlm")

    return once("train-model", fill) / "tiny-smolvlm"


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["train", *(str(word) for word in words)])


def saved(config: TrainConfig) -> Path:
    path = config.out.parent / "train.toml"
    path.write_text(toml_text(config))
    return path


def test_from_lists_to_a_folder_that_is_used_next(model: Path, tmp_path: Path) -> None:
    write_lists(tmp_path)
    write_lists(tmp_path, name="held", lists=8)
    config = saved(config_for(model, tmp_path, judged_by=["held"], tune={"how": "head"}))
    done = run(config)
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    for words in (
        "Training 129 numbers (a value head on the frozen model) of tiny-smolvlm on cpu, fp32",
        "16 lists of 4, 4 steps of 4 lists, loss relational; 8 validation lists",
        "warning: labels collapsed",
        "Trained 4 steps",
        "recall@1 25.0 % ->",
        "the base alone 25.0 %",
        f"--reranker lvlm:{model} --lvlm-adapter {tmp_path / 'out'}",
    ):
        assert words in done.stderr
    again = run(config)
    assert "Going on from step 4" in again.stderr
    fresh = run(config, "--fresh", "--out", tmp_path / "elsewhere")
    assert fresh.exit_code == 0, fresh.output
    assert "Going on" not in fresh.stderr
    assert (tmp_path / "elsewhere" / "skylink.json").is_file()


def test_lora_without_validation_says_what_is_missing(model: Path, tmp_path: Path) -> None:
    write_lists(tmp_path)
    config = config_for(model, tmp_path, optimizer={"steps": 1}, compute={"cache_gb": 1e-6})
    done = run(saved(config))
    assert done.exit_code == 0, done.output
    assert "LoRA of rank 16 on q_proj, k_proj, v_proj, and a value head" in done.stderr
    assert "there are no validation lists" in done.stderr
    assert "raise compute.cache_gb" in done.stderr


def test_the_printed_configuration_is_toml() -> None:
    printed = run("--print-config")
    assert printed.exit_code == 0
    assert TrainConfig.model_validate(tomllib.loads(printed.stdout)).tune.r == 16


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (None, "can't be read", "--print-config"),
        ("checkpoint = 1", "checkpoint = 1", "--print-config"),
        ('checkpoint = "x"\nout = "o"\n[data]\ntrain = "t"\n[tune]\nrank = 3', "tune.rank", ""),
        ('checkpoint = "x"\nout = "o"\n[data]\ntrain = "t"', "cannot read", ""),
        ('checkpoint = "x"\nout = "o"\n[data]\ntrain = "train.toml"', "header", "skylink mine"),
    ],
)
def test_bad_input_is_a_line_and_a_hint(
    tmp_path: Path, text: str | None, message: str, hint: str
) -> None:
    path = tmp_path / "train.toml"
    if text is not None:
        path.write_text(text)
    done = run(path)
    assert done.exit_code == 1
    assert "error: " in done.stderr
    assert message in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.output


def test_no_configuration_at_all() -> None:
    done = run()
    assert done.exit_code == 1
    assert "--print-config" in done.stderr
