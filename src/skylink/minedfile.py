"""Files of mined lists: written and read list by list.

JSONL: the first line is the header (provenance and summary), then one query a line with its
candidates in the base's order. A file that was cut or changed afterwards is refused. Nothing of it
is executable, and everything is bounded.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from pydantic import BaseModel, ValidationError

from skylink.errors import OptionError, QueriesError, TelemetryError
from skylink.files import output_errors
from skylink.label_statistics import LabelCounter
from skylink.mined import MAX_LISTS, Header, MinedList, Provenance, Summary

MAX_LINE = 4_000_000
MAX_BYTES = 50_000_000_000

_M = TypeVar("_M", bound=BaseModel)


class _Tally:
    """Counts and checks lists one by one, alike for writing and reading."""

    def __init__(self, provenance: Provenance) -> None:
        self._forcing = provenance.ground_truth != "not-forced"
        self._seen: dict[str, None] = {}
        self._hash, self._labels = hashlib.sha256(), LabelCounter()
        self._candidates = self._forced = self._first = 0

    def add(self, mined: MinedList) -> bytes:
        """The list's line."""
        right = mined.ground_truth
        if self._forcing and not right.any():
            raise QueriesError(
                f"query {mined.query!r} has no positive: no candidate is the ground truth",
                hint="force the ground truth into the list when mining, or leave the query out",
            )
        if mined.query in self._seen:
            raise QueriesError(f"query {mined.query!r} is there twice")
        if len(self._seen) == MAX_LISTS:
            raise QueriesError(
                f"query {mined.query!r} comes after {MAX_LISTS:,} lists", hint="split them"
            )
        self._seen[mined.query] = None
        self._labels.add(mined.labels, right)
        self._candidates += len(right)
        self._forced += any(c.rank is None for c in mined.candidates)
        first = mined.candidates[0]
        self._first += first.rank == 1 and first.is_ground_truth
        line = mined.model_dump_json(exclude_none=True).encode() + b"\n"
        self._hash.update(line)
        return line

    @property
    def queries(self) -> tuple[str, ...]:
        """Ids of the lists so far."""
        return tuple(self._seen)

    def summary(self) -> Summary:
        """Of the lists so far. Raises QueriesError where there was none."""
        labels = self._labels.statistics()
        return Summary(
            lists=labels.lists,
            candidates=self._candidates,
            forced=self._forced,
            base_r_at_1=100 * self._first / labels.lists,
            labels=labels,
            sha256=self._hash.hexdigest(),
        )


def write_mined(path: str | Path, provenance: Provenance, lists: Iterable[MinedList]) -> Header:
    """Write lists as they come; none is kept. The file is there whole or not at all.

    Returns:
        The header, with what was counted. Its `notes` are for the user.

    Raises:
        QueriesError: a query is there twice or has no positive, or there are no lists.
        OutputError: the file can't be written; what was there before is untouched.
    """
    path, tally = Path(path), _Tally(provenance)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        try:
            # the header stands first and is known last
            with tempfile.TemporaryFile(dir=path.parent) as body, unfinished.open("xb") as file:
                for mined in lists:
                    body.write(tally.add(mined))
                header = Header(provenance=provenance, summary=tally.summary())
                file.write(header.model_dump_json(exclude_none=True).encode() + b"\n")
                body.seek(0)
                shutil.copyfileobj(body, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
    return header


class MinedFile(Sequence[MinedList]):
    """A file of mined lists, by number or one after the other; 8 bytes and the id of each are kept.

    Opening it reads it once and checks every list, so that no training stops in the middle.

    Attributes:
        path: the file.
        header: provenance and summary.
        queries: ids of the queries, in the file's order.

    Raises:
        QueriesError: names the line, the query and what is wrong with it; or the file can't be
            read, was cut, or was changed after it was written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.header = Path(path), read_header(path)
        tally, offsets = _Tally(self.header.provenance), []
        for where, offset, data in itertools.islice(_lines(self.path), 1, None):
            mined = _parsed(MinedList, data, where)
            with _at(where):
                tally.add(mined)
            offsets.append(offset)
        self.queries = tally.queries
        self._offsets = np.array(offsets, dtype=np.int64)
        expected = self.header.summary
        if len(offsets) != expected.lists:
            raise QueriesError(
                f"{self.path} has {len(offsets):,} of {expected.lists:,} lists",
                hint="it was cut or joined with another: mine the lists again",
            )
        if tally.summary().sha256 != expected.sha256:
            raise QueriesError(
                f"{self.path} is not as it was written: its lists don't have the header's sha256",
                hint="to change lists, read them and write them by `write_mined`",
            )

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> MinedList: ...
    @overload
    def __getitem__(self, index: slice) -> list[MinedList]: ...
    def __getitem__(self, index: int | slice) -> MinedList | list[MinedList]:
        """One list, or some; read from the file each time."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        with _reading(self.path), self.path.open("rb") as file:
            file.seek(int(self._offsets[number]))
            data = file.readline(MAX_LINE)
        mined = _parsed(MinedList, data, f"{self.path}, list {number + 1}")
        if mined.query != self.queries[number]:
            raise QueriesError(f"{self.path} was changed while it was in use")
        return mined

    def __iter__(self) -> Iterator[MinedList]:
        for where, _, data in itertools.islice(_lines(self.path), 1, None):
            yield _parsed(MinedList, data, where)


def read_header(path: str | Path) -> Header:
    """The header alone. Raises QueriesError where the file has none."""
    for where, _, data in _lines(Path(path)):
        if b'"skylink-mined"' not in data[:100]:
            raise QueriesError(
                f"{where}: this is not the header of mined lists",
                hint="`skylink mine` writes such files",
            )
        return _parsed(Header, data, where)
    raise QueriesError(f"{path} is empty", hint="`skylink mine` writes such files")


def leakage(train_ids: Iterable[str], test_ids: Iterable[str], *, what: str = "queries") -> None:
    """Refuse training on what is tested on.

    Args:
        train_ids, test_ids: ids of queries or of places, in any order.
        what: the ids are of, for the message.

    Raises:
        OptionError: some ids are in both; it lists the first of them.
    """
    train = set(train_ids)
    shared = [name for name in dict.fromkeys(test_ids) if name in train]
    if shared:
        more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
        raise OptionError(
            f"{len(shared)} {what} are in training and in test: {', '.join(shared[:5])}{more}",
            hint="mine the training lists from the training split alone",
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or error
        raise QueriesError(
            f"cannot read {path}: {reason}", hint="check the path and its permissions"
        ) from error


def _lines(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """(where, offset in bytes, line) of each line; lengths and the whole are bounded."""
    offset = 0
    with _reading(path), path.open("rb") as file:
        for number in count(1):
            data = file.readline(MAX_LINE + 1)
            if not data:
                return
            where = f"{path}, line {number}"
            if len(data) > MAX_LINE:
                raise QueriesError(f"{where} is longer than {MAX_LINE:,} bytes")
            yield where, offset, data
            offset += len(data)
            if offset > MAX_BYTES:
                raise QueriesError(f"{path} has more than {MAX_BYTES:,} bytes", hint="split it")


@contextlib.contextmanager
def _at(where: str) -> Iterator[None]:
    """Errors of a list, which name its query, with the place of its line."""
    try:
        yield
    except QueriesError as error:
        raise QueriesError(f"{where}, {error.message}", hint=error.hint) from error


def _parsed(model: type[_M], data: bytes, where: str) -> _M:
    try:
        with _at(where):
            return model.model_validate_json(data)
    except (TelemetryError, OptionError) as error:  # a value's own check
        raise QueriesError(f"{where}{_query(data)}: {error.message}", hint=error.hint) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise QueriesError(
            f"{where}{_query(data)}: {at + ': ' if at else ''}{first['msg']}",
            hint="such files are written by `skylink mine`; mine the lists again",
        ) from error


def _query(data: bytes) -> str:
    """The query that a broken line is about, where it says so."""
    try:
        found = json.loads(data).get("query")
    except (ValueError, RecursionError, AttributeError):
        return ""
    return f", query {found[:200]!r}" if isinstance(found, str) else ""
