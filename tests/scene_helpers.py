"""Queries whose truth is known: cut out of a map's pixels, or taken of another town."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from map_helpers import FakeEncoder, pixel_transform, texture, write_tif
from skylink.encoder import Encoder
from skylink.gallery import Gallery
from skylink.geo import LocalFrame, distance_m
from skylink.retriever import make_retriever
from skylink.retrievers.dense import DenseRetriever
from skylink.retrievers.descriptor import DescriptorRetriever
from skylink.town import DRONE, Town, plan_shots, render_photo
from skylink.types import CameraPose, Candidate, Query, Telemetry

HFOV_DEG = 60.0


@dataclass(frozen=True)
class Scene:
    """A map of smooth colours, 1 m a pixel, and where its pixels lie."""

    path: Path
    image: NDArray[np.uint8]
    frame: LocalFrame

    def point(self, *, col: float, row: float) -> tuple[float, float]:
        """(lon, lat) of a pixel position, counted from the first pixel's outer corner."""
        half = self.image.shape[0] / 2
        return self.frame.point(x_m=col - half, y_m=half - row)

    def photo(
        self, *, col: float, row: float, width_m: int = 160, heading_deg: float = 0.0
    ) -> Query:
        """What a drone straight above a pixel position sees, with complete telemetry."""
        height = width_m * 3 // 4
        spin = cv2.getRotationMatrix2D((col - 0.5, row - 0.5), heading_deg, 1.0)
        spin[:, 2] += np.array([width_m / 2 - col, height / 2 - row])
        image = cv2.warpAffine(self.image, spin, (width_m, height), flags=cv2.INTER_LINEAR)
        altitude = width_m / 2 / math.tan(math.radians(HFOV_DEG / 2))
        telemetry = Telemetry(
            relative_altitude_m=altitude, heading_deg=heading_deg,
            camera_tilt_from_nadir_deg=0.0, horizontal_fov_deg=HFOV_DEG,
        )  # fmt: skip
        return Query(name=f"at {col},{row}", image=np.asarray(image, np.uint8), telemetry=telemetry)


def scene(
    folder: Path, *, lon: float = 35.2, lat: float = 32.1, seed: int = 0, size: int = 480,
    crs: str = "EPSG:3857",
) -> Scene:  # fmt: skip
    """Write a scene's map."""
    folder.mkdir(parents=True, exist_ok=True)
    small = texture(size // 3, size // 3, seed)  # colours change over 36 m, cells are 16 m
    image = np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    transform = pixel_transform(crs, lon=lon, lat=lat, size=size, gsd_m=1.0)
    path = write_tif(folder / f"map{seed}.tif", image, crs=crs, transform=transform)
    return Scene(path=path, image=image, frame=LocalFrame(lon, lat))


def scene_encoder() -> FakeEncoder:
    """Views of 96 px: kernels of 6 x 6 cells."""
    return FakeEncoder(input_px=96)


def scene_gallery(
    scenes: list[Scene], out: Path, *, tile_m: tuple[float, ...] = (96.0,)
) -> Gallery:
    """All scenes in one gallery."""
    maps = [s.path for s in scenes]
    return Gallery.build(maps, out, tile_m=tile_m, stride_m=24.0, encoder=scene_encoder())


def dense(gallery: Gallery, encoder: Encoder, **space: float) -> DenseRetriever:
    """The dense retriever of a gallery."""
    from skylink.hypotheses import SearchSpace

    made = make_retriever("dense", gallery, encoder, SearchSpace(**space))
    assert isinstance(made, DenseRetriever)
    return made


def descriptor(gallery: Gallery, encoder: Encoder) -> DescriptorRetriever:
    """The descriptor retriever of a gallery."""
    made = make_retriever("descriptor", gallery, encoder)
    assert isinstance(made, DescriptorRetriever)
    return made


def error_m(candidate: Candidate, truth: tuple[float, float]) -> float:
    """Metres from a candidate to (lon, lat)."""
    return float(distance_m(lon1=candidate.lon, lat1=candidate.lat, lon2=truth[0], lat2=truth[1]))


@lru_cache
def _frame(lon: float, lat: float) -> LocalFrame:
    return LocalFrame(lon, lat)  # its transformer takes milliseconds to make


def candidate(
    *, east_m: float = 0.0, north_m: float = 0.0, score: float = 0.5, name: str = "pose-0",
    lon: float = 35.2, lat: float = 32.1, pose: CameraPose | None = None,
) -> Candidate:  # fmt: skip
    """A candidate some metres from a point."""
    lon, lat = _frame(lon, lat).point(x_m=east_m, y_m=north_m)
    return Candidate(
        lon=lon, lat=lat, score=score, id=name, area=0, level=0, x_m=east_m, y_m=north_m, pose=pose
    )


def photos_of_town(*, seed: int, photos: int, size_m: float) -> list[Query]:
    """A town's photos with their telemetry, without a map."""
    later = Town.generate(seed=seed, size_m=size_m, cell_m=1.0).changed(seed + 1)
    queries = []
    for shot in plan_shots(later, seed=seed, photos=photos):
        image = render_photo(later, x_m=shot.x_m, y_m=shot.y_m, pose=shot.pose, look=DRONE)
        telemetry = Telemetry(
            relative_altitude_m=shot.told.altitude_m, heading_deg=shot.told.heading_deg,
            camera_tilt_from_nadir_deg=shot.told.tilt_deg, horizontal_fov_deg=shot.told.hfov_deg,
        )  # fmt: skip
        queries.append(Query(name=f"elsewhere {len(queries)}", image=image, telemetry=telemetry))
    return queries
