"""A cell with a vision-language model: trained, fitted on the validation lists, and measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from skylink.ablation.grid import HARD, Cell
from skylink.ablation.held_out import HeldOut
from skylink.ablation.pictures import ShuffledShow, list_show
from skylink.ablation.result import Done, Stability, Trained
from skylink.label_statistics import LabelStatistics
from skylink.reranker import Fusion
from skylink.training.config import TrainConfig
from skylink.training.data import ValidationLists
from skylink.training.finish import finish
from skylink.training.fusion import BASE_ONLY, RERANKER_ONLY, Recall, Scored, fit_fusion
from skylink.training.pictures import Prompter
from skylink.training.scoring import ListScorer
from skylink.training.trainer import Outcome, Trainer
from skylink.training.validation import score_lists

Say = Callable[[str], None]
Fit = tuple[Fusion, dict[str, float]]
"""The fusion, and recall at 1 on the validation lists: see `result.Done`."""


def run_lvlm(cell: Cell, config: TrainConfig, held: HeldOut, say: Say) -> Done:
    """Train what is to be trained, going on from its last checkpoint, and measure it.

    The folder of `config.out` becomes a finished one that re-rankers load, save for what is not
    trained and for the control, which nobody should use.

    Raises:
        SkyLinkError: see `Trainer` and `finish`.
    """
    trainer = Trainer(config)
    outcome: Outcome | None = None
    if cell.arm.model == "shuffled-tiles":
        _shuffle(trainer)
    if cell.arm.trained:
        outcome = trainer.run(lambda step, steps, words: say(f"step {step} of {steps}: {words}"))
    say("validation lists")
    if outcome is None or cell.arm.model == "shuffled-tiles":
        fit = fitted(score_lists(trainer.validation, trainer.scorer, trainer.processes))
    else:
        fit = _finished(trainer, outcome)
    say("test lists")
    start = time.monotonic()
    scores = _scores_of(held, trainer)
    seconds = time.monotonic() - start
    trained = None
    if outcome is not None:
        trained = trained_of(
            cell, trainer.lists.statistics, trainer.folder,
            steps=outcome.steps, best_step=outcome.step, seconds=outcome.seconds,
        )  # fmt: skip
    return done(held, scores, fit, trained, seconds)


def fitted(validated: Sequence[Scored]) -> Fit:
    """Fit the fusion."""
    fusion = fit_fusion(validated)
    kinds = {"base": BASE_ONLY, "pure": RERANKER_ONLY, "fused": fusion}
    return fusion, {name: Recall.of(validated, kind).recall_at_1 for name, kind in kinds.items()}


def done(
    held: HeldOut,
    scores: Sequence[NDArray[np.float64]],
    fit: Fit,
    trained: Trained | None,
    judge_seconds: float,
) -> Done:
    """A cell's result from its scores of the test lists."""
    fusion, validation = fit
    return Done(
        pure=held.judge(scores, RERANKER_ONLY),
        fused=held.judge(scores, fusion),
        base_weight=fusion.base_weight,
        gate_margin=fusion.gate_margin,
        validation=validation,
        trained=trained,
        judge_seconds=judge_seconds,
    )


def trained_of(
    cell: Cell, labels: LabelStatistics, folder: Path, *, steps: int, best_step: int, seconds: float
) -> Trained:
    """What is known of a training whose `log.jsonl` is in a folder."""
    hard = cell.arm.loss == HARD
    return Trained(
        steps=steps,
        best_step=best_step,
        seconds=seconds,
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


def _finished(trainer: Trainer, outcome: Outcome) -> Fit:
    """Write the finished folder; the fusion is the one that is saved with it."""
    info = finish(trainer, outcome)
    assert info is not None  # there is one process
    assert info.base_weight is not None  # and there are validation lists
    found = info.about["validation"]
    names = {"base": "base", "pure": "re-ranker", "fused": "fused"}
    fusion = Fusion(base_weight=info.base_weight, gate_margin=info.gate_margin)
    return fusion, {name: found[theirs]["recall@1"] for name, theirs in names.items()}


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


def _scores_of(held: HeldOut, trainer: Trainer) -> list[NDArray[np.float64]]:
    """Scores of each test list's first candidates."""
    student, asking = trainer.student, trainer.config.asking
    prompter = Prompter(
        student.backbone,
        student.template,
        list_show(
            held.folder, held.gallery, needed=held.needs_gallery, way=asking.show,
            size_px=student.backbone.picture_px,
        ),
        facts=asking.facts,
        cache=trainer.prompter.cache,
    )  # fmt: skip
    scorer = ListScorer(student, prompter, group=trainer.config.data.list_size)
    lists = cast(ValidationLists, held)  # alike in all that scoring asks for
    return [each.scores for each in score_lists(lists, scorer, trainer.processes)]
