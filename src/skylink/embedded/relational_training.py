"""A training of a relational re-ranker, from a bank of features or from mined lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skylink.embedded.bank import Bank
from skylink.embedded.relational_bank import FromBank
from skylink.embedded.relational_learner import RelationalLearner
from skylink.embedded.relational_lists import Lists
from skylink.embedded.relational_recipe import RelationalRecipe
from skylink.errors import ModelError, QueriesError
from skylink.loss_registry import make_loss
from skylink.training.loop import Loop, Outcome, Progress, last_checkpoint


@dataclass(frozen=True, slots=True, eq=False)
class RelationalTraining:
    """A training that is ready to run, new or continued.

    Attributes:
        recipe: all choices.
        lists: what is learnt from.
        learner: the model in training; holds the best weights after `run`.
        loop: of its steps.
    """

    recipe: RelationalRecipe
    lists: Lists
    learner: RelationalLearner
    loop: Loop

    @classmethod
    def of(cls, recipe: RelationalRecipe, *, resume: bool = True) -> RelationalTraining:
        """Open what a recipe names.

        Args:
            resume: go on from the last checkpoint in its folder, if there is one.

        Raises:
            OptionError: a loss that there is not, or a checkpoint of other choices or data.
            QueriesError, GalleryError, PhotoError: what is learnt from can't be used.
            ModelError: a bank or a checkpoint is damaged.
        """
        make_loss(recipe.loss.name, **recipe.loss.params)  # refuses typos before lists are read
        lists = open_lists(recipe)
        saved = last_checkpoint(recipe, lists.inputs, resume=resume)
        learner = RelationalLearner(recipe, lists)
        loop = Loop(learner, recipe, steps=lists.steps, inputs=lists.inputs, saved=saved)
        return cls(recipe, lists, learner, loop)

    def run(self, progress: Progress = lambda *_: None) -> Outcome:
        """Train to the end. Raises as `Loop.run`."""
        return self.loop.run(progress)


def open_lists(recipe: RelationalRecipe) -> Lists:
    """What a recipe's `data` names. Raises as `RelationalTraining.of`."""
    data = recipe.data
    if data.bank is None:
        from skylink.embedded.relational_mined import FromLists

        return FromLists(recipe)
    bank = _bank(data.bank, "bank")
    held = None if data.held_out is None else _bank(data.held_out, "held_out")
    if held is not None and held.identity.encoder != bank.identity.encoder:
        raise ModelError(
            "data.bank and data.held_out hold features of different networks",
            hint="take both from one folder of `skylink train-encoder`",
        )
    if recipe.lists.views_per_map > bank.views:
        raise QueriesError(
            f"lists.views_per_map = {recipe.lists.views_per_map}, and the maps of {data.bank} "
            f"have {bank.views} views",
            hint=f"views_per_map = {bank.views}",
        )
    return FromBank(recipe, bank, held)


def _bank(folder: Path, key: str) -> Bank:
    try:
        bank = Bank(folder)
    except ModelError as error:
        raise ModelError(
            f"data.{key}: {error.message}",
            hint=error.hint or "give the folder work/bank of `skylink train-encoder`",
        ) from error
    if len(bank) < 2:
        raise QueriesError(f"data.{key}: {folder} holds one map, and lists need two")
    return bank
