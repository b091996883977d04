"""Photos that are hard to place, with their true places: what confidence is calibrated on.

Generated towns (seeds 100 to 199; training has others) are too easy as they come: the same things
under two lights. Here they are made to differ as much as map and flight do in reality: years of
change, other seasons and lights on both sides, coarse and shifted maps, low and oblique views, fog,
snow, blur and shadow, telemetry that is off and now and then wrong altogether. Right places then
score as low as real ones do (docs/estimate.md).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from skylink import Gallery
from skylink.conditions import apply
from skylink.town import Look, Shot, Town, render_photo, write_map
from skylink.town.inputs import HFOV_DEG
from skylink.types import CameraPose, Query, Telemetry

SEEDS = range(100, 200)
"""Seeds of towns that nothing is trained on."""

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

    def gallery(self, encoder: str) -> Gallery:
        """Of its map, built if it is not there: one for each encoder (its fingerprint)."""
        path = self.folder / f"gallery-{encoder}"
        if not (path / "gallery.json").is_file():
            return Gallery.build([self.folder / "map.tif"], path)
        return Gallery.open(path)

    def query(self, photo: HardPhoto) -> Query:
        """A photo, read."""
        image = cv2.imread(str(self.folder / f"{photo.name}.png"), cv2.IMREAD_COLOR_RGB)
        return Query(name=photo.name, image=image, telemetry=photo.telemetry)


def hard_town(folder: Path, *, seed: int, photos: int) -> HardTown:
    """A town's map and photos, made if they are not there; the same seed gives the same.

    Args:
        folder: of all towns.
        seed: in SEEDS.
        photos: how many.
    """
    if seed not in SEEDS:
        raise ValueError(f"seed {seed} is not one of calibration's ({SEEDS})")
    folder = folder / f"town-{seed}-{photos}"
    table = folder / "photos.json"
    if not table.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        table.write_text(json.dumps([asdict(p) for p in _make(folder, seed, photos)], indent=1))
    rows = json.loads(table.read_text())
    return HardTown(
        folder, [HardPhoto(**{**r, "telemetry": Telemetry(**r["telemetry"])}) for r in rows]
    )


def _make(folder: Path, seed: int, photos: int) -> list[HardPhoto]:
    rng = np.random.default_rng([31, seed])
    town = Town.generate(seed=seed, size_m=float(rng.uniform(700, 1100)))
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
    cv2.imwrite(str(folder / f"{name}.png"), query.image[:, :, ::-1])
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
