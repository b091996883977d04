"""`vlad`: a classical base without any training on photos: RootSIFT descriptors, pooled by VLAD.

Sources: RootSIFT and its norm: Arandjelovic & Zisserman, CVPR 2012; VLAD: Jegou et al., CVPR 2010;
normalisation of each word's residual: Arandjelovic & Zisserman, CVPR 2013.

The words are k-means centres of RootSIFT on made-up towns (`learn_words`), kept in `vlad_words.npy`
so that all machines use the same. SIFT's orientation makes the descriptor indifferent to heading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import cv2
import numpy as np

from skylink.encoder import Floats, Images, Masks, check_images, core_threads, unit_parts
from skylink.errors import ModelError

WORDS, SIFT_SIZE = 32, 128
MOST_KEYPOINTS = 400
CONTRAST = 0.02
"""Half of OpenCV's default: roofs and fields are flat, and 256 px hold few strong corners."""
VERSION = "RootSIFT 400 at contrast 0.02, VLAD of 32 words, normalised by word, v1"


class VladEncoder:
    """See `skylink.encoder.Encoder`; D = 32 x 128, no feature map.

    A picture without a single keypoint has no direction: it gets the vector of equal numbers.
    Keypoints in a masked-out region are left out.
    """

    name = "vlad"
    input_px = 256
    stride_px = 16
    channels = 0
    parts: tuple[int, ...] = (WORDS * SIFT_SIZE,)
    resize = "area"

    def __init__(self) -> None:
        self._words = _stored_words()
        digest = hashlib.sha256(VERSION.encode() + self._words.tobytes())
        self.fingerprint = digest.hexdigest()[:16]

    def encode(self, images: Images, masks: Masks | None = None) -> Floats:
        """See `Encoder.encode`."""
        check_images(images, self.input_px, 1)
        if len(images) == 0:
            raise ModelError("no images to encode")
        kept = masks if masks is not None else [None] * len(images)
        rows = core_threads().map(
            lambda image, mask: vlad(root_sift(image, mask), self._words), images, kept
        )
        return unit_parts(np.stack(list(rows)), self.parts)

    def feature_map(self, images: Images) -> Floats:
        """There is none.

        Raises:
            ModelError: always.
        """
        raise ModelError("vlad has no feature map", hint="use --retriever descriptor")


def root_sift(image: Images, mask: Any = None) -> Floats:
    """(n, 128) float32 RootSIFT descriptors of an (H, W, 3) uint8 RGB picture, unit norm.

    Args:
        image: the picture.
        mask: (H, W) bool, True where the pixel is valid; None: all are.
    """
    sift = cv2.SIFT.create(nfeatures=MOST_KEYPOINTS, contrastThreshold=CONTRAST)
    valid = None if mask is None else np.asarray(mask, np.uint8)
    _, found = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), valid)
    if found is None:
        return np.zeros((0, SIFT_SIZE), np.float32)
    shares = found / np.maximum(found.sum(axis=1, keepdims=True), 1e-9)
    return np.asarray(np.sqrt(shares), np.float32)


def vlad(descriptors: Floats, words: Floats) -> Floats:
    """(K * 128,) float32: the sum of residuals to the nearest word, each word's of unit norm.

    Args:
        descriptors: (n, 128), n may be 0.
        words: (K, 128).
    """
    if len(descriptors) == 0:
        return np.ones(words.size, np.float32)
    distances = (words**2).sum(axis=1) - 2 * descriptors @ words.T
    nearest = np.argmin(distances, axis=1)
    members = (nearest == np.arange(len(words))[:, None]).astype(np.float32)
    sums = members @ descriptors - members.sum(axis=1, keepdims=True) * words
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    pooled = np.asarray((sums / np.maximum(norms, 1e-9)).ravel(), np.float32)
    return pooled if pooled.any() else np.ones(words.size, np.float32)


def learn_words(seeds: Sequence[int] = (101, 102, 103, 104)) -> Floats:
    """(32, 128) float32 centres; `np.save("vlad_words.npy", learn_words())` made the stored ones.

    Made-up towns from above at 0.6 m a pixel, in both lights, cut into 256 px; k-means with a
    fixed seed. Takes some seconds a town.
    """
    from skylink.town import DRONE, SATELLITE, Town, render_map

    samples = []
    side = VladEncoder.input_px
    for seed in seeds:
        town = Town.generate(seed=seed, size_m=620.0)
        for look in (SATELLITE, DRONE):
            picture = render_map(town, look, gsd_m=0.6)
            samples += [
                root_sift(np.ascontiguousarray(picture[top : top + side, left : left + side]))
                for top in range(0, len(picture) - side + 1, side)
                for left in range(0, len(picture) - side + 1, side)
            ]
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-4)
    data = np.concatenate(samples)
    _, _, centres = cv2.kmeans(data, WORDS, None, stop, 3, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    return np.asarray(centres, np.float32)


@lru_cache(maxsize=1)
def _stored_words() -> Floats:
    try:
        with (resources.files("skylink") / "encoders" / "vlad_words.npy").open("rb") as file:
            words = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelError(
            "the words of vlad are missing from this installation", hint="reinstall skylink-geo"
        ) from error
    return np.asarray(words, np.float32)
