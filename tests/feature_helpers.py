"""Visual features to put into a cache, and looks at its folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from skylink.lvlm.cache import FeatureCache, ImageFeatures, picture_key  # noqa: E402

PLENTY = 10**9


def key_of(number: int) -> str:
    return picture_key(np.full((2, 2, 3), number, np.uint8))


def features_of(number: int, *, rows: int = 6, dtype: Any = None, levels: int = 2) -> ImageFeatures:
    """Features that differ from every other number's, the same in every process."""
    source = torch.Generator().manual_seed(number)

    def drawn() -> Any:
        return torch.randn(rows, 32, generator=source).to(dtype or torch.float32)

    return ImageFeatures(
        ids=(1, *[number + 7] * rows, 2),
        grid=(1, 2, number),
        tokens=drawn(),
        deepstack=tuple(drawn() for _ in range(levels)),
    )


def same(a: ImageFeatures | None, b: ImageFeatures) -> bool:
    """Equal to the bit, dtypes included."""
    if a is None or (a.ids, a.grid, len(a.deepstack)) != (b.ids, b.grid, len(b.deepstack)):
        return False
    pairs = zip((a.tokens, *a.deepstack), (b.tokens, *b.deepstack), strict=True)
    return all(
        x.dtype == y.dtype
        and x.shape == y.shape
        and torch.equal(x.contiguous().view(torch.uint8), y.contiguous().view(torch.uint8))
        for x, y in pairs
    )


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def leftovers(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.tmp"))


def entry_bytes(folder: Path, rows: int = 6) -> int:
    """What one entry takes; all numbers take the same."""
    FeatureCache(folder, "m", max_bytes=PLENTY).put(key_of(0), features_of(0, rows=rows))
    return entries(folder)[0].stat().st_size


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def fail(number: int) -> Any:
    def raiser(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return raiser
