"""DenseUAV: dense low-altitude flights over 14 universities, satellite images of two years.

Layout and sizes as in the authors' README. A place is a spot some 20 m from the next; its six
satellite images are three scales (named after the drone's height) of a recent and an old year, all
of them right answers. The gallery holds all 3,033 places, also those of training, as distractors.

Positions come from `Dense_GPS_ALL.txt` by place, as the authors' evaluation takes them (the later
line wins). Lines are `path E<lon> N<lat> <height>`: the letters say which is which, the README
says "latitude longitude". That height is above sea level by its values (`extra["gps_height_m"]`);
`altitude_m` of drone photos is their folder's 80, 90 or 100. That only some pictures of a place
have a line was reported by users, not verified here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from skylink.datasets import miniature
from skylink.datasets.base import Dataset
from skylink.datasets.places import Sides, place_counts, place_task, shared_places
from skylink.datasets.report import Finding
from skylink.datasets.task import Split, Task
from skylink.datasets.tree import Tree
from skylink.errors import DatasetError
from skylink.files import write_atomic
from skylink.geo import destination

HEIGHTS_M = (80, 90, 100)

_ALL, _PARTS = "Dense_GPS_ALL.txt", ("Dense_GPS_train.txt", "Dense_GPS_test.txt")
_TRAIN = ("train/drone", "train/satellite")
_QUERIES = ("test/query_drone", "test/query_satellite")
_GALLERIES = ("test/gallery_drone", "test/gallery_satellite")
_LINE = re.compile(r"(\S+)\s+([EW])(\d+\.?\d*)\s+([NS])(\d+\.?\d*)\s+(-?\d+\.?\d*)", re.ASCII)
_HEIGHT = re.compile(r"[Hh](\d+)", re.ASCII)

Position = tuple[float, float, float]


class DenseUav(Dataset):
    """D2S and S2D, with distances in metres."""

    name = "denseuav"
    aliases = ("dense-uav",)
    title = "DenseUAV"
    citation = """@article{dai2024denseuav,
  title={Vision-Based UAV Self-Positioning in Low-Altitude Urban Environments},
  author={Dai, Ming and Zheng, Enhui and Feng, Zhenhua and Qi, Lei and Zhuang, Jiedong and
    Yang, Wankou},
  journal={IEEE Transactions on Image Processing},
  volume={33},
  pages={493--508},
  year={2024},
  doi={10.1109/TIP.2023.3346279}
}"""
    terms = "the authors' repository is under Apache-2.0; the data's page has its own terms"
    obtain = "https://github.com/Dmmm1997/DenseUAV (data on Hugging Face: Dmmm997/DenseUAV)"
    layout = """train/{drone,satellite}/<place>/H{80,90,100}.JPG | H{80,90,100}.tif, *_old.tif
test/{query,gallery}_{drone,satellite}/<place>/ (likewise)
Dense_GPS_{ALL,train,test}.txt"""
    sizes: ClassVar[Mapping[str, int]] = {
        f"{folder} {what}": number
        for folders, places in ((_TRAIN, 2_256), (_QUERIES, 777), (_GALLERIES, 3_033))
        for folder, each in zip(folders, (3, 6), strict=True)
        for what, number in (("places", places), ("images", places * each))
    }

    def tasks(self) -> tuple[str, ...]:
        return ("D2S", "S2D")

    def _load(self, tree: Tree, task: str, split: Split) -> Task:
        asked, found = ("drone", "satellite") if task == "D2S" else ("satellite", "drone")
        if split == "train":
            sides = Sides(queries=f"train/{asked}", gallery=f"train/{found}")
        else:
            sides = Sides(queries=f"test/query_{asked}", gallery=f"test/gallery_{found}")
        positions = _positions(tree)

        def said(folder: str, place: str, name: str) -> dict[str, Any]:
            fields: dict[str, Any] = {}
            if place in positions:
                lon, lat, height = positions[place]
                fields = {"lon": lon, "lat": lat, "extra": {"gps_height_m": height}}
            height_m = _HEIGHT.match(name)
            if height_m and folder.endswith("drone"):
                fields["altitude_m"] = float(height_m[1])
            return fields

        return place_task(tree, sides, dataset=self.title, name=task, split=split, said=said)

    def _required(self, tree: Tree) -> Sequence[str]:
        return (*_TRAIN, *_QUERIES, *_GALLERIES, _ALL)

    def _counts(self, tree: Tree) -> dict[str, int]:
        return place_counts(tree, (*_TRAIN, *_QUERIES, *_GALLERIES))

    def _contradictions(self, tree: Tree) -> Sequence[Finding]:
        found = shared_places(tree, _TRAIN, _QUERIES)
        known = _positions(tree)
        places = {p for f in (*_TRAIN, *_GALLERIES) if tree.has(f) for p in tree.folders(f)}
        lost = sorted(places - known.keys())
        if lost:
            what = f"{len(lost)} places have no position in {tree.root / _ALL}: "
            fix = "distances cannot be measured: unpack the Dense_GPS files again"
            what += ", ".join(lost[:5]) + (" ..." if len(lost) > 5 else "")
            found.append(Finding(kind="problem", what=what, fix=fix))
        return found

    def _write_miniature(self, folder: Path, seed: int) -> None:
        """3 places to train and 3 to ask for along one flight, 20 m apart, in 6 galleries."""
        flight = miniature.ground(seed, width=640)
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for place in range(6):
            label, centre = f"{place:06d}", (90.0 + 90 * place, 128.0)
            lon, lat = destination(lon=120.387, lat=30.324, east_m=20.0 * place, north_m=0.0)
            split, folders = ("train", _TRAIN) if place < 3 else ("test", _QUERIES)
            position = f"E{lon:.7f} N{lat:.7f} 94.606"
            lines[split].append(f"{folders[1]}/{label}/H80.tif {position}")
            for drones, satellites in (folders, _GALLERIES):
                for height in HEIGHTS_M:
                    drone = miniature.view(
                        flight, seed, place, height, centre=centre, heading_deg=31, span_px=height
                    )
                    path = folder / drones / label / f"H{height}.JPG"
                    miniature.write_picture(path, drone)
                    for year, suffix in enumerate(("", "_old")):
                        satellite = miniature.view(
                            flight, seed, place, height, year, centre=centre, span_px=1.2 * height
                        )
                        path = folder / satellites / label / f"H{height}{suffix}.tif"
                        miniature.write_picture(path, satellite)
        for name, rows in zip(_PARTS, lines.values(), strict=True):
            write_atomic(folder / name, "\n".join(rows) + "\n")
        write_atomic(folder / _ALL, "\n".join(lines["train"] + lines["test"]) + "\n")


def _positions(tree: Tree) -> dict[str, Position]:
    """(lon, lat, height above sea level) of each place that the lists know.

    Raises:
        DatasetError: a line cannot be read.
    """
    names = (_ALL,) if tree.has(_ALL) else tuple(name for name in _PARTS if tree.has(name))
    positions: dict[str, Position] = {}
    for name in names:
        for number, line in enumerate(tree.text(name).split("\n"), start=1):
            if not line.strip():
                continue
            fields = _LINE.fullmatch(line.strip())
            parts = fields[1].split("/") if fields else []
            lon, lat = (float(fields[3]), float(fields[5])) if fields else (999.0, 999.0)
            if fields is None or len(parts) < 2 or lon > 180 or lat > 90:
                raise DatasetError(
                    f"{tree.root / name}, line {number}: not `path E<lon> N<lat> <height>`",
                    hint="unpack the Dense_GPS files again",
                )
            east, north = fields[2] == "E", fields[4] == "N"
            positions[parts[-2]] = (lon if east else -lon, lat if north else -lat, float(fields[6]))
    return positions
