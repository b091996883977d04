"""Fit and check the confidence: photos on their own map, and on another place's.

    python benchmarks/calibration.py [--towns 2] [--photos 24] [--json FILE]

For each scorer a logistic model of "within 50 m" from the best candidate's score and its lead is
fitted on generated towns: photos against their own town and against the next one, with all
telemetry and with the heading unknown. The coefficients printed are those of CALIBRATIONS in
src/skylink/estimate.py. If ../shared/data/ariel is there, they are checked on it: real flights on
their own map and on a town's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from _common import SHARED, table, write_json
from skylink import Gallery, Localizer
from skylink.errors import SkyLinkError
from skylink.estimate import CALIBRATIONS, lead_of
from skylink.geo import distance_m
from skylink.metrics import auroc, expected_calibration_error
from skylink.queries import QueryRow, read_queries
from skylink.town import write_inputs

SCORERS = {
    "dense": {"retriever": "dense"},
    "descriptor": {"retriever": "descriptor", "top_k": 20},
    "descriptor+dense": {"retriever": "descriptor", "reranker": "dense", "top_k": 20},
    "descriptor+matching": {"retriever": "descriptor", "reranker": "matching", "top_k": 20},
}
Samples = NDArray[np.float64]


def samples(gallery: Gallery, rows: Sequence[QueryRow], options: dict, own: bool) -> Samples:
    """(N, 4): best score, lead, right (0 or 1), confidence by the present coefficients."""
    localizer = Localizer(gallery, **options)
    out = []
    for row in rows:
        query = row.load()
        for drop in ((), ("heading_deg",)):
            asked = replace(query, telemetry=query.telemetry.without(*drop))
            try:
                estimate = localizer.locate(asked)
            except SkyLinkError as error:
                print(f"  {row.file}: {error.message}")
                continue
            away = distance_m(
                lon1=estimate.lon, lat1=estimate.lat, lon2=row.ground_lon, lat2=row.ground_lat
            )
            right = float(own and away <= 50)
            best = estimate.candidates[0].score
            out.append((best, lead_of(estimate.candidates), right, estimate.confidence))
    return np.array(out)


def fit(data: Samples) -> NDArray[np.float64]:
    """(bias, score, lead) of a ridge-regularised logistic regression, by Newton's method."""
    scale = data[:, :2].std(axis=0) + 1e-9
    x = np.column_stack([np.ones(len(data)), data[:, :2] / scale])
    weights = np.zeros(3)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (data[:, 2] - p) - 0.5 * np.array([0, *weights[1:]])
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag([1e-6, 0.5, 0.5])
        weights = weights + np.linalg.solve(hessian, gradient)
    return weights / np.array([1, *scale])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--towns", type=int, default=2)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--only", default="", help="scorers whose name ends so")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        places = []
        for seed in range(100, 100 + options.towns):
            inputs = write_inputs(
                Path(folder) / f"town{seed}", seed=seed, photos=options.photos, size_m=1000.0
            )
            gallery = Gallery.build([inputs.map], Path(folder) / f"gallery{seed}")
            places.append((gallery, read_queries(inputs.queries)))
            print(f"town {seed}: {gallery.tile_count} tiles, {options.photos} photos", flush=True)
        real = None
        if (SHARED / "ariel").is_dir():
            rows = [r for r in read_queries(SHARED / "ariel/queries.csv") if r.usable][::12]
            real = Gallery.build([SHARED / "ariel/map.tif"], Path(folder) / "ariel"), rows
        for name, how in SCORERS.items():
            if not name.endswith(options.only):
                continue
            own = [samples(g, rows, how, True) for g, rows in places]
            other = [
                samples(places[(i + 1) % len(places)][0], rows, how, False)
                for i, (_, rows) in enumerate(places)
            ]
            towns = np.concatenate(own + other)
            bias, score, lead = fit(towns)
            base, _, reranker = name.partition("+")
            known = CALIBRATIONS[f"re-ranked by {reranker}" if reranker else base]
            print(
                f"\n{name}: fitted bias={bias:.2f}, score={score:.3g}, lead={lead:.3g}; "
                f"in use {known}"
            )
            checks = {
                "towns, own map": np.concatenate(own),
                "towns, another's map": np.concatenate(other),
            }
            if real:
                checks["Ariel, own map"] = samples(*real, how, True)
                checks["Ariel, a town's map"] = samples(places[0][0], real[1], how, False)
            rows_out = []
            for words, data in checks.items():
                right, confidence = data[:, 2].astype(bool), data[:, 3]
                error = expected_calibration_error(confidence, right)
                quantiles = np.percentile(data[:, 0], [5, 50, 95])
                rows_out.append(
                    (words, len(data), f"{100 * right.mean():.1f}", f"{confidence.mean():.2f}",
                     f"{error:.3f}", " ".join(f"{q:.3f}" for q in quantiles))
                )  # fmt: skip
                figures[f"{name}, {words}: mean confidence"] = float(confidence.mean())
                figures[f"{name}, {words}: ECE"] = error
            print(
                table(
                    ("", "photos", "right %", "mean confidence", "ECE", "score 5/50/95 %"), rows_out
                )
            )
            for where in ("towns", "Ariel") if real else ("towns",):
                yes = checks[f"{where}, own map"]
                no = checks["towns, another's map" if where == "towns" else "Ariel, a town's map"]
                value = auroc(yes[yes[:, 2] > 0, 3], no[:, 3])
                print(f"on this map or not, by confidence ({where}): AUROC {value:.3f}", flush=True)
                figures[f"{name}, {where}: AUROC on this map"] = value
    write_json(options.json, "calibration", figures)


if __name__ == "__main__":
    main()
