"""Satellite images to learn from: folders of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.errors import QueriesError
from skylink.photo import load_photo

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
MAX_IMAGES = 100_000


class MapPool:
    """Images under some folders, in the order of their names.

    Args:
        folders: searched with their subfolders.
        every, skip: keep images whose number modulo `every` is (skip False) or is not (skip True)
            0: a split into validation and training that needs no list.

    Raises:
        QueriesError: no image there, or too many.
    """

    def __init__(self, folders: Sequence[Path], *, every: int = 1, skip: bool = False) -> None:
        found = sorted(
            path
            for folder in folders
            for path in Path(folder).rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        self.files = [p for i, p in enumerate(found) if (i % every == 0) != skip]
        if not self.files:
            raise QueriesError(f"no images in {', '.join(map(str, folders))}")
        if len(self.files) > MAX_IMAGES:
            raise QueriesError(f"{len(self.files)} images are more than {MAX_IMAGES}")

    def __len__(self) -> int:
        return len(self.files)

    def square(self, index: int, rng: np.random.Generator, side_px: int) -> NDArray[np.uint8]:
        """A square of one image: (side_px, side_px, 3) uint8 RGB.

        Turned by quarters and mirrored by chance. A larger image is reduced by chance and cut, a
        smaller one enlarged.

        Raises:
            PhotoError: the image can't be read.
        """
        image = load_photo(self.files[index]).image
        height, width = image.shape[:2]
        least = side_px / min(height, width)  # the scale at which it just fills the square
        scale = least * float(rng.uniform(1.0, 1.35 if least >= 1 else min(3.0, 1 / least)))
        size = (max(side_px, round(width * scale)), max(side_px, round(height * scale)))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)
        row = int(rng.integers(size[1] - side_px + 1))
        column = int(rng.integers(size[0] - side_px + 1))
        image = image[row : row + side_px, column : column + side_px]
        image = np.rot90(image, int(rng.integers(4)))
        if rng.random() < 0.5:
            image = image[:, ::-1]
        return np.ascontiguousarray(image)
