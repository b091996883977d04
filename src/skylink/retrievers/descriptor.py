"""Descriptor search: the photo's descriptor, under every pose in question, against the tiles'."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skylink.budget import Clock, TimeBudget
from skylink.camera import ViewRenderer
from skylink.encoder import Encoder
from skylink.geo import distance_m
from skylink.hypotheses import SearchSpace, choose_level, hypotheses
from skylink.index import EXACT_TILES, ExactIndex, LanceIndex, top_k
from skylink.types import CameraPose, Candidate, Prior, Query, Retrieval

if TYPE_CHECKING:
    from skylink.gallery import Gallery, Tiles

Floats = NDArray[np.float32]

BATCH = 24
"""Poses described at once; a time budget ends between batches."""

ENCODING_SHARE = 0.9
"""Of a time budget, for describing the photo; the index takes the rest."""


class DescriptorRetriever:
    """Ranks tiles by the cosine of descriptors, best hypothesis for each tile.

    Args:
        gallery: its tiles are searched: exactly up to EXACT_TILES, by its ANN index above.
        encoder: the one that built it.
        space: how far telemetry may be off.
        time_budget_s: seconds for each photo; None: no limit. One batch of poses is always tried.
        clock: for the budget.

    Raises:
        OptionError: a time budget that is not positive.
    """

    name = "descriptor"

    def __init__(
        self,
        gallery: Gallery,
        encoder: Encoder,
        space: SearchSpace,
        *,
        time_budget_s: float | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._gallery, self._encoder, self._space = gallery, encoder, space
        self._time_budget_s, self._clock = time_budget_s, clock
        TimeBudget(time_budget_s)  # refuses what is no budget now, not at the first photo
        self._loaded: dict[int, tuple[Tiles, ExactIndex]] = {}

    @cached_property
    def _approximate(self) -> bool:
        return self._gallery.tile_count > EXACT_TILES

    def retrieve(self, query: Query, k: int, prior: Prior | None = None) -> Retrieval:
        """Tiles, best first; see `Retriever`. Each carries the pose that matched it best."""
        budget = TimeBudget(self._time_budget_s, self._clock)
        gallery = self._gallery
        tiles_m = [level.tile_m for level in gallery.levels]
        level = choose_level(query.telemetry, tiles_m)
        tried = hypotheses(query.telemetry, self._space, tile_m=tiles_m[level], relief=False)
        vectors = self._describe(query, tried.poses, level, budget)
        poses = tried.poses[: len(vectors)]
        words = tried.words
        if budget.cut:
            words += f"; cut by the time budget: {len(poses)} of {len(tried.poses)} poses"
            words += f" in {budget.elapsed_s:.1f} s"
        offsets = np.array([pose.offset_m for pose in poses])
        reach = float(np.hypot(*offsets.T).max())
        if self._approximate and prior is None:
            tiles, scores, which = self._approximate_search(vectors, k, level)
        else:
            tiles, scores, which = self._exact_search(vectors, k, level, prior, reach, offsets)
        order = np.lexsort((np.arange(len(tiles)), -scores))[:k]
        candidates = [
            Candidate(
                lon=float(tiles.lon[i]), lat=float(tiles.lat[i]), score=float(scores[i]),
                id=str(tiles.id[i]), area=int(tiles.area[i]), level=level,
                x_m=float(tiles.x_m[i]), y_m=float(tiles.y_m[i]), pose=poses[int(which[i])],
            )
            for i in order
        ]  # fmt: skip
        return Retrieval(
            candidates=candidates, searched=words, retriever=self.name, aligned=tried.aligned,
            poses_tried=len(poses), poses_planned=len(tried.poses),
            cut=budget.cut, pose_from=tried.pose_from,
        )  # fmt: skip

    def _describe(
        self, query: Query, poses: Sequence[CameraPose], level: int, budget: TimeBudget
    ) -> Floats:
        """(H, D) descriptors under the first H poses: as many batches as the budget allows."""
        encoder, gsd = self._encoder, self._gallery.levels[level].gsd_m
        renderer = ViewRenderer(query.image)
        batches: list[Floats] = []
        for first in range(0, len(poses), BATCH):
            if not budget.allows(ENCODING_SHARE) and batches:
                break
            views = [
                renderer.render(pose, gsd_m=gsd, size_px=encoder.input_px)
                for pose in poses[first : first + BATCH]
            ]
            images, masks = np.stack([v.image for v in views]), np.stack([v.mask for v in views])
            batches.append(encoder.encode(images, masks))
        return self._gallery.statistics(level).stored(np.concatenate(batches), encoder.parts)

    def _exact_search(
        self,
        vectors: Floats,
        k: int,
        level: int,
        prior: Prior | None,
        reach_m: float,
        offsets: NDArray[np.float64],
    ) -> tuple[Tiles, Floats, NDArray[np.int64]]:
        if prior is None:
            if level not in self._loaded:
                tiles = self._gallery.tiles(levels=[level])
                self._loaded[level] = tiles, ExactIndex(tiles.descriptor)
            tiles, index = self._loaded[level]
            rows, scores = index.search(vectors, k)
            return _best_of(tiles, rows, scores)
        wide = Prior(lon=prior.lon, lat=prior.lat, radius_m=prior.radius_m + reach_m + 1)
        tiles = self._gallery.tiles(prior=wide, levels=[level])
        if len(tiles) == 0:
            return tiles, np.empty(0, np.float32), np.empty(0, np.int64)
        every = vectors @ np.asarray(tiles.descriptor, np.float32).T
        for scores, offset in zip(every, offsets, strict=True):  # the prior is about the drone
            scores[~self._within(tiles, offset, prior)] = -np.inf
        best = every.max(axis=0)
        rows, scores = top_k(best[None], k)
        kept = np.isfinite(scores[0])
        chosen = rows[0][kept]
        keep = np.zeros(len(tiles), bool)
        keep[chosen] = True
        return tiles.select(keep), best[keep], every.argmax(axis=0)[keep]

    def _within(self, tiles: Tiles, offset: NDArray[np.float64], prior: Prior) -> NDArray[np.bool_]:
        """Whether the drone would be within the prior if each tile were the view point."""
        lon, lat = np.empty(len(tiles)), np.empty(len(tiles))
        for area in np.unique(tiles.area):
            mine = tiles.area == area
            lon[mine], lat[mine] = self._gallery.areas[int(area)].frame.to_lonlat(
                x_m=tiles.x_m[mine] - offset[0], y_m=tiles.y_m[mine] - offset[1]
            )
        away = distance_m(lon1=lon, lat1=lat, lon2=prior.lon, lat2=prior.lat)
        return np.asarray(away <= prior.radius_m)

    def _approximate_search(
        self, vectors: Floats, k: int, level: int
    ) -> tuple[Tiles, Floats, NDArray[np.int64]]:
        index = LanceIndex(self._gallery.tiles_table())
        rows, scores = index.search(vectors, k, where=f"level = {level}")
        found = np.unique(rows[np.isfinite(scores)])
        tiles = self._gallery.tiles_at(found)
        places = np.searchsorted(found, rows)
        places[~np.isfinite(scores)] = 0
        return _best_of(tiles, places, scores)


def _best_of(
    tiles: Tiles, rows: NDArray[np.int64], scores: Floats
) -> tuple[Tiles, Floats, NDArray[np.int64]]:
    """The tiles found by any hypothesis (H, k), each with its best score and hypothesis."""
    best = np.full(len(tiles), -np.inf, np.float32)
    which = np.zeros(len(tiles), np.int64)
    for hypothesis, (r, s) in enumerate(zip(rows, scores, strict=True)):
        better = s > best[r]
        best[r[better]] = s[better]
        which[r[better]] = hypothesis
    keep = np.isfinite(best)
    return tiles.select(keep), best[keep], which[keep]
