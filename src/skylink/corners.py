"""A folder of images with a CSV of their corners.

Columns: `file, ul_lon, ul_lat, ur_lon, ur_lat, lr_lon, lr_lat, ll_lon, ll_lat` (any four corners),
or `file, left_lon, top_lat, right_lon, bottom_lat`. Corners are the outer edges of the image's
outermost pixels, WGS 84 degrees. Other columns are ignored.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skylink.errors import MapError
from skylink.pixelgrid import PixelTransform, from_points

FOUR = tuple(f"{corner}_{axis}" for corner in ("ul", "ur", "lr", "ll") for axis in ("lon", "lat"))
BOX = ("left_lon", "top_lat", "right_lon", "bottom_lat")


@dataclass(frozen=True)
class Placed:
    """One row: the image, its corners as text (they identify it) and as a transform of a size."""

    file: Path
    corners: str
    transform: Callable[[int, int], PixelTransform]


def find_corners_csv(folder: Path) -> Path | None:
    """`corners.csv`, or the only CSV in the folder."""
    if (folder / "corners.csv").is_file():
        return folder / "corners.csv"
    tables = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".csv")
    return tables[0] if len(tables) == 1 else None


def read_corners(table: Path) -> list[Placed]:
    """The images that a CSV places.

    Raises:
        MapError: missing columns or files, values that are not coordinates, nothing in it.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            names = [(name or "").strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = names
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MapError(f"{table}: cannot be read as a CSV: {error}") from error
    columns = FOUR if set(FOUR) <= set(names) else BOX
    missing = sorted({"file", *columns} - set(names))
    if missing:
        raise MapError(
            f"{table}: columns are missing: {', '.join(missing)}",
            hint=f"columns are file,{','.join(BOX)} or file,{','.join(FOUR)}",
        )
    placed: list[Placed] = []
    seen: dict[Path, int] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{table}, row {number}"
        name = (row["file"] or "").strip()
        if not name:
            raise MapError(f"{where}: the file is not named")
        file = table.parent / name
        if not file.is_file():
            raise MapError(f"{where}: {file} does not exist")
        if file in seen:
            raise MapError(f"{where}: {name} was placed already in row {seen[file]}")
        seen[file] = number
        values = [_degrees(row[c], c, where) for c in columns]
        if columns == BOX:
            left, top, right, bottom = values
            values = [left, top, right, top, right, bottom, left, bottom]
        # longitudes near the first one, so that an image may lie across the antimeridian
        lons = [v + 360 * round((values[0] - v) / 360) for v in values[0::2]]
        placed.append(Placed(file, repr(values), _quadrangle(lons, values[1::2], where)))
    if not placed:
        raise MapError(f"{table}: no image in it", hint="one row an image")
    return placed


def _quadrangle(
    lons: list[float], lats: list[float], where: str
) -> Callable[[int, int], PixelTransform]:
    def transform(width: int, height: int) -> PixelTransform:
        cols = np.array([0.0, width, width, 0.0])
        rows = np.array([0.0, 0.0, height, height])
        try:
            return from_points(cols=cols, rows=rows, xs=lons, ys=lats)
        except ValueError as error:
            raise MapError(f"{where}: these corners enclose no area: {error}") from error

    return transform


def _degrees(text: str | None, column: str, where: str) -> float:
    limit = 90 if column.endswith("lat") else 360
    try:
        value = float((text or "").strip())
    except ValueError:
        raise MapError(f"{where}: {column} = {text!r} is not a number") from None
    if not (math.isfinite(value) and abs(value) <= limit):
        raise MapError(
            f"{where}: {column} = {value:g} is not in -{limit}..{limit}",
            hint="degrees; perhaps longitude and latitude are swapped",
        )
    return value
