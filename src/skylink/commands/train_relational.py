"""`skylink train-relational`: features or mined lists in, a relational re-ranker out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skylink.commands import terminal
from skylink.commands.training_options import ConfigFile, Out, PrintConfig, Resume, choices


def train_relational(
    config: ConfigFile = None,
    out: Out = None,
    resume: Resume = True,
    print_config: PrintConfig = False,
    print_recipe: Annotated[
        bool,
        typer.Option("--print-recipe", help="Print SkyLink's own CONFIG, and end."),
    ] = False,
) -> None:
    """Train a relational re-ranker on features of maps and views, or on mined lists.

    On two cores it takes minutes on mined lists, up to two hours from a bank, without a GPU. A run
    that was interrupted goes on where it stopped when the same command is given again.
    """
    from skylink.embedded.relational_recipe import RelationalRecipe, example_text
    from skylink.training.config_file import default_text

    if print_config or print_recipe:
        terminal.emit(default_text(RelationalRecipe) if print_config else example_text())
        return
    chosen = choices(
        RelationalRecipe,
        config,
        out,
        packages=("torch", "onnx"),
        example="skylink train-relational --print-recipe > relational.toml",
        several=False,
    )
    from skylink.embedded.head import number_of
    from skylink.embedded.relational_finish import finish
    from skylink.embedded.relational_training import RelationalTraining

    training = RelationalTraining.of(chosen, resume=resume)
    terminal.say(
        f"Training {number_of(training.learner.model):,} numbers ({chosen.model.kind}), "
        f"{training.lists.steps:,} steps on {training.lists.words}, loss {chosen.loss.name}; "
        f"into {chosen.out}"
    )
    if not training.lists.judges:
        terminal.warn("there is no validation: the last step is kept")
    if training.loop.done:
        terminal.say(f"Going on from step {training.loop.done:,}")
    with terminal.progress("steps") as report:
        outcome = training.run(report)
    about = finish(training, outcome)
    terminal.say(_became(about))
    terminal.say(f"Wrote {chosen.out}; its README.md has the figures")
    spec = terminal.quoted(f"relational:{chosen.out}")
    terminal.say(
        "Next: skylink evaluate --gallery GALLERY --queries CSV --out results.json "
        f"--retriever descriptor --reranker {spec}"
    )


def _became(about: dict[str, Any]) -> str:
    words = f"Trained {about['steps']:,} steps in {about['seconds']:,.0f} s"
    found = about["held_out"]
    if found:
        words += (
            f"; step {about['best_step']:,} is the best: recall@1 "
            f"{100 * found['base recall@1']:.1f} % -> {100 * found['recall@1']:.1f} %"
        )
    return words
