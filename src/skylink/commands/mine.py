"""`skylink mine`: a base's candidates for queries whose place is known, as lists to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skylink.commands import benchmark_run, mine_sources, options, terminal

if TYPE_CHECKING:
    from skylink.mined import Header
    from skylink.soft_labels import SoftLabels

LABELS, HELD = "Labels", "Held-out queries and folds"


def mine(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.jsonl|FILE.parquet",
            help="The lists to write; the name's end says how.",
        ),
    ],
    benchmark: benchmark_run.BenchmarkName = None,
    root: benchmark_run.Root = None,
    task: benchmark_run.TaskName = None,
    split: Annotated[
        str,
        typer.Option("--split", metavar="train|test", help="Lists of `test` are never forced."),
    ] = "train",
    gallery: options.OptionalGalleryPath = None,
    queries: options.QueriesPath = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            "--photos",
            metavar="DIR",
            help="Where the photos are. [default: the CSV's folder]",
            show_default=False,
        ),
    ] = None,
    retriever: Annotated[
        list[str] | None,
        typer.Option(
            "--retriever",
            metavar="BASE",
            help="With --gallery: dense or descriptor. With --benchmark: an encoder, descriptors "
            "(.npz, .mat, QUERY.npy,GALLERY.npy) or a run; with --folds once for each fold. "
            "[default: auto; embedded]",
            show_default=False,
        ),
    ] = None,
    top_k: options.TopK = 10,
    prior_m: Annotated[
        float | None,
        typer.Option(
            "--prior-m",
            min=1,
            metavar="METRES",
            help="With --gallery: search each photo within so many metres of where it may be, a "
            "point drawn around its true place. [default: the whole map]",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool | None,
        typer.Option(
            "--force/--no-force",
            help="Add the ground truth where the base does not list it. [default: of `train` yes, "
            "of `test` never]",
            show_default=False,
        ),
    ] = None,
    replace_last: Annotated[
        bool,
        typer.Option("--replace-last", help="It replaces the last candidate: lists stay K long."),
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="overlap|cosine|distance|dataset",
            help="Where soft labels come from. [default: overlap on a map, else the dataset's own "
            "weights, else cosine]",
            show_default=False,
            rich_help_panel=LABELS,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="0..1",
            help="Labels below become 0; 0 keeps all, 1 is hard. [default: cosine 0.9, distance "
            "0.05, others 0]",
            show_default=False,
            rich_help_panel=LABELS,
        ),
    ] = None,
    label_quantile: Annotated[
        float | None,
        typer.Option(
            "--label-quantile",
            metavar="0..1",
            help="Choose the threshold so that this share of the other candidates is below it.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    scale_m: Annotated[
        float,
        typer.Option(
            "--scale-m",
            metavar="METRES",
            help="Distance of a label of 1/e.",
            rich_help_panel=LABELS,
        ),
    ] = 50.0,
    label_encoder: Annotated[
        str | None,
        typer.Option(
            "--label-encoder",
            metavar="ENCODER",
            help="Whose descriptors of satellite pictures cosines are of. [default: the base's]",
            show_default=False,
            rich_help_panel=LABELS,
        ),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            "--held-out",
            metavar="FRACTION",
            help="Hold back about this share of the queries, by place, for validation.",
            rich_help_panel=HELD,
        ),
    ] = None,
    validation_out: Annotated[
        Path | None,
        typer.Option(
            "--validation-out",
            metavar="FILE.jsonl|FILE.parquet",
            help="Their lists, nothing forced in.",
            rich_help_panel=HELD,
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            "--folds",
            min=1,
            metavar="N",
            help="List the queries of each of N parts by a base of its own, trained without them.",
            rich_help_panel=HELD,
        ),
    ] = 1,
    folds_out: Annotated[
        Path | None,
        typer.Option(
            "--folds-out",
            metavar="FILE.csv",
            help="Only write which query is in which fold, to train those bases.",
            rich_help_panel=HELD,
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="OTHER.jsonl",
            help="Lists whose queries must not be among these.",
            rich_help_panel=HELD,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of all that is drawn.")] = 0,
    every: options.Every = 1,
    limit: options.Limit = None,
) -> None:
    """Write a base's candidates, with the truth and soft labels, as lists to train re-rankers on.

    The queries are a benchmark's, or one's own photos whose true place is known.
    """
    from skylink.errors import OptionError
    from skylink.minedfile import MinedFile, leakage
    from skylink.mining.lists import Lists, check_forcing, require_source, write_lists
    from skylink.mining.split import hold_out
    from skylink.soft_labels import SoftLabels

    forcing = _forcing(split, force, replace_last)
    check_forcing(split, forcing)
    if (held_out is None) != (validation_out is None):
        raise OptionError(
            "--held-out and --validation-out go together",
            hint="--held-out 0.1 --validation-out validation.jsonl",
        )
    if held_out is not None and split == "test":
        raise OptionError(
            "validation lists are never of the test split", hint="--split train --held-out 0.1"
        )
    if threshold is not None and label_quantile is not None:
        raise OptionError(
            "--threshold and --label-quantile both say the threshold", hint="leave out one"
        )
    chosen: dict[str, Any] = {
        "threshold": threshold, "quantile": label_quantile, "scale_m": scale_m
    }  # fmt: skip
    SoftLabels(source=labels or "overlap", **chosen)  # type: ignore[arg-type]  # checked there
    for file in (out, validation_out, folds_out):
        if file is not None:
            terminal.require_writable(file.parent)
    written_to = [file.resolve() for file in (out, validation_out, folds_out) if file is not None]
    if len(set(written_to)) < len(written_to):
        raise OptionError(
            "two of --out, --validation-out and --folds-out are the same file",
            hint="--out train.jsonl --validation-out validation.jsonl",
        )
    others = [MinedFile(path) for path in against or ()]
    asked = mine_sources.Asked(
        retrievers=tuple(retriever or ()), top_k=top_k, split=split, seed=seed, every=every,
        limit=limit, label_encoder=label_encoder, folds=folds, folds_out=folds_out,
        prior_m=prior_m,
    )  # fmt: skip
    if (benchmark is None) == (gallery is None):
        raise OptionError(
            "what should be mined?" if gallery is None else "a benchmark or a gallery, not both",
            hint="--benchmark NAME --root DIR, or --gallery G --queries CSV",
        )
    if benchmark is not None:
        source = mine_sources.benchmark(benchmark, root, task, asked)
        folder = root
    else:
        assert gallery is not None
        source = mine_sources.gallery(gallery, queries, photos, asked)
        folder = photos or (queries.parent if queries else None)
    if source is None:
        return
    soft = SoftLabels(source=labels or source.default_source, **chosen)  # type: ignore[arg-type]
    require_source(source, soft.source)
    for other in others:
        leakage(source.queries, other.queries)
    wanted = [Lists(path=out, rows=range(len(source.queries)), forcing=forcing)]
    if held_out is not None and validation_out is not None:
        parts = hold_out(source.sites, held_out, seed=seed)
        mined, back = ((parts == part).nonzero()[0].tolist() for part in (0, 1))
        between = len(parts) - len(mined) - len(back)
        note = f", {between:,} that show ground of those are left out" if between else ""
        terminal.say(f"{len(mined):,} queries to mine, {len(back):,} held out by place{note}")
        wanted = [
            Lists(path=out, rows=mined, forcing=forcing),
            Lists(path=validation_out, rows=back, forcing="not-forced"),
        ]
    written: dict[Path, Header] = {}
    for lists in wanted:
        with terminal.progress("lists") as report:
            written[lists.path], soft = write_lists(source, lists, soft, report)
        for note in written[lists.path].notes:
            terminal.warn(f"{lists.path}: {note}")
    for reason, number in sorted(source.left_out.items(), key=lambda item: -item[1])[:10]:
        terminal.warn(f"{number:,} queries have no list: {reason}")
    terminal.print_table(summary_table(written))
    _say_next(written, gallery, folder)
    if source.failed:
        raise typer.Exit(terminal.SOME_FAILED)


def _forcing(split: str, force: bool | None, replace_last: bool) -> Any:
    from skylink.errors import OptionError

    if split not in ("train", "test"):
        raise OptionError(f"--split {split!r}", hint="it is train or test")
    if replace_last and force is False:
        raise OptionError("--replace-last forces the truth in, --no-force does not")
    if force is None and not replace_last:
        return "appended" if split == "train" else "not-forced"
    if force is False:
        return "not-forced"
    return "replaced-last" if replace_last else "appended"


def summary_table(written: dict[Path, Header]) -> Any:
    """What was mined, a column a file."""
    from rich.table import Table

    table = Table()
    table.add_column("")
    for path in written:
        table.add_column(path.name, justify="right")

    def row(words: str, values: list[str]) -> None:
        table.add_row(words, *values)

    found = [header.summary for header in written.values()]
    row("lists", [f"{s.lists:,}" for s in found])
    row("candidates", [f"{s.candidates:,}" for s in found])
    row("base R@1 %", [f"{s.base_r_at_1:.2f}" for s in found])
    row("ground truth forced in", [f"{s.forced:,}" for s in found])
    row("labels", [_labels_words(h.provenance.labels) for h in written.values()])
    row("lists with a soft positive %", [f"{100 * s.labels.soft_share:.1f}" for s in found])
    row("one-hot lists %", [f"{100 * s.labels.one_hot_share:.1f}" for s in found])
    row("entropy, of its maximum", [f"{s.labels.relative_entropy:.3f}" for s in found])
    row(
        "others' labels: 0, then by tenths", [" ".join(map(str, s.labels.histogram)) for s in found]
    )
    return table


def _labels_words(labels: SoftLabels) -> str:
    return f"{labels.source} >= {labels.threshold:.4g}" if labels.threshold else labels.source


def _say_next(written: dict[Path, Header], gallery: Path | None, folder: Path | None) -> None:
    train, *validation = written
    for path in written:
        terminal.say(f"Wrote {path}")
    if written[train].provenance.split == "test":
        terminal.say("These lists are for judging: `skylink train` refuses them")
        return
    keys: dict[str, list[Path | None]] = {
        "train": [train], "validation": [*validation], "folder": [folder], "gallery": [gallery]
    }  # fmt: skip
    words = ", ".join(
        f"data.{key} = {', '.join(terminal.quoted(path) for path in paths if path)}"
        for key, paths in keys.items()
        if any(paths)
    )
    terminal.say(
        f"Next: skylink train --print-config > train.toml, set {words}, then "
        "skylink train train.toml"
    )
