"""Re-rank by histograms of oriented gradients: edges of the aligned view on the candidate's map.

The score is the highest cosine of the two, cell by cell, over shifts of up to half a stride. With
no network and no learning it is the floor under every re-ranker (Dalal and Triggs, CVPR 2005).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.camera import ViewRenderer
from skylink.correlation import correlate_window
from skylink.densemap import MIN_VALID_CELLS
from skylink.encoder import cell_masks
from skylink.errors import RerankError
from skylink.types import CameraPose, Candidate, Query

if TYPE_CHECKING:
    from skylink.gallery import Gallery

CELL_PX = 8
BINS = 9
CLIP = 0.2
"""Largest share of a block's energy that one bin may have: strong edges don't drown the others."""
NOISE = 1.0
"""Grey levels a pixel: gradients of a cell that are weaker than this on average say nothing."""

Floats = NDArray[np.float32]
Cells = tuple[Floats, Floats]
"""(h, w, BINS) and (h, w, 1): histograms, zero where not valid, and 1 where valid."""


class HogReranker:
    """See the module.

    Args:
        gallery: with stored imagery.
        size_px: side of the encoder's views, which cover a tile.
    """

    name = "hog"

    def __init__(self, gallery: Gallery, size_px: int) -> None:
        self._gallery, self._size = gallery, size_px // CELL_PX * CELL_PX

    def score(self, query: Query, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        """See `Reranker.score`; -1..1, 0 where too little of view and map is there."""
        renderer = ViewRenderer(query.image)
        views: dict[tuple[CameraPose, int], Cells] = {}
        scores = []
        for candidate in candidates:
            if candidate.pose is None:
                raise RerankError("a candidate has no camera pose to align the photo with")
            level = self._gallery.levels[candidate.level]
            key = (candidate.pose, candidate.level)
            if key not in views:
                view = renderer.render(candidate.pose, gsd_m=level.gsd_m, size_px=self._size)
                views[key] = hog_cells(view.image, view.mask)
            reach = math.ceil(level.stride_m / 2 / level.gsd_m / CELL_PX)
            picture, valid = self._gallery.picture(
                area=candidate.area,
                level=candidate.level,
                x_m=candidate.x_m,
                y_m=candidate.y_m,
                size_px=self._size + 2 * reach * CELL_PX,
                gsd_m=level.gsd_m,
            )
            scores.append(best_cosine(views[key], hog_cells(picture, valid)))
        return np.array(scores, np.float32)


def hog_cells(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> Cells:
    """Histograms of unsigned gradients, each cell's normalised by the 3 x 3 cells around it.

    A cell's mean over its bins is taken off: what is left says which way its edges run.

    Args:
        image: (S, S, 3) uint8 RGB, S a multiple of CELL_PX.
        valid: (S, S) bool; gradients at the rim of what is not valid don't count.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    dx, dy = (cv2.Sobel(grey, cv2.CV_32F, *d, ksize=3, scale=1 / 8) for d in ((1, 0), (0, 1)))
    inside = cv2.erode(valid.astype(np.uint8), np.ones((3, 3), np.uint8))
    strength = cv2.magnitude(dx, dy) * inside
    place = np.arctan2(dy, dx) * np.float32(BINS / np.pi) % BINS
    low = np.floor(place)
    share = place - low
    low = low.astype(np.int64)
    side = image.shape[0] // CELL_PX
    cell = np.arange(image.shape[0]) // CELL_PX
    first = (cell[:, None] * side + cell) * BINS
    sums = np.zeros(side * side * BINS)
    for bins, part in ((low % BINS, 1 - share), ((low + 1) % BINS, share)):
        sums += np.bincount((first + bins).ravel(), (strength * part).ravel(), len(sums))
    cells = sums.reshape(side, side, BINS)
    noise = (NOISE * CELL_PX**2) ** 2
    energy = cv2.boxFilter((cells**2).sum(2), -1, (3, 3), normalize=False) + noise
    cells = np.minimum(cells / np.sqrt(energy)[..., None], CLIP)
    cells -= cells.mean(axis=2, keepdims=True)
    known = cell_masks(valid[None], CELL_PX)[0][..., None]
    return np.asarray(cells * known, np.float32), known


def best_cosine(view: Cells, around: Cells) -> float:
    """The highest cosine of a view and a larger map over all shifts of whole cells.

    Cells that are valid in both count, and the square root of their share is a factor, as in dense
    search: fewer cells are more alike by chance.
    """
    kernel, here = view
    cells, there = around
    match = correlate_window(cells, kernel)
    both = correlate_window(there, here)
    ours = correlate_window(there, (kernel**2).sum(2, keepdims=True))
    theirs = correlate_window((cells**2).sum(2, keepdims=True), here)
    cosine = match / np.sqrt(np.maximum(ours * theirs, 1e-12))
    scores = np.where(both >= MIN_VALID_CELLS, cosine * np.sqrt(both / here.size), 0.0)
    return float(scores.max())
