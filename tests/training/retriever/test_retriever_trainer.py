"""Tests of `skylink.training.retriever`: learning, chunks, going on, and what goes wrong."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("timm")

from retriever_helpers import benchmark_of, encoder_of, log_of, retriever_config
from skylink.errors import ModelError, OptionError, QueriesError
from skylink.mined import MapPlace
from skylink.minedfile import MinedFile, write_mined
from skylink.training.retriever.config import RetrieverConfig
from skylink.training.retriever.trainer import RetrieverTrainer, recall
from training_helpers import write_lists


@pytest.fixture(scope="module")
def encoder(once: Any) -> str:
    return encoder_of(once)


@pytest.fixture(scope="module")
def root(once: Any) -> Path:
    return benchmark_of(once)


def weights_equal(one: RetrieverTrainer, other: RetrieverTrainer) -> bool:
    theirs = other.weights()
    return all(torch.equal(w, theirs[name]) for name, w in one.weights().items())


def own_recall(trainer: RetrieverTrainer) -> dict[str, float]:
    examples = trainer.examples
    return recall(examples, *(trainer._described(x) for x in (examples.photos, examples.tiles)))


@pytest.mark.slow
def test_a_training_puts_photos_beside_their_tiles(
    encoder: str, root: Path, tmp_path: Path
) -> None:
    config = retriever_config(
        encoder, root, tmp_path / "out", data={"held_out": 0, "rotations": "none"},
        optimizer={"steps": 40, "photos_per_step": 8},
    )  # fmt: skip
    trainer = RetrieverTrainer(config)
    before = own_recall(trainer)
    outcome = trainer.run()
    losses = [entry["loss"] for entry in log_of(config)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert own_recall(trainer)["mrr"] > before["mrr"]
    assert (outcome.best, outcome.step) == (None, 40)
    assert trainer.temperature != pytest.approx(config.loss.temperature, rel=1e-6)


def test_chunks_of_a_batch_teach_as_the_whole(encoder: str, root: Path, tmp_path: Path) -> None:
    def run(out: str, at_once: int) -> RetrieverTrainer:
        config = retriever_config(
            encoder, root, tmp_path / out, optimizer={"steps": 2},
            compute={"pictures_at_once": at_once},
        )  # fmt: skip
        trainer = RetrieverTrainer(config)
        trainer.run()
        return trainer

    whole, parts = run("whole", 64), run("parts", 3)
    one, other = log_of(whole.config), log_of(parts.config)
    for key in ("loss", "grad_norm", "photos"):
        assert [e[key] for e in other] == pytest.approx([e[key] for e in one], rel=1e-4)
    assert parts.temperature == pytest.approx(whole.temperature, rel=1e-5)
    assert parts.temperature != pytest.approx(0.07, rel=1e-6)


@pytest.mark.parametrize("loss", ["infonce", "relational"])
def test_graded_labels_are_learnt(once: Any, encoder: str, tmp_path: Path, loss: str) -> None:
    root = benchmark_of(once, "gtauav")
    config = retriever_config(
        encoder, root, tmp_path / "out", benchmark="gtauav", loss={"name": loss},
        data={"held_out": 0, "task": "cross-area"}, optimizer={"steps": 2},
    )  # fmt: skip
    trainer = RetrieverTrainer(config)
    labels = trainer.batches.at(0, trainer.hardest.numpy()).labels
    assert ((labels > 0) & (labels < 1)).any()
    trainer.run()
    assert all(math.isfinite(entry["loss"]) for entry in log_of(config))


class Killed(BaseException):
    """Not to be caught by anything."""


def test_an_interrupted_run_ends_as_an_unbroken_one(
    encoder: str, root: Path, tmp_path: Path
) -> None:
    def config(out: str) -> RetrieverConfig:
        return retriever_config(
            encoder, root, tmp_path / out, data={"mine_every": 1, "hard": 2},
            optimizer={"steps": 7}, validation={"every": 2}, checkpoints={"every": 1},
        )  # fmt: skip

    def kill_at(step: int) -> Any:
        def progress(done: int, total: int, words: str) -> None:
            if done >= step:
                raise Killed

        return progress

    whole = RetrieverTrainer(config("whole"))
    outcome = whole.run()
    for step in (2, 3, 5):
        torch.manual_seed(step)  # whatever else draws
        with pytest.raises(Killed):
            RetrieverTrainer(config("broken")).run(kill_at(step))
    last = RetrieverTrainer(config("broken"))
    assert last.loop.done == 5
    ended = last.run()
    assert (ended.step, ended.best) == (outcome.step, outcome.best)
    assert log_of(config("broken")) == log_of(config("whole"))
    assert weights_equal(last, whole)


def test_mined_lists_tell_the_hardest(encoder: str, tmp_path: Path) -> None:
    write_lists(tmp_path)
    write_lists(tmp_path, name="held", lists=8)
    lists = {
        "benchmark": None, "root": None, "held_out": 0, "train": tmp_path / "train.jsonl",
        "validation": [tmp_path / "held.jsonl"], "mine_every": 0,
    }  # fmt: skip
    trainer = RetrieverTrainer(retriever_config(encoder, tmp_path, tmp_path / "out", data=lists))
    assert trainer.validation is not None
    assert (len(trainer.examples), len(trainer.validation)) == (16, 8)
    for number, mined in enumerate(MinedFile(tmp_path / "train.jsonl")):
        wrong = [c.id for c in mined.candidates if not c.is_ground_truth]
        known = trainer.hardest[number][: len(wrong)].tolist()
        assert [trainer.examples.tiles[row].id for row in known] == wrong
    outcome = trainer.run()
    assert outcome.best is not None
    assert set(outcome.best) == {"recall@1", "mrr"}


def test_batch_normalisation_keeps_its_statistics(root: Path, tmp_path: Path) -> None:
    import timm

    network = timm.create_model("test_resnet", pretrained=False, num_classes=0)
    torch.save(network.state_dict(), tmp_path / "resnet.pth")
    spec = f"timm:test_resnet@{tmp_path / 'resnet.pth'}"
    trainer = RetrieverTrainer(retriever_config(spec, root, tmp_path / "out", data={"held_out": 0}))
    trainer.run()
    after = trainer.network.state_dict()
    for name, before in network.state_dict().items():
        moved = not torch.equal(after[name], before)
        assert moved != ("running" in name or "num_batches" in name), name
    assert not trainer.network.training


# ---- what is refused


def test_training_and_test_may_not_share_places(encoder: str, root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    shared = sorted((copy / "train" / "drone").iterdir())[0].name
    test = sorted((copy / "test" / "query_drone").iterdir())[0].name
    for folder in (copy / "test").iterdir():
        if (folder / test).exists():
            (folder / test).rename(folder / shared)
    with pytest.raises(OptionError, match=rf"places are in training and in test: {shared}"):
        RetrieverTrainer(retriever_config(encoder, copy, tmp_path / "out"))


def lists_config(encoder: str, folder: Path, **data: Any) -> RetrieverConfig:
    lists = {"benchmark": None, "root": None, "held_out": 0, "train": folder / "train.jsonl"}
    return retriever_config(encoder, folder, folder / "out", data=lists | data)


def test_lists_of_the_test_split_are_refused(encoder: str, tmp_path: Path) -> None:
    write_lists(tmp_path, split="test")
    with pytest.raises(QueriesError, match="test split"):
        RetrieverTrainer(lists_config(encoder, tmp_path))
    write_lists(tmp_path)
    with pytest.raises(OptionError, match="queries of validation lists"):
        RetrieverTrainer(lists_config(encoder, tmp_path, validation=[tmp_path / "train.jsonl"]))
    (tmp_path / "train/3.png").unlink()
    with pytest.raises(QueriesError, match=r"'train/3.png'"):
        RetrieverTrainer(lists_config(encoder, tmp_path))


def test_places_on_a_map_are_refused(encoder: str, tmp_path: Path) -> None:
    file = MinedFile(write_lists(tmp_path))
    place = MapPlace(area=0, level=0, x_m=0, y_m=0, lon=0, lat=0)
    lists = [
        m.model_copy(
            update={
                "candidates": tuple(
                    c.model_copy(update={"path": None, "place": place}) for c in m.candidates
                )
            }
        )
        for m in file
    ]
    write_mined(file.path, file.header.provenance, lists)
    with pytest.raises(OptionError, match="is a place on a map"):
        RetrieverTrainer(lists_config(encoder, tmp_path))


@pytest.mark.parametrize("spec", ["embedded", "vlad", "geoembed", "onnx:x.onnx", "timm:", "nobody"])
def test_other_encoders_are_refused_first(spec: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="can't be trained") as caught:
        RetrieverTrainer(retriever_config(spec, tmp_path / "nowhere", tmp_path / "out"))
    assert "timm:NAME" in str(caught.value.hint)


def test_other_choices_are_refused(encoder: str, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    RetrieverTrainer(retriever_config(encoder, root, out)).run()
    with pytest.raises(OptionError, match=r"other choices: data.hard, optimizer.lr"):
        RetrieverTrainer(
            retriever_config(encoder, root, out, data={"hard": 2}, optimizer={"lr": 0.5})
        )
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    again = RetrieverTrainer(retriever_config(encoder, moved, out))
    assert again.loop.done == 4
    fresh = RetrieverTrainer(retriever_config(encoder, root, out, seed=4), resume=False)
    assert fresh.loop.done == 0


@pytest.mark.parametrize("at_once", [64, 3])
def test_what_is_not_finite_names_the_photos(
    encoder: str, root: Path, tmp_path: Path, at_once: int
) -> None:
    trainer = RetrieverTrainer(
        retriever_config(
            encoder,
            root,
            tmp_path / "out",
            checkpoints={"every": 1},
            compute={"pictures_at_once": at_once},
            data={"mine_every": 0},
        )
    )

    def spoil(done: int, total: int, words: str) -> None:
        with torch.no_grad():
            next(trainer.network.parameters()).fill_(math.nan)

    with pytest.raises(ModelError, match="the loss of step 2 is not finite") as caught:
        trainer.run(spoil)
    assert "'train/drone/" in caught.value.message
    assert "step-00000001.pt is the last good" in caught.value.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"benchmark": None, "root": None}, "nothing to learn from"),
        ({"train": "x.jsonl"}, "not both"),
        ({"root": None}, "has no folder"),
        ({"validation": ["x.jsonl"]}, "go with mined lists"),
    ],
)
def test_what_to_learn_from_is_said_once(data: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        retriever_config("timm:x", Path("x"), Path("y"), data=data)


def test_an_unknown_benchmark_or_device_is_named(encoder: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'nope'"):
        RetrieverTrainer(retriever_config(encoder, root, tmp_path, benchmark="nope"))
    with pytest.raises(OptionError, match=r"compute\.device = 'gpu'"):
        RetrieverTrainer(retriever_config(encoder, root, tmp_path, compute={"device": "gpu"}))
