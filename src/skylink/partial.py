"""The tables of a build in progress: what is stored already, adding to it, finishing it.

`data-ID/` is what the finished gallery keeps (features, tiles, statistics); `work-ID/` holds the
raw descriptors until the statistics over all of them are known. A chunk is done when its feature
row and all its raw tiles are stored; whatever else a kill left behind is deleted on resuming.
"""

from __future__ import annotations

import io
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skylink import tables
from skylink.chunkencoder import EncodedChunk
from skylink.files import write_atomic
from skylink.gallery_data import MAX_DIMENSIONS, LevelStatistics, principal_basis
from skylink.index import EXACT_TILES, create_ann_index
from skylink.moments import Moments

FLUSH_CHUNKS = 16
FLUSH_SECONDS = 20.0
READ_ROWS = 2048
BASIS_ROWS = 1500
"""Tiles from which principal directions are computed."""


Key = tuple[int, int, int, int]
"""(area, level, chunk row, chunk col)."""


class PartialBuild:
    """Stored chunks of one build id; opens what an earlier, interrupted run left.

    Args:
        folder: the gallery folder.
        build_id: names the two subfolders.
        dimensions: D of the descriptors.
    """

    def __init__(self, folder: Path, build_id: str, dimensions: int) -> None:
        self.folder = folder
        self.data, self.work = folder / f"data-{build_id}", folder / f"work-{build_id}"
        self._dimensions = dimensions
        self._pending: list[EncodedChunk] = []
        self._flushed_at = time.monotonic()
        self.done: set[Key] = set()
        try:
            self._open(fresh=False)
            leftovers = self._reconcile()
        except (RuntimeError, OSError, ValueError, pa.ArrowException):
            # not even readable (a kill while the tables were made): nothing worth keeping
            self._open(fresh=True)
            leftovers = set()
        with tables.storage_errors(folder, writing=True):
            for area, level, row, col in leftovers:
                where = f"area = {area} AND level = {level}"
                self._features.delete(f"{where} AND row = {row} AND col = {col}")
                self._raw.delete(f"{where} AND chunk_row = {row} AND chunk_col = {col}")

    def _open(self, *, fresh: bool) -> None:
        if fresh:
            with tables.storage_errors(self.folder, writing=True):
                self.discard()
                tables.create(tables.connect(self.data), tables.FEATURES, tables.features_schema())
                schema = tables.tiles_schema(self._dimensions, raw=True)
                tables.create(tables.connect(self.work), tables.RAW_TILES, schema)
        self._features = tables.connect(self.data).open_table(tables.FEATURES)
        self._raw = tables.connect(self.work).open_table(tables.RAW_TILES)

    def _reconcile(self) -> set[Key]:
        """Find the chunks that both tables have whole; returns what is left over of others."""
        stored = tables.scan(self._features, ["area", "level", "row", "col", "tiles"])
        raw = tables.scan(self._raw, ["area", "level", "chunk_row", "chunk_col"])
        found = Counter(zip(*(c.to_pylist() for c in raw.columns), strict=True))
        times: Counter[Key] = Counter()
        tiles: dict[Key, int] = {}
        for a, b, c, d, n in zip(*(c.to_pylist() for c in stored.columns), strict=True):
            times[a, b, c, d] += 1
            tiles[a, b, c, d] = n
        self.done = {key for key, n in tiles.items() if times[key] == 1 and found[key] == n}
        return (set(tiles) | set(found)) - self.done

    def discard(self) -> None:
        """Delete all that this build stored."""
        for folder in (self.data, self.work):
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, key: Key, chunk: EncodedChunk) -> None:
        """Store a chunk, at the latest with the next flush (16 chunks or 20 seconds)."""
        self._pending.append(chunk)
        self.done.add(key)
        waited = time.monotonic() - self._flushed_at
        if len(self._pending) >= FLUSH_CHUNKS or waited > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Store what is pending: raw tiles first, so that a feature row means a whole chunk.

        Raises:
            OutputError: the disk is full or read-only.
        """
        pending, self._pending = self._pending, []
        self._flushed_at = time.monotonic()
        if not pending:
            return
        with tables.storage_errors(self.folder, writing=True):
            rows = [
                _raw_rows(chunk, self._raw.schema) for chunk in pending if len(chunk.descriptors)
            ]
            if rows:
                tables.append(self._raw, pa.concat_tables(rows))
            features = pa.Table.from_pylist(
                [chunk.features for chunk in pending], schema=tables.features_schema()
            )
            tables.append(self._features, features)

    def totals(self) -> tuple[int, int, int, int]:
        """(tiles kept, tiles dropped, chunks stored, valid pixels of level 0)."""
        found = tables.scan(self._features, ["level", "tiles", "dropped", "valid_px"])
        level, kept, dropped, pixels = (found[i].to_numpy() for i in range(4))
        first = pixels[level == 0].astype(np.int64).sum()
        return int(kept.sum()), int(dropped.sum()), len(level), int(first)

    def finish(self, *, levels: int, parts: tuple[int, ...], channels: int) -> None:
        """Statistics over all chunks, and the final tiles table with standardised descriptors."""
        with tables.storage_errors(self.folder, writing=True):
            statistics: dict[str, NDArray[Any]] = {}
            found: list[LevelStatistics] = []
            for level in range(levels):
                mean, std = self._descriptor_scale(level)
                cells = self._feature_moments(level, channels)
                found.append(
                    LevelStatistics(
                        descriptor_mean=mean,
                        descriptor_std=std,
                        descriptor_basis=self._basis(level, mean, std, parts),
                        feature_mean=cells.mean,
                        feature_covariance=cells.covariance,
                        cells=cells.count,
                    )
                )
                statistics |= {
                    f"l{level}_{name}": np.asarray(value)
                    for name, value in vars(found[-1]).items()
                    if value is not None
                }
            self._write_tiles(found, parts)
            tables.tidy(self._features)
        buffer = io.BytesIO()
        np.savez(buffer, **statistics)  # type: ignore[arg-type]
        write_atomic(self.data / "statistics.npz", buffer.getvalue())

    def _descriptor_scale(self, level: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(mean, std) of raw descriptors; 0 and 1 where a spread cannot be known."""
        moments = Moments(self._dimensions, full=False)
        query = self._raw.search().select(["descriptor"]).where(f"level = {level}")
        for batch in query.to_batches(READ_ROWS):
            moments.add(_descriptors(batch, self._dimensions))
        if moments.count < 2:
            zeros = np.zeros(self._dimensions, dtype=np.float32)
            return zeros, np.ones_like(zeros)
        std = np.sqrt(moments.covariance)
        std[std < 1e-7 * np.maximum(1, np.abs(moments.mean))] = 1
        return moments.mean.astype(np.float32), std.astype(np.float32)

    def _basis(
        self,
        level: int,
        mean: NDArray[np.float32],
        std: NDArray[np.float32],
        parts: tuple[int, ...],
    ) -> NDArray[np.float32] | None:
        """Principal directions of a level's tiles, from at most BASIS_ROWS spread evenly."""
        from skylink.encoder import standardise

        if self._dimensions <= MAX_DIMENSIONS:
            return None
        ids = tables.row_ids(self._raw, ["level"])
        mine = ids["_rowid"].to_numpy()[ids["level"].to_numpy() == level]
        rows = np.sort(mine)[:: max(1, -(-len(mine) // BASIS_ROWS))]
        taken = tables.take(self._raw, rows.tolist(), ["descriptor"])
        batches = [_descriptors(batch, self._dimensions) for batch in taken.to_batches()]
        raw = np.concatenate([np.empty((0, self._dimensions), np.float32), *batches])
        return principal_basis(standardise(raw, mean, std, parts))

    def _feature_moments(self, level: int, channels: int) -> Moments:
        moments = Moments(channels, full=True)
        if channels == 0:
            return moments
        found = tables.row_ids(self._features, ["area", "level", "row", "col"])
        mine = sorted(
            (a, r, c, i)
            for a, n, r, c, i in zip(*(v.to_pylist() for v in found.columns), strict=True)
            if n == level
        )
        ids = [row[3] for row in mine]
        for start in range(0, len(ids), 16):
            part = tables.take(self._features, ids[start : start + 16], ["values", "valid"])
            place = {row_id: i for i, row_id in enumerate(part["_rowid"].to_pylist())}
            for row_id in ids[start : start + 16]:
                i = place[row_id]
                cells = np.frombuffer(part["values"][i].as_buffer(), dtype=np.float16)
                bits = np.frombuffer(part["valid"][i].as_buffer(), dtype=np.uint8)
                cells = cells.reshape(-1, channels)
                moments.add(cells[np.unpackbits(bits, count=len(cells)).astype(bool)])
        return moments

    def _write_tiles(self, statistics: list[LevelStatistics], parts: tuple[int, ...]) -> None:
        dimensions = min(self._dimensions, MAX_DIMENSIONS)
        schema = tables.tiles_schema(dimensions, raw=False)
        names = [name for name in schema.names if name != "descriptor"]

        def batches() -> Iterator[Any]:
            query = self._raw.search().select(schema.names)
            for batch in query.to_batches(READ_ROWS):
                raw = _descriptors(batch, self._dimensions)
                final = np.zeros((len(raw), dimensions), dtype=np.float16)
                level = batch["level"].to_numpy()
                for index in np.unique(level):
                    rows = level == index
                    final[rows] = statistics[index].stored(raw[rows], parts)
                columns = [batch[name] for name in names]
                columns.append(_fixed(final, pa.float16()))
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

        shutil.rmtree(self.data / f"{tables.TILES}.lance", ignore_errors=True)
        table = tables.create(tables.connect(self.data), tables.TILES, schema)
        tables.append(table, pa.RecordBatchReader.from_batches(schema, batches()))
        tables.tidy(table)
        count = table.count_rows()
        if count > EXACT_TILES:
            create_ann_index(table, count)


def _raw_rows(chunk: EncodedChunk, schema: Any) -> Any:
    """The tiles of a chunk as a table of `tables.tiles_schema(raw=True)`."""
    n = len(chunk.descriptors)
    columns = dict(chunk.tiles)
    columns["chunk_row"] = [chunk.features["row"]] * n
    columns["chunk_col"] = [chunk.features["col"]] * n
    arrays = [
        _fixed(chunk.descriptors, pa.float32())
        if field.name == "descriptor"
        else pa.array(columns[field.name], type=field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _fixed(values: NDArray[Any], kind: Any) -> Any:
    """(N, D) as a fixed-size list column."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), type=kind)
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _descriptors(batch: Any, dimensions: int) -> NDArray[np.float32]:
    flat = batch["descriptor"].flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(-1, dimensions)
