"""`geoembed`: the ResNet-18 for nadir aerial tiles that the PyPI package geoembed carries.

geoembed 1.1.2 (MIT) bundles `weights/v3.npz`; its own inference needs OpenCL, so the network is run
here by torch, and geoembed itself is never imported. As its `arch.py` and `preprocess.py` have it:
128 px by Pillow's bilinear resizing, values in [-1, 1]; a ResNet-18 whose stem is a 3 x 3
convolution of stride 1 without pooling; 4 x 4 means of the last map, flattened; a linear layer to
256 numbers, normalised. Tiles were of web map zoom 20, about 0.1 to 0.15 m a pixel before resizing.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from skylink.encoders.checkpoint import Tensors, load_whole
from skylink.encoders.extra import torch
from skylink.encoders.torch_encoder import Preprocessing, TorchEncoder
from skylink.errors import ModelError, pip_hint

HALF = (0.5, 0.5, 0.5)
PREPROCESSING = Preprocessing(128, HALF, HALF, resize="pil-bilinear")
POOLED = 4
WIDTH, EMBEDDED = 64, 256
MAX_BYTES = 200 * 2**20
CONSTANTS = {"embed_dim": EMBEDDED, "base_channels": WIDTH, "pool_size": POOLED}
"""What the file says of its own architecture: another value is another network."""


def load_geoembed(weights: Path | None = None) -> TorchEncoder:
    """The encoder, D = 256.

    Args:
        weights: another file than the installed package's, for tests.

    Raises:
        ModelError: geoembed is not installed, or its file is not the network described above.
    """
    path = weights or _installed()
    network = TileNetwork()
    load_whole(network, _read(path), str(path))
    return TorchEncoder("geoembed", network, PREPROCESSING)


class Block(torch.nn.Module):
    """ResNet's basic block, by the file's names."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        nn = torch.nn
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride != 1 or inputs != outputs:
            narrow = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.short: Any = nn.Sequential(narrow, nn.BatchNorm2d(outputs))
        else:
            self.short = nn.Identity()

    def forward(self, x: Any) -> Any:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inner + self.short(x))


class TileNetwork(torch.nn.Module):
    """(N, 3, 128, 128) -> (N, 256)."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        stem = nn.Sequential(nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTH))
        widths = [WIDTH, *(WIDTH << stage for stage in range(4))]
        layers = {
            f"layer{i + 1}": nn.Sequential(
                Block(widths[i], widths[i + 1], 1 if i == 0 else 2),
                Block(widths[i + 1], widths[i + 1], 1),
            )
            for i in range(4)
        }
        self.bb = nn.ModuleDict({"stem": stem, **layers})
        self.fc = nn.Linear(widths[-1] * POOLED**2, EMBEDDED)

    def forward(self, pixels: Any) -> Any:
        """See the class."""
        x = torch.relu(self.bb["stem"](pixels))
        for stage in range(1, 5):
            x = self.bb[f"layer{stage}"](x)
        return self.fc(torch.nn.functional.adaptive_avg_pool2d(x, POOLED).flatten(1))


def _installed() -> Path:
    """The file in the installed package, found without running the package."""
    spec = importlib.util.find_spec("geoembed")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "weights" / "v3.npz"
        if path.is_file():
            return path
    raise ModelError(
        "the encoder geoembed needs the package of that name, with its weights/v3.npz",
        hint=f"{pip_hint('bases')}, then pip install --no-deps geoembed==1.1.2",
    )


def _read(path: Path) -> Tensors:
    """The file's arrays by `TileNetwork`'s names; the counters it lacks are zero."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} is larger than {MAX_BYTES >> 20} MiB: not the file we know")
        with np.load(path, allow_pickle=False) as data:
            arrays = {key: np.asarray(data[key]) for key in data.files}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ModelError(f"{path} can't be read: {error}", hint="install geoembed again") from error
    for name, expected in CONSTANTS.items():
        value = arrays.pop(name, np.zeros(0)).ravel().tolist()
        if value != [expected]:
            raise ModelError(f"{path}: {name} is {value}, not {expected}", hint="geoembed==1.1.2")
    tensors: Tensors = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}
    if "fc.weight" in tensors:
        tensors["fc.weight"] = tensors["fc.weight"].T.contiguous()  # stored inputs first
    for key in [key for key in tensors if key.endswith("running_mean")]:
        counter = f"{key.removesuffix('running_mean')}num_batches_tracked"
        tensors[counter] = torch.tensor(0)
    return tensors
