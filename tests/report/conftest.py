"""Evaluations to report: a town with conditions, and two bases on a benchmark's miniature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmark_helpers import Once, load, miniature, write_npz
from skylink.cli import app


def run(*words: object) -> Any:
    """`skylink ...`, which must not fail."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="session")
def town_results(once: Once, town_folder: Path) -> Path:
    """results.json of the town: tiles re-ranked densely, under fog. Not to be changed."""

    def fill(folder: Path) -> None:
        run("evaluate", "--gallery", town_folder / "gallery", "--retriever", "descriptor",
            "--queries", town_folder / "photos" / "queries.csv", "--reranker", "dense",
            "--top-k", 8, "--conditions", "fog", "--severities", "3",
            "--out", folder / "results.json")  # fmt: skip

    return once("report-town", fill) / "results.json"


@pytest.fixture(scope="session")
def benchmark_results(once: Once) -> list[Path]:
    """Of two bases re-ranked by matching on University-1652, D2S. Not to be changed."""
    root, task = miniature(once, "university1652"), load(once, "university1652")

    def fill(folder: Path) -> None:
        for name, noise in (("good", 1.5), ("weak", 4.0)):
            base = write_npz(folder / f"{name}.npz", task, noise=noise)
            run("evaluate", "--benchmark", "u1652", "--root", root, "--retriever", base,
                "--reranker", "matching", "--top-k", 5,
                "--out", folder / f"{name}.json")  # fmt: skip

    folder = once("report-benchmark", fill)
    return [folder / "good.json", folder / "weak.json"]
