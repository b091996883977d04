"""The dense head learns on the correlation surface itself, by the relational-aware loss.

    frozen trunk cells of maps and views -> head -> unit cells -> surfaces of all pairs
        candidates of a view: all cells of all maps of the batch, and its own map's cells as a
        wrongly turned view scores them;   labels: overlap with the truth, 0 on other maps

Maps that may show the same ground are no candidates of each other's views.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from skylink.embedded.bank import Bank
from skylink.embedded.head import DenseHead, log_of, relational
from skylink.embedded.labels import place_overlap, relevance
from skylink.embedded.recipe import DenseStage
from skylink.embedded.sampling import (
    Indices,
    different_ground,
    draw_maps,
    standardised,
    validation_sets,
)
from skylink.embedded.surface import surfaces
from skylink.losses import relational_cross_entropy
from skylink.training.draws import drawn_from
from skylink.training.loop import Group, Part
from skylink.training.state import Weights, put_back, weights_of

COMPETING = 20
"""Maps among which a validation looks for a view."""

WITHIN_CELLS = 3.0
CPU = torch.device("cpu")


class DenseLearner:
    """See the module; a `Learner` of the training loop.

    Args:
        config: all choices.
        bank: to learn from.
        held: other maps, to be judged by; None: no validation.

    Attributes:
        head: what is trained, with the temperature.
    """

    unit = "maps"
    if_not_finite = "lower optimizer.lr"
    if_out_of_memory = "lower dense.maps_per_step"

    def __init__(self, config: DenseStage, bank: Bank, held: Bank | None) -> None:
        self.config, self.bank, self.held = config, bank, held
        self.side = bank.rows([0]).views.shape[2]
        channels = bank.rows([0]).maps.shape[3]
        chosen = config.dense
        with drawn_from((config.seed, 1), CPU):
            self.head = DenseHead(
                chosen.kind, channels=channels, hidden=chosen.hidden, size=chosen.channels
            )
        self._log_temperature = log_of(chosen.temperature)
        self._all = nn.ModuleDict({"head": self.head})
        self._all.register_parameter("log_temperature", self._log_temperature)

    @property
    def temperature(self) -> float:
        """As it is now."""
        return float(self._log_temperature.detach().exp())

    def groups(self) -> list[Group]:
        rates = self.config.optimizer
        return [
            Group("head", list(self.head.parameters()), rates.lr, rates.weight_decay),
            Group("temperature", [self._log_temperature], rates.lr),
        ]

    def weights(self) -> Weights:
        return weights_of(self._all.state_dict().items())

    def set_weights(self, weights: Weights) -> None:
        put_back(self._all.state_dict().items(), weights)

    def batch(self, step: int) -> list[Part]:
        rng = np.random.default_rng((self.config.seed, 2, step))
        chosen = self.config.dense
        maps = draw_maps(self.bank, rng, chosen.maps_per_step, chosen.real_share)
        views = _draw_views(rng, self.bank.views, chosen.views_per_map, first=chosen.decoys)

        def backward() -> float:
            loss = self.loss(maps, views)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        return [Part(tuple(f"map {i}" for i in maps), backward)]

    def loss(self, maps: Indices, views: list[int]) -> Tensor:
        """Of some maps, with some of the views of each."""
        chosen = self.config.dense
        rows = self.bank.rows(maps)
        shown = [*views, self.bank.views] if chosen.decoys else views
        ground, ground_valid, seen, seen_valid = standardised(rows, shown)
        scores = surfaces(
            relational(self.head, ground, ground_valid),
            relational(self.head, seen, seen_valid),
            seen_valid,
        )
        count, size = len(rows), scores.shape[-1]
        scores = scores.reshape(count, len(shown), count, size * size)
        own = torch.arange(count)
        places = torch.from_numpy(rows.places[:, views]).flatten(0, 1)
        overlap = place_overlap(places, size, self.side).flatten(1)
        enough = seen_valid.reshape(count, len(shown), -1)[:, : len(views)].sum(2)
        relevant = (
            relevance(
                overlap, labels=chosen.labels, threshold=chosen.threshold, power=chosen.power
            ).reshape(count, len(views), -1)
            * (enough >= chosen.min_cells)[..., None]
        )
        labels = torch.zeros(count, len(views), count, size * size)
        labels[own, :, own] = relevant
        real = different_ground(rows.group)[:, None, :, None].expand(labels.shape)
        lists = (count * len(views), -1)
        given = [scores[:, : len(views)].reshape(lists), labels.reshape(lists), real.reshape(lists)]
        if chosen.decoys:
            wrong = scores[own, -1, own][:, None].expand(count, len(views), -1).reshape(lists)
            beside = [wrong, torch.zeros_like(wrong), torch.ones_like(wrong, dtype=torch.bool)]
            given = [torch.cat(both, 1) for both in zip(given, beside, strict=True)]
        if not labels.any():  # nothing can be seen in any of these views
            return scores.sum() * 0
        return relational_cross_entropy(given[0] / self._log_temperature.exp(), given[1], given[2])

    def validate(self) -> dict[str, float]:
        return hit_rates(self.held, self.head) if self.held is not None else {}

    def better(self, new: dict[str, float], old: dict[str, float]) -> bool:
        return new["hits"] > old["hits"]


@torch.no_grad()
def hit_rates(bank: Bank, head: nn.Module | None) -> dict[str, float]:
    """How often a view's highest peak among COMPETING maps lies within WITHIN_CELLS of the truth.

    Args:
        bank: held out.
        head: None: cells as the trunk gives them.

    Returns:
        Shares 0..1: `hits` (mean over the sets), `hits synthetic`, `hits real`, and `own ...`: the
        same on the view's own map alone. Empty where the bank has less than two maps.
    """
    figures: dict[str, float] = {}
    for name, order in validation_sets(bank).items():
        size = min(COMPETING, len(order))
        hits: list[bool] = []
        own: list[bool] = []
        for first in range(0, len(order) - size + 1, size):
            found = _found(bank, order[first : first + size], head)
            hits += found[0]
            own += found[1]
        figures |= {f"hits {name}": float(np.mean(hits)), f"own {name}": float(np.mean(own))}
    if not figures:
        return {}
    sets = [value for key, value in figures.items() if key.startswith("hits ")]
    return {"hits": float(np.mean(sets)), **figures}


def _found(bank: Bank, maps: Indices, head: nn.Module | None) -> tuple[list[bool], list[bool]]:
    """For each view of some maps: right among all of them, and on its own map."""
    rows = bank.rows(maps)
    ground, ground_valid, seen, seen_valid = standardised(rows, list(range(bank.views)))
    scores = surfaces(
        relational(head, ground, ground_valid), relational(head, seen, seen_valid), seen_valid
    )
    size, count = scores.shape[-1], len(rows)
    best, at = scores.flatten(2).max(2)  # (N * V, N)
    number = torch.arange(count).repeat_interleave(bank.views)
    peak = at[torch.arange(len(at)), number]
    place = torch.stack([peak // size, peak % size], 1)
    apart = (place - torch.from_numpy(rows.places).flatten(0, 1)).norm(dim=1)
    near = apart <= WITHIN_CELLS
    allowed = different_ground(rows.group)[number]
    first = best.masked_fill(~allowed, -torch.inf).argmax(1) == number
    return (near & first).tolist(), near.tolist()


def _draw_views(rng: np.random.Generator, known: int, wanted: int, *, first: bool) -> list[int]:
    """Different views; with decoys, which are made of it, the first is among them."""
    drawn = [int(v) for v in rng.permutation(known)]
    if first:
        drawn = [0, *(v for v in drawn if v)]
    return drawn[:wanted]
