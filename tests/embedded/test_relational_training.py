"""Training relational models on a bank: its lists, a whole run, a killed one, and bad recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from skylink.cli import app
from skylink.embedded.bank import Bank
from skylink.embedded.relational_bank import FromBank
from skylink.embedded.relational_finish import finish
from skylink.embedded.relational_learner import RelationalLearner, judge
from skylink.embedded.relational_lists import score
from skylink.embedded.relational_recipe import RelationalRecipe, example_text
from skylink.embedded.relational_training import RelationalTraining
from skylink.errors import ModelError, OptionError, QueriesError
from skylink.training.config_file import read_config, toml_text


def recipe(bank: Path | str, out: Path, **sections: Any) -> RelationalRecipe:
    """A training of some steps on a small bank."""
    given: dict[str, Any] = {
        "out": out,
        "data": {"bank": bank, "held_out": bank, "list_size": 8},
        "lists": {"maps_per_step": 4, "views_per_map": 2, "min_cells": 4},
        "model": {"reach": 1, "layers": 1, "width": 16},
        "labels": {"threshold": 0.3},
        "optimizer": {"steps": 6, "lr": 3e-3},
        "validation": {"every": 3, "depth": 10},
        "checkpoints": {"every": 1},
    }
    for name, values in sections.items():
        given[name] = {**given.get(name, {}), **values} if isinstance(values, dict) else values
    return RelationalRecipe.model_validate(given)


@pytest.fixture
def folder(plain_bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next(iter(tmp_path_factory.getbasetemp().glob("plain_bank*")))


@pytest.mark.parametrize("source", ["overlap", "cosine"])
def test_a_list_has_the_truth_and_labels_by_what_was_asked_for(
    plain_bank: Bank, tmp_path: Path, source: str
) -> None:
    chosen = recipe("bank", tmp_path, labels={"source": source, "threshold": 0.3, "power": 1.0})
    lists = FromBank(chosen, plain_bank, None)
    batch = lists.at(3)
    again = lists.at(3)
    assert torch.equal(batch.where, again.where)
    assert torch.equal(batch.labels, again.labels)
    assert not torch.equal(batch.where, lists.at(4).where)
    assert batch.mask.all()
    assert batch.labels.shape == (len(batch.names), 8)
    assert len(batch.names) > 4
    corner = 3 + 1
    wrong = 3 * torch.arange(4) + 2  # two views and the decoy of each map
    for row, name in enumerate(batch.names):
        index, view = (int(part) for part in name.split("."))
        place = plain_bank.places[index, view]
        own = batch.where[row, :, 0] == batch.owner[row, 0] // 3
        decoy = torch.isin(batch.owner[row], wrong)
        assert decoy.sum() == 2
        assert own[decoy].all()
        assert (batch.labels[row][decoy] == 0).all()
        centres = batch.where[row, :, 1:].numpy() + corner
        apart = np.abs(centres - place)
        iou = np.clip(6 - apart, 0, None).prod(1)
        iou = iou / (72 - iou) * (own & ~decoy).numpy()
        best = int(iou.argmax())
        assert apart[best].max() <= 3  # within the grid's stride
        if source == "overlap":
            expected = np.where((iou >= 0.3) | (iou == iou.max()), iou, 0)
            assert batch.labels[row].numpy() == pytest.approx(expected, abs=1e-5)
        else:
            assert float(batch.labels[row, best]) == pytest.approx(1, abs=1e-5)
            assert ((batch.labels[row] == 0) | (batch.labels[row] >= 0.3)).all()


def test_the_untrained_model_ranks_as_what_lists_are_listed_by(
    plain_bank: Bank, tmp_path: Path
) -> None:
    chosen = recipe("bank", tmp_path, model={"softness": 1e-4, "falloff": 0})
    lists = FromBank(chosen, plain_bank, plain_bank)
    learner = RelationalLearner(chosen, lists)
    judged = next(lists.judged())
    assert judged.right.any(1).mean() > 0.9
    found = score(learner.model, judged.batch).detach().numpy()
    real = judged.batch.mask.numpy()
    assert found[real] == pytest.approx(judged.base[real], abs=1e-3)
    figures = judge(learner.model, lists)
    assert figures["recall@1"] == pytest.approx(figures["base recall@1"], abs=0.05)


@pytest.mark.parametrize("loss", ["relational", "hard", "binary"])
@pytest.mark.parametrize("kind", ["late", "transformer"])
def test_it_learns(plain_bank: Bank, tmp_path: Path, kind: str, loss: str) -> None:
    chosen = recipe("bank", tmp_path, model={"kind": kind}, loss={"name": loss})
    learner = RelationalLearner(chosen, FromBank(chosen, plain_bank, None))
    optimizer = torch.optim.Adam([p for group in learner.groups() for p in group.parameters], 5e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        (part,) = learner.batch(0)
        losses.append(part.backward())
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0]


def test_a_killed_run_goes_on_to_the_same_bits_and_finishes(folder: Path, tmp_path: Path) -> None:
    whole = RelationalTraining.of(recipe(folder, tmp_path / "whole"))
    whole.run()

    class Killed(Exception):
        pass

    def kill(step: int, steps: int, words: str) -> None:
        if step == 4:
            raise Killed

    part = recipe(folder, tmp_path / "part")
    with pytest.raises(Killed):
        RelationalTraining.of(part).run(kill)
    training = RelationalTraining.of(part)
    assert training.loop.done == 4
    outcome = training.run()
    ours, theirs = training.learner.weights(), whole.learner.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    about = finish(training, outcome)
    files = {path.name for path in part.out.iterdir()}
    assert files == {
        "relational.onnx", "model.safetensors", "config.toml", "skylink.json", "README.md",
        "training",
    }  # fmt: skip
    assert json.loads((part.out / "skylink.json").read_text()) == about
    assert about["held_out"]["recall@1"] == outcome.best["recall@1"]  # type: ignore[index]
    assert about["fusion"] is None  # these lists are no retriever's
    card = (part.out / "README.md").read_text()
    assert "| recall@1 |" in card
    assert "not told" in card
    again = read_config(part.out / "config.toml", RelationalRecipe)
    assert again.differences(part.json_dict()) == []
    with pytest.raises(OptionError, match=r"model\.reach"):
        RelationalTraining.of(recipe(folder, tmp_path / "part", model={"reach": 2}))


def test_the_shipped_recipe_can_be_read_and_one_without_data_not(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(example_text())
    shipped = read_config(path, RelationalRecipe)
    assert shipped.data.train == tmp_path / "train.jsonl"
    assert (shipped.labels.source, shipped.labels.power) == ("overlap", 4.0)
    path.write_text('out = "o"\n[data]\n')
    with pytest.raises(OptionError, match="either `bank` or `train`") as caught:
        read_config(path, RelationalRecipe)
    assert "skylink mine" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("sections", "kind", "words"),
    [
        ({"data": {"train": "lists.jsonl"}}, OptionError, "either `bank` or `train`"),
        (
            {"data": {"bank": None, "train": "l.jsonl", "held_out": None}},
            OptionError,
            "needs data.gall",
        ),
        ({"data": {"bank": None, "train": "lists.jsonl"}}, OptionError, "data.held_out belongs"),
        ({"data": {"validation": ["lists.jsonl"]}}, OptionError, "data.validation is of mined"),
        ({"data": {"bank": "nowhere"}}, ModelError, "data.bank: nowhere"),
        ({"labels": {"source": "distance"}}, OptionError, "overlap or cosine"),
        ({"labels": {"quantile": 0.5}}, OptionError, "both say the threshold"),
        ({"labels": {"quantile": 0.5, "threshold": None}}, OptionError, "overlap or cosine"),
        ({"lists": {"decoys": 7}}, OptionError, "decoys = 7"),
        ({"lists": {"views_per_map": 3}}, QueriesError, "have 2 views"),
        ({"model": {"width": 30}}, OptionError, "multiple of heads"),
        ({"loss": {"name": "relationnal"}}, OptionError, "unknown loss"),
        ({"loss": {"params": {"heat": 1.0}}}, OptionError, "heat"),
    ],
)
def test_bad_recipes_say_what_to_do(
    folder: Path, tmp_path: Path, sections: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        RelationalTraining.of(recipe(folder, tmp_path, **sections))
    assert caught.value.hint  # type: ignore[attr-defined]


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["train-relational", *map(str, words)])


def test_the_command_trains_and_says_what_to_do_next(folder: Path, tmp_path: Path) -> None:
    chosen = recipe(folder, tmp_path / "made")
    path = tmp_path / "relational.toml"
    path.write_text(toml_text(chosen))
    done = run(path)
    assert done.exit_code == 0, done.output
    assert "Next: skylink evaluate" in done.stderr
    assert (chosen.out / "relational.onnx").is_file()
    assert (chosen.out / "skylink.json").is_file()


def test_the_command_prints_recipes_and_runs_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = run("--print-recipe")
    assert printed.exit_code == 0
    assert printed.stdout.strip() == example_text().strip()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for command in ("train-relational", "train-encoder"):
        refused = CliRunner().invoke(app, [command, str(tmp_path / "none.toml")])
        assert refused.exit_code == 1
        assert "runs in one process" in refused.stderr
