"""Tests of `skylink.training.trainer`: learning, stopping, going on, and what goes wrong."""

from __future__ import annotations

import errno
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from skylink.errors import ModelError, OptionError, OutputError, QueriesError
from skylink.training import state
from skylink.training.config import Optimizer, TrainConfig
from skylink.training.trainer import Trainer, rate_factor, steps_of
from skylink.training.validation import figures, score_lists
from training_helpers import config_for, write_lists

HEAD = {"how": "head"}


def losses(config: TrainConfig) -> list[Any]:
    lines = (config.out / "training" / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["step"] for entry in entries] == list(range(1, len(entries) + 1))
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in entries]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tune", "rate"), [({"r": 8, "dropout": 0.0}, 3e-3), (HEAD, 3e-2)], ids=["lora", "head"]
)
def test_training_ranks_held_out_lists_better(
    checkpoint: Path, tmp_path: Path, tune: dict[str, Any], rate: float
) -> None:
    write_lists(tmp_path, lists=32)
    write_lists(tmp_path, name="held", lists=16)
    config = config_for(
        checkpoint, tmp_path, judged_by=["held"], tune=tune,
        optimizer={"steps": 16, "lists_per_step": 4, "lr_lora": rate, "lr_head": rate},
        validation={"every": 4},
    )  # fmt: skip
    trainer = Trainer(config)
    untrained = figures(score_lists(trainer.validation, trainer.scorer, trainer.processes))
    outcome = trainer.run()
    assert outcome.best is not None
    assert outcome.best["base recall@1"] == 0.25
    assert outcome.best["recall@1"] >= max(0.25, untrained["recall@1"]) + 0.25
    # what the student holds at the end is that very step
    again = figures(score_lists(trainer.validation, trainer.scorer, trainer.processes))
    assert again == outcome.best
    log = losses(config)
    assert log[-1]["loss"] < log[0]["loss"]


def test_the_tower_sees_each_picture_once(checkpoint: Path, folder: Path) -> None:
    config = config_for(checkpoint, folder, tune=HEAD)
    trainer = Trainer(config)
    trainer.run()
    passes = trainer.student.backbone.tower_passes
    assert passes == len(trainer.lists.pictures)
    again = Trainer(config, resume=False)
    again.run()
    assert again.student.backbone.tower_passes == 0
    assert losses(config)[0]["lists"] == 4


@pytest.mark.parametrize(
    "compute",
    [{"gradient_checkpointing": True}, {"precision": "bf16"}],
    ids=["checkpointing", "bf16"],
)
def test_other_ways_to_compute_lose_alike(
    checkpoint: Path, folder: Path, compute: dict[str, Any]
) -> None:
    def run(out: str, **compute: Any) -> tuple[list[Any], Trainer]:
        config = config_for(
            checkpoint, folder, out=folder / out, optimizer={"steps": 2, "lists_per_step": 2},
            compute=compute,
        )  # fmt: skip
        trainer = Trainer(config)
        trainer.run()
        return losses(config), trainer

    plain, _ = run("plain")
    other, trainer = run("other", **compute)
    near = 1e-5 if "precision" not in compute else 0.1
    assert [e["loss"] for e in other] == pytest.approx([e["loss"] for e in plain], rel=near)
    assert other[0]["loss"] != 0
    assert all(p.dtype == torch.float32 for _, p in trainer.student.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("tune", [{"r": 4, "dropout": 0.1}, HEAD], ids=["lora", "head"])
def test_an_interrupted_run_goes_on_to_the_same_losses(
    checkpoint: Path, folder: Path, tune: dict[str, Any]
) -> None:
    def config(out: str) -> TrainConfig:
        return config_for(
            checkpoint, folder, judged_by=["held"], out=folder / out, tune=tune,
            data={"negatives": "sampled", "list_size": 3}, validation={"every": 2},
            optimizer={"steps": 6, "lists_per_step": 3, "lr_head": 1e-2, "weight_decay": 0.1},
            checkpoints={"every": 1},
        )  # fmt: skip

    unbroken = Trainer(config("unbroken"))
    outcome = unbroken.run()

    class Killed(BaseException):
        """Not to be caught by anything."""

    def kill_at(step: int) -> Any:
        def progress(done: int, total: int, words: str) -> None:
            if done >= step:
                raise Killed

        return progress

    for step in (1, 3, 4):
        torch.manual_seed(step)  # whatever else drew random numbers
        with pytest.raises(Killed):
            Trainer(config("broken")).run(kill_at(step))
    last = Trainer(config("broken"))
    assert last.done == 4
    ended = last.run()
    assert (ended.step, ended.best) == (outcome.step, outcome.best)
    assert losses(config("broken")) == losses(config("unbroken"))
    for name, weights in last.student.weights().items():
        assert torch.equal(weights, unbroken.student.weights()[name]), name


def test_a_finished_run_is_not_run_again_and_a_fresh_one_is(checkpoint: Path, folder: Path) -> None:
    config = config_for(checkpoint, folder, tune=HEAD)
    Trainer(config).run()
    again = Trainer(config)
    assert again.done == again.steps == 4
    again.run(lambda *_: pytest.fail("a step was done again"))
    fresh = Trainer(config_for(checkpoint, folder, tune=HEAD, optimizer={"steps": 2}), resume=False)
    assert fresh.done == 0
    fresh.run()
    assert [p.name for p in state.checkpoints(fresh.folder)] == ["step-00000002.pt"]


def test_a_checkpoint_of_other_choices_or_lists_is_refused(checkpoint: Path, folder: Path) -> None:
    Trainer(config_for(checkpoint, folder, tune=HEAD)).run()
    with pytest.raises(OptionError, match=r"other choices: optimizer.lr_head, seed") as caught:
        Trainer(config_for(checkpoint, folder, tune=HEAD, seed=9, optimizer={"lr_head": 0.5}))
    assert "--fresh" in str(caught.value.hint)
    write_lists(folder, seed=8)
    with pytest.raises(OptionError, match="the lists themselves"):
        Trainer(config_for(checkpoint, folder, tune=HEAD))


def test_a_damaged_checkpoint_is_named(checkpoint: Path, folder: Path) -> None:
    config = config_for(checkpoint, folder, tune=HEAD)
    Trainer(config).run()
    (path,) = state.checkpoints(config.out / "training")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=path.name):
        Trainer(config)


@pytest.mark.parametrize("tune", [{"r": 4}, HEAD], ids=["lora", "head"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e35])
def test_a_loss_that_is_not_finite_stops_and_names_the_lists(
    checkpoint: Path, folder: Path, tune: dict[str, Any], value: float
) -> None:
    trainer = Trainer(config_for(checkpoint, folder, tune=tune, checkpoints={"every": 1}))

    def spoil(done: int, total: int, words: str) -> None:
        if done == 2:
            trainer.student.head.weight.data[5] = value

    with pytest.raises(ModelError, match="the loss of step 3 is not finite") as caught:
        trainer.run(spoil)
    assert "'train-" in caught.value.message
    assert "step-00000002.pt is the last good checkpoint" in caught.value.message
    saved = state.load(state.checkpoints(trainer.folder)[-1])
    assert saved.step == trainer.done == 2
    assert all(torch.isfinite(w).all() for w in saved.weights.values())


def test_too_little_memory_says_what_to_do(
    checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(config_for(checkpoint, folder))

    def full(pick: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(trainer.scorer, "scores", full)
    with pytest.raises(ModelError, match="not enough memory") as caught:
        trainer.run()
    assert "gradient_checkpointing" in str(caught.value.hint)


def test_a_gradient_that_is_not_finite_stops(checkpoint: Path, folder: Path) -> None:
    trainer = Trainer(config_for(checkpoint, folder, tune=HEAD))
    trainer.student.head.weight.register_hook(lambda gradient: gradient * math.nan)
    before = trainer.student.weights()
    with pytest.raises(ModelError, match="the gradient of step 1 is not finite"):
        trainer.run()
    assert all(torch.equal(w, before[n]) for n, w in trainer.student.weights().items())


def test_validation_that_gets_no_better_stops(checkpoint: Path, folder: Path) -> None:
    config = config_for(
        checkpoint, folder, judged_by=["held"], tune=HEAD,
        optimizer={"steps": 50, "lr_head": 1e-9}, validation={"every": 1, "patience": 3},
    )  # fmt: skip
    outcome = Trainer(config).run()
    assert outcome.stopped_early
    assert (outcome.step, outcome.steps) == (1, 4)
    again = Trainer(config).run()  # stopped is stopped
    assert (again.step, again.steps) == (1, 4)


def test_a_full_disk_leaves_the_last_checkpoint(
    checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(checkpoint, folder, tune=HEAD, checkpoints={"every": 1, "keep": 1})
    trainer = Trainer(config)
    real = state.write_atomic

    def full(path: Path, data: bytes) -> Path:
        if "00000003" in path.name:
            monkeypatch.setattr("os.fsync", no_space)
        return real(path, data)

    def no_space(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state, "write_atomic", full)
    with pytest.raises(OutputError, match="No space left"):
        trainer.run()
    (path,) = trainer.folder.glob("*step-*")
    assert state.load(path).step == 2


def test_what_is_missing_is_said_before_the_model_loads(checkpoint: Path, folder: Path) -> None:
    nothing = folder / "no model"
    (folder / "train/0.png").unlink()
    with pytest.raises(QueriesError, match=r"'train/0.png'"):
        Trainer(config_for(nothing, folder))
    with pytest.raises(OptionError, match="relatonal"):
        Trainer(config_for(nothing, folder, loss={"name": "relatonal"}))
    with pytest.raises(QueriesError, match="nowhere"):
        Trainer(config_for(nothing, folder, data={"train": folder / "nowhere.jsonl"}))


def test_layers_that_are_not_there_are_named(checkpoint: Path, folder: Path) -> None:
    with pytest.raises(OptionError, match="no linear layer 'qkv'") as caught:
        Trainer(config_for(checkpoint, folder, tune={"targets": ["q_proj", "qkv"]}))
    assert "o_proj" in str(caught.value.hint)


def test_only_the_language_model_is_adapted(checkpoint: Path, folder: Path) -> None:
    student = Trainer(config_for(checkpoint, folder, tune={"targets": ["q_proj"]})).student
    names = [name for name, _ in student.named_parameters() if name.startswith("lora.")]
    assert len(names) == 2 * 2  # two layers, two factors each
    assert all("text_model" in name for name in names)


def test_learning_rates_rise_and_fall() -> None:
    optimizer = Optimizer(warmup=0.1, final_lr=0.2)
    factors = [rate_factor(optimizer, step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert all(a >= b for a, b in itertools.pairwise(factors[9:]))
    assert 0.2 <= factors[-1] < 0.21


@pytest.mark.parametrize(
    ("choices", "lists", "steps"),
    [
        ({"epochs": 1}, 16, 2),
        ({"epochs": 1}, 17, 3),
        ({"epochs": 0.01}, 16, 1),
        ({"steps": 7}, 5, 7),
    ],
)
def test_steps_of_a_run(choices: dict[str, Any], lists: int, steps: int) -> None:
    assert steps_of(Optimizer(lists_per_step=8, **choices), lists) == steps
