"""Pictures and tiny networks for the tests of encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.encoder import Encoder


def scenes(count: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    """(N, S, S, 3) uint8 of coloured blobs, each another."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    return np.stack([cv2.resize(c, (side, side), interpolation=cv2.INTER_CUBIC) for c in coarse])


def check_contract(encoder: Encoder) -> None:
    """What every encoder owes: shape, norm, batching, masks, a feature map as it says."""
    assert isinstance(encoder, Encoder)
    side = encoder.input_px
    images = scenes(9, side)
    vectors = encoder.encode(images)
    assert vectors.shape == (9, sum(encoder.parts))
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.abs(vectors - vectors[0]).max() > 1e-4  # it looks at the picture
    alone = np.concatenate([encoder.encode(images[i : i + 1]) for i in (0, 8)])
    assert np.allclose(alone, vectors[[0, 8]], atol=1e-5)
    masks = np.ones((1, side, side), bool)
    assert np.allclose(encoder.encode(images[:1], masks), vectors[:1], atol=1e-6)
    masks[:, :, side // 2 :] = False
    other = images[:1].copy()
    other[:, :, side // 2 :] = 255 - other[:, :, side // 2 :]
    assert np.abs(encoder.encode(images[:1], masks) - encoder.encode(other, masks)).max() < 1e-5
    if encoder.channels:
        step = encoder.stride_px
        large = scenes(1, 8 * step)[:, : 6 * step]
        features = encoder.feature_map(large)
        assert features.shape == (1, 6, 8, encoder.channels)
        assert features.dtype == np.float32


def randomised(network: Any, seed: int = 0) -> Any:
    """The network with every weight drawn anew, so that none keeps a harmless initial value."""
    import torch

    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.ndim > 1:  # of a size that keeps activations near 1
                drawn = torch.randn(tensor.shape, generator=source)
                tensor.copy_(drawn / tensor[0].numel() ** 0.5)
            elif tensor.is_floating_point():
                drawn = torch.rand(tensor.shape, generator=source)
                signed = name.endswith(("bias", "running_mean"))
                tensor.copy_(drawn - 0.5 if signed else drawn + 0.5)
    return network


def saved(tensors: dict[str, Any], path: Path, **beside: Any) -> str:
    """Write a state dictionary as trainers do; `beside` is stored next to it."""
    import torch

    torch.save({"state_dict": tensors, **beside} if beside else tensors, path)
    return str(path)
