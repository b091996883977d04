"""`skylink train-retriever`: a benchmark's training split in, an encoder out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skylink.commands import terminal
from skylink.commands.train import silence
from skylink.commands.training_options import ConfigFile, Out, PrintConfig, Resume, choices

if TYPE_CHECKING:
    from skylink.training.loop import Outcome
    from skylink.training.retriever.trainer import RetrieverTrainer


def train_retriever(
    config: ConfigFile = None,
    out: Out = None,
    resume: Resume = True,
    print_config: PrintConfig = False,
) -> None:
    """Train an image encoder to find a photo's tile, on a benchmark or on mined lists.

    A run that was interrupted goes on where it stopped when the same command is given again. For
    several GPUs: `accelerate launch --num_processes N -m skylink train-retriever CONFIG`.
    """
    from skylink.training.config_file import default_text
    from skylink.training.retriever.config import RetrieverConfig

    if print_config:
        terminal.emit(default_text(RetrieverConfig))
        return
    chosen = choices(
        RetrieverConfig,
        config,
        out,
        packages=("torch",),
        example="skylink train-retriever --print-config > retriever.toml",
    )
    from skylink.training.processes import Processes
    from skylink.training.retriever.finish import finish
    from skylink.training.retriever.trainer import RetrieverTrainer

    processes = Processes(chosen.compute.device)
    say = terminal.say if processes.first else silence
    say(f"Reading {chosen.data.train or chosen.data.root} and loading {chosen.encoder} ...")
    trainer = RetrieverTrainer(chosen, resume=resume, processes=processes)
    if processes.first:
        _say_plan(trainer)
        with terminal.progress("steps") as report:
            outcome = trainer.run(report)
        _say_outcome(outcome)
        with terminal.progress("the untrained encoder") as report:
            about = finish(trainer, outcome, report)
        if about is not None and about["validation"]:
            before, after = (
                about["validation"][name]["recall@1"] for name in ("untrained", "trained")
            )
            say(f"Recall@1 of held-out photos: {100 * before:.1f} % -> {100 * after:.1f} %")
        _say_next(chosen.out)
    else:
        trainer.run()
    processes.end()


def _say_plan(trainer: RetrieverTrainer) -> None:
    config, examples, judged = trainer.config, trainer.examples, trainer.validation
    numbers = sum(p.numel() for p in trainer.network.parameters())
    terminal.say(f"Training {numbers:,} numbers of {config.encoder} on {trainer.encoder.device}")
    held = 0 if judged is None else len(judged)
    terminal.say(
        f"{examples.title}: {len(examples):,} photos, {len(examples.tiles):,} tiles, {held:,} "
        f"photos held back; {trainer.loop.steps:,} steps of {trainer.batches.size} photos, loss "
        f"{config.loss.name}; into {config.out}"
    )
    for note in examples.notes:
        terminal.say(note)
    if judged is None:
        terminal.warn("there is no validation: the last step is kept")
    count, chunks = trainer.processes.count, trainer.most_chunks
    if count > 1:
        terminal.say(f"{count} processes share the chunks of each step, {chunks} at the most")
    if chunks < count:
        terminal.warn(
            f"{count - chunks} of the processes have nothing to do in a step; lower "
            "compute.pictures_at_once"
        )
    if trainer.loop.done:
        terminal.say(f"Going on from step {trainer.loop.done:,}")


def _say_outcome(outcome: Outcome) -> None:
    words = f"Trained {outcome.steps:,} steps in {outcome.seconds:,.0f} s"
    if outcome.stopped_early:
        words += ", and stopped since validation got no better"
    if outcome.best is not None:
        words += f"; step {outcome.step:,} is the best"
    terminal.say(words)


def _say_next(out: Path) -> None:
    terminal.say(f"Wrote {out}; its README.md has the figures")
    terminal.say(
        "Next: skylink evaluate --benchmark NAME --root DIR --retriever "
        f"{terminal.quoted(f'trained:{out}')}"
    )
