"""Whether memory ran out, whoever says so."""

from __future__ import annotations

import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA's by type, the CPU allocator's by words."""
    words = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        said in words
        for said in ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
    )
