"""`skylink report` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from skylink.cli import app
from skylink.commands import terminal


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["report", *map(str, words)])


def test_a_page_is_written(tmp_path: Path) -> None:
    figures = {"queries": 7, "recall@1": 12.5, "ap_step": 20.0, "recall@5": 40.0}
    (tmp_path / "scored.json").write_text(json.dumps(figures))
    page = tmp_path / "new" / "page.html"
    result = run(tmp_path / "scored.json", "--out", page, "--title", "Mine")
    assert result.exit_code == 0, result.output
    assert f"Wrote {page}" in result.stderr
    assert "<h1>Mine</h1>" in page.read_text()


def test_mistakes(tmp_path: Path) -> None:
    missing = run(tmp_path / "none.json", "--out", tmp_path / "x.html")
    assert missing.exit_code == terminal.FAILED
    assert "cannot read" in missing.stderr
    assert "--out" in missing.stderr
    assert not (tmp_path / "x.html").exists()
    assert run().exit_code == terminal.USAGE
    assert run(tmp_path / "none.json", "--pictures", -1).exit_code == terminal.USAGE
