"""`skylink train`: mined candidate lists in, a re-ranker out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skylink.commands import terminal
from skylink.commands.training_options import ConfigFile, Out, PrintConfig, Resume, choices

if TYPE_CHECKING:
    from skylink.lvlm.adapter import AdapterInfo
    from skylink.training.loop import Outcome
    from skylink.training.trainer import Trainer


def train(
    config: ConfigFile = None,
    out: Out = None,
    resume: Resume = True,
    print_config: PrintConfig = False,
) -> None:
    """Train a vision-language re-ranker on candidate lists.

    A run that was interrupted goes on where it stopped when the same command is given again. For
    several GPUs: `accelerate launch --num_processes N -m skylink train CONFIG`.
    """
    from skylink.training.config import TrainConfig
    from skylink.training.config_file import default_text

    if print_config:
        terminal.emit(default_text(TrainConfig))
        return
    chosen = choices(
        TrainConfig,
        config,
        out,
        packages=("torch", "transformers", "peft"),
        example="skylink train --print-config > train.toml",
    )
    from skylink.training.finish import finish
    from skylink.training.processes import Processes
    from skylink.training.trainer import Trainer

    processes = Processes(chosen.compute.device)
    say = terminal.say if processes.first else silence
    say(f"Reading {chosen.data.train} and loading {chosen.checkpoint} ...")
    trainer = Trainer(chosen, resume=resume, processes=processes)
    _say_plan(trainer)
    if processes.first:
        with terminal.progress("steps") as report:
            outcome = trainer.run(report)
    else:
        outcome = trainer.run()
    say(_what_became(outcome))
    if len(trainer.validation):
        say("Fitting fusion and confidence on the validation lists ...")
    info = finish(trainer, outcome)
    if info is not None:
        _say_end(chosen.out, info)
    processes.end()


def silence(words: str = "") -> None:
    """Of several processes one speaks."""


def _say_plan(trainer: Trainer) -> None:
    if not trainer.processes.first:
        return
    from skylink.training.finish import trainable
    from skylink.training.notes import notes_on

    config, student = trainer.config, trainer.student
    what = "a value head on the frozen model"
    if not student.frozen:
        targets = ", ".join(config.tune.targets)
        what = f"LoRA of rank {config.tune.r} on {targets}, and a value head"
    terminal.say(
        f"Training {trainable(trainer):,} numbers ({what}) of {student.backbone.name} on "
        f"{student.backbone.device}, {student.precision}"
    )
    terminal.say(
        f"{len(trainer.lists):,} lists of {config.data.list_size}, {trainer.steps:,} steps of "
        f"{config.optimizer.lists_per_step} lists, loss {trainer.loss.name}; "
        f"{len(trainer.validation):,} validation lists; into {config.out}"
    )
    if trainer.processes.count > 1:
        terminal.say(f"{trainer.processes.count} processes share the lists of each step")
    for note in notes_on(trainer):
        terminal.warn(note)
    if trainer.done:
        terminal.say(f"Going on from step {trainer.done:,}")


def _what_became(outcome: Outcome) -> str:
    words = f"Trained {outcome.steps:,} steps in {outcome.seconds:,.0f} s"
    if outcome.stopped_early:
        words += ", and stopped since validation got no better"
    if outcome.best is not None:
        words += (
            f"; step {outcome.step:,} is the best: recall@1 "
            f"{100 * outcome.best['base recall@1']:.1f} % -> {100 * outcome.best['recall@1']:.1f} %"
        )
    return words


def _say_end(out: Path, info: AdapterInfo) -> None:
    found = info.about["validation"]
    if found:
        gate = "" if info.gate_margin is None else f", gate {info.gate_margin:.3g}"
        terminal.say(
            f"Fused with the base (weight {info.base_weight:g}{gate}): recall@1 "
            f"{100 * found['fused']['recall@1']:.1f} % on the validation lists, the base alone "
            f"{100 * found['base']['recall@1']:.1f} %"
        )
    terminal.say(f"Wrote {out}; its README.md has the figures")
    terminal.say(
        "Next: skylink evaluate --gallery GALLERY --queries CSV --out results.json "
        f"--reranker lvlm:{terminal.quoted(info.checkpoint)} --lvlm-adapter {terminal.quoted(out)}"
    )
