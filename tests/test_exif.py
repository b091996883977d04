"""What EXIF and XMP say of the camera: synthetic files always, real cameras where they are."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from skylink.exif import MAX_XMP_BYTES, orientation, read_telemetry
from skylink.types import Telemetry

REAL = Path(__file__).parents[2] / "shared" / "data" / "exif"
needs_real = pytest.mark.skipif(
    not REAL.is_dir(),
    reason=f"needs real camera files in {REAL}, which are not part of the repository",
)

DJI = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description rdf:about="DJI Meta Data" '
    'drone-dji:AbsoluteAltitude="+198.31" {attributes}></rdf:Description></rdf:RDF></x:xmpmeta>'
)


def dji(**tags: object) -> str:
    return DJI.format(attributes=" ".join(f'drone-dji:{k}="{v}"' for k, v in tags.items()))


def photo(
    *,
    size: tuple[int, int] = (400, 300),
    main: dict[int, object] | None = None,
    exif: dict[int, object] | None = None,
    gps: dict[int, object] | None = None,
    xmp: str | bytes | None = None,
    format: str = "JPEG",
) -> Image.Image:
    """A small picture with these tags, written and opened again."""
    tags = Image.Exif()
    tags.update(main or {})
    if exif:
        tags.get_ifd(0x8769).update(exif)
    if gps:
        tags.get_ifd(0x8825).update(gps)
    buffer = io.BytesIO()
    packet = xmp.encode() if isinstance(xmp, str) else xmp
    options: dict[str, object] = {}
    if packet is not None and format == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet.decode())
    elif packet is not None and format == "TIFF":
        tags[700] = packet
    elif packet is not None:
        options["xmp"] = packet
    Image.new("RGB", size, (90, 120, 80)).save(buffer, format, exif=tags.tobytes(), **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def telemetry(**parts: object) -> Telemetry:
    return read_telemetry(photo(**parts))[0]  # type: ignore[arg-type]


def notes(**parts: object) -> str:
    return "; ".join(read_telemetry(photo(**parts))[1])  # type: ignore[arg-type]


GPS = {1: "N", 2: (46.0, 50.0, 33.0), 3: "W", 4: (91.0, 59.0, 40.0), 6: 198.3}


def test_nothing_known() -> None:
    assert read_telemetry(photo()) == (Telemetry(), [])
    assert read_telemetry(Image.new("RGB", (64, 64))) == (Telemetry(), [])


@pytest.mark.parametrize(("ns", "sign_lat"), [("N", 1), ("S", -1), ("s\0", -1)])
@pytest.mark.parametrize(("ew", "sign_lon"), [("E", 1), ("W", -1)])
def test_gps_hemispheres(ns: str, sign_lat: int, ew: str, sign_lon: int) -> None:
    found = telemetry(gps={**GPS, 1: ns, 3: ew})
    assert found.lat == pytest.approx(sign_lat * (46 + 50 / 60 + 33 / 3600))
    assert found.lon == pytest.approx(sign_lon * (91 + 59 / 60 + 40 / 3600))


def test_gps_altitude_is_above_sea_and_not_used() -> None:
    assert telemetry(gps=GPS).relative_altitude_m is None
    assert telemetry(xmp=dji()).relative_altitude_m is None  # AbsoluteAltitude
    assert "GPS altitude (198 m) left out: it is above sea level" in notes(gps=GPS)
    both = {"gps": GPS, "xmp": dji(RelativeAltitude="+39.80")}
    assert telemetry(**both).relative_altitude_m == 39.8
    assert "GPS altitude" not in notes(**both)
    assert "GPS altitude" not in notes(gps={**GPS, 6: IFDRational(0, 0)})


@pytest.mark.parametrize(
    "broken",
    [
        {2: (IFDRational(0, 0), 0.0, 0.0)},
        {2: (46.0, IFDRational(1, 0), 0.0)},
        {2: (460.0, 0.0, 0.0)},
        {2: (46.0, 75.0, 0.0)},
        {4: (180.0, 30.0, 0.0)},
        {1: "Q"},
        {3: ""},
    ],
)
def test_malformed_gps_is_left_out(broken: dict[int, object]) -> None:
    found, said = read_telemetry(photo(gps={**GPS, **broken}))
    assert (found.lon, found.lat) == (None, None)
    assert "malformed" in "; ".join(said)


def test_gps_without_a_fix_is_left_out() -> None:
    zero = {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}
    assert telemetry(gps=zero).lat is None
    assert "no fix" in notes(gps=zero)
    assert telemetry(gps={**GPS, 9: "V"}).lat is None
    assert telemetry(gps={**GPS, 9: "A"}).lat is not None
    assert telemetry(gps={k: v for k, v in GPS.items() if k != 4}).lat is None


def width_deg(mm: float, focal: float) -> float:
    return math.degrees(2 * math.atan(mm / 2 / focal))


@pytest.mark.parametrize(
    ("size", "width_mm"),
    [
        ((400, 300), 43.267 * 4 / 5),  # CIPA: on the diagonal
        ((600, 400), 36.0),
        ((640, 360), 43.267 * 4 / 5),  # 16:9, cut from 4:3 at full width
        ((300, 400), 43.267 * 3 / 5),  # stored upright
    ],
)
def test_fov_from_the_35mm_equivalent(size: tuple[int, int], width_mm: float) -> None:
    found = telemetry(size=size, exif={0xA405: 24})
    assert found.horizontal_fov_deg == pytest.approx(width_deg(width_mm, 24), abs=0.01)


PLANE = {0x920A: 4.5, 0xA20E: 16400.0, 0xA20F: 16400.0, 0xA210: 2, 0xA002: 4000, 0xA003: 3000}


def test_fov_from_the_focal_plane() -> None:
    mm = 4000 / 16400 * 25.4
    assert telemetry(exif=PLANE).horizontal_fov_deg == pytest.approx(width_deg(mm, 4.5))
    cm = {**PLANE, 0xA210: 3, 0xA20E: 16400 / 2.54}
    assert telemetry(exif=cm).horizontal_fov_deg == pytest.approx(width_deg(mm, 4.5))
    zoomed = {**PLANE, 0xA404: 2.0}
    assert telemetry(exif=zoomed).horizontal_fov_deg == pytest.approx(width_deg(mm, 9.0))


@pytest.mark.parametrize("zoom", [IFDRational(0, 0), 0.0, 1.0])
def test_a_digital_zoom_that_says_nothing(zoom: object) -> None:
    assert telemetry(exif={**PLANE, 0xA404: zoom}) == telemetry(exif=PLANE)


def test_fov_of_a_reduced_photo_is_the_same_and_of_a_cut_one_unknown() -> None:
    assert telemetry(size=(200, 150), exif=PLANE) == telemetry(exif=PLANE)
    assert telemetry(size=(400, 200), exif=PLANE).horizontal_fov_deg is None
    assert "cut" in notes(size=(400, 200), exif=PLANE)
    assert telemetry(size=(900, 300), exif={0xA405: 24}).horizontal_fov_deg is None  # stitched


@pytest.mark.parametrize(
    "exif",
    [
        {0xA405: 0},
        {**PLANE, 0x920A: 0.0},
        {**PLANE, 0x920A: IFDRational(0, 0)},
        {**PLANE, 0xA20E: 0.0},
        {**PLANE, 0xA210: 9},
        {0x920A: 4.5},
    ],
)
def test_no_fov_from_useless_tags(exif: dict[int, object]) -> None:
    assert telemetry(exif=exif).horizontal_fov_deg is None


def test_sources_of_fov_that_contradict_each_other() -> None:
    agreeing = {**PLANE, 0xA405: 25}
    assert telemetry(exif=agreeing) == telemetry(exif=PLANE)
    contradicting = {**PLANE, 0xA20E: 180.0, 0xA405: 25}
    assert telemetry(exif=contradicting) == telemetry(exif={0xA405: 25})
    assert "contradicts" in notes(exif=contradicting)


def test_fov_from_the_calibrated_focal_length() -> None:
    exif = {0xA002: 4000, 0xA003: 3000, 0xA405: 24}
    found = telemetry(exif=exif, xmp=dji(CalibratedFocalLength="2800.0"))
    assert found.horizontal_fov_deg == pytest.approx(width_deg(4000, 2800))


@pytest.mark.parametrize("turned", [5, 6, 7, 8])
def test_fov_refers_to_the_upright_width(turned: int) -> None:
    found = telemetry(main={0x0112: turned}, exif=PLANE)
    mm = 3000 / 16400 * 25.4
    assert found.horizontal_fov_deg == pytest.approx(width_deg(mm, 4.5))
    assert telemetry(main={0x0112: 3}, exif=PLANE) == telemetry(exif=PLANE)


@pytest.mark.parametrize(("value", "expected"), [(1, 1), (6, 6), (0, 1), (9, 1), (600, 1)])
def test_orientation(value: int, expected: int) -> None:
    assert orientation(photo(main={0x0112: value})) == expected
    assert orientation(photo()) == 1


NADIR = {"RelativeAltitude": "+39.80", "GimbalYawDegree": "-45.0", "GimbalPitchDegree": "-90.0"}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_dji_attributes_in_every_format(format: str) -> None:
    found = telemetry(xmp=dji(**NADIR), exif={0xA405: 24}, gps=GPS, format=format)
    assert found.relative_altitude_m == 39.8
    assert found.heading_deg == 315.0
    assert found.camera_tilt_from_nadir_deg == 0.0
    assert found.is_pose
    assert found.lat is not None


def test_dji_elements() -> None:
    xmp = "<rdf:Description>" + "".join(
        f"\n <drone-dji:{k}>{v}</drone-dji:{k}>" for k, v in NADIR.items()
    )
    assert telemetry(xmp=xmp + "\n</rdf:Description>") == telemetry(xmp=dji(**NADIR))


@pytest.mark.parametrize(
    ("pitch", "tilt"),
    [(-90, 0), (-89.9, 0.1), (-90.1, 0), (-94, 0), (-45, 45), (-12, 78), (-6, None), (20, None)],
)
def test_tilt_of_gimbal_pitch(pitch: float, tilt: float | None) -> None:
    found = telemetry(xmp=dji(GimbalPitchDegree=pitch, GimbalYawDegree=10))
    assert found.camera_tilt_from_nadir_deg == (None if tilt is None else pytest.approx(tilt))
    assert found.heading_deg == 10


def test_a_camera_looking_backward_or_rolled_has_no_tilt() -> None:
    assert telemetry(xmp=dji(GimbalPitchDegree=-110)).camera_tilt_from_nadir_deg is None
    assert "backward" in notes(xmp=dji(GimbalPitchDegree=-110))
    rolled = dji(GimbalPitchDegree=-60, GimbalYawDegree=5, GimbalRollDegree=-40)
    assert telemetry(xmp=rolled) == Telemetry()
    assert "rolled" in notes(xmp=rolled)


@pytest.mark.parametrize("roll", ["+180.00", "-179.5"])
def test_gimbal_roll_of_180_is_a_yaw_turned_round(roll: str) -> None:
    found = telemetry(xmp=dji(GimbalPitchDegree=-90, GimbalYawDegree=20, GimbalRollDegree=roll))
    assert (found.heading_deg, found.camera_tilt_from_nadir_deg) == (200.0, 0.0)


def test_heading_falls_back_in_order() -> None:
    flight = dji(FlightYawDegree="+30.0", GimbalPitchDegree=-90)
    assert telemetry(xmp=flight).heading_deg == 30
    assert "FlightYawDegree" in notes(xmp=flight)
    assert telemetry(xmp=flight, gps={16: "T", 17: 70.0}).heading_deg == 70
    assert telemetry(xmp=flight, gps={16: "M", 17: 70.0}).heading_deg == 30
    assert telemetry(gps={16: "M", 17: 70.0}).heading_deg is None
    gimbal = dji(FlightYawDegree="+30.0", GimbalYawDegree="+10.0")
    assert telemetry(xmp=gimbal, gps={16: "T", 17: 70.0}).heading_deg == 10


def test_other_vendors() -> None:
    pix4d = '<x Camera:Yaw="12.5" Camera:Pitch="30" Camera:AboveGroundAltitude="55"/>'
    assert telemetry(xmp=pix4d) == Telemetry(
        heading_deg=12.5, camera_tilt_from_nadir_deg=30, relative_altitude_m=55
    )
    parrot = '<x drone-parrot:CameraYawDegree="12" drone-parrot:CameraPitchDegree="-60"/>'
    assert telemetry(xmp=parrot) == Telemetry(heading_deg=12, camera_tilt_from_nadir_deg=30)
    assert telemetry(xmp='<x GCamera:Yaw="1" xCamera:Pitch="2"/>') == Telemetry()


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "high", "", "1_0", "+-3"])
def test_numbers_that_are_none(text: str) -> None:
    found, said = read_telemetry(photo(xmp=dji(RelativeAltitude=text)))
    assert found == Telemetry()
    assert "not a number" in "; ".join(said)


def test_refused_values_become_notes() -> None:
    found, said = read_telemetry(photo(xmp=dji(RelativeAltitude="-12.0", GimbalYawDegree="7")))
    assert found == Telemetry(heading_deg=7)
    assert any("relative_altitude_m" in note and "left out" in note for note in said)


def test_xmp_is_not_parsed_as_xml(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("39.8")
    entity = (
        f'<!DOCTYPE x [<!ENTITY a SYSTEM "file://{secret}">]>'
        "<drone-dji:RelativeAltitude>&a;</drone-dji:RelativeAltitude>"
    )
    assert telemetry(xmp=entity).relative_altitude_m is None
    broken = b"\xff<<<" + dji(RelativeAltitude="5").encode()[:-30]
    assert telemetry(xmp=broken).relative_altitude_m == 5


def test_xmp_beyond_its_bound_is_not_read() -> None:
    large = dji(RelativeAltitude="5") + " " * MAX_XMP_BYTES
    assert telemetry(xmp=large, format="PNG") == Telemetry()
    assert "more than" in notes(xmp=large, format="PNG")


def test_hostile_xmp_reads_in_linear_time() -> None:
    for piece in ("drone-dji:RelativeAltitude ", "Camera:Yaw", 'Camera:Yaw="', "Camera:Yaw>1<"):
        read_telemetry(photo(xmp=piece * (900_000 // len(piece)), format="PNG"))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("keep", range(4, 80, 5))
def test_corrupt_exif_costs_only_itself(keep: int) -> None:
    image = photo(gps=GPS, exif=PLANE)
    whole = image.info["exif"]
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300)).save(buffer, "JPEG", exif=whole[:keep] + b"\xff" * 20)
    found, _ = read_telemetry(Image.open(io.BytesIO(buffer.getvalue())))
    assert isinstance(found, Telemetry)


@pytest.mark.real
@needs_real
def test_real_dji_photo() -> None:
    found, said = read_telemetry(REAL / "beach_DJI_0018.JPG")
    assert found.lat == pytest.approx(46.84260708)
    assert found.lon == pytest.approx(-91.99455989)
    assert found.relative_altitude_m == 39.8
    assert found.heading_deg == 45.0
    assert found.camera_tilt_from_nadir_deg == pytest.approx(0.1)
    # FC300S: 94 degrees on the diagonal of the 4:3 frame by its data sheet; the photo is 16:9
    assert found.horizontal_fov_deg == pytest.approx(width_deg(0.8, 0.5 / math.tan(0.8203)), abs=1)
    assert any("35 mm" in note for note in said)


@pytest.mark.real
@needs_real
@pytest.mark.parametrize(
    ("name", "fov"), [("caliterra_IMG_9354.jpg", 69.1), ("lewis_img_4074.jpg", 71.2)]
)
def test_real_canon_photos(name: str, fov: float) -> None:
    found, _ = read_telemetry(REAL / name)
    assert found.horizontal_fov_deg == pytest.approx(fov, abs=0.1)
    assert found.lon is not None
    assert found.lon < 0
    assert found.relative_altitude_m is None  # only GPSAltitude, which is above the sea
    assert found.heading_deg is None
