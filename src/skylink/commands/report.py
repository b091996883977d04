"""`skylink report`: one page about one or more evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skylink.commands import terminal


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS.json...",
            help="What `evaluate --out` wrote; files beside it are found.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.html", help="The page.")] = Path(
        "report.html"
    ),
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="Its heading.")] = (
        "Evaluation"
    ),
    pictures: Annotated[
        int,
        typer.Option(
            "--pictures", min=0, metavar="N", help="Show N queries of each kind; 0 shows none."
        ),
    ] = 12,
) -> None:
    """Write one HTML page: tables, curves, and pictures of what was fixed and broken.

    It needs no network and no other file. Several results are compared.
    """
    from skylink.report import write_report

    path = write_report(results, out, title=title, pictures=pictures)
    terminal.say(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")
