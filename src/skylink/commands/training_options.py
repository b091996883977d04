"""What the commands that train have in common: a file of choices, where to write, going on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from skylink.commands import terminal
from skylink.errors import OptionError, pip_hint

if TYPE_CHECKING:
    from skylink.training.config import RunConfig

    Kind = TypeVar("Kind", bound=RunConfig)

ConfigFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG", help="TOML or YAML file; see --print-config.", show_default=False
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Write here, whatever CONFIG says.", show_default=False
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--fresh",
        help="Go on with what is in the folder, if there is something, or begin anew.",
    ),
]
PrintConfig = Annotated[
    bool,
    typer.Option("--print-config", help="Print a CONFIG with every key explained, and end."),
]


def require_packages(*names: str) -> None:
    """Say it before anything is read or computed.

    Raises:
        OptionError: one is not installed.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise OptionError(
            f"training needs packages that are not installed: {', '.join(missing)}",
            hint=pip_hint("train"),
        )


def choices(
    kind: type[Kind],
    config: Path | None,
    out: Path | None,
    *,
    packages: Sequence[str],
    example: str,
    several: bool = True,
) -> Kind:
    """What was chosen, in a folder that can be written to.

    Args:
        kind: of the file.
        config, out: as given on the command line.
        packages: that the training needs.
        example: a command that writes a file to edit.
        several: the training can share its steps among processes.

    Raises:
        OptionError: a package is not installed; there is no file, or it can't be used; or there are
            several processes, and the training runs in one.
        OutputError: the folder can't be written to.
    """
    from skylink.training.config_file import read_config

    require_packages(*packages)
    if not several and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionError(
            "this training runs in one process, and several were started",
            hint="start it without torchrun or accelerate",
        )
    if config is None:
        raise OptionError("no configuration is given", hint=f"`{example}` writes one to edit")
    chosen = read_config(config, kind)
    if out is not None:
        chosen = chosen.model_copy(update={"out": out.expanduser().absolute()})
    terminal.require_writable(chosen.out)
    return chosen
