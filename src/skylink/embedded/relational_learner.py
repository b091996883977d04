"""Trains a relational model on lists of features, wherever they come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from skylink.embedded.head import log_of
from skylink.embedded.relational import LateInteraction, RelationalTransformer
from skylink.embedded.relational_lists import Batch, Lists, score
from skylink.embedded.relational_recipe import Model, RelationalRecipe
from skylink.loss_registry import make_loss
from skylink.training.draws import drawn_from
from skylink.training.fusion import Scored
from skylink.training.loop import Group, Part
from skylink.training.state import Weights, put_back, weights_of
from skylink.training.validation import better, figures

CPU = torch.device("cpu")
AT_ONCE = 16
"""Lists of a validation that are scored together."""


def make_model(chosen: Model, *, channels: int, side: int, seed: int) -> LateInteraction:
    """An untrained model: it scores as training-free correlation does."""
    with drawn_from((seed, 7), CPU):
        if chosen.kind == "late":
            return LateInteraction(
                chosen.head, channels=channels, side=side, reach=chosen.reach,
                hidden=chosen.hidden, softness=chosen.softness, falloff=chosen.falloff,
            )  # fmt: skip
        return RelationalTransformer(
            chosen.head, layers=chosen.layers, width=chosen.width, heads=chosen.heads,
            channels=channels, side=side, reach=chosen.reach, hidden=chosen.hidden,
            softness=chosen.softness, falloff=chosen.falloff,
        )  # fmt: skip


class RelationalLearner:
    """See the module; a `Learner` of the training loop.

    Args:
        recipe: all choices.
        lists: to learn from and to be judged by.

    Attributes:
        model: what is trained, with the scale of its scores in the loss.
    """

    unit = "lists"
    if_not_finite = "lower optimizer.lr"
    if_out_of_memory = "lower lists.maps_per_step, optimizer.lists_per_step or data.list_size"

    def __init__(self, recipe: RelationalRecipe, lists: Lists) -> None:
        self.recipe, self.lists = recipe, lists
        self.loss = make_loss(recipe.loss.name, **recipe.loss.params)
        self.model = make_model(
            recipe.model, channels=lists.channels, side=lists.side, seed=recipe.seed
        )
        self._log_temperature = log_of(recipe.model.temperature)
        self._offset = nn.Parameter(torch.zeros(()))
        self._all = nn.ModuleDict({"model": self.model})
        self._all.register_parameter("log_temperature", self._log_temperature)
        self._all.register_parameter("offset", self._offset)

    @property
    def temperature(self) -> float:
        """As it is now."""
        return float(self._log_temperature.detach().exp())

    def groups(self) -> list[Group]:
        rates = self.recipe.optimizer
        every = list(self.model.parameters())
        matrices = [p for p in every if p.ndim > 1]
        others = [p for p in every if p.ndim <= 1]
        groups = [Group("model", matrices, rates.lr, rates.weight_decay)] if matrices else []
        return [*groups, Group("model", [*others, self._log_temperature, self._offset], rates.lr)]

    def weights(self) -> Weights:
        return weights_of(self._all.state_dict().items())

    def set_weights(self, weights: Weights) -> None:
        put_back(self._all.state_dict().items(), weights)

    def batch(self, step: int) -> list[Part]:
        batch = self._usable(self.lists.at(step))
        if not batch.names:
            return []

        def backward() -> float:
            loss = self._loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        return [Part(batch.names, backward)]

    def _usable(self, batch: Batch) -> Batch:
        """The lists that the loss can learn from."""
        if not batch.names:
            return batch
        return _some(batch, self.loss.usable(batch.labels, batch.mask).nonzero().flatten())

    def _loss(self, batch: Batch) -> Tensor:
        logits = score(self.model, batch) / self._log_temperature.exp() + self._offset
        return self.loss(logits, batch.labels, batch.mask)

    def validate(self) -> dict[str, float]:
        return judge(self.model, self.lists)

    def better(self, new: dict[str, float], old: dict[str, float]) -> bool:
        return better(new, old)


def judge(model: LateInteraction, lists: Lists) -> dict[str, float]:
    """Recall at 1 and mrr on validation lists, 0..1, and of what they were listed by (`base`).

    Returns:
        Means over kinds of lists, then of each: `recall@1 real`; empty where there are none.
    """
    each = {kind: figures(some) for kind, some in scored_lists(model, lists).items()}
    if not each:
        return {}
    names = next(iter(each.values()))
    means = {name: float(np.mean([found[name] for found in each.values()])) for name in names}
    if len(each) == 1:
        return means
    return means | {
        f"{name} {kind}": v for kind, found in each.items() for name, v in found.items()
    }


@torch.no_grad()
def scored_lists(model: LateInteraction, lists: Lists) -> dict[str, list[Scored]]:
    """All validation lists with their scores, by kind."""
    scored: dict[str, list[Scored]] = {}
    for judged in lists.judged():
        batch = judged.batch
        for first in range(0, len(batch.names), AT_ONCE):
            rows = torch.arange(first, min(first + AT_ONCE, len(batch.names)))
            found = score(model, _some(batch, rows)).double().numpy()
            for row, scores in zip(rows.tolist(), found, strict=True):
                real = batch.mask[row].numpy()
                scored.setdefault(judged.kind, []).append(
                    Scored(
                        base=judged.base[row][real],
                        scores=scores[real],
                        right=judged.right[row][real],
                    )
                )
    return scored


def _some(batch: Batch, rows: Tensor) -> Batch:
    """Some of its lists."""
    return replace(
        batch,
        names=tuple(batch.names[int(row)] for row in rows),
        where=batch.where[rows],
        owner=batch.owner[rows],
        labels=batch.labels[rows],
        mask=batch.mask[rows],
    )
