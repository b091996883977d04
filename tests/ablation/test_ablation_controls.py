"""Tests of the controls: shuffled pictures, and the head without a language model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ablation_helpers import write_grid
from skylink.ablation.grid_file import read_grid
from skylink.ablation.held_out import HeldOut
from skylink.ablation.pictures import ShuffledShow, list_show
from skylink.ablation.result import Done
from skylink.ablation.run import Ablation
from skylink.minedfile import MinedFile


def test_pictures_are_exchanged_within_training_lists_alone(folder: Path) -> None:
    train, held = MinedFile(folder / "train.jsonl"), MinedFile(folder / "held.jsonl")
    plain = list_show(folder, None, needed=False, way="auto", size_px=64)

    def shuffled(seed: int) -> ShuffledShow:
        return ShuffledShow(
            folder, None, needed=False, way="auto", size_px=64, queries=train.queries, seed=seed
        )

    def order(seed: int, number: int) -> list[int]:
        before = plain(train[number], range(4))
        after = shuffled(seed)(train[number], range(4))
        assert np.array_equal(after.photo, before.photo)
        assert after.ids == before.ids
        return [
            next(i for i, old in enumerate(before.candidates) if np.array_equal(old, new))
            for new in after.candidates
        ]

    orders = [order(0, number) for number in range(16)]
    assert all(sorted(each) == [0, 1, 2, 3] for each in orders)
    assert len({tuple(each) for each in orders}) > 4
    assert orders == [order(0, number) for number in range(16)]
    assert orders != [order(1, number) for number in range(16)]
    before, after = (show(held[0], range(4)) for show in (plain, shuffled(0)))
    assert all(map(np.array_equal, before.candidates, after.candidates))


def pairs_of(folder: Path, *, hidden: int, seed: int = 0, out: str = "out") -> tuple[Done, HeldOut]:
    """The control after 30 steps, and the lists that it was judged by."""
    rows = f'[[rows]]\nmodels = ["pairs-head"]\n[pairs]\nhidden = {hidden}\nlr = 0.003\n'
    grid = read_grid(write_grid(folder, "none", rows=rows, seeds=f"[{seed}]", steps=30))
    ablation = Ablation(grid, folder / out)
    ablation.run()
    (result,) = ablation.results().values()
    assert isinstance(result.found, Done)
    return result.found, ablation.held


def test_the_head_is_the_same_again_and_learns_its_lists(folder: Path) -> None:
    found = pairs_of(folder, hidden=32)[0]
    again = pairs_of(folder, hidden=32, out="again")[0]
    assert found.depths == again.depths
    other = pairs_of(folder, hidden=32, seed=1, out="other")[0]
    assert other.trained is not None
    assert found.trained is not None
    assert other.trained.stability != found.trained.stability
    (log,) = folder.glob("out/cells/*/training/log.jsonl")
    assert len(log.read_text().splitlines()) == found.trained.steps == 30
    (at,) = found.depths
    assert at.validation["fused"] >= at.validation["base"] == pytest.approx(0.25)


def test_a_linear_head_knows_popular_tiles_at_most(folder: Path) -> None:
    found, held = pairs_of(folder, hidden=0)
    beaten = set()
    for pick, rank in zip(held, found.depths[0].pure.ranks, strict=True):
        names = [c.id for c in pick.mined.candidates]
        right = names[int(pick.mined.ground_truth.argmax())]
        if rank == 1:
            beaten |= {(right, other) for other in names if other != right}
    # whichever of two tiles it prefers, it prefers for every photo
    assert beaten
    assert not any((other, right) in beaten for right, other in beaten)
