"""Maps in every CRS, layout and type; each landmark must lie where it is on Earth."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine

from map_helpers import blob, pixel_transform, spot_px, texture, write_tif
from skylink.errors import MapError
from skylink.geo import CrsTransform, LocalFrame, crs_period
from skylink.imagery import MapSource, Mosaic, open_sources

LON, LAT = 35.2077, 32.1047
SIZE = 200


def read(
    sources: list[MapSource], *, lon: float, lat: float, gsd_m: float = 1.0, size: int = 160
) -> tuple[Any, Any, LocalFrame]:
    """A window centred on a place, in a frame centred 3 km away from it."""
    frame = LocalFrame(lon, lat - 0.03 if lat > 0 else lat + 0.03)
    x, y = (float(v) for v in frame.to_xy(lon=lon, lat=lat))
    half = size * gsd_m / 2
    rgb, valid = Mosaic(sources, frame).read(
        x_min=x - half, y_max=y + half, gsd_m=gsd_m, width_px=size, height_px=size
    )
    return rgb, valid, frame


def assert_spot_in_the_middle(
    sources: list[MapSource], *, lon: float, lat: float, tolerance_px: float = 0.15
) -> None:
    rgb, valid, _ = read(sources, lon=lon, lat=lat)
    assert spot_px(rgb, valid) == pytest.approx((80, 80), abs=tolerance_px)


@pytest.mark.parametrize(
    ("crs", "lon", "lat", "turn"),
    [
        ("EPSG:32636", LON, LAT, 0.0),
        ("EPSG:32636", LON, LAT, 33.0),
        ("EPSG:4326", LON, LAT, 0.0),
        ("EPSG:4326", 10.0, 69.0, 0.0),
        ("EPSG:3857", 10.0, 60.0, 0.0),
        ("EPSG:2263", -73.97, 40.78, 0.0),  # US survey feet, NAD83
        ("EPSG:27700", -1.5, 53.0, 0.0),  # another datum
        ("EPSG:2193", 174.78, -41.29, 0.0),  # axes north, east in the registry
        ("EPSG:3413", 20.0, 89.99, 0.0),  # 1.1 km from the pole
        ("EPSG:3031", -60.0, -89.5, 0.0),
        ("EPSG:32660", 179.9999, -17.0, 0.0),  # across the antimeridian
        ("EPSG:3832", 179.9999, -17.0, 0.0),
    ],
)
def test_landmark_in_any_crs(tmp_path: Path, crs: str, lon: float, lat: float, turn: float) -> None:
    transform = pixel_transform(crs, lon=lon, lat=lat, size=SIZE, gsd_m=1.0, turn_deg=turn)
    # the landmark is 3 pixels from the middle, so that a centred but mirrored read would fail
    to_lonlat = CrsTransform(crs, "EPSG:4326")
    x, y = transform @ (SIZE / 2 + 3.3, SIZE / 2 - 2.6)
    mark_lon, mark_lat = (float(v) for v in to_lonlat(x, y))
    image = blob(SIZE, col=SIZE / 2 + 3.3, row=SIZE / 2 - 2.6)
    path = write_tif(tmp_path / "map.tif", image, crs=crs, transform=transform)
    (source,) = open_sources([path])
    assert source.crs == crs
    assert source.gsd_m == pytest.approx(1.0, rel=0.05)
    assert_spot_in_the_middle([source], lon=mark_lon, lat=mark_lat)


@pytest.mark.parametrize(("crs", "edge"), [("EPSG:4326", 180.0), ("EPSG:3857", 20037508.342789244)])
@pytest.mark.parametrize("side", [1, -1])
def test_raster_that_runs_over_the_antimeridian(
    tmp_path: Path, crs: str, edge: float, side: int
) -> None:
    at = pixel_transform(crs, lon=0.0, lat=-17.0, size=SIZE, gsd_m=1.0)
    transform = Affine.translation(side * edge, 0) @ at
    path = write_tif(
        tmp_path / "map.tif", blob(SIZE, col=101, row=100), crs=crs, transform=transform
    )
    x, y = transform @ (101, 100)
    lon, lat = (float(v) for v in CrsTransform(crs, "EPSG:4326")(x, y))
    (source,) = open_sources([path])
    assert all(-180 <= a <= 180 for a, _ in source.ring)
    rgb, valid, _ = read([source], lon=lon, lat=lat)
    assert valid.all()
    assert spot_px(rgb, valid) == pytest.approx((80, 80), abs=0.15)


def test_period_of_cylindrical_crs() -> None:
    assert crs_period("EPSG:4326") == pytest.approx(360)
    assert crs_period("EPSG:3857") == pytest.approx(40_075_016.69, abs=1)
    assert crs_period("EPSG:3832") == pytest.approx(40_075_016.69, abs=1)
    assert crs_period("EPSG:32636") is None
    assert crs_period("EPSG:3413") is None
    with pytest.raises(ValueError, match="nonsense"):
        crs_period("nonsense")


def test_geographic_raster_right_up_to_the_pole(tmp_path: Path) -> None:
    transform = Affine(0.05, 0, -180.0, 0, -0.00001, 90.0)
    image = np.full((3, 200, 7200), 90, dtype=np.uint8)
    path = write_tif(tmp_path / "cap.tif", image, crs="EPSG:4326", transform=transform)
    rgb, valid = Mosaic(open_sources([path]), LocalFrame(0.0, 90.0)).read(
        x_min=-50, y_max=50, gsd_m=1, width_px=100, height_px=100
    )
    assert valid.all()
    assert (rgb == 90).all()


@pytest.mark.parametrize("points", [3, 4, 9])
def test_ground_control_points(tmp_path: Path, points: int) -> None:
    transform = pixel_transform("EPSG:4326", lon=LON, lat=LAT, size=SIZE, gsd_m=1.0, turn_deg=0)
    places = [(0, 0), (SIZE, 0), (0, SIZE), (SIZE, SIZE)]
    places += [(100, 100), (50, 10), (10, 150), (180, 90), (120, 30)]
    gcps = [
        GroundControlPoint(row=r, col=c, x=(transform @ (c, r))[0], y=(transform @ (c, r))[1])
        for c, r in places[:points]
    ]
    image = np.moveaxis(blob(SIZE, col=110, row=95), 2, 0)
    path = tmp_path / "gcps.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=SIZE, width=SIZE, dtype="uint8",
        gcps=gcps, crs="EPSG:4326",
    ) as dataset:  # fmt: skip
        dataset.write(image)
    lon, lat = transform @ (110, 95)
    assert_spot_in_the_middle(open_sources([path]), lon=lon, lat=lat)


@pytest.mark.parametrize("layout", ["box", "four", "tilted"])
def test_folder_with_corners(tmp_path: Path, layout: str) -> None:
    w, e, s, n = LON - 0.001, LON + 0.001, LAT - 0.001, LAT + 0.001
    Image.fromarray(blob(SIZE, col=100, row=100)).save(tmp_path / "a b.png")
    if layout == "box":
        text = f"file,left_lon,top_lat,right_lon,bottom_lat\na b.png,{w},{n},{e},{s}\n"
    else:
        lean = 0.0004 if layout == "tilted" else 0.0
        text = (
            "\ufefffile, ul_lon, ul_lat, ur_lon, ur_lat, lr_lon, lr_lat, ll_lon, ll_lat, by\n"
            f"a b.png,{w + lean},{n},{e + lean},{n},{e - lean},{s},{w - lean},{s},me\n"
        )
    (tmp_path / "any.csv").write_text(text, encoding="utf-8")
    (source,) = open_sources([tmp_path])
    assert (source.kind, source.crs) == ("corners", "EPSG:4326")
    assert_spot_in_the_middle([source], lon=LON, lat=LAT)


def test_corners_across_the_antimeridian(tmp_path: Path) -> None:
    Image.fromarray(blob(SIZE, col=100, row=100)).save(tmp_path / "a.png")
    (tmp_path / "corners.csv").write_text(
        "file,left_lon,top_lat,right_lon,bottom_lat\na.png,179.999,-16.999,-179.999,-17.001\n"
    )
    assert_spot_in_the_middle(open_sources([tmp_path]), lon=180.0, lat=-17.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,left_lon\n", "columns are missing: bottom_lat"),
        ("file,left_lon,top_lat,right_lon,bottom_lat\n", "no image in it"),
        ("file,left_lon,top_lat,right_lon,bottom_lat\nb.png,1,2,3,1\n", "b.png does not exist"),
        ("file,left_lon,top_lat,right_lon,bottom_lat\na.png,1,x,3,1\n", "row 2: top_lat = 'x'"),
        ("file,left_lon,top_lat,right_lon,bottom_lat\na.png,1,99,3,1\n", "not in -90..90"),
        ("file,left_lon,top_lat,right_lon,bottom_lat\na.png,1,2,1,1\n", "no area"),
        (
            "file,left_lon,top_lat,right_lon,bottom_lat\na.png,1,2,1.1,1.9\na.png,1,2,1.1,1.9\n",
            "placed already in row 2",
        ),
    ],
)
def test_bad_corners_say_which_row(tmp_path: Path, text: str, words: str) -> None:
    Image.fromarray(texture(20, 20)).save(tmp_path / "a.png")
    (tmp_path / "corners.csv").write_text(text)
    with pytest.raises(MapError, match=words):
        open_sources([tmp_path])


def tile_folder(root: Path, *, zoom: int = 17, suffix: str = ".png", tms: bool = False) -> Any:
    """4 x 3 tiles with one missing, a spot in the middle; returns its (lon, lat)."""
    pixel = 2 * 20037508.342789244 / 2**zoom / 256
    x0, y0 = int((LON + 180) / 360 * 2**zoom), 53_000 * 2**zoom // 2**17
    picture = blob(1024, col=500, row=300, sigma=3)[:768]
    for i in range(4):
        for j in range(3):
            if (i, j) == (3, 2):
                continue
            y = 2**zoom - 1 - (y0 + j) if tms else y0 + j
            folder = root / str(zoom) / str(x0 + i)
            folder.mkdir(parents=True, exist_ok=True)
            tile = Image.fromarray(picture[j * 256 : j * 256 + 256, i * 256 : i * 256 + 256])
            tile.save(folder / f"{y}{suffix}", quality=98)
    x = -20037508.342789244 + (x0 * 256 + 500) * pixel
    y = 20037508.342789244 - (y0 * 256 + 300) * pixel
    return tuple(float(v) for v in CrsTransform("EPSG:3857", "EPSG:4326")(x, y))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_tile_folder_takes_the_highest_zoom(tmp_path: Path, suffix: str) -> None:
    lon, lat = tile_folder(tmp_path, suffix=suffix)
    (tmp_path / "3" / "1").mkdir(parents=True)
    Image.fromarray(texture(256, 256)).save(tmp_path / "3" / "1" / "1.png")
    (tmp_path / "metadata.json").write_text('{"attribution": "A map maker"}')
    (source,) = open_sources([tmp_path])
    assert (source.kind, source.attribution) == ("tiles", "A map maker")
    assert source.bands == "11 tiles of 256 px at zoom 17"
    assert_spot_in_the_middle([source], lon=lon, lat=lat)


def test_tile_folder_reduced_read_and_missing_tile(tmp_path: Path) -> None:
    lon, lat = tile_folder(tmp_path)
    rgb, valid, _ = read(open_sources([tmp_path]), lon=lon, lat=lat, gsd_m=4.0, size=320)
    assert spot_px(rgb.clip(40), valid) == pytest.approx((160, 160), abs=0.1)
    assert valid.mean() == pytest.approx(11 * (256 * 1.012 / 4) ** 2 / 320**2, rel=0.03)


def test_tms_folder_counts_rows_from_the_south(tmp_path: Path) -> None:
    lon, lat = tile_folder(tmp_path, tms=True)
    (tmp_path / "tilemapresource.xml").write_text("<TileMap/>")
    assert_spot_in_the_middle(open_sources([tmp_path]), lon=lon, lat=lat)


def test_palette_and_transparent_tiles(tmp_path: Path) -> None:
    tile_folder(tmp_path)
    files = sorted(tmp_path.rglob("*.png"))
    Image.new("P", (256, 256), 0).save(files[0])
    Image.new("RGBA", (256, 256), (255, 0, 0, 0)).save(files[1])
    Image.new("L", (512, 512), 77).save(files[2])
    (source,) = open_sources([tmp_path])
    rgb, valid = source.open().read(0, 0, 256, 768, fx=1, fy=1)
    assert [valid[k * 256 + 9, 9] for k in range(3)] == [True, False, True]
    assert (rgb[600, 100] == 77).all()


# --- bands and types


def values_of(path: Path, **read_options: Any) -> tuple[Any, Any, MapSource]:
    (source,) = open_sources([path])
    lon, lat = np.mean(source.ring[:-1], axis=0)
    rgb, valid, _ = read([source], lon=lon, lat=lat, size=40, **read_options)
    return rgb, valid, source


def test_rgb_and_attribution(tmp_path: Path) -> None:
    image = np.zeros((3, 60, 60), dtype=np.uint8)
    image[:] = np.array([10, 20, 30])[:, None, None]
    path = write_tif(tmp_path / "a.tif", image, tags={"TIFFTAG_COPYRIGHT": "(c) Someone"})
    rgb, valid, source = values_of(path)
    assert valid.all()
    assert (rgb == [10, 20, 30]).all()
    assert source.attribution == "(c) Someone"
    assert source.bands == "bands 1, 2, 3 of 3, uint8"
    assert source.sha256.startswith("sha256:")


def test_bands_follow_their_colours_not_their_order(tmp_path: Path) -> None:
    image = np.zeros((3, 60, 60), dtype=np.uint8)
    image[:] = np.array([30, 20, 10])[:, None, None]
    order = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    rgb, _, _ = values_of(write_tif(tmp_path / "a.tif", image, colorinterp=order))
    assert (rgb == [10, 20, 30]).all()


def half(value: int) -> Any:
    """(60, 60): the western half is 0, the eastern `value`."""
    return np.repeat(np.where(np.arange(60) < 30, 0, value)[None], 60, axis=0)


@pytest.mark.parametrize("how", ["rgba", "nodata", "mask", "gray+alpha", "5 bands+alpha"])
def test_what_is_not_valid(tmp_path: Path, how: str) -> None:
    image = np.full((3, 60, 60), 90, dtype=np.uint8)
    alpha = half(255).astype(np.uint8)
    path = tmp_path / "a.tif"
    if how == "rgba":
        write_tif(path, np.concatenate([image, alpha[None]]), photometric="RGB", alpha="yes")
    elif how == "gray+alpha":
        kinds = [ColorInterp.gray, ColorInterp.alpha]
        write_tif(path, np.stack([image[0], alpha]), colorinterp=kinds)
    elif how == "5 bands+alpha":
        kinds = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
        kinds += [ColorInterp.undefined, ColorInterp.alpha]
        bands = np.concatenate([image, image[:1], alpha[None]])
        write_tif(path, bands, colorinterp=kinds, photometric="RGB")
    elif how == "nodata":
        image[:, :, :30] = 7
        write_tif(path, image, nodata=7)
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write_tif(path, image, mask=alpha.astype(bool))
    rgb, valid, _ = values_of(path)
    assert valid[:, 22:].all()
    assert not valid[:, :18].any()
    # no bleeding of what is not valid, and zero outside
    assert (rgb[valid] == 90).all()
    assert (rgb[~valid] == 0).all()


def test_gray_two_bands_and_multispectral(tmp_path: Path) -> None:
    bands = np.arange(1, 6, dtype=np.uint8)[:, None, None] * np.ones((1, 60, 60), np.uint8) * 10
    for count, expected in ((1, [10, 10, 10]), (2, [10, 10, 10]), (5, [10, 20, 30])):
        kinds = [ColorInterp.gray] + [ColorInterp.undefined] * (count - 1)
        path = write_tif(tmp_path / f"{count}.tif", bands[:count], colorinterp=kinds)
        assert (values_of(path)[0] == expected).all(), count


def test_palette(tmp_path: Path) -> None:
    index = half(3)[None].astype(np.uint8)
    colours = {0: (200, 0, 0, 255), 3: (0, 100, 50, 255)}
    path = write_tif(tmp_path / "p.tif", index, colormap=colours, photometric="palette")
    rgb, valid, source = values_of(path)
    assert valid.all()
    assert source.bands.endswith("palette")
    assert tuple(rgb[20, 5]) == (200, 0, 0)
    assert tuple(rgb[20, 35]) == (0, 100, 50)
    coarse, _, _ = values_of(path, gsd_m=10.0)
    # colours are averaged, not indexes: no palette entry in between
    assert tuple(coarse[20, 18]) == pytest.approx((200, 0, 0), abs=2)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_other_types_are_stretched_once(tmp_path: Path, dtype: str) -> None:
    low, high = (-1000, 2000) if dtype == "int16" else (1000, 4000)
    ramp = np.linspace(low, high, 400 * 300).reshape(300, 400)
    bands = np.stack([ramp, ramp, ramp]).astype(dtype)
    nodata = None
    if dtype == "int16":
        bands[:, :, :50] = nodata = -32768
    if dtype.startswith("float"):
        bands[:, :, :50] = np.nan
    path = write_tif(tmp_path / "a.tif", bands, nodata=nodata)
    (source,) = open_sources([path])
    assert f"{dtype}; 2-98 % stretch from" in source.bands
    frame = LocalFrame(*np.mean(source.ring[:-1], axis=0))
    mosaic = Mosaic([source], frame)
    whole, valid = mosaic.read(x_min=-200, y_max=150, gsd_m=1, width_px=400, height_px=300)
    assert whole[valid].min() == 0
    assert whole[valid].max() == 255
    assert whole[150, 200, 0] == pytest.approx(127.5, abs=3)
    if dtype != "uint16":
        assert not valid[:, 5:40].any()
    # a window alone has the very same values as in the whole
    part, _ = mosaic.read(x_min=-50, y_max=20, gsd_m=1, width_px=64, height_px=64)
    assert (part == whole[130:194, 150:214]).all()


def test_constant_float_raster(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "c.tif", np.full((1, 60, 60), 5.0, dtype=np.float32))
    rgb, valid, _ = values_of(path)
    assert valid.all()
    assert (rgb == rgb[0, 0]).all()


def test_reduced_reads_average(tmp_path: Path) -> None:
    """A checkerboard seen from afar is grey; sampling would show black or white."""
    board = (np.indices((400, 400)).sum(axis=0) % 2 * 200 + 20).astype(np.uint8)
    path = write_tif(tmp_path / "a.tif", np.stack([board] * 3))
    rgb, valid, _ = values_of(path, gsd_m=8.0)
    inside = valid.copy()
    inside[[0, -1]] = inside[:, [0, -1]] = False
    assert rgb[inside].min() > 110
    assert rgb[inside].max() < 130


def test_overviews_are_used(tmp_path: Path) -> None:
    """Overviews are overwritten with another colour to see who is read."""
    path = write_tif(tmp_path / "a.tif", texture(512, 512), tiled=True, blockxsize=128,
                     blockysize=128)  # fmt: skip
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([8], Resampling.average)
    with rasterio.open(path, "r+", OVERVIEW_LEVEL=0) as overview:
        overview.write(np.full((3, overview.height, overview.width), 77, dtype=np.uint8))
    rgb, valid, _ = values_of(path, gsd_m=8.0)
    assert valid.any()
    assert (rgb[valid] == 77).all()
    fine, _, _ = values_of(path, gsd_m=1.0)
    assert (fine != 77).any()


# --- several sources


def paint(path: Path, crs: str, transform: Affine, width: int, height: int) -> Path:
    """Colours that are a smooth function of the place on Earth, the same in every CRS."""
    v, u = np.mgrid[0:height, 0:width] + 0.5
    x, y = transform @ (u, v)
    lon, lat = CrsTransform(crs, "EPSG:4326")(x, y)
    return write_tif(path, np.moveaxis(place_colours(lon, lat), -1, 0), crs=crs,
                     transform=transform)  # fmt: skip


def place_colours(lon: Any, lat: Any) -> Any:
    a, b = (lon - LON) * 90_000, (lat - LAT) * 110_000
    return np.stack(
        [128 + 100 * np.sin(a / 40), 128 + 100 * np.cos(b / 50), 128 + 50 * np.sin((a + b) / 60)],
        axis=-1,
    ).astype(np.uint8)


def test_two_maps_of_different_crs_join_seamlessly(tmp_path: Path) -> None:
    frame = LocalFrame(LON, LAT)
    # UTM in the west; 4326 in the east, from 5 m before the end of the first
    utm = pixel_transform("EPSG:32636", lon=LON - 0.001, lat=LAT, size=240, gsd_m=1.0)
    geographic = pixel_transform("EPSG:4326", lon=LON + 0.0014, lat=LAT, size=240, gsd_m=1.0)
    sources = open_sources(
        [
            paint(tmp_path / "west.tif", "EPSG:32636", utm, 240, 240),
            paint(tmp_path / "east.tif", "EPSG:4326", geographic, 240, 240),
        ]
    )
    rgb, valid = Mosaic(sources, frame).read(
        x_min=-150, y_max=80, gsd_m=1, width_px=330, height_px=160
    )
    assert valid.all()
    v, u = np.mgrid[0:160, 0:330]
    lon, lat = frame.to_lonlat(x_m=-150 + u + 0.5, y_m=80 - v - 0.5)
    difference = np.abs(rgb.astype(int) - place_colours(lon, lat).astype(int))
    assert difference.max() <= 4


def test_first_source_wins_and_later_ones_fill_holes(tmp_path: Path) -> None:
    top = np.full((3, 60, 60), 200, dtype=np.uint8)
    top[:, 20:40, 20:40] = 0
    first = write_tif(tmp_path / "a.tif", top, nodata=0)
    second = write_tif(tmp_path / "b.tif", np.full((3, 60, 60), 50, dtype=np.uint8))
    sources = open_sources([first, second, first])
    assert len(sources) == 2
    lon, lat = np.mean(sources[0].ring[:-1], axis=0)
    rgb, valid, _ = read(sources, lon=lon, lat=lat, size=50)
    assert valid.all()
    assert (rgb[25, 25] == 50).all()
    assert (rgb[5, 5] == 200).all()


def test_many_threads_read_one_mosaic(tmp_path: Path) -> None:
    sources = open_sources([write_tif(tmp_path / "a.tif", texture(300, 300))])
    frame = LocalFrame(*np.mean(sources[0].ring[:-1], axis=0))
    mosaic = Mosaic(sources, frame)

    def window(i: int) -> Any:
        return mosaic.read(x_min=-140 + i, y_max=120, gsd_m=1, width_px=64, height_px=64)[0]

    expected = [window(i) for i in range(16)]
    found: list[Any] = [None] * 16

    def work(start: int) -> None:
        for i in range(start, 16, 4):
            found[i] = window(i)
        mosaic.close()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(expected, found, strict=True):
        assert (a == b).all()


def test_sparse_blocks_are_not_valid(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=512, width=512, dtype="uint8",
        crs="EPSG:32636", transform=Affine(1, 0, 708_000, 0, -1, 3_554_000),
        tiled=True, blockxsize=128, blockysize=128, SPARSE_OK=True,
    ) as dataset:  # fmt: skip
        block = np.full((3, 128, 128), 60, dtype=np.uint8)
        dataset.write(block, window=rasterio.windows.Window(128, 256, 128, 128))
    (source,) = open_sources([path])
    reader = source.open()
    assert reader.occupied(200, 300, 10, 10)
    assert not reader.occupied(0, 0, 128, 256)
    rgb, valid = reader.read(0, 0, 512, 512, fx=1, fy=1)
    assert valid.sum() == 128 * 128
    assert valid[256:384, 128:256].all()
    assert (rgb[valid] == 60).all()


# --- refusals


def test_refusals_say_what_is_wrong(tmp_path: Path) -> None:
    image = texture(64, 64)
    cases: dict[str, tuple[Path, str]] = {"missing": (tmp_path / "no.tif", "no such file")}
    text = tmp_path / "notes.tif"
    text.write_text("not a map")
    cases["text"] = (text, "not an image")
    empty = tmp_path / "empty.tif"
    empty.touch()
    cases["empty"] = (empty, "is empty")
    plain = tmp_path / "plain.png"
    Image.fromarray(image).save(plain)
    cases["plain"] = (plain, "no georeference")
    cases["no crs"] = (write_tif(tmp_path / "n.tif", image, crs=None), "no coordinate reference")
    local = 'LOCAL_CS["site",UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]'
    cases["local"] = (write_tif(tmp_path / "l.tif", image, crs=local), "cannot be used")
    far = Affine(1.0, 0, 7e8, 0, -1.0, 3e8)
    cases["far"] = (write_tif(tmp_path / "f.tif", image, transform=far), "not on the Earth")
    swapped = Affine(1e-5, 0, 32.1, 0, -1e-5, 135.2)
    cases["swapped"] = (
        write_tif(tmp_path / "w.tif", image, crs="EPSG:4326", transform=swapped),
        "not on the Earth",
    )
    wide = Affine(0.1, 0, 10, 0, -0.1, 50)
    cases["wide"] = (
        write_tif(tmp_path / "wide.tif", image, crs="EPSG:4326", transform=wide),
        "spans",
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    cases["folder"] = (folder, "nothing in this folder")
    (tmp_path / "z" / "3" / "4").mkdir(parents=True)
    cases["tiles"] = (tmp_path / "z", "no tiles found")
    for name, (path, words) in cases.items():
        with pytest.raises(MapError, match=words) as caught:
            open_sources([path])
        assert path.name in caught.value.message, name
        assert caught.value.hint or name in ("missing",), name
    with pytest.raises(MapError, match="no map given"):
        open_sources([])


@pytest.mark.parametrize("kind", ["tif", "jpg", "png"])
def test_truncated_files_are_refused_when_opened(tmp_path: Path, kind: str) -> None:
    image = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    if kind == "tif":
        path = write_tif(tmp_path / "map.tif", image, compress="deflate")
    else:
        path = tmp_path / f"a.{kind}"
        Image.fromarray(image).save(path)
        (tmp_path / "corners.csv").write_text(
            f"file,left_lon,top_lat,right_lon,bottom_lat\na.{kind},35.1,32.2,35.11,32.19\n"
        )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(MapError, match=r"corrupt|not an image"):
        open_sources([path if kind == "tif" else tmp_path])


def test_damage_inside_is_found_while_reading(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    path = write_tif(
        tmp_path / "map.tif", image, compress="deflate", tiled=True, blockxsize=128, blockysize=128
    )
    with rasterio.open(path) as dataset:
        place = int(dataset.get_tag_item("BLOCK_OFFSET_3_1", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[place : place + 40_000] = bytes(40_000)
    path.write_bytes(bytes(data))
    (source,) = open_sources([path])
    reader = source.open()
    with pytest.raises(MapError, match=r"map.tif: is corrupt"):
        reader.read(0, 0, 512, 512, fx=1, fy=1)


def test_large_files_are_hashed_by_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skylink.mapsource.FULL_HASH_BYTES", 1000)
    first = write_tif(tmp_path / "a.tif", texture(1200, 1200))
    second = write_tif(tmp_path / "b.tif", texture(1200, 1200, seed=1))
    a, b = open_sources([first, second])
    assert a.sha256.startswith("sha256-sampled:")
    assert a.sha256 != b.sha256
