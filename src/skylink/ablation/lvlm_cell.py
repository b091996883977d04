"""Cells with a vision-language model, trained or not."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from skylink.ablation.cell import Lists, Ready, Scores, Work
from skylink.ablation.grid import HARD, Cell
from skylink.ablation.pictures import ShuffledShow, list_show
from skylink.ablation.result import Stability, Trained
from skylink.label_statistics import LabelStatistics
from skylink.training.data import Pick
from skylink.training.finish import finish
from skylink.training.loop import Outcome
from skylink.training.pictures import Prompter
from skylink.training.scoring import ListScorer
from skylink.training.trainer import Trainer


def make_lvlm(work: Work) -> Ready:
    """Train what is to be trained, going on from its last checkpoint; see `cell.Maker`.

    The folder of `config.out` becomes a finished one that re-rankers load, save for what is not
    trained and for the control, which nobody should use.

    Raises:
        SkyLinkError: see `Trainer` and `finish`.
    """
    cell = work.cell
    trainer = Trainer(work.config)
    if not cell.arm.trained:
        return _Lvlm(trainer)
    shuffled = cell.arm.model == "shuffled-tiles"
    if shuffled:
        _shuffle(trainer)
    outcome = trainer.run(lambda step, steps, words: work.say(f"step {step} of {steps}: {words}"))
    if not shuffled:
        finish(trainer, outcome)
    return _Lvlm(trainer, trained_of(cell, trainer.lists.statistics, trainer.folder, outcome))


@dataclass(frozen=True, slots=True)
class _Lvlm:
    trainer: Trainer
    trained: Trained | None = None
    listwise = False

    def scores(self, lists: Lists) -> list[Scores]:
        """See `Ready.scores`."""
        student, config = self.trainer.student, self.trainer.config
        prompter = Prompter(
            student.backbone,
            student.template,
            list_show(
                lists.folder, lists.gallery, needed=lists.needs_gallery, way=config.asking.show,
                size_px=student.backbone.picture_px,
            ),
            facts=config.asking.facts,
            cache=self.trainer.prompter.cache,
        )  # fmt: skip
        scorer = ListScorer(student, prompter, group=config.data.list_size)
        with torch.no_grad():
            return [self._list(pick, scorer) for pick in lists.picks]

    def _list(self, pick: Pick, scorer: ListScorer) -> Scores:
        """So many candidates at a time as a training step sees: longer lists need not fit."""
        size = scorer.group
        parts = [pick.rows[at : at + size] for at in range(0, len(pick.rows), size)]
        found = [scorer.scores(replace(pick, rows=rows)).double().cpu() for rows in parts]
        return np.asarray(torch.cat(found).numpy(), np.float64)


def trained_of(cell: Cell, labels: LabelStatistics, folder: Path, outcome: Outcome) -> Trained:
    """What is known of a training whose `log.jsonl` is in a folder."""
    hard = cell.arm.loss == HARD
    return Trained(
        steps=outcome.steps,
        best_step=outcome.step,
        seconds=outcome.seconds,
        labels=None if hard else labels,
        equals_hard=labels.collapsed and not hard,
        stability=stability_of(folder / "log.jsonl"),
    )


def stability_of(log: Path) -> Stability | None:
    """From a training's log; None without two losses in its last half."""
    with log.open(encoding="utf-8") as file:
        entries = [json.loads(line) for line in file]
    losses = [e["loss"] for e in entries[len(entries) // 2 :] if e["loss"] is not None]
    norms = [e["grad_norm"] for e in entries]
    if len(losses) < 2:
        return None
    return Stability(
        loss_variance=float(np.var(losses, ddof=1)),
        grad_norm_mean=float(np.mean(norms)),
        grad_norm_max=float(np.max(norms)),
    )


def _shuffle(trainer: Trainer) -> None:
    """Training lists are shown shuffled from here on; validation lists as they are."""
    data = trainer.config.data
    trainer.prompter.show = ShuffledShow(
        data.folder or data.train.parent,
        data.gallery,
        needed=trainer.lists.needs_gallery or trainer.validation.needs_gallery,
        way=trainer.config.asking.show,
        size_px=trainer.student.backbone.picture_px,
        queries=trainer.lists.file.queries,
        seed=trainer.config.seed,
    )
