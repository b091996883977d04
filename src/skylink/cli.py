"""The command line. Every command is in `commands/`; here they meet the errors and exit codes.

`skylink --help` must answer at once: nothing that takes time is imported before a command runs.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from skylink import __version__
from skylink.commands import (
    ablate,
    build,
    datasets,
    demo,
    evaluate,
    info,
    locate,
    mine,
    models,
    report,
    rerank,
    terminal,
    train,
    train_encoder,
    train_relational,
    train_retriever,
)
from skylink.errors import SkyLinkError

EPILOG = (
    "Exit codes: 0 done; 1 nothing could be done (bad input or option, gallery, output); "
    "2 wrong usage; 3 some photos failed, others are located; 4 all photos failed; "
    "70 a bug in SkyLink; 130 interrupted. docs/cli.md says more."
)


class _Commands(TyperGroup):
    """Turns exceptions of any command into a line, a hint and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SkyLinkError as error:
            terminal.fail(error)
            if os.environ.get("SKYLINK_DEBUG"):
                logging.getLogger(__name__).debug("raised here", exc_info=error)
            raise typer.Exit(terminal.FAILED) from error
        except KeyboardInterrupt as error:
            terminal.say("interrupted")
            raise typer.Exit(terminal.INTERRUPTED) from error
        except MemoryError as error:
            terminal.fail(
                SkyLinkError(
                    "not enough memory",
                    hint="search a part of the map with --prior, or build with larger --tile-m",
                )
            )
            raise typer.Exit(terminal.FAILED) from error
        except BrokenPipeError:
            raise  # typer ends quietly: whoever read our output has had enough
        except Exception as error:
            if _is_typers_own(error):
                raise
            terminal.internal_error(error)
            raise typer.Exit(terminal.INTERNAL) from error


def _is_typers_own(error: Exception) -> bool:
    """Usage errors, `Exit` and `Abort`, wherever this version of typer keeps its click."""
    return any(cls.__module__.split(".")[0] in ("typer", "click") for cls in type(error).__mro__)


app = typer.Typer(
    name="skylink",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"skylink {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print tracebacks and what the library logs.")
    ] = False,
) -> None:
    """Find where a drone photo was taken, by matching it with satellite imagery.

    First `skylink build map.tif --out gallery`, then `skylink locate photo.jpg --gallery gallery`.
    `skylink demo` shows it all on a made-up town.
    """
    if debug:
        os.environ["SKYLINK_DEBUG"] = "1"
        logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
        logging.getLogger("skylink").setLevel(logging.DEBUG)


app.command("build", epilog=EPILOG)(build.build)
app.command("locate", epilog=EPILOG)(locate.locate)
app.command("evaluate", epilog=EPILOG)(evaluate.evaluate)
app.command("rerank", epilog=EPILOG)(rerank.rerank)
app.command("report", epilog=EPILOG)(report.report)
app.command("mine", epilog=EPILOG)(mine.mine)
app.command("datasets", epilog=EPILOG)(datasets.datasets)
app.command("info", epilog=EPILOG)(info.info)
app.command("models", epilog=EPILOG)(models.models)
app.command("train", epilog=EPILOG)(train.train)
app.command("train-encoder", epilog=EPILOG)(train_encoder.train_encoder)
app.command("train-relational", epilog=EPILOG)(train_relational.train_relational)
app.command("train-retriever", epilog=EPILOG)(train_retriever.train_retriever)
app.command("ablate", epilog=EPILOG)(ablate.ablate)
app.command("demo", epilog=EPILOG)(demo.demo)


def main() -> None:
    """The entry point of `skylink` and `python -m skylink`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name must never break the output
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
