"""Finished cells of an evaluation under conditions on disk, so that a killed run loses none.

JSON lines: the first says which run this is, each further one is a cell. The file is written whole
with each cell (a hundred short lines at most) and deleted when the run is finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from skylink.files import output_errors, write_atomic
from skylink.queries import QueryRow
from skylink.robustness import ROBUSTNESS_SCHEMA, Cell

MAX_BYTES = 16 * 1024 * 1024


def run_key(rows: Sequence[QueryRow], options: Mapping[str, object]) -> str:
    """A hash of everything that decides a cell: the rows as read, their files' sizes and times of
    change, and the run's options (the gallery's build, retriever, re-ranker, seed ...).
    """
    parts: list[object] = [ROBUSTNESS_SCHEMA, sorted((k, repr(v)) for k, v in options.items())]
    for row in rows:
        try:
            status = row.path.stat()
            file = (status.st_size, status.st_mtime_ns)
        except OSError:
            file = (0, 0)
        parts.append((repr(row), file))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class PartialCells:
    """The cells of one run so far.

    Args:
        path: the file; made with the first cell.
        key: of `run_key`. Cells of another run, and a file that can't be read, are ignored and
            overwritten.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self._lines = [json.dumps({"run": key})]
        self.cells: list[Cell] = []
        for line in self._stored():
            try:
                self.cells.append(Cell.model_validate_json(line))
            except ValidationError:
                break
            self._lines.append(line)

    def _stored(self) -> list[str]:
        """The lines after the first, if it names this run."""
        try:
            if self.path.stat().st_size > MAX_BYTES:
                return []
            first, *rest = self.path.read_text(encoding="utf-8").splitlines() or [""]
        except (OSError, UnicodeDecodeError):
            return []
        return rest if first == self._lines[0] else []

    def add(self, cell: Cell) -> None:
        """Store one more cell.

        Raises:
            OutputError: the file can't be written.
        """
        self.cells.append(cell)
        self._lines.append(cell.model_dump_json(by_alias=True))
        write_atomic(self.path, "\n".join(self._lines) + "\n")

    def discard(self) -> None:
        """Delete the file: its cells are stored elsewhere.

        Raises:
            OutputError: it can't be deleted.
        """
        with output_errors(self.path):
            self.path.unlink(missing_ok=True)
