"""`skylink evaluate`: how well it does on one's own map, base beside re-ranked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skylink.commands import benchmark_run, evaluate_conditions, options, terminal
from skylink.commands.evaluate_tables import groups_table, save_plot, summary_table
from skylink.commands.lvlm_options import takes_lvlm
from skylink.commands.photo_run import Pictures
from skylink.lvlm.options import LvlmOptions

if TYPE_CHECKING:
    from skylink.gallery import Gallery
    from skylink.queries import QueryRow

DROP = evaluate_conditions.ROBUSTNESS


class Without(StrEnum):
    """Telemetry that can be dropped."""

    heading = "heading"
    altitude = "altitude"
    all = "all"


@takes_lvlm
def evaluate(
    gallery: options.OptionalGalleryPath = None,
    queries: options.QueriesPath = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            "--photos",
            metavar="DIR",
            help="Where the photos are. [default: beside the CSV, or in queries/, photos/ or "
            "images/ there]",
            show_default=False,
        ),
    ] = None,
    retriever: options.Retriever = "auto",
    reranker: options.Reranker = "auto",
    top_k: options.TopK = 20,
    base_weight: options.BaseWeight = None,
    gate: options.GateMargin = None,
    prior: options.PriorText = None,
    tolerance_m: Annotated[
        float, typer.Option("--tolerance-m", metavar="METRES", help="This near is right.")
    ] = 50.0,
    without: Annotated[
        Without | None,
        typer.Option("--without", help="Drop telemetry.", rich_help_panel=DROP),
    ] = None,
    heading_error: options.HeadingError = None,
    altitude_error: options.AltitudeError = None,
    tilt_error: options.TiltError = None,
    time_budget: options.TimeBudget = None,
    perturb: Annotated[
        bool,
        typer.Option(
            "--perturb",
            help="Add random errors of up to --heading-error, --altitude-error and --tilt-error "
            "to the telemetry, the same ones for the same --seed.",
            rich_help_panel=DROP,
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, help="Of --perturb and --conditions.", rich_help_panel=DROP),
    ] = 0,
    conditions: evaluate_conditions.Conditions = None,
    severities: evaluate_conditions.Severities = "1,2,3,4,5",
    group_by: Annotated[
        str | None,
        typer.Option("--group-by", metavar="COLUMN", help="Report apart by a column of the CSV."),
    ] = None,
    every: Annotated[
        int, typer.Option("--every", min=1, metavar="N", help="Only every Nth usable photo.")
    ] = 1,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N of them.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="results.json",
            help="Write all figures here.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE.png",
            help="Draw recall by distance.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    evidence: options.EvidenceFolder = None,
    benchmark: benchmark_run.BenchmarkName = None,
    root: benchmark_run.Root = None,
    task: benchmark_run.TaskName = None,
    split: benchmark_run.SplitName = "test",
    distractors: benchmark_run.DistractorsName = "kept",
    save_run: benchmark_run.SavedRun = None,
    run_file: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="FILE",
            help="Score a run file (TREC or .jsonl) by --qrels.",
            rich_help_panel=benchmark_run.BENCHMARK,
            show_default=False,
        ),
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(
            "--qrels", metavar="FILE", rich_help_panel=benchmark_run.BENCHMARK, show_default=False
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="A query whose re-ranking fails is an error.",
            rich_help_panel=options.SEARCH,
        ),
    ] = False,
    refine: options.Refine = True,
    min_confidence: options.MinConfidence = None,
    *,
    lvlm: LvlmOptions,
) -> None:
    """Measure on photos whose true place is known: one's own, or a published benchmark's.

    Prints and writes the base ranking beside the re-ranked one, always both.
    """
    from skylink.errors import OptionError

    if run_file is not None:
        _refuse(
            "--run", benchmark=benchmark, gallery=gallery, queries=queries, plot=plot,
            no_refine=None if refine else True,
        )  # fmt: skip
        benchmark_run.score_run(run_file, qrels, out)
        return
    if benchmark is not None:
        _refuse(
            "--benchmark", gallery=gallery, queries=queries, plot=plot, evidence=evidence,
            conditions=conditions, group_by=group_by, without=without, perturb=perturb or None,
            min_confidence=min_confidence, no_refine=None if refine else True,
        )  # fmt: skip
        results = benchmark_run.evaluate_benchmark(
            benchmark, root, task, split, distractors,
            retriever="embedded" if retriever == "auto" else retriever,
            reranker="none" if reranker == "auto" else reranker,
            top_k=top_k, fusion=options.fusion(base_weight, gate), strict=strict,
            limit=limit, every=every, out=out, save_run=save_run, lvlm=lvlm,
        )  # fmt: skip
        if results.rerank_failed:
            all_failed = results.rerank_failed == results.queries
            raise typer.Exit(terminal.ALL_FAILED if all_failed else terminal.SOME_FAILED)
        return
    if gallery is None or queries is None:
        raise OptionError(
            "what should be evaluated?",
            hint="--gallery G --queries CSV, or --benchmark NAME --root DIR, or --run R --qrels Q",
        )
    from skylink.evaluate import evaluate as run
    from skylink.files import write_atomic
    from skylink.gallery import Gallery
    from skylink.hypotheses import SearchSpace
    from skylink.localizer import Localizer
    from skylink.queries import check_against_map, missing_files, near_misses, require_files

    area = options.parse_prior(prior)
    plan = evaluate_conditions.Plan.parse(conditions, severities)
    rows = select_rows(queries, photos, every=every, limit=limit)
    for note in near_misses(rows):
        terminal.warn(note)
    missing = missing_files(rows)
    if len(missing) == len(rows):
        require_files(rows)
    for folder in (evidence, *(file.parent for file in (out, plot) if file is not None)):
        if folder is not None:
            terminal.require_writable(folder)
    opened = Gallery.open(gallery)
    outside = check_against_map(rows, _on_map(opened))
    if outside:
        terminal.warn(f"{outside} of {len(rows)} true places are outside the map")
    space = SearchSpace(
        heading_error_deg=heading_error, altitude_error=altitude_error, tilt_error_deg=tilt_error
    )
    terminal.say_what_loads(reranker)
    localizer = Localizer(
        opened,
        retriever=retriever,
        reranker=reranker,
        top_k=top_k,
        space=space,
        fusion=options.fusion(base_weight, gate),
        strict=strict,
        refine=refine,
        min_confidence=min_confidence,
        time_budget_s=time_budget,
        lvlm=lvlm,
    )
    terminal.say(
        f"Evaluating {len(rows)} photos of {queries} on {gallery} "
        f"({opened.area_km2:.2f} km2, {opened.tile_count:,} tiles)"
    )
    terminal.say(localizer.plan)
    pictures = None
    if evidence is not None:
        pictures = Pictures(evidence, opened, truths=true_places(rows))
    how: dict[str, Any] = {
        "tolerance_m": tolerance_m,
        "without": without.value if without is not None else None,
        "perturb": perturb,
        "seed": seed,
        "prior": area,
        "group_by": group_by,
    }
    with terminal.progress("photos") as report:
        evaluation = run(
            localizer,
            rows,
            **how,
            on_query=report,
            on_result=(lambda row, *found: pictures(*found)) if pictures else None,
        )
    terminal.print_table(summary_table(evaluation))
    if evaluation.results.groups:
        terminal.print_table(groups_table(evaluation, group_by or ""))
    for note, count in list(evaluation.results.rerank_notes.items())[:10]:
        terminal.warn(f"{count} photos not re-ranked: {note}")
    for file, error in list(evaluation.results.failures.items())[:20]:
        terminal.warn(f"failed: {file}: {error}")
    if out is not None:
        from skylink.report import write_gallery_details

        write_atomic(out, evaluation.to_json())
        write_gallery_details(out, evaluation, opened)
        terminal.say(f"Wrote {out}; see it by `skylink report {terminal.quoted(out)}`")
    if plot is not None:
        save_plot(plot, evaluation, title=f"{queries.name} on {gallery.name}")
        terminal.say(f"Wrote {plot}")
    failed = evaluation.results.failed
    every_one = failed == evaluation.results.queries
    if plan is not None and not every_one:
        evaluate_conditions.evaluate_plan(
            plan, localizer, rows, clean=evaluation.results, options=how,
            typed={"retriever": retriever, "reranker": reranker, "lvlm": lvlm},
            out=out, plot=plot, title=f"{queries.name} on {gallery.name}",
        )  # fmt: skip
    if pictures is not None:
        terminal.say(f"Evidence: {pictures.written} pictures in {evidence}")
        if pictures.problem is not None:
            raise pictures.problem
    else:
        terminal.say("Next: add `--evidence DIR` to see where and why photos are misplaced")
    if failed:
        raise typer.Exit(terminal.ALL_FAILED if every_one else terminal.SOME_FAILED)


def _refuse(what: str, **options: object) -> None:
    """Options that would be ignored are mistakes.

    Raises:
        OptionError: one was given.
    """
    from skylink.errors import OptionError

    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise OptionError(f"{', '.join(given)} can't be used with {what}", hint="leave it out")


def select_rows(
    queries: Path, photos: Path | None, *, every: int = 1, limit: int | None = None
) -> list[QueryRow]:
    """The usable rows to evaluate, their photos looked for in `photos` if given.

    Raises:
        QueriesError: the CSV can't be used, or has no usable row.
    """
    from skylink.errors import QueriesError
    from skylink.queries import read_queries

    rows = [row for row in read_queries(queries) if row.usable][::every][:limit]
    if not rows:
        raise QueriesError(
            f"{queries} has no usable row", hint="rows with usable = 0 are left out: set some to 1"
        )
    if photos is None:
        return rows
    moved = []
    for row in rows:
        name = row.file.replace("\\", "/")
        path = photos / name
        if not path.is_file() and (photos / Path(name).name).is_file():
            path = photos / Path(name).name
        moved.append(dataclasses.replace(row, path=path))
    return moved


def true_places(rows: Sequence[QueryRow]) -> dict[str, tuple[float, float]]:
    """The true view points as (lon, lat), by file, of the rows that have one."""
    return {
        row.file: (row.ground_lon, row.ground_lat)
        for row in rows
        if row.ground_lon is not None and row.ground_lat is not None
    }


def _on_map(gallery: Gallery) -> Any:
    """Whether a point lies within the bounds of one of the gallery's areas."""

    def contains(*, lon: float, lat: float) -> bool:
        for area in gallery.areas:
            x, y = area.frame.to_xy(lon=lon, lat=lat)
            x_min, y_min, x_max, y_max = area.bounds
            if x_min <= float(x) <= x_max and y_min <= float(y) <= y_max:
                return True
        return False

    return contains
