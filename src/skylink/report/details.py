"""What an evaluation leaves of each query beside `results.json`: `results.queries.jsonl`.

The first line says which results these queries belong to (`Header`), each further one is a query
(`QueryDetails`), in the order of the evaluation. Keys are stable within DETAILS_SCHEMA; those that
have their default are left out. `skylink report` draws its curves and pictures from it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from skylink.errors import SkyLinkError, first_complaint
from skylink.files import write_atomic

DETAILS_SCHEMA: Literal[1] = 1
SHOWN = 5
"""Candidates that are kept of each ranking, and right answers of each query."""
MAX_BYTES = 2_000_000_000
MAX_LINE = 1_000_000
MAX_QUERIES = 1_000_000

Text = Annotated[str, Field(max_length=4096)]
Metres = Annotated[FiniteFloat, Field(ge=0)]
Percent = Annotated[FiniteFloat, Field(ge=0, le=1)]
Window = tuple[int, int, int, int]


class ReportError(SkyLinkError):
    """Results or their details can't be read, or don't belong to each other."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(_Part):
    """A candidate, or a right answer.

    Attributes:
        id: the gallery image's, or the tile's or pose's on one's own map.
        score: of the ranking that it stands in; None for right answers.
        right: whether it counts as found.
        error_m: from the truth, metres, where that is known.
        path: picture of a benchmark's gallery, below `Header.source`; None: it is the id.
        window: (column, row, width, height) in pixels where it is a part of the file.
        lon, lat: WGS 84 degrees, where known.
        area, level: of one's own gallery.
        heading_deg, width_m: how to cut its picture out of the map: this direction up, and as wide
            as the ground that the photo shows.
    """

    id: Text
    score: FiniteFloat | None = None
    right: bool = False
    error_m: Metres | None = None
    path: Text | None = None
    window: Window | None = None
    lon: FiniteFloat | None = None
    lat: FiniteFloat | None = None
    area: int | None = None
    level: int | None = None
    heading_deg: FiniteFloat = 0.0
    width_m: Annotated[FiniteFloat, Field(gt=0)] | None = None


class QueryDetails(_Part):
    """One query.

    Attributes:
        query: its name (one's own photos) or id (a benchmark's).
        path: the photo: relative to this file (one's own), below `Header.source` (a benchmark's;
            None: it is the id).
        window: where the photo is a part of a file.
        lon, lat: the truth, WGS 84 degrees.
        base, final: the first `SHOWN` candidates before and after re-ranking; `final` is empty
            where nothing was re-ranked, and then it is `base`.
        answer: the place within the first one's tile, where that is what was answered; its score
            is the tile's.
        positives: some right answers.
        base_rank, final_rank: of the first right one, from 1; None: not among those known.
        confidence, radius_m, radius_90_m: of the estimate on one's own map.
        located: its confidence was high enough; if not, it is the best guess.
        reranked, failed, note: as in the results; a photo that could not be located has no `base`.
    """

    query: Text
    path: Text | None = None
    window: Window | None = None
    lon: FiniteFloat | None = None
    lat: FiniteFloat | None = None
    base: list[Place] = Field(default_factory=list, max_length=100)
    final: list[Place] = Field(default_factory=list, max_length=100)
    answer: Place | None = None
    positives: list[Place] = Field(default_factory=list, max_length=100)
    base_rank: Annotated[int, Field(ge=1)] | None = None
    final_rank: Annotated[int, Field(ge=1)] | None = None
    confidence: Percent | None = None
    radius_m: Metres | None = None
    radius_90_m: Metres | None = None
    located: bool = True
    reranked: bool = False
    failed: bool = False
    note: Text = ""

    @property
    def last(self) -> list[Place]:
        """The first candidates in the end, re-ranked or not."""
        return self.final or self.base


class Header(_Part):
    """The first line.

    Attributes:
        kind: whose pictures the candidates are: a gallery of ours, or a benchmark's.
        source: the gallery, or the benchmark's folder; relative to this file where it can be.
        results_sha256: of the text of the results file that these queries belong to.
        queries: how many lines follow.
        ranked: up to which rank a right answer would be known.
    """

    schema_version: Literal[1] = DETAILS_SCHEMA
    kind: Literal["gallery", "benchmark"]
    source: Text
    results_sha256: str
    queries: Annotated[int, Field(ge=1, le=MAX_QUERIES)]
    ranked: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Details:
    """Header and queries, and the folder of the file that they are from."""

    header: Header
    queries: Sequence[QueryDetails]
    folder: Path

    @property
    def source(self) -> Path:
        """The gallery, or the benchmark's folder."""
        return self.folder / self.header.source

    def photo(self, query: QueryDetails) -> Path:
        """Where a query's photo is, or was."""
        home = self.folder if self.header.kind == "gallery" else self.source
        return home / (query.path or query.query)


def details_path(results: Path) -> Path:
    """`results.json` -> `results.queries.jsonl`."""
    return results.with_name(f"{results.stem}.queries.jsonl")


def digest(results: str) -> str:
    """Of the text of a results file."""
    return hashlib.sha256(results.encode()).hexdigest()


def relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder, so that both can be moved together; else the whole path."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return str(path.resolve())


def write_details(results: Path, header: Header, queries: Sequence[QueryDetails]) -> Path:
    """Write the file that belongs to a results file.

    Raises:
        OutputError: it can't be written.
    """
    lines = [header.model_dump_json(), *(q.model_dump_json(exclude_defaults=True) for q in queries)]
    return write_atomic(details_path(results), "\n".join(lines) + "\n")


def read_details(results: Path, text: str) -> Details:
    """The details beside a results file.

    Args:
        results: the results file.
        text: its content.

    Raises:
        ReportError: there are none, they are damaged, or of another run.
    """
    path = details_path(results)
    again = "run the evaluation again with --out"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ReportError(f"{path} has more than {MAX_BYTES:,} bytes")
        with path.open("rb") as file:
            header = Header.model_validate_json(file.readline(MAX_LINE))
            if header.results_sha256 != digest(text):
                raise ReportError(f"{path} is not of the run that wrote {results}", hint=again)
            queries: list[QueryDetails] = []
            while line := file.readline(MAX_LINE):
                if len(queries) == header.queries:
                    raise ReportError(f"{path} has more than {header.queries} queries", hint=again)
                queries.append(QueryDetails.model_validate_json(line))
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}", hint=again) from error
    except ValidationError as error:
        raise ReportError(f"{path} is damaged: {first_complaint(error)}", hint=again) from error
    if len(queries) < header.queries:
        raise ReportError(f"{path} ends after {len(queries)} of {header.queries} queries")
    return Details(header, queries, path.parent)
