"""Tests of `skylink.contrastive`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from skylink.contrastive import info_nce
from skylink.errors import ModelError, OptionError


def batch(photos: int = 5, tiles: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines of random vectors, and partners: some tile is that of two photos."""
    source = torch.Generator().manual_seed(seed)
    a, b = (normalize(torch.randn(n, 6, generator=source).double()) for n in (photos, tiles))
    return a @ b.T, torch.randint(tiles, (photos,), generator=source)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_masks_and_further_tiles_it_is_clips_loss(smoothing: float) -> None:
    similarity, _ = batch(6, 6)
    partner = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    logits = 10 * similarity
    expected = (
        cross_entropy(logits, partner, label_smoothing=smoothing)
        + cross_entropy(logits[:, partner].T, torch.arange(6), label_smoothing=smoothing)
    ) / 2
    torch.testing.assert_close(
        info_nce(similarity, partner, scale=10.0, label_smoothing=smoothing), expected
    )


def test_hard_negatives_stand_in_the_first_direction_alone() -> None:
    similarity, _ = batch(2, 3)
    partner = torch.tensor([0, 1])
    s = 5 * similarity
    ways = [cross_entropy(s, partner), cross_entropy(s[:, :2].T, partner)]
    found = info_nce(similarity, partner, scale=5.0)
    torch.testing.assert_close(found, (ways[0] + ways[1]) / 2)


def test_what_shows_the_same_place_is_no_negative() -> None:
    similarity, partner = batch()
    same = torch.zeros_like(similarity, dtype=torch.bool)
    same[0, [t for t in range(8) if t != partner[0]][:3]] = True
    plain = info_nce(similarity, partner, same, label_smoothing=0.1)
    wild = similarity.masked_fill(same, 1e9)
    wild.requires_grad_()
    loss = info_nce(wild, partner, same, label_smoothing=0.1)
    torch.testing.assert_close(loss, plain)
    (gradient,) = torch.autograd.grad(loss, wild)
    assert (gradient[same] == 0).all()
    assert info_nce(similarity, partner) > info_nce(similarity, partner, same)


def test_marking_the_partner_as_the_same_place_changes_nothing() -> None:
    similarity, partner = batch()
    same = torch.zeros_like(similarity, dtype=torch.bool)
    same[torch.arange(5), partner] = True
    distinct = torch.tensor([0, 1, 2, 3, 4])
    marked = torch.zeros_like(same)
    marked[torch.arange(5), distinct] = True
    torch.testing.assert_close(
        info_nce(similarity, distinct, marked), info_nce(similarity, distinct)
    )


def test_two_photos_of_one_tile_do_not_compete_when_marked() -> None:
    similarity = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    partner = torch.tensor([0, 0])
    same = torch.tensor([[True, False], [True, False]])
    assert float(info_nce(similarity, partner, same, scale=100.0)) == pytest.approx(0, abs=1e-6)
    assert float(info_nce(similarity, partner, scale=100.0)) == pytest.approx(math.log(2) / 2)


def test_gradients_are_those_of_differences() -> None:
    similarity, partner = batch()
    same = torch.zeros_like(similarity, dtype=torch.bool)
    same[1, 0] = same[2, 5] = True
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def loss(s: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        return info_nce(s, partner, same, scale=by, label_smoothing=0.1)

    assert torch.autograd.gradcheck(loss, (similarity.requires_grad_(), scale))


@given(seed=st.integers(0, 999), photos=st.integers(1, 6), tiles=st.integers(1, 8))
def test_order_does_not_matter_and_it_is_not_negative(seed: int, photos: int, tiles: int) -> None:
    similarity, partner = batch(photos, tiles, seed)
    source = torch.Generator().manual_seed(seed)
    same = torch.rand(photos, tiles, generator=source) < 0.3
    loss = info_nce(similarity, partner, same, label_smoothing=0.1)
    assert float(loss) >= 0
    i = torch.randperm(photos, generator=source)
    j = torch.randperm(tiles, generator=source)
    moved = info_nce(
        similarity[i][:, j], j.argsort()[partner[i]], same[i][:, j], label_smoothing=0.1
    )
    torch.testing.assert_close(moved, loss)


@pytest.mark.parametrize("size", [0.0, 1e4, 1e20])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_extreme_similarities_stay_finite(size: float, kind: torch.dtype) -> None:
    similarity = (size * batch()[0]).to(kind).requires_grad_()
    loss = info_nce(similarity, batch()[1], label_smoothing=0.1)
    assert torch.isfinite(loss)
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, similarity)
    assert torch.isfinite(gradient).all()


def test_a_photo_alone_teaches_nothing() -> None:
    assert float(info_nce(torch.ones(1, 1), torch.tensor([0]))) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_what_is_not_finite_is_refused(value: float) -> None:
    similarity, partner = batch()
    similarity[2, 3] = value
    with pytest.raises(ModelError, match="NaN"):
        info_nce(similarity, partner)


@pytest.mark.parametrize(
    "wrong",
    [
        {"similarity": torch.zeros(3)},
        {"similarity": torch.zeros(0, 3)},
        {"similarity": torch.zeros(2, 3, dtype=torch.int64)},
        {"partner": torch.tensor([0, 3])},
        {"partner": torch.tensor([0, -1])},
        {"partner": torch.tensor([0.0, 1.0])},
        {"partner": torch.tensor([0])},
        {"same": torch.zeros(2, 3)},
        {"same": torch.zeros(3, 2, dtype=torch.bool)},
    ],
)
def test_shapes_and_types_must_fit(wrong: dict[str, Any]) -> None:
    good = {"similarity": torch.zeros(2, 3), "partner": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        info_nce(**(good | wrong))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_smoothing_has_a_range(smoothing: float) -> None:
    with pytest.raises(OptionError, match="label_smoothing"):
        info_nce(torch.zeros(2, 2), torch.tensor([0, 1]), label_smoothing=smoothing)
