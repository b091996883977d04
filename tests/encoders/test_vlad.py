from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder_helpers import scenes
from skylink.encoder import Encoder, load_encoder
from skylink.encoders.vlad import SIFT_SIZE, WORDS, learn_words, root_sift, vlad
from skylink.errors import ModelError
from skylink.town import DRONE, Town, render_map


@pytest.fixture(scope="module")
def towns() -> tuple[np.ndarray, np.ndarray]:
    """Six tiles of a town, as the map shows them and in another light and season."""
    town = Town.generate(seed=5, size_m=420.0, cell_m=1.0)
    looks = (render_map(town, gsd_m=0.5), render_map(town, DRONE, gsd_m=0.5))
    spots = [(top, left) for top in (0, 256, 512) for left in (0, 512)]
    return tuple(
        np.stack([look[top : top + 256, left : left + 256] for top, left in spots])
        for look in looks
    )  # type: ignore[return-value]


def test_places_are_found_again(towns: tuple[np.ndarray, np.ndarray]) -> None:
    encoder = load_encoder("vlad")
    assert isinstance(encoder, Encoder)
    there, here = (encoder.encode(np.ascontiguousarray(side)) for side in towns)
    assert there.shape == (6, WORDS * SIFT_SIZE)
    assert there.dtype == np.float32
    assert np.allclose(np.linalg.norm(there, axis=1), 1, atol=1e-5)
    assert ((here @ there.T).argmax(axis=1) == np.arange(6)).mean() >= 5 / 6


def test_heading_does_not_matter(towns: tuple[np.ndarray, np.ndarray]) -> None:
    encoder = load_encoder("vlad")
    tiles = np.ascontiguousarray(towns[0])
    upright = encoder.encode(tiles)
    turned = encoder.encode(np.ascontiguousarray(np.rot90(tiles, axes=(1, 2))))
    assert ((turned @ upright.T).argmax(axis=1) == np.arange(6)).all()


def test_company_and_masks() -> None:
    encoder = load_encoder("vlad")
    images = scenes(3, 256)
    together = encoder.encode(images)
    assert np.array_equal(encoder.encode(images[1:2]), together[1:2])
    masks = np.ones((3, 256, 256), bool)
    assert np.array_equal(encoder.encode(images, masks), together)
    masks[:, :, 128:] = False
    assert np.abs(encoder.encode(images, masks) - together).max() > 1e-3


def test_pictures_without_anything_on_them() -> None:
    encoder = load_encoder("vlad")
    blank = encoder.encode(np.full((1, 256, 256, 3), 90, np.uint8))
    assert np.allclose(blank, 1 / np.sqrt(WORDS * SIFT_SIZE))
    nothing = encoder.encode(scenes(1, 256), np.zeros((1, 256, 256), bool))
    assert np.array_equal(nothing, blank)


def test_wrong_images() -> None:
    encoder = load_encoder("vlad")
    with pytest.raises(ModelError, match="256 x 256"):
        encoder.encode(scenes(1, 128))
    with pytest.raises(ModelError, match="no images"):
        encoder.encode(np.zeros((0, 256, 256, 3), np.uint8))
    with pytest.raises(ModelError, match="no feature map"):
        encoder.feature_map(scenes(1, 256))


def test_root_sift_is_the_root_of_shares() -> None:
    found = root_sift(scenes(1, 256)[0])
    assert len(found) > 10
    assert np.allclose((found**2).sum(axis=1), 1, atol=1e-4)
    assert root_sift(np.zeros((64, 64, 3), np.uint8)).shape == (0, SIFT_SIZE)


def test_vlad_by_hand() -> None:
    words = np.zeros((2, SIFT_SIZE), np.float32)
    words[1, 0] = 10
    one, two, far = (np.zeros(SIFT_SIZE, np.float32) for _ in range(3))
    one[1], two[2], far[0] = 3, 4, 12
    pooled = vlad(np.stack([one, two, far]), words).reshape(2, SIFT_SIZE)
    assert pooled[0, :3] == pytest.approx([0, 0.6, 0.8])
    assert pooled[1, :3] == pytest.approx([1, 0, 0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 30), st.integers(0, 2**16))
def test_the_order_of_keypoints_does_not_matter(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = rng.random((4, SIFT_SIZE), np.float32)
    found = rng.random((count, SIFT_SIZE), np.float32)
    pooled = vlad(found, words)
    assert np.isfinite(pooled).all()
    assert pooled.any()
    assert np.allclose(vlad(found[::-1], words), pooled, atol=1e-4)


@pytest.mark.slow
def test_words_can_be_learnt_again() -> None:
    words = learn_words(seeds=(101,))
    assert words.shape == (WORDS, SIFT_SIZE)
    assert np.isfinite(words).all()
    assert len(np.unique(words.round(3), axis=0)) == WORDS
    assert (np.linalg.norm(words, axis=1) < 1).all()  # means of unit vectors
