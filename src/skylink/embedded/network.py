"""EfficientNet-Lite0 in PyTorch, read from and written to the ONNX files that SkyLink ships.

Architecture: Tan and Le 2019 (arXiv 1905.11946), "Lite" variant: no squeeze-and-excitation, ReLU6,
stem and head not scaled. Batch norms are folded into the convolutions, as they are shipped, so
that there are no running statistics and training and inference are one function. TensorFlow "SAME"
padding, since the ImageNet weights come from TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from skylink.encoder import IMAGENET_MEAN, IMAGENET_STD
from skylink.errors import ModelError, pip_hint

# (repeats, kernel, stride, expansion, output channels), Table 1 of the paper
STAGES = [
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
]  # fmt: skip
TRUNK_BLOCKS = 11
STEM, HEAD = 32, 1280


class Conv(nn.Module):
    """A convolution with a bias, "SAME" padding and an optional ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1,
        depthwise: bool = False, relu: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, 1 if depthwise else inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.stride, self.relu = stride, relu
        self.groups = outputs if depthwise else 1
        # "SAME" for sides that are multiples of the stride: uneven where the stride is 2
        total = max(kernel - stride, 0)
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

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        layers = [Conv(inputs, wide, 1)] if expansion != 1 else []
        layers += [
            Conv(wide, wide, kernel, stride=stride, depthwise=True),
            Conv(wide, outputs, 1, relu=False),
        ]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def _blocks() -> list[Block]:
    blocks, width = [], STEM
    for repeats, kernel, stride, expansion, outputs in STAGES:
        for repeat in range(repeats):
            blocks.append(
                Block(
                    width, outputs, kernel=kernel, stride=stride if repeat == 0 else 1,
                    expansion=expansion,
                )
            )  # fmt: skip
            width = outputs
    return blocks


class Trunk(nn.Module):
    """(N, H, W, 3) uint8 RGB to the stride-16 feature map of block 10, (N, 112, H/16, W/16)."""

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, STEM, 3, stride=2)
        self.blocks = nn.Sequential(*_blocks()[:TRUNK_BLOCKS])
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.pixels(images))  # type: ignore[no-any-return]

    def pixels(self, images: Tensor) -> Tensor:
        """The stem's output, (N, 32, H/2, W/2)."""
        x = images.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return self.stem(x)  # type: ignore[no-any-return]


class Top(nn.Module):
    """The stride-16 feature map to the stride-32 maps of block 15 (320) and of the head (1280)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*_blocks()[TRUNK_BLOCKS:])
        self.head = Conv(STAGES[-1][-1], HEAD, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(features)
        return x, self.head(x)


def read_weights(module: nn.Module, path: Path) -> None:
    """Fill a module with the weights of a shipped ONNX file, by their names.

    Raises:
        ModelError: the file is missing or holds other weights.
    """
    onnx, numpy_helper = require_onnx()

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf raises its own class
        raise ModelError(f"{path} can't be read: {error}") from error
    found = {
        each.name: torch.from_numpy(numpy_helper.to_array(each).copy())
        for each in model.graph.initializer
    }
    wanted = module.state_dict()
    for name, value in wanted.items():
        if name not in found or found[name].shape != value.shape:
            raise ModelError(f"{path} has no weight {name} of shape {tuple(value.shape)}")
    module.load_state_dict({name: found[name] for name in wanted})


def require_onnx() -> tuple[Any, Any]:
    """The modules `onnx` and `onnx.numpy_helper`. Raises ModelError."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise ModelError("the package onnx is not installed", hint=pip_hint("train")) from error
    return onnx, numpy_helper


def shipped(part: Literal["trunk", "top"]) -> Path:
    """The ONNX file of a half of the network, as installed."""
    from importlib import resources

    return Path(str(resources.files("skylink") / "weights" / f"efficientnet_lite0_{part}.onnx"))
