"""Everything that can be chosen of a training of the embedded encoder. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from skylink.errors import OptionError
from skylink.training.config import Judging, RunConfig, Schedule, Section
from skylink.views.synthetic import Difficulty

Part = Literal["dense", "descriptor"]

# what several sections have, each with a default of its own
Synthetic = Annotated[int, Field(ge=0, le=10**6, description="maps with synthetic views")]
Real = Annotated[int, Field(ge=0, le=10**6, description="maps with views of real photos")]
Threshold = Annotated[
    float, Field(ge=0, le=1, description="overlaps below count as 0; 0: without threshold")
]
Power = Annotated[float, Field(gt=0, le=16, description="of the overlap")]
MapsPerStep = Annotated[int, Field(ge=2, le=256, description="maps that compete")]
ViewsPerMap = Annotated[int, Field(ge=1, le=32, description="views of each that search")]
RealShare = Annotated[
    float, Field(ge=0, le=1, description="of steps, on real photos, if there are any")
]
Temperature = Annotated[float, Field(ge=1e-3, le=1, description="at the beginning; learnt")]
Epochs = Annotated[float, Field(gt=0, le=10_000, description="passes over the maps")]
Steps = Annotated[int | None, Field(ge=1, description="instead of epochs")]


class Data(Section):
    """What is learnt from. Every n-th image and some folders of photos are held out."""

    maps: tuple[Path, ...] = Field(
        min_length=1,
        description="a folder of satellite images, or several; 1 pixel counts as a metre",
    )
    photos: Path | None = Field(
        default=None,
        description="a folder of folders of overlapping drone photos, each with its positions in "
        "EXIF or in FOLDER.csv (file,lat,lon); without: synthetic views alone",
    )
    held_out_every: int = Field(
        default=10, ge=2, le=1000, description="each n-th image is for validation"
    )
    held_out_photos: tuple[str, ...] = Field(
        default=(), description="names of the folders of photos for validation"
    )

    terms: str = Field(
        default="", max_length=2000, description="of the pictures, for the model card"
    )

    @field_validator("maps", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value


class Views(Section):
    """The samples: how many, and how far drone views are from the map."""

    synthetic: Synthetic = 2520
    real: Real = 900
    views: int = Field(default=3, ge=1, le=32, description="views of each map")
    map_px: int = Field(default=384, ge=128, le=1024, multiple_of=32, description="side of a map")
    view_px: int = Field(default=224, ge=64, le=512, multiple_of=32, description="side of a view")
    change: float = Field(
        default=1.0, ge=0, le=3, description="most of other colours, shadows, things and relief"
    )
    heading_deg: float = Field(default=4.0, ge=0, le=45, description="error of the heading (1 sd)")
    tilt_deg: float = Field(default=2.0, ge=0, le=20, description="error of the tilt (1 sd)")
    altitude: float = Field(default=0.07, ge=0, le=0.5, description="relative error of the height")
    max_tilt_deg: float = Field(default=58.0, ge=0, le=60, description="most tilt from nadir")
    widths: tuple[float, float] = Field(
        default=(0.3, 1.4), description="ground widths of photos, as shares of a view's side"
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        low, high = self.widths
        if not 0.05 <= low <= high <= 5:
            raise OptionError(f"widths = {list(self.widths)} is no range", hint="[0.3, 1.4]")
        if self.map_px < self.view_px:
            raise OptionError("map_px is less than view_px", hint="map_px = 384, view_px = 224")
        if self.synthetic + self.real == 0:
            raise OptionError("there are no views to learn from", hint="synthetic = 2520")
        return self

    @property
    def difficulty(self) -> Difficulty:
        """Of the views."""
        return Difficulty(
            change=self.change, heading_deg=self.heading_deg, tilt_deg=self.tilt_deg,
            altitude=self.altitude, max_tilt_deg=self.max_tilt_deg, widths=self.widths,
        )  # fmt: skip


class HeldOut(Views):
    """The samples for validation: harder, so that figures are not saturated."""

    synthetic: Synthetic = 280
    real: Real = 232
    change: float = Field(default=1.2, ge=0, le=3, description="as in views")
    widths: tuple[float, float] = Field(default=(0.28, 0.75), description="as in views")


class Labels(Section):
    labels: Literal["overlap", "hard"] = Field(
        default="overlap",
        description="`overlap`: IoU of a candidate's square with the true one; `hard`: the best "
        "candidate alone",
    )
    threshold: Threshold = 0.4
    power: Power = 4.0
    min_cells: int = Field(
        default=25, ge=1, le=4096, description="views with fewer valid cells teach nothing"
    )


class Dense(Labels):
    """The dense head: what correlates with the map. Candidates are all cells of all maps."""

    kind: Literal["mlp", "linear"] = Field(
        default="mlp", description="`mlp`: a residual of two layers for each cell; `linear`"
    )
    hidden: int = Field(default=224, ge=1, le=4096, description="units of the mlp")
    channels: int = Field(default=112, ge=32, le=1024, description="of a relational cell")
    maps_per_step: MapsPerStep = 16
    views_per_map: ViewsPerMap = 2
    decoys: bool = Field(
        default=True, description="wrongly turned views compete with the true ones"
    )
    real_share: RealShare = 0.9
    temperature: Temperature = 0.02
    unsure: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="score below which search doubts a given heading; by default measured on the "
        "held-out maps",
    )
    fits_better: float | None = Field(
        default=None, ge=0, le=1, description="by how much another heading has to fit better"
    )


class Descriptor(Labels):
    """The descriptor: the tuned upper blocks and a projection. Candidates are tiles of the maps."""

    size: int = Field(default=255, ge=8, le=512, description="numbers of the descriptor")
    weight: int = Field(
        default=3,
        ge=1,
        le=9,
        description="of its similarity in the sum with the base, whose weight is 3",
    )
    maps_per_step: MapsPerStep = 16
    views_per_map: ViewsPerMap = 2
    other_tiles: int = Field(
        default=2, ge=1, le=64, description="tiles of each map beside those nearest to its views"
    )
    jitter_cells: float = Field(
        default=2.0, ge=0, le=8, description="of the nearest tile's place (1 sd)"
    )
    threshold: Threshold = 0.25
    power: Power = 2.0
    real_share: RealShare = 0.35
    temperature: Temperature = 0.07

    @model_validator(mode="after")
    def _whole_parts(self) -> Self:
        if self.size % self.weight:
            raise OptionError(
                f"size = {self.size} is not a multiple of weight = {self.weight}",
                hint="size = 255, weight = 3",
            )
        return self


class Rates(Schedule):
    """Of the dense head: AdamW, linear warm-up and cosine decay."""

    epochs: Epochs = 8.0
    steps: Steps = 1500
    weight_decay: float = Field(default=1e-4, ge=0, description="decoupled")
    final_lr: float = Field(default=0.05, ge=0, le=1, description="share of the rate at the end")
    lr: float = Field(default=6e-4, gt=0, le=1e3, description="learning rate")


class DescriptorRates(Rates):
    """Of the descriptor: AdamW, linear warm-up and cosine decay."""

    epochs: Epochs = 4.0
    steps: Steps = 900
    lr: float = Field(default=3e-4, gt=0, le=1e3, description="learning rate of the blocks")
    lr_projection: float = Field(
        default=1e-3, gt=0, le=1e3, description="learning rate of projection and temperature"
    )


class HeldOutJudging(Judging):
    """When the held-out maps are looked at, in both trainings."""

    every: int | None = Field(default=100, ge=1, description="steps")


class EncoderRecipe(RunConfig):
    """A training of the embedded encoder; see the sections."""

    command = "train-encoder"
    title = "A training of the embedded encoder"
    examples: ClassVar = {"out": "encoder", "maps": "satellite"}

    parts: tuple[Part, ...] = Field(
        default=("dense", "descriptor"), min_length=1, description="what is trained"
    )
    data: Data
    views: Views = Views()
    held_out: HeldOut = HeldOut()
    dense: Dense = Dense()
    optimizer: Rates = Rates()
    descriptor: Descriptor = Descriptor()
    descriptor_optimizer: DescriptorRates = DescriptorRates()
    validation: HeldOutJudging = HeldOutJudging()

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        for section in (self.views, self.held_out):
            if (section.map_px, section.view_px) != (self.views.map_px, self.views.view_px):
                raise OptionError("maps and views are of other sizes in views and held_out")
        for name, asked in (("dense", self.dense), ("descriptor", self.descriptor)):
            if asked.views_per_map > self.views.views:
                raise OptionError(
                    f"{name}.views_per_map = {asked.views_per_map}, and maps have "
                    f"{self.views.views} views", hint=f"views.views = {asked.views_per_map}",
                )  # fmt: skip
        return self

    def anchored(self, anchor: Callable[[Path], Path]) -> Self:
        photos = self.data.photos
        data = self.data.model_copy(
            update={
                "maps": tuple(anchor(path) for path in self.data.maps),
                "photos": None if photos is None else anchor(photos),
            }
        )
        return self.model_copy(update={"out": anchor(self.out), "data": data})


class Stage(RunConfig):
    """What a part's training depends on; where its features come from, hashes tell.

    Attributes:
        part: its options have this name in a recipe, and here.
        rates: those of its optimizer have this name in a recipe.
    """

    command = "train-encoder"
    title = EncoderRecipe.title
    examples: ClassVar[dict[str, str]] = {}
    part: ClassVar[Part]
    rates: ClassVar[str]

    @classmethod
    def of(cls, recipe: EncoderRecipe) -> Self:
        """The stage of a recipe; its part names the folder that it is kept in."""
        chosen = {cls.part: getattr(recipe, cls.part), "optimizer": getattr(recipe, cls.rates)}
        return cls(
            out=recipe.out / "work" / cls.part, seed=recipe.seed, validation=recipe.validation,
            checkpoints=recipe.checkpoints, **chosen,
        )  # fmt: skip


class DenseStage(Stage):
    """The dense head's training."""

    part, rates = "dense", "optimizer"

    dense: Dense
    optimizer: Rates


class DescriptorStage(Stage):
    """The descriptor's training."""

    part, rates = "descriptor", "descriptor_optimizer"

    descriptor: Descriptor
    optimizer: DescriptorRates
