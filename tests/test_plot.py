from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skylink.errors import OutputError
from skylink.plot import recall_figure, save_recall_plot


def test_figure_shows_each_method_with_its_numbers() -> None:
    figure = recall_figure(
        {"base": [10.0, 60.0, 30.0, np.inf], "re-ranked": [10.0, 20.0, 30.0, np.inf]}
    )
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        "base: 50.0 % within 50 m, median 45 m",
        "re-ranked: 75.0 % within 50 m, median 25 m",
    ]
    curve = axes.get_lines()[0].get_ydata()
    assert np.all(np.diff(curve) >= 0)
    assert curve[-1] == 75.0


def test_all_failed_is_drawn_as_zero() -> None:
    (axes,) = recall_figure({"base": [np.inf, np.inf]}).axes
    assert axes.get_lines()[0].get_ydata().max() == 0


def test_saved_png_opens(tmp_path: Path) -> None:
    path = save_recall_plot(tmp_path / "new" / "recall.png", {"base": [1.0]}, title="x % $y_1$")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (1200, 750)


def test_unwritable_place_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_recall_plot(tmp_path / "file" / "recall.png", {"base": [1.0]})


def test_import_loads_no_matplotlib() -> None:
    code = "import sys, skylink.plot; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
