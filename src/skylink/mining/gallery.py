"""Lists from one's own map and photos whose true place is known.

Candidates are a gallery's tiles, or places with a pose (`dense`). The truth is the ground at the
photo's centre: `ground_lon` and `ground_lat` of the CSV, else the point that the telemetry says the
camera looked at, else the ground under the camera. A candidate's footprint is a tile's square
around it, and the truth's is the same square around the true point: what the photo shows when it is
warped to a tile's view. `overlap` is their IoU, `distance` is geodesic, `cosine` is of the
descriptors of the nearest tiles.

Right is the tile nearest to the true point. Places with a pose are right within half a diagonal of
the tiles' grid of it, which is as far as the nearest tile can be. The truth that is forced in
where the base lists nothing right is found by the same retriever around the true place, so that
its pose is no better known than the others'.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skylink.errors import OptionError, PhotoError, QueriesError
from skylink.footprints import rectangles
from skylink.geo import LocalFrame, centre_lonlat, distance_m
from skylink.index import EXACT_TILES
from skylink.mined import MapPlace, Measured, MinedCandidate, MinedList
from skylink.mining.lists import About, Progress, check_top_k, count
from skylink.mining.split import Sites
from skylink.soft_labels import LabelList, Places, Source, measured
from skylink.types import CameraPose, Candidate, Prior, Query

if TYPE_CHECKING:
    from skylink.encoder import Encoder
    from skylink.gallery import Gallery
    from skylink.gallery_data import Tiles
    from skylink.queries import QueryRow
    from skylink.retriever import Retriever

OUTSIDE = "no tile lies within a stride of their true place"
METRES_A_DEGREE = 110_000.0
"""Less than a degree of latitude has anywhere."""
KEPT_VECTORS = 10_000
"""Descriptors of places that are kept for the next photos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Where a photo was really taken: the ground point at its centre.

    Attributes:
        lon, lat: degrees.
        x_m, y_m: in the frame of the area.
        tile: the nearest tile of the level, as a candidate without a score.
    """

    lon: float
    lat: float
    x_m: float
    y_m: float
    tile: Candidate


class GalleryMine:
    """See `lists.Mine`.

    Args:
        gallery: what is searched.
        rows: photos whose true place is known.
        retriever: of this gallery: the base.
        folder: which the photos' paths become relative to.
        split: what these photos are: `train` or `test`.
        top_k: candidates of a list.
        seed: of the priors.
        label_encoder: of the map's pictures for cosines, instead of the tiles' own descriptors.
        prior_m: radius within which the drone's place is taken to be known, metres: each photo is
            searched within a disc that holds its camera, somewhere. None: on the whole map.

    Raises:
        OptionError: `top_k` is out of range, or pictures are needed and the gallery has none.
        QueriesError: a photo is not within the folder, or has no true place.
    """

    sources: tuple[Source, ...] = ("overlap", "cosine", "distance")
    default_source: Source = "overlap"

    def __init__(
        self,
        gallery: Gallery,
        rows: Sequence[QueryRow],
        retriever: Retriever,
        folder: Path,
        *,
        split: str = "train",
        top_k: int = 10,
        seed: int = 0,
        label_encoder: Encoder | None = None,
        prior_m: float | None = None,
    ) -> None:
        check_top_k(top_k)
        if label_encoder is not None and not gallery.info.imagery:
            raise OptionError(
                f"{gallery.path} has no pictures for another encoder to look at",
                hint=f"build it with imagery: {gallery.info.command(gallery.path)}",
            )
        self._gallery, self._rows, self._retriever = gallery, rows, retriever
        self._encoder, self._prior_m = label_encoder, prior_m
        self._paths = [_within(row, folder) for row in rows]
        self._points = [true_point(row) for row in rows]
        self.about = About(
            base=f"{retriever.name} search, {gallery.info.encoder.name}"
            + ("" if prior_m is None else f", within {prior_m:g} m"),
            base_fingerprint=gallery.info.encoder.fingerprint,
            dataset=f"photos on {gallery.path.name}",
            split=split,
            gallery=gallery.info.build_id,
            k=top_k,
            seed=seed,
        )
        self.queries: Sequence[str] = tuple(row.file for row in rows)
        lon, lat = np.array(self._points, dtype=np.float64).T
        middle = LocalFrame(*centre_lonlat(lon=lon, lat=lat))
        self.sites = Sites(
            xy_m=np.stack(middle.to_xy(lon=lon, lat=lat), axis=1),
            reach_m=max(level.tile_m for level in gallery.levels),
        )
        self.left_out: dict[str, int] = {}
        self.failed = 0
        self._vector = lru_cache(KEPT_VECTORS)(self._look)
        self._tiles: dict[int, Tiles] = {}

    def lists(
        self, rows: Sequence[int], progress: Progress = lambda *_: None
    ) -> Iterator[MinedList]:
        """See `lists.Mine`."""
        for done, number in enumerate(rows, 1):
            made = self._list(number)
            progress(done, len(rows), self.queries[number])
            if made is not None:
                yield made

    def _list(self, number: int) -> MinedList | None:
        try:
            query = self._rows[number].load()
        except PhotoError as error:
            self.failed += 1
            count(self.left_out, error.message)
            return None
        prior = self._prior(number)
        listed = list(self._retriever.retrieve(query, self.about.k, prior).candidates)
        truth = self._truth(number, listed[0].level) if listed else None
        if truth is None:
            count(self.left_out, OUTSIDE if listed else "the base listed nothing")
            return None
        of_base = len(listed)
        right = [self._is_right(c, truth) for c in listed]
        if not any(right):
            forced = self._forced(number, query, truth, listed[0])
            taken = any(c.id == forced.id for c in listed)  # `pose-1` of another search
            listed.append(replace(forced, id="truth") if taken else forced)
            right.append(True)
        if len(listed) < 2:
            count(self.left_out, "the base listed fewer than two candidates")
            return None
        known = self._measured(query.name, listed, right, truth)
        return MinedList(
            query=self.queries[number],
            path=self._paths[number],
            telemetry=query.telemetry,
            candidates=tuple(
                _mined(c, rank=rank if rank <= of_base else None, right=is_right, known=values)
                for rank, (c, is_right, values) in enumerate(
                    zip(listed, right, known, strict=True), 1
                )
            ),
        )

    def _prior(self, number: int) -> Prior | None:
        """A disc that holds the camera, its centre drawn by the seed and the photo's name."""
        if self._prior_m is None:
            return None
        row = self._rows[number]
        lon, lat = row.truth_lon, row.truth_lat  # a prior is about the camera
        if lon is None or lat is None:
            lon, lat = self._points[number]
        draw = np.random.default_rng((self.about.seed, *row.file.encode()))
        away, angle = self._prior_m * math.sqrt(draw.random()), draw.uniform(0, 2 * math.pi)
        frame = LocalFrame(lon, lat)
        lon, lat = frame.point(x_m=away * math.cos(angle), y_m=away * math.sin(angle))
        # the disc's edge is geodesic and the offset planar: a little wider, so that it holds it
        return Prior(lon=lon, lat=lat, radius_m=1.001 * self._prior_m)

    def _truth(self, number: int, level: int) -> Truth | None:
        """None where no tile of the level has its centre within a stride of the true point."""
        lon, lat = self._points[number]
        near = self._nearest(lon, lat, level, self._gallery.levels[level].stride_m)
        if near is None:
            return None
        x, y = self._gallery.areas[near[0].area].frame.to_xy(lon=lon, lat=lat)
        return Truth(lon=lon, lat=lat, x_m=float(x), y_m=float(y), tile=near[0])

    def _nearest(
        self, lon: float, lat: float, level: int, radius_m: float
    ) -> tuple[Candidate, NDArray[np.float64]] | None:
        """The tile with the nearest centre within a radius, and its descriptor (D,)."""
        tiles = self._around(lon, lat, level, radius_m)
        if not len(tiles):
            return None
        i = int(np.argmin(distance_m(lon1=lon, lat1=lat, lon2=tiles.lon, lat2=tiles.lat)))
        tile = Candidate(
            lon=float(tiles.lon[i]), lat=float(tiles.lat[i]), score=-math.inf, id=str(tiles.id[i]),
            area=int(tiles.area[i]), level=level, x_m=float(tiles.x_m[i]), y_m=float(tiles.y_m[i]),
        )  # fmt: skip
        return tile, np.asarray(tiles.descriptor[i], dtype=np.float64)

    def _around(self, lon: float, lat: float, level: int, radius_m: float) -> Tiles:
        """Tiles whose centre is within a radius."""
        if self._gallery.tile_count > EXACT_TILES:  # too many to be kept
            near = Prior(lon=lon, lat=lat, radius_m=radius_m)
            return self._gallery.tiles(prior=near, levels=[level])
        if level not in self._tiles:
            self._tiles[level] = self._gallery.tiles(levels=[level])
        tiles = self._tiles[level]
        rows = np.flatnonzero(np.abs(tiles.lat - lat) <= radius_m / METRES_A_DEGREE)
        away = distance_m(lon1=lon, lat1=lat, lon2=tiles.lon[rows], lat2=tiles.lat[rows])
        return tiles.select(rows[away <= radius_m])

    def _is_right(self, candidate: Candidate, truth: Truth) -> bool:
        if self._retriever.name == "descriptor":
            return candidate.id == truth.tile.id
        if candidate.area != truth.tile.area:
            return False
        reach = self._gallery.levels[candidate.level].stride_m / math.sqrt(2)
        return math.hypot(candidate.x_m - truth.x_m, candidate.y_m - truth.y_m) <= reach

    def _forced(self, number: int, query: Query, truth: Truth, first: Candidate) -> Candidate:
        """The truth as a candidate without a rank, with the pose under which it would match."""
        row, level = self._rows[number], self._gallery.levels[first.level]
        lon, lat = row.truth_lon, row.truth_lat  # a prior is about the camera
        if lon is None or lat is None:
            lon, lat = truth.lon, truth.lat
        radius = level.tile_m + float(
            distance_m(lon1=lon, lat1=lat, lon2=truth.lon, lat2=truth.lat)
        )
        around = Prior(lon=lon, lat=lat, radius_m=radius)
        near = math.ceil(math.pi * (radius / level.stride_m + 1) ** 2)  # all tiles within it
        for found in self._retriever.retrieve(query, near, around).candidates:
            if found.level == first.level and self._is_right(found, truth):
                return found
        # it does not match there at all: the pose that matched best elsewhere
        return replace(truth.tile, pose=first.pose)

    def _measured(
        self, name: str, candidates: Sequence[Candidate], right: Sequence[bool], truth: Truth
    ) -> list[Measured]:
        side = self._gallery.levels[candidates[0].level].tile_m
        x = np.array([c.x_m for c in candidates])
        y = np.array([c.y_m for c in candidates])
        looks = self._descriptors([*candidates, truth.tile])
        asked = LabelList(
            name=name,
            ground_truth=np.array(right),
            candidates=Places(
                descriptors=None if looks is None else looks[:-1],
                footprints=rectangles(x, y, side, side),
                lon=np.array([c.lon for c in candidates]),
                lat=np.array([c.lat for c in candidates]),
            ),
            truth=Places(
                descriptors=None if looks is None else looks[-1:],
                footprints=rectangles(truth.x_m, truth.y_m, side, side),
                lon=np.array([truth.lon]),
                lat=np.array([truth.lat]),
            ),
        )
        overlap = measured(asked, "overlap")
        overlap[[c.area != truth.tile.area for c in candidates]] = 0.0  # another frame
        cosine = None if looks is None else measured(asked, "cosine").tolist()
        away = measured(asked, "distance").tolist()
        return [
            Measured(
                overlap=float(overlap[i]),
                cosine=None if cosine is None else cosine[i],
                distance_m=away[i],
            )
            for i in range(len(candidates))
        ]

    def _descriptors(self, places: Sequence[Candidate]) -> NDArray[np.float64] | None:
        """(N, D): what the map looks like around each place; None where one can't be told."""
        found = [self._vector(c.area, c.level, c.x_m, c.y_m) for c in places]
        known = [vector for vector in found if vector is not None]
        return np.stack(known) if len(known) == len(found) else None

    def _look(self, area: int, level: int, x_m: float, y_m: float) -> NDArray[np.float64] | None:
        """(D,) the descriptor of the nearest tile, or of the picture by another encoder; None where
        no tile's centre is within a tile's side."""
        side, encoder = self._gallery.levels[level].tile_m, self._encoder
        if encoder is None:
            lon, lat = self._gallery.areas[area].frame.point(x_m=x_m, y_m=y_m)
            near = self._nearest(lon, lat, level, side)
            return None if near is None else near[1]
        size = encoder.input_px
        image, valid = self._gallery.picture(
            area=area, level=level, x_m=x_m, y_m=y_m, size_px=size, gsd_m=side / size
        )
        return np.asarray(encoder.encode(image[None], valid[None])[0], dtype=np.float64)


def true_point(row: QueryRow) -> tuple[float, float]:
    """(lon, lat) of the ground at the photo's centre; see the module.

    Raises:
        QueriesError: the row has no true place.
    """
    if row.ground_lon is not None and row.ground_lat is not None:
        return row.ground_lon, row.ground_lat
    if row.truth_lon is None or row.truth_lat is None:
        raise QueriesError(
            f"{row.file} (line {row.line}) has no true place", hint="give lon and lat"
        )
    known = row.telemetry
    if (
        known.relative_altitude_m is None
        or known.heading_deg is None
        or known.camera_tilt_from_nadir_deg is None
    ):
        return row.truth_lon, row.truth_lat
    pose = CameraPose(
        altitude_m=known.relative_altitude_m,
        heading_deg=known.heading_deg,
        tilt_deg=known.camera_tilt_from_nadir_deg,
        hfov_deg=known.horizontal_fov_deg or 1.0,  # the centre is the same for all
    )
    east, north = pose.offset_m
    return LocalFrame(row.truth_lon, row.truth_lat).point(x_m=east, y_m=north)


def _within(row: QueryRow, folder: Path) -> str:
    """The photo's path relative to the folder that training will look in."""
    try:
        return Path(os.path.abspath(row.path)).relative_to(os.path.abspath(folder)).as_posix()
    except ValueError as error:
        raise QueriesError(
            f"the photo {row.path} (line {row.line}) is not within {folder}",
            hint="give the folder that all photos are in by --photos DIR",
        ) from error


def _mined(
    candidate: Candidate, *, rank: int | None, right: bool, known: Measured
) -> MinedCandidate:
    place = MapPlace(**{name: getattr(candidate, name) for name in MapPlace.model_fields})
    return MinedCandidate(
        id=candidate.id,
        place=place,
        base_score=candidate.score if math.isfinite(candidate.score) else None,
        rank=rank,
        is_ground_truth=right,
        label=float(right),
        measured=known,
    )
