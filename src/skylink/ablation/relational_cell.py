"""Cells of small relational models: `late` and `transformer`, see `embedded/relational.py`.

They see the same lists in the same order as the others, through the cells of the trunk alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from skylink.ablation.cell import Lists, Ready, Scores, Work
from skylink.ablation.lvlm_cell import trained_of
from skylink.ablation.result import Trained
from skylink.embedded.relational_finish import finish
from skylink.embedded.relational_learner import RelationalLearner
from skylink.embedded.relational_lists import score
from skylink.embedded.relational_mined import FromLists, batch_of
from skylink.embedded.relational_recipe import (
    Model,
    RelationalData,
    RelationalLabels,
    RelationalRates,
    RelationalRecipe,
)
from skylink.embedded.relational_training import RelationalTraining
from skylink.errors import ModelError, OptionError
from skylink.rerankers.cells import GalleryCells, trunk_of
from skylink.training.loop import Loop, last_checkpoint

Open = Callable[[Path, int], GalleryCells]


def make_relational(open_cells: Open, work: Work) -> Ready:
    """Train a model, going on from its last checkpoint; see `cell.Maker`.

    The folder of `config.out` becomes a finished one: `--reranker relational:FOLDER`.

    Args:
        open_cells: cells of a gallery, kept for all cells of the grid.

    Raises:
        SkyLinkError: lists can't be used, a photo can't be read, or the loss is not finite.
    """
    recipe = _recipe(work)
    lists = FromLists(recipe, open_cells)
    saved = last_checkpoint(recipe, lists.inputs)
    learner = RelationalLearner(recipe, lists)
    loop = Loop(learner, recipe, steps=lists.steps, inputs=lists.inputs, saved=saved)
    outcome = loop.run(lambda step, steps, words: work.say(f"step {step} of {steps}: {words}"))
    finish(RelationalTraining(recipe, lists, learner, loop), outcome)
    trained = trained_of(work.cell, lists.training.statistics, loop.folder, outcome)
    return _Relational(learner, open_cells, lists.trunk, trained)


def _recipe(work: Work) -> RelationalRecipe:
    config, chosen = work.config, work.grid.relational.model_dump()
    data, rates = config.data, config.optimizer
    lr, power = chosen.pop("lr"), chosen.pop("power")
    return RelationalRecipe(
        out=config.out,
        seed=config.seed,
        data=RelationalData(
            train=data.train, validation=data.validation, folder=data.folder,
            gallery=data.gallery, list_size=data.list_size, negatives=data.negatives,
        ),
        model=Model(kind="late" if work.cell.arm.model == "late" else "transformer", **chosen),
        loss=config.loss,
        labels=RelationalLabels(**config.labels.model_dump(), power=power),
        optimizer=RelationalRates(
            **rates.model_dump(exclude={"lr_lora", "lr_head"}), lr=lr
        ),
        validation=config.validation,
        checkpoints=config.checkpoints,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Relational:
    learner: RelationalLearner
    open_cells: Open
    trunk: str
    trained: Trained
    listwise = False

    def scores(self, lists: Lists) -> list[Scores]:
        """See `Ready.scores`.

        Raises:
            OptionError: there is no gallery.
            ModelError: the gallery is of another encoder than the lists that were learnt from.
            GalleryError, PhotoError, QueriesError: the gallery, photos or lists can't be used.
        """
        if lists.gallery is None:
            raise OptionError(
                "relational models compare photos with places on a map, and there is no gallery",
                hint="set data.gallery and test.gallery to where the lists were mined",
            )
        model = self.learner.model
        cells = self.open_cells(lists.gallery, model.reach)
        if trunk_of(cells.encoder) != self.trunk:
            raise ModelError(
                f"{lists.gallery} was built by another encoder than the gallery of the lists that "
                "were learnt from",
                hint="build both with the same --encoder, and mine again",
            )
        found = []
        with torch.no_grad():
            for pick in lists.picks:
                scores = score(model, batch_of([pick], cells, lists.folder))[0]
                found.append(np.asarray(scores.double().numpy(), np.float64))
        return found
