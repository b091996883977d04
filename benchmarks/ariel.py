"""Real flights on a real map: the figures of the README, with intervals and by flight.

    python benchmarks/ariel.py [--every N] [--json FILE]

Needs the real imagery in ../shared/data (not part of the repository); says so and stops without it.
Views and tiles of 162 m, a tile every 32.4 m; 362 usable frames of two flights; tolerance 50 m.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import SHARED, machine, table, write_json
from skylink import Gallery, Localizer
from skylink.encoder import load_encoder
from skylink.evaluate import evaluate
from skylink.figures import Results
from skylink.hypotheses import SearchSpace
from skylink.queries import read_queries

TILES = {"retriever": "descriptor", "reranker": "none", "top_k": 20}
UNTRAINED = {"encoder": "embedded-base"}
LOOSE = {"space": SearchSpace(altitude_error=0.3)}
# name, how to locate, how to evaluate, every Nth photo (searches without telemetry take seconds)
ROWS: list[tuple[str, dict[str, Any], dict[str, Any], int]] = [
    ("dense, all telemetry", {}, {}, 1),
    ("dense, heading unknown", {}, {"without": "heading"}, 2),
    ("dense, heading and altitude (30 %) unknown", LOOSE,
     {"without": "heading", "perturb": True}, 2),
    ("dense, altitude off by up to 30 %", LOOSE, {"perturb": True}, 2),
    ("dense, altitude unknown", {}, {"without": "altitude"}, 2),
    ("dense, no telemetry", {}, {"without": "all"}, 6),
    ("dense, no telemetry, 1 s", {"time_budget_s": 1.0}, {"without": "all"}, 6),
    ("untrained descriptor, K = 20", {**TILES, **UNTRAINED}, {}, 1),
    ("untrained descriptor + dense, K = 20", {**TILES, **UNTRAINED, "reranker": "dense"}, {}, 1),
    ("descriptor, K = 20", TILES, {}, 1),
    ("descriptor + matching, K = 20", {**TILES, "reranker": "matching"}, {}, 4),
    ("descriptor + hog, K = 20", {**TILES, "reranker": "hog"}, {}, 2),
    ("descriptor + dense, K = 20", {**TILES, "reranker": "dense"}, {}, 1),
    ("descriptor + dense, K = 50", {**TILES, "reranker": "dense", "top_k": 50}, {}, 2),
    ("descriptor + relational, K = 20", {**TILES, "reranker": "relational"}, {}, 1),
    ("descriptor + relational, K = 50", {**TILES, "reranker": "relational", "top_k": 50}, {}, 2),
    ("descriptor, no telemetry", TILES, {"without": "all"}, 8),
]  # fmt: skip


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def interval(found: tuple[float, float] | None) -> str:
    return "" if found is None else f" [{found[0]:.0f}, {found[1]:.0f}]"


def line(name: str, result: Results) -> list[str]:
    """One row of the table: the final ranking, the place, and the camera's own position."""
    final = result.reranked or result.retrieved
    groups = result.groups.values()
    answer, camera = result.answer, result.camera
    assert answer is not None
    return [
        f"{name} ({result.queries} photos)",
        f"{final.recall_1:.1f}{interval(final.recall_1_interval)}",
        " / ".join(number((group.reranked or group.retrieved).recall_1) for group in groups),
        number(final.recall_20 if result.top_k >= 20 else final.recall_10),
        f"{answer.within_tolerance:.1f}{interval(answer.within_tolerance_interval_95)}",
        " / ".join(number(g.answer.within_tolerance if g.answer else None) for g in groups),
        number(answer.within_25_m),
        number(answer.median_error_m),
        number(camera.within_50_m if camera else None),
        number(camera.within_25_m if camera else None),
        number(camera.median_error_m if camera else None),
        f"{result.ms_per_query['total_median']:.0f}",
    ]


HEADER = (
    "", "R@1 (50 m) [95 %]", "flights 0017 / 0019", "R@10 (R@20 for K = 20)",
    "answer within 50 m [95 %]", "flights 0017 / 0019", "within 25 m", "median m",
    "camera within 50 m", "within 25 m", "median m", "ms a photo",
)  # fmt: skip


def build(folder: Path, encoder: str) -> Gallery:
    """The map's gallery by an encoder; built once."""
    out = folder / encoder
    if out.exists():
        return Gallery.open(out)
    return Gallery.build(
        [SHARED / "ariel/map.tif"], out, tile_m=(162.0,), stride_m=32.4,
        encoder=load_encoder(encoder),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="take every Nth frame")
    parser.add_argument("--only", default="", help="rows whose name contains one of these, by `;`")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not (SHARED / "ariel").is_dir():
        print("skipped: needs the real imagery in ../shared/data, which is not here")
        return
    print(machine(), flush=True)
    rows = [r for r in read_queries(SHARED / "ariel/queries.csv") if r.usable][:: options.every]
    figures: dict[str, float] = {}
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        gallery = build(Path(folder), "embedded")
        rate = gallery.tile_count / (time.perf_counter() - start)
        print(
            f"built {gallery.tile_count} tiles, {rate:.0f} tiles/s; {len(rows)} photos", flush=True
        )
        figures["build tiles/s"] = rate
        for name, localizer, evaluation, nth in ROWS:
            if not any(words in name for words in options.only.split(";")):
                continue
            of = localizer.get("encoder", "embedded")
            how = {key: value for key, value in localizer.items() if key != "encoder"}
            located = Localizer(gallery if of == "embedded" else build(Path(folder), of), **how)
            located.locate(rows[0].load())  # the map's spectra are made once
            result = evaluate(located, rows[::nth], group_by="flight", **evaluation).results
            lines.append(line(name, result))
            print(" | ".join(lines[-1]), flush=True)
            final = result.reranked or result.retrieved
            figures[f"{name}: R@1"] = final.recall_1
            if final.recall_20 is not None:
                figures[f"{name}: R@20"] = final.recall_20
            assert result.answer is not None
            figures[f"{name}: answer within 50 m"] = result.answer.within_50_m
            figures[f"{name}: within 25 m"] = result.answer.within_25_m
            figures[f"{name}: median m"] = result.answer.median_error_m or float("nan")
            figures[f"{name}: median ms"] = result.ms_per_query["total_median"]
            if result.camera:
                figures[f"{name}: camera within 50 m"] = result.camera.within_50_m
            if result.honesty:
                figures[f"{name}: within its radius %"] = result.honesty.within_radius
                figures[f"{name}: within its 90 % radius %"] = result.honesty.within_radius_90
                figures[f"{name}: ECE"] = result.honesty.expected_calibration_error
    print("\n" + table(HEADER, lines))
    for key, value in figures.items():
        if key.endswith(("radius %", "ECE")):
            print(f"{key}: {value:.3g}")
    write_json(options.json, "ariel", figures)


if __name__ == "__main__":
    main()
