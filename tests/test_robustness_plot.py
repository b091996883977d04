from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from skylink.conditions import CONDITIONS
from skylink.errors import OutputError
from skylink.figures import Ranking
from skylink.robustness import Cell, Figures, Robustness
from skylink.robustness_plot import heat_map, save_heat_map


def ranking(recall: float) -> Ranking:
    return Ranking.model_validate(
        {
            "recall@1": recall, "recall@5": None, "recall@10": None, "recall@20": None,
            "recall@1_interval_95": None, "ap": recall, "median_error_m": None,
            "within_25_m": recall, "within_50_m": recall,
        }
    )  # fmt: skip


def figures(base: float, final: float | None) -> Figures:
    return Figures(
        failed=0, retrieved=ranking(base), reranked=None if final is None else ranking(final),
        reranked_minus_retrieved_interval=None, flips={"fixed": 0, "broken": 0},
        reranked_queries=0, rerank_failed=0,
    )  # fmt: skip


def robustness(*, reranks: bool = True, changed: int = 4) -> Robustness:
    """Fog 1 and 3, noise 1 only."""
    cells = []
    for name, severity, base, final in (
        ("fog", 1, 80.0, 90.0), ("fog", 3, 40.4, 35.0), ("noise", 1, 71.0, 71.4)
    ):  # fmt: skip
        c = CONDITIONS[name]
        cells.append(
            Cell(
                condition=name, kind=c.kind, severity=severity, level=c.level(severity),
                unit=c.unit, words=c.words(severity), changed=changed,
                figures=figures(base, final if reranks else None),
            )
        )  # fmt: skip
    return Robustness(
        protocol="", queries=4, tolerance_m=50, retriever="dense",
        reranker="told" if reranks else "none", top_k=5, telemetry="as given", seed=0,
        clean=figures(100.0, 100.0 if reranks else None), cells=cells,
    )  # fmt: skip


def numbers(axes: object) -> list[list[str]]:
    """The texts of the cells, by row."""
    found: dict[float, list[tuple[float, str]]] = {}
    for text in axes.texts:  # type: ignore[attr-defined]
        x, y = text.get_position()
        found.setdefault(y, []).append((x, text.get_text()))
    return [[t for _, t in sorted(row)] for _, row in sorted(found.items())]


def test_every_cell_has_its_number() -> None:
    base, final, change = heat_map(robustness()).axes
    assert numbers(base) == [["100", "80", "40"], ["100", "71"]]
    assert numbers(final) == [["100", "90", "35"], ["100", "71"]]
    assert numbers(change) == [["0", "+10", "-5"], ["0", "0"]]
    assert [label.get_text() for label in base.get_yticklabels()] == ["fog", "noise"]
    assert [label.get_text() for label in base.get_xticklabels()] == ["none", "1", "3"]
    assert [axes.get_title() for axes in (base, final, change)] == [
        "base: dense", "re-ranked: told", "re-ranked minus base",
    ]  # fmt: skip


def test_without_a_reranker_there_is_one_panel() -> None:
    (axes,) = heat_map(robustness(reranks=False)).axes
    assert numbers(axes) == [["100", "80", "40"], ["100", "71"]]


def test_conditions_that_changed_nothing_are_marked() -> None:
    (axes,) = heat_map(robustness(reranks=False, changed=0)).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fog *", "noise *"]


def test_text_stands_out_from_its_cell() -> None:
    (axes,) = heat_map(robustness(reranks=False)).axes
    colours = {text.get_text(): text.get_color() for text in axes.texts}
    assert (colours["100"], colours["40"]) == ("black", "white")


def test_saved_png_opens(tmp_path: Path) -> None:
    path = save_heat_map(tmp_path / "new" / "map.png", robustness(), title="x % $y_1$")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > image.height


def test_unwritable_place_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_heat_map(tmp_path / "file" / "map.png", robustness())


def test_import_loads_no_matplotlib() -> None:
    code = "import sys, skylink.robustness_plot; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
