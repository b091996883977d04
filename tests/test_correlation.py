"""Correlation: the FFT form and the windowed form against the plain one, and the plain by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skylink.correlation import BLOCK, SpectralMap, correlate_direct, correlate_window

Floats = NDArray[np.float32]


def noise(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cut(features: Floats, row: int, column: int, k: int) -> Floats:
    """The k x k cells whose correlation peak is surface index (row, column); zero outside."""
    pad = k // 2
    padded = np.pad(features, ((pad, pad), (pad, pad), (0, 0)))
    return padded[row : row + k, column : column + k]


def test_the_plain_form_by_hand() -> None:
    features = np.array([[1, 2], [3, 4]], np.float32)[..., None]
    even = np.array([[1, 10], [100, 1000]], np.float32)[None, ..., None]
    assert correlate_direct(features, even)[0].tolist() == [
        [1000, 2100, 200],
        [3010, 4321, 402],
        [30, 43, 4],
    ]
    odd = np.zeros((1, 3, 3, 1), np.float32)
    odd[0, 1, 1], odd[0, 1, 2] = 1, 10  # the cell itself and its right neighbour
    assert correlate_direct(features, odd)[0].tolist() == [[21, 2], [43, 4]]


@pytest.mark.parametrize("k", [1, 2, 5, 6, 13, 14, 33])
@pytest.mark.parametrize("shape", [(20, 33), (64, 64), (51, 102), (70, 131), (5, 7)])
def test_spectra_give_what_the_plain_form_gives(shape: tuple[int, int], k: int) -> None:
    features = noise(*shape, 4)
    features[: shape[0] // 3, : shape[1] // 2] = 0  # where the map is not valid
    kernels = noise(3, k, k, 4, seed=1)
    kernels[1, : k // 2] = 0
    plain = correlate_direct(features, kernels)
    assert plain.shape == (3, shape[0] + 1 - k % 2, shape[1] + 1 - k % 2)
    assert np.abs(plain).max() > 1
    spectral = SpectralMap(features, k)
    quick = spectral.correlate(kernels)
    assert spectral.shape == plain.shape[1:] == quick.shape[1:]
    assert quick.dtype == np.float32
    np.testing.assert_allclose(quick, plain, rtol=1e-4, atol=1e-4 * float(plain.std()))
    alone = np.concatenate([spectral.correlate(kernels[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(quick, alone, atol=1e-5 * float(plain.std()))


def test_half_precision_features_are_read_as_they_are() -> None:
    features = noise(30, 30, 3).astype(np.float16)
    kernels = noise(1, 6, 6, 3, seed=1)
    np.testing.assert_allclose(
        SpectralMap(features, 6).correlate(kernels),
        correlate_direct(features.astype(np.float32), kernels),
        atol=1e-3,
    )


def test_several_blocks_are_in_play() -> None:
    """The shapes above only mean something if they need a grid of blocks, with a rest."""
    spectral = SpectralMap(noise(70, 131, 4), 14)
    assert spectral.step == BLOCK - 13
    assert spectral.nbytes == 64 * 33 * 4 * 2 * 3 * 8
    assert spectral.shape[1] % spectral.step


@pytest.mark.parametrize("k", [1, 4, 5])
def test_a_window_is_the_valid_part_of_the_plain_form(k: int) -> None:
    features, kernel = noise(11, 13, 6), noise(1, k, k, 6, seed=1)
    window = correlate_window(features, kernel[0])
    plain = correlate_direct(features, kernel)[0]
    pad = k // 2
    inner = plain[pad : pad + 12 - k, pad : pad + 14 - k]
    assert window.shape == (12 - k, 14 - k) == inner.shape
    np.testing.assert_allclose(window, inner, rtol=1e-4, atol=1e-4)


def test_a_window_of_one_place() -> None:
    kernel = noise(4, 4, 3)
    assert correlate_window(kernel, kernel)[0, 0] == pytest.approx((kernel**2).sum(), rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), k=st.integers(4, 15), seed=st.integers(0, 1000))
def test_a_planted_kernel_peaks_at_its_place(data: st.DataObject, k: int, seed: int) -> None:
    rows, columns = data.draw(st.integers(k, 90)), data.draw(st.integers(k, 90))
    features = noise(rows, columns, 8, seed=seed)
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    pad = k // 2  # wholly on the map: index of its centre
    place = (
        data.draw(st.integers(pad, rows - k + pad)),
        data.draw(st.integers(pad, columns - k + pad)),
    )
    planted = cut(features, *place, k)
    others = noise(2, k, k, 8, seed=seed + 1)
    scores = SpectralMap(features, k).correlate(np.stack([others[0], planted, others[1]]))[1]
    assert np.unravel_index(int(scores.argmax()), scores.shape) == place
    assert scores.max() == pytest.approx(k * k, rel=1e-4)


def test_kernels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="kernels of 5 cells"):
        SpectralMap(noise(20, 20, 2), 6).correlate(noise(1, 5, 5, 2))
    with pytest.raises(ValueError, match="64"):
        SpectralMap(noise(20, 20, 2), BLOCK + 1)
