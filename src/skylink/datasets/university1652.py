"""University-1652: buildings of 72 universities from drone, satellite and street.

Layout and sizes as in the authors' README. The drone views are renderings of Google Earth, 54 a
building. The release has no positions (the authors give those apart, as KML), so only recall and
average precision can be measured. 250 of the 951 test buildings have no query: distractors.
`train/google` (pictures found on the web) and `test/4K_drone` are of no protocol here. File names
inside a building's folder (`image-01.jpeg`, `0001.jpg`, `1.jpg`) are from memory of the release,
not from its documents; loading does not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from skylink.datasets import miniature
from skylink.datasets.base import Dataset
from skylink.datasets.places import Sides, place_counts, place_task, shared_places
from skylink.datasets.report import Finding
from skylink.datasets.task import Split, Task
from skylink.datasets.tree import Tree

_VIEWS = {
    "D2S": ("drone", "satellite"),
    "S2D": ("satellite", "drone"),
    "street2satellite": ("street", "satellite"),
    "satellite2street": ("satellite", "street"),
}
_TRAIN = ("train/drone", "train/satellite", "train/street")
_TEST = tuple(
    f"test/{side}_{view}"
    for side in ("query", "gallery")
    for view in ("drone", "satellite", "street")
)


class University1652(Dataset):
    """D2S localizes a drone photo, S2D finds drone photos of a place; street views likewise."""

    name = "university1652"
    aliases = ("university-1652", "u1652", "u-1652", "university")
    title = "University-1652"
    citation = """@inproceedings{zheng2020university,
  title={University-1652: A Multi-view Multi-source Benchmark for Drone-based Geo-localization},
  author={Zheng, Zhedong and Wei, Yunchao and Yang, Yi},
  booktitle={ACM Multimedia},
  year={2020},
  doi={10.1145/3394171.3413896}
}"""
    terms = "research only; not to be passed on, sold or profited from"
    obtain = (
        "request it by e-mail with the authors' template: "
        "https://github.com/layumi/University1652-Baseline (Request.md)"
    )
    layout = """train/{drone,satellite,street,google}/<building>/*.jp(e)g
test/{query,gallery}_{drone,satellite,street}/<building>/*.jp(e)g"""
    optional = ("train/google", "test/4K_drone")
    sizes: ClassVar[Mapping[str, int]] = {
        "train/drone places": 701,
        "train/satellite places": 701,
        "train/satellite images": 701,
        "train/street places": 701,
        "test/query_drone places": 701,
        "test/query_drone images": 37_855,
        "test/query_satellite places": 701,
        "test/query_satellite images": 701,
        "test/query_street places": 701,
        "test/query_street images": 2_579,
        "test/gallery_drone places": 951,
        "test/gallery_drone images": 51_355,
        "test/gallery_satellite places": 951,
        "test/gallery_satellite images": 951,
        "test/gallery_street places": 793,
        "test/gallery_street images": 2_921,
    }

    def tasks(self) -> tuple[str, ...]:
        return tuple(_VIEWS)

    def _load(self, tree: Tree, task: str, split: Split) -> Task:
        asked, found = _VIEWS[task]
        if split == "train":
            sides = Sides(queries=f"train/{asked}", gallery=f"train/{found}")
        else:
            sides = Sides(queries=f"test/query_{asked}", gallery=f"test/gallery_{found}")
        return place_task(tree, sides, dataset=self.title, name=task, split=split)

    def _required(self, tree: Tree) -> Sequence[str]:
        return (*_TRAIN, *_TEST)

    def _counts(self, tree: Tree) -> dict[str, int]:
        return place_counts(tree, self._required(tree))

    def _contradictions(self, tree: Tree) -> Sequence[Finding]:
        return shared_places(tree, _TRAIN, _TEST)

    def _write_miniature(self, folder: Path, seed: int) -> None:
        """4 buildings to train; 4 to ask for and 2 distractors, of which one has a street view."""
        for place in range(10):
            label = f"{place:04d}"
            image = miniature.ground(seed, place)
            satellite = miniature.view(image, seed, place, span_px=150)
            drones = [
                miniature.view(image, seed, place, step, heading_deg=heading, span_px=120)
                for step, heading in enumerate(miniature.headings(3))
            ]
            street = miniature.panorama(image, seed, place)
            if place < 4:
                sides = ["train/{}"]
            elif place < 8:
                sides = ["test/query_{}", "test/gallery_{}"]
            else:
                sides = ["test/gallery_{}"]
            for side in sides:
                home = folder / side.format("satellite") / label
                miniature.write_picture(home / f"{label}.jpg", satellite)
                for step, drone in enumerate(drones, start=1):
                    home = folder / side.format("drone") / label
                    miniature.write_picture(home / f"image-{step:02d}.jpeg", drone)
                if place != 9:
                    home = folder / side.format("street") / label
                    miniature.write_picture(home / "1.jpg", street)
            if place < 4:
                miniature.write_picture(folder / "train/google" / label / "0.jpg", street)
