"""A 100 km2 map: dense search with known and unknown heading, time and memory.

    python benchmarks/big_map.py [--side-m 10000] [--photos 8] [--json FILE]

One generated town lies in an area of distractors: the same town cut into 60 m patches, turned,
flipped and shuffled, so that textures and colours are the town's and the layout is not.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from _common import machine, table, write_json
from skylink import Gallery, Localizer
from skylink.geo import distance_m
from skylink.queries import read_queries
from skylink.town import Town, render_map, write_inputs
from skylink.town.light import SATELLITE

GSD_M = 0.7
PATCH_PX = 86


def shuffled(town: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """The town's patches in another order, each turned and flipped at random."""
    n = town.shape[0] // PATCH_PX
    cut = town[: n * PATCH_PX, : n * PATCH_PX]
    patches = (
        cut.reshape(n, PATCH_PX, n, PATCH_PX, 3).swapaxes(1, 2).reshape(-1, PATCH_PX, PATCH_PX, 3)
    )
    patches = patches[generator.permutation(len(patches))].copy()
    for patch in patches:
        turned = np.rot90(patch, generator.integers(4))
        patch[:] = turned[::-1] if generator.random() < 0.5 else turned
    joined = patches.reshape(n, n, PATCH_PX, PATCH_PX, 3).swapaxes(1, 2)
    return joined.reshape(n * PATCH_PX, n * PATCH_PX, 3)


def write_area(town: Town, path: Path, side_m: float) -> None:
    """A GeoTIFF of side_m square around the town, distractors elsewhere."""
    picture = render_map(town, SATELLITE, GSD_M)
    generator = np.random.default_rng(0)
    side = round(side_m / GSD_M)
    half = side * GSD_M / 2
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8",
        "crs": town.frame.proj4, "transform": Affine(GSD_M, 0, -half, 0, -GSD_M, half),
        "tiled": True, "compress": "jpeg", "photometric": "ycbcr", "bigtiff": "if_safer",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        step = shuffled(picture, generator).shape[0]
        for top in range(0, side, step):
            band = np.concatenate(
                [shuffled(picture, generator) for _ in range(0, side, step)], axis=1
            )[: side - top, :side]
            window = rasterio.windows.Window(0, top, side, band.shape[0])
            raster.write(np.moveaxis(band, 2, 0), window=window)
        at = (side - picture.shape[0]) // 2
        window = rasterio.windows.Window(at, at, picture.shape[1], picture.shape[0])
        raster.write(np.moveaxis(picture, 2, 0), window=window)


def peak_mb() -> float:
    """Peak resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side-m", type=float, default=10_000.0)
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(machine(), flush=True)
    figures: dict[str, float] = {}
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_inputs(Path(folder), seed=7, photos=options.photos, size_m=1200.0)
        write_area(Town.generate(seed=7, size_m=1200.0), Path(folder) / "area.tif", options.side_m)
        rows = read_queries(inputs.queries)
        for words, source in (("town", inputs.map), ("whole area", Path(folder) / "area.tif")):
            start = time.perf_counter()
            gallery = Gallery.build([source], Path(folder) / f"g-{words}", stride_m=160.0)
            built = time.perf_counter() - start
            localizer = Localizer(gallery, retriever="dense")
            start = time.perf_counter()
            localizer.locate(rows[0].load())
            first = time.perf_counter() - start
            for drop in ((), ("heading_deg",)):
                errors, times = [], []
                for row in rows:
                    query = row.load()
                    query = type(query)(
                        name=query.name, image=query.image,
                        telemetry=query.telemetry.without(*drop),
                    )  # fmt: skip
                    estimate = localizer.locate(query)
                    times.append(estimate.ms["total"])
                    errors.append(
                        float(
                            distance_m(
                                lon1=estimate.lon, lat1=estimate.lat,
                                lon2=row.ground_lon, lat2=row.ground_lat,
                            )
                        )
                    )  # fmt: skip
                known = "heading unknown" if drop else "all telemetry"
                held = localizer.retriever.nbytes / 1e6  # type: ignore[attr-defined]
                right = 100 * float(np.mean(np.array(errors) <= 50))
                lines.append(
                    (f"{words}, {gallery.area_km2:.1f} km2", known, f"{right:.0f} %",
                     f"{np.median(errors):.1f}", f"{np.median(times):.0f}", f"{first:.1f}",
                     f"{held:.0f}", f"{peak_mb():.0f}", f"{built:.0f}")
                )  # fmt: skip
                print(" | ".join(lines[-1]), flush=True)
                figures[f"{words}, {known}: ms"] = float(np.median(times))
                figures[f"{words}, {known}: within 50 m"] = right
        figures["peak MB, build and search"] = peak_mb()
    header = ("map", "known", "within 50 m", "median m", "ms a photo", "first photo s",
              "features + spectra MB", "peak MB of the process", "build s")  # fmt: skip
    print("\n" + table(header, lines))
    write_json(options.json, "big_map", figures)


if __name__ == "__main__":
    main()
