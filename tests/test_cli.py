from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from skylink.cli import app
from skylink.commands import demo as demo_command
from skylink.commands import evaluate as evaluate_command
from skylink.commands import locate as locate_command
from skylink.commands import options, photo_run, terminal
from skylink.demo import MARKER, claim_folder
from skylink.errors import OptionError, OutputError, PhotoError, QueriesError

HEAVY = ["numpy", "rasterio", "onnxruntime", "lancedb", "matplotlib", "cv2", "pyproj", "PIL"]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small town: map.tif, photos/, and a gallery."""
    from skylink.town import write_inputs

    folder = tmp_path_factory.mktemp("a town")
    write_inputs(folder, photos=3, size_m=400.0, cell_m=1.0)
    result = run("build", folder / "map.tif", "--out", folder / "gallery")
    assert result.exit_code == 0, result.output
    return folder


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def run_locate(town: Path, *words: object) -> Any:
    return run("locate", *words, "--gallery", town / "gallery")


def photos(town: Path) -> list[Path]:
    return sorted((town / "photos").glob("*.jpg"))


# --- the front door ---------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, skylink.cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(skylink.cli.app, ['locate', '--help']).exit_code == 0\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["", "build", "locate", "evaluate", "info", "demo"])
def test_help_documents_the_exit_codes(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Exit codes" in result.output


def test_module_and_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "skylink", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("skylink 0.")


def test_wrong_usage_is_2() -> None:
    assert run("locate", "x.jpg").exit_code == terminal.USAGE
    assert run("nonsense").exit_code == terminal.USAGE


# --- errors -----------------------------------------------------------------------------------


def test_errors_are_a_line_and_a_hint(tmp_path: Path) -> None:
    result = run("info", tmp_path / "none")
    assert result.exit_code == terminal.FAILED
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "\nhint: build one: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prior", "35.2,32.1"], "is not LON,LAT,RADIUS_M"),
        (["--prior", "35.2,132.1,50"], "latitude 132.1"),
        (["--prior", "35.2,32.1,-50"], "prior radius -50.0"),
        (["--prior", "1,2,3", "--gps-prior", "100"], "exclude each other"),
        (["--gps-prior", "nan"], "not a positive number"),
        (["--altitude-m", "-5"], "relative_altitude_m"),
        (["--tilt-deg", "95"], "camera_tilt_from_nadir_deg"),
        (["--heading-deg", "nan"], "heading_deg"),
        (["--telemetry", "/none.csv"], "cannot read /none.csv"),
        (["--top-k", "0"], "top-k 0"),
        (["--min-confidence", "1.5"], "min-confidence 1.5"),
        (["--min-confidence", "nan"], "min-confidence nan"),
        (["--retriever", "magic"], "magic"),
        (["--reranker", "magic"], "magic"),
        (["--heading-error", "-1"], "heading"),
        (["--tilt-error", "50"], "tilt-error"),
        (["--time-budget", "0"], "time budget of 0 s"),
        (["--time-budget", "nan"], "time budget of nan s"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_options_are_refused_before_any_work(town: Path, words: list[str], said: str) -> None:
    result = run_locate(town, photos(town)[0], *words)
    assert result.exit_code == terminal.FAILED
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert result.stdout == ""


def test_a_bug_says_so_and_where_its_traceback_is(
    town: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(photo_run.Run, "locate_all", lambda *a: 1 / 0)
    result = run_locate(town, photos(town)[0])
    assert result.exit_code == terminal.INTERNAL
    assert "bug in SkyLink" in result.stderr
    (trace,) = tmp_path.glob("skylink-traceback-*.txt")
    assert str(trace) in result.stderr
    assert "ZeroDivisionError" in trace.read_text()


def test_debug_prints_the_traceback(town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINK_DEBUG", "1")
    monkeypatch.setattr(photo_run.Run, "locate_all", lambda *a: 1 / 0)
    result = run_locate(town, photos(town)[0])
    assert result.exit_code == terminal.INTERNAL
    assert "in locate" in result.stderr


# --- locate -----------------------------------------------------------------------------------


def test_table(town: Path) -> None:
    result = run_locate(town, town / "photos")
    assert result.exit_code == 0, result.output
    assert all(path.name in result.stdout for path in photos(town))
    assert "Locating 3 photos" in result.stderr
    assert "Next: " in result.stderr
    assert "Located" not in result.stdout


def test_geojson_and_csv_parse(town: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "places.geojson"
    first, second, _ = photos(town)
    result = run_locate(town, first, second, "--format", "geojson", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    features = json.loads(out.read_text())["features"]
    names = [f["properties"]["name"] for f in features if f["properties"]["kind"] == "view"]
    assert names == [first.name, second.name]
    assert list(out.parent.iterdir()) == [out], "no temporary file stays"

    result = run_locate(town, second, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert row["status"] == "located"
    view = next(f for f in features if f["properties"]["name"] == second.name)
    assert [float(row["lon"]), float(row["lat"])] == view["geometry"]["coordinates"]


def test_abstaining(town: Path) -> None:
    """Nothing is sure enough at 1, everything at 0; the exit code is 0 unless --strict."""
    first, second, _ = photos(town)

    def rows(*words: object, code: int) -> tuple[list[dict[str, str]], str]:
        result = run_locate(town, first, second, "--format", "csv", *words)
        assert result.exit_code == code, result.output
        return list(csv.DictReader(io.StringIO(result.stdout))), result.stderr

    never, said = rows("--min-confidence", "1", code=0)
    assert [row["status"] for row in never] == ["not found", "not found"]
    assert all(row["lon"] and float(row["radius_90_m"]) > 0 for row in never), "the best guess"
    assert "Located 0 of 2" in said
    assert "2 not found on this map (confidence below 1.00)" in said
    rows("--min-confidence", "1", "--strict", code=terminal.ALL_FAILED)
    always, said = rows("--min-confidence", "0", "--strict", code=0)
    assert [row["status"] for row in always] == ["located", "located"]
    assert "not found" not in said


def test_a_time_budget_is_kept_and_said(town: Path) -> None:
    """One batch of 24 poses is always tried; nothing can be done in a microsecond."""
    words = ("--heading-error", "180", "--tilt-error", "5", "--time-budget", "0.000001")
    result = run_locate(town, photos(town)[0], *words, "--format", "csv")
    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert (row["poses_tried"], row["poses_planned"], row["cut"]) == ("24", "279", "1")
    assert "31 headings within 180 degrees x 3 tilts within 5 degrees" in row["searched"]
    assert "cut by the time budget: 24 of 279 poses in " in row["searched"]
    assert row["pose_from"] == "heading=within altitude=known tilt=within fov=known"


def test_a_photo_that_knows_nothing(town: Path, tmp_path: Path) -> None:
    from PIL import Image

    with Image.open(photos(town)[0]) as picture:
        picture.save(tmp_path / "bare.jpg")
    result = run_locate(town, tmp_path / "bare.jpg", "--time-budget", "0.000001", "-f", "geojson")
    assert result.exit_code == 0, result.output
    view = json.loads(result.stdout)["features"][0]["properties"]
    assert view["pose_from"] == {
        "heading": "searched", "altitude": "searched", "tilt": "searched", "fov": "assumed",
    }  # fmt: skip
    assert None not in (view["heading_deg"], view["altitude_m"], view["tilt_deg"])
    assert "1 without a height above the ground" in result.stderr
    assert "--altitude-m" in result.stderr


def test_one_bad_photo_does_not_stop_the_others(town: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    good = photos(town)[0]
    result = run_locate(town, empty, tmp_path / "missing.jpg", good, "--format", "csv")
    assert result.exit_code == terminal.SOME_FAILED
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["status"] for row in rows] == ["failed", "failed", "located"]
    assert "is empty (0 bytes)" in rows[0]["error"]
    assert "failed: missing.jpg" in result.stderr

    result = run_locate(town, empty)
    assert result.exit_code == terminal.ALL_FAILED


def test_names_that_are_not_utf8_or_not_printable(town: Path, tmp_path: Path) -> None:
    odd = [tmp_path / os.fsdecode(b"bad\xff [red]x.jpg"), tmp_path / "esc\x1b[31m.jpg"]
    for path in odd:
        shutil.copy(photos(town)[0], path)
    for format in ("table", "geojson", "csv"):
        result = run_locate(town, *odd, "--format", format)
        assert result.exit_code == 0, result.output
        assert "bad\\xff [red]x.jpg" in result.stdout.replace("\\\\xff", "\\xff")
        assert "\x1b[31m" not in result.stderr
    out = run_locate(town, *odd, "--evidence", tmp_path / "why")
    assert out.exit_code == 0, out.output
    assert len(list((tmp_path / "why").iterdir())) == 2


def test_a_plain_ascii_terminal_survives_any_name(town: Path, tmp_path: Path) -> None:
    path = tmp_path / "写真 é.jpg"
    path.write_bytes(b"")
    command = [sys.executable, "-m", "skylink", "locate", str(path), "-g", str(town / "gallery")]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == terminal.ALL_FAILED, done.stderr


def test_a_negative_longitude_is_a_value_not_an_option(town: Path) -> None:
    result = run_locate(town, photos(town)[0], "--prior", "-98.1,30.2,500", "--format", "csv")
    assert result.exit_code == terminal.ALL_FAILED, "parsed, but far from this map"
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert "prior" in row["error"]


def test_gps_prior_keeps_the_search_near(town: Path) -> None:
    photo = photos(town)[0]
    result = run_locate(town, photo, "--gps-prior", "150", "--format", "geojson")
    assert result.exit_code == 0, result.output
    view = json.loads(result.stdout)["features"][0]
    from skylink.geo import distance_m
    from skylink.photo import load_photo

    gps = load_photo(photo).telemetry
    for lon, lat, _ in view["properties"]["candidates"]:
        assert distance_m(lon1=gps.lon, lat1=gps.lat, lon2=lon, lat2=lat) <= 151


def test_gps_prior_without_gps_says_so(town: Path, tmp_path: Path) -> None:
    from PIL import Image

    bare = tmp_path / "bare.jpg"
    with Image.open(photos(town)[0]) as image:
        Image.frombytes("RGB", image.size, image.tobytes()).save(bare)
    result = run_locate(town, bare, "--gps-prior", "150", "--tilt-deg", "0")
    assert "bare.jpg has no GPS position" in result.stderr


def test_flags_win_over_csv_and_csv_over_the_photo(town: Path, tmp_path: Path) -> None:
    photo = photos(town)[0]
    table = tmp_path / "t.csv"
    table.write_text(f"file,heading_deg,relative_altitude_m\n{photo.name},11,77\n")
    from skylink.types import Telemetry

    run = photo_run.Run(
        None,  # type: ignore[arg-type]
        flags=Telemetry(heading_deg=5.0),
        table=options.TelemetryTable(table),
    )
    telemetry = run._load(photo_run.Job(photo.name, photo)).telemetry
    assert telemetry.heading_deg == 5.0
    assert telemetry.relative_altitude_m == 77.0
    assert telemetry.horizontal_fov_deg == pytest.approx(73.74, abs=0.1)  # the photo's own


def test_evidence(town: Path, tmp_path: Path) -> None:
    result = run_locate(town, photos(town)[0], "--evidence", tmp_path / "why")
    assert result.exit_code == 0, result.output
    assert [p.name for p in (tmp_path / "why").iterdir()] == ["town_001.jpg"]
    assert "Evidence: 1 pictures" in result.stderr


def test_unwritable_places_are_refused_first(town: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for option in ("--out", "--evidence"):
        result = run_locate(town, photos(town)[0], option, tmp_path / "file" / "x")
        assert result.exit_code == terminal.FAILED
        assert "cannot write" in result.stderr
        assert "Located" not in result.stderr


def test_a_full_disk_loses_no_result(
    town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OutputError("cannot write: No space left on device", hint="free some space")

    monkeypatch.setattr("skylink.files.write_atomic", full)
    monkeypatch.setattr("skylink.evidence.write_atomic", full)
    result = run_locate(town, photos(town)[0], "--format", "csv", "--out", tmp_path / "x.csv")
    assert result.exit_code == terminal.FAILED
    assert "No space left" in result.stderr
    assert "town_001.jpg,located" in result.stdout

    result = run_locate(town, *photos(town)[:2], "--format", "csv", "--evidence", tmp_path / "why")
    assert result.exit_code == terminal.FAILED
    assert result.stdout.count("located") == 2
    assert "Evidence: 0 pictures" in result.stderr


def test_an_interrupt_keeps_what_is_located(town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = photo_run.Run._load

    def load(self: photo_run.Run, job: photo_run.Job) -> Any:
        if job.name == "town_002.jpg":
            raise KeyboardInterrupt
        return real(self, job)

    monkeypatch.setattr(photo_run.Run, "_load", load)
    result = run_locate(town, *photos(town), "--format", "csv")
    assert result.exit_code == terminal.INTERRUPTED
    assert "town_001.jpg,located" in result.stdout
    assert "town_002" not in result.stdout


def test_photos_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(b"not a photo")
    (tmp_path / "a" / "y.jpg").write_bytes(b"not a photo")
    jobs = photo_run.list_photos([tmp_path / "a", tmp_path / "b" / "x.jpg", tmp_path / "no.jpg"])
    assert [job.name for job in jobs] == [
        str(tmp_path / "a" / "x.jpg"), "y.jpg", str(tmp_path / "b" / "x.jpg"), "no.jpg",
    ]  # fmt: skip
    assert isinstance(jobs[-1].error, PhotoError)


def test_formats_are_those_of_the_design() -> None:
    assert [f.value for f in locate_command.Format] == ["table", "geojson", "csv"]


# --- telemetry by CSV -------------------------------------------------------------------------


def table(tmp_path: Path, rows: Sequence[str]) -> options.TelemetryTable:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["file,heading_deg", *rows]) + "\n")
    return options.TelemetryTable(path)


def test_telemetry_is_found_by_path_before_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(b"")
    known = table(tmp_path, ["a/x.jpg,1", "b/x.jpg,2", "y.jpg,3"])
    found = known(tmp_path / "b" / "x.jpg")
    assert found is not None
    assert found.heading_deg == 2.0
    elsewhere = known(Path("/other/y.jpg"))
    assert elsewhere is not None
    assert elsewhere.heading_deg == 3.0
    assert known(Path("/other/z.jpg")) is None
    with pytest.raises(QueriesError, match="lines 2, 3"):
        known(Path("/other/x.jpg"))


# --- evaluate and demo ------------------------------------------------------------------------


def run_evaluate(town: Path, queries: Path, *words: object) -> Any:
    return run("evaluate", "--gallery", town / "gallery", "--queries", queries, *words)


def test_evaluate_writes_figures_plot_and_pictures(town: Path, tmp_path: Path) -> None:
    out, plot, why = tmp_path / "a" / "results.json", tmp_path / "recall.png", tmp_path / "why"
    result = run_evaluate(
        town, town / "photos" / "queries.csv", "--reranker", "dense", "--top-k", "5",
        "--out", out, "--plot", plot, "--evidence", why,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert figures["queries"] == 3
    assert figures["retrieved"]["recall@1"] >= 0
    assert figures["reranked"] is not None
    assert "recall@1 within 50 m" in result.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert len(list(why.iterdir())) == 3


def test_evaluate_counts_failures_and_groups(town: Path, tmp_path: Path) -> None:
    lines = (town / "photos" / "queries.csv").read_text().splitlines()
    rows = [
        f"{line},{flight}" for line, flight in zip(lines, ("flight", "x", "y", "y"), strict=True)
    ]
    rows[3] = rows[3].replace("town_003.jpg", "gone.jpg")
    table = tmp_path / "q.csv"
    table.write_text("\n".join(rows) + "\n")
    out = tmp_path / "r.json"
    result = run_evaluate(
        town, table, "--photos", town / "photos", "--group-by", "flight", "--out", out
    )
    assert result.exit_code == terminal.SOME_FAILED, result.output
    figures = json.loads(out.read_text())
    assert figures["failed"] == 1
    assert figures["groups"]["y"]["queries"] == 2
    assert "gone.jpg" in result.stderr

    result = run_evaluate(town, table)
    assert result.exit_code == terminal.FAILED, "no photo is beside that CSV"
    assert "photos are missing" in result.stderr


def test_evaluate_every_and_limit(town: Path) -> None:
    queries = town / "photos" / "queries.csv"
    rows = evaluate_command.select_rows(queries, None, every=2)
    assert [row.file for row in rows] == ["town_001.jpg", "town_003.jpg"]
    assert len(evaluate_command.select_rows(queries, None, every=2, limit=1)) == 1


def test_evaluate_sees_swapped_coordinates(town: Path, tmp_path: Path) -> None:
    text = (town / "photos" / "queries.csv").read_text()
    header, rest = text.split("\n", 1)
    swapped = {"lat": "lon", "lon": "lat", "ground_lat": "ground_lon", "ground_lon": "ground_lat"}
    names = [swapped.get(name, name) for name in header.split(",")]
    table = tmp_path / "q.csv"
    table.write_text(",".join(names) + "\n" + rest)
    result = run_evaluate(town, table, "--photos", town / "photos")
    assert result.exit_code == terminal.FAILED
    assert "look swapped" in result.stderr


def test_evaluate_perturbed_is_the_same_for_the_same_seed(town: Path, tmp_path: Path) -> None:
    found = []
    for seed in (1, 1):
        out = tmp_path / "r.json"
        result = run_evaluate(
            town, town / "photos" / "queries.csv", "--perturb", "--heading-error", "8",
            "--seed", seed, "--limit", "1", "--out", out,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        found.append(json.loads(out.read_text())["retrieved"])
    assert found[0] == found[1]


def test_demo_refuses_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == terminal.FAILED
    assert "not a demo's folder" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_demo_removes_only_its_own_older_pictures(tmp_path: Path) -> None:
    claim_folder(tmp_path)
    for name in ("photos/old.jpg", "evidence/old.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    claim_folder(tmp_path)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"notes.txt", MARKER}


@pytest.mark.slow
def test_demo_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_command, "SIZE_M", 450.0)
    folder = tmp_path / "my demo"
    for _ in range(2):  # running it again works
        result = run("demo", "--out", folder, "--photos", "2")
        assert result.exit_code == 0, result.output
        assert len(list((folder / "evidence").iterdir())) == 2
    for name in ("results.json", "results-reranked.json", "results.geojson", "recall.png"):
        assert (folder / name).stat().st_size > 0
    assert "build YOUR_MAP.tif" in result.stderr
    figures = json.loads((folder / "results.json").read_text())
    assert figures["failed"] == 0


# --- info, small things -----------------------------------------------------------------------


def test_info_and_verify(town: Path, tmp_path: Path) -> None:
    result = run("info", town / "gallery", "--verify")
    assert result.exit_code == 0, result.output
    assert "around lon 9.4" in result.stdout
    assert "files are as they were written" in result.stderr
    copy = tmp_path / "gallery"
    shutil.copytree(town / "gallery", copy)
    file = max(copy.rglob("*.lance"), key=lambda p: p.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    result = run("info", copy, "--verify")
    assert result.exit_code == terminal.FAILED
    assert "was changed" in result.stderr


def test_plain_progress_is_sparse(capsys: pytest.CaptureFixture[str]) -> None:
    lines = terminal._Lines("photos")
    for i in range(100):
        lines(i, 100, "x.jpg")
    assert capsys.readouterr().err == ""
    lines._last -= terminal.PLAIN_SECONDS + 1
    lines(50, 100, "bad\udcff.jpg")
    assert capsys.readouterr().err.startswith("bad\\xff.jpg: 50 of 100, ")


def test_prior_text() -> None:
    prior = options.parse_prior("-98.1,30.2,500")
    assert prior is not None
    assert (prior.lon, prior.lat, prior.radius_m) == (-98.1, 30.2, 500.0)
    assert options.parse_prior(None) is None
    with pytest.raises(OptionError):
        options.parse_prior("a,b,c")
