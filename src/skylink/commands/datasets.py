"""`skylink datasets`: published benchmarks, what they are, and whether a copy is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skylink.commands import terminal


def datasets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Tell all of one.", show_default=False)
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="DIR", help="Look whether the copy in DIR is whole."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="With --check: decode every picture.")
    ] = False,
    miniature: Annotated[
        Path | None,
        typer.Option(
            "--miniature", metavar="DIR", help="Write a made-up copy of a few places into DIR."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of --miniature.")] = 0,
    vpr: Annotated[
        Path | None,
        typer.Option(
            "--vpr",
            metavar="DIR",
            help="Copy a protocol's pictures into DIR under names that carry their positions, as "
            "programs for place recognition read them; needs --root.",
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="DIR", help="With --vpr: the dataset.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="With --vpr. [default: its first]")
    ] = None,
) -> None:
    """List benchmark datasets, check a copy, or write a miniature to try commands on."""
    from rich.table import Table

    from skylink.datasets import REGISTRY, find_dataset
    from skylink.errors import OptionError

    if name is None:
        if check is not None or miniature is not None or vpr is not None:
            raise OptionError("which dataset?", hint="skylink datasets NAME --check DIR")
        table = Table("name", "dataset", "protocols")
        for dataset in REGISTRY.values():
            table.add_row(dataset.name, dataset.title, ", ".join(dataset.tasks()))
        terminal.print_table(table)
        terminal.say("Next: skylink datasets NAME for how to get it, its terms and its layout")
        return
    dataset = find_dataset(name)
    if miniature is not None:
        folder = dataset.write_miniature(miniature, seed=seed)
        terminal.say(f"Wrote a miniature of {dataset.title} to {folder}: for trying, not numbers")
        terminal.say(f"Next: skylink evaluate --benchmark {dataset.name} --root "
                     f"{terminal.quoted(folder)} --retriever embedded")  # fmt: skip
        return
    if vpr is not None:
        from skylink.commands.benchmark_run import open_task
        from skylink.vpr_export import export_vpr

        opened, _ = open_task(name, root, task, "test")
        with terminal.progress("pictures") as report_copied:
            export_vpr(opened, vpr, progress=report_copied)
        terminal.say(f"Wrote {len(opened.queries):,} queries and {len(opened.gallery):,} others")
        terminal.say(f"Next: give {terminal.quoted(vpr)} to a program that reads VPR datasets")
        return
    if check is None:
        sizes = "\n".join(f"  {what}: {count:,}" for what, count in dataset.sizes.items())
        terminal.emit(
            f"{dataset.title} ({dataset.name})\n\nProtocols: {', '.join(dataset.tasks())}\n"
            f"Published sizes:\n{sizes}\n\nHow to get it: {dataset.obtain}\n\n"
            f"Terms: {dataset.terms}\n\nLayout:\n{dataset.layout}\n\n{dataset.citation}\n"
        )
        return
    report = dataset.check(check, full=full)
    table = Table("what", "found", "published", title=f"{dataset.title} in {check}")
    for count in report.counts:
        expected = "-" if count.expected is None else f"{count.expected:,}"
        table.add_row(count.what, f"{count.found:,}", expected)
    terminal.print_table(table)
    if report.miniature:
        terminal.say("This is a generated miniature: its numbers mean nothing")
    for finding in report.findings:
        terminal.warn(f"{finding.what}: {finding.fix}")
    terminal.say(f"Decoded {report.decoded:,} of {report.pictures:,} pictures")
    if not report.ok:
        terminal.say(f"{len(report.problems)} problems")
        raise typer.Exit(terminal.FAILED)
    terminal.say("The copy is whole")
