"""The tuned descriptor: a copy of the network's upper blocks, pooled and projected.

It is summed with the untuned one, so that recall is protected: what the tuned copy unlearns, the
base still knows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from skylink.embedded.network import HEAD, STAGES, Top

POWER = 3.0
"""Of the generalised mean (GeM, arXiv 1711.02512) over the head's cells, as the base has it."""


class TunedDescriptor(nn.Module):
    """(N, 112, h, w) trunk features to (N, D).

        blocks 11-15 and head -> GeM of the head, mean of block 15 -> unit each -> projection

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.top = Top()
        self.projection = nn.Linear(HEAD + STAGES[-1][-1], size, bias=False)
        nn.init.orthogonal_(self.projection.weight)

    def forward(self, features: Tensor, weights: Tensor) -> Tensor:
        """See the class; `weights` (N, h / 2, w / 2) says which cells count; none: all do."""
        block15, head = self.top(features)
        both = [pooled(head, weights, POWER), pooled(block15, weights, 1.0)]
        joined = torch.cat([functional.normalize(each, dim=1, eps=1e-6) for each in both], 1)
        projected: Tensor = self.projection(joined)
        return projected


def pooled(features: Tensor, weights: Tensor, power: float) -> Tensor:
    """Generalised mean of (N, C, h, w) over cells with weights (N, h, w); see
    `encoder.masked_mean`, which this is in PyTorch."""
    total = weights.sum((1, 2), keepdim=True)
    weights = torch.where(total > 0, weights, torch.ones_like(weights))
    x = features if power == 1 else features.clamp(min=1e-6) ** power
    mean = (x * weights[:, None]).sum((2, 3)) / weights.sum((1, 2))[:, None]
    return mean if power == 1 else mean ** (1 / power)


def coarse_cells(valid: Tensor) -> Tensor:
    """(N, h / 2, w / 2): 1 where more than half of the four cells are valid."""
    return (functional.avg_pool2d(valid[:, None], 2)[:, 0] > 0.5).to(valid.dtype)


def part_cosines(queries: Tensor, tiles: Tensor, sizes: list[int]) -> Tensor:
    """Sum of the cosines of a descriptor's parts, (Q, T), standardised by the tiles.

    As in use: see `encoder.standardise`, where each part weighs the same.

    Args:
        queries, tiles: (Q, D) and (T, D), T at least 2.
        sizes: of the parts; they sum to D.
    """
    mean, deviation = tiles.mean(0), tiles.std(0, correction=0) + 1e-6
    total = torch.zeros(len(queries), len(tiles))
    for q, t in zip(
        torch.split((queries - mean) / deviation, sizes, 1),
        torch.split((tiles - mean) / deviation, sizes, 1),
        strict=True,
    ):
        unit = [functional.normalize(each, dim=1, eps=1e-6) for each in (q, t)]
        total = total + unit[0] @ unit[1].T
    return total
