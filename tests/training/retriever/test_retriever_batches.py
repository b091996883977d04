"""Tests of `skylink.training.retriever.batches`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.datasets import Item
from skylink.training.retriever.batches import Batches, hardest_tiles
from skylink.training.retriever.config import Data
from skylink.training.retriever.examples import NONE, Examples
from skylink.training.retriever.pictures import turned

PLACES, PHOTOS = 6, 17


def examples(seed: int = 0, pool: int = 4) -> Examples:
    """Photos of places with two tiles each, and a nameless tile that photo 0 half shows."""
    draw = np.random.default_rng(seed)
    place = draw.integers(PLACES, size=PHOTOS)
    tiles = [Item(id=f"t{i}", path=Path("x"), place=str(i // 2)) for i in range(2 * PLACES)]
    hardest = np.full((PHOTOS, pool), NONE, np.int64)
    for photo in range(1, PHOTOS):
        wrong = [t for t in range(2 * PLACES) if t // 2 != place[photo]]
        hardest[photo, :3] = draw.permutation(wrong)[:3]
    return Examples(
        title="made up",
        photos=tuple(Item(id=f"p{i}", path=Path("x"), place=str(p)) for i, p in enumerate(place)),
        tiles=(*tiles, Item(id="half", path=Path("x"))),
        right=tuple((2 * int(p),) for p in place),
        labels=tuple({2 * int(p): 1.0} | ({2 * PLACES: 0.5} if not i else {})
                     for i, p in enumerate(place)),
        same=tuple(frozenset({2 * PLACES} if i == 0 else ()) for i in range(PHOTOS)),
        hardest=hardest,
    )  # fmt: skip


def batches(known: Examples, *, size: int = 5, seed: int = 1, **data: Any) -> Batches:
    return Batches(known, Data(benchmark="x", root=Path("x"), **data), size=size, seed=seed)


@given(step=st.integers(0, 200), seed=st.integers(0, 50), hard=st.integers(0, 4))
def test_a_batch_is_consistent_and_depends_on_seed_and_step_alone(
    step: int, seed: int, hard: int
) -> None:
    known = examples()
    batch = batches(known, seed=seed, hard=hard).at(step, known.hardest)
    assert len(set(batch.photos)) == len(batch.photos)
    assert len(set(batch.tiles)) == len(batch.tiles)
    for i, photo in enumerate(batch.photos):
        own = batch.tiles[batch.partner[i]]
        assert own in known.right[photo]
        assert batch.labels[i, batch.partner[i]] == 1
        same = {t for t in batch.tiles if known.tiles[t].place == known.photos[photo].place}
        same |= {2 * PLACES} & set(batch.tiles) if photo == 0 else set()
        assert {t for t, is_ in zip(batch.tiles, batch.same[i], strict=True) if is_} == same
        brought = set(known.hardest[photo]) & set(batch.tiles)
        assert len(brought) >= min(hard, (known.hardest[photo] != NONE).sum())
    again = batches(known, seed=seed, hard=hard)
    again.at(step + 3, known.hardest)
    assert repr(again.at(step, known.hardest)) == repr(batch)


def test_an_epoch_sees_each_photo_once() -> None:
    known = examples()
    source = batches(known, size=5)
    seen = [p for step in range(4) for p in source.at(step, known.hardest).photos]
    assert sorted(seen[:PHOTOS]) == list(range(PHOTOS))
    other = [p for step in range(4) for p in batches(known, seed=2).at(step, known.hardest).photos]
    assert other != seen


@pytest.mark.parametrize("rotations", ["none", "together", "tiles"])
@pytest.mark.parametrize("flips", [True, False])
def test_photos_are_turned_with_their_tiles(rotations: Any, flips: bool) -> None:
    known = examples()
    source = batches(known, flips=flips, rotations=rotations)
    turns = set()
    for step in range(30):
        batch = source.at(step, known.hardest)
        turns |= set(batch.tile_turns)
        for own, (mirrored, quarters) in zip(batch.partner, batch.photo_turns, strict=True):
            tile = batch.tile_turns[own]
            assert mirrored == tile[0]  # a mirrored place is another one
            assert quarters == (tile[1] if rotations == "together" else 0)
    assert len(turns) == (2 if flips else 1) * (1 if rotations == "none" else 4)


def test_turns_are_exact_and_all_different() -> None:
    square = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    made = {turned(square, (f, q)).tobytes() for f in (False, True) for q in range(4)}
    assert len(made) == 8
    np.testing.assert_array_equal(turned(square, (True, 0)), square[:, ::-1])
    np.testing.assert_array_equal(turned(square, (False, 1))[0, 0], square[0, 2])


@pytest.mark.parametrize(
    ("every", "steps"), [(0, []), (1, [0, 4, 7, 11, 14]), (2, [0, 7, 14]), (3, [0, 11])]
)
def test_when_the_hardest_are_looked_for(every: int, steps: list[int]) -> None:
    known = examples()
    unknown = Examples(
        title=known.title, photos=known.photos, tiles=known.tiles, right=known.right,
        labels=known.labels, same=known.same, hardest=np.full_like(known.hardest, NONE),
    )  # fmt: skip
    source = batches(unknown, mine_every=every)
    assert [step for step in range(16) if source.mines_at(step)] == steps
    assert not batches(unknown, mine_every=every, hard=0).mines_at(0)
    assert not batches(known, mine_every=every).mines_at(0)  # lists told them


def test_the_hardest_are_the_most_similar_wrong_ones() -> None:
    known, draw = examples(), np.random.default_rng(5)
    photos, tiles = (
        draw.standard_normal((n, 8)).astype(np.float32) for n in (PHOTOS, 2 * PLACES + 1)
    )
    found = hardest_tiles(known, photos, tiles, 30)
    for photo in range(PHOTOS):
        scores = tiles @ photos[photo]
        wrong = [t for t in range(len(tiles)) if t not in known.shows_place_of(photo)]
        wrong.sort(key=lambda t: -scores[t])
        assert found[photo].tolist() == wrong + [NONE] * (30 - len(wrong))
        assert len(wrong) == 2 * PLACES - 1 - (photo == 0)
