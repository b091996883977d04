"""Lists that a small random model can learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_fixtures import checkpoint, one_thread

__all__ = ["checkpoint", "folder", "one_thread"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`train.jsonl` (16 lists of 4) and `held.jsonl` (12), with their pictures."""
    from training_helpers import write_lists

    write_lists(tmp_path)
    write_lists(tmp_path, name="held", lists=12)
    return tmp_path
