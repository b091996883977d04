"""Dense map search: correlate the photo's feature map with the map's, under every pose in question.

    poses in question (hypotheses) -> views -> kernels
    whole map: one FFT correlation of all kernels           -> a score for each place, best pose
    peaks, non-maximum suppressed, scored in all channels   -> a few places
    poses between the grid's, around the best of them       -> sub-cell position, refined pose

Where the map is too large for that, descriptors choose regions, and those are searched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skylink.camera import ViewRenderer
from skylink.densemap import DenseMap, Kernels, Normaliser, make_kernels
from skylink.encoder import Encoder
from skylink.geo import distance_m
from skylink.hypotheses import Hypotheses, SearchSpace, choose_level, hypotheses, neighbours
from skylink.retriever import DENSE_CELLS, Retriever
from skylink.retrievers.peaks import Peak, find_peaks, separate
from skylink.types import CameraPose, Candidate, Prior, Query, Retrieval, Surface

if TYPE_CHECKING:
    from skylink.gallery import Gallery
    from skylink.tiling import Bounds

UNSURE, FITS_BETTER = 0.13, 0.03
"""Below this score the given heading is doubted; another one is taken if it fits better by that.
Right places scored 0.11-0.34 (5-95 %) on real flights, wrong ones below 0.1."""

SURE = 0.05
"""Places this much below the best one are not refined."""

REFINED = 3
"""Best places around which poses between the grid's are tried."""

SEPARATION = 0.2
"""Candidates of one photo lie at least this share of a tile apart."""

ONE_ROUND = 8
"""With no more hypotheses than this one round of refinement is enough."""

REGIONS = 30
"""Tiles that choose where to correlate on maps too large to be searched whole."""

BATCH = 24
"""Hypotheses correlated at once: bounds the memory of their surfaces."""


@dataclass(frozen=True)
class _Found:
    """What one attempt found: peaks best first."""

    peaks: list[Peak]
    surface: Surface | None
    words: str

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
    """

    name = "dense"

    def __init__(
        self,
        gallery: Gallery,
        encoder: Encoder,
        space: SearchSpace,
        *,
        regions: Retriever | None = None,
    ) -> None:
        self._gallery, self._encoder, self._space = gallery, encoder, space
        self._regions = regions
        self._kernel = encoder.input_px // encoder.stride_px
        self._normalisers: dict[int, Normaliser] = {}
        self._whole: dict[tuple[int, int], DenseMap] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of features and spectra held for the whole map."""
        return sum(m.nbytes for m in self._whole.values())

    def retrieve(self, query: Query, k: int, prior: Prior | None = None) -> Retrieval:
        """Candidates with a pose, at least SEPARATION of a tile apart; see `Retriever`.

        Where nothing on the map fits the telemetry well, its heading is doubted: compasses fail
        more often than maps (on real flights 8 % of the frames had a wrong heading).
        """
        tiles_m = [level.tile_m for level in self._gallery.levels]
        level = choose_level(query.telemetry, tiles_m)
        tried = hypotheses(query.telemetry, self._space, tile_m=tiles_m[level])
        found = self._attempt(query, k, level, tried, prior)
        known = query.telemetry.heading_deg
        if known is not None and self._space.heading_error_deg is None and found.best < UNSURE:
            unknown = query.telemetry.without("heading_deg")
            every = hypotheses(unknown, self._space, tile_m=tiles_m[level])
            other = self._attempt(query, k, level, every, prior)
            if other.best > found.best + FITS_BETTER:
                words = f"{other.words}, since the given heading of {known:.0f} degrees did not fit"
                tried, found = every, replace(other, words=words)
        return Retrieval(
            candidates=[self._candidate(p, i, level) for i, p in enumerate(found.peaks[:k])],
            surface=found.surface,
            searched=found.words,
            retriever=self.name,
            aligned=tried.aligned,
        )

    def _attempt(
        self, query: Query, k: int, level: int, tried: Hypotheses, prior: Prior | None
    ) -> _Found:
        """Search the map under these hypotheses and refine the best places."""
        separation = SEPARATION * self._gallery.levels[level].tile_m
        renderer = ViewRenderer(query.image)
        kernels = self._kernels(renderer, tried.poses, level)
        words = tried.words
        maps = self._maps(level, prior, max(pose.forward_m for pose in tried.poses))
        if maps is None:
            maps = self._chosen(query, level, prior)
            words += f", in the {len(maps)} regions that descriptors chose"
        peaks: list[Peak] = []
        surface: Surface | None = None
        for area, dense_map in maps:
            best, argbest = self._search(dense_map, area, kernels, tried, prior)
            peaks += find_peaks(
                dense_map, area, best, argbest, kernels.values, tried.poses,
                separation_m=separation, k=k,
            )  # fmt: skip
            if surface is None or best.max() > surface.score.max():
                surface = Surface(
                    score=best, x0_m=dense_map.x0_m, y0_m=dense_map.y0_m,
                    cell_m=dense_map.cell_m, frame=self._gallery.areas[area].frame, area=area,
                )  # fmt: skip
        peaks = separate([p for p in peaks if self._allowed(p, prior)], separation_m=separation)
        peaks = self._refine(peaks, renderer, tried, level, prior)
        return _Found(peaks=peaks, surface=surface, words=words)

    def _normaliser(self, level: int) -> Normaliser:
        if level not in self._normalisers:
            self._normalisers[level] = Normaliser(self._gallery.statistics(level))
        return self._normalisers[level]

    def _kernels(self, renderer: ViewRenderer, poses: Sequence[CameraPose], level: int) -> Kernels:
        gsd, size = self._gallery.levels[level].gsd_m, self._encoder.input_px
        views = [renderer.render(pose, gsd_m=gsd, size_px=size) for pose in poses]
        return make_kernels(views, self._encoder, self._normaliser(level))

    def _maps(
        self, level: int, prior: Prior | None, reach_m: float
    ) -> list[tuple[int, DenseMap]] | None:
        """What to search: whole areas, or what the prior covers; None if that is too large."""
        maps = []
        size = self._gallery.levels[level].tile_m
        cell = self._gallery.levels[level].cell_m
        for index, area in enumerate(self._gallery.areas):
            bounds: Bounds | None = None
            west, south, east, north = area.bounds
            if prior is not None:
                x, y = (float(v) for v in area.frame.to_xy(lon=prior.lon, lat=prior.lat))
                if not math.isfinite(x + y):
                    continue
                margin = prior.radius_m * 1.001 + reach_m + size
                bounds = (x - margin, y - margin, x + margin, y + margin)
                west, south = max(west, bounds[0]), max(south, bounds[1])
                east, north = min(east, bounds[2]), min(north, bounds[3])
                if west >= east or south >= north:
                    continue
            if (east - west) * (north - south) / cell**2 > DENSE_CELLS:
                return None
            dense_map = self._load(index, level, bounds)
            if dense_map is not None:
                maps.append((index, dense_map))
        return maps

    def _load(self, area: int, level: int, bounds: Bounds | None) -> DenseMap | None:
        if bounds is None and (area, level) in self._whole:
            return self._whole[area, level]
        raster = self._gallery.features(area=area, level=level, bounds=bounds)
        if raster is None:
            return None
        dense_map = DenseMap(raster, self._normaliser(level), self._kernel)
        if bounds is None:
            self._whole[area, level] = dense_map
        return dense_map

    def _chosen(self, query: Query, level: int, prior: Prior | None) -> list[tuple[int, DenseMap]]:
        """Regions around the best tiles, overlapping ones merged."""
        if self._regions is None:
            return []
        found = self._regions.retrieve(query, REGIONS, prior).candidates
        half = self._gallery.levels[level].tile_m
        boxes: list[tuple[int, list[float]]] = []
        for c in found:
            box = [c.x_m - half, c.y_m - half, c.x_m + half, c.y_m + half]
            for area, other in boxes:
                if area == c.area and (
                    box[0] < other[2] and box[2] > other[0]
                    and box[1] < other[3] and box[3] > other[1]
                ):  # fmt: skip
                    other[:2] = [min(a, b) for a, b in zip(other[:2], box[:2], strict=True)]
                    other[2:] = [max(a, b) for a, b in zip(other[2:], box[2:], strict=True)]
                    break
            else:
                boxes.append((c.area, box))
        maps = [(area, self._load(area, level, (b[0], b[1], b[2], b[3]))) for area, b in boxes]
        return [(area, m) for area, m in maps if m is not None]

    def _search(
        self,
        dense_map: DenseMap,
        area: int,
        kernels: Kernels,
        tried: Hypotheses,
        prior: Prior | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Best score over hypotheses at each place, and which hypothesis it was."""
        best = np.full(dense_map.shape, -np.inf, np.float32)
        argbest = np.zeros(dense_map.shape, np.int32)
        usable = np.flatnonzero(kernels.usable)
        grid = None
        if prior is not None:
            frame = self._gallery.areas[area].frame
            px, py = (float(v) for v in frame.to_xy(lon=prior.lon, lat=prior.lat))
            x, _ = dense_map.position(0, np.arange(dense_map.shape[1]))  # type: ignore[arg-type]
            _, y = dense_map.position(np.arange(dense_map.shape[0]), 0)  # type: ignore[arg-type]
            grid = np.asarray(x) - px, np.asarray(y)[:, None] - py
        for start in range(0, len(usable), BATCH):
            batch = usable[start : start + BATCH]
            for index, scores in zip(
                batch, dense_map.everywhere(kernels.values[batch]), strict=True
            ):
                if grid is not None and prior is not None:  # the prior is about the drone itself
                    east, north = tried.poses[index].offset_m
                    away = np.hypot(grid[0] - east, grid[1] - north)
                    radius = max(prior.radius_m, dense_map.cell_m)  # no finer than the cells
                    scores = np.where(away <= radius, scores, -np.inf)
                better = scores > best
                best[better] = scores[better]
                argbest[better] = index
        return best, argbest

    def _refine(
        self,
        peaks: list[Peak],
        renderer: ViewRenderer,
        tried: Hypotheses,
        level: int,
        prior: Prior | None,
    ) -> list[Peak]:
        """Try poses between the grid's around the best peaks; twice with half the step."""
        around = tried
        for count in (REFINED, 2):
            attempts = [
                (i, pose)
                for i, peak in enumerate(peaks[:count])
                if peak.score > peaks[0].score - SURE
                for pose in neighbours(peak.pose, around)
            ]
            if not attempts:
                break
            kernels = self._kernels(renderer, [pose for _, pose in attempts], level)
            for (i, pose), kernel, usable in zip(
                attempts, kernels.values, kernels.usable, strict=True
            ):
                if usable:
                    moved = peaks[i].moved(kernel, pose)
                    if moved.score > peaks[i].score and self._allowed(moved, prior):
                        peaks[i] = moved
            separation = SEPARATION * self._gallery.levels[level].tile_m
            peaks = separate(peaks, separation_m=separation)
            if len(tried.poses) <= ONE_ROUND:
                break
            around = replace(
                around,
                heading_step_deg=around.heading_step_deg / 2,
                tilt_step_deg=around.tilt_step_deg / 2,
                altitude_step=math.sqrt(around.altitude_step),
            )
        return peaks

    def _allowed(self, peak: Peak, prior: Prior | None) -> bool:
        """Whether the drone would be within the prior (geodesic)."""
        if prior is None:
            return True
        x, y = peak.position
        east, north = peak.pose.offset_m
        frame = self._gallery.areas[peak.area].frame
        lon, lat = frame.point(x_m=x - east, y_m=y - north)
        away = distance_m(lon1=lon, lat1=lat, lon2=prior.lon, lat2=prior.lat)
        return float(away) <= max(prior.radius_m, peak.dense_map.cell_m)

    def _candidate(self, peak: Peak, rank: int, level: int) -> Candidate:
        x, y = peak.position
        lon, lat = self._gallery.areas[peak.area].frame.point(x_m=x, y_m=y)
        return Candidate(
            lon=lon, lat=lat, score=peak.score, id=f"pose-{rank}", area=peak.area, level=level,
            x_m=x, y_m=y, pose=peak.pose,
        )  # fmt: skip
