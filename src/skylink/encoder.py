"""Images to descriptors and feature maps. Each encoder carries its own preprocessing.

The embedded encoder is EfficientNet-Lite0 (ImageNet weights), run by ONNX Runtime on the CPU; any
other ONNX image model comes in by `onnx:PATH`, and models of other libraries by `skylink.encoders`.
Adding an encoder is one class with the attributes and the two methods of `Encoder`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from skylink.errors import ModelError

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Floats = NDArray[np.float32]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 4
"""Images in one run of a network. Runs are single-threaded and go on side by side, one a core:
half the time of ONNX Runtime's own threads on two busy cores, and never slower (docs/log.md)."""

MAX_DENSE_CELLS = 48
"""Cells along a view's side up to which a model's feature map serves dense search: kernels have to
fit well within an FFT block (correlation.py)."""


@runtime_checkable
class Encoder(Protocol):
    """What a retriever and a gallery ask of a model.

    Attributes:
        name: how the command line and `gallery.json` call it.
        fingerprint: changes whenever weights or preprocessing change.
        input_px: side of the images that `encode` is meant for.
        stride_px: pixels a cell of the feature map.
        channels: of the feature map; 0 where the model has none (no dense search then).
        parts: sizes of the independent parts of the descriptor; their sum is D.
    """

    name: str
    fingerprint: str
    input_px: int
    stride_px: int
    channels: int
    parts: tuple[int, ...]

    def encode(self, images: Images, masks: Masks | None = None) -> Floats:
        """Descriptors (N, D) float32, unit norm in each part / sqrt(parts), so unit norm in all.

        Args:
            images: (N, S, S, 3) uint8 RGB, S = `input_px`.
            masks: (N, S, S) bool, True where the pixel is valid; None: all are.
        """
        ...

    def feature_map(self, images: Images) -> Floats:
        """(N, H / stride, W / stride, C) float32 of (N, H, W, 3) uint8 RGB.

        H and W are multiples of 2 * `stride_px`. Nothing is normalised.
        """
        ...


def fill_invalid(images: Images, masks: Masks) -> Images:
    """Copies where invalid pixels take the mean colour of the valid ones: no false edges."""
    filled = images.copy()
    for image, mask in zip(filled, masks, strict=True):
        if not mask.all():
            mean = cv2.mean(image, mask=mask.view(np.uint8))[:3] if mask.any() else (128, 128, 128)
            np.copyto(image, np.asarray(mean, np.uint8), where=~mask[..., None])
    return filled


def cell_masks(masks: Masks, stride_px: int) -> Floats:
    """(N, H/s, W/s) float32: 1 where more than half of the cell's pixels are valid, else 0."""
    n, h, w = masks.shape
    share = masks.reshape(n, h // stride_px, stride_px, w // stride_px, stride_px).mean((2, 4))
    return np.asarray(share > 0.5, dtype=np.float32)


def masked_mean(features: Floats, weights: Floats, power: float = 1.0) -> Floats:
    """Generalised mean (GeM) of (N, C, h, w) over cells with weights (N, h, w) -> (N, C).

    Source: Radenovic et al. 2018 (arXiv 1711.02512), equation 3; power 1 is the plain mean.
    An all-zero mask counts as all ones.
    """
    weights = np.where(weights.any((1, 2), keepdims=True), weights, 1.0)
    x = features if power == 1 else np.maximum(features, 1e-6) ** power
    pooled = np.einsum("nchw,nhw->nc", x, weights) / weights.sum((1, 2))[:, None]
    return np.asarray(pooled if power == 1 else pooled ** (1 / power), dtype=np.float32)


def unit_parts(descriptors: NDArray[Any], parts: Sequence[int]) -> Floats:
    """Each part scaled to norm 1/sqrt(len(parts)): no part outvotes another by its size."""
    scale = 1 / np.sqrt(len(parts))
    pieces = np.split(np.asarray(descriptors, np.float32), np.cumsum(parts)[:-1], axis=1)
    unit = [
        p * (scale / np.maximum(np.linalg.norm(p, axis=1, keepdims=True), 1e-9)) for p in pieces
    ]
    return np.concatenate(unit, axis=1).astype(np.float32, copy=False)


def standardise(
    descriptors: NDArray[Any], mean: NDArray[Any], std: NDArray[Any], parts: Sequence[int]
) -> Floats:
    """(N, D) descriptors centred and scaled by a map's own statistics, unit norm again.

    Measured on real flights (docs/log.md): it takes what all of a map has in common out of the
    comparison.
    """
    centred = (np.asarray(descriptors, np.float32) - mean) / np.maximum(std, 1e-6)
    return unit_parts(centred, parts)


def onnx_session(model: str | bytes, origin: str) -> Any:
    """A single-threaded ONNX Runtime session of a file or its bytes. Raises ModelError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own unexported classes
        raise ModelError(
            f"{origin} is not an ONNX model that ONNX Runtime can load: "
            f"{str(error).splitlines()[0][:200]}"
        ) from error


@lru_cache(maxsize=1)
def core_threads() -> ThreadPoolExecutor:
    """One thread a core that this process may use: ONNX Runtime and OpenCV release the lock."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return ThreadPoolExecutor(cores, thread_name_prefix="encode")


def _in_batches(
    run: Callable[[NDArray[Any]], list[Floats]], images: NDArray[Any], most: int = BATCH
) -> list[Floats]:
    """Apply a network to at most `most` images (or their numbers) at a time; outputs joined along
    axis 0."""
    if len(images) == 0:
        raise ModelError("no images to encode")
    size = most if len(images) > 2 * BATCH else 1
    batches = [images[i : i + size] for i in range(0, len(images), size)]
    chunks = list(core_threads().map(run, batches)) if len(batches) > 1 else [run(images)]
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def check_images(images: Images, side: int | None, multiple: int) -> None:
    """Refuse what isn't (N, H, W, 3) uint8, of another side, or not of multiples of pixels."""
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ModelError(f"images must be (N, H, W, 3) uint8, got {images.shape} {images.dtype}")
    if side is not None and images.shape[1:3] != (side, side):
        raise ModelError(f"this encoder takes {side} x {side} px, got {images.shape[1:3]}")
    if images.shape[1] % multiple or images.shape[2] % multiple:
        raise ModelError(f"image sides must be multiples of {multiple} px, got {images.shape[1:3]}")


class EmbeddedEncoder:
    """EfficientNet-Lite0, untrained beyond ImageNet. See `weights/README.md` for the model card.

    Descriptor: GeM (p = 3) of the head, mean of block 15, mean of block 10 (1280 + 320 + 112).
    Feature map: block 10, stride 16, 112 channels.
    """

    name = "efficientnet-lite0"
    input_px = 224
    stride_px = 16
    channels = 112
    parts: tuple[int, ...] = (1280, 320, 112)
    _files = ("efficientnet_lite0_trunk.onnx", "efficientnet_lite0_top.onnx")

    def __init__(self) -> None:
        folder = resources.files("skylink") / "weights"
        digest = hashlib.sha256(b"gem3 head + mean block15 + mean block10, v1")
        models = []
        for file in self._files:
            try:
                models.append((folder / file).read_bytes())
            except OSError as error:
                raise ModelError(
                    f"the embedded weights {file} are missing from this installation",
                    hint="reinstall skylink-geo",
                ) from error
            digest.update(models[-1])
        self.fingerprint = digest.hexdigest()[:16]
        self._trunk = onnx_session(models[0], self._files[0])
        self._top_model = models[1]
        self._top_session: Any = None

    def _run_trunk(self, images: Images) -> list[Floats]:
        return list(self._trunk.run(None, {"images": images}))

    def _run_all(self, images: Images) -> list[Floats]:
        if self._top_session is None:  # dense search alone never needs it
            self._top_session = onnx_session(self._top_model, self._files[1])
        features = self._run_trunk(images)[0]
        return [features, *self._top_session.run(None, {"features": features})]

    def encode(self, images: Images, masks: Masks | None = None) -> Floats:
        """See `Encoder.encode`; D = 1712, more where trained."""
        check_images(images, self.input_px, 32)
        if masks is None:
            masks = np.ones(images.shape[:3], dtype=bool)
        fine, coarse = cell_masks(masks, 16), cell_masks(masks, 32)
        filled = fill_invalid(images, masks)

        def describe(chosen: NDArray[np.intp]) -> list[Floats]:
            features, block15, head = self._run_all(filled[chosen])
            return [
                masked_mean(head, coarse[chosen], power=3.0),
                masked_mean(block15, coarse[chosen]),
                masked_mean(features, fine[chosen]),
                *self._further(features, coarse[chosen]),
            ]

        pooled = _in_batches(describe, np.arange(len(images)))
        return unit_parts(np.concatenate(pooled, axis=1), self.parts)

    def _further(self, features: Floats, coarse: Floats) -> list[Floats]:
        """Further parts of the descriptor, of trained encoders."""
        return []

    def feature_map(self, images: Images) -> Floats:
        """See `Encoder.feature_map`; C = 112, stride 16."""
        check_images(images, None, 32)
        features = _in_batches(self._run_trunk, images)[0]
        return np.ascontiguousarray(features.transpose(0, 2, 3, 1))


class OnnxEncoder:
    """Any ONNX image model: one image input, a (N, D) descriptor or a (N, C, h, w) feature map.

    The input is (N, 3, S, S) float32, normalised by ImageNet's mean and deviation, or
    (N, S, S, 3) uint8 as it is. The model's own metadata may say otherwise with the keys
    `skylink.mean` and `skylink.std` (JSON lists of three, for values in 0..1) and
    `skylink.input_px` (needed where the model's side is dynamic). A feature map is pooled over the
    mask to a descriptor and, where the model takes any side, is used for dense search as well.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"no model file at {path}", hint="type onnx:/path/to/model.onnx")
        self._session = onnx_session(str(path), str(path))
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ModelError(f"{path} must have one 4-D image input, it has {len(inputs)} input(s)")
        meta = dict(self._session.get_modelmeta().custom_metadata_map)
        self._input = inputs[0].name
        self._bytes = "uint8" in inputs[0].type
        side = inputs[0].shape[1 if self._bytes else 2]
        self._most = 1 if inputs[0].shape[0] == 1 else BATCH  # exported without a batch axis
        try:
            self.input_px = int(meta.get("skylink.input_px", side))
            self._mean, self._std = (
                np.array(json.loads(meta.get(f"skylink.{key}", str(list(usual)))), np.float64)
                for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
            )
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"{path}: the model's input side or its skylink.* metadata can't be read",
                hint="set the metadata keys skylink.input_px, skylink.mean and skylink.std",
            ) from error
        if self._mean.shape != (3,) or self._std.shape != (3,) or not (self._std > 0).all():
            raise ModelError(f"{path}: skylink.mean and skylink.std must be three numbers each")
        if not 32 <= self.input_px <= 2048:
            raise ModelError(f"{path}: input side {self.input_px} px is not in 32..2048")
        digest = hashlib.sha256(path.read_bytes())
        self.fingerprint = digest.hexdigest()[:16]
        self.name = f"onnx:{path}"
        probe = self._run(np.full((1, self.input_px, self.input_px, 3), 128, np.uint8))[0]
        if probe.ndim not in (2, 4) or len(probe) != 1 or 0 in probe.shape:
            raise ModelError(
                f"{path} returned shape {probe.shape} for one image: expected (1, D) or "
                "(1, C, h, w)"
            )
        self.parts: tuple[int, ...] = (int(probe.shape[1]),)
        self.channels, self.stride_px = 0, 16
        if probe.ndim == 4:
            cells = int(probe.shape[2])
            if probe.shape[3] != cells or self.input_px % cells:
                raise ModelError(
                    f"{path} returned {cells} x {probe.shape[3]} cells for {self.input_px} px: "
                    "expected a square map of whole pixels a cell"
                )
            self.stride_px = self.input_px // cells
            if not isinstance(side, int) and cells <= MAX_DENSE_CELLS:
                self.channels = int(probe.shape[1])

    def _run(self, images: Images) -> list[Floats]:
        if self._bytes:
            batch: NDArray[Any] = images
        else:
            scaled = (images.astype(np.float32) / 255 - self._mean) / self._std
            batch = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)
        try:
            out = np.asarray(self._session.run(None, {self._input: batch})[0], np.float32)
        except Exception as error:  # onnxruntime raises its own unexported classes
            raise ModelError(
                f"{self.name} failed on a batch of shape {batch.shape}: "
                f"{str(error).splitlines()[0][:200]}"
            ) from error
        if not np.isfinite(out).all():
            raise ModelError(f"{self.name} returned values that are not finite")
        return [out]

    def encode(self, images: Images, masks: Masks | None = None) -> Floats:
        """See `Encoder.encode`."""
        check_images(images, self.input_px, 1)
        if masks is None:
            masks = np.ones(images.shape[:3], dtype=bool)
        out = _in_batches(self._run, fill_invalid(images, masks), self._most)[0]
        if out.ndim == 4:
            out = masked_mean(out, cell_masks(masks, self.stride_px))
        return unit_parts(out, self.parts)

    def feature_map(self, images: Images) -> Floats:
        """See `Encoder.feature_map`; only where `channels` > 0."""
        if not self.channels:
            raise ModelError(f"{self.name} has no feature map", hint="use --retriever descriptor")
        check_images(images, None, self.stride_px)
        return np.ascontiguousarray(
            _in_batches(self._run, images, self._most)[0].transpose(0, 2, 3, 1)
        )


@lru_cache(maxsize=4)
def load_encoder(spec: str = "embedded") -> Encoder:
    """The encoder of a spec: `embedded`, or one of `skylink.encoders`.

    `embedded` has the trained files that come with SkyLink; `embedded-base` (or its own name,
    `efficientnet-lite0`) is without them.

    Raises:
        ModelError: unknown spec, or the model can't be loaded.
    """
    if spec in ("embedded-base", EmbeddedEncoder.name):
        return EmbeddedEncoder()
    if spec == "embedded":
        from skylink.embedded.encoder import has_trained, shipped_folder, trained_encoder

        folder = shipped_folder()
        return trained_encoder(folder, name=spec) if has_trained(folder) else EmbeddedEncoder()
    from skylink.encoders import make_encoder

    return make_encoder(spec)
