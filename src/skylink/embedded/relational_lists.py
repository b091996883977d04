"""Candidate lists as features: what a relational model is trained on, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skylink.embedded.relational import LateInteraction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """B lists of at most K candidates.

    Candidates are windows of grounds: a map is projected once, and many candidates are cut out.

    Attributes:
        names: (B,) of the lists, for messages.
        ground: (M, R, R, C) standardised cells; ground_valid (M, R, R), 1 or 0.
        views: (V, k, k, C) standardised cells; views_valid (V, k, k), 1 or 0.
        where: (B, K, 3) int64: ground, and row and column of the window's first cell in it; what
            lies beyond the ground is not valid.
        owner: (B, K) int64, the view that a candidate is compared with.
        labels: (B, K) float32, 0..1.
        mask: (B, K) bool: False where a list is shorter.
    """

    names: tuple[str, ...]
    ground: Tensor
    ground_valid: Tensor
    views: Tensor
    views_valid: Tensor
    where: Tensor
    owner: Tensor
    labels: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Lists of a validation.

    Attributes:
        kind: of the lists, such as `real`; figures are told for each.
        batch: with labels of no meaning.
        base: (B, K) what they were listed by.
        right: (B, K) bool.
    """

    kind: str
    batch: Batch
    base: NDArray[np.float64]
    right: NDArray[np.bool_]


class Lists(Protocol):
    """Where lists come from.

    Attributes:
        channels, side: of the cells, see `LateInteraction`.
        trunk: fingerprint of the network that made them.
        inputs: hashes of what is learnt from and judged by.
        steps: of the whole training.
        judges: whether there is a validation.
        words: what it is, for people.
    """

    @property
    def channels(self) -> int: ...
    @property
    def side(self) -> int: ...
    @property
    def trunk(self) -> str: ...
    @property
    def inputs(self) -> Sequence[str]: ...
    @property
    def steps(self) -> int: ...
    @property
    def judges(self) -> bool: ...
    @property
    def words(self) -> str: ...

    def at(self, step: int) -> Batch:
        """What step `step` learns from: a function of the seed and the step alone."""
        ...

    def judged(self) -> Iterator[Judged]:
        """What a validation looks at, always the same; nothing where there is none."""
        ...


def score(model: LateInteraction, batch: Batch) -> Tensor:
    """Scores (B, K), zero where there is no candidate."""
    seen = model.cells(batch.views, batch.views_valid)
    ground = model.cells(batch.ground, batch.ground_valid)
    where, owner = batch.where[batch.mask], batch.owner[batch.mask]
    cells, valid = cut(ground, batch.ground_valid, where, model.window)
    found = model.relate(seen[owner], batch.views_valid[owner], cells, valid)
    return torch.zeros(batch.mask.shape).masked_scatter(batch.mask, found)


def cut(ground: Tensor, valid: Tensor, where: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """(N, window, window, C) cells and (N, window, window) validity of windows.

    Args:
        ground: (M, R, R, C); valid (M, R, R).
        where: (N, 3) as in `Batch`.
        window: cells along a window's side.
    """
    side = ground.shape[1]
    along = where[:, 1:, None] + torch.arange(window)  # (N, 2, window)
    inside = (along >= 0) & (along < side)
    rows, columns = along.clamp(0, side - 1).unbind(1)
    flat = (where[:, :1, None] * side + rows[:, :, None]) * side + columns[:, None]
    known = (inside[:, 0, :, None] & inside[:, 1, None]).to(ground.dtype)
    known = known * valid.reshape(-1)[flat]
    cells = ground.reshape(-1, ground.shape[3]).index_select(0, flat.flatten())
    return cells.reshape(*flat.shape, -1) * known[..., None], known
