"""Weights from files that nobody vouches for: tensors only, bounded, and loaded whole.

Nothing is unpickled beyond tensors, and every key is accounted for: used, known to serve training
alone, or an error.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from skylink.encoders.extra import torch
from skylink.errors import ModelError

MAX_BYTES = 16 * 2**30
"""No image encoder of this field is near 16 GiB; a compressed archive could unpack to more."""

SUFFIXES = (".safetensors", ".pth", ".pt")
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which trainers store the weights beside their optimiser's state."""

AFFINE = ("weight", "bias")
BATCH_NORM = (*AFFINE, "running_mean", "running_var", "num_batches_tracked")

Tensors = dict[str, Any]
"""Name -> torch.Tensor, as in a `state_dict`."""


def leaves(prefix: str, names: Iterable[str]) -> list[str]:
    """`prefix.name` of each name, for lists of keys."""
    return [f"{prefix}.{name}" for name in names]


def read_tensors(path: str | Path) -> Tensors:
    """The tensors of a `.safetensors`, `.pth` or `.pt` file, on the CPU.

    The dictionary may lie under one of `WRAPPERS`. The `module.` that DataParallel puts before
    every key is taken off.

    Raises:
        ModelError: no such file, another kind, too large, damaged, or more than tensors in it.
    """
    path = Path(path).expanduser()
    if path.suffix not in SUFFIXES:
        raise ModelError(
            f"{path} is not a checkpoint by its name", hint=f"it must end in {', '.join(SUFFIXES)}"
        )
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}", hint="check the path")
    if max(path.stat().st_size, _unpacked_bytes(path)) > MAX_BYTES:
        raise ModelError(f"{path} has more than {MAX_BYTES >> 30} GiB: that is no image encoder")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise ModelError(f"not enough memory to read {path}") from error
    except Exception as error:  # unpickling and safetensors have many, some unexported
        words = " ".join(str(error).split())
        if "weights_only" in words or "Unsupported global" in words:
            raise ModelError(
                f"{path} holds Python objects, not only tensors, and is not loaded for safety",
                hint="where you trust it: torch.save(model.state_dict(), ...) and use that file",
            ) from error
        raise ModelError(f"{path} can't be read: {words[:200]}", hint="copy it again") from error
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelError(f"{path} holds no dictionary of weights")
    wrong = [k for k, v in loaded.items() if not isinstance(v, torch.Tensor)]
    if wrong:
        raise ModelError(
            f"{path}: {wrong[0]!r} is not a tensor",
            hint="save the model's state_dict() alone, and use that file",
        )
    tensors = {str(key): tensor for key, tensor in loaded.items()}
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return tensors


def drop_known(tensors: Tensors, unused: Collection[str]) -> Tensors:
    """Without the keys that serve training alone."""
    return {key: tensor for key, tensor in tensors.items() if key not in unused}


def load_whole(network: Any, tensors: Tensors, origin: str) -> None:
    """Fill a torch.nn.Module: nothing missing, nothing left over, every shape right.

    The network may have been built on torch's meta device, if it makes no tensors of its own
    besides those of its `state_dict`: so building it costs neither memory nor time.

    Raises:
        ModelError: naming the first key that doesn't fit.
    """
    wanted = network.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    extra = sorted(tensors.keys() - wanted.keys())
    for what, keys in (("lacks", missing), ("has, unknown to us,", extra)):
        if keys:
            raise ModelError(
                f"{origin} {what} {len(keys)} of the tensors, the first is {keys[0]}",
                hint="is it a checkpoint of this architecture?",
            )
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            raise ModelError(
                f"{origin}: {key} has shape {tuple(tensor.shape)}, not {tuple(wanted[key].shape)}",
                hint="is it a checkpoint of this architecture and size?",
            )
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{origin}: {key} holds values that are not finite")
    cast = {key: tensor.to(wanted[key].dtype) for key, tensor in tensors.items()}
    network.load_state_dict(cast, strict=True, assign=True)


def _unpacked_bytes(path: Path) -> int:
    """What torch's zip archives say to hold; 0 for other formats."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return 0
