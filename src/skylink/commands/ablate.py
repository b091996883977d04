"""`skylink ablate`: what each choice of a training is worth, from one file of choices."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from skylink.commands import terminal
from skylink.commands.training_options import require_packages
from skylink.errors import OptionError


def ablate(
    grid: Annotated[
        Path | None,
        typer.Argument(metavar="GRID", help="TOML file; see --print-grid.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Cells, table and figure; what is finished there is not run again.",
            show_default=False,
        ),
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            "--part",
            metavar="I/N",
            help="Run only every Nth cell from the Ith on: one such run for each GPU, all with "
            "the same --out.",
        ),
    ] = "1/1",
    report_only: Annotated[
        bool,
        typer.Option("--report-only", help="Run nothing; write the table of what is finished."),
    ] = False,
    print_grid: Annotated[
        bool, typer.Option("--print-grid", help="Print a GRID with every key explained, and end.")
    ] = False,
) -> None:
    """Train and compare re-rankers: models, losses, labels and fusion, with several seeds.

    A run that was interrupted goes on where it stopped when the same command is given again.
    """
    from skylink.ablation.grid import RELATIONAL, WITHOUT_LVLM
    from skylink.ablation.grid_file import example_text, read_grid

    if print_grid:
        terminal.emit(example_text())
        return
    if grid is None or out is None:
        raise OptionError(
            "no grid is given" if grid is None else "no folder is given for the results",
            hint="`skylink ablate --print-grid > grid.toml`, then "
            "`skylink ablate grid.toml --out ablation`",
        )
    share = _share(part)
    chosen = read_grid(grid)
    models = {model for rows in chosen.rows for model in rows.models}
    needed = ["torch"]
    if models & set(RELATIONAL):
        needed += ["onnx"]
    if models - set(WITHOUT_LVLM):
        needed += ["transformers", "peft"]
    require_packages(*needed)
    out = out.expanduser().absolute()
    terminal.require_writable(out)
    from skylink.ablation.report import FIGURE, JSON, MARKDOWN, unfinished, write_report
    from skylink.ablation.run import Ablation

    ablation = Ablation(chosen, out)
    terminal.say(
        f"{len(ablation.cells):,} cells, {len(ablation.results()):,} of them with a result; "
        f"{len(ablation.held):,} test lists; into {out}"
    )
    if not report_only:
        with terminal.progress("cells") as progress:
            ablation.run(progress, part=share)
    parts = write_report(ablation)
    failed, missing = unfinished(parts)
    for row in {row.arm: row for each in parts for row in each.rows}.values():
        if row.equals_hard:
            terminal.warn(f"{row.arm}: its labels are one-hot, so that it learns hard labels")
        for seed, cause in row.failed:
            terminal.warn(f"{row.arm}, seed {seed} failed: {cause}")
    if missing:
        terminal.warn(f"{missing:,} cells are not run yet")
    terminal.say(f"Wrote {', '.join(str(out / name) for name in (MARKDOWN, FIGURE, JSON))}")
    if failed:
        terminal.warn(f"{failed:,} cells failed: the same command tries them again")
        everything = failed == len(ablation.cells)
        raise typer.Exit(terminal.ALL_FAILED if everything else terminal.SOME_FAILED)


def _share(part: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", part)
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= count:
        raise OptionError(f"--part {part!r} is not I/N", hint="--part 1/8, ..., --part 8/8")
    return index, count
