"""VIGOR: street panoramas and satellite tiles of four US cities; a transfer to ground views.

Layout and label files as in the authors' `DATASET.md` and reader: a line of a label file is the
panorama and four tiles, each with its offset in pixels; the first tile is the positive, the other
three show the panorama's place only near their edge (semi-positives). Sample4Geo's arrangement
(`ground/<city>`, `satellite/<city>`) is read too. Positions are in the file names.

Same-area trains and tests in all four cities, cross-area trains in New York and Seattle and tests
in Chicago and San Francisco. The gallery is every listed tile of the split's cities, also those
that no panorama shows. Labels under `splits` are read; the `splits__corrected` of later authors
move the offsets, which are not used here. Whether cities are in the archives' order makes no
difference to the metrics; here they are in alphabetical order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from skylink.datasets import miniature
from skylink.datasets.base import Dataset
from skylink.datasets.task import Item, Rows, Split, Task
from skylink.datasets.tree import Tree, absent
from skylink.errors import DatasetError
from skylink.files import write_atomic
from skylink.geo import destination

CITIES = ("Chicago", "NewYork", "SanFrancisco", "Seattle")

_CROSS = {"train": ("NewYork", "Seattle"), "test": ("Chicago", "SanFrancisco")}
_TILES, _ALL = "satellite_list.txt", "pano_label_balanced.txt"
_LABELS = {"train": "same_area_balanced_train.txt", "test": "same_area_balanced_test.txt"}
_NUMBER = r"(-?\d{1,3}\.\d+)"
_TILE = re.compile(rf"satellite_{_NUMBER}_{_NUMBER}\.\w+", re.ASCII)
_PANORAMA = re.compile(rf".+,{_NUMBER},{_NUMBER},\.\w+", re.ASCII)


class Vigor(Dataset):
    """Panorama to satellite, same-area and cross-area."""

    name = "vigor"
    title = "VIGOR"
    citation = """@inproceedings{zhu2021vigor,
  title={VIGOR: Cross-View Image Geo-localization beyond One-to-one Retrieval},
  author={Zhu, Sijie and Yang, Taojiannan and Chen, Chen},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages={3640--3649},
  year={2021}
}"""
    terms = "academic research only; not to be distributed"
    obtain = "questionnaire in https://github.com/Jeff-Zilence/VIGOR (data/DATASET.md)"
    layout = """{Chicago,NewYork,SanFrancisco,Seattle}/panorama/<id>,<lat>,<lon>,.jpg
{Chicago,NewYork,SanFrancisco,Seattle}/satellite/satellite_<lat>_<lon>.png
splits/<city>/{satellite_list,pano_label_balanced,same_area_balanced_{train,test}}.txt"""
    optional = ("ground", "splits__corrected")
    sizes: ClassVar[Mapping[str, int]] = {
        "satellite tiles listed": 90_618,
        "panoramas listed": 105_214,
        "same-area train panoramas": 52_609,
        "same-area test panoramas": 52_605,
        "cross-area train panoramas": 51_520,
        "cross-area test panoramas": 53_694,
    }

    def tasks(self) -> tuple[str, ...]:
        return ("same-area", "cross-area")

    def _load(self, tree: Tree, task: str, split: Split) -> Task:
        cities = CITIES if task == "same-area" else _CROSS[split]
        labels = _LABELS[split] if task == "same-area" else _ALL
        gallery: list[Item] = []
        queries: list[Item] = []
        positives: list[Rows] = []
        semi: list[Rows] = []
        for city in cities:
            tiles = _names(tree, city, _TILES)
            _expect(tree, _TILES, _folder(tree, city, "satellite"), tiles)
            rows = {name: row for row, name in enumerate(tiles, start=len(gallery))}
            gallery += (_located(tree, _folder(tree, city, "satellite"), n, _TILE) for n in tiles)
            folder = _folder(tree, city, "panorama")
            lines = _labels(tree, city, labels, rows)
            _expect(tree, f"splits/{city}/{labels}", folder, [name for name, _ in lines])
            for name, found in lines:
                queries.append(_located(tree, folder, name, _PANORAMA))
                positives.append(found[:1])
                semi.append(tuple(sorted(set(found[1:]) - {found[0]})))
        return Task(
            dataset=self.title,
            name=task,
            split=split,
            queries=tuple(queries),
            gallery=tuple(gallery),
            positives=tuple(positives),
            semi_positives=tuple(semi),
        )

    def _required(self, tree: Tree) -> Sequence[str]:
        pictures = [_folder(tree, c, view) for c in CITIES for view in ("panorama", "satellite")]
        lists = (_TILES, _ALL, *_LABELS.values())
        return (*pictures, *(f"splits/{city}/{name}" for city in CITIES for name in lists))

    def _counts(self, tree: Tree) -> dict[str, int]:
        def listed(cities: Sequence[str], name: str) -> int:
            files = (f"splits/{city}/{name}" for city in cities)
            lines = (line for f in files if tree.has(f) for line in tree.text(f).split("\n"))
            return sum(bool(line.strip()) for line in lines)

        return {
            "satellite tiles listed": listed(CITIES, _TILES),
            "panoramas listed": listed(CITIES, _ALL),
            **{f"same-area {s} panoramas": listed(CITIES, n) for s, n in _LABELS.items()},
            **{f"cross-area {s} panoramas": listed(c, _ALL) for s, c in _CROSS.items()},
        }

    def _write_miniature(self, folder: Path, seed: int) -> None:
        """6 tiles in a row and 4 panoramas a city: 2 to train, 2 to test with."""
        corners = ((41.88, -87.63), (40.73, -73.99), (37.77, -122.42), (47.61, -122.33))
        for index, (city, (lat0, lon0)) in enumerate(zip(CITIES, corners, strict=True)):
            street = miniature.ground(seed, index, width=60 * 7, height=140)
            tiles: list[str] = []
            for tile in range(6):
                lon, lat = destination(lon=lon0, lat=lat0, east_m=36.0 * tile, north_m=0.0)
                tiles.append(f"satellite_{lat:.10f}_{lon:.10f}.png")
                at = (60.0 + 60 * tile, 70.0)
                picture = miniature.view(street, seed, index, tile, centre=at, span_px=120)
                miniature.write_picture(folder / city / "satellite" / tiles[-1], picture)
            lines: list[str] = []
            for pano in range(4):
                lon, lat = destination(lon=lon0, lat=lat0, east_m=36.0 * pano + 5, north_m=3.0)
                name = f"Pano{index}{pano},{lat:.6f},{lon:.6f},.jpg"
                near = street[:, 60 * pano + 8 : 60 * pano + 128]
                seen = miniature.panorama(near, seed, index, pano)
                miniature.write_picture(folder / city / "panorama" / name, seen)
                order = [tile for _, tile in sorted((abs(t - pano), t) for t in range(6))][:4]
                lines.append(name + "".join(f" {tiles[t]} 0.0 {32.0 * (t - pano)}" for t in order))
            home = folder / "splits" / city
            for file, rows in (
                (_TILES, tiles),
                (_ALL, lines),
                (_LABELS["train"], lines[::2]),
                (_LABELS["test"], lines[1::2]),
            ):
                write_atomic(home / file, "\n".join(rows) + "\n")


def _folder(tree: Tree, city: str, view: str) -> str:
    """A city's pictures in the authors' arrangement, or in Sample4Geo's where that is there."""
    other = f"{'ground' if view == 'panorama' else view}/{city}"
    return other if tree.has(other) else f"{city}/{view}"


def _names(tree: Tree, city: str, file: str) -> list[str]:
    lines = tree.text(f"splits/{city}/{file}").split("\n")
    return [tree.inside(line.strip()) for line in lines if line.strip()]


def _labels(
    tree: Tree, city: str, file: str, rows: dict[str, int]
) -> list[tuple[str, tuple[int, ...]]]:
    """(panorama, gallery rows of its four tiles, the positive first) of each line."""
    found: list[tuple[str, tuple[int, ...]]] = []
    for number, line in enumerate(tree.text(f"splits/{city}/{file}").split("\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        tiles = fields[1::3]
        if len(fields) != 13 or any(tile not in rows for tile in tiles):
            raise DatasetError(
                f"{tree.root / 'splits' / city / file}, line {number}: not a panorama and four "
                f"tiles of {_TILES} with their offsets",
                hint="unpack splits again",
            )
        found.append((tree.inside(fields[0]), tuple(rows[tile] for tile in tiles)))
    return found


def _expect(tree: Tree, source: str, folder: str, names: Sequence[str]) -> None:
    here = set(tree.pictures(folder))
    lost = [f"{folder}/{name}" for name in names if name not in here]
    if lost:
        raise absent(tree.root, source, lost)


def _located(tree: Tree, folder: str, name: str, pattern: re.Pattern[str]) -> Item:
    """A picture with the position in its name."""
    fields = pattern.fullmatch(name)
    lat, lon = (float(field) for field in fields.groups()) if fields else (999.0, 999.0)
    if abs(lat) > 90 or abs(lon) > 180:
        raise DatasetError(
            f"{tree.root / folder / name} has no position in its name",
            hint="the names are part of the dataset: unpack it again",
        )
    return tree.item(f"{folder}/{name}", lon=lon, lat=lat)
