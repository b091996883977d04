"""From outcomes to figures: the models of results.json and how they are computed.

Keys are stable within RESULTS_SCHEMA; docs/cli.md shows the file. Metric definitions: `metrics.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from skylink import metrics
from skylink.queries import QueryRow
from skylink.types import Candidate, Estimate

if TYPE_CHECKING:
    from skylink.localizer import Localizer

RESULTS_SCHEMA = 1
KS = (1, 5, 10, 20)
RIGHT_M = 50.0
"""What confidence means by "right", whatever the tolerance of a ranking is."""

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


class Answer(BaseModel):
    """Error of the place that is the answer; of candidates that are tiles, found within the first.

    Failed photos count as infinitely far. `refined`: photos whose place is not just that of the
    first candidate.
    """

    within_tolerance: float
    within_tolerance_interval_95: tuple[float, float] | None
    median_error_m: float | None
    within_25_m: float
    within_50_m: float
    refined: int


class Group(BaseModel):
    """The same figures for one value of the column that was grouped by."""

    queries: int
    retrieved: Ranking
    reranked: Ranking | None
    answer: Answer | None = None
    """None in files written before it was a figure."""


class Camera(BaseModel):
    """Error of the camera's own position, over the queries where it is given."""

    queries: int
    median_error_m: float | None
    within_25_m: float
    within_50_m: float


class ReliabilityBin(BaseModel):
    """Queries of about the same confidence: its mean, and the share of them that are right."""

    queries: int
    confidence: float
    right: float


class Honesty(BaseModel):
    """Whether radii and confidence mean what they say, over queries that did not fail.

    `within_radius`, `within_radius_90`: percent whose truth lies within the radius; 50 and 90 are
    meant. `reliability`: the bins, of ten of equal width, that have queries. `answered`: percent
    whose confidence is at least `min_confidence`; `right_when_answered`: percent of these that are
    right; `right_when_not`: of the others, which are "not found on this map".
    """

    within_radius: float
    within_radius_interval_95: tuple[float, float] | None = None
    within_radius_90: float | None = None
    within_radius_90_interval_95: tuple[float, float] | None = None
    expected_calibration_error: float
    brier_score: float | None = None
    auroc_confidence: float | None
    reliability: list[ReliabilityBin] = Field(default_factory=list)
    min_confidence: float | None = None
    answered: float | None = None
    right_when_answered: float | None = None
    right_when_not: float | None = None


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
    answer: Answer | None = None
    """None in files written before it was a figure."""
    reranked_minus_retrieved_interval: tuple[float, float] | None
    flips: dict[str, int]
    reranked_queries: int
    rerank_failed: int
    rerank_notes: dict[str, int] = Field(default_factory=dict)
    """Why photos were not re-ranked, with how often."""
    reranker_about: str = ""
    """The re-ranker in words: which model, how it was asked."""
    cut: int = 0
    """Photos whose search a time budget ended."""
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
        answer_m: error of the estimate's own place.
        base: the candidates before re-ranking; empty where the photo failed. Those after it are
            the estimate's.
        positives: tiles of the gallery within the tolerance (0: not counted, candidates are poses).
        estimate: None where the photo failed.
        error: why it failed.
        camera_m: error of the camera's position, where it is given.
    """

    row: QueryRow
    base_m: NDArray[np.float64]
    final_m: NDArray[np.float64]
    answer_m: float = math.inf
    base: Sequence[Candidate] = ()
    positives: int = 0
    estimate: Estimate | None = None
    error: str = ""
    camera_m: float | None = None


def _ranking(
    errors: NDArray[np.float64], positives: NDArray[np.int64], tolerance_m: float,
    blocks: NDArray[np.int64],
) -> Ranking:  # fmt: skip
    hits = errors <= tolerance_m
    top = errors[:, 0]
    counted = np.maximum(np.minimum(positives, hits.shape[1]), np.maximum(hits.sum(1), 1))
    recall = {f"recall@{k}": metrics.recall_at(hits, k) if k <= hits.shape[1] else None for k in KS}
    interval = _interval(hits[:, 0].astype(float), blocks)
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


def make_results(
    localizer: Localizer,
    outcomes: Sequence[Outcome],
    tolerance_m: float,
    telemetry: str,
    group_by: str | None,
) -> Results:
    """All figures of a run.

    Args:
        localizer: what ran.
        outcomes: of every query, in the order of the CSV (blocks of frames are resampled).
        tolerance_m: a candidate this near is right.
        telemetry: what the queries were allowed to know, in words.
        group_by: the extra column to report apart.
    """
    base = np.stack([o.base_m for o in outcomes])
    final = np.stack([o.final_m for o in outcomes])
    answers = np.array([o.answer_m for o in outcomes])
    refined = np.array([o.estimate is not None and o.estimate.refined for o in outcomes])
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
        within = int(refined[keep].sum())
        return Group(
            queries=int(keep.sum()),
            retrieved=_ranking(base[keep], *chosen),
            reranked=_ranking(final[keep], *chosen) if reranks else None,
            answer=_answer(answers[keep], tolerance_m, blocks[keep], refined=within),
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
        answer=whole.answer,
        reranked_minus_retrieved_interval=difference,
        flips={"fixed": fixed, "broken": broken},
        reranked_queries=sum(e.reranked for e in located),
        rerank_failed=sum(e.rerank_failed for e in located),
        rerank_notes=dict(Counter(e.rerank_note for e in located if e.rerank_note)),
        reranker_about=str(getattr(localizer.reranker, "about", "")),
        cut=sum(e.cut for e in located),
        failed=len(outcomes) - len(located),
        failures={o.row.file: o.error for o in outcomes if o.error},
        ms_per_query={
            f"{stage}_{name}": float(np.percentile([e.ms.get(stage, 0.0) for e in located], q))
            for stage in ("retrieve", "rerank", "refine", "total")
            for name, q in (("median", 50), ("p95", 95))
            if located
        },
        camera=_camera(cameras) if len(cameras) else None,
        honesty=_honesty(outcomes, blocks, localizer.min_confidence),
        groups=groups,
    )


def _answer(
    errors: NDArray[np.float64], tolerance_m: float, blocks: NDArray[np.int64], *, refined: int
) -> Answer:
    right = errors <= tolerance_m
    median = metrics.median_error_m(errors)
    return Answer(
        within_tolerance=100 * float(right.mean()),
        within_tolerance_interval_95=_interval(right.astype(float), blocks),
        median_error_m=median if math.isfinite(median) else None,
        within_25_m=metrics.within_m(errors, 25.0),
        within_50_m=metrics.within_m(errors, 50.0),
        refined=refined,
    )


def _camera(errors: NDArray[np.float64]) -> Camera:
    return Camera(
        queries=len(errors),
        median_error_m=metrics.median_error_m(errors),
        within_25_m=metrics.within_m(errors, 25.0),
        within_50_m=metrics.within_m(errors, 50.0),
    )


def _honesty(
    outcomes: Sequence[Outcome], blocks: NDArray[np.int64], min_confidence: float
) -> Honesty | None:
    known = np.array([o.estimate is not None for o in outcomes])
    pairs = [(o.estimate, o.answer_m) for o in outcomes if o.estimate is not None]
    if not pairs:
        return None
    confidence = np.array([e.confidence for e, _ in pairs])
    correct = np.array([error <= RIGHT_M for _, error in pairs])
    auroc = None
    if correct.any() and not correct.all():
        auroc = metrics.auroc(confidence[correct], confidence[~correct])
    inside = np.array([(error <= e.radius_m, error <= e.radius_90_m) for e, error in pairs])
    intervals = [_interval(column.astype(float), blocks[known]) for column in inside.T]
    answered = confidence >= min_confidence
    return Honesty(
        within_radius=100 * float(inside[:, 0].mean()),
        within_radius_interval_95=intervals[0],
        within_radius_90=100 * float(inside[:, 1].mean()),
        within_radius_90_interval_95=intervals[1],
        expected_calibration_error=metrics.expected_calibration_error(confidence, correct),
        brier_score=float(((confidence - correct) ** 2).mean()),
        auroc_confidence=auroc,
        reliability=[
            ReliabilityBin(queries=int(n), confidence=claimed, right=right)
            for n, claimed, right in zip(*metrics.reliability(confidence, correct), strict=True)
            if n
        ],
        min_confidence=min_confidence,
        answered=100 * float(answered.mean()),
        right_when_answered=100 * float(correct[answered].mean()) if answered.any() else None,
        right_when_not=100 * float(correct[~answered].mean()) if not answered.all() else None,
    )


def _interval(values: NDArray[np.float64], blocks: NDArray[np.int64]) -> tuple[float, float] | None:
    """Of a mean, percent; None where one block is all there is."""
    if len(np.unique(blocks)) < 2:
        return None
    spread = metrics.block_bootstrap(np.zeros_like(values), values, blocks)
    return 100 * spread.low, 100 * spread.high
