"""The correlation surface as a differentiable function: what training optimises.

As in use (`densemap.py`, `correlation.py`): cells are standardised by the maps' own mean and
deviation and made unit vectors; a view's cells count where they are valid; the score of a place is
the sum of cosines / sqrt(valid cells x all cells). A test holds the two to each other.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cell_statistics(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of the valid cells of (..., C); valid is (...,), 1 or 0."""
    weight = (valid / valid.sum().clamp(min=1))[..., None]
    axes = tuple(range(features.ndim - 1))
    mean = (features * weight).sum(axes)
    variance = ((features - mean) ** 2 * weight).sum(axes)
    return mean, (variance + 1e-6).sqrt()


def surfaces(maps: Tensor, views: Tensor, valid: Tensor) -> Tensor:
    """Scores of every view at every place of every map, (V, M, R + 1 - k % 2, R + 1 - k % 2).

    Args:
        maps: (M, R, R, C) unit cells, zero where not valid.
        views: (V, k, k, C) unit cells, zero where not valid.
        valid: (V, k, k), 1 or 0.

    Index (r, c) is the view whose centre lies at (r, c) cells from the map's top left corner, for
    even k. Computed by FFT, each frequency one matrix product over channels; the same as
    `plain_surfaces` to rounding, an order faster.
    """
    (count, side), (views_count, kernel) = maps.shape[:2], views.shape[:2]
    channels, pad, size = maps.shape[3], kernel // 2, side + kernel
    far = size - side - pad
    padded = functional.pad(maps.permute(0, 3, 1, 2), (pad, far, pad, far))
    ground = torch.fft.rfft2(padded, s=(size, size))
    seen = torch.fft.rfft2(_weighed(views, valid).permute(0, 3, 1, 2), s=(size, size)).conj()
    half = ground.shape[-1]
    product = torch.matmul(
        seen.permute(2, 3, 0, 1).reshape(size * half, views_count, channels),
        ground.permute(2, 3, 1, 0).reshape(size * half, channels, count),
    )
    spectra = product.reshape(size, half, views_count, count).permute(2, 3, 0, 1)
    out = side + 1 - kernel % 2
    whole: Tensor = torch.fft.irfft2(spectra, s=(size, size))
    return whole[..., :out, :out]


def plain_surfaces(maps: Tensor, views: Tensor, valid: Tensor) -> Tensor:
    """`surfaces` as a convolution."""
    kernels = _weighed(views, valid).permute(0, 3, 1, 2)
    scores = functional.conv2d(maps.permute(0, 3, 1, 2), kernels, padding=views.shape[1] // 2)
    return scores.transpose(0, 1)


def _weighed(views: Tensor, valid: Tensor) -> Tensor:
    """Cells divided by sqrt(valid cells x all cells); see `densemap.weigh`."""
    counts = valid.sum((1, 2)).clamp(min=1)
    return views / (counts * views.shape[1] ** 2).sqrt()[:, None, None, None]
