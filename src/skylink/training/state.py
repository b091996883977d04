"""Checkpoints: everything that a killed run needs to go on to the same losses, in one file.

    training/step-00000120.pt

A file is written whole or not at all and the older ones go only when it is there, so that a kill or
a full disk leaves the last good one. It holds tensors, numbers and texts, and is read as such
(`weights_only`); nothing in it is executed. The order of lists, their sampling and dropout are
functions of the seed and the step, and the learning rate of the step, so no generator or
scheduler has a state to keep.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from skylink.errors import ModelError
from skylink.files import output_errors, write_atomic

Weights = dict[str, torch.Tensor]
"""What is trained, by name, on the CPU."""

NAME = re.compile(r"step-(\d{8})\.pt")
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best validation so far.

    Attributes:
        step: when.
        figures: of the validation, by name.
        weights: what was trained, as it was then.
    """

    step: int
    figures: dict[str, float]
    weights: Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A run after a step.

    Attributes:
        step: steps done.
        config: `json_dict` of the run's configuration.
        lists: hashes of what is learnt from and judged by, such as files of lists.
        weights: what is trained.
        optimizer: AdamW's state.
        best: so far, if there was a validation.
        waited: validations since then.
        seconds: spent in steps, for people.
    """

    step: int
    config: dict[str, Any]
    lists: list[str]
    weights: Weights
    optimizer: dict[str, Any]
    best: Best | None
    waited: int
    seconds: float


def save(folder: Path, saved: Saved, *, keep: int) -> Path:
    """Write a checkpoint, then remove all but the last `keep`.

    Raises:
        OutputError: it can't be written; what was there is untouched.
    """
    data = io.BytesIO()
    values = {f.name: getattr(saved, f.name) for f in fields(saved)}
    values["best"] = None if saved.best is None else asdict(saved.best)
    torch.save({"format": FORMAT, **values}, data)
    path = write_atomic(folder / f"step-{saved.step:08d}.pt", data.getvalue())
    with output_errors(folder):
        for old in checkpoints(folder)[:-keep]:
            old.unlink(missing_ok=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the last one last."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))


def remove_all(folder: Path) -> None:
    """Remove the checkpoints of an earlier run, which a new one must not be continued from."""
    with output_errors(folder):
        for old in checkpoints(folder):
            old.unlink(missing_ok=True)


def load(path: Path) -> Saved:
    """What `save` wrote.

    Raises:
        ModelError: it can't be read, or is of another version.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        if values.pop("format") != FORMAT:
            raise ModelError(f"{path} is of another version of SkyLink", hint="begin with --fresh")
        best = values.pop("best")
        return Saved(best=None if best is None else Best(**best), **values)
    except ModelError:
        raise
    except Exception as error:  # a damaged file makes torch raise all sorts
        raise ModelError(
            f"{path} can't be read: {' '.join(str(error).split())[:200]}",
            hint="remove it to go on from the one before, or begin anew with --fresh",
        ) from error


def weights_of(named: Iterable[tuple[str, torch.Tensor]]) -> Weights:
    """Copies of named tensors, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in named}


def put_back(named: Iterable[tuple[str, torch.Tensor]], weights: Weights) -> None:
    """Fill named tensors with what `weights_of` gave for them.

    Raises:
        ModelError: they are of another model or another choice of what to train.
    """
    mine = dict(named)
    if mine.keys() != weights.keys() or any(
        weights[name].shape != tensor.shape for name, tensor in mine.items()
    ):
        raise ModelError(
            "the weights of the checkpoint don't fit the model", hint="begin anew with --fresh"
        )
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(weights[name])
