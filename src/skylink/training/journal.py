"""What happened, step by step: `log.jsonl`, and TensorBoard's files where it is installed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from skylink.files import output_errors, write_atomic


class Journal:
    """Appends entries; those that a continued run will write again are dropped first.

    Args:
        folder: where `log.jsonl` and `tensorboard/` are.
        after: the step that the run goes on from; later entries are dropped.

    Raises:
        OutputError: it can't be written.
    """

    def __init__(self, folder: Path, *, after: int) -> None:
        self.path = folder / "log.jsonl"
        write_atomic(self.path, "".join(_entries(self.path, after)))
        self._board: Any = None
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            with output_errors(folder):
                self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after + 1)

    def add(self, step: int, **values: float | int | None) -> None:
        """One entry.

        Raises:
            OutputError: it can't be written.
        """
        line = json.dumps({"step": step, **values}) + "\n"
        with output_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        if self._board is None:
            return
        with output_errors(self.path.parent):
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)
            self._board.flush()  # a checkpoint may follow, and a run that goes on from it

    def close(self) -> None:
        """Write what is left."""
        if self._board is not None:
            self._board.close()


def _entries(path: Path, after: int) -> list[str]:
    """Whole lines up to a step; what can't be read is from a kill, and goes."""
    if after == 0 or not path.exists():
        return []
    kept = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if line.endswith("\n") and int(json.loads(line)["step"]) <= after:
                    kept.append(line)
    return kept
