"""What every training command says before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from skylink.ablation.grid_file import example_text
from skylink.cli import app
from skylink.commands import training_options


@pytest.mark.parametrize("command", ["train", "train-encoder", "train-relational",
                                     "train-retriever", "ablate"])  # fmt: skip
def test_absent_packages_are_named_before_anything_is_read(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_torch(name: str) -> Any:
        return None if name == "torch" else object()

    monkeypatch.setattr(training_options, "find_spec", without_torch)
    config = tmp_path / "config.toml"
    config.write_text(example_text() if command == "ablate" else "")
    done = CliRunner().invoke(app, [command, str(config), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1, done.output
    assert "packages that are not installed: torch" in done.stderr
    assert "pip install '.[train]'" in done.stderr
    assert not (tmp_path / "out").exists()
