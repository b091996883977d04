"""What the camera wrote into its photo (EXIF and XMP), as `Telemetry`.

Conventions, so that nobody has to guess:

* Tilt comes from a gimbal's pitch (-90 looks straight down in DJI's and Parrot's tags, 0 does in
  Pix4D's `Camera:`). Up to `_BACKWARD_DEG` past the nadir counts as the nadir.
* Heading is where the top of the picture points: the gimbal's yaw, also when looking straight
  down. A gimbal that reports a roll of 180 degrees looks the same way with its yaw turned round.
* Relative altitude is what the drone measured from its take-off point (DJI `RelativeAltitude`) or
  above ground (`Camera:AboveGroundAltitude`). `GPSAltitude` is above sea level and never used.
* Field of view refers to the upright photo's width. It comes from the focal length in pixels
  (DJI `CalibratedFocalLength`), else from focal length and focal plane resolution, both times
  the digital zoom; else from the 35 mm equivalent, which the camera has already zoomed. CIPA
  defines that one on the diagonal (43.27 mm) of the sensor's frame; photos wider than 3:2 are
  taken as a 4:3 frame cut above and below, as drones do (at most 4 % off where it was 3:2).

A value that makes no sense is left out with a note: a photo is never lost to its metadata.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from skylink.errors import TelemetryError
from skylink.types import Telemetry

MAX_XMP_BYTES = 1_000_000

_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_GPS_ALTITUDE = 6
_ORIENTATION = 0x0112
_FOCAL_LENGTH, _FOCAL_35MM, _DIGITAL_ZOOM = 0x920A, 0xA405, 0xA404
_PLANE_X, _PLANE_UNIT = 0xA20E, 0xA210
_EXIF_WIDTH, _EXIF_HEIGHT = 0xA002, 0xA003
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_DIAGONAL_35MM = math.hypot(36.0, 24.0)
_WIDEST_NATIVE = 1.52
"""Long over short side; wider photos are cut from a taller sensor frame."""
_WIDEST_PHOTO = 2.4
"""Anything wider is stitched or cut, and says nothing about the lens."""

_BACKWARD_DEG = 5.0
_LEVEL_DEG = 10.0
"""A camera rolled by more than this is not one that `CameraPose` describes."""

_XMP = re.compile(
    rb"(?<![\w/-])(drone-dji|drone-parrot|Camera):"
    rb"(RelativeAltitude|AboveGroundAltitude|CalibratedFocalLength|FlightYawDegree"
    rb"|GimbalYawDegree|GimbalPitchDegree|GimbalRollDegree"
    rb"|CameraYawDegree|CameraPitchDegree|CameraRollDegree|Yaw|Pitch|Roll)"
    rb"""\s*(?:=\s*["']([^"'<>]{0,64})["']|>([^<]{0,64})</)"""
)
"""Both ways of XMP: `<x drone-dji:A="1">` and `<drone-dji:A>1</...>`. Reading by pattern, there is
no parser to be fed external entities, and files whose XML is not well formed still read."""
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")

_GIMBALS = (  # names of yaw, pitch and roll; the pitch that looks straight down; roll's axis
    ("drone-dji:Gimbal{}Degree", -90.0, "optical"),
    ("drone-parrot:Camera{}Degree", -90.0, "optical"),
    ("Camera:{}", 0.0, "picture"),
)


def read_telemetry(photo: str | Path | Image.Image) -> tuple[Telemetry, list[str]]:
    """What a photo's own metadata says of the camera.

    Args:
        photo: a file, or an image from `Image.open` that has not been reduced or turned.

    Returns:
        The telemetry, None where nothing usable was found, and notes for people on where values
        came from and which were left out.

    Raises:
        PhotoError: the file can't be opened as a photo (never because of its metadata).
    """
    if not isinstance(photo, Image.Image):
        from skylink.photo import open_photo  # photo.py imports this module

        with open_photo(photo) as image:
            return read_telemetry(image)
    notes: list[str] = []
    main, exif, gps = _tags(photo, notes)
    xmp = _read_xmp(photo.info.get("xmp"), notes)
    values: dict[str, float | None] = dict(zip(("lon", "lat"), _position(gps, notes), strict=True))
    values["relative_altitude_m"] = _first(
        xmp, "drone-dji:RelativeAltitude", "Camera:AboveGroundAltitude"
    )
    above_sea = _number(gps.get(_GPS_ALTITUDE))
    if values["relative_altitude_m"] is None and above_sea is not None:
        notes.append(f"GPS altitude ({above_sea:.0f} m) left out: it is above sea level")
    heading, tilt = _attitude(xmp, gps, notes)
    values["heading_deg"], values["camera_tilt_from_nadir_deg"] = heading, tilt
    upright = photo.size if _as_orientation(main) < 5 else photo.size[::-1]
    focal = _focal_px(photo.size, exif, xmp, notes)
    if focal is not None:
        values["horizontal_fov_deg"] = 2 * math.degrees(math.atan(upright[0] / 2 / focal))
    return _accepted(values, notes), notes


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 where there is none or it makes no sense."""
    return _as_orientation(_tags(image, [])[0])


def _as_orientation(main: Mapping[int, Any]) -> int:
    value = _number(main.get(_ORIENTATION))
    return int(value) if value in range(1, 9) and value is not None else 1


def _tags(
    image: Image.Image, notes: list[str]
) -> tuple[Mapping[int, Any], Mapping[int, Any], Mapping[int, Any]]:
    """The main, Exif and GPS tags; those that can't be read are empty."""
    found: list[Mapping[int, Any]] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for ifd in (None, _EXIF_IFD, _GPS_IFD):
            try:
                tags = image.getexif()
                found.append(dict(tags) if ifd is None else dict(tags.get_ifd(ifd)))
            # corrupt EXIF raises nearly anything (struct.error, SyntaxError, KeyError ...)
            except Exception as error:
                notes.append(f"EXIF could not be read ({error})")
                found.append({})
    return found[0], found[1], found[2]


def _read_xmp(packet: object, notes: list[str]) -> dict[str, float]:
    """Numbers of the tags that we know, by `prefix:Name`; the first of repeated ones."""
    if isinstance(packet, str):
        packet = packet.encode(errors="replace")
    if not isinstance(packet, bytes):
        return {}
    if len(packet) > MAX_XMP_BYTES:
        notes.append(f"XMP of {len(packet)} bytes was not read: more than {MAX_XMP_BYTES}")
        return {}
    found: dict[str, float] = {}
    seen: set[str] = set()
    for prefix, tag, attribute, element in _XMP.findall(packet):
        name = f"{prefix.decode()}:{tag.decode()}"
        if name in seen:
            continue
        seen.add(name)
        text = (attribute or element).strip()
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value):
            notes.append(f"{name} = {text.decode(errors='replace')!r} is not a number: left out")
        else:
            found[name] = value
    return found


def _first(values: Mapping[str, float], *names: str) -> float | None:
    return next((values[name] for name in names if name in values), None)


def _number(value: object) -> float | None:
    """A finite float of whatever an EXIF tag holds (0/0 rationals are NaN), or None."""
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) else None


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return value.strip(" \0").upper() if isinstance(value, str) else ""


def _position(gps: Mapping[int, Any], notes: list[str]) -> tuple[float | None, float | None]:
    """(lon, lat) in degrees, both or neither."""
    if not (2 in gps or 4 in gps):
        return None, None
    lat = _degrees(gps.get(2), _text(gps.get(1)), "N", "S", 90.0)
    lon = _degrees(gps.get(4), _text(gps.get(3)), "E", "W", 180.0)
    if _text(gps.get(9)) == "V":
        notes.append("GPS position left out: the receiver marked it as void")
    elif lat is None or lon is None:
        notes.append("GPS position left out: it is malformed")
    elif lat == 0 and lon == 0:
        notes.append("GPS position left out: 0, 0 is written where there was no fix")
    else:
        return lon, lat
    return None, None


def _degrees(value: object, ref: str, positive: str, negative: str, limit: float) -> float | None:
    """Degrees of (degrees, minutes, seconds) with its hemisphere."""
    parts = value if isinstance(value, (tuple, list)) else (value,)
    numbers = [_number(part) for part in parts]
    if not 1 <= len(numbers) <= 3 or ref not in (positive, negative):
        return None
    total = 0.0
    for number, scale in zip(numbers, (1.0, 60.0, 3600.0), strict=False):
        if number is None or number < 0 or (scale > 1 and number > 60):
            return None
        total += number / scale
    if total > limit:
        return None
    return total if ref == positive else -total


def _attitude(
    xmp: Mapping[str, float], gps: Mapping[int, Any], notes: list[str]
) -> tuple[float | None, float | None]:
    """(heading, tilt), degrees, each None where not known."""
    heading: float | None = None
    tilt: float | None = None
    for pattern, nadir, roll_axis in _GIMBALS:
        yaw, pitch, roll = (xmp.get(pattern.format(axis)) for axis in ("Yaw", "Pitch", "Roll"))
        if yaw is None and pitch is None:
            continue
        heading, tilt = yaw, None if pitch is None else pitch - nadir
        roll = 0.0 if roll is None else math.remainder(roll, 360)
        if roll_axis == "optical" and abs(roll) > 180 - _LEVEL_DEG:
            # the same attitude, said the other way round (DJI does this near the nadir)
            heading = None if heading is None else heading + 180
            tilt = None if tilt is None else -tilt
            roll = 180 - abs(roll)
            notes.append("the gimbal's roll of 180 degrees was taken as a yaw turned round")
        if abs(roll) > _LEVEL_DEG:
            notes.append(f"heading and tilt left out: the camera is rolled by {roll:g} degrees")
            return None, None
        break
    if tilt is not None and tilt < 0:
        if tilt >= -_BACKWARD_DEG:
            tilt = 0.0
        else:
            notes.append(f"tilt left out: the camera looks {-tilt:g} degrees backward")
            tilt = None
    if heading is None:
        heading = _image_direction(gps, notes)
    if heading is None and (flight := xmp.get("drone-dji:FlightYawDegree")) is not None:
        heading = flight
        notes.append("heading is the drone's (FlightYawDegree), not the camera's")
    return None if heading is None else heading % 360.0, tilt


def _image_direction(gps: Mapping[int, Any], notes: list[str]) -> float | None:
    direction = _number(gps.get(17))
    if direction is None or not 0 <= direction <= 360:
        return None
    if _text(gps.get(16)) == "M":
        notes.append("GPSImgDirection left out: it counts from magnetic north")
        return None
    return direction


def _focal_px(
    size: tuple[int, int], exif: Mapping[int, Any], xmp: Mapping[str, float], notes: list[str]
) -> float | None:
    """Focal length in pixels of the photo as it is stored, or None."""
    long, short = max(size), min(size)
    width, height = _number(exif.get(_EXIF_WIDTH)), _number(exif.get(_EXIF_HEIGHT))
    taken = (width, height) if width and height and min(width, height) >= 1 else size
    if abs(long / short * min(taken) / max(taken) - 1) > 0.02 or long / short > _WIDEST_PHOTO:
        notes.append("field of view left out: the photo was cut or stitched after it was taken")
        return None
    shrunk = long / max(taken)
    zoom = _number(exif.get(_DIGITAL_ZOOM))
    zoom = zoom if zoom is not None and 1 <= zoom <= 100 else 1.0
    fine: float | None = None
    source = ""
    focal, plane = _number(exif.get(_FOCAL_LENGTH)), _number(exif.get(_PLANE_X))
    unit_mm = _UNIT_MM.get(int(_number(exif.get(_PLANE_UNIT)) or 2))
    if (calibrated := xmp.get("drone-dji:CalibratedFocalLength")) is not None and calibrated > 0:
        fine, source = calibrated * zoom * shrunk, "the calibrated focal length"
    elif focal and plane and unit_mm and focal > 0 and plane > 0:
        fine, source = focal * plane / unit_mm * zoom * shrunk, "the focal plane's resolution"
    coarse: float | None = None
    focal_35mm = _number(exif.get(_FOCAL_35MM))
    if focal_35mm is not None and focal_35mm > 0:
        ratio = long / short if long / short <= _WIDEST_NATIVE else 4 / 3
        coarse = focal_35mm * long * math.hypot(1, 1 / ratio) / _DIAGONAL_35MM
    if fine is not None and coarse is not None and not 0.9 < fine / coarse < 1.1:
        notes.append(f"{source} contradicts the 35 mm equivalent, which was used")
        fine = None
    if fine is not None:
        notes.append(f"field of view from {source}")
        return fine
    if coarse is not None:
        notes.append(f"field of view from the 35 mm equivalent ({focal_35mm:g} mm)")
    return coarse


def _accepted(values: Mapping[str, float | None], notes: list[str]) -> Telemetry:
    """Telemetry of the values that it takes; the others become notes."""
    telemetry = Telemetry()
    for name, value in values.items():
        if value is None:
            continue
        try:
            telemetry = telemetry.updated(Telemetry(**{name: value}))
        except TelemetryError as error:
            notes.append(f"{error.message}: left out")
    return telemetry
