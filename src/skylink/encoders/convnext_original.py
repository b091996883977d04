"""ConvNeXt by the key names of its authors' code, which CAMP, DAC and MEAN carry a copy of.

The copy (`sample4geo/hand_convnext/ConvNext/backbones/model_convnext.py`) is github.com/
facebookresearch/ConvNeXt's network; it returns the normalised mean of the last map, which is the
descriptor, and the map. timm's ConvNeXt is the same network under other names, so it runs here.
The copy keeps ImageNet's classifier, which it never calls.
"""

from __future__ import annotations

from typing import Any

from skylink.encoders.checkpoint import AFFINE, leaves
from skylink.encoders.extra import torch
from skylink.encoders.timm_encoder import create

PREFIX = "model_1.convnext."
"""Where the three repositories' `two_view_net` has it: one network for both views."""

CLASSIFIER = leaves(f"{PREFIX}head", AFFINE)

_BLOCK = {
    "dwconv": "conv_dw", "norm": "norm", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2",
}  # fmt: skip


def make_convnext(name: str, **size: Any) -> tuple[Any, dict[str, str]]:
    """(timm's network without a classifier or weights, original key -> timm's key).

    Args:
        name: timm's name, such as `convnext_base`.
        size: `depths` and `dims`, four numbers each, to make a small one.
    """
    with torch.device("meta"):
        network = create(name, pretrained=False, num_classes=0, **size)
    names = {"norm": "head.norm"}
    for stage, layers in enumerate(network.stages):
        names |= {
            f"downsample_layers.{stage}.{i}": f"stages.{stage}.downsample.{i}" for i in (0, 1)
        }
        for block in range(len(layers.blocks)):
            old, new = f"stages.{stage}.{block}", f"stages.{stage}.blocks.{block}"
            names |= {f"{old}.{a}": f"{new}.{b}" for a, b in _BLOCK.items()}
    names |= {f"downsample_layers.0.{i}": f"stem.{i}" for i in (0, 1)}
    keys = {f"{a}.{leaf}": f"{b}.{leaf}" for a, b in names.items() for leaf in AFFINE}
    for stage, layers in enumerate(network.stages):
        for block in range(len(layers.blocks)):
            keys[f"stages.{stage}.{block}.gamma"] = f"stages.{stage}.blocks.{block}.gamma"
    return network, keys
