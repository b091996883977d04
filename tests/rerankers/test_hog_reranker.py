"""Re-ranking by oriented gradients: on pictures of the town's own map, and by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from map_helpers import texture
from scene_helpers import candidate
from skylink.encoder import load_encoder
from skylink.errors import RerankError
from skylink.gallery import Gallery
from skylink.reranker import Fusion, make_reranker, rerank
from skylink.rerankers.hog import BINS, CELL_PX, HogReranker, best_cosine, hog_cells
from skylink.types import CameraPose, Candidate, Query

SPOTS = [(-60.0, 70.0), (110.0, 90.0), (20.0, -100.0), (-120.0, -110.0)]


def picture_query(gallery: Gallery, x_m: float, y_m: float, heading_deg: float = 0.0) -> Query:
    """The stored map as a drone would see it from above: 160 m wide, darker, another contrast."""
    image, valid = gallery.picture(
        area=0, level=0, x_m=x_m, y_m=y_m, size_px=320, gsd_m=0.5, heading_deg=heading_deg
    )
    assert valid.all()
    return Query(name="piece", image=(image.astype(float) * 0.7 + 15).astype(np.uint8))


def at(x_m: float, y_m: float, heading_deg: float = 0.0) -> Candidate:
    pose = CameraPose(altitude_m=80, heading_deg=heading_deg, tilt_deg=0, hfov_deg=90)
    return candidate(east_m=x_m, north_m=y_m, pose=pose)


@pytest.fixture(scope="module")
def reranker(town_gallery: Gallery) -> HogReranker:
    made = make_reranker("hog", town_gallery, load_encoder("embedded"))
    assert isinstance(made, HogReranker)
    return made


@pytest.mark.parametrize("heading_deg", [0.0, 60.0])
def test_the_right_place_wins(
    reranker: HogReranker, town_gallery: Gallery, heading_deg: float
) -> None:
    for right, spot in enumerate(SPOTS[:2]):
        query = picture_query(town_gallery, *spot, heading_deg)
        candidates = [at(*s, heading_deg) for s in SPOTS]
        scores = reranker.score(query, candidates)
        assert scores.shape == (len(SPOTS),)
        assert scores.dtype == np.float32
        assert int(scores.argmax()) == right
        assert scores[right] > 0.5
        assert np.delete(scores, right).max() < 0.3
        alone = [float(reranker.score(query, [c])[0]) for c in candidates]
        assert scores.tolist() == pytest.approx(alone, abs=1e-6)  # sums depend on where arrays lie


def test_shifts_within_half_a_stride_are_searched(
    reranker: HogReranker, town_gallery: Gallery
) -> None:
    query = picture_query(town_gallery, *SPOTS[0])
    x, y = SPOTS[0]
    stride = town_gallery.levels[0].stride_m
    exact, near, far = reranker.score(query, [at(x, y), at(x + stride / 2, y), at(x + 90, y)])
    assert near > 0.6 * exact  # half a stride is 3.5 cells here
    assert far < 0.4 * exact


def test_it_reranks(reranker: HogReranker, town_gallery: Gallery) -> None:
    query = picture_query(town_gallery, *SPOTS[3])
    base = [dataclasses.replace(at(*s), score=1 - i / 10) for i, s in enumerate(SPOTS)]
    result = rerank(reranker, query, base, Fusion())
    assert result.reranked
    assert result.candidates[0].x_m == SPOTS[3][0]


def test_nothing_to_compare_scores_zero(reranker: HogReranker, town_gallery: Gallery) -> None:
    grey = Query(name="grey", image=np.full((320, 320, 3), 90, np.uint8))
    assert reranker.score(grey, [at(*s) for s in SPOTS]).tolist() == [0.0] * len(SPOTS)
    query = picture_query(town_gallery, *SPOTS[0])
    assert reranker.score(query, [at(5000.0, 0.0)]).tolist() == [0.0]


def test_a_candidate_without_a_pose(reranker: HogReranker, town_gallery: Gallery) -> None:
    query = picture_query(town_gallery, *SPOTS[0])
    with pytest.raises(RerankError, match="no camera pose"):
        reranker.score(query, [dataclasses.replace(at(0, 0), pose=None)])


def test_edges_fall_into_the_bin_of_their_direction() -> None:
    """Brightness that rises along a direction has all its gradients in one bin, either way."""
    size = 4 * CELL_PX
    v, u = np.mgrid[0:size, 0:size].astype(float)
    for bin_ in range(BINS):
        angle = np.pi * bin_ / BINS
        for sign in (1, -1):
            ramp = 120 + sign * 2 * (
                np.cos(angle) * (u - size / 2) + np.sin(angle) * (v - size / 2)
            )
            image = np.repeat(ramp.round().astype(np.uint8)[..., None], 3, axis=2)
            cells, valid = hog_cells(image, np.ones((size, size), bool))
            assert valid.all()
            assert (cells[1:-1, 1:-1].argmax(axis=2) == bin_).all()


@settings(max_examples=20, deadline=None)
@given(row=st.integers(0, 4), column=st.integers(0, 4), seed=st.integers(0, 99))
def test_a_piece_of_the_map_is_found_at_any_shift(row: int, column: int, seed: int) -> None:
    """Cosine 1 at the true shift; only the rim's cells differ, whose blocks end there."""
    noise = np.random.default_rng(seed).integers(0, 255, (14, 14, 3), dtype=np.uint8)
    whole = np.kron(noise, np.ones((CELL_PX, CELL_PX, 1), np.uint8))[: 12 * CELL_PX, : 12 * CELL_PX]
    cells, known = hog_cells(whole, np.ones(whole.shape[:2], bool))
    view = cells[row : row + 8, column : column + 8], known[row : row + 8, column : column + 8]
    assert best_cosine(view, (cells, known)) == pytest.approx(1.0, abs=1e-5)


def test_cells_that_are_not_valid_say_nothing() -> None:
    image, whole = texture(96, 96), np.ones((96, 96), bool)
    half = whole.copy()
    half[:, 48:] = False
    cells, known = hog_cells(image, half)
    assert not cells[:, 6:].any()
    assert known[..., 0].sum() == 12 * 6
    changed = image.copy()
    changed[:, 48:] = 0
    assert np.allclose(hog_cells(changed, half)[0], cells, atol=1e-6)
    view = hog_cells(image, whole)
    assert best_cosine((cells, known), view) == pytest.approx(np.sqrt(0.5), abs=0.05)
