"""The finished folder of `skylink train-relational`: what `relational:FOLDER` loads, and its card.

relational.onnx      scores of pairs; its metadata says what cells it takes
model.safetensors    the same weights for PyTorch
config.toml          the recipe, complete
skylink.json         figures of the held-out lists, data, seed
README.md            the model card
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skylink import __version__
from skylink.embedded.export import export_onnx
from skylink.embedded.head import number_of
from skylink.embedded.relational import LateInteraction
from skylink.embedded.relational_learner import scored_lists
from skylink.embedded.relational_recipe import RelationalRecipe
from skylink.embedded.relational_training import RelationalTraining
from skylink.files import write_atomic
from skylink.reranker import Fusion
from skylink.rerankers.relational import INPUTS, METADATA, MODEL, OUTPUT, Identity
from skylink.training.config_file import toml_text
from skylink.training.fusion import fit_fusion
from skylink.training.loop import Outcome

CARD, CONFIG, ABOUT, WEIGHTS = "README.md", "config.toml", "skylink.json", "model.safetensors"


def finish(training: RelationalTraining, outcome: Outcome) -> dict[str, Any]:
    """Write the finished folder.

    Args:
        training: after its run.
        outcome: of it.

    Returns:
        What skylink.json says.

    Raises:
        ModelError: the exported file differs from PyTorch.
        OutputError: it can't be written.
    """
    from safetensors.torch import save

    recipe, learner = training.recipe, training.learner
    fusion = _fusion(training)
    difference = export_relational(
        learner.model, recipe.out / MODEL, trunk=training.lists.trunk, fusion=fusion
    )
    about = {
        "skylink": __version__,
        "model": recipe.model.kind,
        "numbers": number_of(learner.model),
        "seed": recipe.seed,
        "trunk": training.lists.trunk,
        "inputs": list(training.lists.inputs),
        "steps": outcome.steps,
        "best_step": outcome.step,
        "seconds": round(outcome.seconds, 1),
        "temperature": learner.temperature,
        "onnx_difference": difference,
        "fusion": None if fusion is None else _weights(fusion),
        "held_out": outcome.best or {},
    }
    weights = {k: v.contiguous() for k, v in learner.model.state_dict().items()}
    write_atomic(recipe.out / WEIGHTS, save(weights))
    write_atomic(recipe.out / CONFIG, toml_text(recipe))
    write_atomic(recipe.out / ABOUT, json.dumps(about, indent=2) + "\n")
    write_atomic(recipe.out / CARD, card(recipe, about))
    return about


def export_relational(
    model: LateInteraction, path: Path, *, trunk: str, fusion: Fusion | None = None
) -> float:
    """Write a model as ONNX; see `export_onnx`.

    Args:
        trunk: fingerprint of the network whose cells it takes.
        fusion: fitted on lists of a retriever; None: it was not.
    """
    rng = np.random.default_rng(0)
    side, window, channels = model.side, model.window, model.channels
    example = [
        torch.from_numpy(rng.normal(size=(2, side, side, channels)).astype(np.float32)),
        torch.from_numpy((rng.random((2, side, side)) < 0.5).astype(np.float32)),
        torch.from_numpy(rng.normal(size=(3, window, window, channels)).astype(np.float32)),
        torch.from_numpy((rng.random((3, window, window)) < 0.9).astype(np.float32)),
        torch.tensor([1, 0, 1]),
    ]
    known = Identity(
        channels=channels, side=side, reach=model.reach, trunk=trunk,
        base_weight=None if fusion is None else fusion.base_weight,
        gate_margin=None if fusion is None else fusion.gate_margin,
        fusion_depth=None if fusion is None else fusion.depth,
    )  # fmt: skip
    views, windows = {0: "views"}, {0: "candidates"}
    axes = dict(zip(INPUTS, [views, views, windows, windows, windows], strict=True))
    return export_onnx(
        model.eval(), example, path, inputs=INPUTS, outputs=[OUTPUT],
        axes=axes | {OUTPUT: windows}, metadata={METADATA: known.model_dump_json()},
    )  # fmt: skip


def _fusion(training: RelationalTraining) -> Fusion | None:
    """Fitted where validation lists are a retriever's, so that its scores mean something."""
    if training.recipe.data.train is None or training.recipe.fusion == "none":
        return None
    lists = scored_lists(training.learner.model, training.lists)
    return fit_fusion([one for some in lists.values() for one in some]) if lists else None


def _weights(fusion: Fusion) -> dict[str, float | None]:
    return {"base_weight": fusion.base_weight, "gate_margin": fusion.gate_margin}


def card(recipe: RelationalRecipe, about: dict[str, Any]) -> str:
    """The model's card, Markdown."""
    chosen, labels = recipe.model, recipe.labels
    learnt = (
        f"lists made of a bank of features, {recipe.data.list_size} candidates each"
        if recipe.data.bank is not None
        else f"mined lists, {recipe.data.list_size} candidates of each"
    )
    rows = {
        "model": f"{chosen.kind}, head {chosen.head}; {about['numbers']:,} numbers",
        "takes": "cells of EfficientNet-Lite0 (ImageNet weights, Apache-2.0), or of another "
        f"encoder with the fingerprint {about['trunk']}",
        "learnt from": learnt,
        "terms of the data": recipe.data.terms or "not told: say them in data.terms",
        "loss": f"{recipe.loss.name}, labels {labels.source}, threshold "
        f"{'the usual' if labels.threshold is None else labels.threshold}, power {labels.power:g}",
        "recipe": f"{CONFIG}, seed {about['seed']}",
        "command": f"skylink train-relational {CONFIG}",
        "training": f"{about['steps']:,} steps in {about['seconds'] / 60:.1f} minutes, step "
        f"{about['best_step']:,} is kept",
        "ONNX": f"differs from PyTorch by {about['onnx_difference']:.0e} at most",
        "SkyLink": about["skylink"],
    }
    lines = ["# Model card: a relational re-ranker", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    found = about["held_out"]
    if found:
        lines += [
            "",
            "## Held-out lists",
            "",
            "| figure | re-ranker | what listed them |",
            "|---|---|---|",
            *(
                f"| {name} | {100 * value:.1f} % | {100 * found['base ' + name]:.1f} % |"
                for name, value in found.items()
                if not name.startswith("base ")
            ),
            "",
            "They chose the best step, so they flatter a little. Lists of a bank are listed by "
            "training-free correlation, with the truth in them; mined ones by the retriever.",
        ]
    lines += [
        "",
        "## Limits",
        "It sees what the trunk's cells tell of a view rendered under a pose: a heading that is "
        "far off can't be made good. Ground unlike the data above may gain nothing, or lose: "
        "compare with `--reranker dense` and `--reranker hog` on photos of your own.",
        "",
        "## Use",
        "    skylink locate photo.jpg --gallery GALLERY --retriever descriptor "
        "--reranker relational:THIS_FOLDER",
    ]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
