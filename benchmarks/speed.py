"""Each fast path against the plain way in the same run; start-up; a locate on a town's map.

python benchmarks/speed.py [--json FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from _common import machine, table, write_json
from skylink import Gallery, Localizer
from skylink.correlation import SpectralMap, correlate_direct
from skylink.encoder import load_encoder
from skylink.queries import read_queries
from skylink.town import write_inputs


def median_ms(call: Callable[[], object], times: int = 7) -> float:
    """Median wall time of a call, the first one left out."""
    call()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - start))
    return float(np.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(machine(), flush=True)
    figures: dict[str, float] = {}
    rows: list[tuple[str, str, str, str]] = []

    def compare(name: str, fast: Callable[[], object], plain: Callable[[], object]) -> None:
        a, b = median_ms(fast), median_ms(plain)
        rows.append((name, f"{a:.1f}", f"{b:.1f}", f"{b / a:.1f}"))
        figures[f"{name}: ms"], figures[f"{name}: times the plain way"] = a, b / a
        print(" | ".join(rows[-1]), flush=True)

    generator = np.random.default_rng(0)
    features = generator.standard_normal((134, 124, 112), dtype=np.float32)
    spectral = SpectralMap(features, 14)
    for count in (1, 3, 24):
        kernels = generator.standard_normal((count, 14, 14, 112), dtype=np.float32)
        compare(
            f"correlate {count} kernels with 134 x 124 cells, FFT / direct",
            lambda kernels=kernels: spectral.correlate(kernels),
            lambda kernels=kernels: correlate_direct(features, kernels),
        )
    encoder = load_encoder()
    images = generator.integers(0, 256, (24, 224, 224, 3), dtype=np.uint8)
    compare(
        "24 feature maps, side by side / one by one",
        lambda: encoder.feature_map(images),
        lambda: [encoder.feature_map(image[None]) for image in images],
    )
    for words, code in (("import skylink", ["-c", "import skylink"]),
                        ("skylink --help", ["-m", "skylink", "--help"])):  # fmt: skip
        took = median_ms(lambda code=code: subprocess.run(
            [sys.executable, *code], check=True, capture_output=True))  # fmt: skip
        rows.append((words, f"{took:.0f}", "", ""))
        figures[f"{words}: ms"] = took
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_inputs(folder, seed=7, photos=8, size_m=1200.0)
        start = time.perf_counter()
        gallery = Gallery.build([inputs.map], Path(folder) / "gallery", stride_m=32.0)
        rate = gallery.tile_count / (time.perf_counter() - start)
        rows.append((f"build {gallery.tile_count} tiles, tiles/s", f"{rate:.0f}", "", ""))
        figures["build: tiles/s"] = rate
        queries = [row.load() for row in read_queries(inputs.queries)]
        for words, retriever, drop in (
            ("dense, all telemetry", "dense", ()),
            ("dense, heading unknown", "dense", ("heading_deg",)),
            ("descriptor, all telemetry", "descriptor", ()),
        ):
            localizer = Localizer(gallery, retriever=retriever, reranker="none")
            asked = [replace(q, telemetry=q.telemetry.without(*drop)) for q in queries]
            localizer.locate(asked[0])
            taken = [localizer.locate(q).ms["total"] for q in asked]
            rows.append((f"locate on 1.4 km2, {words}", f"{np.median(taken):.0f}", "", ""))
            figures[f"locate, {words}: ms"] = float(np.median(taken))
    print("\n" + table(("what", "ms", "plain way ms", "ratio"), rows))
    write_json(options.json, "speed", figures)


if __name__ == "__main__":
    main()
