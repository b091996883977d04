"""Running a grid's cells one after another; a killed run goes on where it was.

    DIR/cells/<name>.json     a finished or failed cell
    DIR/cells/<name>/         its training; at the end a folder that `--lvlm-adapter` takes

A finished cell is never run again as long as its choices and lists are the same; a failed one is
tried again by the next run. Several runs may share a folder, each with a part of the cells.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

from skylink.ablation.cell import Maker, Work, measure, validation_lists
from skylink.ablation.fixed_cell import make_fixed
from skylink.ablation.grid import RELATIONAL, Cell, Grid, Model
from skylink.ablation.held_out import HeldOut
from skylink.ablation.lvlm_cell import make_lvlm
from skylink.ablation.pairs_cell import Looks, make_pairs
from skylink.ablation.relational_cell import make_relational
from skylink.ablation.result import (
    Done,
    Failed,
    Result,
    digest_of,
    name_of,
    read_result,
    write_result,
)
from skylink.embedded.relational_mined import open_cells
from skylink.errors import OptionError, OutputError, SkyLinkError
from skylink.gallery import Gallery
from skylink.minedfile import MinedFile, require_gallery
from skylink.training import state
from skylink.training.data import ValidationLists, require_pictures
from skylink.training.loop import FOLDER

Progress = Callable[[int, int, str], None]
CELLS = "cells"

_log = logging.getLogger(__name__)


class Ablation:
    """A grid and the folder of its results.

    Args:
        grid: what is compared.
        out: the folder.

    Attributes:
        held: the test lists.

    Raises:
        QueriesError: lists can't be used, or pictures of test lists are missing.
        OptionError: test lists share queries with the others, need a gallery, or several processes
            were started.
    """

    def __init__(self, grid: Grid, out: Path) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise OptionError(
                "cells are trained in one process each",
                hint="start one `skylink ablate ... --part I/N` for each GPU instead",
            )
        self.grid, self.out = grid, out
        train, depth = MinedFile(grid.data.train), max(grid.ranked)
        validation = ValidationLists(grid.data.validation, depth, train, grid.judging.tolerance_m)
        chosen = [train, *validation.files]
        self.held = HeldOut(grid.test, depth, {query for file in chosen for query in file.queries})
        self._validation = validation_lists(grid, validation)
        require_pictures(self.held.folder, self.held.pictures)
        if self.held.needs_gallery and self.held.gallery is None:
            raise OptionError(
                "candidates of the test lists are places on a map, and there is no gallery",
                hint="set test.gallery to the gallery that they were mined from",
            )
        self._check_galleries(chosen)
        self._lists = [file.header.summary.sha256 for file in chosen] + list(self.held.sha256)
        self._looks = Looks(grid.pairs.encoder)
        self._open_cells = lru_cache(maxsize=2)(open_cells)
        self.cells: tuple[Cell, ...] = tuple(grid.cells())

    def _check_galleries(self, learnt_from: Sequence[MinedFile]) -> None:
        """Places are on the map that they were mined on: those of the test, and the others."""
        for files, path in (
            (self.held.files if self.held.needs_gallery else (), self.held.gallery),
            (learnt_from if self._validation.needs_gallery else (), self.grid.data.gallery),
        ):
            if files and path is not None:
                require_gallery(files, Gallery.open(path))

    def results(self) -> dict[Cell, Result]:
        """The cells that are finished or have failed."""
        read = {cell: self._read(cell) for cell in self.cells}
        return {cell: result for cell, result in read.items() if result is not None}

    def run(self, progress: Progress = lambda *_: None, *, part: tuple[int, int] = (1, 1)) -> None:
        """Run what is not finished.

        Args:
            progress: called with (cells done, cells, words).
            part: (i, n): every n-th cell from the i-th on, counted from 1.

        Raises:
            OutputError: results can't be written.
        """
        mine = self.cells[part[0] - 1 :: part[1]]
        for number, cell in enumerate(mine):
            before = self._read(cell)
            if before is not None and isinstance(before.found, Done):
                progress(number + 1, len(mine), f"{cell}: done before")
                continue

            def say(words: str, number: int = number, cell: Cell = cell) -> None:
                progress(number, len(mine), f"{cell}: {words}")

            self._run(cell, say)
            progress(number + 1, len(mine), str(cell))

    def _run(self, cell: Cell, say: Callable[[str], None]) -> None:
        digest, folder = self._digest(cell), self._folder(cell)
        say("loading")
        found: Done | Failed
        try:
            found = self._measured(cell, folder, say)
        except OutputError:
            raise  # of the disk, which the others would meet too
        except SkyLinkError as error:
            found = Failed(cause=error.message, hint=error.hint)
        except Exception as error:  # out of memory, or a model's own
            _log.debug("%s failed", cell, exc_info=error)
            found = Failed(cause=f"{type(error).__name__}: {error}"[:2000])
        write_result(self._file(cell), cell, digest, found)
        if isinstance(found, Done):
            # several times as large as what the training came to
            state.remove_all(folder / FOLDER)
        _free_memory()

    def _measured(self, cell: Cell, folder: Path, say: Callable[[str], None]) -> Done:
        grid = self.grid
        work = Work(cell=cell, config=grid.config(cell, folder), grid=grid, say=say)
        ready = self._maker(cell.arm.model)(work)
        return measure(ready, self.held, self._validation, grid.ranked, say)

    def _maker(self, model: Model) -> Maker:
        """Each kind of model has its own."""
        if model in ("correlation", "hog"):
            return make_fixed
        if model == "pairs-head":
            return partial(make_pairs, self._looks)
        if model in RELATIONAL:
            return partial(make_relational, self._open_cells)
        return make_lvlm

    def _read(self, cell: Cell) -> Result | None:
        return read_result(self._file(cell), self._digest(cell), len(self.held))

    def _digest(self, cell: Cell) -> str:
        grid = self.grid
        return digest_of(
            cell,
            grid.config(cell, self.out),
            own=grid.own(cell.arm.model),
            depths=grid.ranked,
            lists=self._lists,
        )

    def _folder(self, cell: Cell) -> Path:
        return self.out / CELLS / name_of(cell, self._digest(cell))

    def _file(self, cell: Cell) -> Path:
        folder = self._folder(cell)
        return folder.with_name(f"{folder.name}.json")


def _free_memory() -> None:
    """Of the model that has just been used, before the next one is loaded."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
