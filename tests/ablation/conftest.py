"""Lists for an ablation of a small random model."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablation_helpers import write_ablation
from training_fixtures import checkpoint, one_thread

__all__ = ["checkpoint", "folder", "one_thread"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`train`, `held` and `test` lists."""
    write_ablation(tmp_path)
    return tmp_path
