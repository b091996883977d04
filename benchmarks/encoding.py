"""Files to descriptors against the encoder alone: how much of its throughput is reached.

python benchmarks/encoding.py [--encoder SPEC] [--images N] [--side PX] [--workers N] [--json FILE]

The encoder alone runs over the same pictures, decoded and resized beforehand, in the same batches.
The plain way decodes a batch, encodes it, decodes the next.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from _common import machine, table, write_json
from skylink.encode import BATCH, WORKERS, encode_files, to_square
from skylink.encoder import Encoder, load_encoder
from skylink.photo import load_photo

GOAL = 0.8
ROUNDS = 3


def write_pictures(folder: Path, count: int, side: int) -> list[Path]:
    """JPEG files with the detail of an aerial photo: noise at several scales."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        picture = np.zeros((side, side, 3), np.float32)
        for cells in (4, 16, 64, 256):
            coarse = rng.standard_normal((cells, cells, 3)).astype(np.float32)
            picture += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
        path = folder / f"{i:05}.jpg"
        Image.fromarray(np.uint8(np.clip(128 + 30 * picture, 0, 255))).save(path, quality=90)
        paths.append(path)
    return paths


def alone(pictures: list[np.ndarray], encoder: Encoder) -> None:
    """Encode what is decoded already."""
    for start in range(0, len(pictures), BATCH):
        encoder.encode(np.stack(pictures[start : start + BATCH]))


def best_s(call: Callable[[], object]) -> float:
    """The shortest of some runs, seconds: what else the machine does only ever adds."""
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="embedded")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--side", type=int, default=512, help="side of the JPEG files, pixels")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(machine(), flush=True)
    encoder = load_encoder(options.encoder)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder), options.images, options.side)

        def read(some: list[Path]) -> list[np.ndarray]:
            return [to_square(load_photo(path).image, encoder) for path in some]

        def plainly() -> None:
            for start in range(0, len(paths), BATCH):
                encoder.encode(np.stack(read(paths[start : start + BATCH])))

        pictures = read(paths)
        encoder.encode(np.stack(pictures[:BATCH]))
        model_s = best_s(lambda: alone(pictures, encoder))
        ours_s = best_s(lambda: encode_files(paths, encoder, workers=options.workers))
        plain_s = best_s(plainly)
        kept = Path(folder) / "cache"
        encode_files(paths, encoder, workers=options.workers, cache=kept)
        again_s = best_s(lambda: encode_files(paths, encoder, cache=kept))
    share = model_s / ours_s
    rows = [
        (what, f"{options.images / took:.1f}", f"{model_s / took:.2f}")
        for what, took in (
            ("the encoder alone", model_s),
            ("decoding while encoding", ours_s),
            ("decoding, then encoding", plain_s),
            ("a second run, from the cache", again_s),
        )
    ]
    print("\n" + table((f"{encoder.name}, {options.side} px", "images/s", "share"), rows))
    print(f"\n{share:.0%} of the encoder's own throughput (goal: {GOAL:.0%})")
    figures = {
        "share_of_model_throughput": share,
        "images_per_s": options.images / ours_s,
        "model_images_per_s": options.images / model_s,
        "times_the_plain_way": plain_s / ours_s,
        "times_a_first_run": ours_s / again_s,
    }
    write_json(options.json, "encoding", figures)


if __name__ == "__main__":
    main()
