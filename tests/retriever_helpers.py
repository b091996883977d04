"""Small trainings of retrievers: a tiny ViT from a file, and a benchmark's miniature."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skylink.datasets import REGISTRY
from skylink.training.retriever.config import RetrieverConfig

Once = Callable[[str, Callable[[Path], None]], Path]
NAME = "test_vit"


def write_encoder(folder: Path) -> None:
    """A random ViT of 0.3 million numbers, for pictures of 160 px."""
    import timm
    import torch
    from safetensors.torch import save_file

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = timm.create_model(NAME, pretrained=False, num_classes=0)
    save_file(network.state_dict(), folder / "encoder.safetensors")


def encoder_of(once: Once) -> str:
    """The spec of that encoder, written once."""
    return f"timm:{NAME}@{once('retriever-encoder', write_encoder) / 'encoder.safetensors'}"


def benchmark_of(once: Once, name: str = "university1652") -> Path:
    """A miniature; not to be changed."""

    def fill(folder: Path) -> None:
        REGISTRY[name].write_miniature(folder, seed=3)

    return once(f"retriever-{name}", fill)


def retriever_config(
    encoder: str, root: Path, out: Path, *, benchmark: str = "university1652", **sections: Any
) -> RetrieverConfig:
    """A short training on the CPU; sections update the defaults here."""
    values: dict[str, Any] = {
        "data": {"benchmark": benchmark, "root": root, "held_out": 0.25},
        "optimizer": {"steps": 4, "photos_per_step": 4, "lr": 1e-3},
        "compute": {"device": "cpu", "workers": 1},
    }
    plain: dict[str, Any] = {"encoder": encoder, "out": out, "seed": 3}
    for name, given in sections.items():
        if isinstance(given, dict):
            values[name] = values.get(name, {}) | given
        else:
            plain[name] = given
    return RetrieverConfig.model_validate(plain | values)


def log_of(config: RetrieverConfig) -> list[dict[str, Any]]:
    """What was logged, without times."""
    lines = (config.out / "training" / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
