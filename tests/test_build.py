"""Building: killed anywhere it resumes to the same content; errors are said, nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from map_helpers import FakeEncoder, pixel_transform, texture, write_tif
from skylink.errors import GalleryError, MapError, ModelError, OptionError, OutputError
from skylink.gallery import Gallery
from skylink.imagery import open_sources

TESTS = Path(__file__).parent
ARIEL = TESTS.parent.parent / "shared" / "data" / "ariel" / "map.tif"
OPTIONS: dict[str, Any] = {"tile_m": (32.0,), "stride_m": 32.0}


def make_map(path: Path, *, size: int = 1100, lon: float = 35.2, seed: int = 0) -> Path:
    """1.1 km: 2 x 2 chunks at 1 m."""
    transform = pixel_transform("EPSG:32636", lon=lon, lat=32.1, size=size, gsd_m=1.0)
    return write_tif(path, texture(size, size, seed), transform=transform)


def build(maps: list[Path], out: Path, **options: Any) -> Gallery:
    return Gallery.build(maps, out, **{"encoder": FakeEncoder(), **OPTIONS, **options})


def content(gallery: Gallery) -> dict[str, Any]:
    """All that a gallery holds, in an order that does not depend on how it was built."""
    tiles = gallery.tiles_table().search().limit(10**6).to_arrow()
    found: dict[str, Any] = {"ids": sorted(tiles["id"].to_pylist())}
    found["tiles"] = sorted(map(str, tiles.drop_columns(["descriptor"]).to_pylist()))
    found["descriptors"] = gallery.tiles().descriptor.tobytes()
    found["keys"] = sorted(gallery._chunk_rows)
    for area in range(len(gallery.areas)):
        raster = gallery.features(area=area, level=0)
        assert raster is not None
        found[f"features {area}"] = raster.values.tobytes() + raster.valid.tobytes()
        rgb, valid = gallery.picture(area=area, level=0, x_m=0, y_m=0, size_px=600, gsd_m=2.0)
        found[f"picture {area}"] = rgb.tobytes() + valid.tobytes()
    statistics = gallery.statistics(0)
    found["statistics"] = [v.tobytes() if hasattr(v, "tobytes") else v
                           for v in vars(statistics).values()]  # fmt: skip
    found["info"] = gallery.info.model_dump(exclude={"created_at", "files"})
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A map and the content of a build that nothing interrupted."""
    folder = tmp_path_factory.mktemp("reference")
    path = make_map(folder / "map.tif")
    return path, content(build([path], folder / "g"))


def run_child(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A build in its own process, which the script may kill."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(TESTS)!r})
from map_helpers import FakeEncoder
from skylink import build as build_module, partial, tables
from skylink.gallery import Gallery
partial.FLUSH_CHUNKS = 1
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def run(**options):
    merged = {{"encoder": FakeEncoder(), "tile_m": (32.0,), "stride_m": 32.0, **options}}
    Gallery.build([sys.argv[1]], sys.argv[2], **merged)
{script}
"""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


KILL_AT_APPEND = """
count, real = 0, tables.append
def append(table, rows):
    global count
    count += 1
    if count == int(sys.argv[3]):
        die()
    real(table, rows)
tables.append = append
run()
"""
KILL_AT = {
    # appends alternate: raw tiles, features; the ninth writes the final tiles
    "tables just made": KILL_AT_APPEND.replace("int(sys.argv[3])", "1"),
    "between the two tables": KILL_AT_APPEND.replace("int(sys.argv[3])", "4"),
    "before the final tiles": KILL_AT_APPEND.replace("int(sys.argv[3])", "9"),
    "before the commit": "build_module._commit = lambda *a: die()\nrun()",
    "after the commit": "build_module._remove_others = lambda *a: die()\nrun()",
    "half a table": """
real = tables.create
def create(database, name, schema):
    if name == "raw_tiles":
        os.makedirs(str(partial.Path(sys.argv[2])) + "/work-0000000000000000", exist_ok=True)
        die()
    return real(database, name, schema)
tables.create = create
run()
""",
}


QUICK = ("between the two tables", "before the commit")


@pytest.mark.parametrize(
    "point", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in KILL_AT]
)
def test_killed_build_resumes_to_the_same_content(
    tmp_path: Path, reference: tuple[Path, dict[str, Any]], point: str
) -> None:
    path, expected = reference
    out = tmp_path / "g"
    died = run_child(KILL_AT[point], path, out)
    assert died.returncode == -signal.SIGKILL, died.stderr
    if point != "after the commit":
        with pytest.raises(GalleryError, match="the build was not finished; run the same"):
            Gallery.open(out)
    else:
        assert content(Gallery.open(out)) == expected
    encoder = FakeEncoder()
    resumed = build([path], out, encoder=encoder)
    assert content(resumed) == expected
    left = sorted(p.name for p in out.iterdir())
    assert left == [".lock", resumed.info.data, "gallery.json"]
    if point == "between the two tables":
        # the first chunk was kept, the half-stored second one encoded again
        assert 0 < encoder.encoded < len(expected["ids"])
    if point in ("before the final tiles", "before the commit", "after the commit"):
        assert encoder.encoded == 0


def test_kill_at_a_moment_of_chance_leaves_the_old_gallery(
    tmp_path: Path, reference: tuple[Path, dict[str, Any]]
) -> None:
    path, expected = reference
    out = tmp_path / "g"
    build([path], out)
    other = make_map(tmp_path / "other.tif", seed=5)
    script = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        "from map_helpers import FakeEncoder\nfrom skylink import partial\n"
        "from skylink.gallery import Gallery\npartial.FLUSH_CHUNKS = 1\n"
        f"Gallery.build([{str(other)!r}], {str(out)!r}, tile_m=(32.0,), stride_m=32.0,\n"
        "    encoder=FakeEncoder(delay_s=0.05), progress=lambda *a: print(a, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(3):
            child.stdout.readline()
        time.sleep(0.2)
        # a second build of anything into this folder is refused meanwhile
        with pytest.raises(GalleryError, match="another build is writing here"):
            build([path], out)
        child.kill()
    assert content(Gallery.open(out)) == expected
    encoder = FakeEncoder()
    replaced = build([other], out, encoder=encoder)
    assert 0 < encoder.encoded < replaced.tile_count
    assert content(replaced)["ids"] == expected["ids"]
    assert content(replaced)["descriptors"] != expected["descriptors"]
    assert sorted(p.name for p in out.iterdir()) == [".lock", replaced.info.data, "gallery.json"]


def test_interrupt_keeps_what_is_encoded(
    tmp_path: Path, reference: tuple[Path, dict[str, Any]]
) -> None:
    path, expected = reference

    def stop(done: int, total: int, words: str) -> None:
        assert total == 4
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build([path], tmp_path / "g", progress=stop)
    encoder = FakeEncoder()
    resumed = build([path], tmp_path / "g", encoder=encoder)
    assert content(resumed) == expected
    assert 0 < encoder.encoded < resumed.tile_count


def test_identical_build_returns_at_once(tmp_path: Path) -> None:
    path = make_map(tmp_path / "map.tif", size=300)
    first = build([path], tmp_path / "g")
    written = (tmp_path / "g" / "gallery.json").read_bytes()
    encoder = FakeEncoder()
    said: list[str] = []
    build([path], tmp_path / "g", encoder=encoder, progress=lambda a, b, words: said.append(words))
    assert encoder.encoded == 0
    assert said == ["already built"]
    assert (tmp_path / "g" / "gallery.json").read_bytes() == written
    # another attribution needs no encoding
    credited = build([path], tmp_path / "g", encoder=encoder, attribution="(c) Me")
    assert encoder.encoded == 0
    assert (first.info.attribution, credited.info.attribution) == ("", "(c) Me")
    # anything else is another gallery, and its data replaces the old
    changed = build([path], tmp_path / "g", stride_m=16.0)
    assert changed.info.data != first.info.data
    assert not (tmp_path / "g" / first.info.data).exists()


@pytest.mark.parametrize("damage", ["data", "json"])
def test_a_damaged_gallery_is_built_again(tmp_path: Path, damage: str) -> None:
    path = make_map(tmp_path / "map.tif", size=300)
    before = build([path], tmp_path / "g")
    expected = content(before)
    if damage == "data":
        next((tmp_path / "g" / before.info.data).rglob("*.lance/data/*")).write_bytes(b"?")
    else:
        (tmp_path / "g" / "gallery.json").write_text("{")
    assert content(build([path], tmp_path / "g")) == expected


def test_changed_map_or_model_is_another_build(tmp_path: Path) -> None:
    ids = set()
    for seed, fingerprint in ((0, "a"), (1, "a"), (0, "b")):
        path = make_map(tmp_path / "map.tif", size=200, seed=seed)
        encoder = FakeEncoder(fingerprint=fingerprint)
        ids.add(build([path], tmp_path / "g", encoder=encoder).info.build_id)
    assert len(ids) == 3


def test_several_areas_and_levels(tmp_path: Path) -> None:
    paths = [
        make_map(tmp_path / "a.tif", size=300),
        make_map(tmp_path / "b.tif", size=250, lon=35.25, seed=1),
        make_map(tmp_path / "c.tif", size=300, lon=35.2032, seed=2),
    ]
    gallery = build(paths, tmp_path / "g", tile_m=(32.0, 64.0), stride_m=16.0)
    assert [area.sources for area in gallery.areas] == [(0, 2), (1,)]
    tiles = gallery.tiles()
    assert set(zip(tiles.area.tolist(), tiles.level.tolist(), strict=True)) == {
        (a, v) for a in (0, 1) for v in (0, 1)
    }
    rows = gallery.tiles_table().search().limit(10**6).to_list()
    by_area: dict[int, set[int]] = {0: set(), 1: set()}
    for row in rows:
        by_area[row["area"]].add(row["source"])
    assert by_area == {0: {0, 2}, 1: {1}}
    assert gallery.area_km2 == pytest.approx((0.3**2 * 2 + 0.25**2), rel=0.03)


def test_without_imagery_and_without_features(tmp_path: Path) -> None:
    path = make_map(tmp_path / "map.tif", size=300)
    gallery = build([path], tmp_path / "g", store_imagery=False, encoder=FakeEncoder(channels=0))
    assert gallery.features(area=0, level=0) is None
    assert gallery.statistics(0).cells == 0
    assert gallery.statistics(0).feature_covariance.shape == (0, 0)
    with pytest.raises(GalleryError, match="without imagery"):
        gallery.picture(area=0, level=0, x_m=0, y_m=0, size_px=8, gsd_m=1.0)
    assert len(gallery.tiles()) > 0


def test_a_single_tile(tmp_path: Path) -> None:
    """No spread can be known from one tile: its vector must still be a unit vector."""
    path = make_map(tmp_path / "map.tif", size=30)
    gallery = build([path], tmp_path / "g")
    assert gallery.tile_count == 1
    norm = np.linalg.norm(gallery.tiles().descriptor.astype(float))
    assert norm == pytest.approx(1, abs=2e-3)


def test_empty_and_too_small_maps(tmp_path: Path) -> None:
    empty = write_tif(tmp_path / "e.tif", np.zeros((3, 90, 90), dtype=np.uint8), nodata=0)
    with pytest.raises(MapError, match="no pixel of them is valid") as caught:
        build([empty], tmp_path / "g")
    assert "nodata" in (caught.value.hint or "")
    small = make_map(tmp_path / "s.tif", size=20)
    with pytest.raises(MapError, match="half its pixels"):
        build([small], tmp_path / "g")
    assert [p.name for p in (tmp_path / "g").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile_m": ()}, "no tile size"),
        ({"tile_m": (float("nan"),)}, "tile size nan"),
        ({"tile_m": (0.1,)}, "expected 1"),
        ({"stride_m": 0.0}, "stride 0 m"),
        ({"stride_m": 33.0}, "at most the tile's 32 m"),
        ({"stride_m": 0.005}, "tiles would be needed"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = make_map(tmp_path / "map.tif", size=100)
    with pytest.raises(OptionError, match=words):
        build([path], tmp_path / "g", **options)
    assert not (tmp_path / "g").exists()


def test_a_model_that_breaks_its_contract(tmp_path: Path) -> None:
    path = make_map(tmp_path / "map.tif", size=100)

    class Wrong(FakeEncoder):
        def encode(self, images: Any, masks: Any = None) -> Any:
            return super().encode(images, masks)[:, :5]

    class Nan(FakeEncoder):
        def encode(self, images: Any, masks: Any = None) -> Any:
            return super().encode(images, masks) * np.nan

    class Coarse(FakeEncoder):
        def feature_map(self, images: Any) -> Any:
            return super().feature_map(images)[:, ::2, ::2]

    for encoder, words in ((Wrong(), "shape"), (Nan(), "not finite"), (Coarse(), "feature_map")):
        with pytest.raises(ModelError, match=words):
            build([path], tmp_path / "g", encoder=encoder)


def test_out_that_cannot_be_written(tmp_path: Path) -> None:
    path = make_map(tmp_path / "map.tif", size=100)
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot write"):
            build([path], out)
    assert (tmp_path / "file").read_text() == "mine"


def test_full_disk_is_said_and_resumes(
    tmp_path: Path, reference: tuple[Path, dict[str, Any]]
) -> None:
    """A limit on file sizes stands in for a full disk: writes fail in the middle."""
    path, expected = reference
    script = (
        "import resource\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "from skylink.errors import OutputError\n"
        "try:\n    run()\nexcept OutputError as error:\n"
        "    print('SAID', error.message, '|', error.hint)"
    )
    child = run_child(script, path, tmp_path / "g")
    assert "SAID cannot write" in child.stdout, child.stdout + child.stderr
    assert "no space left" in child.stdout
    assert content(build([path], tmp_path / "g")) == expected


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    path = make_map(tmp_path / "map.tif", size=200)
    out = tmp_path / "g"
    (out / "data-mine").mkdir(parents=True)
    (out / "data-0123456789abcdef").mkdir()
    (out / "notes.txt").write_text("mine")
    build([path], out)
    assert (out / "data-mine").is_dir()
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "data-0123456789abcdef").exists()


def test_damaged_map_keeps_the_chunks_before_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (3, 2048, 1100), dtype=np.uint8)
    transform = pixel_transform("EPSG:32636", lon=35.2, lat=32.1, size=1100, gsd_m=1.0)
    path = write_tif(
        tmp_path / "map.tif", noise, transform=transform, compress="deflate", tiled=True,
        blockxsize=128, blockysize=128,
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    place = len(data) * 85 // 100
    data[place : place + 60_000] = bytes(60_000)
    path.write_bytes(bytes(data))
    with pytest.raises(MapError, match=r"map.tif: is corrupt"):
        build([path], tmp_path / "g")
    with pytest.raises(GalleryError, match="not finished"):
        Gallery.open(tmp_path / "g")


def sparse_map(path: Path, *, side: int) -> Path:
    rng = np.random.default_rng(0)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8",
        crs="EPSG:32636", transform=Affine(0.5, 0, 600_000, 0, -0.5, 3_600_000),
        tiled=True, blockxsize=256, blockysize=256, SPARSE_OK=True, compress="deflate",
        BIGTIFF="YES",
    ) as dataset:  # fmt: skip
        for share in (0.01, 0.5, 0.93):
            at = int(share * side) // 256 * 256
            block = rng.integers(1, 255, (3, 512, 512), dtype=np.uint8)
            dataset.write(block, window=rasterio.windows.Window(at, at, 512, 512))
    return path


def test_empty_parts_are_never_read(tmp_path: Path) -> None:
    gallery = build([sparse_map(tmp_path / "s.tif", side=8192)], tmp_path / "g", stride_m=16.0)
    assert gallery.info.chunks_total == 25
    assert gallery.info.chunks_stored < 12
    assert gallery.area_km2 == pytest.approx(3 * 0.256**2, rel=0.02)


@pytest.mark.slow
def test_sparse_100k_raster_builds_in_little_memory(tmp_path: Path) -> None:
    path = sparse_map(tmp_path / "s.tif", side=100_000)
    # VmHWM begins anew with the program; ru_maxrss is inherited from whoever started it
    script = (
        "run(encoder=FakeEncoder(input_px=224), tile_m=(160.0,), stride_m=40.0)\n"
        "status = open('/proc/self/status').read()\n"
        "print(status.split('VmHWM:')[1].split()[0])"
    )
    started = time.monotonic()
    child = run_child(script, path, tmp_path / "g")
    assert child.returncode == 0, child.stderr
    assert int(child.stdout.split()[-1]) < 1_500_000
    assert time.monotonic() - started < 120
    assert Gallery.open(tmp_path / "g").info.chunks_total > 4000


@pytest.mark.real
@pytest.mark.skipif(
    not ARIEL.exists(),
    reason="needs the real flights in ../shared/data/ariel, which are not part of the repository",
)
def test_real_map(tmp_path: Path) -> None:
    gallery = Gallery.build([ARIEL], tmp_path / "g", encoder=FakeEncoder(input_px=224))
    assert gallery.area_km2 == pytest.approx(2.2, abs=0.1)
    assert 1300 < gallery.tile_count < 1500
    raster = gallery.features(area=0, level=0)
    assert raster is not None
    assert raster.valid.mean() > 0.98
    (source,) = open_sources([ARIEL])
    assert source.gsd_m == pytest.approx(0.505, abs=0.001)


def test_gallery_json_is_documented_keys_only(tmp_path: Path) -> None:
    path = make_map(tmp_path / "map.tif", size=200)
    out = Path(os.path.relpath(tmp_path / "g"))
    build([path], out)
    found = json.loads((out / "gallery.json").read_text())
    assert set(found) == {
        "schema_version", "skylink_version", "created_at", "build_id", "data", "encoder", "areas",
        "levels", "sources", "imagery", "min_valid", "tiles_kept", "tiles_dropped",
        "chunks_stored", "chunks_total", "area_km2", "attribution", "notes", "files",
    }  # fmt: skip
    assert found["encoder"]["fingerprint"] == "fake-1"
    # the folder can be moved: nothing in it is an absolute path but the record of the sources
    moved = tmp_path / "moved"
    shutil.move(out, moved)
    assert len(Gallery.open(moved).tiles()) == found["tiles_kept"]
