"""A photo in, a place out: the whole product as one straight line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skylink.calibration import calibration
from skylink.encoder import Encoder, load_encoder
from skylink.errors import OptionError, RerankError
from skylink.estimate import Placed, place
from skylink.gallery import Gallery
from skylink.geo import distance_m
from skylink.hypotheses import SearchSpace
from skylink.photo import load_photo
from skylink.refine import Refiner
from skylink.reranker import (
    Fusion,
    Reranker,
    Reranking,
    auto_reranker,
    fusion_of,
    make_reranker,
    rerank,
)
from skylink.retriever import make_retriever
from skylink.types import Candidate, Estimate, Prior, Query, Retrieval

if TYPE_CHECKING:
    from skylink.lvlm.options import LvlmOptions

MAX_TOP_K = 1000

LOOKED_AT = 12
"""Candidates that are asked for at least, so that some lie elsewhere (nine tiles can be one place):
the confidence needs the lead over them. Beyond top_k they take part in nothing else."""


class Localizer:
    """Locates photos on one gallery.

    Args:
        gallery: an open gallery or its folder.
        retriever: `auto`, `dense` or `descriptor`.
        reranker: `auto` (see `skylink.reranker.auto_reranker`), `none`, `dense`, `relational`,
            `hog`, `matching`, `lvlm:CHECKPOINT`, `http(s)://HOST:PORT`, or an object of one's own
            (see `skylink.reranker.Reranker`).
        top_k: candidates proposed, and re-ranked; the ceiling of any re-ranker.
        space: how far telemetry may be off.
        fusion: how the base score takes part, and when to leave the base alone; None: as it was
            fitted when the re-ranker was trained, else the re-ranker alone.
        strict: a re-ranker that fails on a photo is an error, not `reranked = False`.
        refine: find the place within the best tile by correlation, where candidates are tiles and
            the gallery has feature maps; else it is the tile's centre.
        min_confidence: below this a photo is not `located`; None: as calibrated; 0: never.
        time_budget_s: seconds for each photo's search, most likely poses first; re-ranking, the
            place within a tile and what is done once for a map are not counted. None: as long as
            it takes.
        encoder: the one that built the gallery; loaded by its recorded name if None.
        lvlm: choices for a vision-language re-ranker.

    Raises:
        GalleryError, ModelError, OptionError: it can't work on this gallery.
    """

    def __init__(
        self,
        gallery: Gallery | str | Path,
        *,
        retriever: str = "auto",
        reranker: str | Reranker = "auto",
        top_k: int = 10,
        space: SearchSpace | None = None,
        fusion: Fusion | None = None,
        strict: bool = False,
        refine: bool = True,
        min_confidence: float | None = None,
        time_budget_s: float | None = None,
        encoder: Encoder | None = None,
        lvlm: LvlmOptions | None = None,
    ) -> None:
        if not 1 <= top_k <= MAX_TOP_K:
            raise OptionError(f"top-k {top_k} is not in 1..{MAX_TOP_K}")
        if min_confidence is not None and not 0 <= min_confidence <= 1:
            raise OptionError(f"min-confidence {min_confidence!r} is not in 0..1")
        self.gallery = gallery if isinstance(gallery, Gallery) else Gallery.open(gallery)
        encoder = encoder or load_encoder(self.gallery.info.encoder.name)
        self.gallery.check_encoder(encoder)
        self.top_k = top_k
        self.strict = strict
        self.min_confidence = (
            calibration().min_confidence if min_confidence is None else min_confidence
        )
        self.space = space or SearchSpace()
        self.retriever = make_retriever(
            retriever, self.gallery, encoder, self.space, time_budget_s=time_budget_s
        )
        tiles = self.retriever.name == "descriptor" and self.gallery.info.encoder.channels > 0
        self.refiner = Refiner(self.gallery, encoder, self.space) if refine and tiles else None
        self.reranker: Reranker | None
        if reranker == "auto":
            self.reranker = auto_reranker(self.retriever.name, self.gallery, encoder)
        elif isinstance(reranker, str):
            self.reranker = make_reranker(reranker, self.gallery, encoder, lvlm)
        else:
            self.reranker = reranker
        self.fusion = fusion or fusion_of(self.reranker)
        limit: int | None = getattr(self.reranker, "max_candidates", None)
        if limit is not None and top_k > limit:
            raise OptionError(
                f"top-k {top_k} is more than the {limit} candidates that it can score together",
                hint=f"--top-k {limit}",
            )

    @property
    def plan(self) -> str:
        """What it will do, in one line of words."""
        how = {
            "dense": "correlate each photo with the whole map",
            "descriptor": "compare each photo's descriptor with the tiles'",
        }[self.retriever.name]
        last = f"keep the best {self.top_k}"
        if self.reranker is not None:
            name = getattr(self.reranker, "about", self.reranker.name)
            last = f"re-rank the best {self.top_k} by {name}"
            fused = self.fusion.base_weight > 0 or self.fusion.gate_margin is not None
            if fused and self.fusion.depth not in (None, self.top_k):
                last += f" (its fusion with the base was fitted on {self.fusion.depth} candidates)"
        if self.refiner is not None:
            last += ", find the place within the first"
        return f"{how} ({self.retriever.name}), {last}"

    def locate(self, photo: str | Path | Query, *, prior: Prior | None = None) -> Estimate:
        """Where the photo was taken.

        Args:
            photo: a file, or a `Query` made by `load_photo`.
            prior: where the drone might be; nothing outside is considered.

        Raises:
            PhotoError: the photo can't be read.
            OptionError: nothing of the map lies within the prior.
            RerankError: with `strict`, the re-ranker failed.
        """
        query = photo if isinstance(photo, Query) else load_photo(photo)
        return self.locate_detailed(query, prior=prior)[0]

    def locate_detailed(
        self, query: Query, *, prior: Prior | None = None
    ) -> tuple[Estimate, Retrieval]:
        """The estimate and what the retriever returned (base ranking, surface); see `locate`."""
        start = time.perf_counter()
        looked_at = self.retriever.retrieve(query, max(self.top_k, LOOKED_AT), prior)
        retrieval = replace(looked_at, candidates=looked_at.candidates[: self.top_k])
        retrieved = time.perf_counter()
        if not retrieval.candidates:
            raise OptionError(
                f"{query.name}: nothing of the map lies within the prior"
                if prior
                else f"{query.name}: the map has no place that could be compared",
                hint="widen the prior, or check its order: LON,LAT,RADIUS_M" if prior else None,
            )
        ranking = Reranking(candidates=retrieval.candidates, reranked=False)
        if self.reranker is not None:
            ranking = rerank(self.reranker, query, retrieval.candidates, self.fusion)
            if ranking.failed and self.strict:
                raise RerankError(f"{query.name}: {ranking.note}")
        ranked = time.perf_counter()
        within = None
        if self.refiner is not None:
            within = self.refiner.refine(query, ranking.candidates[0], prior)
        beyond = looked_at.candidates[self.top_k :]
        estimate = self._estimate(query, retrieval, ranking, within, beyond, prior)
        done = time.perf_counter()
        ms = {
            "retrieve": 1e3 * (retrieved - start),
            "rerank": 1e3 * (ranked - retrieved) if self.reranker else 0.0,
            "refine": 1e3 * (done - ranked) if self.refiner else 0.0,
            "total": 1e3 * (done - start),
        }
        return replace(estimate, ms=ms), retrieval

    def _estimate(
        self,
        query: Query,
        retrieval: Retrieval,
        ranking: Reranking,
        within: Candidate | None,
        beyond: Sequence[Candidate],
        prior: Prior | None,
    ) -> Estimate:
        best = within or ranking.candidates[0]
        placed = self._place(retrieval, ranking, within, beyond, prior)
        camera = self._camera(query, best)
        return Estimate(
            name=query.name,
            lon=placed.lon,
            lat=placed.lat,
            radius_m=placed.radius_m,
            radius_90_m=placed.radius_90_m,
            confidence=placed.confidence,
            located=placed.confidence >= self.min_confidence,
            candidates=ranking.candidates,
            refined=within is not None,
            reranked=ranking.reranked,
            rerank_note=ranking.note,
            rerank_failed=ranking.failed,
            camera_lon=camera[0] if camera else None,
            camera_lat=camera[1] if camera else None,
            pose=best.pose,
            aligned=retrieval.aligned,
            retriever=retrieval.retriever,
            reranker=self.reranker.name if self.reranker else "none",
            searched=retrieval.searched,
            poses_tried=retrieval.poses_tried,
            poses_planned=retrieval.poses_planned,
            cut=retrieval.cut,
            pose_from=retrieval.pose_from,
        )

    def _place(
        self,
        retrieval: Retrieval,
        ranking: Reranking,
        within: Candidate | None,
        beyond: Sequence[Candidate],
        prior: Prior | None,
    ) -> Placed:
        candidates, scorer = ranking.candidates, retrieval.retriever
        if ranking.reranked and self.reranker is not None:
            scorer = f"re-ranked by {self.reranker.name}"
            if self.fusion.base_weight > 0 or scorer not in calibration().scorers:
                # fused scores and a plug-in's have no known scale; the base's have
                candidates, scorer = _by_base(candidates), retrieval.retriever
        if scorer == retrieval.retriever:
            candidates = [*candidates, *beyond]
        best = candidates[0]
        level = self.gallery.levels[best.level]
        return place(
            candidates,
            scorer=scorer,
            aligned=retrieval.aligned,
            cell_m=level.cell_m,
            tile_m=level.tile_m,
            extent_m=self.extent_m(best, prior),
            within=within,
        )

    def extent_m(self, best: Candidate, prior: Prior | None) -> float:
        """How far from a candidate the place could be: the map's far corner, or the prior's rim."""
        corners = [
            area.frame.point(x_m=x, y_m=y)
            for area in self.gallery.areas
            for x in area.bounds[::2]
            for y in area.bounds[1::2]
        ]
        lon, lat = np.array(corners).T
        far = float(distance_m(lon1=best.lon, lat1=best.lat, lon2=lon, lat2=lat).max())
        if prior is None:
            return far
        away = distance_m(lon1=best.lon, lat1=best.lat, lon2=prior.lon, lat2=prior.lat)
        forward = best.pose.forward_m if best.pose else 0.0
        return min(far, float(away) + prior.radius_m + forward)

    def _camera(self, query: Query, best: Candidate) -> tuple[float, float] | None:
        """The drone's own position, where altitude and tilt are known (a heading may be found)."""
        known = query.telemetry
        if best.pose is None or None in (
            known.relative_altitude_m,
            known.camera_tilt_from_nadir_deg,
            known.horizontal_fov_deg,
        ):
            return None
        return self.camera_of(best)

    def camera_of(self, candidate: Candidate) -> tuple[float, float]:
        """(lon, lat) of the drone if the candidate and its pose are right.

        Raises:
            ValueError: the candidate has no pose.
        """
        if candidate.pose is None:
            raise ValueError(f"candidate {candidate.id} has no camera pose")
        east, north = candidate.pose.offset_m
        frame = self.gallery.areas[candidate.area].frame
        return frame.point(x_m=candidate.x_m - east, y_m=candidate.y_m - north)


def _by_base(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates in their order, with the retriever's scores."""
    return [c if c.base_score is None else replace(c, score=c.base_score) for c in candidates]
