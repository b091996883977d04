from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install '.[bases]'")

from encoder_helpers import check_contract, randomised, scenes  # noqa: E402
from skylink.encoders.torch_encoder import CPU_BATCH, Preprocessing, TorchEncoder  # noqa: E402
from skylink.errors import ModelError  # noqa: E402

SMALL = Preprocessing(64)


class Colours(torch.nn.Module):  # type: ignore[misc]
    """Mean colours as descriptor, means of 16 px as map, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: Any) -> Any:
        return self.weight * x.mean((2, 3))

    def cells(self, x: Any) -> Any:
        return torch.nn.functional.avg_pool2d(x, 16)


def made(network: Any = None, preprocessing: Preprocessing = SMALL, **more: Any) -> TorchEncoder:
    return TorchEncoder("test", network or Colours(), preprocessing, **more)


def test_the_contract() -> None:
    network = randomised(torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 16, 16), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(128, 5)
    ))  # fmt: skip
    encoder = made(network, dense=network[0])
    assert (encoder.parts, encoder.channels, encoder.stride_px) == ((5,), 8, 16)
    check_contract(encoder)


def test_pixels_are_normalised_as_said() -> None:
    preprocessing = Preprocessing(64, (0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    network = Colours()
    image = np.full((1, 64, 64, 3), (51, 102, 204), np.uint8)
    expected = (np.array([0.2, 0.4, 0.8]) - (0.1, 0.2, 0.3)) / (0.5, 1.0, 2.0)
    encoder = made(network, preprocessing, dense=network.cells)
    assert encoder.feature_map(image)[0, 2, 3] == pytest.approx(expected, abs=1e-6)
    unit = expected / np.linalg.norm(expected)
    assert encoder.encode(image)[0] == pytest.approx(unit, abs=1e-6)


def test_more_than_a_batch() -> None:
    images = scenes(2 * CPU_BATCH + 1, 64)
    encoder = made()
    one_by_one = np.concatenate([encoder.encode(image[None]) for image in images])
    assert np.allclose(encoder.encode(images), one_by_one, atol=1e-6)


def test_the_fingerprint_is_of_weights_preprocessing_and_library() -> None:
    changed = Colours()
    with torch.no_grad():
        changed.weight += 1e-6
    found = [
        made().fingerprint,
        made(changed).fingerprint,
        made(preprocessing=Preprocessing(96)).fingerprint,
        made(preprocessing=Preprocessing(64, resize="area")).fingerprint,
        made(preprocessing=Preprocessing(64, (0.5, 0.5, 0.5))).fingerprint,
        made(made_by="library 2").fingerprint,
    ]
    assert len(set(found)) == len(found)
    assert made().fingerprint == found[0]


def test_maps_that_dense_search_cannot_use() -> None:
    """Too fine, not square, not whole pixels a cell, of one side only, or failing."""
    pool = torch.nn.functional.avg_pool2d
    refusals: list[Any] = [
        lambda x: pool(x, 1),
        lambda x: pool(x, (16, 32)),
        lambda x: pool(x, 24),
        lambda x: torch.nn.functional.adaptive_avg_pool2d(x, 4),
        lambda x: x.mean((2, 3)),
        lambda x: x.no_such_thing,
    ]
    for dense in refusals:
        encoder = made(dense=dense)
        assert (encoder.channels, encoder.stride_px) == (0, 16)
        with pytest.raises(ModelError, match="no feature map"):
            encoder.feature_map(scenes(1, 64))
    assert made(dense=lambda x: pool(x, 16)).channels == 3


def test_networks_that_break_the_contract() -> None:
    with pytest.raises(ModelError, match="expected"):
        made(describe=lambda x: x)
    with pytest.raises(ModelError, match="finite"):
        made(describe=lambda x: x.mean((2, 3)) / 0 * 0)
    with pytest.raises(ModelError, match="failed on pictures of 64 x 64"):
        made(torch.nn.Linear(7, 2))
    with pytest.raises(ModelError, match="64 x 64"):
        made().encode(scenes(1, 32))
    with pytest.raises(ModelError, match="no images"):
        made().encode(np.zeros((0, 64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_px": 16},
        {"input_px": 4096},
        {"mean": (0.5, 0.5)},
        {"std": (1.0, 0.0, 1.0)},
        {"mean": (0.5, float("nan"), 0.5)},
        {"resize": "pil-nearest"},
    ],
)
def test_preprocessing_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        Preprocessing(**{"input_px": 64, **wrong})
