"""Mined lists as Parquet: a row a list, the header in the file's key-value metadata.

Rows are read and written as the JSON lines of the other form, so that checks and hash are the same.
Only `minedfile.py` uses it. Row groups are small, since one is read whole for one list, and what a
file says of its own sizes is bounded before anything is decoded.
"""

from __future__ import annotations

import contextlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from skylink.errors import QueriesError
from skylink.mined import MAX_CANDIDATES, MAX_LISTS

KEY = b"skylink-mined"
GROUP = 256
"""Most lists of a row group."""
MAX_GROUP_BYTES = 2**28
"""Of a row group, decompressed. Writers end one at a quarter of it."""
MAX_FOOTER_BYTES = 2**30

_TEXT, _FLOAT, _INT = pa.string(), pa.float64(), pa.int64()


def _struct(**columns: pa.DataType) -> pa.DataType:
    return pa.struct([pa.field(name, kind) for name, kind in columns.items()])


_POSE = _struct(altitude_m=_FLOAT, heading_deg=_FLOAT, tilt_deg=_FLOAT, hfov_deg=_FLOAT)
_PLACE = _struct(area=_INT, level=_INT, x_m=_FLOAT, y_m=_FLOAT, lon=_FLOAT, lat=_FLOAT, pose=_POSE)
_CANDIDATE = _struct(
    id=_TEXT,
    path=_TEXT,
    window=pa.list_(_INT),
    place=_PLACE,
    base_score=_FLOAT,
    rank=_INT,
    is_ground_truth=pa.bool_(),
    label=_FLOAT,
    measured=_struct(overlap=_FLOAT, cosine=_FLOAT, distance_m=_FLOAT, weight=_FLOAT),
)
_TELEMETRY = _struct(
    lon=_FLOAT,
    lat=_FLOAT,
    relative_altitude_m=_FLOAT,
    heading_deg=_FLOAT,
    camera_tilt_from_nadir_deg=_FLOAT,
    horizontal_fov_deg=_FLOAT,
)
SCHEMA = pa.schema(
    [
        pa.field("query", _TEXT),
        pa.field("path", _TEXT),
        pa.field("telemetry", _TELEMETRY),
        pa.field("candidates", pa.list_(_CANDIDATE)),
    ]
)


class ParquetBody:
    """Lists on their way into a file; see `minedfile.Body`."""

    def __init__(self, file: BinaryIO) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self._rows: list[Any] = []
        self._bytes = 0

    def add(self, line: bytes) -> None:
        """One list. Raises QueriesError: a number is too large for 64 bits."""
        self._rows.append(json.loads(line))
        self._bytes += len(line)
        if len(self._rows) == GROUP or self._bytes > MAX_GROUP_BYTES / 4:
            self._flush()

    def close(self, header: bytes) -> None:
        """The last lists, and the header."""
        if self._rows:
            self._flush()
        self._writer.add_key_value_metadata({KEY: header})
        self._writer.close()

    def discard(self) -> None:
        """End without a file."""
        with contextlib.suppress(Exception):  # whatever went wrong before is what matters
            self._writer.close()

    def _flush(self) -> None:
        try:
            batch = pa.Table.from_pylist(self._rows, schema=SCHEMA)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise QueriesError(
                f"lists up to {self._rows[-1]['query']!r} don't fit into Parquet: {error}",
                hint="write JSONL: a name that ends in .jsonl",
            ) from error
        self._writer.write_table(batch, row_group_size=GROUP)
        self._rows, self._bytes = [], 0


class ParquetStore:
    """A file that was written; see `minedfile.Store`.

    Raises:
        QueriesError: it is not Parquet, has other columns, or says that it is too large.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._metadata: pq.FileMetaData | None = None
        self._kept: tuple[int, pa.Table] | None = None
        with self._file() as (file, self._stamp):
            self._metadata = file.metadata
            self._header = (file.metadata.metadata or {}).get(KEY)
            self._ends = [*accumulate(self._checked(file))]

    def header(self) -> tuple[str, bytes] | None:
        """See `minedfile.Store`."""
        return None if self._header is None else (f"{self._path}, header", self._header)

    def lists(self) -> Iterator[tuple[str, int, bytes]]:
        """See `minedfile.Store`."""
        row = 0
        for group in range(len(self._ends)):
            for line in self._lines(self._group(group)):
                yield f"{self._path}, list {row + 1}", row, line
                row += 1

    def at(self, key: int) -> bytes:
        """See `minedfile.Store`."""
        group = bisect_right(self._ends, key)
        first = self._ends[group - 1] if group else 0
        (line,) = self._lines(self._group(group).slice(key - first, 1))
        return line

    def _group(self, group: int) -> pa.Table:
        """One group's rows; the last one is kept."""
        if self._kept is None or self._kept[0] != group:
            with self._file() as (file, stamp):
                if stamp != self._stamp:
                    raise QueriesError(f"{self._path} was changed while it was in use")
                self._kept = group, file.read_row_group(group, use_threads=False)
        return self._kept[1]

    @contextlib.contextmanager
    def _file(self) -> Iterator[tuple[pq.ParquetFile, tuple[int, ...]]]:
        """The file, whose footer is read once, and what tells that it is the same file."""
        try:
            with (
                self._path.open("rb") as opened,
                pq.ParquetFile(
                    opened, metadata=self._metadata, thrift_string_size_limit=MAX_FOOTER_BYTES,
                    thrift_container_size_limit=MAX_LISTS,
                ) as file,
            ):  # fmt: skip
                known = os.fstat(opened.fileno())
                yield file, (known.st_ino, known.st_size, known.st_mtime_ns)
        except pa.ArrowException as error:
            raise _wrong(self._path, " ".join(str(error).split())[:300]) from error

    def _checked(self, file: pq.ParquetFile) -> Iterator[int]:
        """Rows of each group."""
        if not file.schema_arrow.equals(SCHEMA):
            raise _wrong(self._path, "its columns are others")
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            values = max(group.column(i).num_values for i in range(group.num_columns))
            if (
                group.num_rows > GROUP
                or group.total_byte_size > MAX_GROUP_BYTES
                or values > 4 * MAX_CANDIDATES * GROUP  # a window has four
            ):
                raise _wrong(self._path, f"row group {number + 1} is too large")
            yield group.num_rows

    @staticmethod
    def _lines(rows: pa.Table) -> Iterator[bytes]:
        for row in rows.to_pylist():
            yield json.dumps(_known(row)).encode()


def _known(value: Any) -> Any:
    """Without what is not there."""
    if isinstance(value, dict):
        return {key: _known(inner) for key, inner in value.items() if inner is not None}
    return [_known(inner) for inner in value] if isinstance(value, list) else value


def _wrong(path: Path, why: str) -> QueriesError:
    return QueriesError(
        f"{path} is not Parquet as `skylink mine` writes it: {why}",
        hint="mine the lists again",
    )
