"""Cells of photos and of the map around candidates: what relational re-rankers compare.

A window is cut from the gallery's feature raster by whole cells, as near to the candidate as the
raster's grid allows; the rest of the way is within the re-ranker's reach. Parts of the raster and
views are kept, up to a bound, since the candidates of a photo and of its neighbours share them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from skylink.camera import ViewRenderer
from skylink.correlation import correlate_window
from skylink.densemap import Normaliser, weigh
from skylink.encoder import EmbeddedEncoder, Encoder, cell_masks, fill_invalid
from skylink.hypotheses import SearchSpace, hypotheses
from skylink.tiling import CHUNK_CELLS
from skylink.types import CameraPose, Candidate, Telemetry

if TYPE_CHECKING:
    from skylink.gallery import Gallery

Floats = NDArray[np.float32]
Masks = NDArray[np.bool_]
T = TypeVar("T")

HEADINGS = 12
"""Tried for a candidate without a pose where the heading is not known, 30 degrees apart."""

RASTER_BYTES, VIEWS_BYTES = 128_000_000, 384_000_000
"""Of the map and of views that are kept: some 9 km2 at 12 m a cell, and 8,000 views."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """N candidates and the V views that they are compared with.

    Attributes:
        views: (V, k, k, C) unit cells, standardised before; views_valid (V, k, k).
        windows: (N, k + 2 r, k + 2 r, C) likewise, around candidates; windows_valid.
        owner: (N,) int64, each candidate's view.
    """

    views: Floats
    views_valid: Floats
    windows: Floats
    windows_valid: Floats
    owner: NDArray[np.int64]


class GalleryCells:
    """See the module.

    Args:
        gallery: with a feature raster.
        encoder: the one that built it.
        reach: r, cells around the place of a view on the map.

    Attributes:
        side: k, cells along a view.
    """

    def __init__(self, gallery: Gallery, encoder: Encoder, *, reach: int) -> None:
        self.gallery, self.encoder, self.reach = gallery, encoder, reach
        self.side = encoder.input_px // encoder.stride_px
        self._normalisers: dict[int, Normaliser] = {}
        self._raster = _Kept[tuple[NDArray[np.float16], Masks] | None](RASTER_BYTES)
        self._views = _Kept[tuple[NDArray[np.float16], Masks]](VIEWS_BYTES)

    def compare(
        self,
        candidates: Sequence[Candidate],
        photo: Callable[[], ViewRenderer],
        telemetry: Telemetry,
        *,
        key: Hashable = None,
    ) -> Compared:
        """Cells of candidates, each with a view under its own pose.

        A candidate without one is compared under the likeliest poses by telemetry, with all
        headings where that is not known, and takes the pose that correlates best.

        Args:
            candidates: at least one.
            photo: renders views; called where one is not kept.
            telemetry: of the photo.
            key: names the photo; its views are kept. None: they are not.
        """
        windows = [self.window(candidate) for candidate in candidates]
        wanted = [self._poses(candidate, telemetry) for candidate in candidates]
        order = dict.fromkeys(
            (pose, c.level) for c, poses in zip(candidates, wanted, strict=True) for pose in poses
        )
        views = dict(zip(order, self._all_views(list(order), photo, key), strict=True))
        taken = [
            (poses[0] if len(poses) == 1 else self._best(views, poses, c.level, window), c.level)
            for c, poses, (window, _) in zip(candidates, wanted, windows, strict=True)
        ]
        used = list(dict.fromkeys(taken))
        return Compared(
            views=np.stack([views[each][0] for each in used]),
            views_valid=np.stack([views[each][1] for each in used]).astype(np.float32),
            windows=np.stack([cells for cells, _ in windows]),
            windows_valid=np.stack([valid for _, valid in windows]).astype(np.float32),
            owner=np.array([used.index(each) for each in taken], np.int64),
        )

    def window(self, candidate: Candidate) -> tuple[Floats, Masks]:
        """(w, w, C) unit cells around a candidate and (w, w) which are known; w = k + 2 r."""
        level = self.gallery.levels[candidate.level]
        west, _, _, north = self.gallery.areas[candidate.area].bounds
        size = self.side + 2 * self.reach
        top = round((north - candidate.y_m) / level.cell_m - size / 2)
        left = round((candidate.x_m - west) / level.cell_m - size / 2)
        values = np.zeros((size, size, self.encoder.channels), np.float16)
        valid = np.zeros((size, size), bool)
        for row in range(top // CHUNK_CELLS, (top + size - 1) // CHUNK_CELLS + 1):
            for column in range(left // CHUNK_CELLS, (left + size - 1) // CHUNK_CELLS + 1):
                found = self._chunk(candidate.area, candidate.level, row, column)
                if found is None:
                    continue
                y, x = row * CHUNK_CELLS - top, column * CHUNK_CELLS - left
                rows, columns = found[1].shape
                y0, x0 = max(0, y), max(0, x)
                y1, x1 = max(y0, min(y + rows, size)), max(x0, min(x + columns, size))
                inner = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
                values[y0:y1, x0:x1], valid[y0:y1, x0:x1] = found[0][inner], found[1][inner]
        return self._normaliser(candidate.level).unit(values, valid), valid

    def _chunk(
        self, area: int, level: int, row: int, column: int
    ) -> tuple[NDArray[np.float16], Masks] | None:
        """Cells of a chunk of the raster, from its first on; None beyond the map."""
        if row < 0 or column < 0:
            return None
        key = (area, level, row, column)
        if key not in self._raster:
            west, _, _, north = self.gallery.areas[area].bounds
            side = self.gallery.levels[level].cell_m
            first, last = CHUNK_CELLS * side, 0.25 * side  # a quarter within the outer cells
            raster = self.gallery.features(
                area=area,
                level=level,
                bounds=(
                    west + column * first + last, north - (row + 1) * first + last,
                    west + (column + 1) * first - last, north - row * first - last,
                ),
            )  # fmt: skip
            cells = None if raster is None else (raster.values, raster.valid)
            self._raster.put(key, cells, 0 if cells is None else cells[0].nbytes)
        return self._raster[key]

    def _all_views(
        self,
        wanted: Sequence[tuple[CameraPose, int]],
        photo: Callable[[], ViewRenderer],
        key: Hashable,
    ) -> list[tuple[Floats, Masks]]:
        """Unit cells (k, k, C) and (k, k) which are valid, of each pose and level."""
        found: dict[tuple[CameraPose, int], tuple[NDArray[np.floating], Masks]] = {
            each: self._views[(key, *each)] for each in wanted if (key, *each) in self._views
        }
        missing = [each for each in wanted if each not in found]
        if missing:
            renderer = photo()
            views = [
                renderer.render(
                    pose,
                    gsd_m=self.gallery.levels[level].gsd_m,
                    size_px=self.encoder.input_px,
                )
                for pose, level in missing
            ]
            masks = np.stack([view.mask for view in views])
            images = fill_invalid(np.stack([view.image for view in views]), masks)
            valid = cell_masks(masks, self.encoder.stride_px) > 0
            cells = self.encoder.feature_map(images)
            for each, one, known in zip(missing, cells, valid, strict=True):
                unit = self._normaliser(each[1]).unit(one, known)
                found[each] = unit, known
                if key is not None:
                    half = unit.astype(np.float16)
                    self._views.put((key, *each), (half, known), half.nbytes)
        return [(np.asarray(found[e][0], np.float32), found[e][1]) for e in wanted]

    def _poses(self, candidate: Candidate, telemetry: Telemetry) -> list[CameraPose]:
        if candidate.pose is not None:
            return [candidate.pose]
        tile_m = self.gallery.levels[candidate.level].tile_m
        tried = hypotheses(telemetry, SearchSpace(), tile_m=tile_m, relief=False).poses
        first = tried[0]
        likely = [
            pose
            for pose in tried
            if (pose.altitude_m, pose.tilt_deg) == (first.altitude_m, first.tilt_deg)
        ]
        return likely[:: -(-len(likely) // HEADINGS)]

    def _best(
        self,
        views: dict[tuple[CameraPose, int], tuple[Floats, Masks]],
        poses: Sequence[CameraPose],
        level: int,
        window: Floats,
    ) -> CameraPose:
        """The pose whose view correlates best, untrained."""
        scores = []
        for pose in poses:
            cells, valid = views[pose, level]
            kernel = cells * weigh(np.array([valid.sum()]), self.side)[0]
            scores.append(float(correlate_window(window, kernel).max()))
        return poses[int(np.argmax(scores))]

    def _normaliser(self, level: int) -> Normaliser:
        if level not in self._normalisers:
            self._normalisers[level] = Normaliser(self.gallery.statistics(level))
        return self._normalisers[level]


def trunk_of(encoder: Encoder) -> str:
    """Fingerprint of the network that makes an encoder's cells; trained encoders share theirs."""
    if type(encoder) is not EmbeddedEncoder and isinstance(encoder, EmbeddedEncoder):
        return EmbeddedEncoder().fingerprint
    return encoder.fingerprint


class _Kept(Generic[T]):
    """The latest values whose sizes sum to at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __getitem__(self, key: Hashable) -> T:
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value: T, size: int) -> None:
        self._values[key] = value, size
        self._bytes += size
        while self._bytes > self._most and len(self._values) > 1:
            self._bytes -= self._values.popitem(last=False)[1][1]
