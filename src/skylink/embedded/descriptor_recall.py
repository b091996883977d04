"""How well descriptors find the tile a view lies on: the base's, the tuned one's, and their sum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skylink.embedded.bank import Bank
from skylink.embedded.network import Top, read_weights, shipped
from skylink.embedded.sampling import Indices, validation_sets
from skylink.embedded.tuned import TunedDescriptor, coarse_cells, part_cosines, pooled

MAPS = 140
"""Of each validation set."""

STEP = 3
"""Cells between tiles, a fifth of their side as in use."""

RIGHT = 0.31
"""A tile is right if its centre lies within this share of its side of the truth."""

MIN_VALID = 0.6
BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """Views and tiles of some maps.

    Attributes:
        right: (Q, T) bool: the tile shows the view's place.
        ignored: (Q, T) bool: it may show the same ground, on another map.
    """

    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    views: list[tuple[Tensor, Tensor]]
    tiles: list[tuple[Tensor, Tensor]]


class HeldOutTiles:
    """Views and tiles of held-out maps, and what the base makes of them, which never changes.

    Args:
        bank: held out; the base's weights are read when first needed.
    """

    def __init__(self, bank: Bank) -> None:
        self._tasks = {
            name: _task(bank, np.sort(order[:MAPS]))
            for name, order in validation_sets(bank).items()
        }
        self._bases: dict[str, Tensor] = {}

    @torch.no_grad()
    def recalls(self, model: TunedDescriptor, sizes: list[int]) -> dict[str, float]:
        """Recall@1 and @20 of held-out views among all tiles of held-out maps, 0..1.

        Args:
            model: the tuned descriptor.
            sizes: of its parts.

        Returns:
            `recall@1`, `recall@20` of the sum with the base, mean over the sets, and of the base
            and the tuned descriptor alone; then the same of each set: `base recall@1 real`. Empty
            without maps.
        """
        found: dict[str, float] = {}
        for name, task in self._tasks.items():
            if name not in self._bases:
                self._bases[name] = _base_similarity(task)
            base, tuned = self._bases[name], _similarity(task, model, sizes)
            for kind, each in {"": base + tuned, "base ": base, "tuned ": tuned}.items():
                for k in (1, 20):
                    found[f"{kind}recall@{k} {name}"] = _recall(task, each, k)
        means = {
            f"{kind}recall@{k}": float(
                np.mean([found[f"{kind}recall@{k} {name}"] for name in self._tasks])
            )
            for kind in ("", "base ", "tuned ")
            for k in (1, 20)
            if self._tasks
        }
        return {**means, **found}


def _task(bank: Bank, maps: Indices) -> _Task:
    side, tiles, owners, centres, views = 0, [], [], [], []
    for index in maps:
        rows = bank.rows([int(index)])
        side = rows.views.shape[2]
        views.append(_pair(rows.views[0, : bank.views], rows.views_valid[0, : bank.views]))
        last = rows.maps.shape[1] - side
        for r in range(0, last + 1, STEP):
            for c in range(0, last + 1, STEP):
                valid = rows.maps_valid[:, r : r + side, c : c + side]
                if valid.mean() > MIN_VALID:
                    tiles.append(_pair(rows.maps[:, r : r + side, c : c + side], valid))
                    owners.append(int(index))
                    centres.append((r + side / 2, c + side / 2))
    owner, seen = np.array(owners), np.repeat(maps, bank.views)
    places = bank.places[maps].reshape(-1, 2)
    apart = np.linalg.norm(places[:, None] - np.array(centres)[None], axis=2)
    own = owner[None] == seen[:, None]
    same = bank.group[owner][None] == bank.group[seen][:, None]
    return _Task(right=own & (apart <= RIGHT * side), ignored=same & ~own, views=views, tiles=tiles)


def _pair(features: NDArray[np.float16], valid: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Kept in half the memory until they are needed."""
    return torch.from_numpy(features).permute(0, 3, 1, 2), torch.from_numpy(valid)


def _batches(pairs: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    for first in range(0, len(pairs), BATCH):
        features, valid = zip(*pairs[first : first + BATCH], strict=True)
        yield torch.cat(features).float(), torch.cat(valid).float()


def _base_similarity(task: _Task) -> Tensor:
    top = Top().eval()
    read_weights(top, shipped("top"))

    def describe(features: Tensor, valid: Tensor) -> Tensor:
        block15, head = top(features)
        coarse = coarse_cells(valid)
        parts = (
            pooled(head, coarse, 3.0),
            pooled(block15, coarse, 1.0),
            pooled(features, valid, 1.0),
        )
        return torch.cat(parts, 1)

    queries = torch.cat([describe(*batch) for batch in _batches(task.views)])
    tiles = torch.cat([describe(*batch) for batch in _batches(task.tiles)])
    return part_cosines(queries, tiles, [1280, 320, 112])


def _similarity(task: _Task, model: nn.Module, sizes: list[int]) -> Tensor:
    described = [
        torch.cat([model(features, coarse_cells(valid)) for features, valid in _batches(pairs)])
        for pairs in (task.views, task.tiles)
    ]
    return part_cosines(described[0], described[1], sizes)


def _recall(task: _Task, similarity: Tensor, k: int) -> float:
    """Of the views that some tile shows."""
    scores = np.where(task.ignored, -np.inf, similarity.numpy())
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(task.right, order, 1).any(1)
    possible = np.asarray(task.right.any(1))
    return float(np.asarray(found)[possible].mean()) if possible.any() else 0.0
