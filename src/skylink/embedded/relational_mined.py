"""Mined lists as features: cells of photos and of the map, computed once and kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from skylink.camera import ViewRenderer
from skylink.embedded.relational_lists import Batch, Judged
from skylink.embedded.relational_recipe import RelationalRecipe
from skylink.encoder import load_encoder
from skylink.errors import OptionError
from skylink.gallery import Gallery
from skylink.loss_registry import make_loss
from skylink.minedfile import require_gallery
from skylink.photo import load_photo
from skylink.rerankers.cells import Compared, GalleryCells, trunk_of
from skylink.training.config import Data
from skylink.training.data import Pick, TrainingLists, ValidationLists, require_pictures
from skylink.types import Telemetry

JUDGED = 8
"""Lists of a validation that are put together."""


def open_cells(path: Path, reach: int) -> GalleryCells:
    """Cells of a gallery and of photos by its encoder.

    Raises:
        GalleryError, ModelError: the gallery or its encoder can't be used.
        OptionError: it has no feature raster.
    """
    gallery = Gallery.open(path)
    if not gallery.info.encoder.channels:
        raise OptionError(
            f"{path} has no feature raster, which relational re-rankers compare photos with",
            hint="build it with an encoder that has one, such as `embedded`",
        )
    encoder = load_encoder(gallery.info.encoder.name)
    gallery.check_encoder(encoder)
    return GalleryCells(gallery, encoder, reach=reach)


class FromLists:
    """Mined lists whose candidates are places on a map; `Lists` of the training.

    Args:
        recipe: all choices.
        cells: opens a gallery; it may have been opened before.

    Attributes:
        training, validation: the lists.

    Raises:
        QueriesError: lists can't be used, or photos are missing.
        OptionError: validation lists share queries with the others, or the gallery won't do.
        GalleryError, ModelError: the gallery or its encoder can't be used.
    """

    def __init__(
        self,
        recipe: RelationalRecipe,
        cells: Callable[[Path, int], GalleryCells] = open_cells,
    ) -> None:
        given = recipe.data
        assert given.train is not None
        assert given.gallery is not None
        self._recipe = recipe
        self._folder = given.folder or given.train.parent
        data = Data(
            train=given.train, validation=given.validation, folder=given.folder,
            gallery=given.gallery, list_size=given.list_size, negatives=given.negatives,
        )  # fmt: skip
        loss = make_loss(recipe.loss.name, **recipe.loss.params)
        self.training = TrainingLists(data, recipe.labels, loss, seed=recipe.seed)
        judging = recipe.validation
        self.validation = ValidationLists(
            given.validation, judging.depth, self.training, judging.tolerance_m
        )
        require_pictures(self._folder, self.training.pictures | self.validation.pictures)
        self._cells = cells(given.gallery, recipe.model.reach)
        self.channels, self.side = self._cells.encoder.channels, self._cells.side
        self.trunk = trunk_of(self._cells.encoder)
        files = (self.training.file, *self.validation.files)
        require_gallery(files, self._cells.gallery)
        self.inputs: Sequence[str] = [file.header.summary.sha256 for file in files]
        rates = recipe.optimizer
        self.steps = rates.steps_over(len(self.training), rates.lists_per_step)
        self.judges = len(self.validation) > 0
        self.words = f"{len(self.training):,} mined lists"

    def at(self, step: int) -> Batch:
        """See `Lists.at`."""
        count = self._recipe.optimizer.lists_per_step
        picks = [self.training.at(step * count + place) for place in range(count)]
        return self._batch(picks)

    def judged(self) -> Iterator[Judged]:
        """See `Lists.judged`."""
        for first in range(0, len(self.validation), JUDGED):
            picks = [
                self.validation[i] for i in range(first, min(first + JUDGED, len(self.validation)))
            ]
            batch = self._batch(picks)
            base = np.zeros(batch.mask.shape)
            right = np.zeros(batch.mask.shape, bool)
            for row, pick in enumerate(picks):
                listed = [pick.mined.candidates[i].base_score for i in pick.rows]
                base[row, : len(listed)] = np.array(listed, np.float64)
                right[row, : len(listed)] = pick.right
            yield Judged(kind="lists", batch=batch, base=base, right=right)

    def _batch(self, picks: Sequence[Pick]) -> Batch:
        return batch_of(picks, self._cells, self._folder, power=self._recipe.labels.power)


def batch_of(
    picks: Sequence[Pick], cells: GalleryCells, folder: Path, *, power: float = 1.0
) -> Batch:
    """Features of lists.

    Args:
        picks: at least one.
        cells: of the gallery that their candidates lie on.
        folder: which photos' paths are relative to.
        power: labels are raised to it.

    Raises:
        QueriesError: candidates are pictures, not places on a map.
        PhotoError: a photo can't be read.
    """
    parts = [_compared(pick, cells, folder) for pick in picks]
    longest = max(len(pick.rows) for pick in picks)
    where = np.zeros((len(picks), longest, 3), np.int64)
    owner = np.zeros((len(picks), longest), np.int64)
    labels = np.zeros((len(picks), longest), np.float32)
    mask = np.zeros((len(picks), longest), bool)
    grounds = views = 0
    for row, (pick, part) in enumerate(zip(picks, parts, strict=True)):
        count = len(pick.rows)
        where[row, :count, 0] = grounds + np.arange(count)
        owner[row, :count] = views + part.owner
        labels[row, :count], mask[row, :count] = pick.labels**power, True
        grounds, views = grounds + count, views + len(part.views)

    def joined(each: list[NDArray[np.float32]]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(each))

    return Batch(
        names=tuple(pick.mined.query for pick in picks),
        ground=joined([part.windows for part in parts]),
        ground_valid=joined([part.windows_valid for part in parts]),
        views=joined([part.views for part in parts]),
        views_valid=joined([part.views_valid for part in parts]),
        where=torch.from_numpy(where),
        owner=torch.from_numpy(owner),
        labels=torch.from_numpy(labels),
        mask=torch.from_numpy(mask),
    )


def _compared(pick: Pick, cells: GalleryCells, folder: Path) -> Compared:
    mined = pick.mined
    path = folder / mined.path
    candidates = [mined.candidates[row].on_map() for row in pick.rows]
    return cells.compare(
        candidates,
        lambda: ViewRenderer(load_photo(path, name=mined.query).image),
        mined.telemetry or Telemetry(),
        key=str(path),
    )
