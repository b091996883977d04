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

from skylink.errors import OptionError, PhotoError, QueriesError, RerankError, TelemetryError
from skylink.figures import Outcome, Results, make_results
from skylink.geo import distance_m
from skylink.queries import QueryRow
from skylink.types import Candidate, Estimate, Prior, Query, Retrieval, Telemetry

if TYPE_CHECKING:
    from skylink.localizer import Localizer

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
    change: Callable[[QueryRow, Query], tuple[QueryRow, Query]] | None = None,
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
        change: makes each loaded photo harder before telemetry is dropped or perturbed, and moves
            the row's truth where it moves the view point (`skylink.robustness`).
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
            if change is not None:
                row, query = change(row, query)
            telemetry = query.telemetry.without(*WITHOUT.get(without or "", ()))
            if perturb:
                telemetry = _perturbed(telemetry, localizer, generator)
            query = replace(query, telemetry=telemetry)
            estimate, retrieval = localizer.locate_detailed(query, prior=prior)
        except (PhotoError, TelemetryError, OptionError, RerankError) as error:  # of this photo
            nothing = np.full(localizer.top_k, np.inf)
            outcomes.append(Outcome(row=row, base_m=nothing, final_m=nothing, error=error.message))
            continue
        if on_result:
            on_result(row, query, estimate, retrieval)
        outcomes.append(_outcome(localizer, row, estimate, retrieval, tolerance_m))
    telemetry_words = f"without {without}" if without else "as given"
    if perturb:
        telemetry_words += f", perturbed within the search space (seed {seed})"
    results = make_results(localizer, outcomes, tolerance_m, telemetry_words, group_by)
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
        changes["relative_altitude_m"] = max(0.5, telemetry.relative_altitude_m * factor)
    if space.tilt_error_deg and telemetry.camera_tilt_from_nadir_deg is not None:
        moved = telemetry.camera_tilt_from_nadir_deg + tilt * space.tilt_error_deg
        changes["camera_tilt_from_nadir_deg"] = min(80.0, max(0.0, moved))
    return telemetry.updated(Telemetry(**changes))


def _truth(row: QueryRow) -> tuple[tuple[float, float], bool]:
    """(lon, lat), and whether it is the view point's and not the camera's."""
    if row.ground_lon is not None and row.ground_lat is not None:
        return (row.ground_lon, row.ground_lat), True
    if row.truth_lon is None or row.truth_lat is None:
        raise QueriesError(f"{row.file} (line {row.line}) has no truth to score against")
    return (row.truth_lon, row.truth_lat), False


def _errors_m(
    localizer: Localizer, row: QueryRow, candidates: Sequence[Candidate], has_camera: bool
) -> NDArray[np.float64]:
    """Distance of each candidate to the truth; see the module for which truth."""
    truth, of_view = _truth(row)
    places = [
        localizer.camera_of(c) if has_camera and c.pose and not of_view else (c.lon, c.lat)
        for c in candidates
    ]
    lon, lat = np.array(places, dtype=np.float64).T
    errors = np.full(localizer.top_k, np.inf)
    errors[: len(places)] = distance_m(lon1=lon, lat1=lat, lon2=truth[0], lat2=truth[1])
    return errors


def _answer_m(row: QueryRow, estimate: Estimate) -> float:
    """Distance of the place that was found within a tile to the same truth as in `_errors_m`."""
    truth, of_view = _truth(row)
    lon, lat = estimate.lon, estimate.lat
    if not of_view and estimate.camera_lon is not None and estimate.camera_lat is not None:
        lon, lat = estimate.camera_lon, estimate.camera_lat
    return float(distance_m(lon1=lon, lat1=lat, lon2=truth[0], lat2=truth[1]))


def _outcome(
    localizer: Localizer,
    row: QueryRow,
    estimate: Estimate,
    retrieval: Retrieval,
    tolerance_m: float,
) -> Outcome:
    has_camera = estimate.camera_lon is not None
    final_m = _errors_m(localizer, row, estimate.candidates, has_camera)
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
        final_m=final_m,
        answer_m=_answer_m(row, estimate) if estimate.refined else float(final_m[0]),
        base=retrieval.candidates,
        positives=positives,
        estimate=estimate,
        camera_m=camera_m,
    )
