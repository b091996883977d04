"""GTA-UAV: photos and map tiles of a game's world, paired by how much ground they share.

Layout, JSON keys and tile positions as in the README and Game4Loc's reader. The gallery is the
whole map, all four zoom levels, in both protocols. A tile is a positive of a photo where the IoU of
the two footprints is above 0.39, a semi-positive above 0.14; the IoU is the weight. Photos without
a positive are left out, as Game4Loc does; the task's notes say how many.

`x_m`, `y_m` are the dataset's: metres from the map's top left corner, x to the right, y down; of
photos the point in the middle of the picture. The camera's attitude is in `extra` under the
dataset's own names, degrees; which way the game counts yaw was not verified, so `heading_deg`
stays empty. Tile names are `<zoom>_<offset>_<x>_<y>.png`; the first release had no offset. How many
photos each list holds was not published, so those counts are not compared.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from skylink.datasets import miniature
from skylink.datasets.base import Dataset
from skylink.datasets.task import Item, Split, Task, escaped
from skylink.datasets.tree import Tree, absent
from skylink.errors import DatasetError
from skylink.files import write_atomic

MAP_PX, TILE_PX, METRES_PX = 24_576, 256, 0.45
POSITIVE_IOU, SEMI_POSITIVE_IOU = 0.39, 0.14

_TILE = re.compile(r"(\d{1,2})_(?:(\d{1,3})_)?(\d{1,5})_(\d{1,5})\.png", re.ASCII | re.IGNORECASE)
_AREAS = ("cross-area", "same-area")
_PHOTOS, _TILES = "drone/images", "satellite"


class GtaUav(Dataset):
    """Cross-area (other parts of the map than in training) and same-area, both directions."""

    name = "gtauav"
    aliases = ("gta-uav", "gta-uav-lr", "gta-uav-hr")
    title = "GTA-UAV"
    citation = """@inproceedings{ji2025game4loc,
  title={Game4Loc: A UAV Geo-Localization Benchmark from Game Data},
  author={Ji, Yuxiang and He, Boyong and Tan, Zhuoyue and Wu, Liaoni},
  booktitle={AAAI Conference on Artificial Intelligence},
  year={2025},
  note={arXiv:2409.16925}
}"""
    terms = "the authors' repository is under Apache-2.0; pictures are of a commercial game"
    obtain = (
        "https://github.com/Yux1angJi/GTA-UAV (data on Hugging Face: Yux1ang/GTA-UAV-LR of 13 GB, "
        "or Yux1ang/GTA-UAV-HR)"
    )
    layout = """drone/images/*.png
satellite/<zoom>_<offset>_<x>_<y>.png
{cross,same}-area-drone2sate-{train,test}.json"""
    sizes: ClassVar[Mapping[str, int]] = {f"{_PHOTOS} images": 33_763, f"{_TILES} images": 14_640}
    optional = ("drone/meta_data", "drone/lidars", "drone/depth")

    def tasks(self) -> tuple[str, ...]:
        return (*_AREAS, *(f"{area} S2D" for area in _AREAS))

    def _load(self, tree: Tree, task: str, split: Split) -> Task:
        area, _, way = task.partition(" ")
        loaded = _photos_to_tiles(tree, self.title, area, split)
        return loaded.reversed(task) if way else loaded

    def _required(self, tree: Tree) -> Sequence[str]:
        return (_PHOTOS, _TILES, *(_list(a, s) for a in _AREAS for s in self.splits))

    def _counts(self, tree: Tree) -> dict[str, int]:
        return {
            f"{folder} images": len(tree.pictures(folder))
            for folder in (_PHOTOS, _TILES)
            if tree.has(folder)
        }

    def _write_miniature(self, folder: Path, seed: int) -> None:
        """16 + 64 tiles of zoom 5 and 6 around one place, and 12 photos at 200 and 400 m."""
        west, north, side = 12, 20, 4  # in tiles of zoom 5
        image = miniature.ground(seed, width=side * 128, height=side * 128)
        px_m = MAP_PX / 2**5 * METRES_PX / 128  # metres a pixel of this ground
        origin = (west * 128 * px_m, north * 128 * px_m)
        tiles: dict[str, tuple[float, float, float]] = {}  # centre and side, metres
        for zoom, each in ((5, 128), (6, 64)):
            for row in range(side * 128 // each):
                for col in range(side * 128 // each):
                    scale = 2 ** (zoom - 5)
                    name = f"{zoom}_0_{west * scale + col}_{north * scale + row}.png"
                    x_m, y_m = tile_centre(name) or (0.0, 0.0)
                    tiles[name] = (x_m, y_m, each * px_m)
                    at = (col + 0.5) * each, (row + 0.5) * each
                    miniature.write_picture(
                        folder / _TILES / name,
                        miniature.view(image, seed, zoom, row, col, centre=at, span_px=each),
                    )
        lists: dict[str, list[dict[str, Any]]] = {}
        for photo in range(12):
            height, col, row = (200, 400)[photo % 2], photo % 4, photo // 4
            # near the middle of a tile of zoom 6 or 5; the last one between tiles, without a pair
            span, middle = (60.0, 96.0) if height == 200 else (120.0, 64.0)
            shift = 8.0 if photo < 11 else 60.0
            at = (middle + 128 * col + shift, middle + 128 * row - shift / 2)
            name = f"{height}_0001_{photo + 1:010d}.png"
            taken = miniature.view(
                image, seed, 99, photo, centre=at, heading_deg=9, span_px=span, size=(96, 72)
            )
            miniature.write_picture(folder / _PHOTOS / name, taken)
            x_m, y_m = (origin[axis] + at[axis] * px_m for axis in (0, 1))
            entry = _entry(name, x_m, y_m, height, span * px_m, tiles)
            for area, test in (("cross-area", col > 1), ("same-area", photo % 3 == 0)):
                lists.setdefault(_list(area, "test" if test else "train"), []).append(entry)
        for name, entries in lists.items():
            write_atomic(folder / name, json.dumps(entries, indent=4))


def tile_centre(name: str) -> tuple[float, float] | None:
    """(x, y) metres of a tile's centre by its name, as Game4Loc computes it; None for no tile."""
    fields = _TILE.fullmatch(name)
    if fields is None:
        return None
    zoom, offset, x, y = (int(field or 0) for field in fields.groups())
    tile_m = MAP_PX / 2**zoom * METRES_PX
    shift = 0.5 + offset / TILE_PX
    return tile_m * (x + shift), tile_m * (y + shift)


def _list(area: str, split: str) -> str:
    return f"{area}-drone2sate-{split}.json"


def _photos_to_tiles(tree: Tree, dataset: str, area: str, split: Split) -> Task:
    gallery: list[Item] = []
    for name in tree.pictures(_TILES):
        centre = tile_centre(name)
        if centre is None:
            raise DatasetError(
                f"{tree.root / _TILES / name} is not named <zoom>_<offset>_<x>_<y>.png",
                hint="remove it, or unpack the satellite tiles again",
            )
        gallery.append(tree.item(f"{_TILES}/{name}", x_m=centre[0], y_m=centre[1]))
    rows = {item.id: row for row, item in enumerate(gallery)}
    source = _list(area, split)
    photos = {f"{_PHOTOS}/{name}" for name in tree.pictures(_PHOTOS)}
    queries: list[Item] = []
    pairs: list[dict[int, float]] = []
    semi_pairs: list[dict[int, float]] = []
    lost: list[str] = []
    left_out = 0
    for number, entry in enumerate(_entries(tree, source), start=1):
        where = f"{tree.root / source}, entry {number}"
        try:
            photo = tree.inside(f"{entry['drone_img_dir']}/{entry['drone_img_name']}")
            tiles = entry["sate_img_dir"]
            positive = _pairs(entry, "pos", where)
            both = _pairs(entry, "pos_semipos", where)
            x_m, y_m = (float(value) for value in entry["drone_loc_x_y"])
            pose = {key: float(value) for key, value in entry["drone_metadata"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unlike(where, error) from error
        if not all(map(math.isfinite, (x_m, y_m, *pose.values()))):
            raise _unlike(where, "a number is not finite")
        if not positive:
            left_out += 1
            continue
        if photo not in photos:
            lost.append(photo)
        at = {t: rows.get(escaped(tree.inside(f"{tiles}/{t}")), -1) for t in (*positive, *both)}
        lost += [tile for tile, row in at.items() if row < 0]
        pairs.append({at[tile]: iou for tile, iou in positive.items()})
        semi_pairs.append({at[tile]: iou for tile, iou in both.items() if tile not in positive})
        queries.append(
            tree.item(photo, x_m=x_m, y_m=y_m, altitude_m=pose.pop("height", None), extra=pose)
        )
    if lost:
        raise absent(tree.root, source, list(dict.fromkeys(lost)))
    note = f"{source}: {left_out:,} photos have no tile above IoU {POSITIVE_IOU} and are left out"
    return Task(
        dataset=dataset,
        name=area,
        split=split,
        queries=tuple(queries),
        gallery=tuple(gallery),
        positives=tuple(tuple(sorted(pair)) for pair in pairs),
        weights=tuple(tuple(pair[row] for row in sorted(pair)) for pair in pairs),
        semi_positives=tuple(tuple(sorted(pair)) for pair in semi_pairs),
        semi_weights=tuple(tuple(pair[row] for row in sorted(pair)) for pair in semi_pairs),
        notes=(note,) if left_out else (),
    )


def _entries(tree: Tree, source: str) -> list[dict[str, Any]]:
    entries = tree.json(source)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _unlike(str(tree.root / source), "not a list of objects")
    return entries


def _pairs(entry: dict[str, Any], kind: str, where: str) -> dict[str, float]:
    """Tile names and IoU weights of one photo."""
    names = entry[f"pair_{kind}_sate_img_list"]
    weights = [float(weight) for weight in entry[f"pair_{kind}_sate_weight_list"]]
    if len(names) != len(weights) or not all(0 <= weight <= 1 for weight in weights):
        raise _unlike(where, f"its {kind} tiles do not have one weight in 0..1 each")
    if not all(isinstance(name, str) for name in names):
        raise _unlike(where, f"its {kind} tiles are not names")
    return dict(zip(names, weights, strict=True))


def _unlike(where: str, why: object) -> DatasetError:
    return DatasetError(
        f"{where}: not as published ({type(why).__name__ if isinstance(why, Exception) else why}"
        + (f": {why})" if isinstance(why, Exception) else ")"),
        hint="download the list again; docs/benchmarks.md has the layout",
    )


def _entry(
    name: str,
    x_m: float,
    y_m: float,
    height: int,
    side_m: float,
    tiles: dict[str, tuple[float, float, float]],
) -> dict[str, Any]:
    """One entry of a miniature's list: the photo as a square of ground, paired by IoU."""
    overlap = {tile: _iou((x_m, y_m, side_m), square) for tile, square in tiles.items()}
    lists: dict[str, Any] = {}
    for kind, least in (("pos", POSITIVE_IOU), ("pos_semipos", SEMI_POSITIVE_IOU)):
        chosen = [tile for tile, iou in overlap.items() if iou > least]
        lists[f"pair_{kind}_sate_img_list"] = chosen
        lists[f"pair_{kind}_sate_weight_list"] = [overlap[tile] for tile in chosen]
        lists[f"pair_{kind}_sate_loc_x_y_list"] = [list(tiles[tile][:2]) for tile in chosen]
    angles = {"drone_roll": 0.0, "drone_pitch": 0.0, "drone_yaw": 9.0}
    camera = {"cam_roll": -90.0, "cam_pitch": 0.0, "cam_yaw": 9.0}
    return {
        "drone_img_dir": _PHOTOS,
        "drone_img_name": name,
        "drone_loc_x_y": [x_m, y_m],
        "sate_img_dir": _TILES,
        **lists,
        "drone_metadata": {"height": float(height), **angles, **camera},
    }


def _iou(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """IoU of two upright squares (x, y, side)."""
    shared = 1.0
    for axis in (0, 1):
        low = max(a[axis] - a[2] / 2, b[axis] - b[2] / 2)
        high = min(a[axis] + a[2] / 2, b[axis] + b[2] / 2)
        shared *= max(0.0, high - low)
    return shared / (a[2] ** 2 + b[2] ** 2 - shared)
