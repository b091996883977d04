"""Tests of `skylink.ablation.held_out`: what a ranking is worth, and which queries go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skylink.ablation.grid import Test
from skylink.ablation.held_out import HeldOut, scored
from skylink.errors import OptionError, QueriesError
from skylink.mined import MapPlace, Measured, MinedCandidate, MinedList
from skylink.minedfile import write_mined
from skylink.reranker import Fusion
from training_helpers import provenance


def candidate(name: str, rank: int | None, right: bool, metres: float | None) -> MinedCandidate:
    return MinedCandidate(
        id=name, path=f"{name}.png", rank=rank, is_ground_truth=right, label=float(right),
        base_score=None if rank is None else 1 - rank / 10, measured=Measured(distance_m=metres),
    )  # fmt: skip


def listed(query: str, *candidates: MinedCandidate) -> MinedList:
    return MinedList(query=query, path=f"photos/{query}.png", candidates=candidates)


def opened(
    folder: Path,
    lists: list[MinedList],
    *,
    depth: int = 2,
    apart: str = "",
    tolerance_m: float | None = None,
) -> HeldOut:
    path = folder / "test.jsonl"
    write_mined(path, provenance(split="test", ground_truth="not-forced"), lists)
    test = Test(lists=(path,), folder=folder, tolerance_m=tolerance_m)
    return HeldOut(test, depth, [apart] if apart else [])


LISTS = [
    listed("one", candidate("a", 1, False, 80.0), candidate("b", 2, True, 5.0),
           candidate("c", 3, True, 9.0)),
    listed("two", candidate("c", 1, True, 4.0), candidate("d", 2, False, 50.0)),
    listed("three", candidate("d", 1, False, 300.0), candidate("e", 2, False, 200.0),
           candidate("a", 3, True, 2.0)),
    listed("four", candidate("d", 1, False, 900.0), candidate("e", 2, False, 700.0)),
]  # fmt: skip


def test_the_first_candidates_are_ranked_and_the_others_stay_behind(tmp_path: Path) -> None:
    held = opened(tmp_path, LISTS)
    base = held.judge_base()
    assert base.ranks == (2, 1, 3, None)
    assert base.hits == [0, 1, 0, 0]
    assert base.precisions == pytest.approx(((1 / 2 + 2 / 3) / 2, 1, 1 / 3, 0))
    assert base.errors_m == (80, 4, 300, 900)
    turned = held.judge([np.array([0.0, 1.0])] * 4, Fusion())
    assert turned.ranks == (1, 2, 3, None)
    assert turned.precisions == pytest.approx(((1 + 2 / 3) / 2, 1 / 2, 1 / 3, 0))
    assert turned.errors_m == (5, 50, 200, 700)
    assert held.judge([np.array([0.0, 1.0])] * 4, Fusion(gate_margin=0.0)) == base


def test_with_a_tolerance_right_is_what_lies_near(tmp_path: Path) -> None:
    held = opened(tmp_path, LISTS, tolerance_m=200.0)
    base = held.judge_base()
    assert base.ranks == (1, 1, 2, None)
    assert base.errors_m == (80, 4, 300, 900)
    assert base.precisions == pytest.approx((1, 1, (1 / 2 + 2 / 3) / 2, 0))
    turned = held.judge([np.array([0.0, 1.0])] * 4, Fusion())
    assert turned.ranks == (1, 1, 1, None)
    assert scored(held[2], np.zeros(2)).right.tolist() == [False, True]
    assert scored(opened(tmp_path, LISTS)[2], np.zeros(2)).right.tolist() == [False, False]


def test_a_tolerance_needs_positions(tmp_path: Path) -> None:
    lists = [listed("one", candidate("a", 1, True, None), candidate("b", 2, False, 3.0))]
    with pytest.raises(QueriesError, match="'one': distance was not measured"):
        opened(tmp_path, lists, tolerance_m=50.0)


def test_queries_that_share_an_answer_are_one_block(tmp_path: Path) -> None:
    held = opened(tmp_path, LISTS)
    one, two, three, four = held.blocks
    assert one == two
    assert len({one, three, four}) == 3
    assert held.queries == ("one", "two", "three", "four")
    assert held.flights == ()


def test_on_a_map_neighbours_of_a_flight_are_one_block(tmp_path: Path) -> None:
    place = MapPlace(area=0, level=0, x_m=0.0, y_m=0.0, lon=0.0, lat=0.0)
    lists = [
        MinedList(query=f"{flight}/{frame}", path=f"{flight}/{frame}.jpg", candidates=tuple(
            MinedCandidate(id=f"pose-{rank}", place=place, base_score=-rank, rank=rank,
                           is_ground_truth=rank == 1, label=float(rank == 1))
            for rank in (1, 2)
        ))
        for flight, frames in (("a", 12), ("b", 3)) for frame in range(frames)
    ]  # fmt: skip
    held = opened(tmp_path, lists)
    assert held.needs_gallery
    assert np.bincount(held.blocks).tolist() == [10, 2, 3]
    assert held.flights == ("test/a",) * 12 + ("test/b",) * 3
    assert not held.has_positions
    assert held.judge_base().errors_m is None


def test_forced_lists_and_queries_of_training_are_refused(tmp_path: Path) -> None:
    forced = listed("five", candidate("a", 1, False, 3.0), candidate("b", None, True, 0.0))
    with pytest.raises(QueriesError, match="forced into 1") as caught:
        opened(tmp_path, [*LISTS, forced])
    assert "--no-force" in (caught.value.hint or "")
    with pytest.raises(OptionError, match="two"):
        opened(tmp_path, LISTS, apart="two")
