"""A training's choices in one TOML or YAML file: read, checked, and written with comments.

Paths in a file are relative to that file. `default_text` is a commented file to begin with.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args

from pydantic.fields import FieldInfo

from skylink.configfile import read_choices
from skylink.training.config import RunConfig, Section

Kind = TypeVar("Kind", bound=RunConfig)


def read_config(path: Path, kind: type[Kind]) -> Kind:
    """A training's choices from a TOML or YAML file.

    Args:
        path: the file.
        kind: of training.

    Raises:
        OptionError: it can't be read, or a key or value in it can't be used; the nearest key is
            named.
    """
    printed = f"skylink {kind.command} --print-config > {kind.command}.toml"
    config = read_choices(path, kind, printed=printed)
    return config.anchored(lambda inner: (path.parent / inner.expanduser()).absolute())


def default_text(kind: type[RunConfig]) -> str:
    """A TOML file with every key, its default and what it means."""
    parts = [f"# {kind.title}: `skylink {kind.command} FILE`. Paths are relative to this file."]
    for name, section, keys in _sections(kind):
        if section is not None:
            parts.append(f"\n# {(section.__doc__ or '').strip()}\n[{name}]")
        parts += [_line(key, field, kind) for key, field in keys.items()]
    return "\n".join(parts) + "\n"


def toml_text(config: RunConfig) -> str:
    """The whole configuration as TOML that `read_config` reads again."""
    values = config.model_dump(mode="json", exclude_none=True)
    lines = [f"{k} = {_toml(v)}" for k, v in values.items() if not isinstance(v, dict)]
    for name, section in values.items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in section.items())]
    return "\n".join(lines) + "\n"


def fields(kind: type[RunConfig]) -> list[tuple[str, str, str]]:
    """(key, default as TOML, meaning) of everything that can be chosen, for docs and help."""
    rows = []
    for name, _, keys in _sections(kind):
        for key, field in keys.items():
            default = field.get_default(call_default_factory=True)
            value = "" if field.is_required() else _toml(default)
            rows.append((f"{name}.{key}" if name else key, value, field.description or ""))
    return rows


def _sections(
    kind: type[RunConfig],
) -> list[tuple[str, type[Section] | None, dict[str, FieldInfo]]]:
    """(name, section, its keys); what must be given comes first, and keys of no section before."""
    plain, sections = {}, []
    for name, field in kind.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            sections.append((name, section, dict(section.model_fields)))
        else:
            plain[name] = field
    plain = dict(sorted(plain.items(), key=lambda item: not item[1].is_required()))
    sections.sort(key=lambda item: not kind.model_fields[item[0]].is_required())
    return [("", None, plain), *sections]


def _line(name: str, field: FieldInfo, kind: type[RunConfig]) -> str:
    """A key with its meaning before it; keys without a value are comments."""
    about = field.description or ""
    if field.is_required():
        return f"{name} = {_toml(kind.examples[name])}  # {about}"
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
