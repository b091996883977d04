"""The dense head: trunk cells to relational cells, each cell by itself.

Since a cell's result depends on that cell alone, a window of a map gives what the whole map gives,
and galleries keep the trunk's features: a new head needs no new gallery.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["mlp", "linear"]


class DenseHead(nn.Module):
    """Standardised trunk cells (..., C) to unit cells (..., D).

        x = sqrt(C) cell / |cell|
        linear: y = A x             mlp: y = A x + B relu6(W x + b) + c        result: y / |y|

    A is the identity, which the mlp learns only where D differs from C; B and c are 0 at the
    beginning, so that an untrained head leaves cosines as they are (for D = C).

    Args:
        kind: see above.
        channels: C.
        hidden: units of the mlp.
        size: D.
    """

    def __init__(
        self, kind: Kind = "mlp", *, channels: int = 112, hidden: int = 224, size: int = 112
    ) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.straight = None
        if kind == "linear" or size != channels:
            self.straight = nn.Linear(channels, size, bias=False)
            nn.init.eye_(self.straight.weight)
            if size > channels:  # rows beyond the identity start small instead of dead
                nn.init.normal_(self.straight.weight[channels:], std=0.01)
        self.inner = self.outer = None
        if kind == "mlp":
            self.inner, self.outer = nn.Linear(channels, hidden), nn.Linear(hidden, size)
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)

    def forward(self, cells: Tensor) -> Tensor:
        x = functional.normalize(cells, dim=-1, eps=1e-6) * math.sqrt(self.channels)
        y = x if self.straight is None else self.straight(x)
        if self.inner is not None and self.outer is not None:
            y = y + self.outer(functional.relu6(self.inner(x)))
        return functional.normalize(y, dim=-1, eps=1e-6)


def relational(head: nn.Module | None, cells: Tensor, valid: Tensor) -> Tensor:
    """(..., D) unit cells, zero where not valid; without a head the cells' own directions.

    Args:
        head: on (..., C).
        cells: (..., C) standardised.
        valid: (...,), 1 or 0.
    """
    unit: Tensor = functional.normalize(cells, dim=-1, eps=1e-6) if head is None else head(cells)
    return unit * valid[..., None]


def number_of(module: nn.Module) -> int:
    """Trained numbers of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def log_of(value: float) -> nn.Parameter:
    """A positive number that is learnt by its logarithm."""
    return nn.Parameter(torch.tensor(math.log(value)))
