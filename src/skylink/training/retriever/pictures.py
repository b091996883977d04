"""Pictures of examples as an encoder takes them: squares, decoded by threads, turned."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from skylink.datasets import Item, PictureReader
from skylink.encode import to_square
from skylink.encoder import Encoder
from skylink.photo import load_photo

Square = NDArray[np.uint8]
Turn = tuple[bool, int]
"""Mirrored left to right, then so many quarter turns."""
AS_IT_IS: Turn = (False, 0)


class Pictures:
    """Reads pictures; the first that are read are kept, as far as memory allows.

    Args:
        encoder: whose squares they become.
        workers: threads that decode.
        max_bytes: of pictures that are kept.
    """

    def __init__(self, encoder: Encoder, *, workers: int, max_bytes: int) -> None:
        self._encoder = encoder
        self._room = max_bytes // (3 * encoder.input_px**2)
        self._kept: dict[str, Square] = {}
        self._workers = workers
        self._maps = PictureReader()  # of one thread: this one

    def read(self, items: Sequence[Item], turns: Sequence[Turn] | None = None) -> Square:
        """(N, S, S, 3) uint8, each turned as asked for.

        Raises:
            PhotoError, MapError: one can't be read; it is named.
        """
        keys = [f"{item.path}|{item.window}" for item in items]
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in self._kept}
        whole = {key: item for key, item in new.items() if item.window is None}
        read: dict[str, Square] = {}
        if whole:  # threads cost nothing beside decoding, and so none outlives its work
            with ThreadPoolExecutor(self._workers, thread_name_prefix="decode") as pool:
                read.update(zip(whole, pool.map(self._photo, whole.values()), strict=True))
        for key, item in new.items():
            if item.window is not None:
                read[key] = to_square(self._maps.read(item), self._encoder)
        for key, square in read.items():
            if len(self._kept) < self._room:
                self._kept[key] = square
        squares = [read[key] if key in read else self._kept[key] for key in keys]
        return np.stack(
            [
                turned(square, turn)
                for square, turn in zip(squares, turns or [AS_IT_IS] * len(items), strict=True)
            ]
        )

    def _photo(self, item: Item) -> Square:
        return to_square(load_photo(item.path, name=item.id).image, self._encoder)


def turned(square: Square, turn: Turn) -> Square:
    """(S, S, 3) mirrored and turned counter-clockwise; both are exact."""
    mirrored, quarters = turn
    return np.rot90(square[:, ::-1] if mirrored else square, quarters)
