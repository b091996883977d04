"""The `--lvlm-*` options, once, for every command that takes a vision-language re-ranker."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from skylink.commands import terminal
from skylink.lvlm.options import LvlmOptions

PANEL = "Vision-language model"


class Mode(StrEnum):
    """Scoring modes, as `skylink.prompt.MODES`."""

    pointwise = "pointwise"
    listwise = "listwise"
    pairwise = "pairwise"


def _flag(name: str, kind: Any, help: str, metavar: str | None = None) -> inspect.Parameter:
    """An optional `--lvlm-NAME`."""
    flag = f"--lvlm-{name.replace('_', '-')}"
    option = typer.Option(
        f"{flag}/--lvlm-no-{name}" if kind is bool else flag,
        help=help,
        metavar=metavar,
        show_default=False,
        rich_help_panel=PANEL,
    )
    return _parameter(f"lvlm_{name}", Annotated[kind | None, option], None)


def _switch(name: str, help: str) -> inspect.Parameter:
    """A flag that is off unless given."""
    option = typer.Option(f"--{name.replace('_', '-')}", help=help, rich_help_panel=PANEL)
    return _parameter(name, Annotated[bool, option], False)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


FLAGS = (
    _flag("mode", Mode, "How to score. [default: as the model was trained, else pairwise]"),
    _flag("template", str, "Prompt template; `skylink models` lists them.", "NAME"),
    _flag("adapter", Path, "Folder that training wrote: LoRA weights, value head.", "DIR"),
    _flag("facts", bool, "Tell the model what is known: north, widths, altitude. [default: yes]"),
    _flag("show", str, "How the photo is shown. [default: auto]", "auto|north-up|as-taken"),
    _flag("device", str, "[default: auto, a GPU if there is one]", "cpu|cuda|cuda:1"),
    _flag("dtype", str, "[default: auto, bfloat16 on a GPU]", "float32|bfloat16|float16"),
    _flag("tokens", int, "Budget of a picture. [default: 256]", "TOKENS"),
    _flag("orders", int, "Listwise: orders that are averaged. [default: 2]", "N"),
    _flag("max_comparisons", int, "Pairwise: at most so many a photo. [default: 60]", "N"),
    _flag("memory_gb", float, "For scoring, beside the weights. [default: half of the free]", "GB"),
    _flag("cache", Path, "Where tiles' features are kept. [default: user's cache]", "DIR"),
    _flag("cache_gb", float, "Its bound; 0 keeps none. [default: 10]", "GB"),
    _flag("served_as", str, "Its name on a server. [default: the only one there]", "NAME"),
    _flag("revision", str, "Of a checkpoint on the hub.", "COMMIT"),
)
SWITCHES = (
    _switch("show_prompt", "Print what the model is asked about each photo."),
    _switch("trust_remote_code", "Run Python code that comes with a checkpoint."),
)

Command = Callable[..., None]


def takes_lvlm(command: Command) -> Command:
    """The command with the `--lvlm-*` options, which it gets as one `lvlm: LvlmOptions`."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        chosen: dict[str, Any] = {"trust_remote_code": given.pop("trust_remote_code")}
        if given.pop("show_prompt"):
            chosen["on_prompt"] = terminal.say
        for flag in FLAGS:
            value = given.pop(flag.name)
            if value is not None:
                name = flag.name.removeprefix("lvlm_")
                chosen["visual_tokens" if name == "tokens" else name] = (
                    value.value if isinstance(value, Mode) else value
                )
        return command(**given, lvlm=LvlmOptions(**chosen))

    own = inspect.signature(command, eval_str=True)
    kept = [p for p in own.parameters.values() if p.name != "lvlm"]
    shown = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in kept]
    run.__signature__ = own.replace(parameters=[*shown, *FLAGS, *SWITCHES])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*shown, *FLAGS, *SWITCHES)}
    return run
