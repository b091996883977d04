"""The gallery's Lance tables: columns, opening, and errors of the disk in our words.

lancedb is imported on first use (it takes a second). Lance is not fork-safe: use spawn.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from skylink.errors import GalleryError, OutputError

TILES, FEATURES, RAW_TILES = "tiles", "features", "raw_tiles"

TIDY_BYTES = 512 * 1024 * 1024

KEY = [
    pa.field("area", pa.int32(), nullable=False),
    pa.field("level", pa.int32(), nullable=False),
]


def features_schema() -> pa.Schema:
    """One row a stored chunk: feature cells and imagery, compressed."""
    return pa.schema(
        [
            *KEY,
            pa.field("row", pa.int32(), nullable=False),
            pa.field("col", pa.int32(), nullable=False),
            pa.field("tiles", pa.int32(), nullable=False),  # kept tiles centred here
            pa.field("dropped", pa.int32(), nullable=False),  # tiles with too few valid pixels
            pa.field("valid_px", pa.int32(), nullable=False),
            pa.field(
                "values", pa.large_binary(), nullable=False
            ),  # (64, 64, C) float16; b"" if none
            pa.field("valid", pa.binary(), nullable=False),  # packed bits of (64, 64)
            pa.field("image", pa.large_binary(), nullable=False),  # JPEG; b"" if none
            pa.field("mask", pa.binary(), nullable=False),  # zlib of packed bits; b"" = all valid
        ]
    )


def tiles_schema(dimensions: int, *, raw: bool) -> pa.Schema:
    """One row a tile; raw rows hold the encoder's own float32 descriptors and their chunk."""
    number = pa.float32() if raw else pa.float16()
    fields = [
        pa.field("id", pa.string(), nullable=False),
        *KEY,
        pa.field("row", pa.int32(), nullable=False),
        pa.field("col", pa.int32(), nullable=False),
        pa.field("lon", pa.float64(), nullable=False),
        pa.field("lat", pa.float64(), nullable=False),
        pa.field("x_m", pa.float64(), nullable=False),
        pa.field("y_m", pa.float64(), nullable=False),
        pa.field("footprint", pa.list_(pa.list_(pa.float64(), 2), 4)),
        pa.field("gsd_m", pa.float64(), nullable=False),
        pa.field("source", pa.int32(), nullable=False),
        pa.field("window", pa.list_(pa.int32(), 4)),
        pa.field("valid_fraction", pa.float32(), nullable=False),
        pa.field("descriptor", pa.list_(number, dimensions)),
    ]
    if raw:
        fields += [
            pa.field("chunk_row", pa.int32(), nullable=False),
            pa.field("chunk_col", pa.int32(), nullable=False),
        ]
    return pa.schema(fields)


def connect(folder: Path) -> Any:
    """The database of one data folder."""
    import lancedb

    return lancedb.connect(str(folder))


def create(database: Any, name: str, schema: pa.Schema) -> Any:
    """A new empty table; there must be none of this name."""
    return database.create_table(name, schema=schema, mode="create")


def append(table: Any, rows: Any) -> None:
    """Add rows (a table or a reader of batches) in their order, in one commit."""
    table.add(rows, write_parallelism=1)


def scan(table: Any, columns: list[str], *, where: str = "") -> pa.Table:
    """Some columns of all rows, or of those that match."""
    query = table.search().select(columns)
    if where:
        query = query.where(where)
    return query.to_arrow()


def row_ids(table: Any, columns: list[str]) -> pa.Table:
    """Some columns and `_rowid` of all rows."""
    return table.search().select(columns).with_row_id(True).to_arrow()


def take(table: Any, ids: list[int], columns: list[str]) -> pa.Table:
    """Rows by `_rowid`; `_rowid` comes along, as the order is not promised."""
    return table.take_row_ids(ids).select(columns).with_row_id().to_arrow()


def tidy(table: Any) -> None:
    """One fragment, without older versions and what a kill left; nobody may be reading it.

    Rewrites the table, so it is left as it is where it is large: history is small there, and
    memory and disk are not to spare.
    """
    if sum(p.stat().st_size for p in Path(table.uri).rglob("*") if p.is_file()) <= TIDY_BYTES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # warns of concurrent readers
            table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)


@contextlib.contextmanager
def storage_errors(path: Path, *, writing: bool) -> Iterator[None]:
    """Errors of lancedb and arrow as OutputError (writing) or GalleryError (reading).

    lancedb raises RuntimeError, OSError or ValueError with Rust's message in it.
    """
    try:
        yield
    except (RuntimeError, OSError, ValueError, pa.ArrowException) as error:
        text = str(error)
        if not writing:
            raise GalleryError(
                f"{path}: the gallery's data cannot be read: {_first(text)}",
                hint="the gallery is damaged: build it again",
            ) from error
        if re.search(r"No space left|os error 28|quota|os error 122|File too large", text, re.I):
            raise OutputError(
                f"cannot write {path}: no space left on the disk",
                hint="free some space and run the same command again: it continues where it "
                "stopped",
            ) from error
        if re.search(r"Permission denied|Read-only|os error 13|os error 30", text, re.I):
            raise OutputError(
                f"cannot write {path}: it is read-only",
                hint="choose a folder that you may write to",
            ) from error
        raise OutputError(f"cannot write {path}: {_first(text)}") from error


def _first(text: str) -> str:
    return text.splitlines()[0][:300] if text else "unknown error"
