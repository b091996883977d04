"""The package's coefficients, and files of them that can't be used."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from skylink.calibration import PATH, Calibration, Coefficients, calibration
from skylink.errors import ModelError

BASES = ("dense", "descriptor")


def test_the_packages_own_file() -> None:
    own = calibration()
    assert own is calibration()
    assert set(BASES) <= set(own.scorers)
    assert 0 < own.min_confidence < 1
    for cases in own.scorers.values():
        for by in (cases.aligned, cases.searched):
            assert by.score + by.lead > 0  # what fits better is believed more


def test_a_scorer_that_is_not_known_counts_as_cosines() -> None:
    own = calibration()
    for aligned in (True, False):
        assert own.of("of a plug-in", aligned=aligned) == own.of("descriptor", aligned=aligned)
    assert own.of("dense", aligned=True) == own.scorers["dense"].aligned
    assert own.of("dense", aligned=False) == own.scorers["dense"].searched


def test_confidence_by_hand() -> None:
    by = Coefficients(bias=-3, score=10, lead=2, local=1, listed=0.2, temperature=0.01)
    logit = -3 + 10 * 0.2 + 2 * 0.5
    expected = 1 / (1 + math.exp(-logit))
    assert by.confidence(score=0.2, lead=0.5) == pytest.approx(expected)
    assert by.confidence(score=1e9, lead=0) == pytest.approx(1)


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(PATH.read_text()) | changes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged"),
        (changed(schema_version=2), "schema_version"),
        (changed(min_confidence=1.5), "min_confidence"),
        (changed(more=1), "more"),
        (changed(scorers={}), "descriptor"),
        (changed(scorers={"dense": {"aligned": {"bias": 1}}}), "scorers.dense"),
        (PATH.read_text().replace('"bias": ', '"bias": NaN, "old": ', 1), "damaged"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=words) as caught:
        Calibration.read(path)
    assert "calibration.py --write" in (caught.value.hint or "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        Calibration.read(tmp_path / "none.json")
