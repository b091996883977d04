"""Descriptor search: tiles, exactly and by the ANN index."""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scene_helpers import Scene, descriptor, error_m, scene, scene_encoder, scene_gallery
from skylink.encoder import load_encoder
from skylink.gallery import Gallery
from skylink.geo import distance_m
from skylink.hypotheses import SearchSpace
from skylink.index import create_ann_index
from skylink.retrievers import descriptor as descriptor_module
from skylink.retrievers.descriptor import DescriptorRetriever
from skylink.types import Prior, Query, Retrieval, Telemetry


@pytest.fixture(scope="module")
def hills(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("hills"))


@pytest.fixture(scope="module")
def gallery(hills: Scene, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return scene_gallery([hills], tmp_path_factory.mktemp("gallery") / "g")


@pytest.fixture(scope="module")
def retriever(gallery: Gallery) -> DescriptorRetriever:
    return descriptor(gallery, scene_encoder())


PLACES = [(240, 240), (131, 307), (380, 90), (100, 100)]


@pytest.mark.parametrize(("col", "row"), PLACES)
@pytest.mark.parametrize("heading_deg", [0.0, 72.0])
def test_the_tile_with_the_view_point_is_near_the_top(
    retriever: DescriptorRetriever, hills: Scene, col: int, row: int, heading_deg: float
) -> None:
    photo = hills.photo(col=col, row=row, heading_deg=heading_deg)
    retrieval = retriever.retrieve(photo, 5)
    truth = hills.point(col=col, row=row)
    assert min(error_m(c, truth) for c in retrieval.candidates[:3]) < 24  # the stride
    assert retrieval.searched == "one pose"
    assert retrieval.aligned
    assert retrieval.surface is None
    scores = [c.score for c in retrieval.candidates]
    assert scores == sorted(scores, reverse=True)
    assert retrieval.candidates[0].id.startswith("a0-l0-")


def test_pictures_of_the_town_find_their_tile(town_gallery: Gallery) -> None:
    """The embedded encoder on the map's own picture between tiles, a little of it missing.

    (On the town's photos untrained descriptors are near chance: see the dense retriever.)
    """
    retriever = descriptor(town_gallery, load_encoder())
    level = town_gallery.levels[0]
    for x_m, y_m in ((-60.0, 70.0), (15.0, -95.0), (90.0, 20.0)):
        image, valid = town_gallery.picture(
            area=0, level=0, x_m=x_m, y_m=y_m, size_px=224, gsd_m=level.gsd_m
        )
        assert valid.all()
        telemetry = Telemetry(
            relative_altitude_m=80.0, heading_deg=0.0, camera_tilt_from_nadir_deg=0.0,
            horizontal_fov_deg=90.0,
        )  # fmt: skip
        query = Query(name="piece", image=image[:200], telemetry=telemetry)
        found = retriever.retrieve(query, 5).candidates
        truth = town_gallery.areas[0].frame.point(x_m=x_m, y_m=y_m + 12 * level.gsd_m)
        assert min(error_m(c, truth) for c in found[:2]) < 40  # the stride


def test_unknown_heading_is_the_best_of_all(retriever: DescriptorRetriever, hills: Scene) -> None:
    photo = hills.photo(col=240, row=240, heading_deg=75.0)
    unknown = dataclasses.replace(photo, telemetry=photo.telemetry.without("heading_deg"))
    best = retriever.retrieve(unknown, 5).candidates[0]
    assert best.pose is not None
    assert best.pose.heading_deg == 75.0
    known = retriever.retrieve(photo, 5).candidates[0]
    assert (best.id, best.score) == (known.id, pytest.approx(known.score, abs=1e-4))


def test_no_telemetry(retriever: DescriptorRetriever, hills: Scene) -> None:
    photo = dataclasses.replace(hills.photo(col=240, row=240), telemetry=Telemetry())
    retrieval = retriever.retrieve(photo, 5)
    assert not retrieval.aligned
    assert len({c.id for c in retrieval.candidates}) == 5
    assert np.isfinite([c.score for c in retrieval.candidates]).all()


def test_k(retriever: DescriptorRetriever, hills: Scene, gallery: Gallery) -> None:
    photo = hills.photo(col=240, row=240)
    five = [c.id for c in retriever.retrieve(photo, 5).candidates]
    assert len(five) == 5
    every = [c.id for c in retriever.retrieve(photo, 1000).candidates]
    assert every[:5] == five
    assert len(every) == len(set(every)) == gallery.tile_count < 1000


@pytest.mark.parametrize("radius_m", [40.0, 90.0])
def test_a_prior_holds_the_camera(
    retriever: DescriptorRetriever, hills: Scene, gallery: Gallery, radius_m: float
) -> None:
    photo = hills.photo(col=240, row=240)
    tilted = dataclasses.replace(
        photo,
        telemetry=photo.telemetry.updated(
            Telemetry(camera_tilt_from_nadir_deg=40.0, heading_deg=90.0)
        ),
    )
    lon, lat = hills.point(col=150, row=220)
    prior = Prior(lon=lon, lat=lat, radius_m=radius_m)

    def away(candidate: Any) -> float:
        east, north = candidate.pose.offset_m
        at = gallery.areas[0].frame.point(x_m=candidate.x_m - east, y_m=candidate.y_m - north)
        return float(distance_m(lon1=at[0], lat1=at[1], lon2=lon, lat2=lat))

    every = retriever.retrieve(tilted, 1000).candidates
    inside = {c.id: c.score for c in every if away(c) <= radius_m}
    found = retriever.retrieve(tilted, 1000, prior).candidates
    assert 0 < len(inside) < len(every)
    assert {c.id for c in found} == set(inside)
    for c in found:
        assert c.score == pytest.approx(inside[c.id], abs=1e-5)
    assert [c.id for c in found[:3]] == [
        c.id for c in retriever.retrieve(tilted, 3, prior).candidates
    ]


def test_a_prior_elsewhere_is_empty(retriever: DescriptorRetriever, hills: Scene) -> None:
    photo = hills.photo(col=240, row=240)
    for lon in (35.3, -179.0):
        assert not retriever.retrieve(photo, 5, Prior(lon=lon, lat=32.1, radius_m=100)).candidates


def test_the_ann_index_agrees(
    hills: Scene, gallery: Gallery, retriever: DescriptorRetriever, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    copy = Gallery.open(shutil.copytree(gallery.path, tmp_path / "copy"))
    create_ann_index(copy.tiles_table(), copy.tile_count)
    monkeypatch.setattr(descriptor_module, "EXACT_TILES", 0)
    approximate = descriptor(copy, scene_encoder())
    for col, row in PLACES:
        photo = hills.photo(col=col, row=row)
        unknown = dataclasses.replace(photo, telemetry=photo.telemetry.without("heading_deg"))
        for query in (photo, unknown):
            a, b = (r.retrieve(query, 5).candidates for r in (retriever, approximate))
            assert a[0].id == b[0].id
            assert a[0].score == pytest.approx(b[0].score, abs=2e-3)
            assert a[0].pose == b[0].pose
            assert len(b) == 5
    assert not approximate._loaded  # it did not fall back on the exact index
    assert retriever._loaded


def test_levels_and_areas(hills: Scene, tmp_path: Path) -> None:
    other = scene(tmp_path, lon=35.4, lat=32.2, seed=9)
    gallery = scene_gallery([hills, other], tmp_path / "g", tile_m=(96.0, 192.0))
    retriever = descriptor(gallery, scene_encoder())
    areas = set()
    for place in (hills, other):
        for width_m, level in ((130, 0), (260, 1)):
            photo = place.photo(col=240, row=240, width_m=width_m)
            found = retriever.retrieve(photo, 4).candidates
            assert {c.level for c in found} == {level}
            assert min(error_m(c, place.point(col=240, row=240)) for c in found[:3]) < 30
            areas.add(found[0].area)
    assert areas == {0, 1}


def test_a_time_budget_ends_between_batches(
    hills: Scene, gallery: Gallery, retriever: DescriptorRetriever
) -> None:
    photo = dataclasses.replace(hills.photo(col=240, row=240), telemetry=Telemetry())
    seconds = itertools.count()

    def within(budget_s: float) -> Retrieval:
        made = DescriptorRetriever(
            gallery, scene_encoder(), SearchSpace(),
            time_budget_s=budget_s, clock=lambda: float(next(seconds)),
        )  # fmt: skip
        return made.retrieve(photo, 5)

    free, infinite = retriever.retrieve(photo, 5), within(math.inf)
    assert (free.candidates, free.searched) == (infinite.candidates, infinite.searched)
    assert (free.poses_tried, free.poses_planned, free.cut) == (192, 192, False)
    least, some = within(0.1), within(4.0)
    assert (least.poses_tried, least.cut) == (descriptor_module.BATCH, True)
    assert descriptor_module.BATCH < some.poses_tried < 192
    assert f"{some.poses_tried} of 192 poses" in some.searched
    assert least.candidates
