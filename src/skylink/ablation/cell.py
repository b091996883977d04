"""What all kinds of cells have in common: what they are given, hand over, and are measured by.

A kind is a `Maker`: it makes a model, trained or as it is, that scores lists. `measure` does the
rest alike for all of them. Kinds are listed in `run.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skylink.ablation.grid import Cell, Grid
from skylink.ablation.held_out import HeldOut, scored
from skylink.ablation.result import AtDepth, Done, Trained
from skylink.errors import ModelError
from skylink.training.config import TrainConfig
from skylink.training.data import Pick, ValidationLists
from skylink.training.fusion import BASE_ONLY, RERANKER_ONLY, Recall, fit_fusion

Scores = NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a kind is given.

    Attributes:
        cell: which.
        config: its training, into the cell's folder `config.out`.
        grid: all choices; a kind may have a section of its own there (`Grid.own`).
        say: tells a user what is going on.
    """

    cell: Cell
    config: TrainConfig
    grid: Grid
    say: Say


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Lists to be scored, and where their pictures are.

    Attributes:
        picks: Q lists; the rows of each are its first candidates in the base's order.
        folder: which pictures' paths are relative to.
        gallery: of candidates that are places on a map.
        needs_gallery: whether there are such.
    """

    picks: Sequence[Pick]
    folder: Path
    gallery: Path | None
    needs_gallery: bool


class Ready(Protocol):
    """A model that can be measured.

    Attributes:
        listwise: a candidate's score depends on the others of its list, so that the first K are
            scored anew for each K; False: once for the largest.
        trained: what is known of its training; None where it is as it was.
    """

    @property
    def listwise(self) -> bool: ...
    @property
    def trained(self) -> Trained | None: ...

    def scores(self, lists: Lists) -> list[Scores]:
        """(len(pick.rows),) float64 of each list, higher is better.

        Raises:
            SkyLinkError: they can't be scored; the cell fails.
        """
        ...


Maker = Callable[[Work], Ready]


def validation_lists(grid: Grid, validation: ValidationLists) -> Lists:
    """What fusions are fitted on."""
    data = grid.data
    return Lists(
        picks=validation,
        folder=data.folder or data.train.parent,
        gallery=data.gallery,
        needs_gallery=validation.needs_gallery,
    )


def test_lists(held: HeldOut) -> Lists:
    """What rows are measured on."""
    return Lists(
        picks=held, folder=held.folder, gallery=held.gallery, needs_gallery=held.needs_gallery
    )


test_lists.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


def measure(
    ready: Ready, held: HeldOut, validation: Lists, depths: Sequence[int], say: Say
) -> Done:
    """A cell's result: for each depth the fusion is fitted and the test lists are judged.

    Args:
        ready: the model.
        held, validation: lists with `max(depths)` candidates, where there are so many.
        depths: K, how many candidates are re-ranked.
        say: see `Work`.

    Raises:
        SkyLinkError: lists can't be scored, or a score isn't finite.
    """
    say("validation lists")
    fitted_on = _by_depth(ready, validation, depths)
    say("test lists")
    start = time.monotonic()
    judged = _by_depth(ready, test_lists(held), depths)
    seconds = time.monotonic() - start
    found = []
    for depth in depths:
        lists = [
            scored(pick, scores)
            for pick, scores in zip(validation.picks, fitted_on[depth], strict=True)
        ]
        fusion = fit_fusion(lists)
        kinds = {"base": BASE_ONLY, "pure": RERANKER_ONLY, "fused": fusion}
        found.append(
            AtDepth(
                depth=depth,
                pure=held.judge(judged[depth], RERANKER_ONLY),
                fused=held.judge(judged[depth], fusion),
                base_weight=fusion.base_weight,
                gate_margin=fusion.gate_margin,
                validation={k: Recall.of(lists, kind).recall_at_1 for k, kind in kinds.items()},
            )
        )
    return Done(depths=tuple(found), trained=ready.trained, judge_seconds=seconds)


def _by_depth(ready: Ready, lists: Lists, depths: Sequence[int]) -> dict[int, list[Scores]]:
    if ready.listwise:
        return {depth: _scores(ready, _first(lists, depth)) for depth in depths}
    whole = _scores(ready, _first(lists, max(depths)))
    return {depth: [scores[:depth] for scores in whole] for depth in depths}


def _first(lists: Lists, depth: int) -> Lists:
    return replace(lists, picks=[replace(p, rows=p.rows[:depth]) for p in lists.picks])


def _scores(ready: Ready, lists: Lists) -> list[Scores]:
    found = ready.scores(lists)
    for pick, scores in zip(lists.picks, found, strict=True):
        if scores.shape != (len(pick.rows),) or not np.isfinite(scores).all():
            raise ModelError(
                f"the list of {pick.mined.query!r} got scores that aren't finite, or not one a "
                "candidate"
            )
    return found
