"""The finished folder of `skylink train-encoder`: what `embedded:FOLDER` loads, and its card.

dense_head.onnx, descriptor_tuned.onnx      see `encoder.py`
model.safetensors                           the same weights for PyTorch
figures.json                                of the held-out maps, before and after
config.toml                                 the recipe, complete
README.md                                   the model card
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skylink import __version__
from skylink.embedded.dense_learner import DenseLearner
from skylink.embedded.descriptor_learner import DescriptorLearner
from skylink.embedded.doubt import doubts
from skylink.embedded.encoder import DENSE_HEAD, DESCRIPTOR
from skylink.embedded.export import export_onnx
from skylink.embedded.head import DenseHead, number_of
from skylink.embedded.recipe import EncoderRecipe
from skylink.embedded.training import EncoderTraining, Trained
from skylink.embedded.tuned import TunedDescriptor
from skylink.files import output_errors, write_atomic
from skylink.training.config_file import toml_text

CARD, CONFIG, FIGURES, WEIGHTS = "README.md", "config.toml", "figures.json", "model.safetensors"


def finish(
    training: EncoderTraining, dense: Trained | None, descriptor: Trained | None
) -> dict[str, Any]:
    """Write the finished folder.

    Args:
        training: after its runs.
        dense, descriptor: what became of them; None: not trained, an older file is removed.

    Returns:
        What figures.json says.

    Raises:
        ModelError: an exported file differs from PyTorch.
        OutputError: it can't be written.
    """
    from safetensors.torch import save

    recipe = training.recipe
    tensors: dict[str, torch.Tensor] = {}
    parts: dict[str, Any] = {}
    for name, file, trained in (
        ("dense", DENSE_HEAD, dense), ("descriptor", DESCRIPTOR, descriptor)
    ):  # fmt: skip
        if trained is None:
            with output_errors(recipe.out / file):
                (recipe.out / file).unlink(missing_ok=True)
            continue
        learner, extra = trained.learner, {}
        if isinstance(learner, DenseLearner):
            found = _doubts(training, learner)
            extra = {} if found is None else {"unsure": found[0], "fits_better": found[1]}
            difference = export_head(learner.head, recipe.out / file, found)
        else:
            difference = export_descriptor(learner.model, learner.sizes, recipe.out / file)
        module = _module(trained.learner)
        tensors |= {f"{name}.{k}": v.contiguous() for k, v in module.state_dict().items()}
        parts[name] = {
            "numbers": number_of(module),
            "temperature": trained.learner.temperature,
            "steps": trained.outcome.steps,
            "best_step": trained.outcome.step,
            "seconds": round(trained.outcome.seconds, 1),
            "onnx_difference": difference,
            "untrained": trained.untrained,
            "trained": trained.outcome.best or {},
            **extra,
        }
    about = {"skylink": __version__, "seed": recipe.seed, "data": _data(training), "parts": parts}
    write_atomic(recipe.out / WEIGHTS, save(tensors))
    write_atomic(recipe.out / FIGURES, json.dumps(about, indent=2) + "\n")
    write_atomic(recipe.out / CONFIG, toml_text(recipe))
    write_atomic(recipe.out / CARD, card(recipe, about))
    return about


def export_head(
    head: DenseHead, path: Path, thresholds: tuple[float, float] | None = None
) -> float:
    """Write a dense head as ONNX, with (unsure, fits better) beside it; see `export_onnx`."""
    cells = np.random.default_rng(0).normal(size=(64, head.channels)).astype(np.float32)
    return export_onnx(
        head.eval(), [torch.from_numpy(cells)], path, inputs=["cells"], outputs=["relational"],
        axes={"cells": {0: "count"}, "relational": {0: "count"}},
        metadata=None if thresholds is None else {
            "skylink.unsure": f"{thresholds[0]:.4f}",
            "skylink.fits_better": f"{thresholds[1]:.4f}",
        },
    )  # fmt: skip


def export_descriptor(model: TunedDescriptor, sizes: list[int], path: Path) -> float:
    """Write a tuned descriptor as ONNX, with the sizes of its parts; see `export_onnx`."""
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(3, 112, 8, 12)).astype(np.float32))
    weights = torch.from_numpy((rng.random((3, 4, 6)) < 0.5).astype(np.float32))
    weights[2] = 0
    return export_onnx(
        model.eval(), [features, weights], path, inputs=["features", "weights"],
        outputs=["descriptor"],
        axes={
            "features": {0: "batch", 2: "rows", 3: "columns"},
            "weights": {0: "batch", 1: "coarse_rows", 2: "coarse_columns"},
            "descriptor": {0: "batch"},
        },
        metadata={"skylink.parts": json.dumps(sizes)},
    )  # fmt: skip


def _doubts(training: EncoderTraining, learner: DenseLearner) -> tuple[float, float] | None:
    """As the recipe says, else as measured; None where there is neither."""
    chosen = learner.config.dense
    if chosen.unsure is not None and chosen.fits_better is not None:
        return chosen.unsure, chosen.fits_better
    if training.held is None:
        return None
    found = doubts(training.held, learner.head)
    return (
        found[0] if chosen.unsure is None else chosen.unsure,
        found[1] if chosen.fits_better is None else chosen.fits_better,
    )


def _module(learner: DenseLearner | DescriptorLearner) -> torch.nn.Module:
    return learner.head if isinstance(learner, DenseLearner) else learner.model


def _data(training: EncoderTraining) -> dict[str, Any]:
    held = set(training.recipe.data.held_out_photos)
    banks = {"learnt": training.bank, "held out": training.held}
    return {
        "images": len(training.maps.files),
        "held_out_images": len(training.held_maps.files),
        "photos": [site for site in training.sites if site not in held],
        "held_out_photos": sorted(held),
        "maps": {
            name: {"synthetic": bank.synthetic, "real": len(bank) - bank.synthetic}
            for name, bank in banks.items()
            if bank is not None
        },
        "sha256": {name: bank.identity.source for name, bank in banks.items() if bank is not None},
    }


def card(recipe: EncoderRecipe, about: dict[str, Any]) -> str:
    """The model's card, Markdown."""
    data = about["data"]
    learnt, held = (
        ", ".join(f"{n:,} {kind}" for kind, n in data["maps"].get(name, {}).items()) or "none"
        for name in ("learnt", "held out")
    )
    rows = {
        "made of": "EfficientNet-Lite0 (ImageNet weights, Apache-2.0), its blocks 1-10 frozen",
        "data": f"{data['images']:,} satellite images; drone photos of "
        f"{', '.join(data['photos']) or 'no folder'}",
        "terms of the data": recipe.data.terms or "not told: say them in data.terms",
        "maps learnt from": learnt,
        "held out": f"{held}; {data['held_out_images']:,} images; photos of "
        f"{', '.join(data['held_out_photos']) or 'no folder'}",
        "samples": " / ".join(digest[:16] for digest in data["sha256"].values()) + " (SHA-256)",
        "recipe": f"{CONFIG}, seed {about['seed']}",
        "command": f"skylink train-encoder {CONFIG}",
        "SkyLink": about["skylink"],
    }
    lines = ["# Model card: an embedded encoder", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    for name, part in about["parts"].items():
        lines += [
            "",
            f"## {name}",
            f"{part['numbers']:,} numbers, {part['steps']:,} steps in {part['seconds'] / 60:.1f} "
            f"minutes, step {part['best_step']:,} is kept; loss "
            f"{'hard' if _labels(recipe, name) == 'hard' else 'relational'}, temperature "
            f"{part['temperature']:.3g} at the end; ONNX differs from PyTorch by "
            f"{part['onnx_difference']:.0e} at most.",
        ]
        if part["trained"]:
            lines += [
                "",
                "| held-out figure, % | before | after |",
                "|---|---|---|",
                *(
                    f"| {key} | {_percent(part['untrained'].get(key))} | {_percent(value)} |"
                    for key, value in part["trained"].items()
                    if not key.startswith("base ")
                ),
            ]
    lines += [
        "",
        "Held-out figures chose the best step, so they flatter a little; they are shares of views "
        "whose place was found within 3 cells among 20 maps (hits), or whose tile came first or "
        "among 20 (recall@1, @20).",
        "",
        "## Limits",
        "Learnt from ground that looks flat and from north-up views: it relies on a heading, or on "
        "a search over headings. Ground unlike the data above may gain nothing, or lose. Compare "
        "with `--encoder embedded-base` on photos of your own.",
        "",
        "## Use",
        "    skylink build map.tif --out GALLERY --encoder embedded:THIS_FOLDER",
    ]
    return "\n".join(lines) + "\n"


def _labels(recipe: EncoderRecipe, name: str) -> str:
    return recipe.dense.labels if name == "dense" else recipe.descriptor.labels


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
