"""Banks of features of made-up pictures, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from embedded_helpers import source, write_pictures
from map_helpers import FakeEncoder
from skylink.embedded.bank import Bank, build_bank
from skylink.encoder import EmbeddedEncoder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def plain_bank(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """Colours as features: 6 channels."""
    folder = tmp_path_factory.mktemp("plain_bank")
    return build_bank(folder, source(pictures, 40), FakeEncoder(input_px=96))


@pytest.fixture(scope="session")
def bank(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """The embedded trunk's features."""
    folder = tmp_path_factory.mktemp("bank")
    return build_bank(folder, source(pictures, 12), EmbeddedEncoder())
