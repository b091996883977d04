"""CVUSA: street panoramas and satellite images of the whole USA, one pair a place.

The subset that everyone evaluates (Zhai et al. 2017), as Sample4Geo and others read it: a line of
`splits/{train,val}-19zl.csv` is satellite image, panorama and its annotation, paths from the
dataset's folder. `val` is the test split. Positions are in `split_locations/all.csv`, which many
copies lack: row N is of id N, columns satellite lat, lon, panorama lat, lon, as Sample4Geo takes
them; not verified against the authors' documents.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from skylink.datasets import miniature
from skylink.datasets.base import Dataset
from skylink.datasets.task import Item, Split, Task
from skylink.datasets.tree import Tree, absent
from skylink.errors import DatasetError
from skylink.files import write_atomic

_LISTS = {"train": "splits/train-19zl.csv", "test": "splits/val-19zl.csv"}
_LOCATIONS = "split_locations/all.csv"
Position = dict[str, float]
"""`lat` and `lon`, degrees."""

_ID = re.compile(r"(\d{1,9})\.\w+", re.ASCII)


class Cvusa(Dataset):
    """Panorama to satellite."""

    name = "cvusa"
    title = "CVUSA"
    citation = """@inproceedings{workman2015wide,
  title={Wide-Area Image Geolocalization with Aerial Reference Imagery},
  author={Workman, Scott and Souvenir, Richard and Jacobs, Nathan},
  booktitle={IEEE International Conference on Computer Vision},
  year={2015}
}
@inproceedings{zhai2017predicting,
  title={Predicting Ground-Level Scene Layout from Aerial Imagery},
  author={Zhai, Menghua and Bessinger, Zachary and Workman, Scott and Jacobs, Nathan},
  booktitle={IEEE Conference on Computer Vision and Pattern Recognition},
  year={2017}
}"""
    terms = "on request; the form states the terms"
    obtain = "request form at https://mvrl.cse.wustl.edu/datasets/cvusa/"
    layout = """bingmap/19/<id>.jpg
streetview/panos/<id>.jpg
splits/{train,val}-19zl.csv
split_locations/all.csv (may be absent)"""
    optional = ("bingmap/18", "bingmap/20", "streetview/annotations", "split_locations")
    sizes: ClassVar[Mapping[str, int]] = {"train pairs": 35_532, "test pairs": 8_884}

    def tasks(self) -> tuple[str, ...]:
        return ("ground2satellite",)

    def _load(self, tree: Tree, task: str, split: Split) -> Task:
        pairs = _pairs(tree, _LISTS[split])
        places = _locations(tree)
        gallery: list[Item] = []
        queries: list[Item] = []
        for satellite, panorama, number in pairs:
            above, below = places[number - 1] if 0 < number <= len(places) else ({}, {})
            gallery.append(tree.item(satellite, place=str(number), **above))
            queries.append(tree.item(panorama, place=str(number), **below))
        return Task(
            dataset=self.title,
            name=task,
            split=split,
            queries=tuple(queries),
            gallery=tuple(gallery),
            positives=tuple((row,) for row in range(len(gallery))),
        )

    def _required(self, tree: Tree) -> Sequence[str]:
        return ("bingmap/19", "streetview/panos", *_LISTS.values())

    def _counts(self, tree: Tree) -> dict[str, int]:
        return {
            f"{split} pairs": sum(bool(line.strip()) for line in tree.text(name).split("\n"))
            for split, name in _LISTS.items()
            if tree.has(name)
        }

    def _write_miniature(self, folder: Path, seed: int) -> None:
        """4 pairs to train and 5 to test with."""
        lines: dict[str, list[str]] = {name: [] for name in _LISTS.values()}
        locations: list[str] = []
        for place in range(9):
            name = f"{place + 1:07d}"
            image = miniature.ground(seed, place)
            paths = [f"bingmap/19/{name}.jpg", f"streetview/panos/{name}.jpg"]
            miniature.write_picture(folder / paths[0], miniature.view(image, seed, place))
            miniature.write_picture(folder / paths[1], miniature.panorama(image, seed, place))
            line = ",".join([*paths, f"streetview/annotations/{name}.png"])
            lines[_LISTS["train" if place < 4 else "test"]].append(line)
            position = f"{38 + place / 10:.6f},{-90 - place / 10:.6f}"
            locations.append(f"{position},{position},0")
        for file, rows in (*lines.items(), (_LOCATIONS, locations)):
            write_atomic(folder / file, "\n".join(rows) + "\n")


def _pairs(tree: Tree, source: str) -> list[tuple[str, str, int]]:
    """(satellite, panorama, id) of each line, all there.

    Raises:
        DatasetError: a line is not of that form, or pictures are missing.
    """
    found: list[tuple[str, str, int]] = []
    lost: list[str] = []
    for number, line in enumerate(tree.text(source).split("\n"), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split(",")]
        name = _ID.fullmatch(fields[0].rpartition("/")[2])
        if len(fields) < 2 or name is None:
            raise DatasetError(
                f"{tree.root / source}, line {number}: not satellite,panorama,annotation",
                hint="unpack splits again",
            )
        satellite, panorama = tree.inside(fields[0]), tree.inside(fields[1])
        lost += [path for path in (satellite, panorama) if not tree.has(path)]
        found.append((satellite, panorama, int(name[1])))
    if lost:
        raise absent(tree.root, source, lost)
    return found


def _locations(tree: Tree) -> list[tuple[Position, Position]]:
    """Positions of the satellite image and of the panorama, by id - 1; may be empty."""
    if not tree.has(_LOCATIONS):
        return []
    found: list[tuple[Position, Position]] = []
    for number, line in enumerate(tree.text(_LOCATIONS).rstrip("\n").split("\n"), start=1):
        try:
            values = [float(field) for field in line.split(",")[:4]]
        except ValueError:
            values = []
        if len(values) != 4 or not all(map(math.isfinite, values)):
            raise DatasetError(
                f"{tree.root / _LOCATIONS}, line {number}: not two positions",
                hint="unpack split_locations again, or remove it: distances then are not known",
            )
        above = {"lat": values[0], "lon": values[1]}
        found.append((above, {"lat": values[2], "lon": values[3]}))
    return found
