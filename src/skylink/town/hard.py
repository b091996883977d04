"""Photos that are hard to place, with their true places: what confidence is calibrated on and
what re-rankers are compared on.

Generated towns are too easy as they come: the same things under two lights. Here they are made to
differ as much as map and flight do in reality: years of change, other seasons and lights on both
sides, coarse and shifted maps, low and oblique views, fog, snow, blur and shadow, telemetry that is
off and now and then wrong altogether. Right places then score as low as real ones do
(docs/estimate.md).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from skylink.conditions import apply
from skylink.errors import OptionError
from skylink.files import write_atomic
from skylink.photo import load_photo
from skylink.town.inputs import COLUMNS, HFOV_DEG, Shot
from skylink.town.light import Look
from skylink.town.render import render_photo, write_map
from skylink.town.world import LAT, LON, Town
from skylink.types import CameraPose, Query, Telemetry

CALIBRATION = range(100, 200)
"""Seeds of towns that confidence is fitted on, and nothing is trained on."""

TRAINING, VALIDATION = range(200, 300), range(300, 400)
"""Seeds of towns that re-rankers learn from, and that choices between them are made by."""

APART_DEG = 0.05
"""Of longitude between towns of neighbouring seeds, so that many fit into one gallery."""

HARM = ("fog", "snow", "motion-blur", "defocus", "low-contrast", "long-shadow", "over-exposed",
        "dark", "colour-cast", "jpeg", "noise", "low-resolution", "occlusion", "rain")  # fmt: skip
"""Conditions that photos are drawn under, none to three of them at once."""

SEVERITIES = (1, 2, 3)

MAP_SHIFT_M = 12.0
"""Median error of a base map's georeference, as in skylink.estimate; drawn for each photo."""

WRONG_HEADING = 0.06
"""Share of photos whose heading is wrong altogether (8 % on real flights, docs/log.md)."""


@dataclass(frozen=True)
class HardPhoto:
    """A photo, and where its view point is on the map that shows it."""

    name: str
    telemetry: Telemetry
    lon: float
    lat: float


@dataclass(frozen=True)
class HardTown:
    """One place: a folder with its map and photos."""

    folder: Path
    photos: list[HardPhoto]

    @property
    def map(self) -> Path:
        """The GeoTIFF."""
        return self.folder / "map.tif"

    def query(self, photo: HardPhoto) -> Query:
        """A photo, read."""
        image = load_photo(self.path(photo)).image
        return Query(name=photo.name, image=image, telemetry=photo.telemetry)

    def path(self, photo: HardPhoto) -> Path:
        """Of a photo."""
        return self.folder / f"{photo.name}.png"


def hard_town(folder: Path, *, seed: int, photos: int) -> HardTown:
    """A town's map and photos, made if they are not there; the same seed gives the same.

    Args:
        folder: of all towns.
        seed: of CALIBRATION, TRAINING or VALIDATION, or any other.
        photos: how many, 0 to 999.

    Raises:
        OptionError: a number out of range.
        OutputError: the folder can't be written to.
    """
    if seed < 0 or not 0 <= photos <= 999:
        raise OptionError(f"seed {seed}, {photos} photos: expected 0 or more, and 0 to 999")
    folder = folder / f"town-{seed}-{photos}"
    table = folder / "photos.json"
    if not table.is_file():
        made = _make(folder, seed, photos)
        write_atomic(table, json.dumps([asdict(photo) for photo in made], indent=1))
    rows = json.loads(table.read_text(encoding="utf-8"))
    return HardTown(
        folder, [HardPhoto(**{**r, "telemetry": Telemetry(**r["telemetry"])}) for r in rows]
    )


def write_queries(path: Path, towns: Sequence[HardTown]) -> Path:
    """A queries.csv of all photos of towns; files are relative to its folder.

    Raises:
        OutputError: it can't be written.
        ValueError: a town is not below the CSV's folder.
    """
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    for town in towns:
        for photo in town.photos:
            told = photo.telemetry
            numbers = (
                told.relative_altitude_m, told.heading_deg, told.camera_tilt_from_nadir_deg,
                told.horizontal_fov_deg,
            )  # fmt: skip
            rows.writerow(
                [
                    town.path(photo).relative_to(path.parent).as_posix(),
                    *(f"{v:.8f}" for v in (told.lat, told.lon)),
                    *(f"{v:.2f}" for v in numbers),
                    *(f"{v:.8f}" for v in (photo.lat, photo.lon)),
                    1,
                ]
            )
    return write_atomic(path, table.getvalue())


def _make(folder: Path, seed: int, photos: int) -> list[HardPhoto]:
    rng = np.random.default_rng([31, seed])
    size_m = float(rng.uniform(700, 1100))
    town = Town.generate(seed=seed, size_m=size_m, lon=LON + APART_DEG * (seed % 1000), lat=LAT)
    map_look = _look(rng, haze=(0.0, 0.3), noise=(1.0, 4.0))
    write_map(town, folder / "map.tif", look=map_look, gsd_m=float(rng.uniform(0.5, 1)))
    for _ in range(int(rng.integers(1, 6))):
        town = town.changed(int(rng.integers(1 << 30)))
    flight = _look(rng, haze=(0.1, 1.2), noise=(2.0, 8.0))
    return [_photo(rng, town, flight, f"{seed}-{k:03d}", folder) for k in range(photos)]


def _look(
    rng: np.random.Generator, *, haze: tuple[float, float], noise: tuple[float, float]
) -> Look:
    seasons = ("spring", "summer", "autumn")
    return Look(
        sun_azimuth_deg=float(rng.uniform(90, 270)),
        sun_elevation_deg=float(rng.uniform(15, 65)),
        season=seasons[int(rng.integers(3))],  # type: ignore[arg-type]
        exposure=float(rng.uniform(0.7, 1.4)),
        skylight=float(rng.uniform(0.15, 0.6)),
        haze=float(rng.uniform(*haze)),
        colour_cast=tuple(float(c) for c in rng.uniform(0.85, 1.15, 3)),  # type: ignore[arg-type]
        saturation=float(rng.uniform(0.5, 1.4)),
        noise=float(rng.uniform(*noise)),
    )


def _photo(rng: np.random.Generator, town: Town, look: Look, name: str, folder: Path) -> HardPhoto:
    shot = _shot(rng, town)
    image = render_photo(town, x_m=shot.x_m, y_m=shot.y_m, pose=shot.pose, look=look)
    told = shot.told
    lon, lat = town.frame.point(x_m=shot.x_m, y_m=shot.y_m)
    telemetry = Telemetry(
        lon=lon,
        lat=lat,
        relative_altitude_m=told.altitude_m,
        heading_deg=told.heading_deg,
        camera_tilt_from_nadir_deg=told.tilt_deg,
        horizontal_fov_deg=told.hfov_deg,
    )
    query = Query(name=name, image=image, telemetry=telemetry)
    for harm in rng.choice(HARM, int(rng.integers(0, 4)), replace=False):
        query = apply(query, str(harm), int(rng.choice(SEVERITIES)))
    _, data = cv2.imencode(".png", query.image[:, :, ::-1])
    write_atomic(folder / f"{name}.png", data.tobytes())
    x, y = np.array(shot.view_m) + rng.normal(0, MAP_SHIFT_M / np.sqrt(2 * np.log(2)), 2)
    lon, lat = town.frame.point(x_m=float(x), y_m=float(y))
    return HardPhoto(name, telemetry, lon, lat)


def _shot(rng: np.random.Generator, town: Town) -> Shot:
    """Anywhere over the town, 45 to 180 m up, up to 55 degrees from straight down."""
    half = town.size_m / 2
    pose = told = CameraPose(altitude_m=100, heading_deg=0, tilt_deg=0, hfov_deg=HFOV_DEG)
    x = y = np.inf
    while max(abs(x), abs(y)) > half:  # the camera stays over the map
        view = rng.uniform(-half + 60, half - 60, 2)
        pose = CameraPose(
            altitude_m=float(np.exp(rng.uniform(np.log(45), np.log(180)))),
            heading_deg=float(rng.uniform(0, 360)),
            tilt_deg=0.0 if rng.random() < 0.3 else float(rng.uniform(5, 55)),
            hfov_deg=HFOV_DEG,
        )
        x, y = view - pose.offset_m
    lost = rng.random() < WRONG_HEADING
    heading = rng.uniform(20, 340) if lost else rng.normal(0, 4)
    told = CameraPose(
        altitude_m=pose.altitude_m * float(np.exp(rng.normal(0, 0.1))),
        heading_deg=float((pose.heading_deg + heading) % 360),
        tilt_deg=float(np.clip(pose.tilt_deg + rng.normal(0, 1.5), 0, 60)),
        hfov_deg=HFOV_DEG,
    )
    return Shot(float(x), float(y), pose, told)
