"""The trained embedded encoder: EfficientNet-Lite0 with a dense head and a tuned descriptor.

    dense_head.onnx          (N, C) standardised trunk cells -> (N, D) unit relational cells
    descriptor_tuned.onnx    trunk features and cells' weights -> (N, D) a descriptor; its metadata
                             `skylink.parts` has the sizes of its parts

Either may be missing. They come with SkyLink, or from a folder of `skylink train-encoder`.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from skylink.encoder import EmbeddedEncoder, Floats, core_threads, onnx_session
from skylink.errors import ModelError

DENSE_HEAD, DESCRIPTOR = "dense_head.onnx", "descriptor_tuned.onnx"
MAX_BYTES = 200 * 2**20
CELLS = 8192
"""In one run of the dense head: some 7 MB of activations."""


@runtime_checkable
class CellProjection(Protocol):
    """An encoder whose cells are projected after standardisation.

    Attributes:
        cell_channels: of projected cells.
        unsure: score below which dense search doubts a heading; None: as without projection.
        fits_better: by how much another heading has to fit better; None: as without.
    """

    cell_channels: int
    unsure: float | None
    fits_better: float | None

    def relational_cells(
        self, standardised: NDArray[np.floating], valid: NDArray[np.bool_]
    ) -> Floats:
        """(..., D) float32 unit cells, zero where not valid, D = `cell_channels`.

        Args:
            standardised: (..., C) cells.
            valid: (...,).
        """
        ...


def shipped_folder() -> Path:
    """Where the trained files of this installation are, if it has any."""
    return Path(str(resources.files("skylink") / "weights"))


def has_trained(folder: Path) -> bool:
    """Whether a folder holds a dense head or a tuned descriptor."""
    return any((folder / name).is_file() for name in (DENSE_HEAD, DESCRIPTOR))


def load_embedded(value: str) -> TrainedEncoder:
    """`embedded:FOLDER`: the encoder of a folder that `skylink train-encoder` wrote.

    Raises:
        ModelError: it isn't one.
    """
    return trained_encoder(Path(value).expanduser(), name=f"embedded:{value}")


def trained_encoder(folder: Path, *, name: str) -> TrainedEncoder:
    """The encoder of a folder, with a dense head if it has one.

    Args:
        folder: with one of the two files or both.
        name: how galleries call it.

    Raises:
        ModelError: there is neither file, or one can't be used.
    """
    kind = RelationalEncoder if (folder / DENSE_HEAD).is_file() else TrainedEncoder
    return kind(folder, name=name)


class TrainedEncoder(EmbeddedEncoder):
    """See the module; without a dense head."""

    def __init__(self, folder: Path, *, name: str) -> None:
        super().__init__()
        if not has_trained(folder):
            raise ModelError(
                f"{folder} holds neither {DENSE_HEAD} nor {DESCRIPTOR}",
                hint="give the folder that `skylink train-encoder` wrote",
            )
        self.name = name
        self._descriptor: Any = None
        path = folder / DESCRIPTOR
        if path.is_file():
            model = _read(path)
            self._descriptor = onnx_session(model, str(path))
            self.parts = (*EmbeddedEncoder.parts, *_parts(self._descriptor, path))
            self._mix(model)

    def _mix(self, model: bytes) -> None:
        """The fingerprint is that of all files."""
        digest = hashlib.sha256(self.fingerprint.encode() + model)
        self.fingerprint = digest.hexdigest()[:16]

    def _further(self, features: Floats, coarse: Floats) -> list[Floats]:
        if self._descriptor is None:
            return []
        found = self._descriptor.run(None, {"features": features, "weights": coarse})[0]
        return [np.asarray(found, np.float32)]


class RelationalEncoder(TrainedEncoder):
    """See the module; with a dense head: a `CellProjection`."""

    def __init__(self, folder: Path, *, name: str) -> None:
        super().__init__(folder, name=name)
        path = folder / DENSE_HEAD
        model = _read(path)
        self._head = onnx_session(model, str(path))
        try:
            shape = self._run_head(np.zeros((1, self.channels), np.float32)).shape
        except Exception as error:  # onnxruntime raises its own unexported classes
            raise _wrong(path, str(error).splitlines()[0][:200]) from error
        if len(shape) != 2:
            raise _wrong(path, f"it gives {shape} for one cell")
        self.cell_channels = int(shape[1])
        self.unsure, self.fits_better = (
            _share(self._head, f"skylink.{key}", path) for key in ("unsure", "fits_better")
        )
        self._mix(model)

    def relational_cells(
        self, standardised: NDArray[np.floating], valid: NDArray[np.bool_]
    ) -> Floats:
        """See `CellProjection`. Each cell by itself: a window of a map gives what the map gives."""
        cells = np.asarray(standardised, np.float32)
        out = np.zeros((*valid.shape, self.cell_channels), np.float32)
        chosen = cells[valid]
        if len(chosen):
            batches = [chosen[i : i + CELLS] for i in range(0, len(chosen), CELLS)]
            run = core_threads().map if len(batches) > 1 else map
            out[valid] = np.concatenate(list(run(self._run_head, batches)))
        return out

    def _run_head(self, cells: Floats) -> Floats:
        return np.asarray(self._head.run(None, {"cells": cells})[0], np.float32)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _wrong(path, f"larger than {MAX_BYTES >> 20} MB")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error


def _share(session: Any, key: str, path: Path) -> float | None:
    """A number in 0..1 of a file's metadata; None where it has none."""
    told = session.get_modelmeta().custom_metadata_map.get(key)
    if told is None:
        return None
    try:
        value = float(told)
    except ValueError as error:
        raise _wrong(path, f"its metadata {key} is no number") from error
    if not 0 <= value <= 1:
        raise _wrong(path, f"its metadata {key} is not in 0..1")
    return value


def _parts(session: Any, path: Path) -> tuple[int, ...]:
    told = session.get_modelmeta().custom_metadata_map.get("skylink.parts", "")
    names = {each.name for each in session.get_inputs()}
    try:
        parts = tuple(json.loads(told))
    except (TypeError, ValueError) as error:
        raise _wrong(path, "its metadata skylink.parts can't be read") from error
    size = session.get_outputs()[0].shape[-1]
    fits = all(isinstance(part, int) and part > 0 for part in parts) and sum(parts) == size
    if not (parts and fits and names == {"features", "weights"}):
        raise _wrong(path, "its inputs, output or metadata skylink.parts don't fit")
    return parts


def _wrong(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} is not what `skylink train-encoder` writes: {why}",
        hint="copy the whole folder again from where it was trained",
    )
