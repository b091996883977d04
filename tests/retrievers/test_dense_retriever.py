"""Dense search: on a town with the embedded encoder, and on smooth colours with a quick one.

Of the town's six photos (seed 7), all six are found within 25 m with full telemetry and with the
heading unknown; the errors were 1 to 4 m.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from scene_helpers import Scene, dense, error_m, scene, scene_encoder, scene_gallery
from skylink import densemap
from skylink.encoder import load_encoder
from skylink.errors import GalleryError, OptionError
from skylink.gallery import Gallery
from skylink.geo import distance_m
from skylink.hypotheses import HEADINGS, SearchSpace
from skylink.queries import QueryRow
from skylink.retriever import make_retriever
from skylink.retrievers import dense as dense_module
from skylink.retrievers import parts
from skylink.retrievers.dense import SEPARATION, DenseRetriever
from skylink.types import Candidate, Prior, Query, Retrieval, Telemetry

TOWN_FOUND = 6


@pytest.fixture(scope="module")
def retriever(town_gallery: Gallery) -> DenseRetriever:
    return dense(town_gallery, load_encoder())


def town_errors(rows: Sequence[QueryRow], found: Sequence[Retrieval]) -> list[float]:
    return [
        error_m(retrieval.candidates[0], (row.ground_lon or 0, row.ground_lat or 0))
        for row, retrieval in zip(rows, found, strict=True)
    ]


def told(query: Query, **telemetry: float) -> Query:
    return dataclasses.replace(query, telemetry=query.telemetry.updated(Telemetry(**telemetry)))


def untold(query: Query, *names: str) -> Query:
    return dataclasses.replace(query, telemetry=query.telemetry.without(*names))


# on the town


def test_full_telemetry_finds_every_photo(
    retriever: DenseRetriever, town_rows: list[QueryRow], town_queries: list[Query]
) -> None:
    found = [retriever.retrieve(query, 10) for query in town_queries]
    errors = town_errors(town_rows, found)
    assert sum(e <= 25 for e in errors) == TOWN_FOUND
    assert np.median(errors) < 8  # under a feature cell
    for retrieval in found:
        assert retrieval.aligned
        assert retrieval.retriever == "dense"
        scores = [c.score for c in retrieval.candidates]
        assert scores == sorted(scores, reverse=True)
        assert all(-1 <= s <= 1 for s in scores)


def test_heading_unknown_finds_every_photo_and_its_heading(
    retriever: DenseRetriever, town_rows: list[QueryRow], town_queries: list[Query]
) -> None:
    found = [retriever.retrieve(untold(query, "heading_deg"), 10) for query in town_queries]
    assert sum(e <= 25 for e in town_errors(town_rows, found)) == TOWN_FOUND
    for retrieval, query in zip(found, town_queries, strict=True):
        assert not retrieval.aligned
        assert retrieval.searched == f"{HEADINGS} headings"
        pose = retrieval.candidates[0].pose
        assert pose is not None
        off = (pose.heading_deg - (query.telemetry.heading_deg or 0) + 180) % 360 - 180
        assert abs(off) < 10


def test_a_wrong_heading_is_doubted(
    retriever: DenseRetriever, town_rows: list[QueryRow], town_queries: list[Query]
) -> None:
    heading = town_queries[0].telemetry.heading_deg or 0.0
    wrong = told(town_queries[0], heading_deg=heading + 120)
    retrieval = retriever.retrieve(wrong, 10)
    assert town_errors(town_rows[:1], [retrieval])[0] < 25
    assert f"heading of {heading + 120:.0f} degrees did not fit" in retrieval.searched
    assert not retrieval.aligned


def test_a_wrong_heading_with_an_error_given_is_believed(
    town_gallery: Gallery, town_queries: list[Query]
) -> None:
    """Who says how far off the compass may be is not overruled."""
    strict = dense(town_gallery, load_encoder(), heading_error_deg=0.0)
    wrong = told(town_queries[0], heading_deg=(town_queries[0].telemetry.heading_deg or 0.0) + 120)
    retrieval = strict.retrieve(wrong, 5)
    assert "did not fit" not in retrieval.searched
    assert retrieval.aligned
    assert retrieval.candidates[0].score < dense_module.UNSURE


def test_the_surface_shows_where_the_best_is(
    retriever: DenseRetriever, town_queries: list[Query]
) -> None:
    retrieval = retriever.retrieve(town_queries[0], 1)
    surface, best = retrieval.surface, retrieval.candidates[0]
    assert surface is not None
    row, column = np.unravel_index(int(surface.score.argmax()), surface.score.shape)
    assert surface.x0_m + column * surface.cell_m == pytest.approx(best.x_m, abs=2 * surface.cell_m)
    assert surface.y0_m - row * surface.cell_m == pytest.approx(best.y_m, abs=2 * surface.cell_m)
    assert surface.score.max() == pytest.approx(best.score, abs=0.03)


def test_the_coarse_pass_agrees_with_the_full_one(
    town_gallery: Gallery,
    retriever: DenseRetriever,
    town_queries: list[Query],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(densemap, "FULL_SPECTRA_BYTES", 0)
    coarse = dense(town_gallery, load_encoder())
    for query in town_queries[:3]:
        a, b = (r.retrieve(query, 1).candidates[0] for r in (retriever, coarse))
        assert (a.x_m, a.y_m, a.score) == pytest.approx((b.x_m, b.y_m, b.score), abs=1e-3)
    assert coarse.nbytes < retriever.nbytes


# on smooth colours, quick


@pytest.fixture(scope="module")
def hills(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("hills"))


@pytest.fixture(scope="module")
def gallery(hills: Scene, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return scene_gallery([hills], tmp_path_factory.mktemp("gallery") / "g")


@pytest.fixture(scope="module")
def quick(gallery: Gallery) -> DenseRetriever:
    return dense(gallery, scene_encoder())


def camera_m(gallery: Gallery, candidate: Candidate, prior: Prior) -> float:
    """Metres from the candidate's camera to the prior's centre."""
    assert candidate.pose is not None
    east, north = candidate.pose.offset_m
    lon, lat = gallery.areas[candidate.area].frame.point(
        x_m=candidate.x_m - east, y_m=candidate.y_m - north
    )
    return float(distance_m(lon1=lon, lat1=lat, lon2=prior.lon, lat2=prior.lat))


@pytest.mark.parametrize("heading_deg", [0.0, 72.0, 200.0])
@pytest.mark.parametrize(("col", "row"), [(240, 240), (131, 307), (380, 90)])
def test_a_photo_cut_out_of_the_map(
    quick: DenseRetriever, hills: Scene, col: int, row: int, heading_deg: float
) -> None:
    photo = hills.photo(col=col, row=row, heading_deg=heading_deg)
    for query in (photo, untold(photo, "heading_deg")):
        best = quick.retrieve(query, 10).candidates[0]
        assert error_m(best, hills.point(col=col, row=row)) < 5  # a third of a cell
        assert best.score > 0.8
        assert best.pose is not None
        assert abs((best.pose.heading_deg - heading_deg + 180) % 360 - 180) < 8


def test_no_telemetry(quick: DenseRetriever, hills: Scene) -> None:
    photo = dataclasses.replace(hills.photo(col=200, row=200), telemetry=Telemetry())
    retrieval = quick.retrieve(photo, 10)
    assert not retrieval.aligned
    assert retrieval.searched == "24 headings x 2 tilts x 4 altitudes"
    assert retrieval.candidates
    assert np.isfinite([c.score for c in retrieval.candidates]).all()


def test_k_and_separation(quick: DenseRetriever, hills: Scene, gallery: Gallery) -> None:
    photo = hills.photo(col=240, row=240)
    for k in (1, 2, 5, 20):
        assert len(quick.retrieve(photo, k).candidates) == k
    some = quick.retrieve(photo, 20).candidates
    for a, b in itertools.combinations(some, 2):
        apart = np.hypot(a.x_m - b.x_m, a.y_m - b.y_m)
        assert apart >= SEPARATION * gallery.levels[0].tile_m - 1e-6
    assert [c.score for c in some[:5]] == [c.score for c in quick.retrieve(photo, 5).candidates]
    assert len({c.id for c in some}) == 20


def test_more_candidates_than_places(quick: DenseRetriever, hills: Scene) -> None:
    many = quick.retrieve(hills.photo(col=240, row=240), 1000).candidates
    assert 20 < len(many) < 400  # 31 x 31 places, apart
    assert len({(c.x_m, c.y_m) for c in many}) == len(many)


@pytest.mark.parametrize("radius_m", [30.0, 60.0, 150.0])
def test_a_prior_holds_the_camera(
    quick: DenseRetriever, hills: Scene, gallery: Gallery, radius_m: float
) -> None:
    """A tilted camera: its view point may lie outside of the disc, the camera may not."""
    photo = told(hills.photo(col=240, row=240), camera_tilt_from_nadir_deg=40.0, heading_deg=90.0)
    lon, lat = hills.point(col=150, row=220)
    prior = Prior(lon=lon, lat=lat, radius_m=radius_m)
    found = quick.retrieve(photo, 10, prior).candidates
    assert found
    assert max(camera_m(gallery, c, prior) for c in found) <= radius_m
    everywhere = quick.retrieve(photo, 10).candidates
    assert max(camera_m(gallery, c, prior) for c in everywhere) > radius_m  # it had work to do


def test_a_prior_around_the_truth_keeps_it(quick: DenseRetriever, hills: Scene) -> None:
    lon, lat = hills.point(col=131, row=307)
    photo = hills.photo(col=131, row=307)
    near = quick.retrieve(photo, 10, Prior(lon=lon, lat=lat, radius_m=80)).candidates
    free = quick.retrieve(photo, 10).candidates
    assert near[0].score == pytest.approx(free[0].score, abs=1e-3)
    assert error_m(near[0], (lon, lat)) < 5
    wrong = hills.point(col=350, row=100)
    away = quick.retrieve(photo, 10, Prior(lon=wrong[0], lat=wrong[1], radius_m=80)).candidates
    assert away[0].score < free[0].score - 0.2
    assert error_m(away[0], wrong) <= 80


@pytest.mark.parametrize(("lon", "lat"), [(35.3, 32.1), (-144.8, -32.1), (0.0, 90.0)])
def test_a_prior_elsewhere_is_empty(
    quick: DenseRetriever, hills: Scene, lon: float, lat: float
) -> None:
    photo = hills.photo(col=240, row=240)
    assert quick.retrieve(photo, 10, Prior(lon=lon, lat=lat, radius_m=200)).candidates == []


def test_across_the_antimeridian(tmp_path: Path) -> None:
    there = scene(tmp_path, lon=179.9995, lat=-16.5, crs="EPSG:3832", seed=3)
    gallery = scene_gallery([there], tmp_path / "g")
    quick = dense(gallery, scene_encoder())
    for col in (120, 400):  # at 180 - 0.0016 and 180 + 0.001 degrees
        lon, lat = there.point(col=col, row=240)
        assert (lon > 0) == (col == 120)
        prior = Prior(lon=-179.9995, lat=-16.5, radius_m=300)
        best = quick.retrieve(there.photo(col=col, row=240), 3, prior).candidates[0]
        assert error_m(best, (lon, lat)) < 5


def test_levels_are_chosen_by_altitude(hills: Scene, tmp_path: Path) -> None:
    gallery = scene_gallery([hills], tmp_path / "g", tile_m=(96.0, 192.0))
    both = dense(gallery, scene_encoder())
    for width_m, level in ((110, 0), (220, 1)):
        found = both.retrieve(hills.photo(col=240, row=240, width_m=width_m), 5).candidates
        assert {c.level for c in found} == {level}
        assert error_m(found[0], hills.point(col=240, row=240)) < 5 * (level + 1)


def test_two_areas_are_both_searched(hills: Scene, tmp_path: Path) -> None:
    other = scene(tmp_path, lon=35.4, lat=32.2, seed=9)
    gallery = scene_gallery([hills, other], tmp_path / "g")
    assert len(gallery.areas) == 2
    both = dense(gallery, scene_encoder())
    seen = set()
    for place in (hills, other):
        retrieval = both.retrieve(place.photo(col=200, row=280), 10)
        best = retrieval.candidates[0]
        assert error_m(best, place.point(col=200, row=280)) < 8  # half a cell
        assert retrieval.surface is not None
        assert retrieval.surface.area == best.area
        assert {c.area for c in retrieval.candidates} == {0, 1}
        seen.add(best.area)
    assert seen == {0, 1}
    lon, lat = other.point(col=240, row=240)
    prior = Prior(lon=lon, lat=lat, radius_m=400)
    only = both.retrieve(hills.photo(col=200, row=280), 10, prior).candidates
    assert {c.area for c in only} == {best.area}
    assert max(error_m(c, (lon, lat)) for c in only) <= 400


def test_large_maps_are_searched_where_descriptors_say(
    gallery: Gallery, hills: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "DENSE_CELLS", 100)
    monkeypatch.setattr(dense_module, "REGIONS", 4)
    chosen = dense(gallery, scene_encoder())
    photo = hills.photo(col=240, row=240)
    retrieval = chosen.retrieve(photo, 10)
    assert "regions that descriptors chose" in retrieval.searched
    assert error_m(retrieval.candidates[0], hills.point(col=240, row=240)) < 5
    assert not chosen.nbytes  # nothing of the whole map was loaded
    alone = DenseRetriever(gallery, scene_encoder(), chosen._space)
    assert alone.retrieve(photo, 10).candidates == []


def test_an_even_photo_gives_finite_scores(quick: DenseRetriever, hills: Scene) -> None:
    photo = hills.photo(col=240, row=240)
    grey = dataclasses.replace(photo, image=np.full_like(photo.image, 90))
    assert np.isfinite([c.score for c in quick.retrieve(grey, 5).candidates]).all()


def test_a_view_with_hardly_any_ground_is_not_compared(quick: DenseRetriever, hills: Scene) -> None:
    """From 3 m up the photo covers less than a cell."""
    low = told(hills.photo(col=240, row=240), relative_altitude_m=3.0)
    assert quick.retrieve(low, 5).candidates == []


def test_names(gallery: Gallery, hills: Scene, tmp_path: Path) -> None:
    encoder = scene_encoder()
    assert make_retriever("auto", gallery, encoder).name == "dense"
    assert make_retriever("descriptor", gallery, encoder).name == "descriptor"
    with pytest.raises(OptionError, match="unknown retriever 'best'") as caught:
        make_retriever("best", gallery, encoder)
    assert "descriptor" in (caught.value.hint or "")
    flat = type(encoder)(input_px=96, channels=0, fingerprint="flat")
    bare = Gallery.build([hills.path], tmp_path / "g", tile_m=(96.0,), encoder=flat)
    assert make_retriever("auto", bare, flat).name == "descriptor"
    with pytest.raises(GalleryError, match="no feature raster") as refused:
        make_retriever("dense", bare, flat)
    assert "--retriever descriptor" in (refused.value.hint or "")


# within a time budget


class Ticking:
    """A second passes whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def budgeted(gallery: Gallery, seconds: float | None) -> DenseRetriever:
    return DenseRetriever(
        gallery, scene_encoder(), SearchSpace(), time_budget_s=seconds, clock=Ticking()
    )


@pytest.fixture(scope="module")
def blind(hills: Scene) -> Query:
    """A photo of which nothing is known: 192 poses, in batches of 24."""
    return dataclasses.replace(hills.photo(col=200, row=200), telemetry=Telemetry())


def test_an_infinite_budget_is_none(quick: DenseRetriever, gallery: Gallery, blind: Query) -> None:
    free, infinite = (r.retrieve(blind, 10) for r in (quick, budgeted(gallery, math.inf)))
    assert free.candidates == infinite.candidates
    assert (free.searched, free.cut) == (infinite.searched, False)
    assert infinite.poses_tried == infinite.poses_planned == 192


def test_a_cut_search_says_so(gallery: Gallery, blind: Query) -> None:
    tried = []
    for seconds in (1.0, 6.0, 9.0, 20.0):
        cut = budgeted(gallery, seconds).retrieve(blind, 10)
        assert cut.candidates
        assert cut.poses_tried % dense_module.BATCH == 0
        assert cut.poses_planned == 192
        assert cut.cut is (cut.poses_tried < 192)
        said = f"; cut by the time budget: {cut.poses_tried} of 192 poses in "
        assert (said in cut.searched) is cut.cut
        tried.append(cut.poses_tried)
    assert tried[0] == dense_module.BATCH  # one batch is always tried
    assert tried == sorted(tried)
    assert dense_module.BATCH < tried[1] < tried[2] < tried[3] == 192


def test_a_cut_search_is_the_same_each_time(gallery: Gallery, blind: Query) -> None:
    one, two = (budgeted(gallery, 6.0).retrieve(blind, 10) for _ in range(2))
    assert (one.candidates, one.searched) == (two.candidates, two.searched)


def test_the_likeliest_poses_are_the_ones_tried(
    gallery: Gallery, hills: Scene, quick: DenseRetriever
) -> None:
    """A photo as wide as a tile, straight down: the first batch finds it."""
    photo = hills.photo(col=200, row=240, width_m=96, heading_deg=100.0)
    photo = dataclasses.replace(photo, telemetry=Telemetry())
    cut = budgeted(gallery, 1.0).retrieve(photo, 5)
    assert cut.poses_tried == dense_module.BATCH
    assert error_m(cut.candidates[0], hills.point(col=200, row=240)) < 10
    assert cut.candidates[0].score > 0.6


def test_refinement_takes_what_is_left(
    gallery: Gallery, blind: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All poses done, no time for refinement: cut as well."""
    monkeypatch.setattr(dense_module, "SWEEP_SHARE", 1.0)  # nothing is kept for it
    found = [budgeted(gallery, float(s)).retrieve(blind, 3) for s in range(8, 24)]
    whole = [r for r in found if r.poses_tried == 192]
    assert [r.cut for r in whole] == sorted((r.cut for r in whole), reverse=True)
    assert {r.cut for r in whole} == {True, False}
    best = [r.candidates[0].score for r in whole]
    assert best == sorted(best)
    assert best[0] < best[-1]


def test_doubting_a_heading_costs_time_too(
    hills: Scene, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_module, "UNSURE", 2.0)  # every heading is doubted
    photo = hills.photo(col=240, row=240)
    asked = [budgeted(gallery, seconds).retrieve(photo, 3) for seconds in (2.0, 100.0)]
    assert [r.poses_planned for r in asked] == [3, 3 + HEADINGS]
    assert [r.cut for r in asked] == [True, False]


def test_no_budget_is_negative(gallery: Gallery) -> None:
    with pytest.raises(OptionError, match="not positive"):
        budgeted(gallery, 0.0)
