"""A grid in one TOML file: read, checked, and one to begin with.

Paths in a file are relative to that file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from skylink.ablation.grid import THRESHOLD, Grid
from skylink.errors import OptionError
from skylink.training.config import Section

MAX_BYTES = 2**20
EXPLAINED = "`skylink ablate --print-grid` explains every key"


def example_text() -> str:
    """A commented grid to begin with."""
    return (resources.files("skylink.ablation") / "example.toml").read_text(encoding="utf-8")


def read_grid(path: Path) -> Grid:
    """A grid from a TOML file.

    Raises:
        OptionError: it can't be read, or a key or value in it can't be used; the nearest key is
            named.
    """
    loaded = _parsed(path)
    try:
        grid = Grid.model_validate(loaded)
        _check_losses(grid)
    except ValidationError as error:
        raise _complaint(path, error) from error
    except OptionError as error:
        raise OptionError(f"{path}: {error.message}", hint=error.hint) from error
    return _anchored(grid, path.parent)


def known_keys(kind: type[Section] = Grid, before: str = "") -> Iterator[str]:
    """Every key that a file may have, sections with dots."""
    for name, field in kind.model_fields.items():
        inner = next(
            (k for k in (field.annotation, *get_args(field.annotation)) if _is_section(k)), None
        )
        if inner is None:
            yield before + name
        else:
            yield from known_keys(inner, f"{before}{name}.")


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise OptionError(f"{path} is larger than {MAX_BYTES >> 20} MB: no grid")
        return tomllib.loads(data.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"{path} can't be read: {getattr(error, 'strerror', None) or error}",
            hint="`skylink ablate --print-grid > grid.toml` writes one to begin with",
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(
            f"{path} is not TOML: {error}", hint="texts and paths stand between quotes"
        ) from error


def _check_losses(grid: Grid) -> None:
    """Raises OptionError: a loss or a parameter of one is unknown."""
    from skylink.loss_registry import make_loss

    used = {arm.loss: arm.loss_name for rows in grid.rows for arm in rows.arms(grid.checkpoints)}
    for loss, name in used.items():
        if loss:
            make_loss(name, **grid.loss_params.get(name, {}))
        if loss == f"hard{THRESHOLD}":
            raise OptionError("the hard loss has no labels to cut", hint='"hard"')
    if unused := sorted(set(grid.loss_params) - set(used.values())):
        names = ", ".join(sorted({name for name in used.values() if name}))
        raise OptionError(f"loss_params.{unused[0]}: no row has this loss", hint=f"rows: {names}")


def _complaint(path: Path, error: ValidationError) -> OptionError:
    """The first thing that is wrong, with the nearest key where a key is unknown."""
    # a key that is missing may be the one that is misspelt
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    where = [str(part) for part in first["loc"]]
    key = ".".join(where)
    if first["type"] == "extra_forbidden":
        return OptionError(f"{path}: there is no key {key}", hint=_nearest(where))
    if first["type"] == "missing":
        return OptionError(f"{path}: {key} is missing", hint=EXPLAINED)
    return OptionError(f"{path}: {key} = {first.get('input')!r}: {first['msg']}", hint=EXPLAINED)


def _nearest(where: list[str]) -> str:
    """Of the same section if there is one that is near, else of any."""
    known = list(known_keys())
    key = ".".join(part for part in where if not part.isdigit())
    sections = {name.split(".")[0]: name.split(".")[0] for name in known}
    ends = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}
    near = get_close_matches(key, [*sections, *known], n=1, cutoff=0.7)
    if near:
        return f"did you mean {near[0]!r}?"
    end = get_close_matches(where[-1], ends, n=1, cutoff=0.6)
    return f"did you mean {ends[end[0]]!r}?" if end else EXPLAINED


def _anchored(grid: Grid, folder: Path) -> Grid:
    """The same with paths that do not depend on where the command is run."""

    def anchor(path: Path) -> Path:
        return (folder / path.expanduser()).absolute()

    def maybe(path: Path | None) -> Path | None:
        return None if path is None else anchor(path)

    def model(name: str) -> str:
        beside = anchor(Path(name))
        return str(beside) if beside.is_dir() else name

    data, test = grid.data, grid.test
    home = anchor(data.folder or data.train.parent)
    return grid.model_copy(
        update={
            "checkpoints": tuple(map(model, grid.checkpoints)),
            "rows": tuple(
                rows.model_copy(
                    update={"checkpoints": rows.checkpoints and tuple(map(model, rows.checkpoints))}
                )
                for rows in grid.rows
            ),
            "data": data.model_copy(
                update={
                    "train": anchor(data.train),
                    "validation": tuple(map(anchor, data.validation)),
                    "folder": home,
                    "gallery": maybe(data.gallery),
                }
            ),
            "test": test.model_copy(
                update={
                    "lists": tuple(map(anchor, test.lists)),
                    "folder": maybe(test.folder) or home,
                    "gallery": maybe(test.gallery or data.gallery),
                }
            ),
            "compute": grid.compute.model_copy(update={"cache": maybe(grid.compute.cache)}),
        }
    )
