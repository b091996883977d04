"""queries.csv: which photos, what is known of the camera, and where they were really taken.

Columns: `file`, `lat`, `lon` (the camera's true position) and optionally `relative_altitude_m`,
`heading_deg`, `camera_tilt_from_nadir_deg`, `horizontal_fov_deg`, `ground_lat`, `ground_lon` (the
true view point) and `usable` (0 or 1). Others are kept in `extra`. Comma, semicolon or tab between
cells; decimal commas where it is not the comma. The truth is for scoring: it never becomes
telemetry.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from skylink.errors import QueriesError, TelemetryError
from skylink.photo import load_photo
from skylink.types import Query, Telemetry

MAX_ROWS = 1_000_000
MAX_BYTES = 200_000_000
TELEMETRY_COLUMNS = (
    "relative_altitude_m",
    "heading_deg",
    "camera_tilt_from_nadir_deg",
    "horizontal_fov_deg",
)
COLUMNS = ("file", "lat", "lon", *TELEMETRY_COLUMNS, "ground_lat", "ground_lon", "usable")
PHOTO_FOLDERS = ("", "queries", "photos", "images")
"""Where a relative `file` is looked for, from the CSV's folder."""

_DELIMITERS = ",;\t"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TRUE, _FALSE = {"1", "true", "yes", "y", "1.0"}, {"0", "false", "no", "n", "0.0"}
_OTHER_NAMES = {
    "file": "filename file_name image photo name path",
    "lat": "latitude y gps_lat",
    "lon": "longitude lng long x gps_lon",
    "relative_altitude_m": "altitude altitude_m relative_altitude height_m agl",
    "heading_deg": "heading yaw yaw_deg azimuth",
    "camera_tilt_from_nadir_deg": "tilt tilt_deg pitch pitch_deg",
    "horizontal_fov_deg": "fov hfov fov_deg hfov_deg",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRow:
    """One row of queries.csv.

    Attributes:
        file: the name as the CSV has it; results name the query so.
        path: where that file is, or would be if it were there.
        line: line number in the CSV, from 1.
        telemetry: what the CSV knows of the camera, never its position.
        truth_lon, truth_lat: the camera's true position, degrees; None where not given.
        ground_lon, ground_lat: the true ground point at the photo's centre; None where not given.
        usable: False for rows that are not to be scored.
        extra: the other columns' texts, by lower-case name.
    """

    file: str
    path: Path
    line: int
    telemetry: Telemetry
    truth_lon: float | None = None
    truth_lat: float | None = None
    ground_lon: float | None = None
    ground_lat: float | None = None
    usable: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> Query:
        """The photo as a query; the CSV's telemetry wins over the photo's own.

        The position is left out, also the one in the photo's EXIF: it is what SkyLink looks for.

        Raises:
            PhotoError: the photo can't be read.
        """
        query = load_photo(self.path, telemetry=self.telemetry, name=self.file)
        return dataclasses.replace(query, telemetry=query.telemetry.without("lon", "lat"))


class ContainsPoint(Protocol):
    """Whether a WGS 84 point lies on the map."""

    def __call__(self, *, lon: float, lat: float) -> bool: ...


def read_queries(path: str | Path, *, require_truth: bool = True) -> list[QueryRow]:
    """Read a queries.csv, all of it or none.

    Args:
        path: the file, UTF-8 (with or without BOM) or UTF-16.
        require_truth: `lat` and `lon` must be there, in every row that is usable.

    Raises:
        QueriesError: names the line, column and value, and says what to do.
    """
    path = Path(path)
    rows: list[QueryRow] = []
    seen: dict[str, int] = {}
    places = [os.path.join(path.parent, folder) for folder in PHOTO_FOLDERS]
    folders = [places[0], *(place for place in places[1:] if os.path.isdir(place))]
    for line, cells, decimal_comma in _records(path, require_truth=require_truth):
        row = _row(
            f"{path}, line {line}",
            line,
            cells,
            folders,
            decimal_comma=decimal_comma,
            require_truth=require_truth,
        )
        key = os.path.normpath(row.path)
        if key in seen:
            raise QueriesError(
                f"{path}, line {line}: file {row.file!r} was already in line {seen[key]}",
                hint="each photo is one row; remove one of the two",
            )
        if len(rows) == MAX_ROWS:
            raise QueriesError(f"{path} has more than {MAX_ROWS:,} rows", hint="split the file")
        seen[key] = line
        rows.append(row)
    if not rows:
        raise QueriesError(f"{path} has a header but no rows", hint="add one row for each photo")
    return rows


def missing_files(rows: Sequence[QueryRow]) -> list[QueryRow]:
    """The rows whose photo is not there."""
    return [row for row in rows if not row.path.is_file()]


def require_files(rows: Sequence[QueryRow]) -> None:
    """Raise one `QueriesError` that lists the first of the photos that are not there."""
    missing = missing_files(rows)
    if missing:
        first = ", ".join(f"{row.file} (line {row.line})" for row in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise QueriesError(
            f"{len(missing)} of {len(rows)} photos are missing: {first}{more}",
            hint=f"looked for {missing[0].path}; `file` is relative to the CSV's folder or to "
            f"{', '.join(PHOTO_FOLDERS[1:])} in it",
        )


def check_against_map(rows: Sequence[QueryRow], contains: ContainsPoint) -> int:
    """How many usable truths lie outside the map (the view point where given, else the camera).

    Raises:
        QueriesError: most of them lie outside, but inside with lon and lat exchanged.
    """
    known = outside = 0
    swapped: list[QueryRow] = []
    for row in rows:
        lon, lat = row.ground_lon, row.ground_lat
        if lon is None or lat is None:
            lon, lat = row.truth_lon, row.truth_lat
        if lon is None or lat is None or not row.usable:
            continue
        known += 1
        if contains(lon=lon, lat=lat):
            continue
        outside += 1
        if abs(lon) <= 90 and contains(lon=lat, lat=lon):
            swapped.append(row)
    if 2 * len(swapped) > known:
        raise QueriesError(
            f"lat and lon look swapped: {len(swapped)} of {known} positions are on the map only "
            f"with the two exchanged (first: line {swapped[0].line})",
            hint="exchange the names lat and lon in the CSV's header",
        )
    return outside


def near_misses(rows: Sequence[QueryRow]) -> list[str]:
    """Notes on extra columns whose names look like columns that are read, for a warning."""
    extra = rows[0].extra if rows else {}
    meant = ((name, _meant(name, TELEMETRY_COLUMNS)) for name in extra)
    return [f"column {name!r} is not read; did you mean {m!r}?" for name, m in meant if m]


def _meant(name: str, wanted: Sequence[str]) -> str | None:
    other = [column for column in wanted if name in _OTHER_NAMES.get(column, "").split()]
    close = other or difflib.get_close_matches(name, wanted, n=1, cutoff=0.75)
    return close[0] if close else None


def _records(path: Path, *, require_truth: bool) -> Iterator[tuple[int, dict[str, str], bool]]:
    """(line, cells by column, whether commas may be decimal) of each row that is not blank."""
    text = _text(path)
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    before = 0
    try:
        for cells in reader:
            line, before = before + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                if len(cells) <= 2 and "".join(cells).strip().lower().startswith("sep="):
                    continue  # Excel's hint, of which the header itself is the better witness
                header = _header(path, line, cells, require_truth=require_truth)
                continue
            if len(cells) > len(header) and not any(c.strip() for c in cells[len(header) :]):
                cells = cells[: len(header)]
            if len(cells) != len(header):
                raise QueriesError(
                    f"{path}, line {line}: {len(cells)} cells, but the header has {len(header)}",
                    hint="leave a cell empty where a value is not known; numbers with a decimal "
                    "comma need semicolons between the cells",
                )
            named = zip(header, (cell.strip() for cell in cells), strict=True)
            yield line, {name: cell for name, cell in named if name}, delimiter != ","
    except csv.Error as error:
        raise QueriesError(
            f"{path}, line {before + 1}: {error}", hint="is a quotation mark not closed?"
        ) from error
    if header is None:
        raise QueriesError(f"{path} is empty", hint=f"its first line is: {','.join(COLUMNS[:3])}")


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or error
        raise QueriesError(
            f"cannot read {path}: {reason}", hint="check the path and its permissions"
        ) from error
    if len(data) > MAX_BYTES:
        raise QueriesError(f"{path} has more than {MAX_BYTES:,} bytes", hint="split the file")
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise QueriesError(
            f"{path}, line {line}: not UTF-8 text", hint="save it as CSV with UTF-8 encoding"
        ) from error
    if "\0" in text:
        raise QueriesError(f"{path} is not a text file", hint="save it as CSV with UTF-8 encoding")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _delimiter(text: str) -> str:
    """The delimiter under which the header shows most of the names that we know."""

    def fit(delimiter: str) -> tuple[int, int]:
        cells = _names(next(csv.reader([first], delimiter=delimiter), []))
        return sum(cell in COLUMNS for cell in cells), len(cells)

    lines = (line for line in io.StringIO(text) if line.strip(" \t\r\n,;"))
    first = next((line for line in lines if not line.lower().startswith("sep=")), "")
    return max(_DELIMITERS, key=fit) if len(first) < 100_000 else ","


def _names(cells: Sequence[str]) -> list[str]:
    return [re.sub(r"[\s-]+", "_", cell.strip().lower()) for cell in cells]


def _header(path: Path, line: int, cells: Sequence[str], *, require_truth: bool) -> list[str]:
    names = _names(cells)
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise QueriesError(
            f"{path}, line {line}: column {min(twice)!r} is there twice", hint="rename one"
        )
    required = ("file", "lat", "lon") if require_truth else ("file",)
    missing = [name for name in required if name not in names]
    for one, other in (("lat", "lon"), ("ground_lat", "ground_lon")):
        if (one in names) != (other in names):
            missing += [name for name in (one, other) if name not in (*names, *missing)]
    if missing:
        found = ", ".join(name for name in names if name) or "none"
        similar = ((name, _meant(name, missing)) for name in names if name not in COLUMNS)
        renames = [f"{name} to {meant}" for name, meant in similar if meant]
        raise QueriesError(
            f"{path}, line {line}: missing columns: {', '.join(missing)} (found: {found})",
            hint=f"rename {', '.join(renames)}" if renames else f"columns: {', '.join(COLUMNS)}",
        )
    return names


def _row(
    where: str,
    line: int,
    cells: dict[str, str],
    folders: Sequence[str],
    *,
    decimal_comma: bool,
    require_truth: bool,
) -> QueryRow:
    """One row, every value checked; photos are looked for in `folders`."""
    file = cells.pop("file")
    if not file or "\0" in file:
        raise QueriesError(f"{where}: file is empty", hint="name the photo, or remove the row")
    usable = _usable(where, cells.pop("usable", ""))

    def number(column: str) -> float | None:
        return _value(where, column, cells.pop(column, ""), decimal_comma=decimal_comma)

    def point(lon_column: str, lat_column: str, *, required: bool) -> tuple[float | None, ...]:
        lon, lat = number(lon_column), number(lat_column)
        if lat is not None and abs(lat) > 90:
            swapped = lon is not None and abs(lon) <= 90 and abs(lat) <= 180
            hint = "degrees north, -90..90"
            if swapped:
                hint = f"{lat_column} and {lon_column} look swapped: exchange them in the header"
            raise QueriesError(f"{where}: {lat_column} = {lat:g} is not a latitude", hint=hint)
        if lon is not None and abs(lon) > 180:
            hint = "degrees east, -180..180" + ("; subtract 360" if 180 < lon <= 360 else "")
            raise QueriesError(f"{where}: {lon_column} = {lon:g} is not a longitude", hint=hint)
        if (lon is None) != (lat is None) or (required and lon is None):
            empty = lon_column if lon is None else lat_column
            hint = "give both" if not required else "give it, or set usable to 0"
            raise QueriesError(f"{where}: {empty} is empty", hint=hint)
        return lon, lat

    truth_lon, truth_lat = point("lon", "lat", required=require_truth and usable)
    ground_lon, ground_lat = point("ground_lon", "ground_lat", required=False)
    try:
        telemetry = Telemetry(**{column: number(column) for column in TELEMETRY_COLUMNS})
    except TelemetryError as error:
        raise QueriesError(f"{where}: {error.message}", hint=error.hint) from error
    return QueryRow(
        file=file,
        path=_resolved(folders, file),
        line=line,
        telemetry=telemetry,
        truth_lon=truth_lon,
        truth_lat=truth_lat,
        ground_lon=ground_lon,
        ground_lat=ground_lat,
        usable=usable,
        extra=cells,
    )


def _usable(where: str, text: str) -> bool:
    if text.lower() in _TRUE or not text:
        return True
    if text.lower() in _FALSE:
        return False
    raise QueriesError(f"{where}: usable = {text!r} is neither 0 nor 1", hint="write 0 or 1")


def _value(where: str, column: str, text: str, *, decimal_comma: bool) -> float | None:
    if not text:
        return None
    plain = text.replace(",", ".") if decimal_comma and text.count(",") == 1 else text
    value = float(plain) if _NUMBER.fullmatch(plain) else math.nan
    if not math.isfinite(value):
        raise QueriesError(
            f"{where}: {column} = {text!r} is not a number",
            hint="write a plain decimal number such as 35.2097, or leave the cell empty",
        )
    return value


def _resolved(folders: Sequence[str], file: str) -> Path:
    """The file where it exists, else where it should be: beside the CSV."""
    for name in dict.fromkeys((file, file.replace("\\", "/"))):  # lists made on Windows
        for folder in folders:
            if os.path.isfile(path := os.path.join(folder, name)):
                return Path(path)
    return Path(folders[0], file)
