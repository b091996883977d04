"""Everything that can be chosen of a training. Imports no torch; `config_file.py` reads it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from skylink.errors import OptionError
from skylink.lvlm.options import Way
from skylink.prompt import template_of
from skylink.soft_labels import Source


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """What is learnt from."""

    train: Path = Field(description="mined lists of the training split (`skylink mine`)")
    validation: tuple[Path, ...] = Field(
        default=(),
        description="other lists of the training split: they stop the training, choose its best "
        "step and fit the fusion; never the test split",
    )
    folder: Path | None = Field(
        default=None,
        description="the dataset's folder, which pictures' paths in the lists are relative to; by "
        "default the folder of the lists",
    )
    gallery: Path | None = Field(
        default=None, description="the gallery of the lists, where candidates are places on a map"
    )
    list_size: int = Field(
        default=10, ge=2, le=100, description="candidates of a list that a step sees"
    )
    negatives: Literal["hard", "sampled"] = Field(
        default="hard",
        description="which candidates beside the ground truth: `hard` takes the base's best, "
        "`sampled` draws others in each epoch",
    )


class Asking(Section):
    """How the model is asked; saved with it and used again."""

    template: str = Field(default="pointwise-v1", description="a pointwise prompt template")
    facts: bool = Field(default=True, description="tell the model widths, altitude and north")
    show: Way = Field(default="auto", description="how a photo is shown: auto, north-up, as-taken")
    visual_tokens: int = Field(default=256, ge=4, le=16384, description="budget of a picture")

    @field_validator("template")
    @classmethod
    def _pointwise(cls, name: str) -> str:
        return template_of(name, "pointwise").name


class Tune(Section):
    """What is trained."""

    how: Literal["head", "lora"] = Field(
        default="lora",
        description="`lora`: low-rank weights and the value head; `head`: the value head alone, "
        "on the frozen model",
    )
    r: int = Field(default=16, ge=1, le=1024, description="rank of LoRA")
    alpha: float = Field(default=32, gt=0, description="LoRA's scale is alpha / r")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="of LoRA's input")
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj"),
        min_length=1,
        description="linear layers of the language model that get LoRA, by the end of their name",
    )


class Loss(Section):
    """What is minimised."""

    name: str = Field(default="relational", description="see docs/training.md for the list")
    params: dict[str, float] = Field(
        default_factory=dict, description="of this loss, such as {temperature = 1.0}"
    )


class Labels(Section):
    """Where soft labels come from."""

    source: Literal["stored"] | Source = Field(
        default="stored",
        description="`stored`: as mined; else labelled again from what was measured in mining: "
        "overlap, cosine, distance, dataset",
    )
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="labels below become 0; by default the source's own"
    )
    quantile: float | None = Field(
        default=None, ge=0, le=1, description="choose the threshold by this quantile instead"
    )
    scale_m: float = Field(default=50.0, gt=0, description="distance: metres for a label of 1/e")
    keep_ground_truth_one: bool = Field(
        default=True, description="the ground truth's label is 1, whatever was measured"
    )

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if self.threshold is not None and self.quantile is not None:
            raise OptionError(
                "labels.threshold and labels.quantile both say the threshold",
                hint="leave out one",
            )
        return self


class Schedule(Section):
    """AdamW, linear warm-up and cosine decay."""

    epochs: float = Field(default=1.0, gt=0, le=10_000, description="passes over the data")
    steps: int | None = Field(default=None, ge=1, description="instead of epochs")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled, on matrices")
    warmup: float = Field(default=0.03, ge=0, lt=1, description="share of the steps")
    final_lr: float = Field(default=0.1, ge=0, le=1, description="share of the rate at the end")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")

    def steps_over(self, items: int, per_step: int) -> int:
        """Steps of a run over so many items."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil(self.epochs * items / per_step))


class Optimizer(Schedule):
    """AdamW, linear warm-up and cosine decay."""

    lists_per_step: int = Field(
        default=8,
        ge=1,
        description="lists whose gradients are summed for a step, over all processes together: "
        "their number changes the speed and not the result",
    )
    lr_lora: float = Field(default=1e-4, gt=0, le=1e3, description="learning rate of LoRA")
    lr_head: float = Field(
        default=1e-4, gt=0, le=1e3, description="learning rate of the value head"
    )


class Compute(Section):
    """How it is computed."""

    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="bf16: frozen weights and activations in bfloat16, what is trained in "
        "float32; auto: bf16 on a GPU, fp32 on a CPU",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="compute activations twice instead of keeping them"
    )
    cache: Path | None = Field(
        default=None, description="folder of visual features; by default the user's cache"
    )
    cache_gb: float = Field(default=50.0, ge=0, le=100_000, description="its bound; 0 keeps none")


class Judging(Section):
    """When validation data is looked at."""

    every: int | None = Field(default=None, ge=1, description="steps; by default four times")
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many validations without a better one"
    )


class Validation(Judging):
    """When validation lists are looked at."""

    depth: int = Field(
        default=10, ge=2, le=100, description="candidates of a validation list that are re-ranked"
    )
    tolerance_m: float | None = Field(
        default=None,
        gt=0,
        le=100_000,
        description="on a map: a place this near to the true one is right; by default the nearest "
        "tile alone",
    )


class Checkpoints(Section):
    """What a killed run goes on from."""

    every: int = Field(default=100, ge=1, description="steps")
    keep: int = Field(default=2, ge=1, description="of the last ones")


class RunConfig(Section):
    """What every training has; `config_file.py` reads and writes any of its kinds.

    Attributes:
        command: the command that reads it.
        title: what stands above a file of it.
        examples: values, by key, for those that have no default.
        free: keys, or beginnings of keys, that may change between a killed run and its
            continuation.
        inputs: what is learnt from, whose hashes may not.
    """

    command: ClassVar[str]
    title: ClassVar[str]
    examples: ClassVar[dict[str, str]]
    free: ClassVar[tuple[str, ...]] = ("out", "checkpoints.")
    inputs: ClassVar[str] = "data"

    out: Path = Field(description="the folder to write")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of all that is drawn")
    optimizer: Schedule = Schedule()
    validation: Judging = Judging()
    checkpoints: Checkpoints = Checkpoints()

    def anchored(self, anchor: Callable[[Path], Path]) -> Self:
        """The same with paths that do not depend on where the command is run."""
        return self.model_copy(update={"out": anchor(self.out)})

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Keys that change what is learnt and differ from an earlier run's `json_dict`."""
        mine = _flat(self.json_dict())
        theirs = _flat(other)
        return sorted(
            key
            for key in mine.keys() | theirs.keys()
            if not key.startswith(self.free) and mine.get(key) != theirs.get(key)
        )

    def json_dict(self) -> dict[str, Any]:
        """As JSON and TOML hold it."""
        return self.model_dump(mode="json")


class TrainConfig(RunConfig):
    """A training of a re-ranker; see the sections."""

    command = "train"
    title = "A training of a re-ranker"
    examples: ClassVar = {"checkpoint": "qwen2-vl-7b", "out": "reranker", "train": "train.jsonl"}
    free = (
        *RunConfig.free, "compute.cache",
        "data.train", "data.validation", "data.folder", "data.gallery",
    )  # fmt: skip
    inputs = "lists"

    checkpoint: str = Field(description="model to train: hub name, preset or folder")
    revision: str | None = Field(default=None, description="commit of a checkpoint on the hub")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of order, sampling and dropout")
    data: Data
    asking: Asking = Asking()
    tune: Tune = Tune()
    loss: Loss = Loss()
    labels: Labels = Labels()
    optimizer: Optimizer = Optimizer()
    compute: Compute = Compute()
    validation: Validation = Validation()

    def anchored(self, anchor: Callable[[Path], Path]) -> Self:
        given, cache = self.data, self.compute.cache
        data = given.model_copy(
            update={
                "train": anchor(given.train),
                "validation": tuple(anchor(path) for path in given.validation),
                "folder": anchor(given.folder or given.train.parent),
                "gallery": None if given.gallery is None else anchor(given.gallery),
            }
        )
        compute = self.compute.model_copy(
            update={"cache": None if cache is None else anchor(cache)}
        )
        beside = anchor(Path(self.checkpoint))
        checkpoint = str(beside) if beside.is_dir() else self.checkpoint
        return self.model_copy(
            update={
                "out": anchor(self.out), "checkpoint": checkpoint, "data": data, "compute": compute
            }
        )  # fmt: skip


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and not before:
            flat |= _flat(value, f"{key}.")
        else:
            flat[before + key] = value
    return flat
