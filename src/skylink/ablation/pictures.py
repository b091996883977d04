"""Pictures of lists on a map or in files, as they are or exchanged."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from skylink.lvlm.options import Way
from skylink.mined import MinedList
from skylink.showing import GalleryShow, Showing
from skylink.training.pictures import ListShow


def list_show(
    folder: Path, gallery: Path | None, *, needed: bool, way: Way, size_px: int
) -> ListShow:
    """Makes the pictures of lists.

    Args:
        folder: which paths are relative to.
        gallery: only opened where it is needed: candidates are places on a map.
        needed: see above.
        way: how photos are shown.
        size_px: side of the largest square picture.
    """
    return ListShow(folder, _on_map(gallery, needed, way, size_px), size_px=size_px)


class ShuffledShow(ListShow):
    """Shows the candidates of some lists with each other's pictures, in an order by the list.

    Every order is as likely as any other, so that pictures say nothing of labels. (An order in
    which no picture keeps its place would say which one is wrong.)

    Args:
        queries: of the lists that are shuffled; others are shown as they are.
        seed: of the orders.
    """

    def __init__(
        self,
        folder: Path,
        gallery: Path | None,
        *,
        needed: bool,
        way: Way,
        size_px: int,
        queries: Iterable[str],
        seed: int,
    ) -> None:
        super().__init__(folder, _on_map(gallery, needed, way, size_px), size_px=size_px)
        self._queries, self._seed = frozenset(queries), seed

    def __call__(self, mined: MinedList, rows: Sequence[int]) -> Showing:
        """See `ListShow`."""
        showing = super().__call__(mined, rows)
        if mined.query not in self._queries:
            return showing
        name = hashlib.sha256(mined.query.encode()).digest()[:8]
        draw = np.random.default_rng((self._seed, int.from_bytes(name, "little")))
        order = draw.permutation(len(showing.candidates))
        return dataclasses.replace(showing, candidates=[showing.candidates[i] for i in order])


def _on_map(gallery: Path | None, needed: bool, way: Way, size_px: int) -> GalleryShow | None:
    from skylink.gallery import Gallery

    if not needed or gallery is None:
        return None
    return GalleryShow(Gallery.open(gallery), size_px=size_px, way=way)
