"""A photo in, a place out; and that what fails or is out of place says so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from map_helpers import FakeEncoder
from scene_helpers import Scene, error_m, scene, scene_encoder, scene_gallery
from skylink import localizer as localizer_module
from skylink.errors import GalleryError, OptionError, PhotoError, RerankError
from skylink.gallery import Gallery
from skylink.geo import distance_m
from skylink.hypotheses import SearchSpace
from skylink.localizer import MAX_TOP_K, Localizer
from skylink.queries import QueryRow
from skylink.reranker import Fusion
from skylink.types import Candidate, Estimate, Prior, Query, Telemetry


@pytest.fixture(scope="module")
def hills(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("hills"))


@pytest.fixture(scope="module")
def gallery(hills: Scene, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return scene_gallery([hills], tmp_path_factory.mktemp("gallery") / "g")


@pytest.fixture(scope="module")
def photo(hills: Scene) -> Query:
    return hills.photo(col=200, row=300)


class Backwards:
    """A re-ranker that turns the list around."""

    name = "backwards"

    def score(self, query: Query, candidates: Sequence[Candidate]) -> Any:
        return np.arange(len(candidates), dtype=np.float32)


class Broken(Backwards):
    name = "broken"

    def score(self, query: Query, candidates: Sequence[Candidate]) -> Any:
        return np.full(len(candidates), np.nan)


def localizer(gallery: Gallery, reranker: Any = None, **options: Any) -> Localizer:
    made = Localizer(gallery, encoder=scene_encoder(), **options)
    made.reranker = reranker
    return made


def test_a_place(gallery: Gallery, hills: Scene, photo: Query) -> None:
    estimate, retrieval = localizer(gallery).locate_detailed(photo)
    truth = hills.point(col=200, row=300)
    assert error_m(estimate.candidates[0], truth) < 5
    assert (estimate.lon, estimate.lat) == (
        estimate.candidates[0].lon,
        estimate.candidates[0].lat,
    )
    assert list(estimate.candidates) == list(retrieval.candidates)
    assert (estimate.reranked, estimate.rerank_failed, estimate.rerank_note) == (False, False, "")
    assert (estimate.retriever, estimate.reranker) == ("dense", "none")
    assert estimate.aligned
    assert estimate.name == photo.name
    assert estimate.pose == estimate.candidates[0].pose
    assert estimate.confidence > 0.9
    assert 0 < estimate.radius_m < 50
    assert estimate.radius_m < estimate.radius_90_m < 100
    assert estimate.located
    assert set(estimate.ms) == {"retrieve", "rerank", "refine", "total"}
    assert estimate.ms["rerank"] == estimate.ms["refine"] == 0
    assert estimate.ms["total"] >= estimate.ms["retrieve"] > 0


def test_the_camera_of_an_oblique_photo(gallery: Gallery, photo: Query) -> None:
    """It stands behind the view point, by altitude x tan(tilt), against the heading."""
    tilted = Telemetry(camera_tilt_from_nadir_deg=30.0, heading_deg=90.0)
    oblique = dataclasses.replace(photo, telemetry=photo.telemetry.updated(tilted))
    made = localizer(gallery)
    estimate = made.locate(oblique)
    assert estimate.camera_lon is not None
    assert estimate.camera_lat is not None
    assert estimate.pose is not None
    away = distance_m(
        lon1=estimate.lon, lat1=estimate.lat, lon2=estimate.camera_lon, lat2=estimate.camera_lat
    )
    assert float(away) == pytest.approx(estimate.pose.forward_m, rel=1e-3)
    assert estimate.camera_lon < estimate.lon  # it looks east
    straight = made.locate(photo)
    assert straight.camera_lon == pytest.approx(straight.lon, abs=1e-9)


@pytest.mark.parametrize(
    ("unknown", "has_camera"),
    [
        ("heading_deg", True),  # found on the way
        ("relative_altitude_m", False),
        ("camera_tilt_from_nadir_deg", False),
        ("horizontal_fov_deg", False),
    ],
)
def test_no_camera_without_its_height(
    gallery: Gallery, photo: Query, unknown: str, has_camera: bool
) -> None:
    less = dataclasses.replace(photo, telemetry=photo.telemetry.without(unknown))
    estimate = localizer(gallery).locate(less)
    assert (estimate.camera_lon is not None) is has_camera
    assert (estimate.camera_lat is not None) is has_camera
    assert not estimate.aligned


def test_camera_of_needs_a_pose(gallery: Gallery, photo: Query) -> None:
    made = localizer(gallery)
    bare = dataclasses.replace(made.locate(photo).candidates[0], pose=None)
    with pytest.raises(ValueError, match="no camera pose"):
        made.camera_of(bare)


def test_a_reranker_decides(gallery: Gallery, photo: Query) -> None:
    estimate, retrieval = localizer(gallery, Backwards(), top_k=4).locate_detailed(photo)
    assert estimate.reranked
    assert estimate.reranker == "backwards"
    assert [c.id for c in estimate.candidates] == [c.id for c in retrieval.candidates][::-1]
    assert (estimate.lon, estimate.lat) == (
        retrieval.candidates[-1].lon,
        retrieval.candidates[-1].lat,
    )
    assert estimate.pose == retrieval.candidates[-1].pose
    assert estimate.ms["rerank"] > 0


def test_fused_scores_are_not_read_as_the_bases(gallery: Gallery, photo: Query) -> None:
    """Confidence of a fused ranking comes from the base's calibrated scores, in the new order."""
    base = localizer(gallery, top_k=4).locate(photo)
    kept = localizer(gallery, Backwards(), top_k=4, fusion=Fusion(base_weight=1.0)).locate(photo)
    assert kept.reranked
    assert [c.id for c in kept.candidates] == [c.id for c in base.candidates]
    assert (kept.confidence, kept.radius_m) == (base.confidence, base.radius_m)
    turned = localizer(gallery, Backwards(), top_k=4, fusion=Fusion(base_weight=0.01)).locate(photo)
    assert turned.candidates[0].id == base.candidates[-1].id
    assert turned.confidence < base.confidence / 2  # the base knows a better place


def test_the_gate_leaves_the_base_alone(gallery: Gallery, photo: Query) -> None:
    base = localizer(gallery).locate(photo)
    gated = localizer(gallery, Backwards(), fusion=Fusion(gate_margin=0.0)).locate(photo)
    assert not gated.reranked
    assert not gated.rerank_failed
    assert "the base was sure" in gated.rerank_note
    assert (gated.lon, gated.lat, gated.confidence) == (base.lon, base.lat, base.confidence)


def test_a_reranker_that_fails(gallery: Gallery, photo: Query) -> None:
    base = localizer(gallery).locate(photo)
    failed = localizer(gallery, Broken()).locate(photo)
    assert (failed.reranked, failed.rerank_failed) == (False, True)
    assert "not finite" in failed.rerank_note
    assert (failed.lon, failed.lat, failed.confidence) == (base.lon, base.lat, base.confidence)
    with pytest.raises(RerankError, match=r"at 200,300: .*not finite"):
        localizer(gallery, Broken(), strict=True).locate(photo)


def test_strict_is_about_failures_only(gallery: Gallery, photo: Query) -> None:
    made = localizer(gallery, Broken(), strict=True, fusion=Fusion(gate_margin=0.0))
    assert "sure" in made.locate(photo).rerank_note
    assert "fewer" in localizer(gallery, Broken(), strict=True, top_k=1).locate(photo).rerank_note


@pytest.mark.parametrize("retriever", ["dense", "descriptor"])
def test_nothing_within_the_prior(gallery: Gallery, photo: Query, retriever: str) -> None:
    prior = Prior(lon=-120.0, lat=40.0, radius_m=500)
    with pytest.raises(OptionError, match="within the prior") as caught:
        localizer(gallery, retriever=retriever).locate(photo, prior=prior)
    assert "LON,LAT,RADIUS_M" in (caught.value.hint or "")


def test_nothing_to_compare(gallery: Gallery, photo: Query) -> None:
    low = dataclasses.replace(
        photo, telemetry=photo.telemetry.updated(Telemetry(relative_altitude_m=2.0))
    )
    with pytest.raises(OptionError, match="no place that could be compared"):
        localizer(gallery).locate(low)


def test_it_abstains_below_a_confidence(gallery: Gallery, photo: Query) -> None:
    """The place stays the same; only what is said of it changes."""
    found = localizer(gallery).locate(photo)
    for least, located in ((0.0, True), (found.confidence, True), (1.0, False)):
        estimate = localizer(gallery, min_confidence=least).locate(photo)
        assert estimate.located is located
        assert dataclasses.replace(estimate, located=True, ms={}) == dataclasses.replace(
            found, ms={}
        )
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(OptionError, match="min-confidence"):
            localizer(gallery, min_confidence=wrong)


def test_confidence_and_radii_do_not_depend_on_how_many_are_listed(
    gallery: Gallery, photo: Query
) -> None:
    one, ten = (localizer(gallery, top_k=k).locate(photo) for k in (1, 10))
    assert len(one.candidates) == 1
    assert one.confidence == ten.confidence
    assert one.radius_90_m == ten.radius_90_m


def test_the_extent_is_the_maps_far_corner_or_the_priors_rim(
    gallery: Gallery, hills: Scene, photo: Query
) -> None:
    made = localizer(gallery)
    best = made.locate(photo).candidates[0]
    (area,) = gallery.areas
    west, south, east, north = area.bounds
    far = max(np.hypot(x - best.x_m, y - best.y_m) for x in (west, east) for y in (south, north))
    assert made.extent_m(best, None) == pytest.approx(far, rel=1e-3)
    lon, lat = area.frame.point(x_m=best.x_m + 30, y_m=best.y_m)
    near = Prior(lon=lon, lat=lat, radius_m=50)
    assert made.extent_m(best, near) == pytest.approx(80, rel=1e-3)
    wide = Prior(lon=lon, lat=lat, radius_m=1e6)
    assert made.extent_m(best, wide) == made.extent_m(best, None)


@pytest.mark.parametrize("top_k", [0, -1, MAX_TOP_K + 1])
def test_top_k_out_of_range(gallery: Gallery, top_k: int) -> None:
    with pytest.raises(OptionError, match="top-k"):
        localizer(gallery, top_k=top_k)


def test_top_k_beyond_the_gallery(gallery: Gallery, photo: Query) -> None:
    for retriever in ("dense", "descriptor"):
        estimate = localizer(gallery, retriever=retriever, top_k=MAX_TOP_K).locate(photo)
        assert 10 < len(estimate.candidates) < MAX_TOP_K


def test_another_encoder_is_refused(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="not with"):
        Localizer(gallery, encoder=FakeEncoder(input_px=96, fingerprint="fake-2"))


def test_paths_in(gallery: Gallery, town_folder: Path, tmp_path: Path) -> None:
    """A gallery's folder and a photo's file will do; the encoder comes from the gallery."""
    made = Localizer(str(town_folder / "gallery"))
    assert made.retriever.name == "dense"
    assert made.locate(town_folder / "photos" / "town_001.jpg").aligned
    with pytest.raises(PhotoError):
        made.locate(tmp_path / "none.jpg")
    with pytest.raises(GalleryError):
        Localizer(tmp_path / "none")


def test_the_plan_in_words(gallery: Gallery) -> None:
    assert "whole map (dense), keep the best 10" in localizer(gallery).plan
    plan = localizer(gallery, Backwards(), retriever="descriptor", top_k=3).plan
    assert "(descriptor), re-rank the best 3 by backwards" in plan
    fitted = Fusion(base_weight=0.2, depth=10)
    for top_k, told in ((10, False), (20, True)):
        plan = localizer(gallery, Backwards(), top_k=top_k, fusion=fitted).plan
        assert ("fusion with the base was fitted on 10 candidates" in plan) is told


def test_without_a_wish_tiles_are_re_ranked_where_the_shipped_model_fits(
    gallery: Gallery, town_gallery: Gallery, town_queries: list[Query]
) -> None:
    of_others = Localizer(gallery, retriever="descriptor", encoder=scene_encoder())
    assert of_others.reranker is None  # cells of an encoder that the model was not trained on
    assert Localizer(town_gallery).reranker is None  # dense search has compared cells already
    found = Localizer(town_gallery, retriever="descriptor")
    assert found.reranker is not None
    assert found.reranker.name == "relational"
    assert found.locate(town_queries[0]).reranked


def test_same_in_same_out(gallery: Gallery, photo: Query) -> None:
    one, two = (localizer(gallery).locate(photo) for _ in range(2))
    assert dataclasses.replace(one, ms={}) == dataclasses.replace(two, ms={})


# on the town, with the embedded encoder


@pytest.fixture(scope="module")
def town(town_gallery: Gallery) -> Localizer:
    return Localizer(town_gallery)


@pytest.fixture(scope="module")
def own(town: Localizer, town_queries: list[Query]) -> list[Estimate]:
    return [town.locate(query) for query in town_queries]


def test_photos_of_another_town_come_out_unsure(
    town: Localizer, own: list[Estimate], elsewhere_queries: list[Query]
) -> None:
    foreign = [town.locate(query).confidence for query in elsewhere_queries]
    ours = [estimate.confidence for estimate in own]
    assert np.median(ours) > 0.8
    assert np.median(foreign) < 0.3
    assert max(foreign) < np.median(ours)


def test_cameras_and_radii_of_the_town(own: list[Estimate], town_rows: list[QueryRow]) -> None:
    """All six cameras within 25 m; the truth within three radii of each."""
    for estimate, row in zip(own, town_rows, strict=True):
        assert estimate.camera_lon is not None
        camera = distance_m(
            lon1=estimate.camera_lon, lat1=estimate.camera_lat or 0.0,
            lon2=row.truth_lon or 0.0, lat2=row.truth_lat or 0.0,
        )  # fmt: skip
        assert float(camera) < 25
        truth = (row.ground_lon or 0.0, row.ground_lat or 0.0)
        assert error_m(estimate.candidates[0], truth) < 3 * estimate.radius_m


@pytest.mark.parametrize("reranker", ["dense", "matching"])
def test_the_named_rerankers_run(
    town_gallery: Gallery, town_queries: list[Query], town_rows: list[QueryRow], reranker: str
) -> None:
    made = Localizer(town_gallery, reranker=reranker, top_k=5)
    estimate = made.locate(town_queries[0])
    assert estimate.reranked
    assert estimate.reranker == reranker
    assert len(estimate.candidates) == 5
    if reranker == "dense":
        truth = (town_rows[0].ground_lon or 0.0, town_rows[0].ground_lat or 0.0)
        assert error_m(estimate.candidates[0], truth) < 25


@pytest.mark.slow
def test_no_telemetry_at_all_on_the_town(
    town: Localizer, town_queries: list[Query], town_rows: list[QueryRow]
) -> None:
    """192 poses; the first photo is still found."""
    blind = dataclasses.replace(town_queries[0], telemetry=Telemetry())
    estimate = town.locate(blind)
    assert not estimate.aligned
    assert estimate.camera_lon is None
    truth = (town_rows[0].ground_lon or 0.0, town_rows[0].ground_lat or 0.0)
    assert error_m(estimate.candidates[0], truth) < 25


def test_the_space_reaches_the_search(gallery: Gallery, photo: Query) -> None:
    wide = localizer(gallery, space=SearchSpace(heading_error_deg=20)).locate(photo)
    assert wide.searched == "5 headings within 20 degrees x 3 altitudes for relief"
    assert localizer_module.MAX_TOP_K == MAX_TOP_K


def test_the_time_budget_reaches_the_search(gallery: Gallery, photo: Query) -> None:
    """Nothing can be done in a nanosecond but the batch that is always tried."""
    blind = dataclasses.replace(photo, telemetry=Telemetry())
    cut = localizer(gallery, time_budget_s=1e-9).locate(blind)
    assert (cut.poses_tried, cut.poses_planned, cut.cut) == (24, 192, True)
    assert cut.pose_from["heading"] == "searched"
    whole = localizer(gallery, time_budget_s=math.inf).locate(blind)
    assert (whole.poses_tried, whole.cut) == (192, False)
    assert whole.candidates == localizer(gallery).locate(blind).candidates
    with pytest.raises(OptionError, match="not positive"):
        localizer(gallery, time_budget_s=-1.0)
