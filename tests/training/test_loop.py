"""Tests of `skylink.training.loop` with the least learner there is: a line through points."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from skylink.errors import ModelError, OptionError
from skylink.training import state
from skylink.training.config import Judging, RunConfig, Schedule
from skylink.training.config_file import default_text, fields, read_config, toml_text
from skylink.training.draws import drawn_from
from skylink.training.loop import Group, Loop, Part, Progress, last_checkpoint
from skylink.training.state import Weights, put_back, weights_of


class Rates(Schedule):
    """AdamW."""

    lr: float = 0.1


class Choices(RunConfig):
    """A line."""

    command = "fit-line"
    title = "A line"
    examples: ClassVar = {"out": "line"}
    optimizer: Rates = Rates()


class Line:
    """y = w x + b, learnt from points of y = 2 x - 1 that a step draws."""

    unit = "points"
    if_not_finite = "lower optimizer.lr"
    if_out_of_memory = "fewer points"

    def __init__(self, config: Choices, *, judged: bool = True) -> None:
        self.config, self.judged = config, judged
        self.module = torch.nn.Linear(1, 1)
        self.spoilt_at = -1
        with torch.no_grad():
            self.module.weight.fill_(0.0)
            self.module.bias.fill_(0.0)

    def groups(self) -> list[Group]:
        return [Group("line", list(self.module.parameters()), self.config.optimizer.lr)]

    def weights(self) -> Weights:
        return weights_of(self.module.state_dict().items())

    def set_weights(self, weights: Weights) -> None:
        put_back(self.module.state_dict().items(), weights)

    def batch(self, step: int) -> Sequence[Part]:
        with drawn_from((self.config.seed, step), torch.device("cpu")):
            xs = torch.rand(4, 1)
        if step == self.spoilt_at:
            xs[1] = math.nan
        return [Part((f"point {i}",), partial(self._backward, xs[i], 4)) for i in range(4)]

    def _backward(self, x: torch.Tensor, points: int) -> float:
        loss = (self.module(x) - (2 * x - 1)).square().mean()
        (loss / points).backward()
        return float(loss.detach())

    def validate(self) -> dict[str, float]:
        if not self.judged:
            return {}
        off = abs(self.module.weight.item() - 2) + abs(self.module.bias.item() + 1)
        return {"off": off}

    def better(self, new: dict[str, float], old: dict[str, float]) -> bool:
        return new["off"] < old["off"]


def choices(folder: Path, **sections: Any) -> Choices:
    known = {"out": folder / "out", "optimizer": {"steps": 60, "warmup": 0.1}}
    return Choices.model_validate(known | {"checkpoints": {"every": 7}} | sections)


def nothing(*_: Any) -> None:
    """No progress."""


def run(line: Line, progress: Progress = nothing, inputs: Sequence[str] = ("a",)) -> Any:
    config = line.config
    saved = last_checkpoint(config, inputs)
    assert config.optimizer.steps
    return Loop(line, config, steps=config.optimizer.steps, inputs=inputs, saved=saved).run(
        progress
    )


def log(config: Choices) -> list[dict[str, Any]]:
    lines = (config.out / "training" / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_it_learns_and_logs(tmp_path: Path) -> None:
    line = Line(choices(tmp_path))
    said: list[str] = []
    outcome = run(line, lambda done, total, words: said.append(f"{done}/{total} {words}"))
    entries = log(line.config)
    assert [entry["step"] for entry in entries] == list(range(1, 61))
    assert entries[-1]["loss"] < entries[0]["loss"] / 10
    assert entries[0].keys() == {"step", "loss", "grad_norm", "lr_line", "points"}
    assert entries[0]["lr_line"] == pytest.approx(0.1 / 6)
    assert outcome.best == {"off": min(e["off"] for e in entries if "off" in e)}
    assert line.validate() == outcome.best  # it holds the best weights
    assert said[0].startswith("1/60 loss ")
    assert ", off 0." in said[-1]


def test_without_validation_the_last_step_stays(tmp_path: Path) -> None:
    outcome = run(Line(choices(tmp_path), judged=False))
    assert (outcome.step, outcome.steps, outcome.best) == (60, 60, None)


def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    class Killed(BaseException):
        """Not to be caught by anything."""

    def kill(done: int, total: int, words: str) -> None:
        if done == 25:
            raise Killed

    whole = Line(choices(tmp_path / "whole"))
    run(whole)
    with pytest.raises(Killed):
        run(Line(choices(tmp_path / "broken")), kill)
    torch.rand(3)  # whatever else draws
    again = Line(choices(tmp_path / "broken"))
    first: list[int] = []
    run(again, lambda done, total, words: first.append(done))
    assert first[0] == 22
    assert log(again.config) == log(whole.config)
    assert all(torch.equal(w, again.weights()[name]) for name, w in whole.weights().items())


def test_other_choices_or_data_are_refused(tmp_path: Path) -> None:
    run(Line(choices(tmp_path)))
    with pytest.raises(OptionError, match=r"other choices: seed, the data themselves"):
        run(Line(choices(tmp_path, seed=4)), inputs=["b"])
    moved = choices(tmp_path, checkpoints={"every": 1})
    assert last_checkpoint(moved, ["a"]) is not None
    assert last_checkpoint(moved, ["b"], resume=False) is None


def test_what_is_not_finite_names_the_part_and_the_checkpoint(tmp_path: Path) -> None:
    line = Line(choices(tmp_path))
    line.spoilt_at = 30
    with pytest.raises(ModelError, match=r"step 31 .* on the points of 'point 1'; .*00000028") as e:
        run(line)
    assert "lower optimizer.lr" in str(e.value.hint)
    saved = state.load(state.checkpoints(tmp_path / "out" / "training")[-1])
    assert all(torch.isfinite(w).all() for w in saved.weights.values())


def test_a_step_of_nothing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(choices(tmp_path, optimizer={"steps": 3, "weight_decay": 0.5}), judged=False)
    with torch.no_grad():
        line.module.weight.fill_(1.0)
    before = line.weights()
    monkeypatch.setattr(line, "batch", lambda step: [])
    run(line)
    assert all(torch.equal(w, before[name]) for name, w in line.weights().items())
    assert log(line.config)[0]["loss"] is None


def test_patience_ends_it(tmp_path: Path) -> None:
    config = choices(tmp_path, validation=Judging(every=5, patience=2))
    line = Line(config)
    line.validate = lambda: {"off": 1.0}  # type: ignore[method-assign]
    outcome = run(line)
    assert (outcome.step, outcome.steps, outcome.stopped_early) == (5, 15, True)


def test_any_kind_of_choices_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text(default_text(Choices))
    config = read_config(path, Choices)
    assert (config.out, config.optimizer.lr) == (tmp_path / "line", 0.1)
    path.write_text(toml_text(config))
    assert read_config(path, Choices) == config
    assert ("optimizer.lr", "0.1", "") in fields(Choices)
    path.write_text('out = "x"\n[optimizer]\nlrr = 1')
    with pytest.raises(OptionError, match=r"no key optimizer\.lrr") as caught:
        read_config(path, Choices)
    assert "'optimizer.lr'" in str(caught.value.hint)
    path.write_text("seed = -1")
    with pytest.raises(OptionError, match="seed = -1") as caught:
        read_config(path, Choices)
    assert "skylink fit-line --print-config" in str(caught.value.hint)
