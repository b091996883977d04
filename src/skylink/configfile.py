"""Files of choices, TOML or YAML, as pydantic models: read, bounded, and typos named.

What is not known is refused, with the nearest key. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from skylink.errors import OptionError

MAX_BYTES = 2**20

Kind = TypeVar("Kind", bound=BaseModel)


def read_choices(path: Path, kind: type[Kind], *, printed: str) -> Kind:
    """A model from a file: YAML if its name ends in .yaml or .yml, else TOML.

    Args:
        path: the file.
        kind: of model; it and the models in it should forbid unknown keys.
        printed: the command that prints such a file, and where to, for hints:
            `skylink train --print-config > train.toml`.

    Raises:
        OptionError: it can't be read, or a key or value in it can't be used; it names the file,
            the key, and where a key is unknown the nearest one.
    """
    explained = f"`{printed.split(' > ')[0]}` explains every key"
    loaded = _parsed(path, begin=f"`{printed}` writes one to begin with")
    if not isinstance(loaded, dict):
        raise OptionError(f"{path} holds no keys", hint=explained)
    try:
        with of_file(path):
            return kind.model_validate(loaded)
    except ValidationError as error:
        raise _complaint(path, kind, explained, error) from error


@contextlib.contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Names the file in an `OptionError` of its choices."""
    try:
        yield
    except OptionError as error:
        raise OptionError(f"{path}: {error.message}", hint=error.hint) from error


def known_keys(kind: type[BaseModel], before: str = "") -> Iterator[str]:
    """Every key that a file may have, sections with dots."""
    for name, field in kind.model_fields.items():
        inner = next(
            (k for k in (field.annotation, *get_args(field.annotation)) if _is_model(k)), None
        )
        if inner is None:
            yield before + name
        else:
            yield from known_keys(inner, f"{before}{name}.")


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _parsed(path: Path, *, begin: str) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise OptionError(f"{path} is larger than {MAX_BYTES >> 20} MB: no file of choices")
        text = data.decode("utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise OptionError(f"{path} can't be read: {reason}", hint=begin) from error
    return _yaml(path, text) if path.suffix.lower() in (".yaml", ".yml") else _toml(path, text)


def _toml(path: Path, text: str) -> Any:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(
            f"{path} is not TOML: {error}", hint="texts and paths stand between quotes"
        ) from error


def _yaml(path: Path, text: str) -> Any:
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


def _complaint(
    path: Path, kind: type[BaseModel], explained: str, error: ValidationError
) -> OptionError:
    """The first thing that is wrong."""
    # a key that is missing may be the one that is misspelt
    order = {"extra_forbidden": 0, "missing": 2}
    first = min(error.errors(), key=lambda each: order.get(each["type"], 1))
    where = [str(part) for part in first["loc"]]
    key = ".".join(where)
    if first["type"] == "extra_forbidden":
        hint = _nearest(where, list(known_keys(kind))) or explained
        return OptionError(f"{path}: there is no key {key}", hint=hint)
    if first["type"] == "missing":
        return OptionError(f"{path}: {key} is missing", hint=explained)
    return OptionError(f"{path}: {key} = {first.get('input')!r}: {first['msg']}", hint=explained)


def _nearest(where: list[str], known: list[str]) -> str | None:
    """Of the same section if there is one that is near, else of any."""
    key = ".".join(part for part in where if not part.isdigit())
    sections = dict.fromkeys(name.split(".")[0] for name in known)
    near = get_close_matches(key, [*sections, *known], n=1, cutoff=0.7)
    if near:
        return f"did you mean {near[0]!r}?"
    ends = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}
    end = get_close_matches(where[-1], ends, n=1, cutoff=0.6)
    return f"did you mean {ends[end[0]]!r}?" if end else None
