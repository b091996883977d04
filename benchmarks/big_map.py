"""A 100 km2 map: dense search with known and unknown heading, time, memory, and what size costs.

    python benchmarks/big_map.py [--side-m 10000] [--photos 8] [--every 6] [--json FILE]

A map is the middle of a large area of distractors (benchmarks/_distractors.py says of what they
are made). Photos are located on the map alone, on the whole area and in the regions of it that
descriptors choose, and by tiles: descriptors' best 50, re-ranked, the place found within the first.
Two maps: the one of real flights where ../shared/data has it (frames by `--every`, otherwise
skipped), and a generated town (`--photos`). With --cache DIR areas and galleries are kept for a
second run.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _common import SHARED, machine, table, write_json
from _distractors import read_map, scenes, shuffled, write_around
from skylink import Gallery, Localizer
from skylink.evaluate import evaluate
from skylink.queries import QueryRow, read_queries
from skylink.retrievers import parts
from skylink.town import Town, render_map, write_inputs
from skylink.town.light import SATELLITE

GSD_M = 0.7
ARIEL_TILE_M = 162.0
TOWN_M = 1200.0
DENSE = {"retriever": "dense"}
TILES = {"retriever": "descriptor", "top_k": 50}


@dataclass(frozen=True)
class Case:
    """One map, alone and as the middle of a large area."""

    name: str
    map: Path
    area: Path
    rows: Sequence[QueryRow]
    tile_m: float


def town_case(folder: Path, side_m: float, photos: int) -> Case:
    inputs = write_inputs(folder, seed=7, photos=photos, size_m=TOWN_M)
    town = Town.generate(seed=7, size_m=TOWN_M)
    picture = render_map(town, SATELLITE, GSD_M)
    generator = np.random.default_rng(0)
    area = folder / f"area-{side_m:g}.tif"
    if not area.exists():
        write_around(
            area, picture, GSD_M, side_m, lambda: shuffled(picture, generator),
            crs=town.frame.proj4, centre=(0.0, 0.0),
        )  # fmt: skip
    return Case("town", inputs.map, area, read_queries(inputs.queries), 160.0)


def ariel_case(folder: Path, side_m: float, every: int) -> Case:
    source, area = SHARED / "ariel" / "map.tif", folder / f"ariel-area-{side_m:g}.tif"
    if not area.exists():
        picture, crs, centre, unit = read_map(source, GSD_M)
        pieces = scenes(SHARED / "pool" / "rsscn7", np.random.default_rng(0))
        write_around(
            area, picture, GSD_M, side_m, pieces, crs=crs, centre=centre, unit=unit, towns=True
        )
    rows = [row for row in read_queries(SHARED / "ariel" / "queries.csv") if row.usable]
    return Case("ariel", source, area, rows[::every], ARIEL_TILE_M)


def peak_mb() -> float:
    """Peak resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


HEADER = (
    "map", "known", "within 50 m", "lost", "median m", "ms a photo", "first photo s",
    "features + spectra MB", "peak MB of the process", "build s",
)  # fmt: skip


def measure(
    case: Case, folder: Path, stride_m: float, figures: dict[str, float]
) -> list[tuple[str, ...]]:
    """One row a map, way of searching and telemetry."""
    lines: list[tuple[str, ...]] = []
    alone: dict[str, float] = {}
    whole_cells = parts.DENSE_CELLS
    for words, source in (("alone", case.map), ("in the area", case.area)):
        start = time.perf_counter()
        gallery = Gallery.build(
            [source], folder / f"{case.name}-{words}", tile_m=(case.tile_m,), stride_m=stride_m
        )
        built = time.perf_counter() - start
        ways: dict[str, tuple[int, dict[str, Any]]] = {words: (whole_cells, DENSE)}
        if words != "alone":
            ways["in regions that descriptors chose"] = 0, DENSE
        ways[f"{words}, by tiles"] = whole_cells, TILES
        for way, (cells, how) in ways.items():
            parts.DENSE_CELLS = cells
            localizer = Localizer(gallery, **how)
            start = time.perf_counter()
            localizer.locate(case.rows[0].load())
            first = time.perf_counter() - start
            for known, without in (("all telemetry", None), ("heading unknown", "heading")):
                result = evaluate(localizer, case.rows, without=without).results
                assert result.answer is not None
                right, ms = result.answer.within_50_m, result.ms_per_query["total_median"]
                lost = alone.setdefault(f"{how['retriever']}, {known}", right) - right
                held = getattr(localizer.retriever, "nbytes", 0) / 1e6
                lines.append(
                    (f"{case.name} {way}, {gallery.area_km2:.1f} km2, {len(case.rows)} photos",
                     known, f"{right:.1f}", f"{lost:.1f}",
                     f"{result.answer.median_error_m or float('nan'):.1f}", f"{ms:.0f}",
                     f"{first:.1f}", f"{held:.0f}", f"{peak_mb():.0f}", f"{built:.0f}")
                )  # fmt: skip
                print(" | ".join(lines[-1]), flush=True)
                name = f"{case.name} {way}, {known}"
                figures |= {f"{name}: within 50 m": right, f"{name}: lost": lost, f"{name}: ms": ms}
        parts.DENSE_CELLS = whole_cells
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side-m", type=float, default=10_000.0)
    parser.add_argument("--photos", type=int, default=8, help="of the town")
    parser.add_argument("--every", type=int, default=6, help="Nth frame of the real flights")
    parser.add_argument("--stride-m", type=float, default=80.0, help="between tiles")
    parser.add_argument("--only", choices=("ariel", "town"))
    parser.add_argument("--cache", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(machine(), flush=True)
    figures: dict[str, float] = {}
    lines: list[tuple[str, ...]] = []
    real = (SHARED / "ariel" / "map.tif").is_file() and (SHARED / "pool" / "rsscn7").is_dir()
    if not real:
        print("real flights skipped: need the real imagery in ../shared/data, which is not here")
    for name in ("ariel", "town"):
        if options.only not in (None, name) or (name == "ariel" and not real):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.cache or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            case = (
                ariel_case(folder, options.side_m, options.every)
                if name == "ariel"
                else town_case(folder, options.side_m, options.photos)
            )
            lines += measure(case, folder, options.stride_m, figures)
    figures["peak MB, build and search"] = peak_mb()
    print("\n" + table(HEADER, lines))
    write_json(options.json, "big_map", figures)


if __name__ == "__main__":
    main()
