"""Run files and judgments on disk: TREC run, TREC qrels, JSONL lists of candidates.

TREC, fields between blanks, one candidate or judgment a line; `.gz` is unpacked:

    run:   query Q0 document rank score tag
    qrels: query 0 document grade

JSONL, one query a line:

    {"query": "0839/image-01.jpeg", "candidates": [{"id": "0839/0839.jpg", "score": 0.91}, ...]}

Order is by score, highest first; equal scores stay in the file's order (trec_eval puts them in
reverse order of the ids and reads scores as float32: there, ties may count differently). trec_eval
ignores the rank column. Here it is a witness: where ranks contradict the order by score, the file
is refused, for the scores may be distances. Ids with blanks are refused when TREC is written, whose
readers would split them, rather than encoded, which other tools would not undo; JSONL takes any id.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, StringConstraints, ValidationError

from skylink.errors import RunError, first_complaint
from skylink.files import write_atomic
from skylink.runs import MAX_ID, Qrels, RankedList, Run

MAX_BYTES = 4_000_000_000
"""Of a file, unpacked."""
MAX_ENTRIES = 50_000_000
"""Candidates or judgments of a file."""
MAX_TREC_LINE = 8192
MAX_JSON_LINE = 64_000_000

_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(rb"-?\d{1,9}")

T = TypeVar("T")


def read_trec_run(path: str | Path, *, ranks: Literal["check", "ignore"] = "check") -> Run:
    """Read a TREC run.

    Args:
        path: the file; `.gz` is unpacked.
        ranks: `ignore` the rank column, as trec_eval does, or `check` that it agrees with the
            order by score.

    Raises:
        RunError: names the line and what is wrong with it.
    """
    path = Path(path)
    found: dict[str, dict[str, tuple[float, int, int]]] = {}  # score, rank, line
    tag = ""
    for line, fields in _trec(path, 6, "query Q0 document rank score tag"):
        where = f"{path}, line {line}"
        query, document = _id(fields[0], where), _id(fields[2], where)
        documents = found.setdefault(query, {})
        if document in documents:
            raise RunError(f"{where}: query {query!r} has the document {document!r} twice")
        rank = _whole(fields[3], where, "rank")
        documents[document] = _score(fields[4], where), rank, line
        tag = tag or _id(fields[5], where)
    lists = {}
    for query, documents in found.items():
        # sorted is stable: equal scores stay in the file's order
        best_first = sorted(documents.items(), key=lambda item: -item[1][0])
        if ranks == "check":
            for (_, (_, before, _)), (_, (_, after, line)) in pairwise(best_first):
                if after < before:
                    raise RunError(
                        f"{path}, line {line}: rank and score of query {query!r} contradict "
                        "each other",
                        hint="higher scores are better: negate distances, or write the ranks anew",
                    )
        scores = np.array([score for _, (score, _, _) in best_first], dtype=np.float64)
        lists[query] = RankedList(tuple(document for document, _ in best_first), scores)
    return Run(_some(lists, path), tag)


def write_trec_run(path: str | Path, run: Run) -> Path:
    """Write a TREC run; scores in full, so that reading it back gives the same run.

    Raises:
        RunError: an id or the tag is empty or has blanks.
        OutputError: the file can't be written.
    """
    tag = _blankless(run.tag)
    lines = []
    for query, ranked in run.items():
        name = _blankless(query)
        lines += [
            f"{name} Q0 {_blankless(document)} {rank} {score!r} {tag}\n"
            for rank, (document, score) in enumerate(ranked, 1)
        ]
    return _write(path, lines)


def read_trec_qrels(path: str | Path) -> Qrels:
    """Read TREC qrels; grades are whole numbers, above 0 is right.

    Raises:
        RunError: names the line and what is wrong with it.
    """
    judged: dict[str, dict[str, int]] = {}
    for line, fields in _trec(Path(path), 4, "query 0 document grade"):
        where = f"{path}, line {line}"
        query, document = _id(fields[0], where), _id(fields[2], where)
        grades = judged.setdefault(query, {})
        if document in grades:
            raise RunError(f"{where}: query {query!r} has the document {document!r} twice")
        grades[document] = _whole(fields[3], where, "grade")
    return Qrels(_some(judged, Path(path)))


def write_trec_qrels(path: str | Path, qrels: Qrels) -> Path:
    """Write TREC qrels.

    Raises:
        RunError: an id is empty or has blanks, or a query has no judgment that could name it.
        OutputError: the file can't be written.
    """
    lines = []
    for query, grades in qrels.items():
        name = _blankless(query)
        if not grades:
            raise RunError(f"query {query!r} has no judgment: TREC qrels can't name it")
        lines += [f"{name} 0 {_blankless(doc)} {grade}\n" for doc, grade in grades.items()]
    return _write(path, lines)


_Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]


class _Candidate(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    id: _Id
    score: FiniteFloat


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    query: _Id
    candidates: list[_Candidate]


def read_jsonl(path: str | Path, *, tag: str = "skylink") -> Run:
    """Read candidates from JSONL; a query without candidates gets no list.

    Raises:
        RunError: names the line and what is wrong with it; scores must not rise along a list.
    """
    path = Path(path)
    lists: dict[str, RankedList] = {}
    seen: set[str] = set()
    entries = 0
    for line, data in _lines(path, MAX_JSON_LINE):
        where = f"{path}, line {line}"
        try:
            entry = _Line.model_validate_json(data)
        except ValidationError as error:
            raise RunError(
                f"{where}: {first_complaint(error)}",
                hint='a line is {"query": "ID", "candidates": [{"id": "ID", "score": 0.5}]}',
            ) from error
        if entry.query in seen:
            raise RunError(f"{where}: query {entry.query!r} is there twice")
        seen.add(entry.query)
        entries += len(entry.candidates)
        if entries > MAX_ENTRIES:
            raise RunError(f"{where}: more than {MAX_ENTRIES:,} candidates", hint="split the file")
        if entry.candidates:
            scores = np.array([c.score for c in entry.candidates], dtype=np.float64)
            ids = tuple(c.id for c in entry.candidates)
            try:
                lists[entry.query] = RankedList(ids, scores)
            except RunError as error:
                raise RunError(f"{where}: {error.message}", hint=error.hint) from error
    return Run(_some(lists, path), tag)


def write_jsonl(path: str | Path, run: Run) -> Path:
    """Write candidates as JSONL; it takes any text as an id, and leaves out the run's tag.

    Raises:
        RunError: an id is empty, longer than MAX_ID, or not Unicode text.
        OutputError: the file can't be written.
    """
    lines = []
    for query, ranked in run.items():
        candidates = [{"id": _text(document), "score": score} for document, score in ranked]
        entry = {"query": _text(query), "candidates": candidates}
        lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    return _write(path, lines)


def read_run(path: str | Path) -> Run:
    """Read a run by its name: `.jsonl` (or `.jsonl.gz`) is JSONL, anything else is TREC."""
    name = str(path).lower().removesuffix(".gz")
    return read_jsonl(path) if name.endswith(".jsonl") else read_trec_run(path)


def write_run(path: str | Path, run: Run) -> Path:
    """Write a run in the format of its name, as `read_run` reads it."""
    name = str(path).lower().removesuffix(".gz")
    return write_jsonl(path, run) if name.endswith(".jsonl") else write_trec_run(path, run)


def _lines(path: Path, longest: int) -> Iterator[tuple[int, bytes]]:
    """(number from 1, bytes) of each line that is not blank; lengths and the whole are bounded."""
    total = 0
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for number in count(1):
                data = file.readline(longest + 1)
                if not data:
                    return
                total += len(data)
                if len(data) > longest:
                    raise RunError(f"{path}, line {number} is longer than {longest:,} bytes")
                if total > MAX_BYTES:
                    raise RunError(
                        f"{path} has more than {MAX_BYTES:,} bytes",
                        hint="keep the best 100 candidates of a query, or split the file",
                    )
                if number == 1:
                    data = data.removeprefix(b"\xef\xbb\xbf")
                if data.strip():
                    yield number, data
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"cannot read {path}: {reason}") from error


def _trec(path: Path, width: int, layout: str) -> Iterator[tuple[int, list[bytes]]]:
    """(line number, fields); blanks are ASCII blanks, as for trec_eval."""
    for entries, (line, data) in enumerate(_lines(path, MAX_TREC_LINE)):
        fields = data.split()
        if len(fields) != width:
            raise RunError(
                f"{path}, line {line}: {len(fields)} fields, not {width}",
                hint=f"a line is `{layout}`; ids can't have blanks (JSONL takes them)",
            )
        if entries >= MAX_ENTRIES:
            raise RunError(f"{path} has more than {MAX_ENTRIES:,} lines", hint="split the file")
        yield line, fields


def _id(field: bytes, where: str) -> str:
    try:
        text = field.decode()
    except UnicodeDecodeError as error:
        raise RunError(f"{where}: {field!r} is not UTF-8") from error
    if len(text) > MAX_ID:
        raise RunError(f"{where}: an id has more than {MAX_ID} characters")
    return text


def _score(field: bytes, where: str) -> float:
    score = float(field) if _NUMBER.fullmatch(field) else math.nan
    if not math.isfinite(score):
        raise RunError(f"{where}: the score {field.decode(errors='replace')!r} can't be ranked")
    return score


def _whole(field: bytes, where: str, name: str) -> int:
    if not _WHOLE.fullmatch(field):
        raise RunError(
            f"{where}: the {name} {field.decode(errors='replace')!r} is not a whole number"
        )
    return int(field)


def _blankless(text: str) -> str:
    """An id that any reader of TREC files takes for one field of one line."""
    if text.split() != [text] or not text.isprintable():
        raise RunError(
            f"{text!r} can't stand in a TREC file: it is empty, has blanks or control characters",
            hint="write JSONL instead (a name that ends in .jsonl), or rename it",
        )
    return _text(text)


def _text(text: str) -> str:
    """An id that can be written as UTF-8 and read back."""
    if not 1 <= len(text) <= MAX_ID or any("\ud800" <= c <= "\udfff" for c in text):
        raise RunError(
            f"the id {text[:80]!r} is empty, longer than {MAX_ID} characters or not Unicode text",
            hint="rename it; file names that are not UTF-8 give such ids",
        )
    return text


def _some(entries: T, path: Path) -> T:
    if not entries:
        raise RunError(f"{path} has no candidates or judgments", hint="is it the right file?")
    return entries


def _write(path: str | Path, lines: list[str]) -> Path:
    data = "".join(lines).encode()
    if Path(path).suffix.lower() == ".gz":
        data = gzip.compress(data, mtime=0)  # the same run is the same file
    return write_atomic(path, data)
