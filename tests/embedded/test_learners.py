"""Both learners: some steps lower the loss, and a run that was cut goes on bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skylink.embedded.bank import Bank
from skylink.embedded.dense_learner import DenseLearner, hit_rates
from skylink.embedded.descriptor_learner import DescriptorLearner
from skylink.embedded.doubt import best_scores, doubts
from skylink.embedded.network import read_weights, shipped
from skylink.embedded.recipe import (
    Dense,
    DenseStage,
    Descriptor,
    DescriptorRates,
    DescriptorStage,
    Rates,
)
from skylink.embedded.sampling import different_ground, draw_maps
from skylink.embedded.tuned import TunedDescriptor
from skylink.retrievers.dense import FITS_BETTER, UNSURE
from skylink.training.config import Checkpoints, Judging
from skylink.training.loop import Loop, last_checkpoint

DENSE: dict[str, Any] = {"hidden": 16, "channels": 32, "maps_per_step": 4, "min_cells": 8}


def dense(bank: Bank, out: Path, steps: int = 30, **chosen: Any) -> DenseLearner:
    config = DenseStage(
        out=out, dense=Dense(**DENSE | chosen),
        optimizer=Rates(steps=steps, lr=5e-3, weight_decay=0), validation=Judging(every=10),
        checkpoints=Checkpoints(every=5),
    )  # fmt: skip
    return DenseLearner(config, bank, bank)


def descriptor(bank: Bank, out: Path, steps: int, **chosen: Any) -> DescriptorLearner:
    config = DescriptorStage(
        out=out, descriptor=Descriptor(
            **{"size": 24, "maps_per_step": 6, "min_cells": 8, **chosen}
        ),
        optimizer=DescriptorRates(steps=steps, lr=3e-4, lr_projection=3e-3, weight_decay=0),
        validation=Judging(every=steps), checkpoints=Checkpoints(every=2),
    )  # fmt: skip
    torch.manual_seed(0)
    model = TunedDescriptor(24)
    read_weights(model.top, shipped("top"))
    return DescriptorLearner(config, bank, bank, model)


def mean_loss(learner: DenseLearner, count: int) -> float:
    with torch.no_grad():
        rng = np.random.default_rng(9)
        return float(np.mean([
            learner.loss(draw_maps(learner.bank, rng, 4, 0), [0, 1]) for _ in range(count)
        ]))  # fmt: skip


@pytest.mark.parametrize("labels", ["overlap", "hard"])
def test_the_head_learns(plain_bank: Bank, tmp_path: Path, labels: str) -> None:
    learner = dense(plain_bank, tmp_path, labels=labels)
    before, figures = mean_loss(learner, 8), learner.validate()
    outcome = Loop(learner, learner.config, steps=30).run()
    assert mean_loss(learner, 8) < before - 0.05
    assert outcome.best is not None
    assert outcome.best.keys() == figures.keys()
    assert {"hits", "hits synthetic", "own synthetic"} == set(figures)
    assert 0 < figures["hits"] <= figures["own synthetic"] <= 1


def test_the_head_goes_on_bit_for_bit(plain_bank: Bank, tmp_path: Path) -> None:
    whole = dense(plain_bank, tmp_path / "whole", 15)
    Loop(whole, whole.config, steps=15).run()
    cut = dense(plain_bank, tmp_path / "cut", 15)
    loop = Loop(cut, cut.config, steps=15)

    class Killed(Exception):
        pass

    def kill(done: int, *_: object) -> None:
        if done == 12:
            raise Killed

    with pytest.raises(Killed):
        loop.run(kill)
    again = dense(plain_bank, tmp_path / "cut", 15)
    saved = last_checkpoint(again.config, [])
    assert saved is not None
    assert saved.step == 10
    Loop(again, again.config, steps=15, saved=saved).run()
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, again.weights()[name]), name


def test_without_a_threshold_or_decoys_is_another_loss(plain_bank: Bank, tmp_path: Path) -> None:
    losses = {
        name: mean_loss(dense(plain_bank, tmp_path, **chosen), 3)
        for name, chosen in {
            "as it is": {}, "no threshold": {"threshold": 0.0}, "no decoys": {"decoys": False},
            "hard": {"labels": "hard"},
        }.items()
    }  # fmt: skip
    assert len({round(value, 6) for value in losses.values()}) == 4
    assert losses["no decoys"] < losses["as it is"]  # fewer candidates


def test_views_of_nothing_teach_nothing(plain_bank: Bank, tmp_path: Path) -> None:
    learner = dense(plain_bank, tmp_path, min_cells=37)  # of 36
    (part,) = learner.batch(0)
    assert part.backward() == 0
    assert not any(p.grad is not None and p.grad.any() for p in learner.head.parameters())


def test_the_same_step_is_the_same_batch(plain_bank: Bank, tmp_path: Path) -> None:
    names = [dense(plain_bank, tmp_path).batch(step)[0].names for step in (3, 3, 4)]
    assert names[0] == names[1] != names[2]


def test_the_descriptor_learns(bank: Bank, tmp_path: Path) -> None:
    learner = descriptor(bank, tmp_path, 8)
    draws = [learner.draw(np.random.default_rng(i)) for i in range(3)]

    def mean() -> float:
        with torch.no_grad():
            return float(np.mean([learner.loss(each) for each in draws]))

    before = mean()
    outcome = Loop(learner, learner.config, steps=8).run()
    assert mean() < before - 0.1
    figures = outcome.best
    assert figures is not None
    assert next(iter(figures)) == "recall@1"
    assert {"base recall@20 synthetic", "tuned recall@1", "recall@20"} <= set(figures)
    assert all(0 <= value <= 1 for value in figures.values())


def test_tiles_of_a_draw_lie_on_the_map_and_near_their_views(bank: Bank, tmp_path: Path) -> None:
    learner = descriptor(bank, tmp_path, 2, jitter_cells=0.0)
    drawn = learner.draw(np.random.default_rng(0))
    assert drawn.corners.shape == (6, 2 + 2, 2)
    assert drawn.corners.min() >= 0
    assert drawn.corners.max() <= 2
    near = np.clip(np.rint(bank.places[drawn.maps][:, drawn.views] - 3), 0, 2)
    assert np.array_equal(drawn.corners[:, :2], near)


def test_maps_of_the_same_ground_are_no_candidates() -> None:
    allowed = different_ground(np.array([1, 2, 1], np.int32))
    assert allowed.tolist() == [[True, True, False], [True, True, True], [False, True, True]]


def test_doubts_of_the_base_are_the_base_s(plain_bank: Bank) -> None:
    class Same(torch.nn.Module):
        def forward(self, cells: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(cells, dim=-1, eps=1e-6)

    scores = best_scores(plain_bank, np.arange(len(plain_bank)), None)
    unsure, margin = doubts(plain_bank, Same())
    assert margin == pytest.approx(FITS_BETTER, rel=1e-3)
    assert (scores < unsure).mean() == pytest.approx((scores < UNSURE).mean(), abs=0.03)


def test_hit_rates_need_two_maps(plain_bank: Bank) -> None:
    assert hit_rates(plain_bank, None)["hits"] > 0.2
