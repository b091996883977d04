"""`skylink models`: vision-language models, scoring modes and prompt templates, by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skylink.commands import terminal
from skylink.errors import OptionError

if TYPE_CHECKING:
    from skylink.lvlm.presets import Preset
    from skylink.prompt import Mode, Prompt, Template

MODE_USES: dict[Mode, str] = {
    "pointwise": "one candidate a prompt, yes or no: the cheapest; for rerankers and trained "
    "adapters, never for a model that nobody trained to re-rank",
    "listwise": "all candidates in one prompt: one pass for each order tried, averaged, since "
    "models prefer some places in a list; works without training",
    "pairwise": "two candidates a prompt, about K log K comparisons of two prompts each: the best "
    "evidence without training, and the dearest",
}
SPARE_GB = 3.0
"""For the runtime, prompts and key-value cache of some ten candidates: an estimate."""


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A model or a prompt template.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List vision-language models for `--reranker`, how they score, and what they are asked.

    With the NAME of a model: what it needs and the commands that run it. With that of a prompt
    template: the prompt in full.
    """
    from skylink.lvlm.presets import find
    from skylink.prompt import TEMPLATES

    if name is None:
        _list(as_json)
    elif name in TEMPLATES:
        _show_template(TEMPLATES[name], as_json)
    elif preset := find(name):
        _show_model(preset, as_json)
    else:
        raise _unknown(name)


def local_command(preset: Preset) -> str:
    """The command that scores with a model in this process."""
    return f"skylink locate PHOTO --gallery GALLERY --reranker lvlm:{preset.name}"


def serve_command(preset: Preset) -> str:
    """The command that serves a model with vLLM, for the preset's own scoring mode."""
    pictures = 2 if preset.mode == "pointwise" else 3
    words = [
        f"vllm serve {preset.checkpoint}",
        f"--limit-mm-per-prompt '{json.dumps({'image': pictures})}'",
        "--max-model-len 2048 --enable-prefix-caching",
    ]
    if preset.family in ("idefics3", "smolvlm"):  # or each picture becomes up to 17
        size = json.dumps({"size": {"longest_edge": preset.px}})
        words.append(f"--mm-processor-kwargs '{size}'")
    return " ".join(words)


def remote_command(preset: Preset) -> str:
    """The command that scores with a served model."""
    return (
        "skylink locate PHOTO --gallery GALLERY --reranker http://localhost:8000 "
        f"--lvlm-mode {preset.mode} --lvlm-template {preset.template}"
    )


def example(template: Template) -> Prompt:
    """A template's prompt, with made-up facts: a photo from 120 m, tiles of 160 m."""
    from skylink.prompt import Facts

    tile = Facts(north_up=True, width_m=160)
    photo = Facts(north_up=True, width_m=160, altitude_m=120)
    count = {"pointwise": 1, "pairwise": 2, "listwise": 3}[template.mode]
    return template.build(photo, [tile] * count)


def _unknown(name: str) -> OptionError:
    from difflib import get_close_matches

    from skylink.lvlm.presets import PRESETS
    from skylink.prompt import TEMPLATES

    near = get_close_matches(name.lower(), [*(p.name for p in PRESETS), *TEMPLATES], n=3)
    return OptionError(
        f"no model or prompt template is called {name!r}",
        hint=(f"did you mean {' or '.join(near)}? " if near else "")
        + "`skylink models` lists them; `--reranker lvlm:` also takes any hub id or folder",
    )


def _list(as_json: bool) -> None:
    from skylink.lvlm.presets import PRESETS
    from skylink.prompt import MODES, TEMPLATES

    if as_json:
        _emit_json(
            {
                "models": [_facts(preset) for preset in PRESETS],
                "modes": [{"name": mode, "use": MODE_USES[mode]} for mode in MODES],
                "templates": [
                    {"name": t.name, "mode": t.mode, "about": t.about} for t in TEMPLATES.values()
                ],
            }
        )
        return
    terminal.print_table(
        _table(
            ("model", "size", "download", "licence", "scores", "good for"),
            [
                (
                    preset.name,
                    f"{preset.parameters_b:.1f}B",
                    f"{preset.download_gb:.1f} GB",
                    preset.licence,
                    preset.mode,
                    preset.note,
                )
                for preset in PRESETS
            ],
        )
    )
    terminal.print_table(
        _table(("scoring mode", "good for"), [(mode, MODE_USES[mode]) for mode in MODES])
    )
    terminal.print_table(
        _table(
            ("prompt template", "scores", "what it says"),
            [(t.name, t.mode, t.about) for t in TEMPLATES.values()],
        )
    )
    terminal.say("None of these models' published weights was run to make this table.")
    terminal.say(f"Next: skylink models {PRESETS[0].name}")


def _show_model(preset: Preset, as_json: bool) -> None:
    if as_json:
        _emit_json(_facts(preset) | {"commands": _commands(preset)})
        return
    state = "re-rank" if preset.trained else "answer questions, not to re-rank"
    gpu = preset.weights_gb + SPARE_GB
    rows = [
        ("model", preset.name),
        ("checkpoint", preset.checkpoint),
        ("family", preset.family),
        ("parameters", f"{preset.parameters_b:g} billion"),
        ("download", f"{preset.download_gb:.1f} GB"),
        ("GPU memory", f"about {gpu:.0f} GB: {preset.weights_gb:.1f} of weights in 16 bits + room"),
        ("licence", preset.licence),
        ("trained to", state),
        ("scores", f"{preset.mode}, template {preset.template}"),
        ("pictures", f"{preset.px} x {preset.px} px give {preset.tokens} visual tokens"),
        ("good for", preset.note),
    ]
    terminal.print_table(_table(None, rows))
    commands = _commands(preset)
    terminal.emit(f"Here, on this machine's GPU:\n  {commands['local']}\n\n")
    terminal.emit(f"Behind vLLM:\n  {commands['serve']}\n  {commands['remote']}\n")
    terminal.say(f"Next: skylink models {preset.template}")


def _show_template(template: Template, as_json: bool) -> None:
    prompt = example(template)
    if as_json:
        _emit_json(
            {
                "name": template.name,
                "mode": template.mode,
                "about": template.about,
                "messages": prompt.messages(),
                "answers": list(prompt.answers),
            }
        )
        return
    terminal.say(f"{template.name} ({template.mode}): {template.about}")
    terminal.emit(f"{prompt}\n")


def _facts(preset: Preset) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(preset) | {"weights_gb": round(preset.weights_gb, 1)}


def _commands(preset: Preset) -> dict[str, str]:
    return {
        "local": local_command(preset),
        "serve": serve_command(preset),
        "remote": remote_command(preset),
    }


def _emit_json(value: Any) -> None:
    terminal.emit(json.dumps(value, indent=2) + "\n")


def _table(head: tuple[str, ...] | None, rows: Sequence[tuple[str, ...]]) -> Any:
    """Columns of plain text: the first one bold, only the last one wrapped."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_header=head is not None, pad_edge=False, padding=(0, 0))
    last = len(rows[0]) - 1
    for index in range(last + 1):
        title, style = head[index] if head else "", None if index else "bold"
        table.add_column(title, no_wrap=index < last, style=style, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
