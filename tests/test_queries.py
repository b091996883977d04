"""queries.csv: what spreadsheets and people write, and errors that say where and what to do."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from skylink import queries
from skylink.errors import QueriesError
from skylink.queries import QueryRow, check_against_map, read_queries
from skylink.types import Telemetry

REAL = Path(__file__).parents[2] / "shared" / "data" / "ariel" / "queries.csv"
HEADER = (
    "file,flight,lat,lon,relative_altitude_m,heading_deg,camera_tilt_from_nadir_deg,"
    "horizontal_fov_deg,ground_lat,ground_lon,usable"
)
ROW = "a.jpg,0017,32.1,35.2,19.6,272.8,45.0,73.7,32.2,35.3,0"


def write(folder: Path, text: str | bytes, name: str = "queries.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(folder: Path, text: str | bytes, **options: bool) -> list[QueryRow]:
    return read_queries(write(folder, text), **options)


def refused(folder: Path, text: str | bytes, *words: str, **options: bool) -> None:
    with pytest.raises(QueriesError) as caught:
        read(folder, text, **options)
    assert caught.value.hint
    said = f"{caught.value.message} {caught.value.hint}"
    assert "queries.csv" in said
    for word in words:
        assert word in said


def test_all_columns(tmp_path: Path) -> None:
    (row,) = read(tmp_path, f"{HEADER}\n{ROW}\n")
    assert row == QueryRow(
        file="a.jpg",
        path=tmp_path / "a.jpg",
        line=2,
        telemetry=Telemetry(
            relative_altitude_m=19.6,
            heading_deg=272.8,
            camera_tilt_from_nadir_deg=45,
            horizontal_fov_deg=73.7,
        ),
        truth_lon=35.2,
        truth_lat=32.1,
        ground_lon=35.3,
        ground_lat=32.2,
        usable=False,
        extra={"flight": "0017"},
    )


def test_the_truth_is_never_telemetry(tmp_path: Path) -> None:
    (row,) = read(tmp_path, f"{HEADER}\n{ROW}\n")
    assert (row.telemetry.lon, row.telemetry.lat) == (None, None)
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (32.0, 6.0, 0.0), 3: "E", 4: (35.0, 12.0, 0.0)})
    exif.get_ifd(0x8769)[0xA405] = 24
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    query = row.load()
    assert query.telemetry == row.telemetry  # not even the position that the photo itself has
    assert query.name == "a.jpg"


def test_only_what_is_needed(tmp_path: Path) -> None:
    rows = read(tmp_path, "file,lat,lon\na.jpg,1,2\nb.jpg,-1.5,-2e1\n")
    assert [(r.truth_lon, r.truth_lat, r.usable, r.line) for r in rows] == [
        (2.0, 1.0, True, 2),
        (-20.0, -1.5, True, 3),
    ]
    assert rows[0].telemetry == Telemetry()
    assert rows[0].ground_lon is None


def test_without_truth(tmp_path: Path) -> None:
    rows = read(tmp_path, "file,heading_deg\na.jpg,10\nb.jpg,\n", require_truth=False)
    assert [r.telemetry.heading_deg for r in rows] == [10.0, None]
    assert rows[0].truth_lon is None
    rows = read(tmp_path, "file,lat,lon\na.jpg,,\nb.jpg,1,2\n", require_truth=False)
    assert [r.truth_lat for r in rows] == [None, 1.0]
    refused(tmp_path, "file,lat,lon\na.jpg,1,\n", "line 2", "lon is empty", require_truth=False)
    refused(tmp_path, "file,lat,lon\na.jpg,,\n", "line 2", "is empty", "usable")
    (row,) = read(tmp_path, "file,lat,lon,usable\na.jpg,,,0\n")
    assert not row.usable


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile,lat,lon,flight\na b.jpg,1.5,2.5,x\n",
        "file,lat,lon,flight\r\na b.jpg,1.5,2.5,x\r\n",
        "file,lat,lon,flight\ra b.jpg,1.5,2.5,x\r",
        "file;lat;lon;flight\na b.jpg;1,5;2,5;x\n",
        "file;lat;lon;flight\na b.jpg;1.5;2.5;x\n",
        "sep=;\nfile;lat;lon;flight\na b.jpg;1,5;2,5;x\n",
        "file\tlat\tlon\tflight\na b.jpg\t1.5\t2,5\tx\n",
        '"file","lat","lon","flight"\n"a b.jpg","1.5","2.5","x"\n',
        '"file";"lat";"lon";"flight"\n"a b.jpg";"1,5";"2,5";"x"\n',
        " File , LAT, Lon ,Flight \n  a b.jpg , 1.5 , 2.5 , x \n",
        "\n\nfile,lat,lon,flight\n\n,,,\na b.jpg,1.5,2.5,x\n\n",
        "file,lat,lon,flight,,\na b.jpg,1.5,2.5,x,,\n",
        "file,lat,lon,flight\na b.jpg,1.5,2.5,x,,\n",
        "lon,flight,file,lat\n2.5,x,a b.jpg,1.5\n",
        "file,lat,lon,flight\na b.jpg,+1.50,2.5e0,x",
        "file,lat,lon,flight\na b.jpg,1.5,2.5,x\n".encode("utf-16"),
    ],
)
def test_ways_to_write_the_same(tmp_path: Path, text: str | bytes) -> None:
    (row,) = read(tmp_path, text)
    assert (row.file, row.truth_lat, row.truth_lon, dict(row.extra)) == (
        "a b.jpg",
        1.5,
        2.5,
        {"flight": "x"},
    )


def test_quotes_delimiters_and_line_numbers_inside_cells(tmp_path: Path) -> None:
    rows = read(tmp_path, 'file,lat,lon,note\n"a, ""b"".jpg",1,2,"two\nlines"\n\nc.jpg,1,2,\n')
    assert [(r.file, r.line) for r in rows] == [('a, "b".jpg', 2), ("c.jpg", 5)]
    assert rows[0].extra["note"] == "two\nlines"


def test_where_photos_are_looked_for(tmp_path: Path) -> None:
    for place in ("here.jpg", "queries/q.jpg", "photos/p ü.jpg", "images/i.jpg", "deep/d.jpg"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    names = ["here.jpg", "q.jpg", "p ü.jpg", "i.jpg", "deep/d.jpg", str(tmp_path / "deep/d.jpg")]
    lines = "".join(f"{n},1,2\n" for n in names[:5])
    rows = read(tmp_path, f"file,lat,lon\n{lines}gone.jpg,1,2\n")
    assert [r.path.relative_to(tmp_path).as_posix() for r in rows] == [
        "here.jpg",
        "queries/q.jpg",
        "photos/p ü.jpg",
        "images/i.jpg",
        "deep/d.jpg",
        "gone.jpg",
    ]
    assert queries.missing_files(rows) == [rows[5]]
    with pytest.raises(QueriesError, match=r"1 of 6 photos are missing: gone\.jpg \(line 7\)"):
        queries.require_files(rows)
    queries.require_files(rows[:5])
    (row,) = read(tmp_path, f"file,lat,lon\n{names[5]},1,2\n")
    assert row.path == tmp_path / "deep" / "d.jpg"
    (row,) = read(tmp_path, "file,lat,lon\ndeep\\d.jpg,1,2\n")
    assert row.path == tmp_path / "deep" / "d.jpg"


def test_many_missing_photos_are_one_short_error(tmp_path: Path) -> None:
    rows = read(tmp_path, "file,lat,lon\n" + "".join(f"{i}.jpg,1,2\n" for i in range(300)))
    with pytest.raises(QueriesError, match="300 of 300") as caught:
        queries.require_files(rows)
    assert "and 295 more" in caught.value.message
    assert len(caught.value.message) < 300


def test_missing_columns(tmp_path: Path) -> None:
    refused(
        tmp_path,
        "filename,latitude,longitude\na.jpg,1,2\n",
        "missing columns: file, lat, lon",
        "found: filename, latitude, longitude",
        "latitude to lat",
        "longitude to lon",
        "filename to file",
    )
    refused(tmp_path, "1;2;3\n", "missing columns", "found: 1, 2, 3")
    refused(tmp_path, "file,lat,lon,ground_lat\na,1,2,3\n", "ground_lon")
    refused(tmp_path, "heading_deg\n1\n", "missing columns: file", require_truth=False)
    refused(tmp_path, "file,lat,lon,LAT\na,1,2,3\n", "'lat'", "twice")


def test_names_that_look_like_columns_are_noted(tmp_path: Path) -> None:
    rows = read(tmp_path, "file,lat,lon,heading,tilt_deg,flight,horizontal_fov\na,1,2,3,4,5,6\n")
    said = " ".join(queries.near_misses(rows))
    for name in ("heading_deg", "camera_tilt_from_nadir_deg", "horizontal_fov_deg"):
        assert name in said
    assert "flight" not in said
    assert queries.near_misses([]) == []


def test_no_file_and_no_rows(tmp_path: Path) -> None:
    with pytest.raises(QueriesError, match="No such file"):
        read_queries(tmp_path / "gone.csv")
    with pytest.raises(QueriesError, match="Is a directory"):
        read_queries(tmp_path)
    with pytest.raises(QueriesError):
        read_queries("a\0b.csv")
    refused(tmp_path, "", "is empty")
    refused(tmp_path, "\n ,, \n", "is empty")
    refused(tmp_path, "file,lat,lon\n\n", "no rows")


def test_no_text(tmp_path: Path) -> None:
    refused(tmp_path, b"file,lat,lon\nb\xfcro.jpg,1,2\n", "line 2", "UTF-8")
    refused(tmp_path, b"PK\x03\x04\0\0", "not a text file")
    refused(tmp_path, b"\xff\xfea", "UTF-8")
    refused(tmp_path, 'file,lat,lon\na.jpg,1,"2\nb.jpg,1,2\n', "line 2", "quotation")
    refused(tmp_path, "file,lat,lon\n" + "x" * 200_000 + ",1,2\n", "line 2")


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "file,lat,lon\na.jpg,1,2\nb.jpg,1,2\n"
    monkeypatch.setattr(queries, "MAX_ROWS", 2)
    assert len(read(tmp_path, text)) == 2
    monkeypatch.setattr(queries, "MAX_ROWS", 1)
    refused(tmp_path, text, "more than 1 rows")
    monkeypatch.setattr(queries, "MAX_BYTES", 10)
    refused(tmp_path, text, "more than 10 bytes")


@pytest.mark.parametrize("again", ["a.jpg", "./a.jpg", "sub/../a.jpg"])
def test_duplicate_files(tmp_path: Path, again: str) -> None:
    refused(tmp_path, f"file,lat,lon\na.jpg,1,2\nb.jpg,1,2\n{again},3,4\n", "line 4", "line 2")


@pytest.mark.parametrize(
    "text", ["NaN", "nan", "inf", "1e999", "12,5x", "1_0", "0x1", "32.1N", "N/A", "-", "१", "1 2"]
)
def test_cells_that_are_no_number(tmp_path: Path, text: str) -> None:
    refused(tmp_path, f'file,lat,lon\na.jpg,"{text}",2\n', "line 2", "lat", repr(text))
    refused(tmp_path, f'file,lat,lon,heading_deg\na.jpg,1,2,"{text}"\n', "line 2", "heading_deg")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("relative_altitude_m", "-5"),
        ("relative_altitude_m", "0"),
        ("camera_tilt_from_nadir_deg", "-45"),
        ("camera_tilt_from_nadir_deg", "90"),
        ("horizontal_fov_deg", "0"),
        ("horizontal_fov_deg", "180"),
    ],
)
def test_absurd_telemetry(tmp_path: Path, column: str, value: str) -> None:
    refused(tmp_path, f"file,lat,lon,{column}\na,1,2,\nb,1,2,{value}\n", "line 3", column, value)


def test_coordinates_out_of_range(tmp_path: Path) -> None:
    refused(tmp_path, "file,lat,lon\na,135.2,32.1\n", "line 2", "lat = 135.2", "swapped")
    refused(tmp_path, "file,lat,lon\na,500,32.1\n", "lat = 500", "-90..90")
    refused(tmp_path, "file,lat,lon\na,1,209.5\n", "lon = 209.5", "subtract 360")
    refused(
        tmp_path,
        "file,lat,lon,ground_lat,ground_lon\na,1,2,95,3\n",
        "ground_lat = 95",
        "ground_lat and ground_lon look swapped",
    )
    refused(tmp_path, "file,lat,lon,ground_lat,ground_lon\na,1,2,1,\n", "ground_lon is empty")


def test_other_bad_cells(tmp_path: Path) -> None:
    refused(tmp_path, "file,lat,lon,usable\na,1,2,maybe\n", "line 2", "'maybe'", "0 or 1")
    refused(tmp_path, "file,lat,lon\n,1,2\n", "line 2", "file is empty")
    refused(tmp_path, "file,lat,lon\na,32,1,35,2\n", "5 cells", "semicolons")
    refused(tmp_path, "file,lat,lon\na,32.1\n", "line 2", "2 cells")


@pytest.mark.parametrize(
    ("text", "usable"),
    [("1", True), ("TRUE", True), ("yes", True), ("", True), ("0", False), ("False", False)],
)
def test_usable(tmp_path: Path, text: str, usable: bool) -> None:
    (row,) = read(tmp_path, f"file,lat,lon,usable\na,1,2,{text}\n")
    assert row.usable is usable


def on_map(*, lon: float, lat: float) -> bool:
    return 35 < lon < 36 and 32 < lat < 33


def test_swapped_columns_show_on_the_map(tmp_path: Path) -> None:
    right = read(tmp_path, "file,lat,lon\na,32.5,35.5\nb,32.6,35.6\nc,10,10\n")
    assert check_against_map(right, on_map) == 1
    swapped = read(tmp_path, "file,lat,lon\na,35.5,32.5\nb,35.6,32.6\nc,10,10\n")
    with pytest.raises(QueriesError, match="look swapped: 2 of 3"):
        check_against_map(swapped, on_map)
    elsewhere = read(tmp_path, "file,lat,lon\na,1,2\nb,3,4\n")
    assert check_against_map(elsewhere, on_map) == 2


def test_the_map_check_prefers_the_view_point(tmp_path: Path) -> None:
    header = "file,lat,lon,ground_lat,ground_lon,usable\n"
    rows = read(tmp_path, f"{header}a,1,1,32.5,35.5,1\nb,35.5,32.5,,,0\n")
    assert check_against_map(rows, on_map) == 0
    assert check_against_map([], on_map) == 0


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=80) | st.text("file,latlon;\t\n\"'0.-1 ", max_size=80))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    for start in ("", "file,lat,lon\n"):
        data = (start + text).encode("utf-8", "surrogatepass")
        with contextlib.suppress(QueriesError):
            rows = read(tmp_path, data)
            assert all(-90 <= r.truth_lat <= 90 for r in rows if r.truth_lat is not None)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_file(), reason=f"no real query list at {REAL}")
def test_real_queries() -> None:
    rows = read_queries(REAL)
    assert len(rows) == 370
    assert sum(row.usable for row in rows) == 362
    assert {row.extra["flight"] for row in rows} == {"0017", "0019"}
    assert all(row.telemetry.is_pose for row in rows)
    assert all(row.ground_lon is not None for row in rows)
    queries.require_files(rows)
    query = rows[100].load()
    assert query.image.shape == (540, 960, 3)
    assert query.telemetry == rows[100].telemetry
