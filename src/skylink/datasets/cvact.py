"""CVACT: street panoramas and satellite images of Canberra, one pair a place.

As the authors' readers and Sample4Geo take it: `ACT_data.mat` (MATLAB 5) has `panoIds`, `utm` and
1-based rows `trainSet.trainInd`, `valSet.valInd`; pictures are `<id>_grdView.jpg` and
`<id>_satView_polish.jpg`. CVACT_val is the protocol `val`; CVACT_test (`test`) is every pair in
`ANU_data_test`, by sorted id. One training pair is known to lack a picture: pairs without both are
left out, and the task's notes say how many. `x_m`, `y_m` are the two columns of `utm` as they are.

The authors count any satellite image within some metres as right in CVACT_test, Sample4Geo and
those after it only the pair; the positives here are the pairs, `Task.rows_within_m` gives the
others. Names of further variables in the file were not verified; none are read.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skylink.datasets import miniature
from skylink.datasets.base import Dataset
from skylink.datasets.task import Split, Task
from skylink.datasets.tree import Tree
from skylink.errors import DatasetError, OptionError
from skylink.files import write_atomic

MAX_MAT_BYTES = 200_000_000
MAX_VALUES = 20_000_000

_MAT = "ACT_data.mat"
_SETS = {"train": ("trainSet", "trainInd"), "test": ("valSet", "valInd")}
_GROUND, _SATELLITE = "_grdView.jpg", "_satView_polish.jpg"
_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


class Cvact(Dataset):
    """Panorama to satellite: CVACT_val, and the larger CVACT_test."""

    name = "cvact"
    title = "CVACT"
    citation = """@inproceedings{liu2019lending,
  title={Lending Orientation to Neural Networks for Cross-view Geo-localization},
  author={Liu, Liu and Li, Hongdong},
  booktitle={IEEE Conference on Computer Vision and Pattern Recognition},
  year={2019}
}"""
    terms = "academic use, on request"
    obtain = "request as in https://github.com/Liumouliu/OriCNN"
    layout = """ACT_data.mat
ANU_data_small/{streetview/<id>_grdView.jpg,satview_polish/<id>_satView_polish.jpg}
ANU_data_test/{streetview/<id>_grdView.jpg,satview_polish/<id>_satView_polish.jpg}"""
    sizes: ClassVar[Mapping[str, int]] = {
        "train pairs listed": 35_532,
        "val pairs listed": 8_884,
        "test pairs": 92_802,
    }

    def tasks(self) -> tuple[str, ...]:
        return ("val", "test")

    def _load(self, tree: Tree, task: str, split: Split) -> Task:
        if task == "test" and split == "train":
            raise OptionError(
                "CVACT_test has no pictures to train with", hint="use the train split of val"
            )
        ids, utm, sets = _read_mat(tree)
        positions = dict(zip(ids, utm.tolist(), strict=True))
        home = "ANU_data_test" if task == "test" else "ANU_data_small"
        grounds = _stems(tree, f"{home}/streetview", _GROUND)
        satellites = _stems(tree, f"{home}/satview_polish", _SATELLITE)
        both = grounds & satellites
        wanted = sorted(grounds | satellites) if task == "test" else [ids[i] for i in sets[split]]
        pairs = [pano for pano in wanted if pano in both]
        left_out = len(wanted) - len(pairs)
        at = {p: dict(zip(("x_m", "y_m"), positions[p], strict=True)) for p in pairs if p in ids}
        note = f"{home}: {left_out:,} places lack one of their two pictures and are left out"
        return Task(
            dataset=self.title,
            name=task,
            split=split,
            queries=tuple(
                tree.item(f"{home}/streetview/{p}{_GROUND}", place=p, **at.get(p, {}))
                for p in pairs
            ),
            gallery=tuple(
                tree.item(f"{home}/satview_polish/{p}{_SATELLITE}", place=p, **at.get(p, {}))
                for p in pairs
            ),
            positives=tuple((row,) for row in range(len(pairs))),
            notes=(note,) if left_out else (),
        )

    def _required(self, tree: Tree) -> Sequence[str]:
        homes = ("ANU_data_small", "ANU_data_test")
        return (_MAT, *(f"{h}/{side}" for h in homes for side in ("streetview", "satview_polish")))

    def _counts(self, tree: Tree) -> dict[str, int]:
        counts: dict[str, int] = {}
        if tree.has(_MAT):
            _, _, sets = _read_mat(tree)
            counts = {
                "train pairs listed": len(sets["train"]),
                "val pairs listed": len(sets["test"]),
            }
        streets, tiles = "ANU_data_test/streetview", "ANU_data_test/satview_polish"
        if tree.has(streets) and tree.has(tiles):
            both = _stems(tree, streets, _GROUND) & _stems(tree, tiles, _SATELLITE)
            counts["test pairs"] = len(both)
        return counts

    def _write_miniature(self, folder: Path, seed: int) -> None:
        """3 pairs to train, 4 of CVACT_val, 5 of CVACT_test."""
        savemat = _scipy_io().savemat
        ids = [f"pano_{place:02d}-{'abcdefghijkl'[place]}AAAAAAAAAAAA" for place in range(12)]
        for place, pano in enumerate(ids):
            home = folder / ("ANU_data_test" if place >= 7 else "ANU_data_small")
            image = miniature.ground(seed, place)
            miniature.write_picture(
                home / "streetview" / f"{pano}{_GROUND}", miniature.panorama(image, seed, place)
            )
            miniature.write_picture(
                home / "satview_polish" / f"{pano}{_SATELLITE}", miniature.view(image, seed, place)
            )
        rows = {"train": range(1, 4), "test": range(4, 8)}
        data = io.BytesIO()
        savemat(
            data,
            {
                "panoIds": np.array(ids),
                "utm": np.array([(6_094_000 + 40.0 * i, 693_000 + 30.0 * i) for i in range(12)]),
                **{
                    name: {"number": len(rows[split]), field: np.array(rows[split])[:, None]}
                    for split, (name, field) in _SETS.items()
                },
            },
        )
        write_atomic(folder / _MAT, data.getvalue())


def _stems(tree: Tree, folder: str, suffix: str) -> set[str]:
    return {n.removesuffix(suffix) for n in tree.pictures(folder) if n.endswith(suffix)}


def _read_mat(tree: Tree) -> tuple[list[str], NDArray[np.float64], dict[str, list[int]]]:
    """(ids, (N, 2) utm metres, rows of `train` and `test`).

    Raises:
        DatasetError: the file is missing or is not the published one.
    """
    if not tree.has(_MAT):
        raise tree.missing(_MAT)
    path = tree.root / _MAT
    if path.stat().st_size > MAX_MAT_BYTES:
        raise DatasetError(
            f"{path} is too large to be the published MATLAB file", hint="download it again"
        )
    scipy_io = _scipy_io()
    names = ["panoIds", "utm", *(name for name, _ in _SETS.values())]
    try:
        sizes = {name: math.prod(shape) for name, shape, _ in scipy_io.whosmat(path)}
        if max(sizes.get(name, 0) for name in names) > MAX_VALUES:
            raise ValueError("a variable in it is too large")  # the file is compressed
        data: dict[str, Any] = scipy_io.loadmat(path, variable_names=names)
        ids = [str(pano).strip() for pano in np.ravel(data["panoIds"])]
        utm = np.asarray(data["utm"], dtype=np.float64).reshape(len(ids), 2)
        sets = {
            split: [int(row) - 1 for row in np.ravel(data[name][field][0, 0])]
            for split, (name, field) in _SETS.items()
        }
        if not np.isfinite(utm).all() or not all(map(_ID.fullmatch, ids)):
            raise ValueError("ids or positions are not as published")
        if not all(0 <= row < len(ids) for rows in sets.values() for row in rows):
            raise ValueError("rows point outside its ids")
    # a damaged MATLAB file fails in nearly any way (ValueError, TypeError, zlib.error ...)
    except Exception as error:
        raise DatasetError(
            f"{path} is not the published MATLAB file: {error}", hint="download it again"
        ) from error
    return ids, utm, sets


def _scipy_io() -> Any:
    try:
        import scipy.io
    except ImportError as error:
        raise DatasetError(
            "CVACT's lists are in a MATLAB file, which needs SciPy", hint="pip install scipy"
        ) from error
    return scipy.io
