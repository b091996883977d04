"""SUES-200: 200 places in Shanghai at four heights, 50 drone frames a place and height.

Read after the authors' split script has made `Training` and `Testing` (also accepted: `train` and
`test`, and both inside `Dataset`). Each height is trained and tested on its own. All 200 places are
in the galleries, 80 of them with queries. No positions.

The script is a trap: it sorts the lists of places but throws the result away, so which 120 places
train depends on the order in which the file system lists folders, and drone and satellite lists
may even disagree. A check says where splits share places and where sides or heights disagree;
numbers compare only between copies that have one and the same split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from skylink.datasets import miniature
from skylink.datasets.base import Dataset
from skylink.datasets.places import Sides, place_counts, place_task, shared_places
from skylink.datasets.report import Finding
from skylink.datasets.task import Split, Task
from skylink.datasets.tree import Tree

HEIGHTS_M = (150, 200, 250, 300)

_HOMES = {"train": ("Training", "train"), "test": ("Testing", "test")}
_TRAIN = ("drone", "satellite")
_TEST = ("query_drone", "query_satellite", "gallery_drone", "gallery_satellite")
_PLACES = {"drone": 120, "satellite": 120, "query": 80, "gallery": 200}


class Sues200(Dataset):
    """Both directions at each of four heights."""

    name = "sues200"
    aliases = ("sues-200", "sues")
    title = "SUES-200"
    citation = """@article{zhu2023sues,
  title={SUES-200: A Multi-height Multi-scene Cross-view Image Benchmark Across Drone and
    Satellite},
  author={Zhu, Runzhe and Yin, Ling and Yang, Mingze and Wu, Fei and Yang, Yuncheng and
    Hu, Wenbo},
  journal={IEEE Transactions on Circuits and Systems for Video Technology},
  year={2023},
  doi={10.1109/TCSVT.2023.3249204}
}"""
    terms = "academic research only"
    obtain = (
        "links in https://github.com/Reza-Zhu/SUES-200-Benchmark; then run its "
        "script/split_datasets.py, which makes Training and Testing"
    )
    layout = """Training/{150,200,250,300}/{drone,satellite}/<place>/*.jpg, *.png
Testing/{150,200,250,300}/{query,gallery}_{drone,satellite}/<place>/*.jpg, *.png"""
    optional = ("drone-view", "satellite-view", "drone_view_512")
    sizes: ClassVar[Mapping[str, int]] = {
        f"{home}/{height}/{side} {what}": _PLACES[side.split("_")[0]]
        * (50 if what == "images" and side.endswith("drone") else 1)
        for home, sides in (("train", _TRAIN), ("test", _TEST))
        for height in HEIGHTS_M
        for side in sides
        for what in ("places", "images")
    }

    def tasks(self) -> tuple[str, ...]:
        return tuple(f"{way}-{height}" for height in HEIGHTS_M for way in ("D2S", "S2D"))

    def _load(self, tree: Tree, task: str, split: Split) -> Task:
        way, _, height = task.partition("-")
        asked, found = ("drone", "satellite") if way == "D2S" else ("satellite", "drone")
        home = f"{_home(tree, split)}/{height}"
        if split == "train":
            sides = Sides(queries=f"{home}/{asked}", gallery=f"{home}/{found}")
        else:
            sides = Sides(queries=f"{home}/query_{asked}", gallery=f"{home}/gallery_{found}")

        def said(folder: str, place: str, name: str) -> dict[str, Any]:
            return {"altitude_m": float(height)} if folder.endswith("drone") else {}

        return place_task(tree, sides, dataset=self.title, name=task, split=split, said=said)

    def _required(self, tree: Tree) -> Sequence[str]:
        return [
            f"{_home(tree, split)}/{height}/{side}"
            for split, sides in (("train", _TRAIN), ("test", _TEST))
            for height in HEIGHTS_M
            for side in sides
        ]

    def _counts(self, tree: Tree) -> dict[str, int]:
        """Under the names `train` and `test`, whatever the folders are called."""
        names = {_home(tree, split): split for split in _HOMES}
        counts: dict[str, int] = {}
        for what, number in place_counts(tree, self._required(tree)).items():
            home = next(home for home in names if what.startswith(f"{home}/"))
            counts[names[home] + what.removeprefix(home)] = number
        return counts

    def _contradictions(self, tree: Tree) -> Sequence[Finding]:
        found: list[Finding] = []
        asked: dict[str, frozenset[str]] = {}
        for height in HEIGHTS_M:
            train, test = (f"{_home(tree, split)}/{height}" for split in _HOMES)
            trained = [f"{train}/{side}" for side in _TRAIN]
            queries = [f"{test}/query_{side}" for side in _TRAIN]
            found += shared_places(tree, trained, queries)
            asked |= {f: frozenset(tree.folders(f)) for f in queries if tree.has(f)}
        if len(set(asked.values())) > 1:
            first, *others = asked
            other = next(folder for folder in others if asked[folder] != asked[first])
            what = f"{tree.root / first} and {tree.root / other} hold different places"
            fix = "one split is meant for all heights and sides: split all of them again, sorted"
            found.append(Finding(kind="problem", what=what, fix=fix))
        return found

    def _write_miniature(self, folder: Path, seed: int) -> None:
        """3 places to train; 3 to ask for, and all 6 in the galleries; 2 frames each."""
        for place in range(6):
            label = f"{place + 1:04d}"
            image = miniature.ground(seed, place)
            satellite = miniature.view(image, seed, place, span_px=150)
            for height in HEIGHTS_M:
                train, test = folder / f"Training/{height}", folder / f"Testing/{height}"
                if place < 3:
                    homes = [(train, ""), (test, "gallery_")]
                else:
                    homes = [(test, "query_"), (test, "gallery_")]
                for home, side in homes:
                    path = home / f"{side}satellite" / label / "0.png"
                    miniature.write_picture(path, satellite)
                    for step, heading in enumerate(miniature.headings(2)):
                        span = height / 2
                        drone = miniature.view(
                            image, seed, place, height, step, heading_deg=heading, span_px=span
                        )
                        path = home / f"{side}drone" / label / f"{step}.jpg"
                        miniature.write_picture(path, drone)


def _home(tree: Tree, split: str) -> str:
    """The folder of a split as this copy calls it; the authors' name where there is none."""
    for top in ("", "Dataset/"):
        for name in _HOMES[split]:
            if tree.has(top + name):
                return top + name
    return _HOMES[split][0]
