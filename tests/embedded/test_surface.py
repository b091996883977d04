"""The differentiable surface against a convolution and against what search does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skylink.correlation import correlate_direct
from skylink.densemap import DenseMap, Normaliser, weigh
from skylink.embedded.bank import Bank
from skylink.embedded.head import DenseHead, relational
from skylink.embedded.labels import place_overlap, relevance, square_overlap
from skylink.embedded.sampling import standardised
from skylink.embedded.surface import cell_statistics, plain_surfaces, surfaces
from skylink.footprints import iou
from skylink.gallery_data import FeatureRaster, LevelStatistics


@given(side=st.integers(4, 14), kernel=st.integers(2, 9), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_by_fft_or_convolution(side: int, kernel: int, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    maps = torch.randn(3, side, side, 5, generator=source)
    valid = (torch.rand(4, kernel, kernel, generator=source) < 0.7).float()
    views = torch.randn(4, kernel, kernel, 5, generator=source) * valid[..., None]
    fast, plain = surfaces(maps, views, valid), plain_surfaces(maps, views, valid)
    assert fast.shape == plain.shape == (4, 3, *[side + 1 - kernel % 2] * 2)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-4)


def test_gradients_agree() -> None:
    source = torch.Generator().manual_seed(0)
    valid = torch.ones(2, 4, 4)
    gradients = []
    for way in (surfaces, plain_surfaces):
        maps = torch.randn(2, 9, 9, 3, generator=source.manual_seed(1), requires_grad=True)
        views = torch.randn(2, 4, 4, 3, generator=source.manual_seed(2), requires_grad=True)
        way(maps, views, valid).square().sum().backward()
        gradients.append((maps.grad, views.grad))
    for fast, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-4)


def test_training_sees_what_search_sees(bank: Bank) -> None:
    """The trunk's features: surfaces equal those of `DenseMap`, by one map's own statistics."""
    rows = bank.rows([3])
    ground, ground_valid, seen, seen_valid = standardised(rows, [0, 1])
    head = DenseHead(hidden=16)
    torch.nn.init.normal_(head.outer.weight, std=0.1)  # type: ignore[union-attr]
    mean, deviation = cell_statistics(
        torch.from_numpy(rows.maps.astype(np.float32)), torch.from_numpy(rows.maps_valid)
    )
    statistics = cast(
        LevelStatistics,
        SimpleNamespace(
            feature_mean=mean.numpy(), feature_covariance=np.diag(deviation.numpy() ** 2)
        ),
    )
    for module in (None, head):
        project = None if module is None else _Projection(module)
        normaliser = Normaliser(statistics, project)
        raster = FeatureRaster(
            values=rows.maps[0], valid=rows.maps_valid[0] > 0, x0_m=0, y0_m=0, cell_m=1
        )
        made = DenseMap(raster, normaliser, 6)
        valid = rows.views_valid[0, :2] > 0
        kernels = normaliser.unit(rows.views[0, :2], valid) * weigh(valid.sum((1, 2)), 6)
        with torch.no_grad():
            cells, views = (
                relational(module, c, v) for c, v in ((ground, ground_valid), (seen, seen_valid))
            )
            scores = surfaces(cells, views, seen_valid)[:, 0].numpy()
        np.testing.assert_allclose(made.everywhere(kernels), scores, atol=2e-3)  # float16 map
        plain = correlate_direct(cells[0].numpy(), kernels)
        np.testing.assert_allclose(plain, scores, atol=1e-5)


class _Projection:
    cell_channels = 112
    unsure = fits_better = None

    def __init__(self, head: DenseHead) -> None:
        self.head = head

    def relational_cells(self, standardised, valid):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            cells = torch.from_numpy(standardised)
            return relational(self.head, cells, torch.from_numpy(valid).float()).numpy()


@given(r=st.floats(-3, 12), c=st.floats(-3, 12), row=st.floats(0, 10), column=st.floats(0, 10))
@settings(deadline=None)
def test_overlap_is_that_of_footprints(r: float, c: float, row: float, column: float) -> None:
    side = 4.0
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * side / 2
    there, here = (square[None] + np.array(at) for at in ((c, r), (column, row)))
    expected = iou(there, here)
    got = square_overlap(torch.tensor([[r, c]]), torch.tensor([[row, column]]), side)
    assert float(got) == pytest.approx(float(np.squeeze(expected)), abs=1e-5)


def test_the_surface_of_overlaps() -> None:
    places = torch.tensor([[2.25, 7.0], [0.0, 3.5]])
    grid = torch.stack(torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij"), -1)
    expected = square_overlap(places, grid.reshape(-1, 2), 6.0).reshape(2, 9, 9)
    torch.testing.assert_close(place_overlap(places, 9, 6.0), expected)


def test_labels() -> None:
    overlap = torch.tensor([[0.9, 0.5, 0.3, 0.0], [0.2, 0.1, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    soft = relevance(overlap, labels="overlap", threshold=0.4, power=2)
    assert soft[0].tolist() == pytest.approx([0.81, 0.25, 0, 0])
    assert soft[1].tolist() == pytest.approx([0.04, 0, 0, 0])  # its best, though below
    assert not soft[2].any()
    without = relevance(overlap, labels="overlap", threshold=0.0, power=1)
    assert torch.equal(without, overlap)
    hard = relevance(overlap, labels="hard", threshold=0.4, power=2)
    assert hard.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
