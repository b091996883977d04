"""A photo in, a place out: the whole product as one straight line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from skylink.encoder import Encoder, load_encoder
from skylink.errors import OptionError, RerankError
from skylink.estimate import CALIBRATIONS, place
from skylink.gallery import Gallery
from skylink.hypotheses import SearchSpace
from skylink.photo import load_photo
from skylink.reranker import (
    Fusion,
    Reranker,
    Reranking,
    fusion_of,
    make_reranker,
    rerank,
)
from skylink.retriever import make_retriever
from skylink.types import Candidate, Estimate, Prior, Query, Retrieval

if TYPE_CHECKING:
    from skylink.lvlm.options import LvlmOptions

MAX_TOP_K = 1000


class Localizer:
    """Locates photos on one gallery.

    Args:
        gallery: an open gallery or its folder.
        retriever: `auto`, `dense` or `descriptor`.
        reranker: `none`, `dense`, `matching`, `lvlm:CHECKPOINT`, `http(s)://HOST:PORT`, or an
            object of one's own (see `skylink.reranker.Reranker`).
        top_k: candidates proposed, and re-ranked; the ceiling of any re-ranker.
        space: how far telemetry may be off.
        fusion: how the base score takes part, and when to leave the base alone; None: as it was
            fitted when the re-ranker was trained, else the re-ranker alone.
        strict: a re-ranker that fails on a photo is an error, not `reranked = False`.
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
        reranker: str | Reranker = "none",
        top_k: int = 10,
        space: SearchSpace | None = None,
        fusion: Fusion | None = None,
        strict: bool = False,
        encoder: Encoder | None = None,
        lvlm: LvlmOptions | None = None,
    ) -> None:
        if not 1 <= top_k <= MAX_TOP_K:
            raise OptionError(f"top-k {top_k} is not in 1..{MAX_TOP_K}")
        self.gallery = gallery if isinstance(gallery, Gallery) else Gallery.open(gallery)
        encoder = encoder or load_encoder(self.gallery.info.encoder.name)
        self.gallery.check_encoder(encoder)
        self.top_k = top_k
        self.strict = strict
        self.space = space or SearchSpace()
        self.retriever = make_retriever(retriever, self.gallery, encoder, self.space)
        self.reranker = (
            make_reranker(reranker, self.gallery, encoder, lvlm)
            if isinstance(reranker, str)
            else reranker
        )
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
        retrieval = self.retriever.retrieve(query, self.top_k, prior)
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
        estimate = self._estimate(query, retrieval, ranking)
        done = time.perf_counter()
        ms = {
            "retrieve": 1e3 * (retrieved - start),
            "rerank": 1e3 * (done - retrieved) if self.reranker else 0.0,
            "total": 1e3 * (done - start),
        }
        return replace(estimate, ms=ms), retrieval

    def _estimate(self, query: Query, retrieval: Retrieval, ranking: Reranking) -> Estimate:
        best = ranking.candidates[0]
        level = self.gallery.levels[best.level]
        candidates, scorer = ranking.candidates, retrieval.retriever
        if ranking.reranked and self.reranker is not None:
            scorer = f"re-ranked by {self.reranker.name}"
            if self.fusion.base_weight > 0 or scorer not in CALIBRATIONS:
                # fused scores and a plug-in's have no known scale; the base's have
                candidates, scorer = _by_base(candidates), retrieval.retriever
        placed = place(
            candidates,
            scorer=scorer,
            cell_m=level.cell_m,
            tile_m=level.tile_m,
        )
        camera = self._camera(query, best)
        return Estimate(
            name=query.name,
            lon=placed.lon,
            lat=placed.lat,
            radius_m=placed.radius_m,
            confidence=placed.confidence,
            candidates=ranking.candidates,
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
        )

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
