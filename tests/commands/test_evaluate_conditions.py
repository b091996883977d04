"""`skylink evaluate --conditions` on the town: files, table, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from skylink.cli import app
from skylink.commands import terminal
from skylink.commands.evaluate_conditions import Plan, beside, parse_severities
from skylink.errors import OptionError
from skylink.robustness import Robustness


def run(town: Path, *words: object) -> Any:
    start = ["evaluate", "-g", town / "gallery", "-q", town / "photos" / "queries.csv"]
    return CliRunner().invoke(app, [str(word) for word in (*start, "--limit", 2, *words)])


def test_figures_table_and_heat_map(town_folder: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "results.json", tmp_path / "recall.png"
    result = run(
        town_folder, "--conditions", "fog,altitude-error", "--severities", "1,5",
        "--reranker", "dense", "--out", out, "--plot", plot,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "2 at 2 severities, 8 photos to locate" in result.stderr
    for words in ("unchanged", "altitude-error 5", "altitude wrong by a factor of 3", "fog 1"):
        assert words in result.stdout
    found = Robustness.model_validate_json((tmp_path / "results.conditions.json").read_text())
    assert [(c.condition, c.severity) for c in found.cells] == [
        ("altitude-error", 1), ("altitude-error", 5), ("fog", 1), ("fog", 5),
    ]  # fmt: skip
    plain = json.loads(out.read_text())
    assert found.clean.retrieved.recall_1 == plain["retrieved"]["recall@1"]
    assert found.queries == plain["queries"] == 2
    with Image.open(tmp_path / "recall.conditions.png") as image:
        assert image.format == "PNG"
    assert {p.name for p in tmp_path.iterdir()} == {
        "results.json", "results.queries.jsonl", "results.conditions.json", "recall.png",
        "recall.conditions.png",
    }  # fmt: skip


def test_an_interrupted_run_goes_on(
    town_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skylink import robustness_partial

    words = (
        "--conditions", "dark", "--severities", "1,2,3", "--out", tmp_path / "r.json"
    )  # fmt: skip
    add = robustness_partial.PartialCells.add

    def stop(self: robustness_partial.PartialCells, cell: Any) -> None:
        add(self, cell)
        if len(self.cells) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(robustness_partial.PartialCells, "add", stop)
        result = run(town_folder, *words)
    assert result.exit_code == terminal.INTERRUPTED
    assert (tmp_path / "r.conditions.partial.jsonl").is_file()
    result = run(town_folder, *words)
    assert result.exit_code == 0, result.output
    assert "2 are done by a run that was stopped" in result.stderr
    cells = json.loads((tmp_path / "r.conditions.json").read_text())["cells"]
    assert [cell["severity"] for cell in cells] == [1, 2, 3]
    assert not (tmp_path / "r.conditions.partial.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--conditions", "fgo"), "did you mean fog?"),
        (("--conditions", "lihgt"), "did you mean light?"),
        (("--conditions", "fog", "--severities", "1,6"), "severities '1,6'"),
        (("--conditions", "fog", "--severities", ""), "--severities 1,3,5"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    town_folder: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    result = run(town_folder, *words, "--out", tmp_path / "r.json")
    assert result.exit_code == terminal.FAILED
    assert told in result.stderr
    assert not list(tmp_path.iterdir())


def test_parsing() -> None:
    assert parse_severities("5, 1,3,1") == [1, 3, 5]
    for text in ("0", "6", "1-3", "", "1,", "²"):
        with pytest.raises(OptionError):
            parse_severities(text)
    assert Plan.parse(None, "nonsense") is None
    plan = Plan.parse("weather", "2")
    assert plan is not None
    assert len(plan.conditions) == 3
    assert beside(Path("a/results.json")) == Path("a/results.conditions.json")
