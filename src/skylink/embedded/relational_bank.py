"""Lists made of a bank on the fly: windows of a view's own map and of maps that are alike.

Candidates lie on a grid of each map, at an offset of its own in every step. A list has the one
nearest to the truth, the ones that correlate best untrained, some at random, and some of its own
map as a wrongly turned view sees it. Labels are overlap with the truth, or the paper's cosine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from skylink.embedded.bank import Bank
from skylink.embedded.descriptor_recall import RIGHT
from skylink.embedded.head import relational
from skylink.embedded.labels import relevance
from skylink.embedded.relational_lists import Batch, Judged
from skylink.embedded.relational_recipe import RelationalRecipe
from skylink.embedded.sampling import (
    Indices,
    different_ground,
    draw_maps,
    standardised,
    validation_sets,
)
from skylink.embedded.surface import surfaces
from skylink.soft_labels import THRESHOLDS, Source

MARGIN = 4
"""Cells of a candidate's square that may lie beyond its map, as of true places they do."""

COMPETING, SETS = 20, 6
"""Maps among which a validation lists candidates, and how many times of each kind."""

MIN_CELLS = 12
"""Of a view that a validation counts; the least that is searched with in use."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _List:
    """One view's candidates.

    Attributes:
        name: of the view.
        places: (n, 3) map, row and column of the centre, in cells.
        owner: (n,) the view that each is compared with.
        untrained: (n,) scores.
        apart: (n, 2) cells from the truth; infinite on other maps and under a wrong heading.
    """

    name: str
    places: NDArray[np.int64]
    owner: NDArray[np.int64]
    untrained: NDArray[np.float32]
    apart: NDArray[np.float32]


class FromBank:
    """See the module; `Lists` of the training.

    Args:
        recipe: all choices.
        bank: to learn from.
        held: other maps, to be judged by; None: no validation.
    """

    def __init__(self, recipe: RelationalRecipe, bank: Bank, held: Bank | None) -> None:
        self._recipe, self._bank, self._held = recipe, bank, held
        first = bank.rows([0])
        self.side, self.channels = int(first.views.shape[2]), int(first.maps.shape[3])
        self.trunk = bank.identity.encoder
        self.inputs: Sequence[str] = [
            each.identity.model_dump_json() for each in (bank, held) if each is not None
        ]
        chosen = recipe.lists
        self.steps = recipe.optimizer.steps_over(len(bank), chosen.maps_per_step)
        self.judges = held is not None
        self.words = f"lists of {len(bank):,} maps"

    def at(self, step: int) -> Batch:
        """See `Lists.at`."""
        chosen, size = self._recipe.lists, self._recipe.data.list_size
        rng = np.random.default_rng((self._recipe.seed, 5, step))
        maps = draw_maps(self._bank, rng, chosen.maps_per_step, chosen.real_share)
        views = [int(v) for v in rng.permutation(self._bank.views)[: chosen.views_per_map]]
        random = round(chosen.random_share * (size - 1 - chosen.decoys))
        return self._made(self._bank, maps, views, rng, size, random, chosen.decoys)[0]

    def judged(self) -> Iterator[Judged]:
        """See `Lists.judged`."""
        if self._held is None:
            return
        views, depth = list(range(self._held.views)), self._recipe.validation.depth
        for kind, order in validation_sets(self._held).items():
            size = min(COMPETING, len(order))
            for number in range(min(SETS, len(order) // size)):
                maps = order[number * size : (number + 1) * size]
                rng = np.random.default_rng((6, number))
                batch, lists = self._made(self._held, maps, views, rng, depth, 0, 0)
                shape = tuple(batch.mask.shape)
                base, right = np.zeros(shape), np.zeros(shape, bool)
                for row, one in enumerate(lists):
                    base[row, : len(one.places)] = one.untrained
                    away = np.linalg.norm(one.apart, axis=1)
                    right[row, : len(away)] = away <= RIGHT * self.side
                yield Judged(kind=kind, batch=batch, base=base, right=right)

    def _made(
        self,
        bank: Bank,
        maps: Indices,
        views: list[int],
        rng: np.random.Generator,
        size: int,
        random: int,
        decoys: int,
    ) -> tuple[Batch, list[_List]]:
        """Lists of `size` candidates, some of them at random, some decoys."""
        rows = bank.rows(maps)
        ground, ground_valid, seen, seen_valid = standardised(rows, [*views, bank.views])
        peaks = _peaks(ground, ground_valid, seen, seen_valid, self._recipe.model.reach)
        pool = self._pool(len(maps), peaks.shape[-1] - 1, rng)
        allowed, truth = different_ground(rows.group).numpy(), rows.places[:, views]
        least = self._recipe.lists.min_cells if bank is self._bank else MIN_CELLS
        lists = []
        for number in range(len(maps)):
            own = pool[pool[:, 0] == number]
            others = pool[allowed[number][pool[:, 0]]]
            first = number * (len(views) + 1)
            wrong = first + len(views)
            for which, view in enumerate(views):
                if seen_valid[first + which].sum() < least:
                    continue
                true = truth[number, which]
                nearest = own[np.linalg.norm(own[:, 1:] - true, axis=1).argmin()]
                fit = _choose(nearest, others, peaks[first + which], size - decoys, random, rng)
                fools = _best(own, peaks[wrong])[:decoys]
                apart = (fit[:, 1:] - true).astype(np.float32)
                apart[fit[:, 0] != number] = np.inf
                lists.append(
                    _List(
                        name=f"{int(maps[number])}.{view}",
                        places=np.concatenate([fit, fools]),
                        owner=np.repeat([first + which, wrong], [len(fit), len(fools)]),
                        untrained=np.concatenate(
                            [_at(peaks[first + which], fit), _at(peaks[wrong], fools)]
                        ),
                        apart=np.concatenate([apart, np.full((len(fools), 2), np.inf)]),
                    )
                )
        count = max((len(one.places) for one in lists), default=0)
        where = np.zeros((len(lists), count, 3), np.int64)
        owner, mask = np.zeros((len(lists), count), np.int64), np.zeros((len(lists), count), bool)
        labels = torch.zeros(len(lists), count)
        tiles = _tiles(ground, ground_valid, self.side) if self._source == "cosine" else None
        corner = self.side // 2 + self._recipe.model.reach
        for row, one in enumerate(lists):
            n = len(one.places)
            where[row, :n], owner[row, :n] = one.places - [0, corner, corner], one.owner
            mask[row, :n], labels[row, :n] = True, self._labels(one, tiles)
        batch = Batch(
            names=tuple(one.name for one in lists), ground=ground, ground_valid=ground_valid,
            views=seen, views_valid=seen_valid, where=torch.from_numpy(where),
            owner=torch.from_numpy(owner), labels=labels, mask=torch.from_numpy(mask),
        )  # fmt: skip
        return batch, lists

    def _pool(self, maps: int, last: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(P, 3) all candidates: a grid on each map, whose offset is drawn; `last` is its end."""
        stride, half = self._recipe.lists.stride_cells, self.side // 2
        low, high = max(0, half - MARGIN), min(last, last - half + MARGIN)
        found = []
        for number in range(maps):
            axes = [
                np.arange(low + start, high + 1, stride) for start in rng.integers(stride, size=2)
            ]
            grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
            found.append(np.column_stack([np.full(len(grid), number), grid]))
        return np.concatenate(found).astype(np.int64)

    @property
    def _source(self) -> Source:
        return "cosine" if self._recipe.labels.source == "cosine" else "overlap"

    def _labels(self, one: _List, tiles: Tensor | None) -> Tensor:
        """(n,) by overlap with the truth, or by the cosine of `tiles` with the nearest one's."""
        chosen, side = self._recipe.labels, self.side
        common = np.clip(side - np.abs(one.apart), 0, None).prod(1)
        values = torch.from_numpy(common / (2 * side**2 - common))
        if not values.any():  # the true place is too far off this map
            return values
        if tiles is not None:
            found = tiles[tuple(torch.from_numpy(one.places).T)]
            cosines = found @ found[values.argmax()]
            heading = torch.from_numpy(one.owner == one.owner[0])
            values = cosines.clamp(0, 1) * heading
        threshold = THRESHOLDS[self._source] if chosen.threshold is None else chosen.threshold
        return relevance(values[None], labels="overlap", threshold=threshold, power=chosen.power)[0]


def _at(scores: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n,) of scores (M, size, size) at places (n, 3)."""
    return np.asarray(scores[tuple(places.T)], np.float32)


def _best(places: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The places, best first."""
    return places[np.argsort(-_at(scores, places), kind="stable")]


def _choose(
    truth: NDArray[np.int64],
    others: NDArray[np.int64],
    scores: NDArray[np.float32],
    size: int,
    random: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """(n, 3) the truth and others: the best by score, and some at random; best first."""
    ranked = _best(others[(others != truth).any(1)], scores)
    hard, rest = np.split(ranked, [max(0, size - 1 - random)])
    drawn = rng.choice(rest, min(random, len(rest)), replace=False)
    return _best(np.concatenate([truth[None], hard, drawn]), scores)


@torch.no_grad()
def _peaks(
    ground: Tensor, ground_valid: Tensor, seen: Tensor, seen_valid: Tensor, reach: int
) -> NDArray[np.float32]:
    """(V, M, size, size) untrained scores of all places: the best within `reach` cells."""
    scores = surfaces(
        relational(None, ground, ground_valid), relational(None, seen, seen_valid), seen_valid
    )
    best = functional.max_pool2d(scores, 2 * reach + 1, stride=1, padding=reach)
    return np.asarray(best.numpy(), np.float32)


@torch.no_grad()
def _tiles(ground: Tensor, valid: Tensor, side: int) -> Tensor:
    """(M, R + 1, R + 1, C) unit descriptors of squares around all places: mean valid cells."""
    weighed = (ground * valid[..., None]).permute(0, 3, 1, 2)
    padded = functional.pad(weighed, [side // 2] * 4)
    sums = functional.avg_pool2d(padded, side, stride=1)
    return functional.normalize(sums.permute(0, 2, 3, 1), dim=-1, eps=1e-6)
