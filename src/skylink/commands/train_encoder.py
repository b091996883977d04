"""`skylink train-encoder`: satellite images and drone photos in, an embedded encoder out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skylink.commands import terminal
from skylink.commands.training_options import ConfigFile, Out, PrintConfig, Resume, choices

if TYPE_CHECKING:
    from skylink.embedded.training import Trained


def train_encoder(
    config: ConfigFile = None,
    out: Out = None,
    resume: Resume = True,
    print_config: PrintConfig = False,
) -> None:
    """Train the embedded encoder on satellite images and overlapping drone photos.

    On two cores it takes less than two hours, without a GPU. A run that was interrupted goes on
    where it stopped when the same command is given again.
    """
    from skylink.embedded.recipe import EncoderRecipe
    from skylink.training.config_file import default_text

    if print_config:
        terminal.emit(default_text(EncoderRecipe))
        return
    chosen = choices(
        EncoderRecipe,
        config,
        out,
        packages=("torch", "onnx"),
        example="skylink train-encoder --print-config > encoder.toml",
        several=False,
    )
    from skylink.embedded.finish import finish
    from skylink.embedded.training import EncoderTraining

    training = EncoderTraining(chosen, resume=resume)
    terminal.say(
        f"{len(training.maps):,} satellite images to learn from, {len(training.held_maps):,} held "
        f"out; {len(training.sites):,} folders of drone photos; into {chosen.out}"
    )
    with terminal.progress("samples") as report:
        bank, held = training.build(report)
    terminal.say(
        f"Features of {len(bank):,} maps with {bank.views} views each"
        + ("" if held is None else f", and of {len(held):,} for validation")
    )
    if held is None:
        terminal.warn("there is no validation: the last step is kept")
    done: dict[str, Trained | None] = {"dense": None, "descriptor": None}
    for name, train in (
        ("dense", training.train_dense),
        ("descriptor", training.train_descriptor),
    ):
        if name in chosen.parts:
            with terminal.progress(f"steps of the {name}") as report:
                done[name] = train(report)
    about = finish(training, done["dense"], done["descriptor"])
    for name, part in about["parts"].items():
        terminal.say(_became(name, part))
        if _worse(part):
            terminal.warn(f"the {name} is no better than before on the held-out maps")
    spec = terminal.quoted(f"embedded:{chosen.out}")
    terminal.say(f"Wrote {chosen.out}; its README.md has the figures")
    terminal.say(f"Next: skylink build map.tif --out GALLERY --encoder {spec}")


def _became(name: str, part: dict[str, Any]) -> str:
    words = f"The {name}: {part['steps']:,} steps in {part['seconds']:,.0f} s"
    if part["trained"]:
        key = next(iter(part["trained"]))
        before = part["untrained"].get(key)
        told = "" if before is None else f"{100 * before:.1f} % -> "
        words += f"; held-out {key} {told}{100 * part['trained'][key]:.1f} %"
    return words


def _worse(part: dict[str, Any]) -> bool:
    """By the first figure, where there are any."""
    key = next(iter(part["trained"]), "")
    return key in part["untrained"] and part["trained"][key] <= part["untrained"][key]
