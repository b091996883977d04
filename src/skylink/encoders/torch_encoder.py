"""Any torch network as an `Encoder`: preprocessing, batches, checks and a fingerprint in one place.

A network's file says how it's built and loaded; this says the rest, once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from skylink.encode import RESIZES
from skylink.encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_DENSE_CELLS,
    Floats,
    Images,
    Masks,
    check_images,
    fill_invalid,
    unit_parts,
)
from skylink.encoders.extra import torch
from skylink.errors import ModelError

Network = Callable[[Any], Any]
"""(N, 3, H, W) float32, normalised -> (N, D), or (N, C, h, w) for a map."""

CPU_BATCH, GPU_BATCH = 8, 64
NO_MAP_STRIDE = 16
"""Stride that a gallery is laid out by where there is no feature map."""


@dataclass(frozen=True)
class Preprocessing:
    """What a network was trained to see.

    Attributes:
        input_px: side of its square input.
        mean, std: per channel, of values in 0..1.
        resize: how pictures were brought to that side, a name of `skylink.encode.RESIZES`.
    """

    input_px: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resize: str = "pil-bicubic"

    def __post_init__(self) -> None:
        """Raises `ModelError` where a value can't be used."""
        good = len(self.mean) == len(self.std) == 3 and min(self.std) > 0
        if not good or not np.isfinite([*self.mean, *self.std]).all():
            raise ModelError(f"mean {self.mean} and std {self.std} can't normalise three channels")
        if not 32 <= self.input_px <= 2048:
            raise ModelError(f"input side {self.input_px} px is not in 32..2048")
        if self.resize not in RESIZES:
            raise ModelError(f"unknown way to resize {self.resize!r}: not in {', '.join(RESIZES)}")


class TorchEncoder:
    """See `skylink.encoder.Encoder`. On the GPU where torch finds one, else on the CPU; float32.

    Pixels that are masked out take the mean colour of the others: such a network pools by itself,
    so a mask can't reach its pooling. A feature map is offered where `dense` gives a square one of
    whole pixels a cell, at any side.

    Args:
        name: the spec.
        network: the torch.nn.Module that holds all weights.
        preprocessing: what it was trained to see.
        describe: (N, 3, S, S) -> (N, D); the network itself by default.
        dense: (N, 3, H, W) -> (N, C, H / stride, W / stride), if there is one.
        made_by: what else the numbers depend on, such as the library that defines the network.

    Attributes:
        network: the module, in evaluation mode and without gradients; training changes both.
        device: where it is.

    Raises:
        ModelError: it fails on a grey picture, or gives something else than descriptors.
    """

    def __init__(
        self,
        name: str,
        network: Any,
        preprocessing: Preprocessing,
        *,
        describe: Network | None = None,
        dense: Network | None = None,
        made_by: str = "",
    ) -> None:
        self.name = name
        self.input_px = preprocessing.input_px
        self.resize = preprocessing.resize
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.eval().requires_grad_(False).to(self.device)
        self._describe: Network = describe or network
        self._dense = dense
        self._mean, self._std = (
            torch.tensor(v, dtype=torch.float32, device=self.device).view(1, 3, 1, 1)
            for v in (preprocessing.mean, preprocessing.std)
        )
        self.fingerprint = _fingerprint(network, preprocessing, made_by)
        grey = np.full((1, self.input_px, self.input_px, 3), 128, np.uint8)
        probe = self._run(self._describe, grey)
        if probe.ndim != 2 or len(probe) != 1 or probe.shape[1] == 0:
            raise ModelError(f"{name} returned shape {probe.shape} for a picture: expected (1, D)")
        self.parts: tuple[int, ...] = (int(probe.shape[1]),)
        self.channels, self.stride_px = self._map_layout(grey)

    def encode(self, images: Images, masks: Masks | None = None) -> Floats:
        """See `Encoder.encode`."""
        check_images(images, self.input_px, 1)
        filled = images if masks is None else fill_invalid(images, masks)
        return unit_parts(self._run(self._describe, filled), self.parts)

    def feature_map(self, images: Images) -> Floats:
        """See `Encoder.feature_map`; only where `channels` > 0."""
        if not self.channels or self._dense is None:
            raise ModelError(f"{self.name} has no feature map", hint="use --retriever descriptor")
        check_images(images, None, self.stride_px)
        return np.ascontiguousarray(self._run(self._dense, images).transpose(0, 2, 3, 1))

    def describe(self, images: Images) -> Any:
        """(N, S, S, 3) uint8 to (N, D) descriptors, not yet of unit norm, on `device`.

        All at once, with gradients where the caller's context and the parameters let them.
        """
        return self._describe(self._pixels(images))

    def to(self, device: Any) -> TorchEncoder:
        """The same encoder, moved."""
        self.device = torch.device(device)
        self.network.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)
        return self

    def _pixels(self, images: Images) -> Any:
        """(N, 3, H, W) float32 on the device, normalised."""
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        pixels = batch.permute(0, 3, 1, 2).float() / 255
        return ((pixels - self._mean) / self._std).contiguous()

    def _run(self, network: Network, images: Images) -> Floats:
        """A network over batches; the result float32 on the CPU, all of it finite."""
        if len(images) == 0:
            raise ModelError("no images to encode")
        most = CPU_BATCH if self.device.type == "cpu" else GPU_BATCH
        outputs = []
        try:
            with torch.inference_mode():
                for start in range(0, len(images), most):
                    out = network(self._pixels(images[start : start + most]))
                    outputs.append(out.float().cpu().numpy())
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            raise ModelError(
                f"{self.name} failed on pictures of {images.shape[1]} x {images.shape[2]} px: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        joined = np.concatenate(outputs)
        if not np.isfinite(joined).all():
            raise ModelError(f"{self.name} returned values that are not finite")
        return joined

    def _map_layout(self, grey: Images) -> tuple[int, int]:
        """(channels, stride); no channels where dense search can't use the map."""
        none = (0, NO_MAP_STRIDE)
        if self._dense is None:
            return none
        try:
            probe = self._run(self._dense, grey)
            cells = probe.shape[2]
            if probe.shape[3] != cells or self.input_px % cells or cells > MAX_DENSE_CELLS:
                return none
            stride = self.input_px // cells
            height = 2 * stride * (cells // 2 + 1)
            wide = np.full((1, height, height + 2 * stride, 3), 128, np.uint8)
            other = self._run(self._dense, wide)
        except (ModelError, IndexError, AttributeError):  # networks of one side alone are usual
            return none
        expected = (1, probe.shape[1], height // stride, height // stride + 2)
        return (int(probe.shape[1]), stride) if other.shape == expected else none


def _fingerprint(network: Any, preprocessing: Preprocessing, made_by: str) -> str:
    """16 hexadecimal digits of all weights, the preprocessing and what the network is made by."""
    known = json.dumps([asdict(preprocessing), made_by, type(network).__name__], sort_keys=True)
    digest = hashlib.sha256(known.encode())
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(plain.view(torch.uint8).numpy()) if plain.numel() else b"")
    return digest.hexdigest()[:16]
