"""What a vision-language model needs of one picture, as a file that is right or refused.

The file is safetensors throughout, with small things as tensors too: numpy has no bfloat16, and
safetensors gives torch no metadata. One tensor is a digest of the others, of the model and of the
picture, so a flipped bit, a cut file or a file in another's place is refused. The digest finds
accidents; it's no signature.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MAX_HEADER_BYTES = 64 * 1024
"""Ours take a few hundred bytes; the parser alone would take 100 MB of JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """What a vision-language model needs of one picture.

    Attributes:
        ids: token ids that the picture's place in the prompt expands to.
        grid: the family's own layout numbers (Qwen: t, h, w); may be empty.
        tokens: (N, D) visual embeddings, on the CPU, in the model's dtype.
        deepstack: (N, D) each, fed to later layers (Qwen3-VL); empty elsewhere.
    """

    ids: tuple[int, ...]
    grid: tuple[int, ...]
    tokens: torch.Tensor
    deepstack: tuple[torch.Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of the tensors."""
        return sum(t.numel() * t.element_size() for t in (self.tokens, *self.deepstack))


def pack(features: ImageFeatures, identity: str) -> bytes:
    """A safetensors file of features; `identity` names the model and the picture."""
    import torch
    from safetensors.torch import save

    tensors = {
        "ids": torch.tensor(features.ids, dtype=torch.int64),
        "grid": torch.tensor(features.grid, dtype=torch.int64),
        "tokens": features.tokens,
        **{f"deepstack.{i}": level for i, level in enumerate(features.deepstack)},
    }
    # Cloned: safetensors refuses tensors that share memory or have gaps, as slices of a batch do.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    digest = torch.frombuffer(bytearray(_digest(tensors, identity)), dtype=torch.uint8)
    return save({**tensors, "digest": digest})


def unpack(data: bytes, identity: str) -> ImageFeatures | None:
    """What `pack` packed for this `identity`; None for anything else.

    safetensors itself refuses shapes that don't fill the file exactly, so a header can't make it
    allocate more than the bytes that are there.
    """
    from safetensors.torch import load

    if int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
        return None
    try:
        tensors = load(data)
        stored = bytes(tensors.pop("digest").tolist())
        if stored != _digest(tensors, identity):
            return None
        return ImageFeatures(
            ids=tuple(tensors.pop("ids").tolist()),
            grid=tuple(tensors.pop("grid").tolist()),
            tokens=tensors.pop("tokens"),
            deepstack=tuple(tensors[f"deepstack.{i}"] for i in range(len(tensors))),
        )
    except Exception:  # a damaged header makes safetensors and torch raise all sorts
        return None


def _digest(tensors: dict[str, torch.Tensor], identity: str) -> bytes:
    """BLAKE2b over names, dtypes, shapes and bytes, bound to the model and the picture."""
    import torch

    digest = hashlib.blake2b(identity.encode(), digest_size=32)
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()
