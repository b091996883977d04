"""Samples from overlapping drone photos: one is the map, the other the drone's view of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.errors import QueriesError
from skylink.views import changes
from skylink.views.overlaps import (
    Overlap,
    Progress,
    find_overlaps,
    read_overlaps,
    reduced,
    write_overlaps,
)
from skylink.views.sample import Sample
from skylink.views.synthetic import Difficulty


class OverlapPool:
    """Samples from verified overlaps.

    Args:
        overlaps: at least one.

    Raises:
        QueriesError: there is none.
    """

    def __init__(self, overlaps: Sequence[Overlap]) -> None:
        if not overlaps:
            raise QueriesError("no overlapping photos were found")
        self.overlaps = list(overlaps)
        self._folders = sorted({o.first.parent for o in self.overlaps})

    @classmethod
    def of(
        cls,
        root: Path,
        sites: Sequence[str],
        *,
        cache: Path | None = None,
        progress: Progress = lambda *_: None,
    ) -> OverlapPool:
        """The overlaps within each of some folders.

        Args:
            root: the folder of the folders.
            sites: their names.
            cache: a CSV that keeps what was found, since that takes minutes.
            progress: called with (photos done, photos) of each folder.

        Raises:
            QueriesError: no overlaps, or a folder or the CSV can't be read.
            PhotoError: a photo can't be read.
            OutputError: the CSV can't be written.
        """
        if cache is not None and cache.exists():
            return cls(read_overlaps(cache, root))
        found = [o for site in sites for o in find_overlaps(root / site, progress=progress)]
        if cache is not None:
            write_overlaps(cache, found, root)
        return cls(found)

    def __len__(self) -> int:
        return len(self.overlaps)

    def site(self, index: int) -> int:
        """A number for the folder: photos of one folder may show the same ground."""
        return self._folders.index(self.overlaps[index].first.parent)

    def samples(
        self,
        index: int,
        rng: np.random.Generator,
        *,
        count: int,
        map_px: int,
        view_px: int,
        difficulty: Difficulty,
    ) -> list[Sample]:
        """`count` samples on one map; either photo may be the map, which is turned by chance.

        Args:
            index: of the overlap.
            rng: all chance comes from it.
            count: how many.
            map_px, view_px: sides.
            difficulty: how far views are from the map; the camera's tilt is the photo's own.

        Raises:
            PhotoError: a photo can't be read.
        """
        overlap = self.overlaps[index]
        names, homography = (overlap.first, overlap.second), overlap.homography
        if rng.random() < 0.5:
            names, homography = names[::-1], np.asarray(np.linalg.inv(homography), np.float64)
        reference, photo = reduced(names[0]), reduced(names[1])
        height, width = reference.shape[:2]
        to_map = similarity(
            float(rng.uniform(0, 360)),
            map_px / min(height, width) * float(rng.uniform(1.0, 1.5)),
            _within(photo, homography, rng, (width, height)),
            rng.uniform(0.3, 0.7, 2) * map_px,
        )
        size = (map_px, map_px)
        map_image = cv2.warpPerspective(reference, to_map, size, flags=cv2.INTER_LINEAR)
        whole = np.full((height, width), 255, np.uint8)
        known = cv2.warpPerspective(whole, to_map, size, flags=cv2.INTER_NEAREST)
        out = []
        for _ in range(count):
            at = _within(photo, homography, rng, (width, height))
            centre = cv2.perspectiveTransform(at[None, None], to_map)[0, 0]
            view, mask = _view(
                photo, to_map @ homography, centre, rng, view_px=view_px, hard=difficulty
            )
            out.append(
                Sample(
                    map=np.asarray(map_image, np.uint8),
                    map_mask=np.asarray(known > 0),
                    view=view,
                    view_mask=mask,
                    row=float(centre[1]),
                    column=float(centre[0]),
                    source=f"{names[0].name} <- {names[1].name}",
                )
            )
        return out


def similarity(
    angle_deg: float, scale: float, source: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(3, 3): turn and scale around `source`, which comes to lie at `target`."""
    c, s = scale * np.cos(np.radians(angle_deg)), scale * np.sin(np.radians(angle_deg))
    linear = np.array([[c, -s], [s, c]])
    out = np.eye(3)
    out[:2, :2] = linear
    out[:2, 2] = target - linear @ source
    return out


def _within(
    photo: NDArray[np.uint8],
    homography: NDArray[np.float64],
    rng: np.random.Generator,
    size: tuple[int, int],
) -> NDArray[np.float64]:
    """A point of the middle of the photo, in the reference's pixels and within it."""
    spot = rng.uniform(0.2, 0.8, 2) * (photo.shape[1], photo.shape[0])
    at = cv2.perspectiveTransform(spot[None, None], homography)[0, 0]
    return np.asarray(np.clip(at, (0, 0), (size[0] - 1, size[1] - 1)), np.float64)


def _view(
    photo: NDArray[np.uint8],
    to_map: NDArray[np.float64],
    centre: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    view_px: int,
    hard: Difficulty,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The photo on the map's ground around a point, with errors of telemetry, and its mask.

    A rectangle of the drawn width is what the camera would have shown.
    """
    strength = hard.change * rng.uniform(0.25, 1.0)
    changed = changes.shadows(photo, 0.6 * strength, rng)
    changed = changes.colours(changed, strength, rng)
    changed = changes.optics(changed, strength, rng)
    middle = np.array([view_px / 2, view_px / 2])
    error = similarity(
        float(rng.normal(0, hard.heading_deg)),
        math.exp(rng.normal(0, hard.altitude)),
        centre,
        middle,
    )
    to_view = error @ to_map
    size = (view_px, view_px)
    view = cv2.warpPerspective(changed, to_view, size, flags=cv2.INTER_LINEAR)
    shown = np.full(photo.shape[:2], 255, np.uint8)
    mask = cv2.warpPerspective(shown, to_view, size, flags=cv2.INTER_NEAREST)
    wide = view_px * math.exp(rng.uniform(*np.log(hard.widths)))
    frame = np.zeros(size, np.uint8)
    box = cv2.boxPoints(
        (
            (float(middle[0]), float(middle[1])),
            (wide, wide * float(rng.uniform(0.6, 1.0))),
            float(rng.uniform(0, 180)),
        )
    )
    cv2.fillConvexPoly(frame, np.asarray(box, np.int32), 255)
    valid = np.asarray((mask > 0) & (frame > 0))
    return np.where(valid[..., None], view, 0).astype(np.uint8), valid
