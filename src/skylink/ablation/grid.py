"""What an ablation compares. Imports no torch; `grid_file.py` reads it.

A grid has groups of rows, a row is an arm (what re-ranks, under which loss and labels) and how its
scores are used (pure, or fused with the base's), and a cell is a training of an arm with a seed.
Rows of several groups share their cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from skylink.embedded.relational_recipe import Architecture
from skylink.errors import OptionError
from skylink.mined import MAX_CANDIDATES
from skylink.soft_labels import Source
from skylink.training.config import (
    Asking,
    Checkpoints,
    Compute,
    Data,
    Labels,
    Loss,
    Optimizer,
    Section,
    TrainConfig,
    Tune,
    Validation,
)

Model = Literal[
    "base",
    "correlation",
    "hog",
    "late",
    "lvlm-zero-shot",
    "lvlm-head",
    "lvlm-lora",
    "pairs-head",
    "shuffled-tiles",
    "transformer",
]
Ranking = Literal["pure", "fused"]
UNTRAINED: tuple[Model, ...] = ("base", "correlation", "hog", "lvlm-zero-shot")
RELATIONAL: tuple[Model, ...] = ("late", "transformer")
WITHOUT_LVLM: tuple[Model, ...] = ("base", "correlation", "hog", "pairs-head", *RELATIONAL)
HARD = "hard"
THRESHOLD = "+threshold"
MAX_CELLS = 10_000

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Depth = Annotated[int, Field(ge=2, le=MAX_CANDIDATES)]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Arm:
    """What re-ranks and how it was taught.

    Attributes:
        model: see docs/ablation.md.
        checkpoint: of the vision-language model; empty where there is none.
        loss: a name of `LOSSES`, with `+threshold` where labels below the threshold are 0; empty
            for what is not trained.
        labels: their source; empty where there are none, and for the hard loss, which only looks
            at which candidate is right.
    """

    model: Model
    checkpoint: str = ""
    loss: str = ""
    labels: str = ""

    @classmethod
    def of(cls, model: Model, checkpoint: str, loss: str, labels: str) -> Arm:
        """With only what matters to it, so that equal arms are equal."""
        checkpoint = "" if model in WITHOUT_LVLM else checkpoint
        if model in UNTRAINED:
            return cls(model=model, checkpoint=checkpoint)
        labels = "" if loss == HARD else labels
        return cls(model=model, checkpoint=checkpoint, loss=loss, labels=labels)

    @property
    def trained(self) -> bool:
        """Whether it is learnt, so that its seed matters."""
        return self.model not in UNTRAINED

    @property
    def loss_name(self) -> str:
        """The loss without `+threshold`."""
        return self.loss.removesuffix(THRESHOLD)

    def __str__(self) -> str:
        of = f" of {Path(self.checkpoint).name}" if self.checkpoint else ""
        return ", ".join(each for each in (f"{self.model}{of}", self.loss, self.labels) if each)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """One training: an arm and a seed; what is not trained has one cell, with seed 0."""

    arm: Arm
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}" if self.arm.trained else str(self.arm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
        arm: what re-ranks.
        ranking: `pure`, by its scores alone, or `fused` with the base's.
        depth: K, how many of the base's candidates are re-ranked; None for the base itself.
    """

    arm: Arm
    ranking: Ranking
    depth: int | None = None


class Test(Section):
    """What rows are measured on; nothing is chosen by it, and no truth is forced into it."""

    __test__ = False  # pytest would take it for a test

    lists: tuple[Path, ...] = Field(
        min_length=1, description="lists as mined, with nothing forced in"
    )
    folder: Path | None = Field(
        default=None, description="their dataset's folder; by default data.folder"
    )
    gallery: Path | None = Field(
        default=None, description="their gallery, on a map; by default data.gallery"
    )
    tolerance_m: float | None = Field(
        default=None,
        gt=0,
        le=100_000,
        description="on a map: a place this near to the true one is right, in test and validation "
        "lists; by default what mining called right, the nearest tile",
    )


class Thresholds(Section):
    """Below what a label is 0 under losses that end in `+threshold`; others keep all labels."""

    overlap: float = Field(default=0.3, gt=0, le=1, description="IoU of footprints")
    cosine: float = Field(default=0.9, gt=0, le=1, description="of satellite descriptors")
    distance: float = Field(default=0.05, gt=0, le=1, description="exp(-metres / scale_m)")
    dataset: float = Field(default=0.39, gt=0, le=1, description="the dataset's own weights")
    quantile: float | None = Field(
        default=None, gt=0, lt=1, description="instead: this share of the other candidates is below"
    )
    scale_m: float = Field(default=50.0, gt=0, description="distance: metres for a label of 1/e")


class Pairs(Section):
    """The control without a language model: a head on the descriptors of photo and tile."""

    encoder: str = Field(default="embedded", description="as for `skylink build --encoder`")
    hidden: int = Field(
        default=256,
        ge=0,
        le=65_536,
        description="units of its one hidden layer; 0: linear, which can't relate the two",
    )
    lr: float = Field(default=1e-3, gt=0, le=1e3, description="learning rate")


class Relational(Architecture):
    """Small models on the cells of photo and map: `late` and `transformer`."""

    lr: float = Field(default=1e-3, gt=0, le=1e3, description="learning rate")
    power: float = Field(default=1.0, gt=0, le=16, description="labels are raised to it")


class Rows(Section):
    """A part of the table: every combination of what it lists."""

    title: str = Field(default="", max_length=200)
    isolates: Literal["lvlm", "loss"] | None = Field(
        default=None,
        description="the comparison in isolation that this part is: `lvlm` fixes the loss, `loss` "
        "fixes the LVLM; it is checked",
    )
    models: tuple[Model, ...] = Field(min_length=1)
    losses: tuple[str, ...] = ("relational",)
    labels: tuple[Source, ...] = ("overlap",)
    checkpoints: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="some of the grid's; by default all"
    )
    rankings: tuple[Ranking, ...] = Field(default=("pure", "fused"), min_length=1)

    def arms(self, checkpoints: tuple[str, ...]) -> list[Arm]:
        """In the order of the file, each once."""
        chosen = self.checkpoints or checkpoints or ("",)
        every = product(self.models, chosen, self.losses, self.labels)
        return list(dict.fromkeys(Arm.of(*each) for each in every))

    @model_validator(mode="after")
    def _something(self) -> Rows:
        if any(model not in UNTRAINED for model in self.models) and not (
            self.losses and self.labels
        ):
            raise OptionError(f"the rows {self.title!r} train models, and have no losses or labels")
        return self


class Grid(Section):
    """An ablation; see the sections."""

    checkpoints: tuple[str, ...] = Field(
        default=(), description="language models: hub names, presets or folders"
    )
    seeds: tuple[Seed, ...] = Field(
        default=(0, 1, 2), min_length=1, max_length=100, description="each arm is trained with each"
    )
    depths: tuple[Depth, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=10,
        description="K: how many of a test list's candidates are re-ranked; each is measured; by "
        "default validation.depth alone",
    )
    data: Data
    test: Test
    rows: tuple[Rows, ...] = Field(min_length=1)
    thresholds: Thresholds = Thresholds()
    pairs: Pairs = Pairs()
    relational: Relational = Relational()
    loss_params: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="of a loss by its name, such as {temperature = 1.0}"
    )
    asking: Asking = Asking()
    tune: Tune = Tune()
    optimizer: Optimizer = Optimizer()
    compute: Compute = Compute()
    validation: Validation = Validation()
    checkpointing: Checkpoints = Checkpoints()

    @model_validator(mode="after")
    def _fits(self) -> Grid:
        if not self.data.validation:
            raise OptionError(
                "data.validation is empty: the best step and the fusion are chosen on these lists",
                hint="`skylink mine --held-out 0.1 --validation-out validation.jsonl` makes some",
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise OptionError("seeds: one is there twice", hint="seeds = [0, 1, 2]")
        if self.validation.tolerance_m is not None:
            raise OptionError(
                "validation.tolerance_m is the test's in an ablation", hint="[test] tolerance_m"
            )
        if len(set(self.ranked)) < len(self.ranked):
            raise OptionError("depths: one is there twice", hint="depths = [10, 20, 50]")
        for rows in self.rows:
            if not self.checkpoints and (asking := set(rows.models) - set(WITHOUT_LVLM)):
                raise OptionError(
                    f"the rows {rows.title!r} have {min(asking)}, and no checkpoint is given",
                    hint='checkpoints = ["smolvlm-256m"], or another; see `skylink models`',
                )
            unknown = set(rows.checkpoints or ()) - set(self.checkpoints)
            if unknown:
                raise OptionError(
                    f"rows.checkpoints: {min(unknown)!r} is not among the grid's checkpoints",
                    hint=f"they are: {', '.join(self.checkpoints)}",
                )
            _check_isolation(rows, rows.arms(self.checkpoints))
        if (count := sum(1 for _ in self.cells())) > MAX_CELLS:
            raise OptionError(f"the grid has {count:,} cells, more than {MAX_CELLS:,}")
        return self

    @property
    def ranked(self) -> tuple[int, ...]:
        """Depths that rows are measured at."""
        return self.depths or (self.validation.depth,)

    @property
    def judging(self) -> Validation:
        """What is right in validation lists is what is right in the test's."""
        return self.validation.model_copy(update={"tolerance_m": self.test.tolerance_m})

    def own(self, model: Model) -> Section | None:
        """The section that says something of this model alone."""
        if model in RELATIONAL:
            return self.relational
        return self.pairs if model == "pairs-head" else None

    def cells(self) -> Iterator[Cell]:
        """Everything that is to be run, each once; the base needs no running."""
        arms = dict.fromkeys(arm for rows in self.rows for arm in rows.arms(self.checkpoints))
        for seed in self.seeds:  # all arms once before any of them twice
            for arm in arms:
                if arm.model != "base" and (arm.trained or seed == self.seeds[0]):
                    yield Cell(arm=arm, seed=seed if arm.trained else 0)

    def cells_of(self, arm: Arm) -> list[Cell]:
        """An arm's cells, by seed."""
        if arm.model == "base":
            return []
        return [Cell(arm=arm, seed=seed) for seed in (self.seeds if arm.trained else (0,))]

    def table(self, rows: Rows) -> list[Row]:
        """The rows of a part. The base has no scores to be fused."""
        return [
            row
            for arm in rows.arms(self.checkpoints)
            for row in (
                [Row(arm=arm, ranking="pure")]
                if arm.model == "base"
                else [
                    Row(arm=arm, ranking=ranking, depth=depth)
                    for depth in self.ranked
                    for ranking in rows.rankings
                ]
            )
        ]

    def config(self, cell: Cell, out: Path) -> TrainConfig:
        """The training of a cell. What has no LVLM has the name of an encoder instead."""
        arm = cell.arm
        how = {"lvlm-lora": "lora", "shuffled-tiles": self.tune.how}.get(arm.model, "head")
        loss = arm.loss_name or "relational"
        return TrainConfig(
            checkpoint=arm.checkpoint or self.pairs.encoder,
            out=out,
            seed=cell.seed,
            data=self.data,
            asking=self.asking,
            tune=self.tune.model_copy(update={"how": how}),
            loss=Loss(name=loss, params=self.loss_params.get(loss, {})),
            labels=self._labels(arm),
            optimizer=self.optimizer,
            compute=self.compute,
            validation=self.judging,
            checkpoints=self.checkpointing,
        )

    def _labels(self, arm: Arm) -> Labels:
        if not arm.labels:
            return Labels(source="stored")
        threshold: float | None = 0.0
        quantile = None
        if arm.loss.endswith(THRESHOLD):
            quantile = self.thresholds.quantile
            threshold = None if quantile is not None else getattr(self.thresholds, arm.labels)
        return Labels.model_validate(
            {
                "source": arm.labels,
                "threshold": threshold,
                "quantile": quantile,
                "scale_m": self.thresholds.scale_m,
            }
        )


def _check_isolation(rows: Rows, arms: list[Arm]) -> None:
    """What a part says that it isolates is all that differs in it; the base may stand beside it.

    Raises:
        OptionError: something else differs too, or nothing does.
    """
    if rows.isolates is None:
        return
    trained = [arm for arm in arms if arm.trained]
    lvlms = {(arm.model, arm.checkpoint) for arm in trained}
    losses = {(arm.loss, arm.labels) for arm in trained}
    fixed, varied = (losses, lvlms) if rows.isolates == "lvlm" else (lvlms, losses)
    what = ("loss and source of labels", "model or checkpoint")
    one, several = what if rows.isolates == "lvlm" else what[::-1]
    untrained = [arm for arm in arms if not arm.trained and arm.model != "base"]
    others = {(arm.model, arm.checkpoint) for arm in untrained}
    if len(fixed) != 1 or len(varied | (others if rows.isolates == "lvlm" else set())) < 2:
        raise OptionError(
            f"the rows {rows.title!r} isolate the {rows.isolates}: they need one {one} "
            f"and more than one {several}",
            hint="leave out `isolates`, or what differs beside it",
        )
