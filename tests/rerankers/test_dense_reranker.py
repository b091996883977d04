"""Re-ranking by dense correlation, candidate by candidate."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from scene_helpers import (
    Scene,
    candidate,
    dense,
    descriptor,
    error_m,
    scene,
    scene_encoder,
    scene_gallery,
)
from skylink.errors import RerankError
from skylink.gallery import Gallery
from skylink.reranker import Fusion, rerank
from skylink.rerankers.dense import DenseReranker
from skylink.types import CameraPose, Candidate, Query


@pytest.fixture(scope="module")
def hills(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("hills"))


@pytest.fixture(scope="module")
def gallery(hills: Scene, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return scene_gallery([hills], tmp_path_factory.mktemp("gallery") / "g")


@pytest.fixture(scope="module")
def reranker(gallery: Gallery) -> DenseReranker:
    return DenseReranker(gallery, scene_encoder())


def pose_of(query: Query) -> CameraPose:
    t = query.telemetry
    assert t.relative_altitude_m
    assert t.horizontal_fov_deg
    return CameraPose(
        altitude_m=t.relative_altitude_m, heading_deg=t.heading_deg or 0.0,
        tilt_deg=t.camera_tilt_from_nadir_deg or 0.0, hfov_deg=t.horizontal_fov_deg,
    )  # fmt: skip


def place(query: Query, col: float, row: float, name: str = "pose-0") -> Candidate:
    return candidate(east_m=col - 240, north_m=240 - row, name=name, pose=pose_of(query))


def test_the_right_place_wins(reranker: DenseReranker, hills: Scene) -> None:
    query = hills.photo(col=200, row=300, heading_deg=30.0)
    spots = [(90, 90), (380, 380), (200, 300), (390, 120), (100, 380)]
    scores = reranker.score(query, [place(query, *spot) for spot in spots])
    assert scores.shape == (5,)
    assert scores.dtype == np.float32
    assert int(scores.argmax()) == 2
    assert scores[2] > 0.8
    assert np.delete(scores, 2).max() < scores[2] - 0.15


def test_shifts_within_half_a_stride_are_searched(
    reranker: DenseReranker, gallery: Gallery, hills: Scene
) -> None:
    query = hills.photo(col=200, row=300)
    reach = gallery.levels[0].stride_m / 2
    at = [place(query, 200 + dx, 300 + dy) for dx, dy in ((0, 0), (reach, -reach), (80, 80))]
    exact, near, far = reranker.score(query, at)
    assert near == pytest.approx(exact, abs=1e-5)
    assert far < exact - 0.1


def test_it_agrees_with_dense_search(
    reranker: DenseReranker, gallery: Gallery, hills: Scene
) -> None:
    """The score of a place is the whole-map search's score there, within the shifts."""
    query = hills.photo(col=131, row=307)
    retrieval = dense(gallery, scene_encoder()).retrieve(query, 8)
    scores = reranker.score(query, retrieval.candidates)
    base = np.array([c.score for c in retrieval.candidates])
    assert scores[0] == pytest.approx(base[0], abs=0.02)
    assert (scores >= base - 0.02).all()


@pytest.mark.parametrize(("col", "row"), [(30, 240), (450, 240), (240, 30), (240, 450), (25, 455)])
def test_places_at_the_rim_of_the_map(
    reranker: DenseReranker, gallery: Gallery, hills: Scene, col: int, row: int
) -> None:
    """Half of the view lies beyond the map, where nothing matches; the rest still does."""
    query = hills.photo(col=col, row=row)
    retrieval = dense(gallery, scene_encoder()).retrieve(query, 1)
    best = retrieval.candidates[0]
    assert error_m(best, hills.point(col=col, row=row)) < 16
    assert reranker.score(query, [best])[0] == pytest.approx(best.score, abs=0.02)


def test_it_mends_a_ranking_of_tiles(
    reranker: DenseReranker, gallery: Gallery, hills: Scene
) -> None:
    query = hills.photo(col=200, row=300)
    found = descriptor(gallery, scene_encoder()).retrieve(query, 20).candidates
    truth = hills.point(col=200, row=300)
    backwards = [dataclasses.replace(c, score=-c.score) for c in reversed(found)]
    assert error_m(backwards[0], truth) > 40
    result = rerank(reranker, query, backwards, Fusion())
    assert result.reranked
    assert error_m(result.candidates[0], truth) < 40


def test_candidates_that_cannot_be_scored(reranker: DenseReranker, hills: Scene) -> None:
    query = hills.photo(col=200, row=300)
    with pytest.raises(RerankError, match="no camera pose"):
        reranker.score(query, [dataclasses.replace(place(query, 200, 300), pose=None)])
    with pytest.raises(RerankError, match="no features"):
        reranker.score(query, [place(query, 5000, 300)])
