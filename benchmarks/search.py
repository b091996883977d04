"""Descriptor search: exact at 100,000 tiles, the ANN index at 1,000,000, against brute force.

    python benchmarks/search.py [--million 1000000] [--json FILE]

Synthetic unit vectors in clusters of some 50, as overlapping tiles are.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from _common import machine, table, write_json
from skylink.index import ExactIndex, LanceIndex, create_ann_index, top_k

STORED, SMALL = 512, 256
"""Dimensions: a long descriptor as a gallery stores it, and a usual retriever's."""


def clustered(
    centres: NDArray[np.float32], count: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """(count, D) unit vectors around random centres."""
    vectors = centres[generator.integers(0, len(centres), count)]
    noise = generator.standard_normal(vectors.shape, dtype=np.float32)
    vectors = vectors + np.float32(0.6) * noise
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def milliseconds(call: object, queries: NDArray[np.float32]) -> float:
    """Median over single queries."""
    times = []
    for query in queries:
        start = time.perf_counter()
        call(query[None])  # type: ignore[operator]
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--million", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(machine(), flush=True)
    generator = np.random.default_rng(0)
    figures: dict[str, float] = {}
    lines = []
    for dimensions in (SMALL, STORED):
        centres = generator.standard_normal((2000, dimensions), dtype=np.float32)
        vectors = clustered(centres, 100_000, generator)
        index = ExactIndex(vectors)
        took = milliseconds(lambda q, index=index: index.search(q, 10), vectors[:30])
        lines.append(("exact", "100,000", dimensions, f"{took:.0f}", "1.000", ""))
        figures[f"exact 100k x {dimensions}, ms"] = took
        print(" | ".join(map(str, lines[-1])), flush=True)
        del vectors, index
    count = options.million
    with tempfile.TemporaryDirectory() as folder:
        schema = pa.schema([("descriptor", pa.list_(pa.float16(), SMALL))])
        rows = lancedb.connect(folder).create_table("tiles", schema=schema)
        centres = generator.standard_normal((count // 50, SMALL), dtype=np.float32)
        kept = np.empty((count, SMALL), np.float16)
        for start in range(0, count, 100_000):
            part = clustered(centres, min(100_000, count - start), generator).astype(np.float16)
            kept[start : start + len(part)] = part
            column = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), SMALL)
            rows.add(pa.table([column], schema=schema))
        began = time.perf_counter()
        create_ann_index(rows, count)
        built = time.perf_counter() - began
        queries = kept[generator.integers(0, count, 100)].astype(np.float32)
        queries += 0.02 * generator.standard_normal(queries.shape, dtype=np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        exact = np.concatenate(
            [
                queries @ kept[s : s + 100_000].astype(np.float32).T
                for s in range(0, count, 100_000)
            ],
            axis=1,
        )
        truth, _ = top_k(exact, 10)
        index = LanceIndex(rows)
        found = [rows_to_numbers(index, q[None]) for q in queries]
        hits = [len(set(a) & set(b)) / 10 for a, b in zip(found, truth.tolist(), strict=True)]
        took = milliseconds(lambda q: index.search(q, 10), queries)
        plain = milliseconds(lambda q: q @ kept[:100_000].astype(np.float32).T, queries[:3])
        recall = float(np.mean(hits))
        lines.append(("ANN", f"{count:,}", SMALL, f"{took:.0f}", f"{recall:.3f}", f"{built:.0f} s"))
        figures |= {
            "ANN recall@10": recall,
            "ANN ms": took,
            "ANN index seconds": built,
            "ANN speed-up on a scan of float16 rows": plain * count / 100_000 / took,
        }
    print(table(("search", "tiles", "dimensions", "ms a query", "recall@10", "index"), lines))
    write_json(options.json, "search", figures)


def rows_to_numbers(index: LanceIndex, query: NDArray[np.float32]) -> list[int]:
    """Row ids are fragment * 2^32 + offset; the table was filled 100,000 rows a fragment."""
    ids = index.search(query, 10)[0][0]
    return [int(i >> 32) * 100_000 + int(i & 0xFFFFFFFF) for i in ids]


if __name__ == "__main__":
    main()
