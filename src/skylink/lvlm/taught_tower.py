"""A tower that sees, in minutes of a CPU: it learns to say what the embedded encoder's cells say.

The tower of a random checkpoint says nothing that carries over to other pictures. The cells of
the embedded encoder do: without any training they are alike where a drone's photo and a map show
the same ground (docs/log.md). `teach_tower` distils them: tower and connector learn, from pictures
without labels, to give for each visual token the cells of its place,

    token = mark + code,    code = the cells' mean, as few numbers (`CellCode`),

where the mark is the same for all tokens of all pictures: by it attention finds pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, mse_loss, normalize

Floats = NDArray[np.float32]

MARK = 0.3
"""Share of a token's mean square that all visual tokens have in common."""


@dataclass(frozen=True, slots=True, eq=False)
class CellCode:
    """Cells of a feature map as few numbers, of unit length.

    Attributes:
        mean, std: (C,) float32 of the cells that it was fitted to.
        axes: (C, D) float32, the D principal axes of standardised cells of unit length.
    """

    mean: Floats
    std: Floats
    axes: Floats

    @classmethod
    def fitted(cls, cells: Floats, size: int) -> CellCode:
        """Fitted to (N, C) cells of many maps; `size` is D."""
        mean, std = cells.mean(0), np.maximum(cells.std(0), 1e-6)
        unit = _unit((cells - mean) / std)
        _, axes = np.linalg.eigh(unit.T @ unit)
        return cls(mean, std, np.ascontiguousarray(axes[:, ::-1][:, :size], np.float32))

    def __call__(self, cells: Floats, valid: Floats | None = None, *, side: int) -> Tensor:
        """(N, side * side, D) float32: each place's mean, of unit length; 0 where nothing is valid.

        Args:
            cells: (N, h, w, C), h and w multiples of `side`.
            valid: (N, h, w), 1 where a cell shows ground; None: all do.
            side: places along a picture.
        """
        codes = _unit((cells - self.mean) / self.std) @ self.axes
        if valid is not None:
            codes = codes * valid[..., None]
        grid = torch.from_numpy(np.asarray(codes, np.float32)).permute(0, 3, 1, 2)
        size = grid.shape[2] // side, grid.shape[3] // side
        return normalize(avg_pool2d(grid, size).flatten(2).mT, dim=-1)


def token_axes(width: int, size: int, seed: int = 0) -> Tensor:
    """(1 + size, width) orthonormal directions of visual tokens: the mark's, then the code's."""
    draw = torch.Generator().manual_seed(seed)
    axes: Tensor = torch.linalg.qr(torch.randn(width, 1 + size, generator=draw))[0].T.contiguous()
    return axes


def teach_tower(
    model: Any,
    batches: Iterable[tuple[NDArray[np.uint8], Tensor]],
    axes: Tensor,
    *,
    steps: int,
    lr: float = 2e-3,
    seed: int = 0,
    say: Callable[[int, float], None] = lambda *_: None,
) -> None:
    """Train tower and connector of a SmolVLM or Idefics3 to say cells' codes, in place.

    Args:
        model: a float32 `...ForConditionalGeneration` on the CPU; its language model isn't touched.
        batches: at least `steps` of pictures (B, S, S, 3) uint8 RGB, S the side that the tower
            takes, and their codes (B, T, D), T the tokens of a picture.
        axes: (1 + D, H), see `token_axes`.
        steps: batches that are learnt.
        lr: of AdamW, after a warm-up and before a cosine to a fiftieth.
        seed: of the first weights, drawn anew: residual branches begin small.
        say: hears of each step and its loss, the share of the codes that is not told.

    Raises:
        ValueError: there are fewer batches than steps.
    """
    inner = model.model
    parts = [*inner.vision_model.parameters(), *inner.connector.parameters()]
    _begin(inner, seed)
    width = axes.shape[1]
    mark, directions = math.sqrt(MARK * width) * axes[0], math.sqrt((1 - MARK) * width) * axes[1:]
    optimizer = torch.optim.AdamW(parts, lr=lr, weight_decay=0.05)
    source = iter(batches)
    model.train()
    for step in range(steps):
        batch = next(source, None)
        if batch is None:
            raise ValueError(f"batch {step + 1} of {steps} is missing")
        pictures, codes = batch
        rate = lr * min(1, (step + 1) / 50)
        rate *= 0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = mse_loss(tokens_of(model, pictures), mark + codes @ directions) / (1 - MARK)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parts, 1.0)
        optimizer.step()
        say(step + 1, float(loss.detach()))
    model.eval()
    with torch.no_grad():
        _stretch(inner.connector.modality_projection.proj, tokens_of(model, pictures), axes)


def tokens_of(model: Any, pictures: NDArray[np.uint8]) -> Tensor:
    """(N, T, H) visual tokens of (N, S, S, 3) uint8 RGB pictures, with gradients as elsewhere."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    out = model.model.get_image_features((pixels / 127.5 - 1)[:, None], return_dict=True)
    return torch.stack(list(out.pooler_output))


def codes_of(tokens: Tensor, axes: Tensor) -> Tensor:
    """(..., D) unit codes that tokens (..., H) tell."""
    return normalize(tokens @ axes[1:].T, dim=-1)


def alike(views: Tensor, crops: Tensor) -> Tensor:
    """(N, K) mean cosine of codes at the same place: (N, T, D) views, (N, K, T, D) crops."""
    return torch.einsum("ntd,nktd->nk", views, crops) / views.shape[1]


def _begin(inner: Any, seed: int) -> None:
    """First weights of a tower that is to be trained: norms 1, biases 0, small residuals."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        named = [*inner.vision_model.named_parameters(), *inner.connector.named_parameters()]
        for name, weight in named:
            if weight.ndim == 1:
                weight.fill_(float(name.endswith(".weight")))
                continue
            weight.normal_(generator=draw).div_(math.sqrt(math.prod(weight.shape[1:])))
            if name.endswith(("out_proj.weight", "fc2.weight")):
                weight *= 0.3


def _stretch(project: Any, tokens: Tensor, axes: Tensor) -> None:
    """Give codes the mean length that was wanted: what is uncertain was told too short."""
    wanted = math.sqrt((1 - MARK) * axes.shape[1])
    gain = wanted / (tokens @ axes[1:].T).square().sum(-1).mean().sqrt()
    project.weight += (gain - 1) * axes[1:].T @ (axes[1:] @ project.weight)


def _unit(values: Floats) -> Floats:
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-6), np.float32)
