"""One training sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A map and a view of a part of it, both north-up and of the same metres a pixel.

    Attributes:
        map: (M, M, 3) uint8 RGB, M a multiple of 32.
        map_mask: (M, M) bool, where the map is known.
        view: (V, V, 3) uint8 RGB, V a multiple of 32; zero where not valid.
        view_mask: (V, V) bool.
        row, column: where on the map the view's centre lies, pixels from its top left corner.
        source: what it was made of, for messages.
    """

    map: NDArray[np.uint8]
    map_mask: NDArray[np.bool_]
    view: NDArray[np.uint8]
    view_mask: NDArray[np.bool_]
    row: float
    column: float
    source: str
