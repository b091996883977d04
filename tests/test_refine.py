"""The place within a tile: against dense search on the town, and on a scene of known truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scene_helpers import Scene, candidate, dense, error_m, scene, scene_encoder, scene_gallery
from skylink import Localizer
from skylink.encoder import load_encoder
from skylink.gallery import Gallery
from skylink.hypotheses import SearchSpace
from skylink.queries import QueryRow
from skylink.refine import Refiner
from skylink.reranker import Fusion
from skylink.types import CameraPose, Candidate, Prior, Query, Telemetry


def of_town(gallery: Gallery) -> Refiner:
    return Refiner(gallery, load_encoder(), SearchSpace())


def pose_of(query: Query) -> CameraPose:
    known = query.telemetry
    return CameraPose(
        altitude_m=known.relative_altitude_m or 0.0, heading_deg=known.heading_deg or 0.0,
        tilt_deg=known.camera_tilt_from_nadir_deg or 0.0, hfov_deg=known.horizontal_fov_deg or 0.0,
    )  # fmt: skip


def nearest_tile(gallery: Gallery, query: Query, truth: tuple[float, float]) -> Candidate:
    """The tile whose centre lies nearest to the truth, under the telemetry's pose."""
    tiles = gallery.tiles()
    x, y = gallery.areas[0].frame.to_xy(lon=truth[0], lat=truth[1])
    i = int(np.hypot(tiles.x_m - x, tiles.y_m - y).argmin())
    return Candidate(
        lon=float(tiles.lon[i]), lat=float(tiles.lat[i]), score=0.4, id=str(tiles.id[i]), area=0,
        level=0, x_m=float(tiles.x_m[i]), y_m=float(tiles.y_m[i]), pose=pose_of(query),
    )  # fmt: skip


def test_it_agrees_with_dense_search_of_the_whole_map(
    town_gallery: Gallery, town_rows: Sequence[QueryRow], town_queries: Sequence[Query]
) -> None:
    refiner, whole = of_town(town_gallery), dense(town_gallery, load_encoder())
    for row, query in zip(town_rows, town_queries, strict=True):
        truth = row.ground_lon or 0.0, row.ground_lat or 0.0
        tile = nearest_tile(town_gallery, query, truth)
        found = refiner.refine(query, tile)
        best = whole.retrieve(query, 1).candidates[0]
        assert found is not None
        assert (found.id, found.score, found.level) == (tile.id, tile.score, tile.level)
        assert error_m(found, (best.lon, best.lat)) < 2
        assert error_m(found, truth) < 5
        assert found.pose == best.pose
        frame = town_gallery.areas[0].frame
        assert (found.lon, found.lat) == frame.point(x_m=found.x_m, y_m=found.y_m)


def test_a_wrong_altitude_and_heading_are_mended(
    town_gallery: Gallery, town_rows: Sequence[QueryRow], town_queries: Sequence[Query]
) -> None:
    row, query = town_rows[0], town_queries[0]
    truth = row.ground_lon or 0.0, row.ground_lat or 0.0
    tile = nearest_tile(town_gallery, query, truth)
    assert tile.pose is not None
    off = dataclasses.replace(
        tile.pose, altitude_m=tile.pose.altitude_m / 1.15, heading_deg=tile.pose.heading_deg + 4
    )
    found = of_town(town_gallery).refine(query, dataclasses.replace(tile, pose=off))
    assert found is not None
    assert found.pose is not None
    assert found.pose.altitude_m == pytest.approx(tile.pose.altitude_m, rel=0.08)
    assert error_m(found, truth) < 6


def test_what_cannot_be_compared_is_left_alone(
    town_gallery: Gallery, town_rows: Sequence[QueryRow], town_queries: Sequence[Query]
) -> None:
    refiner, query = of_town(town_gallery), town_queries[0]
    tile = nearest_tile(town_gallery, query, (town_rows[0].ground_lon, town_rows[0].ground_lat))
    assert tile.pose is not None
    assert refiner.refine(query, dataclasses.replace(tile, pose=None)) is None
    low = dataclasses.replace(tile.pose, altitude_m=4.0)  # the photo shows less than some cells
    assert refiner.refine(query, dataclasses.replace(tile, pose=low)) is None
    beyond = dataclasses.replace(tile, x_m=tile.x_m + 50_000)
    assert refiner.refine(query, beyond) is None


def test_nothing_outside_the_prior(
    town_gallery: Gallery, town_rows: Sequence[QueryRow], town_queries: Sequence[Query]
) -> None:
    refiner, row, query = of_town(town_gallery), town_rows[0], town_queries[0]
    truth = row.ground_lon or 0.0, row.ground_lat or 0.0
    tile = nearest_tile(town_gallery, query, truth)
    here = Prior(lon=row.truth_lon or 0.0, lat=row.truth_lat or 0.0, radius_m=30)
    assert refiner.refine(query, tile, here) == refiner.refine(query, tile)
    lon, lat = town_gallery.areas[0].frame.point(x_m=tile.x_m + 5000, y_m=tile.y_m)
    assert refiner.refine(query, tile, Prior(lon=lon, lat=lat, radius_m=100)) is None


@pytest.fixture(scope="module")
def hills(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("hills"))


@pytest.mark.parametrize("stride_m", [24.0, 96.0])
@pytest.mark.parametrize(("col", "row"), [(200, 300), (75, 405), (420, 60)])
def test_wherever_the_tile_lies_and_however_far_apart_they_are(
    hills: Scene, tmp_path: Path, stride_m: float, col: int, row: int
) -> None:
    """A centre that is nearly half a stride off, also where tiles reach over the map's edge."""
    gallery = Gallery.build(
        [hills.path], tmp_path / "g", tile_m=(96.0,), stride_m=stride_m, encoder=scene_encoder()
    )
    query = hills.photo(col=col, row=row, width_m=96)
    truth = hills.point(col=col, row=row)
    x, y = gallery.areas[0].frame.to_xy(lon=truth[0], lat=truth[1])
    off = 0.48 * stride_m
    tile = dataclasses.replace(
        candidate(name="a0", pose=pose_of(query)), x_m=float(x) + off, y_m=float(y) - off
    )
    found = Refiner(gallery, scene_encoder(), SearchSpace()).refine(query, tile)
    assert found is not None
    assert error_m(found, truth) < 5


def test_it_stays_within_the_neighbouring_tiles(hills: Scene, tmp_path: Path) -> None:
    """Far from the truth the best fit draws it away, pose by pose; not beyond the next centres."""
    gallery = scene_gallery([hills], tmp_path / "g")  # a stride of 24 m, cells of 16 m
    refiner = Refiner(gallery, scene_encoder(), SearchSpace())
    query = hills.photo(col=200, row=300, width_m=96)
    blind = dataclasses.replace(query, telemetry=Telemetry())  # two rounds of bold steps
    moved = []
    for col in range(60, 420, 24):
        lon, lat = hills.point(col=col, row=240)
        x, y = gallery.areas[0].frame.to_xy(lon=lon, lat=lat)
        tile = candidate(name="a0", pose=pose_of(query))
        tile = dataclasses.replace(tile, x_m=float(x), y_m=float(y))
        found = refiner.refine(blind, tile)
        if found is not None:
            moved.append(max(abs(found.x_m - tile.x_m), abs(found.y_m - tile.y_m)))
    assert len(moved) > 5
    assert 24 < max(moved) <= 24 + 16


# in the whole


@pytest.mark.parametrize("errors", [(180.0, 45.0), (90.0, 45.0), (10.0, 5.0)])
def test_wherever_descriptors_can_search_the_place_is_found(
    town_gallery: Gallery, town_queries: Sequence[Query], errors: tuple[float, float]
) -> None:
    """Three altitudes for relief, on all of these poses, are more than a search may try."""
    space = SearchSpace(heading_error_deg=errors[0], tilt_error_deg=errors[1])
    made = Localizer(town_gallery, retriever="descriptor", reranker="none", space=space)
    assert made.locate(town_queries[0]).refined


class Sure:
    """A re-ranker whose scores have a scale of their own."""

    name = "sure"

    def score(self, query: Query, candidates: Sequence[Candidate]) -> Any:
        return np.linspace(9, -9, len(candidates), dtype=np.float32)


@pytest.mark.parametrize("fusion", [None, Fusion(base_weight=0.25)])
def test_confidence_is_of_the_same_scores_with_and_without_it(
    town_gallery: Gallery, town_queries: Sequence[Query], fusion: Fusion | None
) -> None:
    found, centre = (
        Localizer(
            town_gallery, retriever="descriptor", reranker=Sure(), fusion=fusion, refine=refine
        ).locate(town_queries[0])
        for refine in (True, False)
    )
    assert found.refined
    assert found.confidence == pytest.approx(centre.confidence, abs=0.1)


def test_the_localizer_places_photos_within_tiles(
    town_gallery: Gallery, town_rows: Sequence[QueryRow], town_queries: Sequence[Query]
) -> None:
    fine = Localizer(town_gallery, retriever="descriptor")
    rough = Localizer(town_gallery, retriever="descriptor", refine=False)
    assert fine.plan == rough.plan + ", find the place within the first"
    row, query = town_rows[0], town_queries[0]
    truth = row.ground_lon or 0.0, row.ground_lat or 0.0
    found, centre = fine.locate(query), rough.locate(query)
    assert (found.refined, centre.refined) == (True, False)
    assert found.candidates == centre.candidates  # the ranking is of tiles
    assert found.confidence == pytest.approx(centre.confidence, abs=0.05)
    assert found.radius_m < centre.radius_m
    assert (centre.lon, centre.lat) == (centre.candidates[0].lon, centre.candidates[0].lat)
    at = dataclasses.replace(found.candidates[0], lon=found.lon, lat=found.lat)
    assert error_m(at, truth) < 5 < error_m(centre.candidates[0], truth)
    camera = dataclasses.replace(at, lon=found.camera_lon or 0.0, lat=found.camera_lat or 0.0)
    assert error_m(camera, (row.truth_lon or 0.0, row.truth_lat or 0.0)) < 10
    assert found.ms["refine"] > 0 == centre.ms["refine"]


def test_dense_search_needs_none_and_other_encoders_have_none(
    town_gallery: Gallery, town_queries: Sequence[Query], hills: Scene, tmp_path: Path
) -> None:
    found = Localizer(town_gallery).locate(town_queries[0])
    assert not found.refined
    gallery = scene_gallery([hills], tmp_path / "g")
    made = Localizer(gallery, retriever="descriptor", encoder=scene_encoder())
    assert made.refiner is not None
    blind = dataclasses.replace(hills.photo(col=200, row=300), telemetry=Telemetry())
    assert made.locate(blind).refined  # under the pose that matched best
