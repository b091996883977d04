"""Everything that can be chosen of a retriever's training. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from skylink.errors import OptionError
from skylink.training.config import Checkpoints, Judging, RunConfig, Schedule, Section


class Data(Section):
    """What is learnt from: a benchmark's training split, or mined lists."""

    benchmark: str | None = Field(default=None, description="a dataset of `skylink datasets`")
    root: Path | None = Field(default=None, description="its folder")
    task: str | None = Field(default=None, description="its protocol; by default the first")
    held_out: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of the benchmark's training photos that is held back, by place, for "
        "validation; 0: none",
    )
    train: Path | None = Field(
        default=None, description="instead: mined lists of a training split (`skylink mine`)"
    )
    validation: tuple[Path, ...] = Field(
        default=(), description="other lists of the training split, for validation"
    )
    folder: Path | None = Field(
        default=None,
        description="the dataset's folder, which pictures' paths in the lists are relative to; by "
        "default the folder of the lists",
    )
    hard: int = Field(
        default=1,
        ge=0,
        le=64,
        description="wrong tiles that each photo brings into its batch, drawn from its hardest",
    )
    pool: int = Field(default=16, ge=1, le=1000, description="how many hardest tiles are known")
    mine_every: int = Field(
        default=4,
        ge=0,
        description="epochs after which the hardest tiles are looked for anew, with the encoder as "
        "it is; 0: never, they are those of the mined lists",
    )
    same_place_m: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="tiles this near to a photo are not negatives, where the benchmark has "
        "positions (metres)",
    )
    flips: bool = Field(default=True, description="mirror half of the tiles, and their photos")
    rotations: Literal["none", "together", "tiles"] = Field(
        default="tiles",
        description="by quarter turns: `tiles` turns tiles alone, for photos of any heading; "
        "`together` their photos likewise",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.benchmark is None) == (self.train is None):
            raise OptionError(
                "nothing to learn from" if self.train is None else "a benchmark or lists, not both",
                hint='benchmark = "university1652" with root = "U1652", or train = "train.jsonl"',
            )
        if self.benchmark is not None and self.root is None:
            raise OptionError(
                f"the benchmark {self.benchmark!r} has no folder", hint='root = "FOLDER"'
            )
        if self.benchmark is not None and self.validation:
            raise OptionError(
                "validation lists go with mined lists", hint="held_out holds photos back"
            )
        return self


class Loss(Section):
    """What is minimised."""

    name: Literal["infonce", "relational"] = Field(
        default="infonce",
        description="`infonce`: a photo's own tile against all others, symmetric; `relational`: "
        "soft cross-entropy, for labels between right and wrong",
    )
    temperature: float = Field(
        default=0.07, ge=0.01, le=10, description="of cosines; where it begins if it is learnt"
    )
    learn_temperature: bool = Field(default=True, description="it is learnt, down to 0.01")
    label_smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="of infonce, as in Sample4Geo"
    )


class Optimizer(Schedule):
    """AdamW, linear warm-up and cosine decay."""

    epochs: float = Field(default=10.0, gt=0, le=10_000, description="passes over the photos")
    photos_per_step: int = Field(
        default=32, ge=2, le=65_536, description="photos of a batch, each with its tile"
    )
    lr: float = Field(default=1e-4, gt=0, le=1e3, description="learning rate of the encoder")
    lr_temperature: float = Field(
        default=1e-3, gt=0, le=1e3, description="learning rate of the temperature's logarithm"
    )


class Compute(Section):
    """How it is computed."""

    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="bf16: activations in bfloat16, weights in float32; auto: bf16 on a GPU, fp32 "
        "on a CPU",
    )
    pictures_at_once: int = Field(
        default=64,
        ge=1,
        description="pictures with gradients in memory; a larger batch goes through the encoder "
        "twice, with the same result",
    )
    workers: int = Field(default=4, ge=1, le=256, description="threads that decode pictures")
    memory_gb: float = Field(
        default=2.0, ge=0, le=100_000, description="of decoded pictures that are kept"
    )


class RetrieverConfig(RunConfig):
    """A training of a retriever; see the sections."""

    command = "train-retriever"
    title = "A training of a retriever"
    examples: ClassVar = {"encoder": "timm:convnext_base.fb_in22k_ft_in1k_384", "out": "retriever"}
    free = (
        *RunConfig.free, "compute.workers", "compute.memory_gb",
        "data.root", "data.train", "data.validation", "data.folder",
    )  # fmt: skip

    encoder: str = Field(
        description="what is trained: timm:NAME, hf:NAME, trained:FOLDER, or a published "
        "checkpoint such as sample4geo:PATH"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of order, draws and dropout")
    data: Data
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    compute: Compute = Compute()
    validation: Judging = Judging()
    checkpoints: Checkpoints = Checkpoints()

    def anchored(self, anchor: Callable[[Path], Path]) -> Self:
        given = self.data

        def placed(path: Path | None) -> Path | None:
            return None if path is None else anchor(path)

        folder = given.folder or (given.train.parent if given.train else None)
        data = given.model_copy(
            update={
                "root": placed(given.root),
                "train": placed(given.train),
                "validation": tuple(anchor(path) for path in given.validation),
                "folder": placed(folder),
            }
        )
        return self.model_copy(
            update={"out": anchor(self.out), "encoder": _beside(self.encoder, anchor), "data": data}
        )


def _beside(spec: str, anchor: Callable[[Path], Path]) -> str:
    """A spec whose file or folder, if it names one, doesn't depend on the working folder."""
    for mark in ("@", ":"):
        before, found, value = spec.partition(mark)
        if found and value and anchor(Path(value)).exists():
            return f"{before}{found}{anchor(Path(value))}"
    return spec
