"""What a step sees: a function of the seed, the step, and which tiles are known to be hardest.

Position p of the training is photo p mod N of epoch p // N, in an order by seed and epoch. Each
photo brings its tile, and some drawn from its hardest wrong ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skylink.training.retriever.config import Data
from skylink.training.retriever.examples import NONE, Examples
from skylink.training.retriever.pictures import AS_IT_IS, Turn

ORDER, DRAW, TURN = 0, 1, 2
"""Streams of random numbers."""
BLOCK_BYTES = 256_000_000
"""Of similarities: photos are compared with the tiles in blocks of as many as fit."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """B photos and N tiles, none of them twice.

    Attributes:
        photos, tiles: their rows in the examples.
        partner: (B,) int64, which of the N tiles is each photo's own.
        same: (B, N) bool: the tile shows the photo's place.
        labels: (B, N) float32: relevance, where the examples say one.
        photo_turns, tile_turns: how each is turned.
    """

    photos: tuple[int, ...]
    tiles: tuple[int, ...]
    partner: NDArray[np.int64]
    same: NDArray[np.bool_]
    labels: NDArray[np.float32]
    photo_turns: tuple[Turn, ...]
    tile_turns: tuple[Turn, ...]


class Batches:
    """Batches by step.

    Args:
        examples: what is learnt from.
        data: of the configuration.
        size: photos of a batch.
        seed: of order and draws.
    """

    def __init__(self, examples: Examples, data: Data, *, size: int, seed: int) -> None:
        self.examples, self.size = examples, min(size, len(examples))
        self._data, self._seed = data, seed
        self._order: tuple[int, NDArray[np.int64]] = -1, np.empty(0, np.int64)

    def mines_at(self, step: int) -> bool:
        """Whether the hardest tiles are looked for before this step: it begins such an epoch."""
        every = self._data.mine_every
        if not every or not self._data.hard:
            return False
        if step == 0:
            return bool((self.examples.hardest == NONE).all())  # mined lists know some
        began = self._epoch(step - 1) // every
        return self._epoch(step) // every > began

    def at(self, step: int, hardest: NDArray[np.int64]) -> Batch:
        """The batch of a step.

        Args:
            step: from 0.
            hardest: (Q, P) as in `Examples`.
        """
        examples = self.examples
        photos = tuple(dict.fromkeys(self._photo(step * self.size + i) for i in range(self.size)))
        draw = np.random.default_rng((self._seed, DRAW, step))
        own = [int(draw.choice(examples.right[photo])) for photo in photos]
        wanted = list(own)
        for photo in photos:
            known = hardest[photo][hardest[photo] != NONE]
            count = min(self._data.hard, len(known))
            wanted += draw.choice(known, count, replace=False).tolist() if count else []
        tiles = tuple(dict.fromkeys(wanted))
        place_of = {tile: place for place, tile in enumerate(tiles)}
        turns = self._turns(step, len(tiles))
        partner = np.array([place_of[tile] for tile in own], np.int64)
        same = [examples.shows_place_of(photo) for photo in photos]
        labels = [[examples.labels[photo].get(tile, 0.0) for tile in tiles] for photo in photos]
        return Batch(
            photos=photos,
            tiles=tiles,
            partner=partner,
            same=np.array([[tile in known for tile in tiles] for known in same], np.bool_),
            labels=np.array(labels, np.float32),
            photo_turns=tuple(self._followed(turns[place]) for place in partner),
            tile_turns=tuple(turns),
        )

    def _photo(self, position: int) -> int:
        epoch, place = divmod(position, len(self.examples))
        if epoch != self._order[0]:
            draw = np.random.default_rng((self._seed, ORDER, epoch))
            self._order = epoch, draw.permutation(len(self.examples))
        return int(self._order[1][place])

    def _epoch(self, step: int) -> int:
        """Of the first photo of a step."""
        return step * self.size // len(self.examples)

    def _turns(self, step: int, count: int) -> list[Turn]:
        draw = np.random.default_rng((self._seed, TURN, step))
        flips = draw.integers(2, size=count) if self._data.flips else np.zeros(count, int)
        turning = self._data.rotations != "none"
        quarters = draw.integers(4, size=count) if turning else np.zeros(count, int)
        return [(bool(f), int(q)) for f, q in zip(flips, quarters, strict=True)]

    def _followed(self, turn: Turn) -> Turn:
        """How a photo is turned whose tile is turned so: a mirrored place is another one."""
        mirrored, quarters = turn
        if self._data.rotations == "together":
            return mirrored, quarters
        return (mirrored, 0) if mirrored else AS_IT_IS


def hardest_tiles(
    examples: Examples, photos: NDArray[np.float32], tiles: NDArray[np.float32], count: int
) -> NDArray[np.int64]:
    """(Q, count) wrong tiles that are most like each photo, then `NONE`.

    Args:
        examples: who is right for whom.
        photos, tiles: (Q, D) and (G, D) float32 descriptors, unit norm.
        count: how many.
    """
    found = np.full((len(photos), count), NONE, np.int64)
    block = max(1, BLOCK_BYTES // (4 * len(tiles)))
    for start in range(0, len(photos), block):
        scores = photos[start : start + block] @ tiles.T
        for offset, row in enumerate(scores):
            photo = start + offset
            row[list(examples.shows_place_of(photo))] = -np.inf
            best = np.argsort(-row, kind="stable")[:count]
            best = best[np.isfinite(row[best])]
            found[photo, : len(best)] = best
    return found
