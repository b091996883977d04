"""The map made ready for dense search: places, scores, and the coarse pass against the full one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from map_helpers import FakeEncoder, texture
from skylink import densemap
from skylink.correlation import SpectralMap, correlate_direct
from skylink.densemap import COARSE_CHANNELS, DenseMap, Normaliser, make_kernels, subcell
from skylink.gallery_data import FeatureRaster, LevelStatistics
from skylink.moments import Moments
from skylink.retrievers.peaks import PEAKS, find_peaks, separate
from skylink.types import CameraPose, View

Floats = NDArray[np.float32]
CELL_M, CHANNELS = 10.0, 48
POSE = CameraPose(altitude_m=100, heading_deg=0, tilt_deg=0, hfov_deg=60)


def smooth_features(rows: int, columns: int, seed: int = 0) -> Floats:
    """(rows, columns, CHANNELS): every channel a smooth field, some alike, as networks' are."""
    fields = np.concatenate(
        [texture(rows * 2, columns * 2, seed + i)[::2, ::2] for i in range(CHANNELS // 3)], axis=2
    ).astype(np.float32)
    mix = np.random.default_rng(seed).normal(size=(CHANNELS, CHANNELS)) * 0.8 ** np.arange(CHANNELS)
    return np.asarray(fields @ mix.T / 10 + 3, np.float32)


def raster(values: Floats, valid: NDArray[np.bool_] | None = None) -> FeatureRaster:
    if valid is None:
        valid = np.ones(values.shape[:2], bool)
    return FeatureRaster(
        values=np.where(valid[..., None], values, 0).astype(np.float16), valid=valid,
        x0_m=-395.0, y0_m=295.0, cell_m=CELL_M,
    )  # fmt: skip


def normaliser_of(values: Floats) -> Normaliser:
    moments = Moments(values.shape[-1], full=True)
    moments.add(values.reshape(-1, values.shape[-1]))
    return Normaliser(
        cast(
            LevelStatistics,  # of which it reads these two
            SimpleNamespace(feature_mean=moments.mean, feature_covariance=moments.covariance),
        )
    )


@pytest.fixture(scope="module")
def values() -> Floats:
    return smooth_features(60, 80)


def own_kernel(made: DenseMap, values: Floats, row: int, column: int) -> Floats:
    """The map's own cells around a surface index, as a query kernel."""
    k, pad = made.kernel, made.kernel // 2
    part = values[row - pad : row - pad + k, column - pad : column - pad + k]
    unit = made._normaliser.unit(part, np.ones(part.shape[:2], bool))
    return np.asarray(unit / k**2, np.float32)


# places


@given(
    row=st.floats(-5, 100), column=st.floats(-5, 100), kernel=st.integers(4, 15)
)  # fmt: skip
def test_position_and_index_are_inverse(row: float, column: float, kernel: int) -> None:
    made = DenseMap(raster(np.ones((20, 20, 3), np.float32)), normaliser_of(
        np.random.default_rng(0).normal(size=(9, 9, 3)).astype(np.float32)), kernel)  # fmt: skip
    assert made.index(*made.position(row, column)) == pytest.approx((row, column), abs=1e-9)


@pytest.mark.parametrize(("kernel", "first"), [(6, (-400.0, 300.0)), (7, (-395.0, 295.0))])
def test_even_kernels_are_centred_on_corners_odd_ones_on_cells(
    values: Floats, kernel: int, first: tuple[float, float]
) -> None:
    made = DenseMap(raster(values), normaliser_of(values), kernel)
    assert made.position(0, 0) == first
    assert made.shape == (60 + (kernel % 2 == 0), 80 + (kernel % 2 == 0))
    last = made.position(made.shape[0] - 1, made.shape[1] - 1)
    assert last == (-first[0], -first[1])
    assert made.everywhere(np.zeros((1, kernel, kernel, CHANNELS), np.float32)).shape == (
        1,
        *made.shape,
    )


@pytest.mark.parametrize("kernel", [10, 11])
@pytest.mark.parametrize("place", [(5, 5), (30, 41), (54, 74), (40, 20)])
def test_a_view_of_the_map_peaks_at_its_own_place(
    values: Floats, kernel: int, place: tuple[int, int]
) -> None:
    made = DenseMap(raster(values), normaliser_of(values), kernel)
    assert made.all_channels
    view = own_kernel(made, values, *place)
    scores = made.everywhere(view[None])[0]
    assert np.unravel_index(int(scores.argmax()), scores.shape) == place
    assert scores.max() == pytest.approx(1, abs=5e-3)  # a mean cosine; the map is float16
    around = made.around(view, *place)
    row, column, score = subcell(around)
    assert score == pytest.approx(1, abs=5e-3)
    inland = min(place[0], 60 - place[0], place[1], 80 - place[1]) >= kernel
    assert (row, column) == pytest.approx((2, 2), abs=0.1 if inland else 0.5)  # rims fall unevenly
    inside = scores[place[0] - 2 : place[0] + 3, place[1] - 2 : place[1] + 3]
    np.testing.assert_allclose(around, inside, atol=1e-4)


def test_around_reaches_over_the_rim(values: Floats) -> None:
    made = DenseMap(raster(values), normaliser_of(values), 10)
    view = own_kernel(made, values, 5, 5)
    scores = made.everywhere(view[None])[0]
    np.testing.assert_allclose(made.around(view, 0, 0)[2:, 2:], scores[:3, :3], atol=1e-4)
    rows, columns = made.shape
    np.testing.assert_allclose(
        made.around(view, rows - 1, columns - 1)[:3, :3], scores[-3:, -3:], atol=1e-4
    )


@pytest.mark.parametrize("place", [(0, 0), (3, 79), (60, 80), (30, 40), (-4, 20)])
def test_a_wider_reach_is_the_surface_with_nothing_beyond_the_map(
    values: Floats, place: tuple[int, int]
) -> None:
    normaliser = normaliser_of(values)
    made = DenseMap(raster(values), normaliser, 10)
    view = own_kernel(made, values, 5, 5)
    wide = made.around(view, *place, reach=15)
    assert wide.shape == (31, 31)
    unit = normaliser.unit(values, np.ones(values.shape[:2], bool))
    whole = correlate_direct(np.pad(unit, ((20, 20), (20, 20), (0, 0))), view[None])[0]
    row, column = place[0] + 20, place[1] + 20
    np.testing.assert_allclose(
        wide, whole[row - 15 : row + 16, column - 15 : column + 16], atol=2e-3
    )


def test_a_view_between_cells_is_placed_between_them(values: Floats) -> None:
    """The map sampled half-way: the peak lies within a fifth of a cell of where it was cut."""
    fine = smooth_features(60, 80)
    made = DenseMap(raster(fine), normaliser_of(fine), 10)
    for shift in (0.25, 0.5):
        part = fine[25:35, 36:47]
        between = (1 - shift) * part[:, :-1] + shift * part[:, 1:]
        unit = made._normaliser.unit(between, np.ones((10, 10), bool)) / 100
        scores = made.everywhere(unit[None])[0]
        row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        r, c, _ = subcell(made.around(unit, int(row), int(column)))
        assert row + r - 2 == pytest.approx(30, abs=0.2)
        assert column + c - 2 == pytest.approx(41 + shift, abs=0.2)


@given(
    row=st.floats(1, 3), column=st.floats(1, 3), width=st.floats(0.5, 5), height=st.floats(0.01, 10)
)
def test_subcell_of_a_parabola_is_exact(
    row: float, column: float, width: float, height: float
) -> None:
    r, c = np.mgrid[0:5, 0:5]
    window = height - ((r - row) ** 2 + (c - column) ** 2) / width
    found = subcell(window.astype(np.float32))
    assert found[:2] == pytest.approx((row, column), abs=0.02)


def test_subcell_on_the_rim_and_on_a_plain() -> None:
    ramp = np.arange(25, dtype=np.float32).reshape(5, 5)
    assert subcell(ramp) == (4, 4, 24)
    assert subcell(np.ones((5, 5), np.float32)) == (0, 0, 1)


# coarse and full


def test_the_coarse_pass_finds_the_same_place(
    values: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views of the map with noise: what 32 of 48 channels propose and all of them score again."""
    rng = np.random.default_rng(5)
    normaliser = normaliser_of(values)
    full = DenseMap(raster(values), normaliser, 8)
    monkeypatch.setattr(densemap, "FULL_SPECTRA_BYTES", 0)
    coarse = DenseMap(raster(values), normaliser, 8)
    assert full.all_channels
    assert not coarse.all_channels
    for _ in range(6):
        row, column = int(rng.integers(4, 56)), int(rng.integers(4, 76))
        view = own_kernel(full, values, row, column)
        view = view + rng.normal(0, 1.0 * np.abs(view).mean(), view.shape).astype(np.float32)
        view[:2] = 0  # not valid
        view *= (1 / np.sqrt(48 * 64)) / np.maximum(
            np.linalg.norm(view, axis=-1, keepdims=True), 1e-9
        )
        tops = []
        for made in (full, coarse):
            best = made.everywhere(view[None])[0]
            peaks = find_peaks(
                made, 0, best, np.zeros(best.shape, np.int32), view[None], [POSE],
                separation_m=40.0, k=10, exact=made.all_channels,
            )  # fmt: skip
            assert len(peaks) <= PEAKS
            tops.append(separate(peaks, separation_m=40.0)[0])
        a, b = tops
        assert (a.row, a.column) == pytest.approx((row, column), abs=0.5)
        assert (b.row, b.column, b.score) == pytest.approx((a.row, a.column, a.score), abs=1e-4)
    approximate = coarse.everywhere(view[None])[0]
    exact = full.everywhere(view[None])[0]
    np.testing.assert_array_equal(full.everywhere(view[None], coarse=True)[0], approximate)
    assert np.abs(approximate - exact).max() > 1e-3  # or the coarse pass was not coarse
    assert np.corrcoef(approximate.ravel(), exact.ravel())[0, 1] > 0.9
    assert approximate.max() == pytest.approx(exact.max(), rel=0.25)


def test_bytes_are_counted(values: Floats) -> None:
    made = DenseMap(raster(values), normaliser_of(values), 8)
    none = np.zeros((1, 8, 8, CHANNELS), np.float32)
    before = made.nbytes
    made.everywhere(none)
    fine = made.nbytes - before
    assert fine == SpectralMap(values, 8).nbytes
    made.prepare(coarse=True)
    coarse = made.nbytes - before - fine
    assert coarse == pytest.approx(fine * COARSE_CHANNELS / CHANNELS)
    made.everywhere(none, coarse=True)
    assert made.nbytes == before + fine + coarse


# validity


def test_unit_vectors_and_zero_where_not_valid(values: Floats) -> None:
    valid = np.ones((60, 80), bool)
    valid[10:20] = False
    unit = normaliser_of(values).unit(values, valid)
    assert np.linalg.norm(unit[valid], axis=-1) == pytest.approx(1, abs=1e-4)
    assert not unit[~valid].any()
    coarse = normaliser_of(values).coarse(unit)
    assert coarse.shape == (60, 80, COARSE_CHANNELS)
    assert np.linalg.norm(coarse[valid], axis=-1) == pytest.approx(1, abs=1e-4)
    assert not coarse[~valid].any()


def test_holes_in_the_map_score_nothing(values: Floats) -> None:
    valid = np.ones((60, 80), bool)
    valid[20:40, 20:40] = False
    made = DenseMap(raster(values, valid), normaliser_of(values), 6)
    plain = DenseMap(raster(values), normaliser_of(values), 6)
    view = own_kernel(made, values, 30, 30)
    assert plain.everywhere(view[None])[0, 30, 30] == pytest.approx(1, abs=5e-3)
    assert made.everywhere(view[None])[0, 30, 30] == pytest.approx(0, abs=1e-5)
    filled = np.where(valid[..., None], values, 1e4)
    assert np.array_equal(
        DenseMap(raster(filled, valid), normaliser_of(values), 6).everywhere(view[None]),
        made.everywhere(view[None]),
    )


def view_of(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> View:
    return View(image=np.where(mask[..., None], image, 0), mask=mask, gsd_m=1.0, pose=POSE)


def test_kernels_weigh_by_validity() -> None:
    """A half-valid view of the map scores sqrt(1/2): few cells agree by chance more easily."""
    encoder = FakeEncoder(input_px=96)
    image = texture(320, 480, 3)
    features = encoder.feature_map(image[None])[0]
    normaliser = normaliser_of(features)
    made = DenseMap(raster(features), normaliser, 6)
    whole = np.ones((96, 96), bool)
    half = whole.copy()
    half[:, 48:] = False
    few = np.zeros((96, 96), bool)
    few[:32, :80] = True  # 10 cells
    part = image[64:160, 128:224]
    kernels = make_kernels([view_of(part, m) for m in (whole, half, few)], encoder, normaliser)
    assert kernels.usable.tolist() == [True, True, False]
    assert kernels.values.shape == (3, 6, 6, 6)
    assert not kernels.values[1, :, 3:].any()
    assert kernels.values[1, :, :3] == pytest.approx(2**0.5 * kernels.values[0, :, :3], abs=1e-6)
    scores = made.everywhere(kernels.values)
    assert scores[:2, 7, 11] == pytest.approx([1, 0.5**0.5], abs=5e-3)
    plain = correlate_direct(normaliser.unit(features, np.ones((20, 30), bool)), kernels.values)
    np.testing.assert_allclose(scores, plain, atol=5e-3)


def test_what_is_masked_does_not_matter() -> None:
    encoder = FakeEncoder(input_px=96)
    image = texture(96, 96, 3)
    normaliser = normaliser_of(encoder.feature_map(texture(320, 480)[None])[0])
    mask = np.ones((96, 96), bool)
    mask[:, 40:] = False
    seen = [
        make_kernels([View(image=i, mask=mask, gsd_m=1.0, pose=POSE)], encoder, normaliser).values
        for i in (image, np.where(mask[..., None], image, 255 - image))
    ]
    assert np.array_equal(seen[0], seen[1])
    assert seen[0].any()


def test_a_view_with_nothing_valid_is_not_usable() -> None:
    encoder = FakeEncoder(input_px=96)
    normaliser = normaliser_of(encoder.feature_map(texture(320, 480)[None])[0])
    nothing = view_of(texture(96, 96), np.zeros((96, 96), bool))
    kernels = make_kernels([nothing], encoder, normaliser)
    assert not kernels.usable.any()
    assert not kernels.values.any()
