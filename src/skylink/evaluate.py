"""Evaluation on one's own map: base beside re-ranked, always both, in one results.json.

A query counts as found when the candidate lies within the tolerance of the truth. The truth is the
ground point at the photo's centre where queries.csv gives one; else the camera's position, which is
compared with the candidate's camera position where altitude and tilt are known, and with the view
point itself where not. Failed photos stay in the denominator, with an infinite error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from skylink import metrics
from skylink.errors import OptionError, PhotoError, QueriesError, TelemetryError
from skylink.geo import distance_m
from skylink.queries import QueryRow
from skylink.types import Candidate, Estimate, Prior, Query, Retrieval, Telemetry

if TYPE_CHECKING:
    from skylink.localizer import Localizer

RESULTS_SCHEMA = 1
WITHOUT = {
    "heading": ("heading_deg",),
    "altitude": ("relative_altitude_m",),
    "all": (
        "heading_deg",
        "relative_altitude_m",
        "camera_tilt_from_nadir_deg",
        "horizontal_fov_deg",
    ),
}
KS = (1, 5, 10, 20)
BLOCK_FRAMES = 10
"""Frames that follow each other are resampled together in bootstrap intervals."""


class Ranking(BaseModel):
    """Figures of one ranking; percentages in 0..100, metres; null where not defined.

    `recall@K`: a candidate within the tolerance among the first K; null where fewer than K were
    asked for. `ap`: average precision, step definition (one positive at rank 2 scores 50), within
    the list: positives are the tiles within the tolerance, or for poses the hits, at most top_k and
    at least one.
    """

    model_config = ConfigDict(populate_by_name=True)

    recall_1: float = Field(alias="recall@1")
    recall_5: float | None = Field(alias="recall@5")
    recall_10: float | None = Field(alias="recall@10")
    recall_20: float | None = Field(alias="recall@20")
    recall_1_interval: tuple[float, float] | None = Field(alias="recall@1_interval_95")
    ap: float
    median_error_m: float | None
    within_25_m: float
    within_50_m: float


class Group(BaseModel):
    """The same figures for one value of the column that was grouped by."""

    queries: int
    retrieved: Ranking
    reranked: Ranking | None


class Camera(BaseModel):
    """Error of the camera's own position, over the queries where it is given."""

    queries: int
    median_error_m: float | None
    within_25_m: float
    within_50_m: float


class Honesty(BaseModel):
    """Whether radius and confidence mean what they say, over located queries."""

    within_radius: float
    expected_calibration_error: float
    auroc_confidence: float | None


class Results(BaseModel):
    """results.json. Keys are stable within a schema version."""

    schema_version: int = RESULTS_SCHEMA
    protocol: str
    queries: int
    gallery: int
    tolerance_m: float
    retriever: str
    reranker: str
    top_k: int
    telemetry: str
    retrieved: Ranking
    reranked: Ranking | None
    reranked_minus_retrieved_interval: tuple[float, float] | None
    flips: dict[str, int]
    reranked_queries: int
    rerank_failed: int
    failed: int
    failures: dict[str, str]
    ms_per_query: dict[str, float]
    camera: Camera | None
    honesty: Honesty | None
    groups: dict[str, Group]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One query's errors, by rank, metres.

    Attributes:
        row: the query.
        base_m, final_m: (K,) errors of the ranked candidates before and after re-ranking.
        positives: tiles of the gallery within the tolerance (0: not counted, candidates are poses).
        estimate: None where the photo failed.
        error: why it failed.
        camera_m: error of the camera's position, where it is given.
    """

    row: QueryRow
    base_m: NDArray[np.float64]
    final_m: NDArray[np.float64]
    positives: int = 0
    estimate: Estimate | None = None
    error: str = ""
    camera_m: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` returns: the figures, and each query's outcome for plots and pictures."""

    results: Results
    outcomes: Sequence[Outcome]

    def to_json(self) -> str:
        """results.json, indented."""
        return self.results.model_dump_json(by_alias=True, indent=2) + "\n"


def evaluate(
    localizer: Localizer,
    rows: Sequence[QueryRow],
    *,
    tolerance_m: float = 50.0,
    without: str | None = None,
    perturb: bool = False,
    seed: int = 0,
    prior: Prior | None = None,
    group_by: str | None = None,
    on_query: Callable[[int, int, str], None] | None = None,
    on_result: Callable[[QueryRow, Query, Estimate, Retrieval], None] | None = None,
) -> Evaluation:
    """Locate every usable row and score it.

    Args:
        localizer: retriever, re-ranker and gallery.
        rows: of `read_queries`; rows with `usable = 0` are left out.
        tolerance_m: a candidate this near to the truth is right.
        without: drop telemetry: `heading`, `altitude` or `all`.
        perturb: add seeded uniform errors as large as the localizer's search space to the
            telemetry that is kept.
        prior: where the drone might be, the same for all.
        group_by: an extra column of the CSV to report apart, e.g. `flight`.
        on_query: called with (done, total, name) before each photo.
        on_result: called with each located photo, for pictures.

    Raises:
        QueriesError: no usable row, or the column to group by is not there.
        OptionError: an option's value.
        GalleryError, ModelError: the whole run is impossible.
        RerankError: with a strict localizer.
    """
    if not (math.isfinite(tolerance_m) and tolerance_m > 0):
        raise OptionError(f"tolerance {tolerance_m!r} is not a positive number of metres")
    if without is not None and without not in WITHOUT:
        raise OptionError(f"without {without!r}: known are {', '.join(WITHOUT)}")
    usable = [row for row in rows if row.usable]
    if not usable:
        raise QueriesError("no usable row to evaluate", hint="rows with usable = 0 are left out")
    if group_by and any(group_by.lower() not in row.extra for row in usable):
        raise QueriesError(
            f"the queries have no column {group_by!r} to group by",
            hint=f"columns: {', '.join(usable[0].extra) or 'no extra ones'}",
        )
    generator = np.random.default_rng(seed)
    outcomes = []
    for index, row in enumerate(usable):
        if on_query:
            on_query(index, len(usable), row.file)
        try:
            query = row.load()
            telemetry = query.telemetry.without(*WITHOUT.get(without or "", ()))
            if perturb:
                telemetry = _perturbed(telemetry, localizer, generator)
            query = replace(query, telemetry=telemetry)
            estimate, retrieval = localizer.locate_detailed(query, prior=prior)
        except (PhotoError, TelemetryError, OptionError) as error:  # of this photo alone
            nothing = np.full(localizer.top_k, np.inf)
            outcomes.append(Outcome(row=row, base_m=nothing, final_m=nothing, error=error.message))
            continue
        if on_result:
            on_result(row, query, estimate, retrieval)
        outcomes.append(_outcome(localizer, row, estimate, retrieval, tolerance_m))
    telemetry_words = f"without {without}" if without else "as given"
    if perturb:
        telemetry_words += f", perturbed within the search space (seed {seed})"
    results = _results(localizer, outcomes, tolerance_m, telemetry_words, group_by)
    return Evaluation(results=results, outcomes=outcomes)


def _perturbed(
    telemetry: Telemetry, localizer: Localizer, generator: np.random.Generator
) -> Telemetry:
    """Telemetry off by up to what the localizer says it may be off."""
    space = localizer.space
    heading, altitude, tilt = generator.uniform(-1, 1, 3)
    changes: dict[str, float] = {}
    if space.heading_error_deg and telemetry.heading_deg is not None:
        changes["heading_deg"] = telemetry.heading_deg + heading * space.heading_error_deg
    if space.altitude_error and telemetry.relative_altitude_m is not None:
        factor = 1 + altitude * space.altitude_error
        changes["relative_altitude_m"] = telemetry.relative_altitude_m * factor
    if space.tilt_error_deg and telemetry.camera_tilt_from_nadir_deg is not None:
        moved = telemetry.camera_tilt_from_nadir_deg + tilt * space.tilt_error_deg
        changes["camera_tilt_from_nadir_deg"] = min(80.0, max(0.0, moved))
    return telemetry.updated(Telemetry(**changes))


def _errors_m(
    localizer: Localizer, row: QueryRow, candidates: Sequence[Candidate], has_camera: bool
) -> NDArray[np.float64]:
    """Distance of each candidate to the truth; see the module for which truth."""
    if row.ground_lon is not None and row.ground_lat is not None:
        truth = row.ground_lon, row.ground_lat
        places = [(c.lon, c.lat) for c in candidates]
    else:
        if row.truth_lon is None or row.truth_lat is None:
            raise QueriesError(f"{row.file} (line {row.line}) has no truth to score against")
        truth = row.truth_lon, row.truth_lat
        places = [
            localizer.camera_of(c) if has_camera and c.pose else (c.lon, c.lat) for c in candidates
        ]
    lon, lat = np.array(places, dtype=np.float64).T
    errors = np.full(localizer.top_k, np.inf)
    errors[: len(places)] = distance_m(lon1=lon, lat1=lat, lon2=truth[0], lat2=truth[1])
    return errors


def _outcome(
    localizer: Localizer,
    row: QueryRow,
    estimate: Estimate,
    retrieval: Retrieval,
    tolerance_m: float,
) -> Outcome:
    has_camera = estimate.camera_lon is not None
    camera_m = None
    if has_camera and row.truth_lon is not None:
        camera_m = float(
            distance_m(
                lon1=estimate.camera_lon or 0.0, lat1=estimate.camera_lat or 0.0,
                lon2=row.truth_lon, lat2=row.truth_lat or 0.0,
            )
        )  # fmt: skip
    positives = 0
    if retrieval.retriever == "descriptor" and row.ground_lon is not None:
        tiles = localizer.gallery.tiles()
        near = distance_m(
            lon1=tiles.lon, lat1=tiles.lat, lon2=row.ground_lon, lat2=row.ground_lat or 0.0
        )
        level = retrieval.candidates[0].level
        positives = int(((near <= tolerance_m) & (tiles.level == level)).sum())
    return Outcome(
        row=row,
        base_m=_errors_m(localizer, row, retrieval.candidates, has_camera),
        final_m=_errors_m(localizer, row, estimate.candidates, has_camera),
        positives=positives,
        estimate=estimate,
        camera_m=camera_m,
    )


def _ranking(
    errors: NDArray[np.float64], positives: NDArray[np.int64], tolerance_m: float,
    blocks: NDArray[np.int64],
) -> Ranking:  # fmt: skip
    hits = errors <= tolerance_m
    top = errors[:, 0]
    counted = np.maximum(np.minimum(positives, hits.shape[1]), np.maximum(hits.sum(1), 1))
    recall = {f"recall@{k}": metrics.recall_at(hits, k) if k <= hits.shape[1] else None for k in KS}
    interval = None
    if len(np.unique(blocks)) > 1:
        found = hits[:, 0].astype(float)
        spread = metrics.block_bootstrap(np.zeros_like(found), found, blocks)
        interval = (100 * spread.low, 100 * spread.high)
    median = metrics.median_error_m(top)
    return Ranking.model_validate(
        {
            **recall,
            "recall@1_interval_95": interval,
            "ap": 100 * float(metrics.average_precision_step(hits, counted).mean()),
            "median_error_m": median if math.isfinite(median) else None,
            "within_25_m": metrics.within_m(top, 25.0),
            "within_50_m": metrics.within_m(top, 50.0),
        }
    )


def _results(
    localizer: Localizer,
    outcomes: Sequence[Outcome],
    tolerance_m: float,
    telemetry: str,
    group_by: str | None,
) -> Results:
    base = np.stack([o.base_m for o in outcomes])
    final = np.stack([o.final_m for o in outcomes])
    positives = np.array([o.positives for o in outcomes])
    names = [o.row.extra.get((group_by or "").lower(), "") for o in outcomes]
    blocks = metrics.consecutive_blocks(names, BLOCK_FRAMES)
    reranks = localizer.reranker is not None
    fixed, broken = metrics.flips(base[:, 0] <= tolerance_m, final[:, 0] <= tolerance_m)
    located = [o.estimate for o in outcomes if o.estimate is not None]
    cameras = np.array([o.camera_m for o in outcomes if o.camera_m is not None])
    difference = None
    if reranks and len(np.unique(blocks)) > 1:
        hit = [(e[:, 0] <= tolerance_m).astype(float) for e in (base, final)]
        spread = metrics.block_bootstrap(hit[0], hit[1], blocks)
        difference = (100 * spread.low, 100 * spread.high)

    def group(keep: NDArray[np.bool_]) -> Group:
        chosen = (positives[keep], tolerance_m, blocks[keep])
        return Group(
            queries=int(keep.sum()),
            retrieved=_ranking(base[keep], *chosen),
            reranked=_ranking(final[keep], *chosen) if reranks else None,
        )

    whole = group(np.ones(len(outcomes), bool))
    groups = {n: group(np.array(names) == n) for n in sorted(set(names))} if group_by else {}
    return Results(
        protocol="own map: a candidate within the tolerance of the true view point is right",
        queries=len(outcomes),
        gallery=localizer.gallery.tile_count,
        tolerance_m=tolerance_m,
        retriever=localizer.retriever.name,
        reranker=localizer.reranker.name if localizer.reranker else "none",
        top_k=localizer.top_k,
        telemetry=telemetry,
        retrieved=whole.retrieved,
        reranked=whole.reranked,
        reranked_minus_retrieved_interval=difference,
        flips={"fixed": fixed, "broken": broken},
        reranked_queries=sum(e.reranked for e in located),
        rerank_failed=sum(e.rerank_failed for e in located),
        failed=len(outcomes) - len(located),
        failures={o.row.file: o.error for o in outcomes if o.error},
        ms_per_query={
            f"{stage}_{name}": float(np.percentile([e.ms[stage] for e in located], q))
            for stage in ("retrieve", "rerank", "total")
            for name, q in (("median", 50), ("p95", 95))
            if located
        },
        camera=_camera(cameras) if len(cameras) else None,
        honesty=_honesty(outcomes),
        groups=groups,
    )


def _camera(errors: NDArray[np.float64]) -> Camera:
    return Camera(
        queries=len(errors),
        median_error_m=metrics.median_error_m(errors),
        within_25_m=metrics.within_m(errors, 25.0),
        within_50_m=metrics.within_m(errors, 50.0),
    )


def _honesty(outcomes: Sequence[Outcome]) -> Honesty | None:
    pairs = [(o.estimate, o.final_m[0]) for o in outcomes if o.estimate is not None]
    if not pairs:
        return None
    confidence = np.array([e.confidence for e, _ in pairs])
    correct = np.array([error <= 50.0 for _, error in pairs])
    auroc = None
    if correct.any() and not correct.all():
        auroc = metrics.auroc(confidence[correct], confidence[~correct])
    return Honesty(
        within_radius=100 * float(np.mean([error <= e.radius_m for e, error in pairs])),
        expected_calibration_error=metrics.expected_calibration_error(confidence, correct),
        auroc_confidence=auroc,
    )
