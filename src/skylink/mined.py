"""Mined candidate lists: what `skylink mine` writes and training reads.

JSONL: the first line is the header (provenance and summary), then one query a line with its
candidates in the base's order. It is written and read list by list; a file that was cut or changed
afterwards is refused. Nothing of it is executable, and everything is bounded.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from skylink import __version__
from skylink.errors import OptionError, QueriesError, TelemetryError
from skylink.files import output_errors
from skylink.soft_labels import LabelCounter, LabelStatistics, SoftLabels, Source
from skylink.types import CameraPose, Candidate, Telemetry

MAX_LINE = 4_000_000
MAX_BYTES = 50_000_000_000
MAX_LISTS = 5_000_000
MAX_CANDIDATES = 1000
SUSPICIOUS_R_AT_1 = 99.0
"""Percent; a base above it has seen these queries, and its lists are too easy to learn from."""

_Text = Annotated[str, Field(min_length=1, max_length=1024)]
_Path = Annotated[str, Field(min_length=1, max_length=4096)]
_M = TypeVar("_M", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class MapPlace(_Part):
    """A place on a gallery's map; see `types.Candidate`. `pose`: under which it matched."""

    area: int = Field(ge=0)
    level: int = Field(ge=0)
    x_m: float
    y_m: float
    lon: float = Field(ge=-180, le=180)
    lat: float = Field(ge=-90, le=90)
    pose: CameraPose | None = None


class Measured(_Part):
    """What was measured between a candidate and the true place, as `soft_labels.measured` gives
    it, so that other labels can be made without the imagery; None where it was not measured."""

    overlap: float | None = None
    cosine: float | None = None
    distance_m: float | None = None
    weight: float | None = None


class MinedCandidate(_Part):
    """One candidate of a query.

    Attributes:
        id: unique within its list.
        path: its picture, relative to the dataset's folder; None where it is a place on a map.
        window: (column, row, width, height), pixels, where it is a part of that picture.
        place: where it is on the gallery's map; None where it is a picture.
        base_score: the base's score, higher is better; None where the base did not score it.
        rank: its rank in the base's own list, from 1; None for a ground truth that the base did
            not list and that was forced in.
        is_ground_truth: whether it counts as right.
        label: 0..1, see `soft_labels`.
        measured: what the label was made from.
    """

    id: _Text
    path: _Path | None = None
    window: tuple[int, int, int, int] | None = None
    place: MapPlace | None = None
    base_score: float | None = None
    rank: int | None = Field(default=None, ge=1)
    is_ground_truth: bool
    label: float = Field(ge=0, le=1)
    measured: Measured = Measured()

    def on_map(self) -> Candidate:
        """The candidate as retrievers give it. Raises QueriesError where it is not on a map."""
        if self.place is None:
            raise QueriesError(f"candidate {self.id!r} is a picture, not a place on a map")
        score = -math.inf if self.base_score is None else self.base_score
        fields = {name: getattr(self.place, name) for name in MapPlace.model_fields}
        return Candidate(id=self.id, score=score, base_score=self.base_score, **fields)


class MinedList(_Part):
    """One query and its candidates, at least two, in the base's order, forced ones last.

    Attributes:
        query: its id, unique within the file.
        path: its photo, relative to the dataset's folder.
        telemetry: what is needed to show it; without its position, which is the answer.

    Raises:
        QueriesError: candidates are there twice or out of order, or contradict themselves.
    """

    query: _Text
    path: _Path
    telemetry: Telemetry | None = None
    candidates: tuple[MinedCandidate, ...] = Field(min_length=2, max_length=MAX_CANDIDATES)

    @property
    def ground_truth(self) -> NDArray[np.bool_]:
        """(K,) which candidates are right."""
        return np.array([c.is_ground_truth for c in self.candidates])

    @property
    def labels(self) -> NDArray[np.float32]:
        """(K,) float32."""
        return np.array([c.label for c in self.candidates], dtype=np.float32)

    def values(self, source: Source) -> NDArray[np.float64]:
        """(K,) what was measured, for `SoftLabels.labels_of` and `fitted`.

        Raises:
            QueriesError: it was not measured for every candidate.
        """
        name = {"distance": "distance_m", "dataset": "weight"}.get(source, source)
        found = [getattr(c.measured, name) for c in self.candidates]
        if None in found:
            raise QueriesError(
                f"query {self.query!r}: {source} was not measured when it was mined",
                hint="mine the lists again with that source of labels, or choose another",
            )
        return np.array(found, dtype=np.float64)

    def relabelled(self, labels: SoftLabels) -> MinedList:
        """The same list with labels made anew from what was measured."""
        made = labels.labels_of(self.values(labels.source), self.ground_truth, name=self.query)
        pairs = zip(self.candidates, made.tolist(), strict=True)
        candidates = tuple(c.model_copy(update={"label": label}) for c, label in pairs)
        return self.model_copy(update={"candidates": candidates})

    @model_validator(mode="after")
    def _consistent(self) -> MinedList:
        def wrong(what: str, hint: str | None = None) -> QueriesError:
            return QueriesError(f"query {self.query!r}: {what}", hint=hint)

        known = self.telemetry
        if known is not None and (known.lon is not None or known.lat is not None):
            raise wrong("its telemetry has a position", "that is what is to be found: leave it out")
        seen: set[str] = set()
        for c in self.candidates:
            if c.id in seen:
                raise wrong(f"candidate {c.id!r} is there twice")
            seen.add(c.id)
            if c.path is None and c.place is None:
                raise wrong(f"candidate {c.id!r} has neither a path nor a place")
            if c.is_ground_truth and c.label == 0:
                raise wrong(f"the ground truth {c.id!r} has the label 0")
            if c.rank is None and not c.is_ground_truth:
                raise wrong(f"candidate {c.id!r} has no rank", "only a ground truth is forced in")
            if c.rank is not None and c.base_score is None:
                raise wrong(f"candidate {c.id!r} has a rank, but no base score")
        for one, other in pairwise(self.candidates):
            if other.rank is None:
                continue
            if one.rank is None or one.rank >= other.rank:
                raise wrong(f"candidate {other.id!r} is not in the order of ranks")
            if (one.base_score or 0.0) < (other.base_score or 0.0):
                raise wrong(f"the base score rises at candidate {other.id!r}", "higher is better")
        return self


class Provenance(_Part):
    """Where lists come from.

    Attributes:
        base, base_fingerprint: the retriever that listed the candidates, and its weights' hash.
        dataset, split: whose queries.
        gallery: hash of what was searched.
        k: candidates a list, before any was forced in.
        seed: of whatever was drawn.
        ground_truth: how a ground truth that the base did not list came in; `not-forced` for lists
            that are to be evaluated.
        folds: 1: the base may have been trained on these queries; n: each query was listed by a
            base trained on the other n - 1 parts.
        labels: how labels were made.
        skylink_version: that wrote the file.
    """

    base: _Text
    base_fingerprint: _Text
    dataset: _Text
    split: _Text
    gallery: _Text
    k: int = Field(ge=1, le=MAX_CANDIDATES)
    seed: int
    ground_truth: Literal["appended", "replaced-last", "not-forced"]
    folds: int = Field(default=1, ge=1)
    labels: SoftLabels
    skylink_version: str = __version__


class Summary(_Part):
    """What the writer counted.

    Attributes:
        lists, candidates: how many.
        forced: lists whose ground truth was forced in.
        base_r_at_1: percent of lists whose first candidate of the base is right.
        labels: statistics of the labels.
        sha256: of the lists' lines: names this very set of lists.
    """

    lists: int = Field(ge=1, le=MAX_LISTS)
    candidates: int
    forced: int
    base_r_at_1: float
    labels: LabelStatistics
    sha256: str


class Header(_Part):
    """What stands above the lists."""

    format: Literal["skylink-mined"] = "skylink-mined"
    version: Literal[1] = 1
    provenance: Provenance
    summary: Summary

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be warned of."""
        notes = [self.summary.labels.note] if self.summary.labels.note else []
        if self.summary.base_r_at_1 > SUSPICIOUS_R_AT_1:
            notes.append(
                f"the base finds {self.summary.base_r_at_1:.1f} % of these queries at once: it has "
                "probably been trained on them, and there is little to learn; mine in folds or "
                "with held-out queries"
            )
        return tuple(notes)


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
