"""A cell's result: one JSON file, written whole when the cell is finished, or has failed.

    cells/<name>.json     <name> says the choices to people, and their digest tells cells apart

A file that can't be read, or is of other choices or lists, counts as not there: the cell is run
again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skylink import __version__
from skylink.ablation.grid import Cell
from skylink.files import write_atomic
from skylink.label_statistics import LabelStatistics
from skylink.training.config import Section, TrainConfig

MAX_BYTES = 2**30
ELSEWHERE = {
    "data": {"train", "validation", "folder", "gallery"},
    "compute": {"cache", "cache_gb"},
    "out": True,
    "checkpoints": True,
}
"""Choices that change no result; of lists the content counts, not the path."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Outcome(_Part):
    """What one ranking of all Q test lists is worth, in their order.

    Attributes:
        ranks: of the first right candidate, from 1; None where the list has none.
        precisions: average precision in steps, 0..1, over the list's right candidates.
        errors_m: distance of the first candidate from the true place, metres; None where not known.
    """

    ranks: tuple[int | None, ...]
    precisions: tuple[float, ...]
    errors_m: tuple[float, ...] | None = None

    @property
    def hits(self) -> list[float]:
        """(Q,) 1 where the first candidate is right."""
        return [float(rank == 1) for rank in self.ranks]


class Stability(_Part):
    """How calmly a training went.

    Attributes:
        loss_variance: of the steps' losses over the last half of the steps.
        grad_norm_mean, grad_norm_max: over all steps, before clipping.
    """

    loss_variance: float
    grad_norm_mean: float
    grad_norm_max: float


class Trained(_Part):
    """What is known of a cell's training.

    Attributes:
        steps, best_step: done, and the one that validation chose.
        seconds: in steps, by all runs of the cell together.
        labels: statistics of what was learnt; None for the hard loss.
        equals_hard: labels that should be soft are one-hot in every list.
        stability: see there.
    """

    steps: int
    best_step: int
    seconds: float
    labels: LabelStatistics | None
    equals_hard: bool
    stability: Stability | None


class AtDepth(_Part):
    """What was found with the first `depth` candidates of each list re-ranked.

    Attributes:
        depth: K.
        pure, fused: outcomes on the test lists.
        base_weight, gate_margin: of the fusion, as fitted on the validation lists.
        validation: recall at 1, 0..1, on the validation lists: `base`, `pure`, `fused`.
    """

    depth: int
    pure: Outcome
    fused: Outcome
    base_weight: float
    gate_margin: float | None
    validation: dict[str, float]


class Done(_Part):
    """What a finished cell found.

    Attributes:
        depths: each once.
        trained: None for what is not trained.
        judge_seconds: spent on the test lists, for all depths together.
    """

    depths: tuple[AtDepth, ...]
    trained: Trained | None = None
    judge_seconds: float

    def at(self, depth: int) -> AtDepth:
        """Of one depth. Raises KeyError: it was not measured."""
        return {each.depth: each for each in self.depths}[depth]


class Failed(_Part):
    """Why a cell came to nothing."""

    cause: str
    hint: str | None = None


class Result(_Part):
    """A cell's file."""

    format: Literal["skylink-ablation-cell"] = "skylink-ablation-cell"
    version: Literal[2] = 2
    cell: str
    seed: int
    skylink: str = __version__
    digest: str
    found: Done | Failed = Field(union_mode="left_to_right")


def digest_of(
    cell: Cell,
    config: TrainConfig,
    *,
    own: Section | None,
    depths: Sequence[int],
    lists: Sequence[str],
) -> str:
    """32 hexadecimal digits of everything that a cell's result depends on.

    Args:
        cell: which.
        config: its training.
        own: the grid's section of its model alone.
        depths: that it is measured at.
        lists: SHA-256 of training, validation and test lists.
    """
    chosen = {
        "model": cell.arm.model,
        "config": config.model_dump(mode="json", exclude=ELSEWHERE),  # type: ignore[arg-type]
        "own": None if own is None else own.model_dump(mode="json"),
        "depths": list(depths),
        "lists": list(lists),
    }
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:32]


def name_of(cell: Cell, digest: str) -> str:
    """A cell's file and folder: what it is, as far as a file name says it, and its digest."""
    arm = cell.arm
    words = [arm.model, Path(arm.checkpoint).name, arm.loss, arm.labels, f"seed{cell.seed}"]
    plain = "-".join(re.sub(r"[^A-Za-z0-9+.]+", "-", word)[:40] for word in words if word)
    return f"{plain}-{digest[:12]}"


def write_result(path: Path, cell: Cell, digest: str, found: Done | Failed) -> Result:
    """Write a cell's file. Raises OutputError: it can't be written."""
    result = Result(cell=str(cell), seed=cell.seed, digest=digest, found=found)
    write_atomic(path, result.model_dump_json())
    return result


def read_result(path: Path, digest: str, queries: int) -> Result | None:
    """What `write_result` wrote for these very choices and so many test queries; None: nothing."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        result = Result.model_validate_json(data) if len(data) <= MAX_BYTES else None
    except (OSError, ValidationError):
        return None
    if result is None or result.digest != digest:
        return None
    if isinstance(result.found, Done):
        outcomes = [o for at in result.found.depths for o in (at.pure, at.fused)]
        if any(len(o.ranks) != queries or len(o.precisions) != queries for o in outcomes):
            return None
    return result
