"""Models that compare a photo with a candidate through the correlation of their cells.

    late          head -> cosines at all shifts -> mean over the view -> + a learnt prior of shifts
                  -> soft maximum over shifts
    transformer   late, and a correction: the view's cells are tokens that say how each of them
                  fits at every shift; a small transformer reads them together

Both score (photo, candidate) pairs from the trunk's cells alone, and both begin as training-free
correlation: the head as the identity, a prior that falls off with the shift, the correction at 0.
Joint attention without correlations failed at this size (docs/log.md): so they are given to it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from skylink.embedded.head import DenseHead, relational

Kind = Literal["late", "transformer"]
HeadKind = Literal["none", "linear", "mlp"]

PROJECTED = 16
"""Numbers of a token that say what its cell shows."""

COSINE_SCALE = 4.0
"""Brings cosines of cells, some 0.25 about 0, to the size of the other numbers of a token."""

MASKED = -1e4


class LateInteraction(nn.Module):
    """See the module.

    Args:
        head: of the cells: `none`, or see `DenseHead`.
        channels: C of the trunk's cells.
        side: k, cells along a view.
        reach: r, cells that a candidate may be off its place, each way.
        hidden: units of an mlp head.
        softness: of the maximum over shifts, on the scale of scores; learnt.
        falloff: what the prior takes from a score for each squared cell of shift, at the beginning;
            far shifts are another candidate's (docs/log.md).

    Attributes:
        window: k + 2 r, cells along the part of the map that is compared.
    """

    def __init__(
        self,
        head: HeadKind = "linear",
        *,
        channels: int = 112,
        side: int = 14,
        reach: int = 2,
        hidden: int = 224,
        softness: float = 5e-4,
        falloff: float = 0.003,
    ) -> None:
        super().__init__()
        self.channels, self.side, self.reach = channels, side, reach
        self.window = side + 2 * reach
        self.shifts = (2 * reach + 1) ** 2
        self.head = None
        if head != "none":
            self.head = DenseHead(head, channels=channels, hidden=hidden, size=channels)
        steps = torch.arange(-reach, reach + 1.0)
        squared = steps[:, None] ** 2 + steps**2
        self.prior = nn.Parameter(-falloff * squared.flatten())
        self.log_softness = nn.Parameter(torch.tensor(math.log(softness)))

    def forward(
        self,
        views: Tensor,
        views_valid: Tensor,
        windows: Tensor,
        windows_valid: Tensor,
        owner: Tensor,
    ) -> Tensor:
        """Scores (N,) of candidates, on the scale of correlation: 1 is a perfect match.

        Args:
            views: (V, k, k, C) standardised cells of the photo, north up, under V poses.
            views_valid: (V, k, k), 1 or 0.
            windows: (N, k + 2 r, k + 2 r, C) standardised cells of the map around candidates.
            windows_valid: (N, k + 2 r, k + 2 r), 1 or 0.
            owner: (N,) int64: under which of the poses each is compared.
        """
        seen, ground = self.cells(views, views_valid), self.cells(windows, windows_valid)
        return self.relate(seen[owner], views_valid[owner], ground, windows_valid)

    def cells(self, cells: Tensor, valid: Tensor) -> Tensor:
        """(..., C) unit cells of standardised ones, zero where not valid (...,)."""
        return relational(self.head, cells, valid)

    def relate(self, seen: Tensor, seen_valid: Tensor, ground: Tensor, valid: Tensor) -> Tensor:
        """Scores (N,) from what `cells` gave, one view a candidate; shapes as in `forward`."""
        return self._late(shift_cosines(seen, ground, self.reach), seen_valid)

    def _late(self, cosines: Tensor, seen_valid: Tensor) -> Tensor:
        """(N,) from cosines (N, k, k, shifts)."""
        counts = seen_valid.sum((1, 2)).clamp(min=1)
        values = cosines.sum((1, 2)) / (counts * self.side**2).sqrt()[:, None] + self.prior
        weights = torch.softmax(values / self.log_softness.exp(), 1)
        return (weights * values).sum(1)


class RelationalTransformer(LateInteraction):
    """See the module.

    Args:
        layers, width, heads: of the transformer.
        choices: as for `LateInteraction`.
    """

    def __init__(
        self,
        head: HeadKind = "none",
        *,
        layers: int = 2,
        width: int = 64,
        heads: int = 4,
        channels: int = 112,
        side: int = 14,
        reach: int = 2,
        hidden: int = 224,
        softness: float = 5e-4,
        falloff: float = 0.003,
    ) -> None:
        super().__init__(
            head, channels=channels, side=side, reach=reach, hidden=hidden, softness=softness,
            falloff=falloff,
        )  # fmt: skip
        self.shown = nn.Linear(channels, PROJECTED)
        self.token = nn.Linear(2 * self.shifts + PROJECTED, width)
        self.place = nn.Parameter(torch.randn(side, side, width) * 0.02)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.correction = nn.Linear(width, 1)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)
        self.gain = nn.Parameter(torch.ones(()))

    def relate(self, seen: Tensor, seen_valid: Tensor, ground: Tensor, valid: Tensor) -> Tensor:
        """See `LateInteraction.relate`."""
        cosines = shift_cosines(seen, ground, self.reach)
        shown = self.shown(seen * math.sqrt(self.channels))
        known = _shifted(valid, self.side, self.reach)
        x = self.token(torch.cat([cosines * COSINE_SCALE, known, shown], 3)) + self.place
        x, keep = x.flatten(1, 2), seen_valid.flatten(1)
        ignored = ((1 - keep) * MASKED)[:, None, None]
        for block in self.blocks:
            x = block(x, ignored)
        pooled = (self.norm(x) * keep[..., None]).sum(1) / keep.sum(1).clamp(min=1)[:, None]
        scores: Tensor = self.gain * self._late(cosines, seen_valid) + self.correction(pooled)[:, 0]
        return scores


class _Block(nn.Module):
    """Attention over all tokens, then each by itself; both after a norm and beside what was."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.asks = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, ignored: Tensor) -> Tensor:
        count, tokens, width = x.shape
        parts = self.asks(self.norm(x)).reshape(count, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        read = functional.scaled_dot_product_attention(q, k, v, attn_mask=ignored)
        x = x + self.out(read.transpose(1, 2).reshape(count, tokens, width))
        answer: Tensor = x + self.inner(x)
        return answer


def shift_cosines(seen: Tensor, ground: Tensor, reach: int) -> Tensor:
    """Cosine of every cell of a view with the map's cell there, at all shifts.

    Args:
        seen: (N, k, k, D) unit cells, zero where not valid.
        ground: (N, k + 2 r, k + 2 r, D) likewise.
        reach: r.

    Returns:
        (N, k, k, (2 r + 1)^2), shifts by rows, from north to south, then columns. As products of
        rows of cells: of each, the band that is needed is kept.
    """
    side, steps = seen.shape[1], 2 * reach + 1
    window = side + 2 * reach
    start = torch.arange(side, device=seen.device)[:, None] * (window + 1)
    band = (start + torch.arange(steps, device=seen.device)).flatten()
    found = []
    for row in range(steps):
        product = seen @ ground[:, row : row + side].transpose(-1, -2)  # (N, k, k, window)
        kept = product.flatten(2).index_select(2, band)
        found.append(kept.reshape(-1, side, side, steps))
    return torch.cat(found, 3)


def _shifted(valid: Tensor, side: int, reach: int) -> Tensor:
    """(N, k, k, shifts): whether the map is known where each cell falls."""
    steps = range(2 * reach + 1)
    each = [valid[:, r : r + side, c : c + side] for r in steps for c in steps]
    return torch.stack(each, 3)
