"""`skylink demo`: a made-up town, photographed and found again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skylink.commands import terminal
from skylink.commands.evaluate import true_places
from skylink.commands.evaluate_tables import summary_table
from skylink.commands.photo_run import Pictures

if TYPE_CHECKING:
    from skylink.evaluate import Evaluation
    from skylink.figures import Outcome

SIZE_M = 1000.0
"""Side of the town: enough streets to be lost in, and all done in a minute."""


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for everything.")
    ] = Path("skylink-demo"),
    photos: Annotated[int, typer.Option("--photos", min=1, max=200, help="How many.")] = 12,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the town and the flight.")] = 7,
) -> None:
    """Make up a town, photograph it from a drone, and find the photos on its map.

    Builds a gallery, locates, evaluates and draws evidence, all under one folder. Run it again
    and it replaces what it made.
    """
    from skylink.demo import claim_folder
    from skylink.evaluate import evaluate
    from skylink.files import write_atomic
    from skylink.gallery import Gallery
    from skylink.localizer import Localizer
    from skylink.queries import read_queries
    from skylink.results import to_geojson
    from skylink.town import write_inputs

    start = time.monotonic()
    claim_folder(out)
    terminal.say(
        f"1/4 Making up a town of {SIZE_M:g} x {SIZE_M:g} m, its satellite map, and {photos} "
        "photos by a drone in another season"
    )
    inputs = write_inputs(out, seed=seed, photos=photos, size_m=SIZE_M)
    rows = read_queries(inputs.queries)

    terminal.say(f"2/4 Building a gallery of {inputs.map}")
    with terminal.progress("chunks") as report:
        gallery = Gallery.build([inputs.map], out / "gallery", progress=report)

    localizer = Localizer(gallery)
    terminal.say(f"3/4 Locating the photos: {localizer.plan}")
    pictures = Pictures(out / "evidence", gallery, truths=true_places(rows))
    with terminal.progress("photos") as report:
        dense = evaluate(
            localizer,
            rows,
            on_query=report,
            on_result=lambda row, *found: pictures(*found),
        )
    if pictures.problem is not None:
        raise pictures.problem
    places = to_geojson(_located(dense), attribution=gallery.info.attribution)
    write_atomic(out / "results.geojson", places)
    write_atomic(out / "results.json", dense.to_json())
    terminal.print_table(_table(dense.outcomes))

    localizer = Localizer(gallery, retriever="descriptor", top_k=20)
    terminal.say(f"4/4 For comparison, by tiles: {localizer.plan}")
    with terminal.progress("photos") as report:
        reranked = evaluate(localizer, rows, on_query=report)
    write_atomic(out / "results-reranked.json", reranked.to_json())
    terminal.print_table(summary_table(reranked))
    _plot(out / "recall.png", dense, reranked)
    _say_what_next(dense, out, time.monotonic() - start)


def _located(evaluation: Evaluation) -> Any:
    from skylink.results import Outcome

    return [
        Outcome(name=o.row.file, estimate=o.estimate, error=o.error) for o in evaluation.outcomes
    ]


def _table(outcomes: Sequence[Outcome]) -> Any:
    """A row a photo: where it was placed, and how far off that is."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("photo")
    for title in ("tilt", "lon", "lat", "error m", "50 / 90 % m", "camera error m", "confidence"):
        table.add_column(title, justify="right", no_wrap=True)
    for outcome in outcomes:
        estimate = outcome.estimate
        if estimate is None:
            table.add_row(outcome.row.file, "", Text(outcome.error, style="red"))
            continue
        tilt = outcome.row.telemetry.camera_tilt_from_nadir_deg
        table.add_row(
            outcome.row.file,
            "" if tilt is None else f"{tilt:.0f}°",
            f"{estimate.lon:.6f}",
            f"{estimate.lat:.6f}",
            f"{outcome.answer_m:.1f}",
            f"{estimate.radius_m:.0f} / {estimate.radius_90_m:.0f}",
            "" if outcome.camera_m is None else f"{outcome.camera_m:.1f}",
            f"{estimate.confidence:.2f}",
        )
    return table


def _plot(path: Path, dense: Evaluation, reranked: Evaluation) -> None:
    import numpy as np

    from skylink.plot import save_recall_plot

    curves = {
        "tiles by descriptor": [o.base_m[0] for o in reranked.outcomes],
        f"the same, re-ranked ({reranked.results.reranker})": [
            o.final_m[0] for o in reranked.outcomes
        ],
        "the same, placed within the tile": [o.answer_m for o in reranked.outcomes],
        "dense map search": [o.final_m[0] for o in dense.outcomes],
    }
    save_recall_plot(
        path,
        {name: np.array(errors) for name, errors in curves.items()},
        title="skylink demo: photos of a made-up town",
    )


def _say_what_next(dense: Evaluation, out: Path, seconds: float) -> None:
    """What came out, where to look, and what to type for one's own map."""
    errors = [float(o.final_m[0]) for o in dense.outcomes]
    near = sum(error <= 50 for error in errors)
    skylink = terminal.program()
    folder = terminal.quoted(out)
    terminal.say(
        f"""\
{near} of {len(errors)} photos within 50 m of the truth, median error \
{statistics.median(errors):.1f} m; everything took {seconds:.0f} s.

Look at
  {folder}/evidence/*.jpg     why each photo was placed where it was
  {folder}/results.geojson    the places: drop it on https://geojson.io or into QGIS
  {folder}/results.json, {folder}/recall.png    how well it did

Now your own map (any georeferenced GeoTIFF) and photos:
  {skylink} build YOUR_MAP.tif --out my-gallery
  {skylink} locate YOUR_PHOTOS/*.jpg --gallery my-gallery --evidence my-evidence
If your photos don't carry altitude, heading and tilt, tell what you know; the rest is searched:
  {skylink} locate PHOTO.jpg --gallery my-gallery --altitude-m 120 --tilt-deg 0 --fov-deg 70"""
    )
