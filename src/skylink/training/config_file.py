"""A training's choices in one TOML or YAML file: read, checked, and written with comments.

Paths in a file are relative to that file. `default_text` is a commented file to begin with.
"""

from __future__ import annotations

import json
import tomllib
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from skylink.errors import OptionError
from skylink.training.config import Section, TrainConfig

MAX_BYTES = 2**20
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
    values = config.model_dump(mode="json", exclude_none=True)
    lines = [f"{k} = {_toml(v)}" for k, v in values.items() if not isinstance(v, dict)]
    for name, section in values.items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in section.items())]
    return "\n".join(lines) + "\n"


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
            yaml: Any = import_module("yaml")
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
            "folder": anchor(config.data.folder or config.data.train.parent),
            "gallery": None if config.data.gallery is None else anchor(config.data.gallery),
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


def _section_of(field: FieldInfo) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


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
