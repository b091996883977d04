"""Mined lists as JSONL: the header is the first line, then a list a line.

Only `minedfile.py` uses it.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO

from skylink.errors import QueriesError

MAX_LINE = 4_000_000
MAX_BYTES = 50_000_000_000


class JsonlBody:
    """Lists on their way into a file; see `minedfile.Body`.

    Args:
        file: opened for writing.
        folder: of a temporary file: the header stands first and is known last.
    """

    def __init__(self, file: BinaryIO, folder: Path) -> None:
        self._file = file
        self._body = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # `discard` closes it

    def add(self, line: bytes) -> None:
        """One list."""
        self._body.write(line + b"\n")

    def close(self, header: bytes) -> None:
        """The header, and the lists after it."""
        self._file.write(header + b"\n")
        self._body.seek(0)
        shutil.copyfileobj(self._body, self._file, 1 << 20)

    def discard(self) -> None:
        """Remove the temporary file."""
        self._body.close()


class JsonlStore:
    """A file that was written; see `minedfile.Store`. Lists are known by their offset in bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def header(self) -> tuple[str, bytes] | None:
        """See `minedfile.Store`."""
        for where, _, data in self._lines():
            return (where, data) if b'"skylink-mined"' in data[:100] else None
        raise QueriesError(f"{self._path} is empty", hint="`skylink mine` writes such files")

    def lists(self) -> Iterator[tuple[str, int, bytes]]:
        """See `minedfile.Store`."""
        return itertools.islice(self._lines(), 1, None)

    def at(self, key: int) -> bytes:
        """See `minedfile.Store`."""
        with self._path.open("rb") as file:
            file.seek(key)
            return file.readline(MAX_LINE)

    def _lines(self) -> Iterator[tuple[str, int, bytes]]:
        """(where, offset in bytes, line) of each line; lengths and the whole are bounded."""
        offset = 0
        with self._path.open("rb") as file:
            for number in count(1):
                data = file.readline(MAX_LINE + 1)
                if not data:
                    return
                where = f"{self._path}, line {number}"
                if len(data) > MAX_LINE:
                    raise QueriesError(f"{where} is longer than {MAX_LINE:,} bytes")
                yield where, offset, data
                offset += len(data)
                if offset > MAX_BYTES:
                    raise QueriesError(
                        f"{self._path} has more than {MAX_BYTES:,} bytes", hint="split it"
                    )
