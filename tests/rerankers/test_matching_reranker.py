"""Re-ranking by SIFT and RANSAC: on pictures of the town's own map, where it must work."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from map_helpers import write_tif
from scene_helpers import candidate
from skylink.errors import GalleryError, RerankError
from skylink.gallery import Gallery
from skylink.reranker import Fusion, rerank
from skylink.rerankers.matching import MatchingReranker
from skylink.types import CameraPose, Candidate, Query, Telemetry

SPOTS = [(-60.0, 70.0), (110.0, 90.0), (20.0, -100.0), (-120.0, -110.0)]


def picture_query(gallery: Gallery, x_m: float, y_m: float, heading_deg: float = 0.0) -> Query:
    """The stored map as a drone would see it from above: 160 m wide, darker, another contrast."""
    image, valid = gallery.picture(
        area=0, level=0, x_m=x_m, y_m=y_m, size_px=320, gsd_m=0.5, heading_deg=heading_deg
    )
    assert valid.all()
    darker = (image.astype(float) * 0.7 + 15).astype(np.uint8)
    return Query(name="piece", image=darker, telemetry=Telemetry())


def at(x_m: float, y_m: float, heading_deg: float = 0.0) -> Candidate:
    pose = CameraPose(altitude_m=80, heading_deg=heading_deg, tilt_deg=0, hfov_deg=90)
    return candidate(east_m=x_m, north_m=y_m, pose=pose)


@pytest.fixture(scope="module")
def reranker(town_gallery: Gallery) -> MatchingReranker:
    return MatchingReranker(town_gallery, 224)


@pytest.mark.parametrize("heading_deg", [0.0, 60.0])
def test_the_right_place_has_the_inliers(
    reranker: MatchingReranker, town_gallery: Gallery, heading_deg: float
) -> None:
    for right, spot in enumerate(SPOTS[:2]):
        query = picture_query(town_gallery, *spot, heading_deg)
        scores = reranker.score(query, [at(*s, heading_deg) for s in SPOTS])
        assert scores.shape == (len(SPOTS),)
        assert scores.dtype == np.float32
        assert int(scores.argmax()) == right
        assert scores[right] > 40
        assert np.delete(scores, right).max() < scores[right] / 4


def test_the_same_twice_and_alone(reranker: MatchingReranker, town_gallery: Gallery) -> None:
    query = picture_query(town_gallery, *SPOTS[0])
    candidates = [at(*s) for s in SPOTS]
    scores = reranker.score(query, candidates)
    assert np.array_equal(scores, reranker.score(query, candidates))
    alone = [float(reranker.score(query, [c])[0]) for c in candidates]
    assert scores.tolist() == alone


def test_it_reranks(reranker: MatchingReranker, town_gallery: Gallery) -> None:
    query = picture_query(town_gallery, *SPOTS[3])
    base = [dataclasses.replace(at(*s), score=1 - i / 10) for i, s in enumerate(SPOTS)]
    result = rerank(reranker, query, base, Fusion())
    assert result.reranked
    assert result.candidates[0].x_m == SPOTS[3][0]


def test_nothing_to_match_scores_zero(reranker: MatchingReranker) -> None:
    grey = Query(name="grey", image=np.full((320, 320, 3), 90, np.uint8))
    assert reranker.score(grey, [at(*s) for s in SPOTS]).tolist() == [0.0] * len(SPOTS)


def test_beyond_the_map_scores_zero(reranker: MatchingReranker, town_gallery: Gallery) -> None:
    query = picture_query(town_gallery, *SPOTS[0])
    assert reranker.score(query, [at(5000.0, 0.0)]).tolist() == [0.0]


def test_a_candidate_without_a_pose(reranker: MatchingReranker, town_gallery: Gallery) -> None:
    query = picture_query(town_gallery, *SPOTS[0])
    with pytest.raises(RerankError, match="no camera pose"):
        reranker.score(query, [dataclasses.replace(at(0, 0), pose=None)])


def test_a_gallery_without_imagery(tmp_path: Path) -> None:
    """A clear failure of the re-ranking, with what to do, not of the photo."""
    from map_helpers import FakeEncoder, texture

    path = write_tif(tmp_path / "m.tif", texture(200, 200))
    encoder = FakeEncoder(input_px=96)
    bare = Gallery.build(
        [path], tmp_path / "g", tile_m=(96.0,), encoder=encoder, store_imagery=False
    )
    query = Query(name="q", image=texture(96, 96))
    matching = MatchingReranker(bare, 96)
    with pytest.raises(GalleryError, match="without imagery"):
        matching.score(query, [at(0, 0)])
    result = rerank(matching, query, [at(0, 0), at(10, 0)], Fusion())
    assert result.failed
    assert "without imagery" in result.note
    shutil.rmtree(tmp_path / "g")
