"""Checkpoints with the published key names and shapes, written from the architectures' definitions.

The real files could not be had. The networks below are our own, plain versions of what the public
repositories define: the forward pass is the witness of the one under test, and the modules' names
give the keys.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from skylink.encoders.torch_encoder import Preprocessing

DEPTHS, DIMS = (1, 2, 1, 1), (8, 12, 16, 24)
SIZE: dict[str, Any] = {"depths": DEPTHS, "dims": DIMS}
AT_64 = Preprocessing(64, resize="opencv-linear")
PLACES = 7  # 701 in the published ones


class ChannelNorm(nn.Module):
    """Layer normalisation over channels, wherever they are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Any, axis: int = 1) -> Any:
        x = x.movedim(axis, -1)
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        return (scaled * self.weight + self.bias).movedim(-1, axis)


class OriginalBlock(nn.Module):
    """ConvNeXt's block, by its authors' names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = ChannelNorm(width)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Any) -> Any:
        inner = self.norm(self.dwconv(x)).movedim(1, -1)
        inner = self.pwconv2(F.gelu(self.pwconv1(inner))) * self.gamma
        return x + inner.movedim(-1, 1)


class OriginalConvNeXt(nn.Module):
    """The network by its authors' names: the normalised mean of the last map, and the map."""

    def __init__(self, depths: tuple[int, ...] = DEPTHS, dims: tuple[int, ...] = DIMS) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), ChannelNorm(dims[0]))
        down = [nn.Sequential(ChannelNorm(a), nn.Conv2d(a, b, 2, 2)) for a, b in pairwise(dims)]
        self.downsample_layers = nn.ModuleList([stem, *down])
        self.stages = nn.ModuleList(
            nn.Sequential(*(OriginalBlock(width) for _ in range(depth)))
            for depth, width in zip(depths, dims, strict=True)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.head = nn.Linear(dims[-1], 1000)

    def forward(self, x: Any) -> Any:
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
        return self.norm(x.mean((-2, -1))), x


def class_block(width: int) -> nn.Module:
    """MCCG's classifier."""
    block = nn.Module()
    block.add_block = nn.Sequential(nn.Linear(width, 512), nn.BatchNorm1d(512), nn.Dropout(0.5))
    block.classifier = nn.Sequential(nn.Linear(512, PLACES))
    return block


def multi_scale_class_block() -> nn.Module:
    """MEAN's classifier."""
    block = nn.Module()
    scales = nn.Module()
    for dilation in (1, 2, 3):
        setattr(scales, f"dilated{dilation}", nn.Conv1d(1, 128, 3, dilation=dilation))
    scales.extra1 = nn.Sequential(nn.Conv1d(1, 128, 1), nn.ReLU())
    block.multi_scale_block = scales
    block.add_block = nn.Sequential(nn.BatchNorm1d(512), nn.Dropout(0.5))
    block.classifier = nn.Linear(512, PLACES)
    return block


def gate() -> nn.Module:
    """An attention gate of triplet attention."""
    inner = nn.Module()
    inner.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
    inner.bn = nn.BatchNorm2d(1)
    outer = nn.Module()
    outer.conv = inner
    return outer


def projection(width: int) -> nn.Module:
    """DAC's two-layer projection."""
    outer = nn.Module()
    outer.mlp = nn.Sequential(
        nn.Conv1d(width, 2 * width, 1, bias=False), nn.BatchNorm1d(2 * width), nn.ReLU(),
        nn.Conv1d(2 * width, 16, 1, bias=False),
    )  # fmt: skip
    return outer


def wrapped(inner: nn.Module, scalars: tuple[str, ...]) -> nn.Module:
    """`two_view_net`: one network for both views, and the losses' own parameters."""
    outer = nn.Module()
    outer.model_1 = inner
    for name in scalars:
        setattr(outer, name, nn.Parameter(torch.ones([])))
    return outer


LOSSES = ("logit_scale", "logit_scale_blocks", "w_blocks1", "w_blocks2", "w_blocks3")


def camp() -> nn.Module:
    """CAMP's whole module; `.model_1.convnext` is what it describes pictures with."""
    inner = nn.Module()
    inner.convnext = OriginalConvNeXt()
    inner.pos_scale = nn.Parameter(torch.tensor(0.6))
    inner.pos_embed = nn.Parameter(torch.zeros(1, DIMS[-1], 12, 12))
    inner.tri_layer = nn.ModuleDict({"cw": gate(), "hc": gate()})
    for name in ("classifier1", "classifier_mcb1", "classifier_mcb2"):
        setattr(inner, name, class_block(DIMS[-1]))
    pairs = ("D_D", "S_S", "D_fine_D_fine", "D_fine_S_fine", "S_fine_S_fine")
    return wrapped(inner, LOSSES + tuple(f"ECE_weight_{pair}" for pair in pairs))


def dac() -> nn.Module:
    """DAC's whole module."""
    inner = nn.Module()
    inner.convnext = OriginalConvNeXt()
    inner.tri_layer = nn.ModuleDict({"cw": gate(), "hc": gate()})
    for name in ("classifier1", "classifier_mcb1", "classifier_mcb2"):
        setattr(inner, name, class_block(DIMS[-1]))
    inner.proj, inner.proj_obj = projection(DIMS[-1]), projection(DIMS[-1])
    return wrapped(inner, LOSSES)


def mean() -> nn.Module:
    """MEAN's whole module."""
    width = DIMS[-1]
    inner = nn.Module()
    inner.convnext = OriginalConvNeXt()
    for name in ("classifier1", "classifier_mcb1", "classifier_mcb2"):
        setattr(inner, name, multi_scale_class_block())
    enhance = nn.Module()
    for dilation in (1, 2, 3):
        setattr(enhance, f"FC1{dilation}", nn.Conv2d(width, width // 4, 3, bias=False))
    enhance.FC1 = nn.Conv2d(width // 4, width, 1)
    inner.DEG = enhance
    fuse = nn.Module()
    fuse.conv1, fuse.conv2 = nn.Conv1d(width, 16, 1), nn.Conv1d(8, 16, 1)
    fuse.conv_fusion, fuse.bn = nn.Conv1d(32, 16, 1), nn.BatchNorm1d(16)
    inner.MSF = fuse
    project = nn.Module()
    project.layers = nn.ModuleList([
        nn.Sequential(nn.Conv1d(width, 32, 1, bias=False), nn.BatchNorm1d(32), nn.ReLU()),
        nn.Sequential(nn.Conv1d(32, 8, 1, bias=False)),
    ])  # fmt: skip
    inner.proj = project
    inner.feature_scaling = nn.ModuleDict({"proj": nn.Conv1d(8, 8, 1)})
    return wrapped(inner, LOSSES)
