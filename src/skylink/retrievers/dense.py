"""Dense map search: correlate the photo's feature map with the map's, under every pose in question.

    poses in question (hypotheses) -> views -> kernels, neighbouring headings from one view
    whole map: FFT correlation, batch by batch, in few channels where poses are many
                                                            -> a score for each place, best pose
    peaks, non-maximum suppressed, scored in all channels   -> a few places
    poses between the grid's, around the best of them       -> sub-cell position, refined pose

Where the map is too large for that, descriptors choose regions, and those are searched. A time
budget ends the search between batches, the most likely poses first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from skylink.budget import Clock, TimeBudget
from skylink.camera import ViewRenderer
from skylink.densemap import Kernels, kernels_of
from skylink.embedded.encoder import CellProjection
from skylink.encoder import Encoder
from skylink.hypotheses import Hypotheses, SearchSpace, choose_level, hypotheses
from skylink.retriever import Retriever
from skylink.retrievers.climb import climb
from skylink.retrievers.parts import MapParts
from skylink.retrievers.peaks import Peak, find_peaks, separate
from skylink.retrievers.sweep import Sweep
from skylink.turning import turned
from skylink.types import CameraPose, Candidate, Prior, Query, Retrieval, Surface

if TYPE_CHECKING:
    from skylink.gallery import Gallery

UNSURE, FITS_BETTER = 0.13, 0.03
"""Below this score the given heading is doubted; another one is taken if it fits better by that.
Right places scored 0.11-0.34 (5-95 %) on real flights, wrong ones below 0.1."""

SEPARATION = 0.2
"""Candidates of one photo lie at least this share of a tile apart."""

REGIONS = 30
"""Tiles that choose where to correlate on maps too large to be searched whole."""

BATCH = 24
"""Hypotheses encoded and correlated at once: bounds the memory of their surfaces, and how much a
time budget can be overrun."""

FEW_POSES = 72
"""More poses than these are correlated in few channels first, in a third of the time. With fewer,
encoding costs more than that saves, and few channels lose some places (docs/log.md)."""

EXACT_PLACES = 5
"""Best places whose turned views are encoded as they are, so that their scores are exact."""

SWEEP_SHARE = 0.75
"""Of a time budget, for the pass over the map; what is left is for refinement."""


@dataclass(frozen=True)
class _Found:
    """What one attempt found: peaks best first."""

    peaks: list[Peak]
    surface: Surface | None
    words: str
    poses_tried: int

    @property
    def best(self) -> float:
        return self.peaks[0].score if self.peaks else -math.inf


class DenseRetriever:
    """See the module. Keeps the map's spectra in memory after the first photo.

    Args:
        gallery: with a feature raster.
        encoder: the one that built it.
        space: how far telemetry may be off.
        regions: proposes tiles where the map is too large to be searched whole.
        time_budget_s: seconds for each photo, without what is done once for a map; None: no limit.
            One batch of poses is always tried.
        clock: for the budget.

    Raises:
        OptionError: a time budget that is not positive.
    """

    name = "dense"

    def __init__(
        self,
        gallery: Gallery,
        encoder: Encoder,
        space: SearchSpace,
        *,
        regions: Retriever | None = None,
        time_budget_s: float | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._gallery, self._encoder, self._space = gallery, encoder, space
        self._regions = regions
        self._parts = MapParts(gallery, encoder)
        self._time_budget_s, self._clock = time_budget_s, clock
        TimeBudget(time_budget_s)  # refuses what is no budget now, not at the first photo

    @property
    def nbytes(self) -> int:
        """Bytes of features and spectra held for the whole map."""
        return self._parts.nbytes

    def retrieve(self, query: Query, k: int, prior: Prior | None = None) -> Retrieval:
        """Candidates with a pose, at least SEPARATION of a tile apart; see `Retriever`.

        Where nothing on the map fits the telemetry well, its heading is doubted: compasses fail
        more often than maps (on real flights 8 % of the frames had a wrong heading).
        """
        budget = TimeBudget(self._time_budget_s, self._clock)
        tiles_m = [level.tile_m for level in self._gallery.levels]
        level = choose_level(query.telemetry, tiles_m)
        tried = hypotheses(query.telemetry, self._space, tile_m=tiles_m[level])
        found = self._attempt(query, k, level, tried, prior, budget)
        count, planned = found.poses_tried, len(tried.poses)
        known = query.telemetry.heading_deg
        doubted = known is not None and self._space.heading_error_deg is None
        unsure, fits_better = _doubts(self._encoder)
        if doubted and found.best < unsure and budget.allows():
            unknown = query.telemetry.without("heading_deg")
            every = hypotheses(unknown, self._space, tile_m=tiles_m[level])
            other = self._attempt(query, k, level, every, prior, budget)
            count, planned = count + other.poses_tried, planned + len(every.poses)
            if other.best > found.best + fits_better:
                words = f"{other.words}, since the given heading of {known:.0f} degrees did not fit"
                tried, found = every, replace(other, words=words)
        words = found.words
        if budget.cut:
            words += f"; cut by the time budget: {count} of {planned} poses"
            words += f" in {budget.elapsed_s:.1f} s"
        return Retrieval(
            candidates=[self._candidate(p, i, level) for i, p in enumerate(found.peaks[:k])],
            surface=found.surface,
            searched=words,
            retriever=self.name,
            aligned=tried.aligned,
            poses_tried=count,
            poses_planned=planned,
            cut=budget.cut,
            pose_from=tried.pose_from,
        )

    def _attempt(
        self,
        query: Query,
        k: int,
        level: int,
        tried: Hypotheses,
        prior: Prior | None,
        budget: TimeBudget,
    ) -> _Found:
        """Search the map under these hypotheses and refine the best places."""
        separation = SEPARATION * self._gallery.levels[level].tile_m
        renderer = ViewRenderer(query.image)
        words = tried.words
        coarse = len(tried.poses) > FEW_POSES
        reach_m = max(pose.forward_m for pose in tried.poses)
        # loading and transforming the whole map is done once, and no photo's time
        with budget.paused() if prior is None else nullcontext():
            maps = self._parts.whole(level, prior, reach_m, coarse=coarse)
        if maps is None:
            tiles = self._regions.retrieve(query, REGIONS, prior) if self._regions else None
            maps = self._parts.around(tiles.candidates if tiles else [], level)
            words += f", in the {len(maps)} regions that descriptors chose"
        sweeps = [Sweep(m, area, prior, coarse=coarse) for area, m in maps]
        batches: list[Kernels] = []
        for first in range(0, len(tried.poses), BATCH):
            if not budget.allows(SWEEP_SHARE) and batches:
                break
            poses = tried.poses[first : first + BATCH]
            batches.append(self._tried(renderer, tried, range(first, first + len(poses)), level))
            for sweep in sweeps:
                sweep.add(batches[-1], poses, first)
        kernels = np.concatenate([batch.values for batch in batches])
        peaks: list[Peak] = []
        for sweep in sweeps:
            peaks += find_peaks(
                sweep.dense_map, sweep.area.index, sweep.best, sweep.argbest, kernels, tried.poses,
                separation_m=separation, k=k, exact=sweep.exact,
            )  # fmt: skip
        peaks = separate([p for p in peaks if self._allowed(p, prior)], separation_m=separation)
        peaks = self._exact(peaks, renderer, tried, level, separation, prior)
        peaks = climb(
            peaks, lambda poses: self._kernels(renderer, poses, level), tried,
            separation_m=separation, allowed=lambda peak: self._allowed(peak, prior),
            proceed=budget.allows,
        )  # fmt: skip
        highest = max(sweeps, key=lambda sweep: float(sweep.best.max()), default=None)
        return _Found(
            peaks=peaks,
            surface=highest.surface if highest else None,
            words=words,
            poses_tried=len(kernels),
        )

    def _tried(
        self, renderer: ViewRenderer, tried: Hypotheses, indices: Sequence[int], level: int
    ) -> Kernels:
        """Kernels of some hypotheses; those that share a view are turned from it."""
        views = {tried.view(index): None for index in indices}
        encoded = self._kernels(renderer, list(views), level)
        place = {view: at for at, view in enumerate(views)}
        shape = (len(indices), *encoded.values.shape[1:])
        made = Kernels(values=np.empty(shape, np.float32), usable=np.zeros(len(indices), bool))
        for turn in {tried.turns_deg[index] for index in indices}:
            rows = [row for row, index in enumerate(indices) if tried.turns_deg[index] == turn]
            at = [place[tried.view(indices[row])] for row in rows]
            part = turned(Kernels(values=encoded.values[at], usable=encoded.usable[at]), turn)
            made.values[rows], made.usable[rows] = part.values, part.usable
        return made

    def _exact(
        self,
        peaks: list[Peak],
        renderer: ViewRenderer,
        tried: Hypotheses,
        level: int,
        separation: float,
        prior: Prior | None,
    ) -> list[Peak]:
        """The best peaks scored again by views of their own, where theirs were turned."""
        shared = {p for p, turn in zip(tried.poses, tried.turns_deg, strict=True) if turn}
        own = list(dict.fromkeys(p.pose for p in peaks[:EXACT_PLACES] if p.pose in shared))
        if not own:
            return peaks
        kernels = self._kernels(renderer, own, level)
        for i, peak in enumerate(peaks[:EXACT_PLACES]):
            if peak.pose in own:
                moved = peak.moved(kernels.values[own.index(peak.pose)], peak.pose)
                if self._allowed(moved, prior):
                    peaks[i] = moved
        return separate(peaks, separation_m=separation)

    def _kernels(self, renderer: ViewRenderer, poses: Sequence[CameraPose], level: int) -> Kernels:
        return kernels_of(
            renderer, poses, gsd_m=self._gallery.levels[level].gsd_m, encoder=self._encoder,
            normaliser=self._parts.normaliser(level),
        )  # fmt: skip

    def _allowed(self, peak: Peak, prior: Prior | None) -> bool:
        return prior is None or peak.drone_within(prior, self._gallery.areas[peak.area].frame)

    def _candidate(self, peak: Peak, rank: int, level: int) -> Candidate:
        x, y = peak.position
        lon, lat = self._gallery.areas[peak.area].frame.point(x_m=x, y_m=y)
        return Candidate(
            lon=lon, lat=lat, score=peak.score, id=f"pose-{rank}", area=peak.area, level=level,
            x_m=x, y_m=y, pose=peak.pose,
        )  # fmt: skip


def _doubts(encoder: Encoder) -> tuple[float, float]:
    """UNSURE and FITS_BETTER, or those of the encoder's dense head, whose scores differ."""
    if not isinstance(encoder, CellProjection):
        return UNSURE, FITS_BETTER
    return (
        UNSURE if encoder.unsure is None else encoder.unsure,
        FITS_BETTER if encoder.fits_better is None else encoder.fits_better,
    )
