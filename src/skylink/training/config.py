"""Everything that can be chosen of a training, read from one TOML or YAML file. Imports no torch.

Paths in a file are relative to that file. `default_text` is a commented file to begin with.
"""

from __future__ import annotations

import json
import tomllib
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from skylink.errors import OptionError
from skylink.lvlm.options import Way
from skylink.prompt import template_of
from skylink.soft_labels import Source

MAX_BYTES = 2**20


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(_Section):
    """What is learnt from."""

    train: Path = Field(description="lists of the training split, as `skylink mine` writes them")
    validation: tuple[Path, ...] = Field(
        default=(),
        description="other lists of the training split: they stop the training, choose its best "
        "step and fit the fusion; never the test split",
    )
    pictures: Path | None = Field(
        default=None,
        description="gallery or dataset folder that the lists are about; by default the one that "
        "they were mined from",
    )
    list_size: int = Field(
        default=10, ge=2, le=100, description="candidates of a list that a step sees"
    )
    negatives: Literal["hard", "sampled"] = Field(
        default="hard",
        description="which candidates beside the ground truth: `hard` takes the base's best, "
        "`sampled` draws others in each epoch",
    )


class Asking(_Section):
    """How the model is asked; saved with it and used again."""

    template: str = Field(default="pointwise-v1", description="a pointwise prompt template")
    facts: bool = Field(default=True, description="tell the model widths, altitude and north")
    show: Way = Field(default="auto", description="how a photo is shown: auto, north-up, as-taken")
    visual_tokens: int = Field(default=256, ge=4, le=16384, description="budget of a picture")

    @field_validator("template")
    @classmethod
    def _pointwise(cls, name: str) -> str:
        return template_of(name, "pointwise").name


class Tune(_Section):
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


class Loss(_Section):
    """What is minimised."""

    name: str = Field(default="relational", description="see docs/training.md for the list")
    params: dict[str, float] = Field(
        default_factory=dict, description="of this loss, such as {temperature = 1.0}"
    )


class Labels(_Section):
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


class Optimizer(_Section):
    """AdamW, linear warm-up and cosine decay."""

    epochs: float = Field(default=1.0, gt=0, le=10_000, description="passes over the lists")
    steps: int | None = Field(default=None, ge=1, description="instead of epochs")
    lists_per_step: int = Field(
        default=8,
        ge=1,
        description="lists whose gradients are summed for a step, over all processes together: "
        "their number changes the speed and not the result",
    )
    lr_lora: float = Field(default=1e-4, gt=0, description="learning rate of LoRA")
    lr_head: float = Field(default=1e-4, gt=0, description="learning rate of the value head")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled, on matrices and head")
    warmup: float = Field(default=0.03, ge=0, lt=1, description="share of the steps")
    final_lr: float = Field(default=0.1, ge=0, le=1, description="share of the rate at the end")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")


class Compute(_Section):
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


class Validation(_Section):
    """When validation lists are looked at."""

    every: int | None = Field(default=None, ge=1, description="steps; by default four times")
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many validations without a better one"
    )
    depth: int = Field(
        default=10, ge=2, le=100, description="candidates of a validation list that are re-ranked"
    )


class Checkpoints(_Section):
    """What a killed run goes on from."""

    every: int = Field(default=100, ge=1, description="steps")
    keep: int = Field(default=2, ge=1, description="of the last ones")


class TrainConfig(_Section):
    """A training; see the sections."""

    checkpoint: str = Field(description="model to train: hub name, preset or folder")
    revision: str | None = Field(default=None, description="commit of a checkpoint on the hub")
    out: Path = Field(description="the folder to write")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of order, sampling and dropout")
    data: Data
    asking: Asking = Asking()
    tune: Tune = Tune()
    loss: Loss = Loss()
    labels: Labels = Labels()
    optimizer: Optimizer = Optimizer()
    compute: Compute = Compute()
    validation: Validation = Validation()
    checkpoints: Checkpoints = Checkpoints()

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Keys that change what is learnt and differ from an earlier run's `json_dict`."""
        mine = _flat(self.json_dict())
        theirs = _flat(other)
        return sorted(
            key
            for key in mine.keys() | theirs.keys()
            if not key.startswith(FREE) and mine.get(key) != theirs.get(key)
        )

    def json_dict(self) -> dict[str, Any]:
        """As JSON and TOML hold it."""
        return self.model_dump(mode="json")


FREE = ("out", "checkpoints.", "compute.cache", "data.train", "data.validation", "data.pictures")
"""What may change between a killed run and its continuation; of lists the content may not."""

EXAMPLES = {"checkpoint": "qwen2-vl-7b", "out": "reranker", "train": "train.jsonl"}


def read_config(path: Path) -> TrainConfig:
    """A training's choices from a TOML or YAML file.

    Raises:
        OptionError: it can't be read, or a key or value in it can't be used; the nearest key is
            named.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise OptionError(f"{path} is larger than {MAX_BYTES >> 20} MB: no configuration")
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"{path} can't be read: {getattr(error, 'strerror', None) or error}",
            hint="`skylink train --print-config > train.toml` writes one to begin with",
        ) from error
    loaded = _parse(path, text)
    if not isinstance(loaded, dict):
        raise OptionError(f"{path} holds no keys", hint="`skylink train --print-config` shows them")
    try:
        config = TrainConfig.model_validate(loaded)
    except ValidationError as error:
        raise _complaint(path, error) from error
    return _anchored(config, path.parent)


def default_text() -> str:
    """A TOML file with every key, its default and what it means."""
    parts = ["# A training of a re-ranker: `skylink train FILE`. Paths are relative to this file."]
    plain = {n: f for n, f in TrainConfig.model_fields.items() if _section_of(f) is None}
    parts += [_line(name, field) for name, field in plain.items()]
    for name, field in TrainConfig.model_fields.items():
        section = _section_of(field)
        if section is not None:
            parts.append(f"\n# {(section.__doc__ or '').strip()}\n[{name}]")
            parts += [_line(key, inner) for key, inner in section.model_fields.items()]
    return "\n".join(parts) + "\n"


def toml_text(config: TrainConfig) -> str:
    """The whole configuration as TOML that `read_config` reads again."""
    values = config.json_dict()
    lines = [_assign(k, v) for k, v in values.items() if not isinstance(v, dict)]
    for name, section in values.items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]", *(_assign(k, v) for k, v in section.items())]
    return "\n".join(line for line in lines if not line.startswith("# ")) + "\n"


def fields() -> list[tuple[str, str, str]]:
    """(key, default as TOML, meaning) of everything that can be chosen, for docs and help."""
    rows = []
    for name, field in TrainConfig.model_fields.items():
        section = _section_of(field)
        inner = {name: field} if section is None else section.model_fields
        for key, f in inner.items():
            dotted = key if section is None else f"{name}.{key}"
            default = "" if f.is_required() else _toml(f.get_default(call_default_factory=True))
            rows.append((dotted, default, f.description or ""))
    return rows


def _parse(path: Path, text: str) -> Any:
    if path.suffix.lower() in (".yaml", ".yml"):
        try:
            import yaml
        except ImportError as error:
            raise OptionError(
                f"{path}: YAML can't be read here", hint="pip install pyyaml, or write TOML"
            ) from error
        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            words = " ".join(str(error).split())
            raise OptionError(f"{path} is not YAML: {words}", hint="or write TOML") from error
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(
            f"{path} is not TOML: {error}", hint="texts and paths stand between quotes"
        ) from error


def _complaint(path: Path, error: ValidationError) -> OptionError:
    """The first thing that is wrong, with the nearest key where a key is unknown."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    key = ".".join(where)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, OptionError):
        return OptionError(f"{path}: {key}: {cause.message}", hint=cause.hint)
    if first["type"] == "extra_forbidden":
        return OptionError(f"{path}: there is no key {key}", hint=_nearest(where))
    if first["type"] == "missing":
        return OptionError(
            f"{path}: {key} is missing", hint="`skylink train --print-config` explains every key"
        )
    given = first.get("input")
    return OptionError(
        f"{path}: {key} = {given!r}: {first['msg']}",
        hint="`skylink train --print-config` explains every key",
    )


def _nearest(where: list[str]) -> str:
    known = [name for name, _, _ in fields()]
    key = ".".join(where)
    by_end: dict[str, str] = {}
    for name in known:
        by_end.setdefault(name.rsplit(".", 1)[-1], name)
    near = get_close_matches(key, known, n=1, cutoff=0.75)
    ends = get_close_matches(where[-1], by_end, n=1, cutoff=0.6)
    if near or ends:
        return f"did you mean {near[0] if near else by_end[ends[0]]!r}?"
    return "`skylink train --print-config` shows them all"


def _anchored(config: TrainConfig, folder: Path) -> TrainConfig:
    """The same with paths that do not depend on where the command is run."""

    def anchor(path: Path) -> Path:
        return (folder / path.expanduser()).absolute()

    data = config.data.model_copy(
        update={
            "train": anchor(config.data.train),
            "validation": tuple(anchor(path) for path in config.data.validation),
            "pictures": None if config.data.pictures is None else anchor(config.data.pictures),
        }
    )
    cache = config.compute.cache
    compute = config.compute.model_copy(update={"cache": None if cache is None else anchor(cache)})
    beside = anchor(Path(config.checkpoint))
    checkpoint = str(beside) if beside.is_dir() else config.checkpoint
    return config.model_copy(
        update={
            "checkpoint": checkpoint, "out": anchor(config.out), "data": data, "compute": compute
        }
    )  # fmt: skip


def _section_of(field: FieldInfo) -> type[_Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, _Section) else None


def _line(name: str, field: FieldInfo) -> str:
    """A key with its meaning before it; keys without a value are comments."""
    about = field.description or ""
    if field.is_required():
        return f"{name} = {_toml(EXAMPLES[name])}  # {about}"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return f"# {name} = {_example(field.annotation)}  # {about}"
    return f"{name} = {_toml(default)}  # {about}"


def _example(kind: Any) -> str:
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return "0" if int in kinds else "0.5" if float in kinds else '"..."'


def _assign(key: str, value: Any) -> str:
    return f"# {key}" if value is None else f"{key} = {_toml(value)}"


def _toml(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and not before:
            flat |= _flat(value, f"{key}.")
        else:
            flat[before + key] = value
    return flat
