"""Re-rank by local features: SIFT, ratio test, RANSAC. The classic to compare with, by OpenCV.

The score is the number of matches that agree on one similarity transform between the aligned view
and the map's picture at the candidate (Lowe 2004; Fischler and Bolles 1981).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.camera import ViewRenderer
from skylink.errors import RerankError
from skylink.showing import Show
from skylink.types import CameraPose, Candidate, Query

if TYPE_CHECKING:
    from skylink.gallery import Gallery

RATIO = 0.8
RANSAC_PX = 6.0
SCALE = 2
"""Views and map pictures are rendered this much finer than the encoder's: SIFT wants detail."""


class MatchingReranker:
    """See the module.

    Args:
        gallery: with stored imagery.
        size_px: side of the encoder's views; pictures cover the same ground SCALE times finer.
    """

    name = "matching"

    def __init__(self, gallery: Gallery, size_px: int) -> None:
        self._gallery, self._size = gallery, size_px * SCALE
        self._sift = cv2.SIFT.create(nfeatures=1500)

    def score(self, query: Query, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        """See `Reranker.score`; inlier counts, 0 where fewer than three matches."""
        renderer = ViewRenderer(query.image)
        views: dict[tuple[CameraPose, int], tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        scores = []
        for candidate in candidates:
            if candidate.pose is None:
                raise RerankError("a candidate has no camera pose to align the photo with")
            gsd = self._gallery.levels[candidate.level].gsd_m / SCALE
            key = (candidate.pose, candidate.level)
            if key not in views:
                view = renderer.render(candidate.pose, gsd_m=gsd, size_px=self._size)
                views[key] = root_sift(self._sift, view.image, view.mask)
            picture, valid = self._gallery.picture(
                area=candidate.area,
                level=candidate.level,
                x_m=candidate.x_m,
                y_m=candidate.y_m,
                size_px=self._size,
                gsd_m=gsd,
            )
            scores.append(count_inliers(views[key], root_sift(self._sift, picture, valid)))
        return np.array(scores, np.float32)


class PictureMatchingReranker:
    """The same on whatever pictures are shown, neither aligned nor masked: for benchmarks.

    Args:
        show: makes the pictures.
    """

    name = "matching"

    def __init__(self, show: Show) -> None:
        self._show, self._sift = show, cv2.SIFT.create(nfeatures=1500)

    def score(self, query: Query, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        """See `Reranker.score`; inlier counts, 0 where fewer than three matches."""
        showing = self._show(query, candidates)
        photo = root_sift(self._sift, showing.photo)
        tiles = (root_sift(self._sift, picture) for picture in showing.candidates)
        return np.array([count_inliers(photo, tile) for tile in tiles], np.float32)


Features = tuple[NDArray[np.float32], NDArray[np.float32]]


def root_sift(
    sift: cv2.SIFT, image: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None
) -> Features:
    """Points (N, 2) and RootSIFT descriptors (N, 128) of an RGB picture where it is valid."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    inside = None
    if valid is not None:
        inside = cv2.erode(valid.astype(np.uint8), np.ones((9, 9), np.uint8))
    points, descriptors = sift.detectAndCompute(grey, inside)
    if descriptors is None:
        return np.empty((0, 2), np.float32), np.empty((0, 128), np.float32)
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))
    return np.array([p.pt for p in points], np.float32), root.astype(np.float32)


def count_inliers(a: Features, b: Features) -> float:
    """Matches that agree on one similarity transform; 0 where there are fewer than three."""
    if len(a[1]) < 3 or len(b[1]) < 3:
        return 0.0
    similarity = a[1] @ b[1].T
    two = np.argpartition(-similarity, 1, axis=1)[:, :2]
    values = np.take_along_axis(similarity, two, 1)
    nearest = two[np.arange(len(two)), values.argmax(1)]
    first, second = np.sqrt(np.maximum(2 - 2 * np.sort(values, 1)[:, ::-1], 0)).T
    good = first < RATIO * second
    if good.sum() < 3:
        return 0.0
    cv2.setRNGSeed(0)  # RANSAC draws: the same scores for the same pictures
    _, inliers = cv2.estimateAffinePartial2D(
        a[0][good], b[0][nearest[good]], method=cv2.RANSAC, ransacReprojThreshold=RANSAC_PX
    )
    return 0.0 if inliers is None else float(inliers.sum())
