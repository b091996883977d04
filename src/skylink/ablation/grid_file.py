"""A grid in one TOML or YAML file: read, checked, and one to begin with.

Paths in a file are relative to that file.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from skylink.ablation.grid import THRESHOLD, Grid
from skylink.configfile import of_file, read_choices
from skylink.errors import OptionError


def example_text() -> str:
    """A commented grid to begin with."""
    return (resources.files("skylink.ablation") / "example.toml").read_text(encoding="utf-8")


def read_grid(path: Path) -> Grid:
    """A grid from a TOML or YAML file.

    Raises:
        OptionError: it can't be read, or a key or value in it can't be used; the nearest key is
            named.
    """
    grid = read_choices(path, Grid, printed="skylink ablate --print-grid > grid.toml")
    with of_file(path):
        _check_losses(grid)
    return _anchored(grid, path.parent)


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
