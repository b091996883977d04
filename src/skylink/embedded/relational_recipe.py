"""Everything that can be chosen of a training of a relational re-ranker. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from skylink.errors import OptionError
from skylink.training.config import Labels, Loss, RunConfig, Schedule, Section, Validation


class RelationalData(Section):
    """What is learnt from: features that `train-encoder` made, or lists that `mine` made."""

    bank: Path | None = Field(
        default=None, description="features of maps and views: `work/bank` of `train-encoder`"
    )
    held_out: Path | None = Field(
        default=None, description="the same, for validation: `work/held_out` of `train-encoder`"
    )
    train: Path | None = Field(
        default=None, description="instead: mined lists of the training split (`skylink mine`)"
    )
    validation: tuple[Path, ...] = Field(
        default=(), description="other mined lists of the training split, for validation"
    )
    folder: Path | None = Field(
        default=None, description="of the lists' photos; by default the folder of the lists"
    )
    gallery: Path | None = Field(default=None, description="the gallery of the lists")
    list_size: int = Field(
        default=20, ge=2, le=100, description="candidates of a list that a step sees"
    )
    negatives: Literal["hard", "sampled"] = Field(
        default="hard", description="of mined lists: the base's best, or others in each epoch"
    )
    terms: str = Field(
        default="", max_length=2000, description="of the pictures, for the model card"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.bank is None) == (self.train is None):
            raise OptionError(
                "data needs either `bank` or `train`",
                hint='bank = "encoder/work/bank" (`skylink train-encoder` makes it), or '
                'train = "train.jsonl" and gallery = "GALLERY" (`skylink mine` makes them)',
            )
        if self.bank is not None and self.validation:
            raise OptionError(
                "data.validation is of mined lists, and data.bank is none",
                hint="data.held_out says what a bank is judged by",
            )
        if self.train is not None and self.held_out is not None:
            raise OptionError(
                "data.held_out belongs to a bank, and data.train is mined lists",
                hint="data.validation says what mined lists are judged by",
            )
        if self.train is not None and self.gallery is None:
            raise OptionError(
                "data.train needs data.gallery: the re-ranker compares photos with places on a map",
                hint="set data.gallery to the gallery that the lists were mined from",
            )
        return self


class BankLists(Section):
    """How lists are made of a bank, anew in each step. Mined lists are as they are."""

    maps_per_step: int = Field(default=16, ge=2, le=256, description="maps that compete")
    views_per_map: int = Field(default=2, ge=1, le=32, description="views of each, a list of each")
    stride_cells: int = Field(default=3, ge=1, le=16, description="between candidates on a map")
    random_share: float = Field(
        default=0.25, ge=0, le=1, description="of candidates; the others correlate best untrained"
    )
    decoys: int = Field(
        default=2, ge=0, le=50, description="candidates of a list under a wrong heading"
    )
    real_share: float = Field(default=0.85, ge=0, le=1, description="of steps, on real photos")
    min_cells: int = Field(
        default=25, ge=1, le=4096, description="views with fewer valid cells teach nothing"
    )


class Architecture(Section):
    """What models of every kind have."""

    head: Literal["none", "linear", "mlp"] = Field(
        default="linear", description="of each cell before correlation"
    )
    hidden: int = Field(default=224, ge=1, le=4096, description="units of an mlp head")
    reach: int = Field(
        default=2, ge=0, le=8, description="cells that a candidate may be off, each way"
    )
    layers: int = Field(default=2, ge=1, le=12, description="of the transformer")
    width: int = Field(default=64, ge=8, le=1024, description="of the transformer's tokens")
    heads: int = Field(default=4, ge=1, le=16, description="of the transformer's attention")
    softness: float = Field(
        default=5e-4, ge=1e-5, le=1, description="of the maximum over shifts; learnt"
    )
    falloff: float = Field(
        default=0.003,
        ge=0,
        le=1,
        description="what a score loses a squared cell of shift at the beginning; learnt",
    )
    temperature: float = Field(
        default=0.02, ge=1e-3, le=10, description="of scores in the loss; learnt"
    )

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.width % self.heads:
            raise OptionError(
                f"width = {self.width} is not a multiple of heads = {self.heads}",
                hint="width = 64, heads = 4",
            )
        return self


class Model(Architecture):
    """What is trained."""

    kind: Literal["late", "transformer"] = Field(
        default="late",
        description="`late`: a head on each cell, then correlation; `transformer`: a correction "
        "to it that reads all correlations together",
    )


class RelationalLabels(Labels):
    """Soft labels. Of a bank: overlap or cosine; `stored` is overlap there."""

    power: float = Field(default=1.0, gt=0, le=16, description="labels are raised to it")


class RelationalRates(Schedule):
    """AdamW, linear warm-up and cosine decay."""

    epochs: float = Field(default=4.0, gt=0, le=10_000, description="passes over maps or lists")
    lists_per_step: int = Field(
        default=16, ge=1, description="mined lists of a step; of a bank see [lists]"
    )
    lr: float = Field(default=1e-3, gt=0, le=1e3, description="learning rate")
    weight_decay: float = Field(default=1e-4, ge=0, description="decoupled")
    final_lr: float = Field(default=0.05, ge=0, le=1, description="share of the rate at the end")


class RelationalRecipe(RunConfig):
    """A training of a relational re-ranker; see the sections."""

    command = "train-relational"
    title = "A training of a relational re-ranker"
    examples: ClassVar = {"out": "relational"}
    free = (
        *RunConfig.free, "data.bank", "data.held_out",
        "data.train", "data.validation", "data.folder", "data.gallery", "data.terms",
    )  # fmt: skip

    data: RelationalData
    model: Model = Model()
    lists: BankLists = BankLists()
    loss: Loss = Loss()
    labels: RelationalLabels = RelationalLabels()
    optimizer: RelationalRates = RelationalRates()
    validation: Validation = Validation(depth=20)
    fusion: Literal["fitted", "none"] = Field(
        default="fitted",
        description="with the score of the retriever of mined lists: weight and gate that rank the "
        "validation lists best, kept in the model file; `none`: its own score alone",
    )

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.data.bank is not None:
            labels = self.labels
            if labels.source not in ("stored", "overlap", "cosine") or labels.quantile is not None:
                raise OptionError(
                    "labels of a bank are made by overlap or cosine, with a threshold",
                    hint='source = "overlap", threshold = 0.4',
                )
            if self.lists.decoys > self.data.list_size - 2:
                raise OptionError(
                    f"lists.decoys = {self.lists.decoys} leave no place in lists of "
                    f"{self.data.list_size}", hint="decoys = 2",
                )  # fmt: skip
        return self

    def anchored(self, anchor: Callable[[Path], Path]) -> Self:
        def maybe(path: Path | None) -> Path | None:
            return None if path is None else anchor(path)

        given = self.data
        home = given.folder or (None if given.train is None else given.train.parent)
        data = given.model_copy(
            update={
                "bank": maybe(given.bank),
                "held_out": maybe(given.held_out),
                "train": maybe(given.train),
                "validation": tuple(map(anchor, given.validation)),
                "folder": maybe(home),
                "gallery": maybe(given.gallery),
            }
        )
        return self.model_copy(update={"out": anchor(self.out), "data": data})


def example_text() -> str:
    """The recipe that SkyLink's own re-ranker is trained by."""
    return (resources.files("skylink.embedded") / "relational.toml").read_text(encoding="utf-8")
