"""A re-ranker trained on a bare CPU, from nothing: data, checkpoint, training and table.

    python scripts/cpu_training.py OUT [--pool DIR] [--seeds 3] [--small]

1. Two generated towns, one to learn from and one to be tested on; `skylink mine` lists candidates
   of its photos by the descriptor base.
2. Further lists of views: a photo made of a piece of the first town's map as if taken years later,
   and crops of that piece and of others as candidates. With --pool scenes of a folder as well.
3. A checkpoint with random weights, whose tower has seen pairs of such views and crops
   (`skylink.lvlm.prepared`).
4. `skylink ablate`: LoRA on all projections, with several seeds, against the untrained model, the
   base, training-free correlation and HOG, on the other town: OUT/ablation/ablation.md.

What is there already is kept: after a kill the same command goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.files import write_atomic
from skylink.footprints import iou, rectangles
from skylink.gallery import Gallery
from skylink.lvlm.prepared import (
    Pairs,
    compare_pictures,
    mark_pictures,
    picture_distance,
    teach_tower,
)
from skylink.lvlm.random_checkpoint import SHAPES, write_random_checkpoint
from skylink.mined import Measured, MinedCandidate, MinedList
from skylink.minedfile import MinedFile, write_mined
from skylink.photo import load_photo
from skylink.prompt import template_of
from skylink.town import write_inputs
from skylink.views import Difficulty, MapPool, Sample, synthetic_sample

Image = NDArray[np.uint8]
FAMILY, SHAPE, TEMPLATE = "smolvlm", "small", "pointwise-short-v1"
SIDE = SHAPES[SHAPE].image_px(FAMILY)
"""Of views and crops, px."""
PIECE = 256
"""Side of the pieces of map that views are made of, px: a crop finds neighbours within it."""
METRES_A_PIXEL = 160 / SIDE
"""Of town maps, as tiles of 160 m are shown."""
HARD = Difficulty(widths=(0.7, 1.6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything.

    Attributes:
        town, other: (side m, photos) of the towns to learn from and to be tested on.
        views: lists of views.
        samples: views that the tower learns from.
        tower_steps, steps: of the tower's and the re-ranker's training.
        candidates: of a list of views, and of a list that a step sees.
        depth: candidates of a test list that are re-ranked.
    """

    town: tuple[int, int] = (1000, 260)
    other: tuple[int, int] = (1200, 150)
    views: int = 400
    samples: int = 800
    tower_steps: int = 150
    steps: int = 200
    candidates: int = 5
    depth: int = 10


SMALL = Size(
    town=(500, 12), other=(500, 12), views=48, samples=96, tower_steps=30, steps=8, depth=5
)


def main() -> int:
    """Everything, step by step; the exit code of `skylink ablate`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--pool", type=Path, help="a folder of satellite or aerial scenes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="minutes, to see that it runs")
    asked = parser.parse_args()
    size = SMALL if asked.small else Size()
    out: Path = asked.out
    town, other = towns(out, size)
    scenes = Scenes(town / "map.tif", asked.pool)
    lists = train_lists(out, town, scenes, size)
    test = mine(other, out / "test.jsonl", "--no-force")
    checkpoint = prepared_checkpoint(out / "checkpoint", scenes, size)
    grid = out / "grid.toml"
    write_atomic(grid, grid_text(lists, test, checkpoint, range(asked.seeds), size))
    return skylink("ablate", grid, "--out", out / "ablation")


# ---- data


def towns(out: Path, size: Size) -> tuple[Path, Path]:
    """The folders of the two towns, each with map, photos and gallery."""
    folders = []
    for name, seed, (side, photos) in (("town", 31, size.town), ("other", 52, size.other)):
        folder = out / name
        if not (folder / "gallery" / "gallery.json").exists():
            print(f"generating {name}: {side} m, {photos} photos", flush=True)
            made = write_inputs(folder, seed=seed, size_m=side, cell_m=1, photos=photos)
            Gallery.build([made.map], folder / "gallery")
        folders.append(folder)
    return folders[0], folders[1]


class Scenes:
    """Pieces of the town's map, and of a pool's pictures where there is one."""

    def __init__(self, town_map: Path, pool: Path | None) -> None:
        image = load_photo(town_map).image
        scale = 1 / METRES_A_PIXEL  # of a map of 1 m a pixel
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        self._town = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        self._pool = None if pool is None else MapPool([pool])

    def piece(self, draw: np.random.Generator) -> Image:
        """(PIECE, PIECE, 3) uint8 RGB; half of them are of the pool, if there is one."""
        if self._pool is not None and draw.random() < 0.5:
            return self._pool.square(int(draw.integers(len(self._pool))), draw, PIECE)
        height, width = self._town.shape[:2]
        row, column = draw.integers(height - PIECE + 1), draw.integers(width - PIECE + 1)
        piece = np.rot90(self._town[row : row + PIECE, column : column + PIECE], draw.integers(4))
        return np.ascontiguousarray(piece)

    def sample(self, draw: np.random.Generator) -> Sample:
        """A view of a piece."""
        return synthetic_sample(self.piece(draw), draw, view_px=SIDE, difficulty=HARD)


def crop(sample: Sample, right: float = 0.0, down: float = 0.0) -> Image:
    """What a tile shows of the sample's map, so many px beside the view's centre."""
    centre = (sample.column + right, sample.row + down)
    return np.asarray(cv2.getRectSubPix(sample.map, (SIDE, SIDE), centre), np.uint8)


def aside(draw: np.random.Generator, least: float, most: float) -> tuple[float, float]:
    """A shift in any direction, by shares of a crop's side."""
    angle, far = draw.uniform(0, 2 * np.pi), SIDE * draw.uniform(least, most)
    return float(far * np.cos(angle)), float(far * np.sin(angle))


# ---- lists


def mine(town: Path, out: Path, *options: str) -> Path:
    """Lists of a town's photos by the descriptor base."""
    if not out.exists():
        gallery, queries = town / "gallery", town / "photos" / "queries.csv"
        skylink(
            "mine", "--gallery", gallery, "--queries", queries, "--retriever", "descriptor",
            "--top-k", 10, "--out", out, *options,
        )  # fmt: skip
    return out


def train_lists(out: Path, town: Path, scenes: Scenes, size: Size) -> Path:
    """Mined lists and lists of views in one file, `validation.jsonl` beside it."""
    both = out / "train.jsonl"
    if both.exists():
        return both
    held_out = ("--held-out", "0.2", "--validation-out", str(out / "validation.jsonl"))
    mined = MinedFile(mine(town, out / "mined.jsonl", *held_out))
    folder = town / "photos"

    def every() -> Iterator[MinedList]:
        yield from mined
        yield from view_lists(folder, scenes, size.views, size.candidates)

    known = mined.header.provenance
    about = f"{known.dataset}, and views of its map"
    write_mined(both, known.model_copy(update={"dataset": about}), every())
    return both


def view_lists(folder: Path, scenes: Scenes, count: int, candidates: int) -> Iterator[MinedList]:
    """Lists whose photo is a view; pictures go to `folder/views`. The order is chance's.

    The first candidate is right, half of the others are shifted crops of the same piece, and the
    rest are of other pieces; labels are the overlap with what the view shows.
    """
    draw = np.random.default_rng(1)
    others = [scenes.sample(draw) for _ in range(8)]
    for number in range(count):
        sample = scenes.sample(draw)
        shifts = [aside(draw, 0, 0.15)]
        shifts += [aside(draw, 0.3, 0.9) for _ in range((candidates - 1) // 2)]
        tiles = [crop(sample, *shift) for shift in shifts]
        while len(tiles) < candidates:
            tiles.append(crop(others[draw.integers(len(others))], *aside(draw, 0, 0.3)))
        others[number % len(others)] = sample
        seen, shown = (rectangles(*zip(*at, strict=True), SIDE, SIDE) for at in ([(0, 0)], shifts))
        overlap = iou(seen, shown)[0].tolist()
        overlap += [0.0] * (candidates - len(shifts))
        yield _list(folder, f"view-{number:05d}", sample.view, tiles, overlap, draw)


def _list(
    folder: Path,
    name: str,
    view: Image,
    tiles: Sequence[Image],
    overlap: Sequence[float],
    draw: np.random.Generator,
) -> MinedList:
    order = draw.permutation(len(tiles)).tolist()
    return MinedList(
        query=name,
        path=_write(folder, f"views/{name}.png", view),
        candidates=tuple(
            MinedCandidate(
                id=f"{name}-{row}",
                path=_write(folder, f"views/{name}-{row}.png", tiles[row]),
                base_score=-float(rank),
                rank=rank,
                is_ground_truth=row == 0,
                label=1.0 if row == 0 else overlap[row],
                measured=Measured(overlap=overlap[row]),
            )
            for rank, row in enumerate(order, 1)
        ),
    )


def _write(folder: Path, name: str, picture: Image) -> str:
    _, data = cv2.imencode(".png", picture[..., ::-1])
    write_atomic(folder / name, data.tobytes())
    return name


# ---- model


def prepared_checkpoint(folder: Path, scenes: Scenes, size: Size, seed: int = 0) -> Path:
    """A random checkpoint whose tower has seen views and crops of the same ground."""
    if not folder.exists():

        def prepare(model: Any, processor: Any) -> None:
            batches = pairs(scenes, size.samples, seed)
            teach_tower(model, batches, steps=size.tower_steps, seed=seed, say=_say)
            mark_pictures(model, next(batches)[1], seed=seed)
            distance = picture_distance(processor, template_of(TEMPLATE, "pointwise"))
            compare_pictures(model, distance, seed=seed)

        write_random_checkpoint(folder, FAMILY, shape=SHAPE, seed=seed, prepare=prepare)
    return folder


def pairs(scenes: Scenes, samples: int, seed: int, batch: int = 48) -> Iterator[Pairs]:
    """Batches without end: views, their crops, and as many of the ground beside them."""
    draw = np.random.default_rng((seed, 2))
    bank = [scenes.sample(draw) for _ in range(samples)]
    while True:
        chosen = [bank[i] for i in draw.choice(samples, min(batch, samples), replace=False)]
        right = [crop(sample, *aside(draw, 0, 0.05)) for sample in chosen]
        beside = [crop(sample, *aside(draw, 0.3, 0.8)) for sample in chosen]
        yield np.stack([sample.view for sample in chosen]), np.stack(right + beside)


def _say(step: int, loss: float) -> None:
    if step % 10 == 0:
        print(f"tower: step {step}, loss {loss:.2f}", flush=True)


# ---- training


def grid_text(lists: Path, test: Path, checkpoint: Path, seeds: Sequence[int], size: Size) -> str:
    """What `skylink ablate` runs."""
    return f"""\
checkpoints = ["{checkpoint.name}"]
seeds = {list(seeds)}

[data]
train = "{lists.name}"
validation = ["validation.jsonl"]
folder = "town/photos"
gallery = "town/gallery"
list_size = {size.candidates}
negatives = "sampled"

[test]
lists = ["{test.name}"]
folder = "other/photos"
gallery = "other/gallery"

[[rows]]
title = "A tiny model from random weights, on another town"
models = ["lvlm-lora", "lvlm-head", "lvlm-zero-shot", "base", "correlation", "hog"]
losses = ["relational"]
labels = ["overlap"]

[asking]
template = "{TEMPLATE}"
facts = false
visual_tokens = {SHAPES[SHAPE].image_tokens[1]}

[tune]
r = 64
alpha = 128
dropout = 0.0
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

[optimizer]
steps = {size.steps}
lists_per_step = 8
lr_lora = 2e-3
lr_head = 1e-2

[compute]
device = "cpu"
cache = "cache"

[validation]
depth = {size.depth}
"""


def skylink(*words: object) -> int:
    """Run a command as one would by hand; the exit code."""
    command = ["skylink", *map(str, words)]
    print("$", " ".join(command), flush=True)
    done = subprocess.run([sys.executable, "-m", *command], check=words[0] != "ablate")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
