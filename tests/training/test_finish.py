"""Tests of `skylink.training.finish`: the folder that re-rankers load as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from skylink.errors import ModelError, OutputError
from skylink.lvlm.adapter import read_info
from skylink.lvlm.load import load_scorer
from skylink.lvlm.options import LvlmOptions
from skylink.training.config import TrainConfig
from skylink.training.config_file import read_config
from skylink.training.finish import finish
from skylink.training.trainer import Trainer
from training_helpers import config_for


def trained(checkpoint: Path, folder: Path, **sections: Any) -> Trainer:
    """After its run."""
    config = config_for(
        checkpoint, folder, **({
            "judged_by": ["held"], "validation": {"every": 2},
            "optimizer": {"steps": 4, "lr_lora": 3e-3, "lr_head": 1e-2},
        } | sections)
    )  # fmt: skip
    return Trainer(config)


@pytest.mark.slow
@pytest.mark.parametrize("tune", [{"r": 4}, {"how": "head"}], ids=["lora", "head"])
def test_the_folder_scores_as_the_trainers_model(
    checkpoint: Path, folder: Path, tune: dict[str, Any]
) -> None:
    trainer = trained(checkpoint, folder, tune=tune)
    outcome = trainer.run()
    info = finish(trainer, outcome)
    out = trainer.config.out
    assert info == read_info(out)
    assert (info.lora_sha256 is None) == (tune == {"how": "head"})
    options = LvlmOptions(adapter=out, device="cpu", cache_gb=0)
    scorer = load_scorer(str(checkpoint), options)
    untrained = load_scorer(
        str(checkpoint), LvlmOptions(template="pointwise-short-v1", device="cpu", cache_gb=0,
                                     visual_tokens=16)
    )  # fmt: skip
    for pick in trainer.validation:
        showing = trainer.prompter.show(pick.mined, pick.rows)
        with torch.no_grad():
            ours = trainer.scorer.scores(pick).numpy()
        np.testing.assert_allclose(scorer.score(showing), ours, atol=2e-5)
        assert np.abs(untrained.score(showing) - ours).max() > 1e-2
    assert scorer.trained
    assert scorer.options.visual_tokens == 16


def test_what_is_fitted_is_saved_and_not_below_the_base(checkpoint: Path, folder: Path) -> None:
    trainer = trained(checkpoint, folder)
    info = finish(trainer, trainer.run())
    assert info is not None
    assert info.base_weight is not None
    assert info.temperature is not None
    found = info.about["validation"]
    assert found["fused"]["recall@1"] >= found["base"]["recall@1"] == 0.25
    assert found["lists"] == 12
    card = (trainer.config.out / "README.md").read_text()
    for words in ("| base | 25.00 |", "relational", info.about["data"]["lists sha256"], "Use"):
        assert words in card
    assert "PEFT" not in card
    picture = cv2.imread(str(trainer.config.out / "reliability.png"))
    assert picture is not None
    assert picture.std() > 5
    assert read_config(trainer.config.out / "config.toml", TrainConfig) == trainer.config


def test_without_validation_nothing_is_claimed(checkpoint: Path, folder: Path) -> None:
    trainer = trained(checkpoint, folder, judged_by=[], tune={"how": "head"})
    info = finish(trainer, trainer.run())
    assert info is not None
    assert (info.base_weight, info.gate_margin, info.temperature) == (None, None, None)
    assert info.about["best_step"] == 4
    assert "no validation lists" in (trainer.config.out / "README.md").read_text()
    assert not (trainer.config.out / "reliability.png").exists()


def test_a_folder_that_is_not_finished_is_refused(
    checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trained(checkpoint, folder, tune={"how": "head"})
    outcome = trainer.run()
    with pytest.raises(ModelError):
        read_info(trainer.config.out)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            finish(trainer, outcome)
    with pytest.raises(ModelError):
        read_info(trainer.config.out)
    assert finish(trainer, outcome) == read_info(trainer.config.out)
