"""A cell with a vision-language model: trained, fitted on the validation lists, and measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from skylink.ablation.grid import HARD, Cell
from skylink.ablation.held_out import HeldOut
from skylink.ablation.result import Done, Stability, Trained
from skylink.label_statistics import LabelStatistics
from skylink.mined import MinedList
from skylink.reranker import Fusion
from skylink.showing import Showing
from skylink.training import state
from skylink.training.config import TrainConfig
from skylink.training.data import ValidationLists
from skylink.training.finish import finish
from skylink.training.fusion import BASE_ONLY, RERANKER_ONLY, Recall, Scored, fit_fusion
from skylink.training.pictures import ListShow, Prompter
from skylink.training.processes import Processes
from skylink.training.scoring import ListScorer
from skylink.training.trainer import Outcome, Trainer
from skylink.training.validation import score_lists

Progress = Callable[[int, int, str], None]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Test lists and where their pictures are."""

    lists: HeldOut
    folder: Path
    gallery: Path | None


def run_lvlm(cell: Cell, config: TrainConfig, held: Held, say: Say) -> Done:
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
        outcome = trainer.run(_told(say))
    say("validation lists")
    validated = score_lists(trainer.validation, trainer.scorer, trainer.processes)
    fusion = fit_fusion(validated)
    say("test lists")
    start = time.monotonic()
    scores = _scores_of(held, trainer)
    judge_seconds = time.monotonic() - start
    if outcome is not None and cell.arm.model != "shuffled-tiles":
        finish(trainer, outcome)
    trained = None
    if outcome is not None:
        trained = trained_words(
            cell, outcome.steps, outcome.step, outcome.seconds, trainer.lists.statistics,
            trainer.folder,
        )  # fmt: skip
    return done(held.lists, scores, validated, fusion, trained, judge_seconds)


def done(
    lists: HeldOut,
    scores: Sequence[np.ndarray],
    validated: list[Scored],
    fusion: Fusion,
    trained: Trained | None,
    judge_seconds: float,
) -> Done:
    """A cell's result from its scores, of the test lists and of the validation lists."""
    kinds = {"base": BASE_ONLY, "pure": RERANKER_ONLY, "fused": fusion}
    return Done(
        pure=lists.judge(scores, RERANKER_ONLY),
        fused=lists.judge(scores, fusion),
        base_weight=fusion.base_weight,
        gate_margin=fusion.gate_margin,
        validation={name: Recall.of(validated, kind).recall_at_1 for name, kind in kinds.items()},
        trained=trained,
        judge_seconds=judge_seconds,
    )


def trained_words(
    cell: Cell, steps: int, best: int, seconds: float, labels: LabelStatistics, folder: Path
) -> Trained:
    """What is known of a training whose `log.jsonl` is in a folder."""
    hard = cell.arm.loss == HARD
    return Trained(
        steps=steps,
        best_step=best,
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


def show_of(folder: Path, gallery: Path | None, lists: HeldOut, way: str, size_px: int) -> ListShow:
    """Makes the pictures of test lists, on their own map where they are places on one."""
    from skylink.gallery import Gallery
    from skylink.showing import GalleryShow

    show = None
    if lists.needs_gallery and gallery is not None:
        show = GalleryShow(Gallery.open(gallery), size_px=size_px, way=way)  # type: ignore[arg-type]  # checked there
    return ListShow(folder, show, size_px=size_px)


class ShuffledShow(ListShow):
    """Shows the candidates of some lists with each other's pictures, in an order by the list.

    Every order is as likely as any other, so that pictures say nothing of labels. (An order in
    which no picture keeps its place would say which one is wrong.)
    """

    queries: frozenset[str] = frozenset()
    seed = 0

    def __call__(self, mined: MinedList, rows: Sequence[int]) -> Showing:
        """See `ListShow`."""
        showing = super().__call__(mined, rows)
        if mined.query not in self.queries:
            return showing
        name = hashlib.sha256(mined.query.encode()).digest()[:8]
        draw = np.random.default_rng((self.seed, int.from_bytes(name, "little")))
        order = draw.permutation(len(showing.candidates))
        return dataclasses.replace(showing, candidates=[showing.candidates[i] for i in order])


def _shuffle(trainer: Trainer) -> None:
    """Training lists are shown shuffled from here on; validation lists as they are."""
    from skylink.gallery import Gallery

    data, config = trainer.config.data, trainer.config
    gallery = None
    if trainer.lists.needs_gallery or trainer.validation.needs_gallery:
        assert data.gallery is not None  # the trainer has asked for it
        gallery = Gallery.open(data.gallery)
    show = ShuffledShow.over(
        data.folder or data.train.parent, gallery, trainer.student.backbone, config.asking.show
    )
    assert isinstance(show, ShuffledShow)
    show.queries, show.seed = frozenset(trainer.lists.file.queries), config.seed
    trainer.prompter.show = show


def _scores_of(held: Held, trainer: Trainer) -> list[np.ndarray]:
    """Scores of each test list's first candidates, float64."""
    student, config = trainer.student, trainer.config
    size_px = student.backbone.picture_px
    prompter = Prompter(
        student.backbone,
        student.template,
        show_of(held.folder, held.gallery, held.lists, config.asking.show, size_px),
        facts=config.asking.facts,
        cache=trainer.prompter.cache,
    )
    scorer = ListScorer(student, prompter, group=config.data.list_size)
    lists = cast(ValidationLists, held.lists)  # which it is for this purpose
    return [each.scores for each in score_lists(lists, scorer, Processes(config.compute.device))]


def _told(say: Say) -> Progress:
    def report(step: int, steps: int, words: str) -> None:
        say(f"step {step} of {steps}{': ' if words else ''}{words}")

    return report


def forget_checkpoints(out: Path) -> None:
    """Of a finished cell; they are several times as large as what it came to."""
    state.remove_all(out / "training")
