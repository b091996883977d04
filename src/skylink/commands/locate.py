"""`skylink locate`: photos in, coordinates out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skylink.commands import options, terminal
from skylink.commands.lvlm_options import takes_lvlm
from skylink.commands.photo_run import Pictures, Run, list_photos
from skylink.errors import OptionError, OutputError
from skylink.lvlm.options import LvlmOptions

if TYPE_CHECKING:
    from skylink.results import Outcome


class Format(StrEnum):
    """How results are written."""

    table = "table"
    geojson = "geojson"
    csv = "csv"


@takes_lvlm
def locate(
    photos: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO",
            help="JPEG, PNG, TIFF or WebP files, or folders of them.",
            show_default=False,
        ),
    ],
    gallery: options.GalleryPath,
    retriever: options.Retriever = "auto",
    reranker: options.Reranker = "auto",
    top_k: options.TopK = 10,
    base_weight: options.BaseWeight = None,
    gate: options.GateMargin = None,
    prior: options.PriorText = None,
    gps_prior: Annotated[
        float | None,
        typer.Option(
            "--gps-prior",
            metavar="RADIUS_M",
            help="Search only within RADIUS_M metres of each photo's own GPS position.",
            rich_help_panel=options.SEARCH,
        ),
    ] = None,
    heading_error: options.HeadingError = None,
    altitude_error: options.AltitudeError = None,
    tilt_error: options.TiltError = None,
    time_budget: options.TimeBudget = None,
    telemetry: Annotated[
        Path | None,
        typer.Option(
            "--telemetry",
            metavar="CSV",
            help="A queries.csv with what is known of each photo's camera. Explicit options win "
            "over it, and it wins over what the photo itself says.",
            rich_help_panel=options.ALIGN,
        ),
    ] = None,
    altitude_m: Annotated[
        float | None,
        typer.Option(
            "--altitude-m", help="Height above the ground in view.", rich_help_panel=options.ALIGN
        ),
    ] = None,
    heading_deg: Annotated[
        float | None,
        typer.Option(
            "--heading-deg",
            help="Where the camera points, clockwise from true north.",
            rich_help_panel=options.ALIGN,
        ),
    ] = None,
    tilt_deg: Annotated[
        float | None,
        typer.Option(
            "--tilt-deg",
            help="0 looks straight down, 90 at the horizon.",
            rich_help_panel=options.ALIGN,
        ),
    ] = None,
    fov_deg: Annotated[
        float | None,
        typer.Option(
            "--fov-deg",
            help="Field of view over the photo's width.",
            rich_help_panel=options.ALIGN,
        ),
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", "-f", rich_help_panel=options.OUTPUT)
    ] = Format.table,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write results here, not to the screen.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    evidence: options.EvidenceFolder = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="A photo whose re-ranking fails is a failed photo, and one that is not found on "
            "this map counts in the exit code. Without it the photo keeps its first order, and the "
            "result says so.",
            rich_help_panel=options.SEARCH,
        ),
    ] = False,
    refine: options.Refine = True,
    min_confidence: options.MinConfidence = None,
    *,
    lvlm: LvlmOptions,
) -> None:
    """Find where photos were taken.

    Altitude, heading, tilt and field of view are read from the photo where a camera wrote them.
    The more of them are known, the better; whatever is missing is searched.
    """
    from skylink.gallery import Gallery
    from skylink.hypotheses import SearchSpace
    from skylink.localizer import Localizer
    from skylink.types import Telemetry

    area = options.parse_prior(prior)
    if area is not None and gps_prior is not None:
        raise OptionError("--prior and --gps-prior exclude each other", hint="give one of them")
    if gps_prior is not None and not 0 < gps_prior < float("inf"):
        raise OptionError(f"--gps-prior {gps_prior:g} is not a positive number of metres")
    flags = Telemetry(
        relative_altitude_m=altitude_m,
        heading_deg=heading_deg,
        camera_tilt_from_nadir_deg=tilt_deg,
        horizontal_fov_deg=fov_deg,
    )
    table = options.TelemetryTable(telemetry) if telemetry is not None else None
    for folder in (evidence, out.parent if out is not None else None):
        if folder is not None:
            terminal.require_writable(folder)
    opened = Gallery.open(gallery)
    terminal.say_what_loads(reranker)
    localizer = Localizer(
        opened,
        retriever=retriever,
        reranker=reranker,
        top_k=top_k,
        fusion=options.fusion(base_weight, gate),
        space=SearchSpace(
            heading_error_deg=heading_error,
            altitude_error=altitude_error,
            tilt_error_deg=tilt_error,
        ),
        time_budget_s=time_budget,
        strict=strict,
        refine=refine,
        min_confidence=min_confidence,
        lvlm=lvlm,
    )
    jobs = list_photos(photos)
    terminal.say(
        f"Locating {len(jobs)} photo{'s' * (len(jobs) != 1)} on {gallery} "
        f"({opened.area_km2:.2f} km2, {opened.tile_count:,} tiles)"
    )
    terminal.say(localizer.plan)
    run = Run(localizer, flags=flags, table=table, prior=area, gps_prior_m=gps_prior)
    if evidence is not None:
        run.pictures = Pictures(evidence, opened)
    run.locate_all(jobs)
    _write(run.outcomes, format, out, attribution=opened.info.attribution)
    _finish(run, format, out, evidence, strict=strict)


def _write(
    outcomes: Sequence[Outcome], format: Format, out: Path | None, *, attribution: str
) -> None:
    """Results to stdout, or to the file; to stdout as well where the file can't be written."""
    from skylink import results
    from skylink.files import write_atomic

    if out is None and format is Format.table:
        terminal.print_table(results.to_table(outcomes))
        return
    render: dict[Format, Callable[[], str]] = {
        Format.table: lambda: terminal.table_text(results.to_table(outcomes)),
        Format.geojson: lambda: results.to_geojson(outcomes, attribution=attribution),
        Format.csv: lambda: results.to_csv(outcomes),
    }
    text = render[format]()
    if out is None:
        terminal.emit(text)
        return
    try:
        write_atomic(out, text)
    except OutputError:
        terminal.emit(text)  # the work is not lost
        raise


def _finish(
    run: Run, format: Format, out: Path | None, evidence: Path | None, *, strict: bool
) -> None:
    """Say what came of it and what to do next, and leave with the exit code."""
    from skylink.names import shown

    failed = [o for o in run.outcomes if o.estimate is None]
    unsure = sum(o.estimate is not None and not o.estimate.located for o in run.outcomes)
    located = len(run.outcomes) - len(failed) - unsure
    pace = f" in {run.seconds:.1f} s" if run.seconds else ""
    terminal.say(f"Located {located} of {len(run.outcomes)}{pace}")
    hints: dict[str, None] = {}
    for outcome in failed[:20]:
        terminal.say(f"  failed: {shown(outcome.name)}: {shown(outcome.error)}")
        hints[outcome.hint] = None
    if len(failed) > 20:
        terminal.say(f"  ... and {len(failed) - 20} more")
    for hint in filter(None, hints):
        terminal.say(f"  hint: {shown(hint)}")
    if unsure:
        least = run.localizer.min_confidence
        terminal.say(f"  {unsure} not found on this map (confidence below {least:.2f}): best guess")
    heights = sum(
        o.estimate is not None and o.estimate.pose_from.get("altitude") == "searched"
        for o in run.outcomes
    )
    if heights:
        terminal.say(
            f"  {heights} without a height above the ground (a GPS altitude is above the sea): it "
            "was searched; --altitude-m says it"
        )
    if run.pictures is not None:
        terminal.say(f"Evidence: {run.pictures.written} pictures in {evidence}")
        if run.pictures.problem is not None:
            raise run.pictures.problem
    if run.interrupted:
        raise KeyboardInterrupt
    if out is not None:
        terminal.say(f"Wrote {out}")
    if located and evidence is None:
        terminal.say("Next: add `--evidence DIR` for pictures that show why")
    elif located and format is Format.table:
        terminal.say("Next: add `--format geojson --out places.geojson` for a GIS or geojson.io")
    if failed or (strict and unsure):
        answered = located + (0 if strict else unsure)
        raise typer.Exit(terminal.SOME_FAILED if answered else terminal.ALL_FAILED)
