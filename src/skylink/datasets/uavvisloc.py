"""UAV-VisLoc: fixed-wing flights over eleven places in China, one satellite map a flight.

Layout as in the authors' README; column names as users of the data quote them: `NN.csv` has
`num, filename, date, lat, lon, height, Omega, Kappa, Phi1, Phi2` (flight 07 stops at `height`),
`satellite_coordinates_range.csv` has `mapname, LT_lat_map, LT_lon_map, RB_lat_map, RB_lon_map,
region`; its archive name has a space after the first underscore, both are read. Map 09 comes in
parts `satellite09_RR-CC.tif`. Column names are matched in any case. The README counts 6,742 photos,
users of the archive 6,774: that count is not compared.

The authors publish photos and maps, no protocol. Here each map is cut into tiles of 300 m every
150 m (`TILE_M`); the positive of a photo is the tile whose centre is nearest to its position, the
other tiles that contain it are semi-positives. That is ours, and not Game4Loc's (tiles of a zoom
pyramid, paired by IoU with footprints), whose derived lists are not read. `lon`, `lat` of a photo
are the dataset's, said to be of the picture's centre; `height` goes to `altitude_m` as it is,
`Phi1` to `heading_deg` as Game4Loc takes it (whether it is of the body or the flight was not
verified).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from skylink.datasets import miniature
from skylink.datasets.base import Dataset
from skylink.datasets.mapgrid import MapPart, cut_map
from skylink.datasets.pictures import tiff_size
from skylink.datasets.task import Item, Rows, Split, Task
from skylink.datasets.tree import Tree, absent
from skylink.errors import DatasetError
from skylink.files import write_atomic
from skylink.geo import destination

TILE_M, STRIDE_M = 300.0, 150.0
"""Side and step of the tiles that a map is cut into, metres on the ground."""

_RANGES = ("satellite_coordinates_range.csv", "satellite_ coordinates_range.csv")
_CORNERS = ("lt_lat_map", "lt_lon_map", "rb_lat_map", "rb_lon_map")
_FLIGHT = re.compile(r"\d\d", re.ASCII)
_PART = re.compile(r"satellite(\d\d)(?:_(\d\d)-(\d\d))?\.tif", re.ASCII | re.IGNORECASE)
_EVERY = tuple(f"{flight:02d}" for flight in range(1, 12))


class UavVisLoc(Dataset):
    """All flights against all maps, or one flight against its own map."""

    name = "uavvisloc"
    aliases = ("uav-visloc", "visloc", "uav_visloc")
    title = "UAV-VisLoc"
    citation = """@article{xu2024uavvisloc,
  title={UAV-VisLoc: A Large-scale Dataset for UAV Visual Localization},
  author={Xu, Wenjia and Yao, Yaxuan and Cao, Jiaqi and Wei, Zhiwei and Liu, Chunbo and
    Wang, Jiuniu and Peng, Mugen},
  journal={arXiv preprint arXiv:2405.11936},
  year={2024}
}"""
    terms = "none stated by the authors; the maps are from Google Maps, with Google's terms"
    obtain = "link in https://github.com/IntelliSensing/UAV-VisLoc (16 GB)"
    layout = """satellite_coordinates_range.csv
<NN>/drone/<NN>_*.JPG
<NN>/satellite<NN>.tif | satellite09_<row>-<column>.tif
<NN>/<NN>.csv"""
    sizes: ClassVar[Mapping[str, int]] = {"maps": 11}
    splits = ("test",)

    def tasks(self) -> tuple[str, ...]:
        return ("all maps", *(f"map {flight}" for flight in _EVERY))

    def _load(self, tree: Tree, task: str, split: Split) -> Task:
        flights = [f for f in _flights(tree) if task in ("all maps", f"map {f}")]
        if not flights:
            raise DatasetError(
                f"{tree.root} has none of the flights of {task!r}",
                hint=f"it has {', '.join(_flights(tree)) or 'none'}: unpack the others too",
            )
        ranges = _ranges(tree)
        gallery: list[Item] = []
        queries: list[Item] = []
        answers: list[tuple[int, Rows]] = []
        outside = 0
        for flight in flights:
            parts: list[MapPart] = []
            for part in _parts(tree, flight, ranges, first=len(gallery)):
                parts.append(part)
                gallery += part.tiles(tree.root)
            for item in _photos(tree, flight):
                found = (part.rows_at(lon=item.lon or 0.0, lat=item.lat or 0.0) for part in parts)
                answer = next((rows for rows in found if rows), None)
                if answer is None:
                    outside += 1
                    continue
                queries.append(item)
                answers.append(answer)
        note = f"{outside:,} photos lie outside their map and are left out"
        return Task(
            dataset=self.title,
            name=task,
            split=split,
            queries=tuple(queries),
            gallery=tuple(gallery),
            positives=tuple((nearest,) for nearest, _ in answers),
            semi_positives=tuple(others for _, others in answers),
            notes=(note,) if outside else (),
        )

    def _protocols(self) -> list[tuple[str, Split]]:
        return [("all maps", "test")]  # the maps alone are parts of it

    def _required(self, tree: Tree) -> Sequence[str]:
        table = next((name for name in _RANGES if tree.has(name)), _RANGES[0])
        folders = [f"{flight}/drone" for flight in _flights(tree)]
        return (table, *folders, *(f"{flight}/{flight}.csv" for flight in _flights(tree)))

    def _counts(self, tree: Tree) -> dict[str, int]:
        drones = [f"{f}/drone" for f in _flights(tree) if tree.has(f"{f}/drone")]
        return {
            "maps": sum(bool(_map_files(tree, flight)) for flight in _flights(tree)),
            "drone images": sum(len(tree.pictures(folder)) for folder in drones),
        }

    def _write_miniature(self, folder: Path, seed: int) -> None:
        """Flights 01 (one map) and 09 (a map in two parts, one below the other), 6 photos each."""
        table = ["mapname,LT_lat_map,LT_lon_map,RB_lat_map,RB_lon_map,region"]
        for flight, west, north, parts in (("01", 115.97, 29.77, 1), ("09", 112.1, 30.2, 2)):
            width, height, px_m = 400, 320 * parts, 3.0
            east, south = destination(
                lon=west, lat=north, east_m=width * px_m, north_m=-height * px_m
            )
            lon_px, lat_px = (east - west) / width, (north - south) / height
            image = miniature.ground(seed, int(flight), width=width, height=height)
            names = [f"satellite{flight}.tif"]
            if parts > 1:
                names = [f"satellite{flight}_{part + 1:02d}-01.tif" for part in range(parts)]
            for part, name in enumerate(names):
                miniature.write_geotiff(
                    folder / flight / name,
                    image[320 * part : 320 * (part + 1)],
                    left_lon=west,
                    top_lat=north - 320 * part * lat_px,
                    lon_px=lon_px,
                    lat_px=lat_px,
                )
            table.append(f"satellite{flight}.tif,{north},{west},{south},{east},place-{flight}")
            rows = ["num,filename,date,lat,lon,height,Omega,Kappa,Phi1,Phi2"]
            for shot in range(6):
                x, y = 70.0 + 52 * shot, 60.0 + (height - 120) * shot / 5
                heading = miniature.headings(6)[shot]
                photo = miniature.view(
                    image, seed, int(flight), shot, centre=(x, y), heading_deg=heading, span_px=80
                )
                name = f"{flight}_{shot + 1:04d}.JPG"
                miniature.write_picture(folder / flight / "drone" / name, photo)
                lat, lon = north - y * lat_px, west + x * lon_px
                rows.append(
                    f"{shot + 1},{name},2018/9/23 10:0{shot},{lat:.8f},{lon:.8f},466.0,"
                    f"0.5,-0.4,{heading:.3f},{heading:.3f}"
                )
            write_atomic(folder / flight / f"{flight}.csv", "\n".join(rows) + "\n")
        write_atomic(folder / _RANGES[0], "\n".join(table) + "\n")


def _flights(tree: Tree) -> list[str]:
    return [name for name in tree.folders() if _FLIGHT.fullmatch(name)]


def _map_files(tree: Tree, flight: str) -> list[str]:
    found = (_PART.fullmatch(name) for name in tree.pictures(flight))
    return [part[0] for part in found if part and part[1] == flight]


def _table(tree: Tree, relative: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV by lower-case column name.

    Raises:
        DatasetError: missing, without these columns, or not a CSV.
    """
    reader = csv.DictReader(io.StringIO(tree.text(relative)), restval="", skipinitialspace=True)
    try:
        reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    except csv.Error as error:
        raise DatasetError(
            f"{tree.root / relative} is not a CSV: {error}", hint="unpack the dataset again"
        ) from error
    lacking = [column for column in columns if column not in reader.fieldnames]
    if lacking:
        raise DatasetError(
            f"{tree.root / relative} lacks the columns {', '.join(lacking)}",
            hint=f"it has {', '.join(reader.fieldnames) or 'none'}: unpack the dataset again",
        )
    return rows


def _degrees(where: str, row: Mapping[str, str], column: str, limit: float) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not abs(value) <= limit:
        raise DatasetError(
            f"{where}: {column} = {row[column]!r} is not in -{limit:g}..{limit:g}",
            hint="unpack the dataset again",
        )
    return value


def _ranges(tree: Tree) -> dict[str, tuple[float, float, float, float]]:
    """(north, west, south, east) of each flight's map, degrees."""
    relative = next((name for name in _RANGES if tree.has(name)), _RANGES[0])
    found: dict[str, tuple[float, float, float, float]] = {}
    for number, row in enumerate(_table(tree, relative, ("mapname", *_CORNERS)), start=2):
        where = f"{tree.root / relative}, row {number}"
        flight = _FLIGHT.search(row["mapname"])
        limits = (90.0, 180.0, 90.0, 180.0)
        north, west, south, east = (
            _degrees(where, row, column, limit)
            for column, limit in zip(_CORNERS, limits, strict=True)
        )
        if flight is None or north <= south or east <= west:
            raise DatasetError(
                f"{where}: {row['mapname']!r} is no map with a left top and a right bottom corner",
                hint="unpack the dataset again",
            )
        found[flight[0]] = (north, west, south, east)
    return found


def _parts(
    tree: Tree,
    flight: str,
    ranges: Mapping[str, tuple[float, float, float, float]],
    *,
    first: int,
) -> list[MapPart]:
    """The flight's map files, top left first, their edges shared out by pixels."""
    files = _map_files(tree, flight)
    if not files or flight not in ranges:
        lack = f"{tree.root / flight} has no satellite{flight}.tif"
        if files:
            lack = f"{tree.root / _RANGES[0]} does not name the map of flight {flight}"
        raise DatasetError(lack, hint="unpack the dataset again")
    north, west, south, east = ranges[flight]
    cells: dict[tuple[int, int], str] = {}
    for file in files:
        fields = _PART.fullmatch(file)
        assert fields is not None
        cells[int(fields[2] or 1), int(fields[3] or 1)] = f"{flight}/{file}"
    sizes = {cell: tiff_size(tree.root / file) for cell, file in cells.items()}
    widths = {col: size[0] for (_, col), size in sizes.items()}
    heights = {row: size[1] for (row, _), size in sizes.items()}
    fits = {(row, col): (w, h) for row, h in heights.items() for col, w in widths.items()}
    if fits != sizes:
        raise DatasetError(
            f"{tree.root / flight}: the map's parts do not make a rectangle: {', '.join(files)}",
            hint="unpack the dataset again",
        )
    lon_px, lat_px = (east - west) / sum(widths.values()), (north - south) / sum(heights.values())
    found: list[MapPart] = []
    for row, col in sorted(cells):
        left = west + lon_px * sum(w for c, w in widths.items() if c < col)
        top = north - lat_px * sum(h for r, h in heights.items() if r < row)
        width, height = sizes[row, col]
        right, bottom = left + lon_px * width, top - lat_px * height
        part = cut_map(
            cells[row, col],
            size=(width, height),
            edges=(left, top, right, bottom),
            tile_m=TILE_M,
            stride_m=STRIDE_M,
            first=first,
        )
        first += len(part.cols) * len(part.rows)
        found.append(part)
    return found


def _photos(tree: Tree, flight: str) -> list[Item]:
    source = f"{flight}/{flight}.csv"
    here = set(tree.pictures(f"{flight}/drone"))
    items: list[Item] = []
    lost: list[str] = []
    for number, row in enumerate(_table(tree, source, ("filename", "lat", "lon")), start=2):
        where = f"{tree.root / source}, row {number}"
        name = tree.inside(row["filename"])
        if name not in here:
            lost.append(name)
            continue
        numbers = {
            column: _degrees(where, row, column, 1e6)
            for column in ("height", "omega", "kappa", "phi1", "phi2")
            if row.get(column)
        }
        items.append(
            tree.item(
                f"{flight}/drone/{name}",
                lon=_degrees(where, row, "lon", 180.0),
                lat=_degrees(where, row, "lat", 90.0),
                altitude_m=numbers.pop("height", None),
                heading_deg=numbers["phi1"] % 360.0 if "phi1" in numbers else None,
                extra=numbers,
            )
        )
    if lost:
        raise absent(tree.root, source, lost)
    return items
