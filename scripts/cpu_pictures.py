"""Pictures for `cpu_training.py`: pieces of map, views of them, and lists of views.

A bank holds pieces of a town's map and of a pool's scenes, views of them as if photographed years
later, and what the embedded encoder makes of both: what a tower learns from. Lists of views are
made of the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.encoder import EmbeddedEncoder, cell_masks, fill_invalid
from skylink.files import write_atomic
from skylink.footprints import iou, rectangles
from skylink.lvlm.random_checkpoint import SHAPES
from skylink.lvlm.taught_tower import CellCode
from skylink.mined import Measured, MinedCandidate, MinedList
from skylink.photo import load_photo
from skylink.views import Difficulty, MapPool, synthetic_sample

U8 = NDArray[np.uint8]
FAMILY, SHAPE, TEMPLATE = "smolvlm", "small", "pointwise-short-v1"
SIDE = SHAPES[SHAPE].image_px(FAMILY)
"""Of views and crops as the model sees them, px; the encoder sees twice as many."""
TOKENS = SHAPES[SHAPE].image_tokens[1]
PIECE = 2 * SIDE
"""Of a piece of map."""
CODE = 64
"""Numbers of a cell's code: half of the language model's width."""
TILE_M = 160
"""Ground that a view or crop covers, as tiles of a gallery do."""
VIEWS = Difficulty(widths=(0.7, 1.6))
TEST_SCENES = 10
"""Every so many scenes one is kept for testing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bank:
    """Pieces of map, two views of each, and what the embedded encoder makes of them.

    Attributes:
        pieces: (N, PIECE, PIECE, 3) uint8 RGB; cells (N, 28, 28, C) float16.
        views: (N, 2, SIDE, SIDE, 3) uint8 RGB, zero where nothing is seen; view_cells
            (N, 2, 14, 14, C) float16; seen (N, 2, 14, 14) float32.
        places: (N, 2, 2) float32, the views' centres on the pieces, (row, column), px.
    """

    pieces: U8
    cells: NDArray[np.float16]
    views: U8
    view_cells: NDArray[np.float16]
    seen: NDArray[np.float32]
    places: NDArray[np.float32]

    @classmethod
    def kept(cls, path: Path, town: Path, pool: Path | None, count: int, *, test: bool) -> Bank:
        """Made, or read if it was."""
        if not path.exists():
            made = cls.made(town, pool, count, test=test)
            np.savez(path.with_suffix(".part.npz"), **{k: getattr(made, k) for k in cls.__slots__})
            path.with_suffix(".part.npz").rename(path)
        with np.load(path) as file:
            return cls(**{name: file[name] for name in cls.__slots__})

    @classmethod
    def made(cls, town: Path, pool: Path | None, count: int, *, test: bool) -> Bank:
        """Pieces of a town's map, two of three of a pool's scenes where there is one."""
        draw, encoder = np.random.default_rng((7, test)), EmbeddedEncoder()
        scenes = None if pool is None else MapPool([pool], every=TEST_SCENES, skip=not test)
        image = load_photo(town / "map.tif").image
        scale = 2 * SIDE / TILE_M  # of a map of 1 m a pixel
        whole = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        rows: dict[str, list[Any]] = {name: [] for name in cls.__slots__}
        for number in range(count):
            if scenes is None or number % 3 == 0:
                piece = _cut(np.asarray(whole, np.uint8), draw)
            else:
                piece = scenes.square(int(draw.integers(len(scenes))), draw, 2 * PIECE)
            samples = [
                synthetic_sample(piece, draw, view_px=2 * SIDE, difficulty=VIEWS) for _ in range(2)
            ]
            views = np.stack([sample.view for sample in samples])
            masks = np.stack([sample.view_mask for sample in samples])
            rows["pieces"].append(_half(piece))
            rows["cells"].append(encoder.feature_map(piece[None])[0])
            rows["views"].append(np.stack([_half(view) for view in views]))
            rows["view_cells"].append(encoder.feature_map(fill_invalid(views, masks)))
            rows["seen"].append(cell_masks(masks, encoder.stride_px))
            rows["places"].append([(sample.row / 2, sample.column / 2) for sample in samples])
        kinds = {"cells": np.float16, "view_cells": np.float16, "places": np.float32}
        return cls(**{k: np.asarray(v, kinds.get(k)) for k, v in rows.items()})

    def __len__(self) -> int:
        return len(self.pieces)

    def code(self) -> CellCode:
        """Fitted to the pieces' cells."""
        cells = self.cells.reshape(-1, self.cells.shape[-1])
        return CellCode.fitted(cells[::7].astype(np.float32), CODE)

    def batches(self, code: CellCode, seed: int, half: int = 16) -> Iterator[tuple[U8, Any]]:
        """Batches without end of as many views as crops, and their codes."""
        import torch

        draw, side, cells = np.random.default_rng((seed, 1)), round(TOKENS**0.5), 14
        step = SIDE // cells
        while True:
            chosen = draw.integers(len(self), size=half), draw.integers(2, size=half)
            seen = code(self.view_cells[chosen].astype(np.float32), self.seen[chosen], side=side)
            numbers = draw.integers(len(self), size=half)
            rows, columns = draw.integers(cells + 1, size=(2, half))
            places = list(zip(numbers, rows, columns, strict=True))
            crops = [self.crop(n, column * step, row * step) for n, row, column in places]
            under = [self.cells[n, r : r + cells, c : c + cells] for n, r, c in places]
            shown = code(np.asarray(under, np.float32), side=side)
            yield np.concatenate([self.views[chosen], crops]), torch.cat([seen, shown])

    def crop(self, number: int, column: int, row: int) -> U8:
        """(SIDE, SIDE, 3) uint8 RGB of a piece, from a pixel on."""
        return self.pieces[number, row : row + SIDE, column : column + SIDE]


def _cut(image: U8, draw: np.random.Generator) -> U8:
    row, column = (int(draw.integers(length - 2 * PIECE + 1)) for length in image.shape[:2])
    piece = image[row : row + 2 * PIECE, column : column + 2 * PIECE]
    return np.ascontiguousarray(np.rot90(piece, draw.integers(4)))


def _half(image: U8) -> U8:
    size = image.shape[1] // 2, image.shape[0] // 2
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def view_lists(folder: Path, name: str, bank: Bank, candidates: int) -> Iterator[MinedList]:
    """A list for each view whose ground lies within its piece; pictures go to `folder/NAME`.

    One candidate is right: a crop whose centre is within a fifth of its side of the view's, as the
    nearest tile of a gallery is. Two of five others are crops of the same piece beside it, the
    rest are right ones of other views. Labels are the overlap with what the view shows; the order
    is chance's.
    """
    draw = np.random.default_rng(1)
    for number, piece in enumerate(bank.pieces):
        _write(folder, f"{name}/piece-{number:05d}.png", piece)
    corners = bank.places - SIDE / 2
    inside = ((corners >= 0) & (corners <= PIECE - SIDE)).all(-1)
    near = corners + draw.uniform(-SIDE / 8, SIDE / 8, corners.shape)
    right = np.clip(np.rint(near), 0, PIECE - SIDE).astype(int)
    usable = np.argwhere(inside)
    for number, view in draw.permutation(usable).tolist():
        at = corners[number, view]
        tiles = [(number, *right[number, view].tolist())]
        tiles += [(number, *_beside(at, draw)) for _ in range(2 * (candidates - 1) // 5)]
        while len(tiles) < candidates:
            other, its = usable[draw.integers(len(usable))].tolist()
            if (tile := (other, *right[other, its].tolist())) not in tiles and other != number:
                tiles.append(tile)
        overlap = [_overlap(at, tile[1:]) if tile[0] == number else 0.0 for tile in tiles]
        key = f"{name}-{number:05d}-{view}"
        path = _write(folder, f"{name}/{key}.png", bank.views[number, view])
        yield _list(key, path, name, tiles, overlap, draw)


def _beside(corner: NDArray[np.float32], draw: np.random.Generator) -> tuple[int, int]:
    """The corner of another crop of a piece, a third of a side away at least."""
    while True:
        row, column = draw.integers(PIECE - SIDE + 1, size=2).tolist()
        if max(abs(row - corner[0]), abs(column - corner[1])) >= SIDE / 3:
            return row, column


def _overlap(corner: NDArray[np.float32], other: Sequence[int]) -> float:
    seen, shown = (
        rectangles(np.array([float(at[1])]), np.array([float(at[0])]), SIDE, SIDE)
        for at in (corner, other)
    )
    return float(iou(seen, shown)[0, 0])


def _list(
    key: str,
    path: str,
    name: str,
    tiles: Sequence[tuple[int, int, int]],
    overlap: Sequence[float],
    draw: np.random.Generator,
) -> MinedList:
    order = draw.permutation(len(tiles)).tolist()
    return MinedList(
        query=key,
        path=path,
        candidates=tuple(
            MinedCandidate(
                id=f"{key}-{place}",
                path=f"{name}/piece-{tiles[place][0]:05d}.png",
                window=(tiles[place][2], tiles[place][1], SIDE, SIDE),
                base_score=-float(rank),
                rank=rank,
                is_ground_truth=place == 0,
                label=1.0 if place == 0 else overlap[place],
                measured=Measured(overlap=overlap[place]),
            )
            for rank, place in enumerate(order, 1)
        ),
    )


def _write(folder: Path, name: str, picture: U8) -> str:
    _, data = cv2.imencode(".png", picture[..., ::-1])
    write_atomic(folder / name, data.tobytes())
    return name
