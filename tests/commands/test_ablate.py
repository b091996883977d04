"""Tests of `skylink ablate`."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ablation_helpers import write_ablation, write_grid
from skylink.cli import app

PAIRS = """
[[rows]]
models = ["base", "pairs-head"]
losses = ["relational", "relational+threshold"]
"""


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["ablate", *(str(word) for word in words)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("peft")
    os.environ["HF_HUB_OFFLINE"] = "1"
    write_ablation(tmp_path)
    return tmp_path


def test_from_a_grid_to_a_table(folder: Path) -> None:
    grid, out = write_grid(folder, "none", rows=PAIRS, steps=3), folder / "out"
    empty = run(grid, "--out", out, "--report-only")
    assert empty.exit_code == 0, empty.output
    assert "warning: 4 cells are not run yet" in empty.stderr
    assert "| base |  |  |  | 25.00 |" in (out / "ablation.md").read_text()
    done = run(grid, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    for words in (
        "4 cells, 0 of them with a result; 16 test lists",
        "warning: pairs-head, relational+threshold, overlap: its labels are one-hot",
        str(out / "ablation.png"),
    ):
        assert words in done.stderr
    assert "4 of them with a result" in run(grid, "--out", out).stderr


def test_failed_cells_have_an_exit_code_of_their_own(folder: Path) -> None:
    grid = write_grid(folder, "none", rows=PAIRS + '[pairs]\nencoder = "enbedded"\n')
    done = run(grid, "--out", folder / "out", "--part", "2/2")
    assert done.exit_code == 3, done.output
    assert "2 cells failed" in done.stderr
    assert "unknown encoder 'enbedded'" in (folder / "out" / "ablation.md").read_text()
    assert run(grid, "--out", folder / "out").exit_code == 4


def test_the_printed_grid_is_toml_and_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "import skylink.cli\n"
        "for words in (['ablate', '--help'], ['ablate', '--print-grid']):\n"
        "    done = CliRunner().invoke(skylink.cli.app, words)\n"
        "    assert done.exit_code == 0, done.output\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "print(done.stdout)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert tomllib.loads(done.stdout)["seeds"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ([], "no grid is given", "--print-grid"),
        (["grid.toml"], "no folder is given", "--out"),
        (["grid.toml", "--out", "o"], "can't be read", "--print-grid"),
        (["grid.toml", "--out", "o", "--part", "3/2"], "3/2", "--part 1/8"),
        (["grid.toml", "--out", "o", "--part", "0/2"], "0/2", "--part 1/8"),
        (["grid.toml", "--out", "o", "--part", "one"], "one", "--part 1/8"),
    ],
)
def test_bad_input_is_a_line_and_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 1
    assert message in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.output
