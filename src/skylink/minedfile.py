"""Files of mined lists: written and read list by list.

JSONL, or Parquet where the name ends in `.parquet`: a header (provenance and summary), and a query
with its candidates in the base's order after the other. Checks and hash are of the lists, and so
alike for both. A file that was cut or changed afterwards is refused. Nothing of it is executable,
and everything is bounded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar, overload

import numpy as np
from pydantic import BaseModel, ValidationError

from skylink.errors import OptionError, QueriesError, TelemetryError, first_complaint
from skylink.files import output_errors
from skylink.label_statistics import LabelCounter
from skylink.mined import MAX_LISTS, Header, MinedList, Provenance, Summary
from skylink.minedjsonl import JsonlBody, JsonlStore

if TYPE_CHECKING:
    from skylink.gallery import Gallery

PARQUET = ".parquet"

_M = TypeVar("_M", bound=BaseModel)


class Body(Protocol):
    """Lists on their way into a file."""

    def add(self, line: bytes) -> None:
        """One list as JSON without a line's end."""
        ...

    def close(self, header: bytes) -> None:
        """Write what is left, and the header as JSON."""
        ...

    def discard(self) -> None:
        """Leave nothing but the file itself behind; after `close` or instead of it."""
        ...


class Store(Protocol):
    """A file as it lies on the disk. What it gives is JSON, and not checked yet.

    OSError of the disk is not caught; what the form itself forbids is a QueriesError.
    """

    def header(self) -> tuple[str, bytes] | None:
        """(where it stands, for messages, header), or None where it is no file of lists."""
        ...

    def lists(self) -> Iterator[tuple[str, int, bytes]]:
        """(where it stands, key, list) of each, in order."""
        ...

    def at(self, key: int) -> bytes:
        """One list by its key."""
        ...


def _body(path: Path, file: BinaryIO) -> Body:
    if path.suffix.lower() == PARQUET:
        from skylink.minedparquet import ParquetBody

        return ParquetBody(file)
    return JsonlBody(file, path.parent)


def _store(path: Path) -> Store:
    if path.suffix.lower() == PARQUET:
        from skylink.minedparquet import ParquetStore

        return ParquetStore(path)
    return JsonlStore(path)


class _Tally:
    """Counts and checks lists one by one, alike for writing and reading."""

    def __init__(self, provenance: Provenance) -> None:
        self._forcing = provenance.ground_truth != "not-forced"
        self._seen: dict[str, None] = {}
        self._hash, self._labels = hashlib.sha256(), LabelCounter()
        self._candidates = self._forced = self._first = 0

    def add(self, mined: MinedList) -> bytes:
        """The list as JSON."""
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
        line = mined.model_dump_json(exclude_none=True).encode()
        self._hash.update(line + b"\n")
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
            with unfinished.open("xb") as file:
                body = _body(path, file)
                try:
                    for mined in lists:
                        body.add(tally.add(mined))
                    header = Header(provenance=provenance, summary=tally.summary())
                    body.close(header.model_dump_json(exclude_none=True).encode())
                finally:
                    body.discard()
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
        self.path = Path(path)
        with _reading(self.path):
            self._store = _store(self.path)
        self.header = _header(self.path, self._store)
        tally, keys = _Tally(self.header.provenance), []
        for where, key, data in self._stored():
            mined = _parsed(MinedList, data, where)
            with _at(where):
                tally.add(mined)
            keys.append(key)
        self.queries = tally.queries
        self._keys = np.array(keys, dtype=np.int64)
        expected = self.header.summary
        if len(keys) != expected.lists:
            raise QueriesError(
                f"{self.path} has {len(keys):,} of {expected.lists:,} lists",
                hint="it was cut or joined with another: mine the lists again",
            )
        if tally.summary().sha256 != expected.sha256:
            raise QueriesError(
                f"{self.path} is not as it was written: its lists don't have the header's sha256",
                hint="to change lists, read them and write them by `write_mined`",
            )

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> MinedList: ...
    @overload
    def __getitem__(self, index: slice) -> list[MinedList]: ...
    def __getitem__(self, index: int | slice) -> MinedList | list[MinedList]:
        """One list, or some; read from the file each time."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        with _reading(self.path):
            data = self._store.at(int(self._keys[number]))
        mined = _parsed(MinedList, data, f"{self.path}, list {number + 1}")
        if mined.query != self.queries[number]:
            raise QueriesError(f"{self.path} was changed while it was in use")
        return mined

    def __iter__(self) -> Iterator[MinedList]:
        for where, _, data in self._stored():
            yield _parsed(MinedList, data, where)

    def _stored(self) -> Iterator[tuple[str, int, bytes]]:
        with _reading(self.path):
            yield from self._store.lists()


def read_header(path: str | Path) -> Header:
    """The header alone. Raises QueriesError where the file has none."""
    path = Path(path)
    with _reading(path):
        store = _store(path)
    return _header(path, store)


def _header(path: Path, store: Store) -> Header:
    with _reading(path):
        found = store.header()
    if found is None:
        raise QueriesError(
            f"{path}: this is not the header of mined lists",
            hint="`skylink mine` writes such files",
        )
    where, data = found
    return _parsed(Header, data, where)


def require_gallery(files: Iterable[MinedFile], gallery: Gallery) -> None:
    """Lists are used on the build that they were mined on: places are metres in its areas' frames.

    Raises:
        QueriesError: a file was mined on another gallery.
    """
    for file in files:
        mined_on = file.header.provenance.gallery
        if mined_on != gallery.info.build_id:
            raise QueriesError(
                f"{file.path} was mined on another gallery (build {mined_on}) than {gallery.path} "
                f"({gallery.info.build_id}): its places and scores may mean others there",
                hint="give the gallery that it was mined on (a build has its id from the maps, the "
                "tiles, the encoder and --no-imagery), or mine the lists again on this one",
            )


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
        raise QueriesError(
            f"{where}{_query(data)}: {first_complaint(error)}",
            hint="such files are written by `skylink mine`; mine the lists again",
        ) from error


def _query(data: bytes) -> str:
    """The query that a broken line is about, where it says so."""
    try:
        found = json.loads(data).get("query")
    except (ValueError, RecursionError, AttributeError):
        return ""
    return f", query {found[:200]!r}" if isinstance(found, str) else ""
