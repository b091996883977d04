"""Demo files: a map, photos of the same town later, and their telemetry with the truth."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from skylink.camera import focal_px
from skylink.errors import OptionError
from skylink.files import write_atomic
from skylink.town.grid import U8, Rng
from skylink.town.light import DRONE, Look
from skylink.town.render import render_photo, write_map
from skylink.town.world import Town
from skylink.types import CameraPose

HFOV_DEG = math.degrees(2 * math.atan(0.75))
"""The drone camera's field of view over the picture's width: 73.74 degrees."""

FOCAL_35MM = 23
"""The same as a 35 mm equivalent, to the millimetre: on the diagonal of a 4:3 frame, as CIPA
defines it, of which the photo is the middle."""

HEADING_SIGMA_DEG, TILT_SIGMA_DEG, ALTITUDE_SIGMA = 1.5, 0.7, 0.02
"""Errors of the written telemetry (the altitude's is a share of it). The truth has none."""

COLUMNS = (
    "file",
    "lat",
    "lon",
    "relative_altitude_m",
    "heading_deg",
    "camera_tilt_from_nadir_deg",
    "horizontal_fov_deg",
    "ground_lat",
    "ground_lon",
    "usable",
)


@dataclass(frozen=True)
class Shot:
    """One photo to take, and what its telemetry will say.

    Attributes:
        x_m, y_m: the point under the camera, metres in the town's frame.
        pose: the camera's true attitude.
        told: the attitude that telemetry tells.
    """

    x_m: float
    y_m: float
    pose: CameraPose
    told: CameraPose

    @property
    def view_m(self) -> tuple[float, float]:
        """The ground point at the picture's centre, metres in the town's frame."""
        east, north = self.pose.offset_m
        return self.x_m + east, self.y_m + north


@dataclass(frozen=True)
class TownInputs:
    """What `write_inputs` wrote.

    Attributes:
        folder: where everything is.
        map: the GeoTIFF.
        queries: the CSV, beside the photos.
        photos: the JPEG files, in the CSV's order.
    """

    folder: Path
    map: Path
    queries: Path
    photos: tuple[Path, ...]


def plan_shots(town: Town, *, seed: int, photos: int) -> list[Shot]:
    """A flight's photos: 80 to 150 m up, tilted 0 to 50 degrees, any heading, spread out.

    View points keep 120 m from the map's edge (less on a town under 400 m), cameras stay over
    the map.
    """
    rng = np.random.default_rng([23, seed])
    half = town.size_m / 2
    reach = half - min(120.0, 0.3 * town.size_m)
    views: list[np.ndarray] = []
    shots = []
    for k in range(photos):
        tries = rng.uniform(-reach, reach, (8, 2))
        gaps = [min((math.dist(p, q) for q in views), default=0.0) for p in tries]
        view = tries[int(np.argmax(gaps))]
        views.append(view)
        tilt = 0.0 if k % 4 == 0 else float(rng.uniform(8, 50))
        pose = _pose(rng, tilt)
        for _ in range(50):
            x, y = (float(v - o) for v, o in zip(view, pose.offset_m, strict=True))
            if max(abs(x), abs(y)) < half:
                break
            pose = _pose(rng, tilt)
        told = CameraPose(
            altitude_m=pose.altitude_m * (1 + ALTITUDE_SIGMA * float(rng.standard_normal())),
            heading_deg=(pose.heading_deg + HEADING_SIGMA_DEG * float(rng.standard_normal())) % 360,
            tilt_deg=abs(pose.tilt_deg + TILT_SIGMA_DEG * float(rng.standard_normal())),
            hfov_deg=pose.hfov_deg,
        )
        shots.append(Shot(x, y, pose, told))
    return shots


def _pose(rng: Rng, tilt_deg: float) -> CameraPose:
    return CameraPose(
        altitude_m=float(rng.uniform(80, 150)),
        heading_deg=float(rng.uniform(0, 360)),
        tilt_deg=tilt_deg,
        hfov_deg=HFOV_DEG,
    )


def write_inputs(
    folder: str | Path,
    *,
    seed: int = 7,
    photos: int = 12,
    size_m: float = 1200.0,
    cell_m: float = 0.5,
    look: Look = DRONE,
) -> TownInputs:
    """Write `map.tif`, `photos/*.jpg` and `photos/queries.csv` under a folder.

    The photos show the town after `Town.changed`, in another light and season. The CSV's camera
    and ground points are the truth; altitude, heading and tilt carry a telemetry's errors, in
    the CSV and in the photos' own EXIF and XMP alike.

    Args:
        folder: made if it is missing; files of the same names are replaced.
        seed: of the town and the flight.
        photos: how many, 0 to 999.
        size_m: side of the town, metres.
        cell_m: metres a cell of the town and a pixel of the map.
        look: the photos' light and season.

    Raises:
        OptionError: a number out of range.
        OutputError: the folder can't be written to.
    """
    if not 0 <= photos <= 999:
        raise OptionError(f"{photos} photos: expected 0 to 999")
    folder = Path(folder)
    town = Town.generate(seed=seed, size_m=size_m, cell_m=cell_m)
    map_path = write_map(town, folder / "map.tif", gsd_m=cell_m)
    later = town.changed(seed + 1)
    del town
    shots = plan_shots(later, seed=seed, photos=photos)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    paths = []
    for k, shot in enumerate(shots, start=1):
        name = f"town_{k:03d}.jpg"
        image = render_photo(later, x_m=shot.x_m, y_m=shot.y_m, pose=shot.pose, look=look)
        lon, lat = later.frame.point(x_m=shot.x_m, y_m=shot.y_m)
        view_x, view_y = shot.view_m
        view_lon, view_lat = later.frame.point(x_m=view_x, y_m=view_y)
        ground_m = later.ground_m(x_m=view_x, y_m=view_y)
        data = encode_photo(image, shot.told, lon=lon, lat=lat, ground_m=ground_m)
        paths.append(write_atomic(folder / "photos" / name, data))
        told = shot.told
        numbers = (told.altitude_m, told.heading_deg, told.tilt_deg, told.hfov_deg)
        rows.writerow(
            [
                name,
                *(f"{v:.8f}" for v in (lat, lon)),
                *(f"{v:.2f}" for v in numbers),
                *(f"{v:.8f}" for v in (view_lat, view_lon)),
                1,
            ]
        )
    queries = write_atomic(folder / "photos" / "queries.csv", table.getvalue())
    return TownInputs(folder, map_path, queries, tuple(paths))


def encode_photo(image: U8, told: CameraPose, *, lon: float, lat: float, ground_m: float) -> bytes:
    """A photo as JPEG bytes with the EXIF and XMP that a DJI drone writes.

    Args:
        image: (H, W, 3) uint8 RGB.
        told: the attitude that telemetry tells.
        lon, lat: the camera's position, WGS 84 degrees.
        ground_m: elevation of the ground in view, metres.
    """
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "SkyLink", "Town"
    exif[0x0112] = 1
    exif.get_ifd(0x8769).update(
        {
            0x9003: "2024:10:12 15:20:00",
            0xA002: image.shape[1],
            0xA003: image.shape[0],
            0xA405: FOCAL_35MM,
        }
    )
    exif.get_ifd(0x8825).update(
        {
            1: "N" if lat >= 0 else "S",
            2: _sexagesimal(lat),
            3: "E" if lon >= 0 else "W",
            4: _sexagesimal(lon),
            5: b"\x00",
            6: Fraction(round((ground_m + told.altitude_m) * 100), 100),
        }
    )
    focal = focal_px(hfov_deg=told.hfov_deg, width_px=image.shape[1])
    yaw = (told.heading_deg + 180) % 360 - 180
    xmp = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        '<rdf:Description rdf:about="" xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/"\n'
        f' drone-dji:AbsoluteAltitude="{ground_m + told.altitude_m:+.2f}"\n'
        f' drone-dji:RelativeAltitude="{told.altitude_m:+.2f}"\n'
        f' drone-dji:CalibratedFocalLength="{focal:.3f}"\n'
        ' drone-dji:GimbalRollDegree="+0.00"\n'
        f' drone-dji:GimbalYawDegree="{yaw:+.2f}"\n'
        f' drone-dji:GimbalPitchDegree="{told.tilt_deg - 90:+.2f}"/>\n'
        '</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
    )
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=90, exif=exif.tobytes(), xmp=xmp.encode())
    return out.getvalue()


def _sexagesimal(degrees: float) -> tuple[Fraction, Fraction, Fraction]:
    """Degrees, minutes, seconds for EXIF; the seconds to 1e-5 (a third of a millimetre)."""
    total = round(abs(degrees) * 3600 * 100_000)
    whole, rest = divmod(total, 3600 * 100_000)
    minutes, seconds = divmod(rest, 60 * 100_000)
    return Fraction(whole), Fraction(minutes), Fraction(seconds, 100_000)
