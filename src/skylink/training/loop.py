"""The loop of every training here: steps, checkpoints, validations, log.

What is trained is a `Learner`. The loop sums the gradients of a step's parts over processes, clips
and applies them, keeps checkpoints and the best weights, and stops where something isn't finite. A
run that was killed goes on from its last checkpoint to the same losses, bit for bit in one process
on a CPU, since a learner's `batch` is a function of the step alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from skylink.errors import ModelError, OptionError
from skylink.memory import out_of_memory
from skylink.training import state
from skylink.training.config import RunConfig, Schedule
from skylink.training.journal import Journal
from skylink.training.processes import Processes
from skylink.training.state import Best, Saved, Weights

Progress = Callable[[int, int, str], None]
FOLDER = "training"
"""Checkpoints and logs, within the folder that the finished model is written to."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A share of a step's work, done by one process.

    Attributes:
        names: of what is learnt from, for messages.
        backward: adds this share's gradient of the step's loss; returns its loss, of which the
            step's is the mean over parts; NaN where it can't be computed.
    """

    names: tuple[str, ...]
    backward: Callable[[], float]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Parameters with a learning rate of their own.

    Attributes:
        name: the rate is logged as `lr_NAME`; groups may share it.
        parameters: never empty, in a stable order.
        lr: at its highest.
        weight_decay: decoupled.
    """

    name: str
    parameters: Sequence[torch.nn.Parameter]
    lr: float
    weight_decay: float = 0.0


class Learner(Protocol):
    """What is trained.

    Attributes:
        unit: what the names of parts are, in the log and in messages, such as `lists`.
        if_not_finite, if_out_of_memory: hints for a user.
    """

    @property
    def unit(self) -> str: ...
    @property
    def if_not_finite(self) -> str: ...
    @property
    def if_out_of_memory(self) -> str: ...

    def groups(self) -> Sequence[Group]:
        """All that is trained; asked for once."""
        ...

    def weights(self) -> Weights:
        """Copies of all that changes in training, on the CPU: see `state.weights_of`."""
        ...

    def set_weights(self, weights: Weights) -> None:
        """Put back what `weights` gave. Raises ModelError where they don't fit."""
        ...

    def batch(self, step: int) -> Sequence[Part]:
        """What step `step`, from 0, learns from: a function of the seed and the step alone.

        Alike in all processes, which share the parts. Empty: the step changes nothing.
        """
        ...

    def validate(self) -> dict[str, float]:
        """Figures by name, the one that matters first; alike in all processes. Empty: none."""
        ...

    def better(self, new: dict[str, float], old: dict[str, float]) -> bool:
        """Whether a validation's figures are better than another's."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to.

    Attributes:
        step: of the weights that the learner holds now: the best validation's, or the last.
        steps: steps done.
        best: figures of that validation; None where there was none.
        stopped_early: validations did not get better for `validation.patience` times.
        seconds: spent in steps, by all runs together.
    """

    step: int
    steps: int
    best: dict[str, float] | None
    stopped_early: bool
    seconds: float


def last_checkpoint(
    config: RunConfig, inputs: Sequence[str], *, resume: bool = True
) -> Saved | None:
    """The run to go on with, if there is one; to be asked before models are loaded.

    Args:
        config: all choices.
        inputs: hashes of what is learnt from.
        resume: False: begin anew.

    Raises:
        OptionError: the last checkpoint is of other choices or other data.
        ModelError: it can't be read.
    """
    found = state.checkpoints(config.out / FOLDER) if resume else []
    if not found:
        return None
    saved = state.load(found[-1])
    differing = config.differences(saved.config)
    if saved.lists != list(inputs):
        differing.append(f"the {config.inputs} themselves")
    if differing:
        raise OptionError(
            f"{found[-1]} is of a training with other choices: {', '.join(differing)}",
            hint="set them back to go on, or begin anew with --fresh",
        )
    return saved


class Loop:
    """One training, new or continued, by AdamW with warm-up and cosine decay.

    Args:
        learner: what is trained.
        config: how; the loop reads `out`, `optimizer`, `validation` and `checkpoints`.
        steps: of the whole run.
        inputs: hashes of what is learnt from, as given to `last_checkpoint`.
        saved: what that found.
        processes: this process among all.

    Attributes:
        done: steps that are done.
        best: the best validation so far.
        folder: of checkpoints and log.
        optimizer: its state is that after `done` steps.

    Raises:
        ModelError: the checkpoint's weights don't fit the learner.
    """

    def __init__(
        self,
        learner: Learner,
        config: RunConfig,
        *,
        steps: int,
        inputs: Sequence[str] = (),
        saved: Saved | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.learner, self.config, self.steps = learner, config, steps
        self.folder = config.out / FOLDER
        self.processes = processes or Processes("cpu")
        self.done, self.best = 0, None if saved is None else saved.best
        self._inputs, self._groups = list(inputs), list(learner.groups())
        self._parameters = [p for group in self._groups for p in group.parameters]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(g.parameters), "lr": g.lr, "weight_decay": g.weight_decay}
                for g in self._groups
            ],
            foreach=False,
        )
        self._waited, self._seconds = 0, 0.0
        if saved is not None:
            learner.set_weights(saved.weights)
            self.optimizer.load_state_dict(saved.optimizer)
            self.done, self._waited, self._seconds = saved.step, saved.waited, saved.seconds

    def run(self, progress: Progress = lambda *_: None) -> Outcome:
        """Train to the end; the learner then holds the best weights.

        Args:
            progress: called after each step with (done, total, words).

        Raises:
            ModelError: loss or gradient is not finite, what was learnt from is named, and the last
                checkpoint is as it was; or memory ran out.
            OutputError: the disk is full, or not to be written to; the last checkpoint is whole.
        """
        journal = None
        if self.processes.first:
            if self.done == 0:
                state.remove_all(self.folder)
            journal = Journal(self.folder, after=self.done)
        every = self.config.validation.every or max(1, math.ceil(self.steps / 4))
        stopped = self._hopeless()
        while self.done < self.steps and not stopped:
            start = time.monotonic()
            try:
                entry = self._step()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                raise ModelError(
                    f"not enough memory for a step of this many {self.learner.unit}",
                    hint=self.learner.if_out_of_memory,
                ) from error
            self.done += 1
            self._seconds += time.monotonic() - start
            words = "" if entry["loss"] is None else f"loss {entry['loss']:.4f}"
            last = self.done == self.steps
            if last or self.done % every == 0:
                found = self._validate()
                stopped = self._hopeless()
                words += "".join(f", {k} {v:.3f}" for k, v in list(found.items())[:1])
                entry |= found
            if journal is not None:
                journal.add(self.done, **entry, seconds=round(self._seconds, 3))
                if last or stopped or self.done % self.config.checkpoints.every == 0:
                    self.save()
            progress(self.done, self.steps, words)
        if journal is not None:
            journal.close()
        self.processes.wait()
        if self.best is not None:
            self.learner.set_weights(self.best.weights)
        return Outcome(
            step=self.done if self.best is None else self.best.step,
            steps=self.done,
            best=None if self.best is None else self.best.figures,
            stopped_early=stopped and self.done < self.steps,
            seconds=self._seconds,
        )

    def save(self) -> Path:
        """Write a checkpoint of the run as it is. Raises OutputError, the last one intact."""
        saved = Saved(
            step=self.done,
            config=self.config.json_dict(),
            lists=self._inputs,
            weights=self.learner.weights(),
            optimizer=self.optimizer.state_dict(),
            best=self.best,
            waited=self._waited,
            seconds=self._seconds,
        )
        return state.save(self.folder, saved, keep=self.config.checkpoints.keep)

    def _step(self) -> dict[str, Any]:
        """One step: gradients of its parts summed, clipped, applied; what is logged of it."""
        rates = self.config.optimizer
        factor = rate_factor(rates, self.done, self.steps)
        for group, known in zip(self.optimizer.param_groups, self._groups, strict=True):
            group["lr"] = known.lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.learner.batch(self.done)
        losses = [(part.names, part.backward()) for part in self.processes.share(parts)]
        losses = self.processes.gather(losses)
        if broken := [names for names, value in losses if not math.isfinite(value)]:
            self._give_up("the loss", broken)
        self.processes.sum_gradients(self._parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, rates.clip))
        if not math.isfinite(norm):
            self._give_up("the gradient", [names for names, _ in losses])
        if parts:
            self.optimizer.step()
        return {
            "loss": sum(value for _, value in losses) / len(losses) if losses else None,
            "grad_norm": norm,
            **{f"lr_{group.name}": group.lr * factor for group in self._groups},
            self.learner.unit: sum(len(part.names) for part in parts),
        }

    def _give_up(self, what: str, names: Sequence[Sequence[str]]) -> None:
        listed = ", ".join(repr(name) for some in names for name in some)
        found = state.checkpoints(self.folder)
        kept = f"{found[-1]} is the last good checkpoint" if found else "there is no checkpoint yet"
        raise ModelError(
            f"{what} of step {self.done + 1} is not finite, on the {self.learner.unit} of "
            f"{listed}; {kept}",
            hint=f"{self.learner.if_not_finite}; then train again with --fresh",
        )

    def _validate(self) -> dict[str, float]:
        found = self.learner.validate()
        if not found:
            return found
        if self.best is None or self.learner.better(found, self.best.figures):
            self.best = Best(step=self.done, figures=found, weights=self.learner.weights())
            self._waited = 0
        else:
            self._waited += 1
        return found

    def _hopeless(self) -> bool:
        patience = self.config.validation.patience
        return patience is not None and self._waited >= patience


def rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """What learning rates are multiplied by: linear warm-up, then a cosine to `final_lr`.

    Args:
        schedule: of the configuration.
        step: from 0.
        steps: of the whole run.
    """
    warm = math.ceil(schedule.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    along = (step - warm) / max(1, steps - warm)
    return schedule.final_lr + (1 - schedule.final_lr) * (1 + math.cos(math.pi * along)) / 2
