"""Training samples by number: a function of the recipe, its seed and the number alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.views import Difficulty, MapPool, OverlapPool, Sample, synthetic_sample

MIN_VISIBLE = 0.06
"""Of the view's pixels: some 12 cells of 196."""

TRIES = 8


class SampleSource:
    """Samples by number.

    Numbers that follow each other come from images that follow each other by name, so that a batch
    of neighbours is made of similar places: hard negatives.

    Args:
        maps: satellite images; map i is made of image i modulo their number.
        overlaps: real overlapping photos, or None.
        synthetic, real: how many maps of each; the real ones come last.
        views: of each map.
        seed: of all chance.
        difficulty: how far views are from the map.
        map_px, view_px: sides, multiples of 32.
    """

    def __init__(
        self,
        maps: MapPool,
        overlaps: OverlapPool | None,
        *,
        synthetic: int,
        real: int,
        views: int,
        seed: int,
        difficulty: Difficulty,
        map_px: int = 384,
        view_px: int = 224,
    ) -> None:
        self._maps, self._overlaps = maps, overlaps
        self.synthetic, self.real = synthetic, real if overlaps is not None else 0
        self.views, self.map_px, self.view_px = views, map_px, view_px
        self.seed, self._difficulty = seed, difficulty

    def __len__(self) -> int:
        return self.synthetic + self.real

    @property
    def digest(self) -> str:
        """SHA-256 of all that samples are made of; pictures count by name and size."""
        files = (
            {p for o in self._overlaps.overlaps for p in (o.first, o.second)}
            if (self._overlaps is not None)
            else set()
        )
        listed = [*self._maps.files, *sorted(files)]
        homographies = (
            []
            if self._overlaps is None
            else [
                [round(float(v), 9) for v in o.homography.ravel()] for o in self._overlaps.overlaps
            ]
        )
        said = {
            "format": 1,
            "pictures": [[path.name, path.stat().st_size] for path in listed],
            "homographies": homographies,
            "difficulty": asdict(self._difficulty),
            "numbers": [
                self.synthetic, self.real, self.views, self.seed, self.map_px, self.view_px
            ],
        }  # fmt: skip
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def samples(self, index: int) -> tuple[list[Sample], int]:
        """The views of map `index`, and its group: maps of one group may show the same ground.

        Raises:
            PhotoError: a picture can't be read.
        """
        rng = np.random.default_rng((self.seed, index))
        if index < self.synthetic:
            images = len(self._maps)
            # so that the numbers go through all images before any comes again
            number = (
                index % images if self.synthetic >= images else index * images // self.synthetic
            )
            image = self._maps.square(number, rng, self.map_px)
            return [self._synthetic(image, rng) for _ in range(self.views)], number
        if self._overlaps is None or index >= len(self):
            raise IndexError(index)
        number = (index - self.synthetic) * 7919 % len(self._overlaps)
        for _ in range(TRIES):
            found = self._overlaps.samples(
                number, rng, count=self.views, map_px=self.map_px, view_px=self.view_px,
                difficulty=self._difficulty,
            )  # fmt: skip
            if all(map(usable, found)):
                break
        return found, len(self._maps) + self._overlaps.site(number)

    def decoy(self, index: int, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The sample's view as a wrong heading, 25 degrees off or more, would have rendered it."""
        rng = np.random.default_rng((self.seed, index, 1))
        return turned(sample.view, sample.view_mask, float(rng.uniform(25, 335)))

    def _synthetic(self, image: NDArray[np.uint8], rng: np.random.Generator) -> Sample:
        for _ in range(TRIES):
            sample = synthetic_sample(image, rng, view_px=self.view_px, difficulty=self._difficulty)
            if usable(sample):
                break
        return sample


def usable(sample: Sample) -> bool:
    """Whether enough of the view can be seen, around a place on the map."""
    side = sample.map.shape[0]
    if sample.view_mask.mean() < MIN_VISIBLE:
        return False
    if not (0 <= sample.row < side and 0 <= sample.column < side):
        return False
    return bool(sample.map_mask[int(sample.row), int(sample.column)])


def turned(
    view: NDArray[np.uint8], mask: NDArray[np.bool_], angle_deg: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The view as another heading would have rendered it."""
    side = view.shape[0]
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), angle_deg, 1.0)
    image = cv2.warpAffine(view, turn, (side, side), flags=cv2.INTER_LINEAR)
    valid = cv2.warpAffine(mask.astype(np.uint8), turn, (side, side), flags=cv2.INTER_NEAREST)
    return np.where(valid[..., None] > 0, image, 0).astype(np.uint8), np.asarray(valid > 0)
