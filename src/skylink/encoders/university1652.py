"""`university1652:PATH`: the University-1652 baseline (Zheng et al., ACM MM 2020).

Read in github.com/layumi/University1652-Baseline: `model.py` (ResNet-50 for each view, then a
linear layer and batch normalisation, 512 numbers, before the classifier), `test.py` (resized by
bicubic interpolation; the outputs of a picture and of its mirror image are added, then normalised),
`utils.py`. What the weights don't tell is in `opts.yaml`, which training writes beside them: side,
pooling, and the stride of the last stage.

`model_1` sees satellite images, the last of `model_1..3` drone photos (with three views the second
sees the street). An encoder is one for both, so the two must have equal weights (`--share`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from skylink.encoders.checkpoint import (
    AFFINE,
    Tensors,
    drop_known,
    leaves,
    load_whole,
    read_tensors,
)
from skylink.encoders.extra import missing, torch
from skylink.encoders.torch_encoder import Preprocessing, TorchEncoder
from skylink.errors import ModelError

try:
    import torchvision
except (ImportError, OSError, RuntimeError) as problem:
    raise missing("torchvision", problem) from problem

CLASSIFIERS = frozenset(
    [*leaves("classifier.classifier.0", AFFINE)]
    + [key for i in (1, 2, 3) for key in leaves(f"model_{i}.model.fc", AFFINE)]
)
"""The places' classifier, and ImageNet's, which is stored but never called."""

BOTTLENECK = 512
POOLS = ("avg", "max", "avg+max")
OPTIONS = {"h": "256", "w": "256", "stride": "2", "pool": "avg"}
"""What `opts.yaml` may say, and the training script's defaults."""


class Baseline(torch.nn.Module):
    """ResNet-50 without its classifier, pooling, and the bottleneck that gives the descriptor."""

    def __init__(self, stride: int, pool: str, trunk: Any = None) -> None:
        super().__init__()
        self.model = trunk or torchvision.models.resnet50()
        self.model.fc = torch.nn.Identity()
        if stride == 1:
            for layer in (self.model.layer4[0].conv2, self.model.layer4[0].downsample[0]):
                layer.stride = (1, 1)
        self._pool = pool
        width = self.model.layer4[-1].conv3.out_channels * (2 if pool == "avg+max" else 1)
        self.add_block = torch.nn.Sequential(
            torch.nn.Linear(width, BOTTLENECK), torch.nn.BatchNorm1d(BOTTLENECK)
        )

    def forward(self, pixels: Any) -> Any:
        """(N, 3, S, S) -> (N, 512): the sum over the picture and its mirror image."""
        return self._once(pixels) + self._once(pixels.flip(3))

    def _once(self, pixels: Any) -> Any:
        net = self.model
        x = net.maxpool(net.relu(net.bn1(net.conv1(pixels))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        means, peaks = x.mean((2, 3)), x.amax((2, 3))
        pooled = {"avg": (means,), "max": (peaks,), "avg+max": (means, peaks)}[self._pool]
        return self.add_block(torch.cat(pooled, dim=1))


def load_university1652(path: str, trunk: Any = None) -> TorchEncoder:
    """The encoder of a checkpoint with its `opts.yaml` beside it, D = 512.

    Args:
        path: such as `model/three_view_long_share_d0.75_256_s1_google/net_119.pth`.
        trunk: another ResNet of bottleneck blocks, for tests.

    Raises:
        ModelError: a file can't be read, is not this architecture's, or the views differ.
    """
    options = _read_options(Path(path).expanduser().with_name("opts.yaml"))
    with torch.device("meta"):
        network = Baseline(int(options["stride"]), options["pool"], trunk)
    tensors = read_tensors(path)
    if (
        tensors.keys() != network.state_dict().keys()
    ):  # not one that `skylink train-retriever` wrote
        tensors = _one_for_both(drop_known(tensors, CLASSIFIERS), path)
    load_whole(network, tensors, path)
    return TorchEncoder(
        f"university1652:{path}",
        network,
        Preprocessing(int(options["h"]), resize="pil-bicubic"),
        made_by=f"stride {options['stride']}, {options['pool']}",
    )


def _one_for_both(tensors: Tensors, origin: str) -> Tensors:
    """The branch that both views share, and the bottleneck, by `Baseline`'s names."""
    branches: dict[str, Tensors] = {}
    for key, tensor in tensors.items():
        found = re.fullmatch(r"(model_[123]|classifier)\.(.+)", key)
        if not found:
            raise ModelError(f"{origin}: the key {key} is unknown to us")
        branches.setdefault(found[1], {})[found[2]] = tensor
    bottleneck = branches.pop("classifier", {})
    satellite = branches.get("model_1", {})
    for number, branch in branches.items():
        if branch.keys() != satellite.keys():
            raise ModelError(f"{origin}: {number} has not the keys of model_1")
    drone = branches[max(branches)] if branches else {}
    if len(branches) < 2 or not all(torch.equal(drone[k], v) for k, v in satellite.items()):
        raise ModelError(
            f"{origin} has different weights for satellite images and drone photos",
            hint="an encoder is one for both: use a checkpoint trained with --share",
        )
    return {**satellite, **bottleneck}


def _read_options(path: Path) -> dict[str, str]:
    """What is needed of `opts.yaml`: flat `key: value` lines, checked."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")[:100_000]
    except OSError as error:
        raise ModelError(
            f"no opts.yaml beside the checkpoint ({path}): {error.strerror or error}",
            hint="training writes it there; it tells the stride, which the weights don't",
        ) from error
    read = dict(re.findall(r"^(\w+): *['\"]?([\w+.]+)['\"]? *$", text, flags=re.MULTILINE))
    options = {key: read.get(key, usual) for key, usual in OPTIONS.items()}
    whole = all(options[key].isdecimal() for key in ("h", "w", "stride"))
    if not whole or options["h"] != options["w"] or options["stride"] not in ("1", "2"):
        raise ModelError(
            f"{path}: h {options['h']}, w {options['w']} and stride {options['stride']} are not "
            "usable: expected a square and a stride of 1 or 2"
        )
    if options["pool"] not in POOLS:
        raise ModelError(f"{path}: pool {options['pool']!r} is not one of {', '.join(POOLS)}")
    return options
