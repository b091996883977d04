"""The loss that teaches a retriever: each photo is pulled to its own tile, and away from others.

A pure function of tensors like those of `losses.py`, which are about lists:

    input        shape    type                       meaning
    similarity   (B, N)   float, any precision       photo i against tile j, cosines as a rule
    partner      (B,)     int64, 0..N-1              which tile is photo i's own
    same         (B, N)   bool, or None              True where j shows i's place: never a negative
    scale        ()       float, or a tensor         1 / temperature; may have a gradient

Computed in float32 at least.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from skylink.errors import ModelError, OptionError
from skylink.losses import MAX_SCORE


def info_nce(
    similarity: Tensor,
    partner: Tensor,
    same: Tensor | None = None,
    *,
    scale: float | Tensor = 1 / 0.07,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Symmetric InfoNCE with label smoothing and masked false negatives.

    Equation: with s = scale * similarity and n(i) candidates of photo i (its own tile and those
    that don't show its place),

        L_i = - (1 - e) log q_i(partner(i)) - e / n(i) sum over j of log q_i(j)
        q_i = softmax over those candidates of s_ij

    and the same the other way round, where tile partner(i) chooses among the photos. L is the mean
    of both directions over i. Tiles that are nobody's partner are hard negatives: they stand in the
    first direction alone. Without `same`, smoothing or further tiles it is CLIP's loss; a photo
    that no negative competes with adds 0.

    Sources: van den Oord et al., Representation Learning with Contrastive Predictive Coding
    (arXiv 1807.03748); Radford et al., CLIP (ICML 2021), for both directions and the learnt scale;
    Deuser et al., Sample4Geo (ICCV 2023), for label smoothing e = 0.1 on drone and satellite views.

    Raises:
        ValueError: shapes or types don't fit each other.
        ModelError: a scaled similarity is NaN, infinite or overflows.
        OptionError: `label_smoothing` is not in 0..1, 1 left out.
    """
    if similarity.ndim != 2 or similarity.numel() == 0 or not similarity.is_floating_point():
        raise ValueError(f"similarity is {similarity.dtype} {tuple(similarity.shape)}, not (B, N)")
    photos, tiles = similarity.shape
    if partner.shape != (photos,) or partner.dtype != torch.int64:
        raise ValueError(
            f"partner is {partner.dtype} {tuple(partner.shape)}, not int64 ({photos},)"
        )
    if not bool(((partner >= 0) & (partner < tiles)).all()):
        raise ValueError(f"partner is not in 0..{tiles - 1}")
    if same is None:
        same = torch.zeros_like(similarity, dtype=torch.bool)
    if same.dtype != torch.bool or same.shape != similarity.shape:
        raise ValueError(f"same is {same.dtype} {tuple(same.shape)}, not bool like similarity")
    if not (math.isfinite(label_smoothing) and 0 <= label_smoothing < 1):
        raise OptionError(f"label_smoothing = {label_smoothing!r} is not in 0..1", hint="0.1")
    s = scale * (similarity if similarity.dtype == torch.float64 else similarity.float())
    if not bool((s.abs() <= MAX_SCORE).all()):  # False for NaN
        raise ModelError(
            "similarities of this batch are NaN, infinite or overflow",
            hint="lower the learning rate, or train in bfloat16 or float32 instead of float16",
        )
    rows = torch.arange(photos, device=s.device)
    forward = _direction(s, partner, same, label_smoothing)
    backward = _direction(s[:, partner].T, rows, same[:, partner].T, label_smoothing)
    return (forward + backward) / 2


def _direction(s: Tensor, own: Tensor, same: Tensor, smoothing: float) -> Tensor:
    """Mean over rows of the smoothed cross-entropy; (B, M) logits, (B,) the right column."""
    right = torch.zeros_like(same).scatter_(1, own[:, None], True)
    real = right | ~same
    log_q = log_softmax(s.masked_fill(~real, torch.finfo(s.dtype).min), dim=1)
    log_q = torch.where(real, log_q, 0)
    count = real.sum(1)
    each = (1 - smoothing) * log_q.gather(1, own[:, None])[:, 0] + smoothing * log_q.sum(1) / count
    return -each.mean()
