"""A benchmark as a folder that programs for visual place recognition read: names carry positions.

`images/SPLIT/queries` and `images/SPLIT/database`, as VPR-datasets-downloader lays them out; the
names are those of `vpr.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from skylink.datasets import PictureReader, Task
from skylink.errors import DatasetError, OutputError
from skylink.files import output_errors
from skylink.vpr import vpr_names


def export_vpr(
    task: Task, folder: Path, *, progress: Callable[[int, int, str], None] = lambda *_: None
) -> Path:
    """Copy a task's pictures under names that carry their positions.

    Files are copied as they are; parts of maps are cut out and written as PNG.

    Raises:
        DatasetError: the dataset has no geographic positions.
        OutputError: the folder is not empty, or can't be written to.
        QueriesError: positions are too far apart for one UTM zone.
    """
    if task.metres != "geodesic":
        raise DatasetError(
            f"{task.title} has no geographic positions, which the names would carry",
            hint="write a run file instead: --save-run",
        )
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not an empty folder", hint="name a new folder")
    items = [*task.queries, *task.gallery]
    places = np.concatenate([task.positions("queries"), task.positions("gallery")])
    nan = float("nan")
    names = vpr_names(
        [f"{side}/{i.id}" for side, many in (("q", task.queries), ("g", task.gallery))
         for i in many],
        lon=places[:, 0],
        lat=places[:, 1],
        heading_deg=[nan if i.heading_deg is None else i.heading_deg for i in items],
        height_m=[nan if i.altitude_m is None else i.altitude_m for i in items],
    )  # fmt: skip
    reader = PictureReader()
    split = folder / "images" / task.split
    with output_errors(folder):
        for side in ("queries", "database"):
            (split / side).mkdir(parents=True, exist_ok=True)
        for number, (item, name) in enumerate(zip(items, names, strict=True)):
            stem = name.removesuffix(".jpg")
            side = "queries" if number < len(task.queries) else "database"
            if item.window is None:
                shutil.copyfile(item.path, split / side / f"{stem}{item.path.suffix.lower()}")
            else:
                picture = cv2.cvtColor(reader.read(item), cv2.COLOR_RGB2BGR)
                if not cv2.imwrite(str(split / side / f"{stem}.png"), picture):
                    raise OutputError(f"cannot write {split / side}", hint="free some space")
            progress(number + 1, len(items), item.id)
    reader.close()
    return folder
