"""The words of the field as types: telemetry, query, view, candidate, prior, retrieval, estimate.

Units live in names (`_m`, `_deg`, `_px`). Angles of heading are degrees clockwise from true
north; tilt is degrees from nadir (0 looks straight down, 90 at the horizon). Geographic
coordinates are WGS 84 (EPSG:4326) degrees, longitude before latitude, keyword-only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skylink.errors import OptionError, TelemetryError

if TYPE_CHECKING:
    from skylink.geo import LocalFrame

MAX_TILT_DEG = 80.0
"""Beyond this the image centre is so near the horizon that the ground point is meaningless."""

MAX_ALTITUDE_M = 20_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What the drone knows of its camera at the moment of the photo; None is "not known".

    Attributes:
        lon, lat: camera position, WGS 84 degrees.
        relative_altitude_m: height of the camera above the ground in view, metres, > 0.
        heading_deg: camera heading, degrees clockwise from true north (any finite value).
        camera_tilt_from_nadir_deg: 0 straight down .. `MAX_TILT_DEG`.
        horizontal_fov_deg: field of view over the image's width, degrees in (1, 170).

    Raises:
        TelemetryError: a value is NaN, infinite or outside its range.
    """

    lon: float | None = None
    lat: float | None = None
    relative_altitude_m: float | None = None
    heading_deg: float | None = None
    camera_tilt_from_nadir_deg: float | None = None
    horizontal_fov_deg: float | None = None

    def __post_init__(self) -> None:
        ranges = {
            "lon": (-180.0, 180.0, "degrees in -180..180"),
            "lat": (-90.0, 90.0, "degrees in -90..90"),
            "relative_altitude_m": (0.5, MAX_ALTITUDE_M, "metres above the ground, > 0.5"),
            "heading_deg": (-math.inf, math.inf, "degrees clockwise from north"),
            "camera_tilt_from_nadir_deg": (
                0.0,
                MAX_TILT_DEG,
                f"degrees from straight down, 0..{MAX_TILT_DEG:g} "
                "(90 is the horizon: the photo's centre must show ground)",
            ),
            "horizontal_fov_deg": (1.0, 170.0, "degrees in 1..170"),
        }
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None:
                continue
            low, high, meaning = ranges[f.name]
            if not (math.isfinite(value) and low <= value <= high):
                raise TelemetryError(
                    f"{f.name} = {value!r} is not usable: expected {meaning}",
                    hint="correct the value, or leave it empty if it is not known",
                )

    @property
    def is_pose(self) -> bool:
        """Whether altitude, heading, tilt and field of view are all known."""
        return None not in (
            self.relative_altitude_m,
            self.heading_deg,
            self.camera_tilt_from_nadir_deg,
            self.horizontal_fov_deg,
        )

    def without(self, *names: str) -> Telemetry:
        """A copy that does not know `names` (field names)."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in names}
        return Telemetry(**kept)

    def updated(self, other: Telemetry) -> Telemetry:
        """A copy where what `other` knows wins."""
        merged = {
            f.name: getattr(other, f.name)
            if getattr(other, f.name) is not None
            else getattr(self, f.name)
            for f in fields(self)
        }
        return Telemetry(**merged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A UAV photo to be located.

    Attributes:
        name: how results name it (a file name, or a path relative to its CSV).
        image: (H, W, 3) uint8 RGB, upright (EXIF orientation applied).
        telemetry: what is known of the camera.
        path: the file, where there is one.
    """

    name: str
    image: NDArray[np.uint8]
    telemetry: Telemetry = field(default_factory=Telemetry)
    path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPose:
    """A complete camera attitude over flat ground: known from telemetry, or one hypothesis.

    Attributes: as in `Telemetry`, none of them None.
    """

    altitude_m: float
    heading_deg: float
    tilt_deg: float
    hfov_deg: float

    @property
    def forward_m(self) -> float:
        """Ground distance from the point under the camera to the view point, metres."""
        return self.altitude_m * math.tan(math.radians(self.tilt_deg))

    @property
    def offset_m(self) -> tuple[float, float]:
        """(east, north) metres from the point under the camera to the view point."""
        heading = math.radians(self.heading_deg)
        return self.forward_m * math.sin(heading), self.forward_m * math.cos(heading)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A photo warped to a north-up ground-plane picture around its view point.

    Attributes:
        image: (S, S, 3) uint8 RGB; row 0 is north. Zero where not valid.
        mask: (S, S) bool; True where the photo shows that ground.
        gsd_m: metres a pixel.
        pose: the camera pose used for the warp.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    gsd_m: float
    pose: CameraPose


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Where the drone might be: a geodesic disc around a point.

    Raises:
        OptionError: coordinates out of range or radius not a positive finite number.
    """

    lon: float
    lat: float
    radius_m: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lon) and -180 <= self.lon <= 180):
            raise OptionError(f"prior longitude {self.lon!r} is not in -180..180")
        if not (math.isfinite(self.lat) and -90 <= self.lat <= 90):
            raise OptionError(
                f"prior latitude {self.lat!r} is not in -90..90",
                hint="the order is LON,LAT,RADIUS_M",
            )
        if not (math.isfinite(self.radius_m) and self.radius_m > 0):
            raise OptionError(f"prior radius {self.radius_m!r} is not a positive number of metres")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A proposed place: a gallery tile, or a pose on the map.

    Attributes:
        lon, lat: the proposed view point (ground point at the photo's centre), WGS 84 degrees.
        score: the retriever's or re-ranker's relevance; higher is better, comparable only
            within one query and one model.
        id: tile id, or `pose-N`.
        area: index of the gallery area (its local metric frame).
        level: index of the gallery level (its ground sample distance).
        x_m, y_m: the same point in the area's local frame, metres east / north.
        pose: the camera pose under which it matched; None where the photo was not aligned.
        base_score: the retriever's score, kept when a re-ranker replaces `score`.
    """

    lon: float
    lat: float
    score: float
    id: str
    area: int
    level: int
    x_m: float
    y_m: float
    pose: CameraPose | None = None
    base_score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """Match scores over a part of the map, north up: what the evidence picture shows.

    Attributes:
        score: (rows, cols) float32; the best over all hypotheses; -inf where not searched.
        x0_m, y0_m: local coordinates of the *centre* of cell (0, 0); x grows with columns,
            y falls with rows.
        cell_m: size of a cell, metres.
        frame: the area's local metric frame.
        area: index of the gallery area.
    """

    score: NDArray[np.float32]
    x0_m: float
    y0_m: float
    cell_m: float
    frame: LocalFrame
    area: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """What a retriever returns.

    Attributes:
        candidates: best first, at most k.
        surface: match scores over the map, where the retriever has them.
        searched: what was searched, in words for people ("24 headings x 5 scales").
        retriever: the name of the retriever that ran.
        aligned: whether telemetry was complete enough to warp the photo as it was taken.
        poses_tried, poses_planned: camera poses that were, and that would have been, compared.
        cut: a time budget ended the search: poses or refinement were left out.
        pose_from: where each part of the pose (heading, altitude, tilt, fov) came from: `known`,
            `within` a stated error, `searched`, or, the field of view, `assumed`.
    """

    candidates: Sequence[Candidate]
    surface: Surface | None = None
    searched: str = ""
    retriever: str = ""
    aligned: bool = False
    poses_tried: int = 0
    poses_planned: int = 0
    cut: bool = False
    pose_from: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Where a photo was taken, and how sure we are. docs/estimate.md says how both come about.

    Attributes:
        name: the query's name.
        lon, lat: the ground point at the photo's centre (`view`), WGS 84 degrees.
        radius_m: half of similar estimates lie within this distance of the truth, metres.
        radius_90_m: nine in ten of them do.
        confidence: 0..1, that the photo shows this map and the place is right.
        located: the confidence is high enough for an answer. If not, the place is the best guess
            of a photo that was not found on this map.
        candidates: ranked, best first; of tiles, the place is the tile's centre.
        refined: the place and pose are not those of the first candidate, a tile, but were found by
            correlation within it.
        reranked: True only if a re-ranker ran and its ranking was used.
        rerank_note: why it did not run or was not used, where it was asked for.
        rerank_failed: a re-ranker was asked for, tried and failed.
        camera_lon, camera_lat: the camera's own position where the pose is known.
        pose: the camera pose that matched best, if any.
        aligned: whether the telemetry was complete enough to align the photo.
        retriever, reranker: names of what ran.
        searched: what was searched, in words.
        poses_tried, poses_planned, cut, pose_from: see `Retrieval`.
        ms: milliseconds spent, by stage.
    """

    name: str
    lon: float
    lat: float
    radius_m: float
    radius_90_m: float
    confidence: float
    located: bool
    candidates: Sequence[Candidate]
    reranked: bool
    refined: bool = False
    rerank_note: str = ""
    rerank_failed: bool = False
    camera_lon: float | None = None
    camera_lat: float | None = None
    pose: CameraPose | None = None
    aligned: bool = False
    retriever: str = ""
    reranker: str = "none"
    searched: str = ""
    poses_tried: int = 0
    poses_planned: int = 0
    cut: bool = False
    pose_from: Mapping[str, str] = field(default_factory=dict)
    ms: dict[str, float] = field(default_factory=dict)
