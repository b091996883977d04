"""Benchmarks of the field as published: what they are, whether a copy is whole, their protocols.

    dataset = find_dataset("university1652")
    print(dataset.check("U1652").findings)
    task = dataset.load("U1652", "D2S")

One's own map and photos need none of this: a gallery and a queries.csv say it all.
"""

from __future__ import annotations

from skylink.datasets.base import Dataset
from skylink.datasets.cvact import Cvact
from skylink.datasets.cvusa import Cvusa
from skylink.datasets.denseuav import DenseUav
from skylink.datasets.gtauav import GtaUav
from skylink.datasets.pictures import PictureReader
from skylink.datasets.report import Count, Finding, Report
from skylink.datasets.sues200 import Sues200
from skylink.datasets.task import Item, Split, Task
from skylink.datasets.uavvisloc import UavVisLoc
from skylink.datasets.university1652 import University1652
from skylink.datasets.vigor import Vigor
from skylink.errors import OptionError

__all__ = [
    "REGISTRY",
    "Count",
    "Dataset",
    "Finding",
    "Item",
    "PictureReader",
    "Report",
    "Split",
    "Task",
    "find_dataset",
]

REGISTRY: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        University1652(),
        Sues200(),
        DenseUav(),
        GtaUav(),
        UavVisLoc(),
        Vigor(),
        Cvusa(),
        Cvact(),
    )
}
"""Every dataset by its name."""


def find_dataset(name: str) -> Dataset:
    """A dataset by its name or an alias, in any case.

    Raises:
        OptionError: there is none; the hint lists those that there are.
    """
    wanted = name.strip().casefold()
    for dataset in REGISTRY.values():
        if wanted in (dataset.name, *dataset.aliases, dataset.title.casefold()):
            return dataset
    raise OptionError(f"no dataset is called {name!r}", hint=f"there are {', '.join(REGISTRY)}")
