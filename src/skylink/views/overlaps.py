"""Real drone photos that overlap: pairs of one folder, each with a verified homography.

Nearly flat ground seen from far makes two photos related by one homography. It is estimated from
RootSIFT matches (Arandjelovic and Zisserman, CVPR 2012) by MAGSAC (arXiv 1912.05909) and trusted
only with many matches over a good part of the overlap.

Which photos are compared: the nearest ones by GPS (EXIF, or a CSV beside the folder); where that is
not known, those that follow each other by name, and some beyond, since flight lines come back.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.errors import QueriesError
from skylink.exif import read_telemetry
from skylink.files import write_atomic
from skylink.photo import load_photo

LONG_SIDE_PX = 640
"""Photos are reduced to this before matching; homographies refer to it."""

MIN_MATCHES = 30
MIN_SHARE = 0.25
"""Of the second photo that has to lie within the first."""

NEIGHBOURS = 16
"""Photos that each is compared with, on either side or around it."""

FEATURES = 1500
RATIO = 0.8
REPROJECTION_PX = 4.0
COLUMNS = ("first", "second", *(f"h{i}" for i in range(9)), "share")
MAX_ROWS = 1_000_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlap:
    """Two photos of the same ground.

    Attributes:
        first, second: paths.
        homography: (3, 3) from the second's pixels (at LONG_SIDE_PX) to the first's.
        share: of the second photo's area within the first, 0..1.
    """

    first: Path
    second: Path
    homography: NDArray[np.float64]
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """(N, 2) places, (N, 128) RootSIFT, and the photo's height and width; few or none: None."""

    points: NDArray[np.float64]
    vectors: NDArray[np.float32] | None
    shape: tuple[int, int]


def reduced(path: Path) -> NDArray[np.uint8]:
    """A photo with its long side at LONG_SIDE_PX, (H, W, 3) uint8 RGB. Raises PhotoError."""
    image = load_photo(path).image
    scale = LONG_SIDE_PX / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def find_overlaps(
    site: Path, *, neighbours: int = NEIGHBOURS, progress: Progress = lambda *_: None
) -> list[Overlap]:
    """Verified overlaps within a folder of photos, in the order of their names.

    Args:
        site: the folder.
        neighbours: see `pairs_by_name` and `pairs_by_place`.
        progress: called with (photos done, photos).

    Raises:
        QueriesError: the folder can't be read.
        PhotoError: a photo can't be read.
    """
    try:
        files = sorted(p for p in site.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    except OSError as error:
        raise QueriesError(f"{site} can't be read: {error.strerror}") from error
    places = _places(site, files)
    pairs = pairs_by_place(places, neighbours) | pairs_by_name(
        [i for i, place in enumerate(places) if place is None], neighbours
    )
    sift, matcher = cv2.SIFT.create(nfeatures=FEATURES), cv2.BFMatcher(cv2.NORM_L2)
    features = []
    for number, path in enumerate(files):
        features.append(_described(sift, path))
        progress(number + 1, len(files))
    found = []
    for i, j in sorted(pairs):
        related = _related(features[i], features[j], matcher)
        if related is not None:
            found.append(
                Overlap(first=files[i], second=files[j], homography=related[0], share=related[1])
            )
    return found


def pairs_by_place(
    places: Sequence[tuple[float, float] | None], neighbours: int
) -> set[tuple[int, int]]:
    """Each photo with its nearest ones, i < j.

    Args:
        places: of each photo, metres in any frame; None: not known, in no pair.
        neighbours: how many of the nearest.
    """
    known = [i for i, place in enumerate(places) if place is not None]
    xy = np.array([place for place in places if place is not None]).reshape(-1, 2)
    pairs = set()
    for row, i in enumerate(known):
        away = np.hypot(*(xy - xy[row]).T)
        nearest = np.argsort(away, kind="stable")
        near = [known[int(n)] for n in nearest if n != row][:neighbours]
        pairs |= {(min(i, j), max(i, j)) for j in near}
    return pairs


def pairs_by_name(photos: Sequence[int], neighbours: int) -> set[tuple[int, int]]:
    """Each photo with those that follow it, and with every third up to four times as far."""
    steps = [*range(1, neighbours + 1), *range(neighbours + 3, 4 * neighbours + 1, 3)]
    return {
        (photos[a], photos[a + step])
        for a in range(len(photos))
        for step in steps
        if a + step < len(photos)
    }


def write_overlaps(path: Path, overlaps: Sequence[Overlap], root: Path) -> None:
    """A CSV of overlaps, with paths relative to `root`.

    Raises:
        OutputError: it can't be written.
        QueriesError: a photo lies outside `root`, or has a comma or quote in its name.
    """
    lines = [",".join(COLUMNS)]
    for each in overlaps:
        names = [_relative(p, root) for p in (each.first, each.second)]
        numbers = [repr(float(v)) for v in each.homography.ravel()]
        lines.append(",".join([*names, *numbers, f"{each.share:.4f}"]))
    write_atomic(path, "\n".join(lines) + "\n")


def read_overlaps(path: Path, root: Path) -> list[Overlap]:
    """What `write_overlaps` wrote; paths are joined to `root`, and never leave it.

    Raises:
        QueriesError: it can't be read, or a row can't be used.
    """
    hint = f"remove {path.name}: overlaps are then found anew"
    found = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise QueriesError(f"{path}: the columns are not {', '.join(COLUMNS)}", hint=hint)
            for number, row in enumerate(reader, 2):
                if number > MAX_ROWS:
                    raise QueriesError(f"{path} has more than {MAX_ROWS} rows", hint=hint)
                found.append(_from_row(row, root, f"{path}, line {number}", hint))
    except (OSError, ValueError, csv.Error) as error:
        raise QueriesError(f"{path} can't be read: {error}", hint=hint) from error
    return found


def _from_row(row: dict[str, str], root: Path, where: str, hint: str) -> Overlap:
    try:
        homography = np.array([float(row[f"h{i}"]) for i in range(9)]).reshape(3, 3)
        share = float(row["share"])
        names = [PurePosixPath(row[key]) for key in ("first", "second")]
    except (TypeError, ValueError) as error:
        raise QueriesError(f"{where}: {error}", hint=hint) from error
    if any(name.is_absolute() or ".." in name.parts or not name.parts for name in names):
        raise QueriesError(f"{where}: a photo is not within the folder", hint=hint)
    area = abs(float(np.linalg.det(homography))) if np.isfinite(homography).all() else 0.0
    if not (1e-6 < area < 1e6 and 0 <= share <= 1):
        raise QueriesError(f"{where}: the homography or the share can't be used", hint=hint)
    return Overlap(
        first=root / names[0], second=root / names[1], homography=homography, share=share
    )


def _relative(path: Path, root: Path) -> str:
    try:
        name = path.relative_to(root).as_posix()
    except ValueError as error:
        raise QueriesError(f"{path} is not within {root}") from error
    if any(c in name for c in ',"\r\n'):
        raise QueriesError(f"{name!r}: the name has a comma, a quote or a line break")
    return name


def _places(site: Path, files: Sequence[Path]) -> list[tuple[float, float] | None]:
    """Metres east and north of the first known photo: of EXIF, else of `SITE.csv` beside."""
    listed: dict[str, tuple[float, float]] = {}
    beside = site.with_suffix(".csv")
    if beside.is_file():
        with beside.open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                try:
                    place = (float(row["lon"]), float(row["lat"]))
                except (KeyError, TypeError, ValueError):
                    continue  # not known
                if all(map(math.isfinite, place)):
                    listed[PurePosixPath(row.get("file") or "").name] = place
    degrees: list[tuple[float, float] | None] = []
    for path in files:
        told, _ = read_telemetry(path)
        if told.lon is not None and told.lat is not None:
            degrees.append((told.lon, told.lat))
        else:
            degrees.append(listed.get(path.name))
    origin = next((place for place in degrees if place is not None), (0.0, 0.0))
    east = 111_320 * math.cos(math.radians(origin[1]))
    return [
        None if d is None else ((d[0] - origin[0]) * east, (d[1] - origin[1]) * 111_320)
        for d in degrees
    ]


def _described(sift: cv2.SIFT, path: Path) -> _Features:
    grey = cv2.cvtColor(reduced(path), cv2.COLOR_RGB2GRAY)
    points, vectors = sift.detectAndCompute(grey, None)
    root = None
    if vectors is not None and len(points) >= MIN_MATCHES:
        root = np.sqrt(vectors / np.maximum(vectors.sum(1, keepdims=True), 1e-9))
        root = np.asarray(root, np.float32)
    return _Features(np.array([p.pt for p in points], np.float64), root, grey.shape)


def _related(
    first: _Features, second: _Features, matcher: cv2.BFMatcher
) -> tuple[NDArray[np.float64], float] | None:
    """The homography from the second to the first and the share, if they can be trusted."""
    if first.vectors is None or second.vectors is None:
        return None
    pairs = matcher.knnMatch(second.vectors, first.vectors, k=2)
    good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < RATIO * p[1].distance]
    if len(good) < MIN_MATCHES:
        return None
    source = second.points[[m.queryIdx for m in good]]
    target = first.points[[m.trainIdx for m in good]]
    homography, inliers = cv2.findHomography(
        source, target, cv2.USAC_MAGSAC, REPROJECTION_PX, maxIters=500, confidence=0.99
    )
    if homography is None or int(inliers.sum()) < MIN_MATCHES:
        return None
    if not np.isfinite(homography).all():
        return None
    height, width = second.shape
    grid = np.stack(np.meshgrid(np.linspace(0, width, 12), np.linspace(0, height, 12)), -1)
    there = cv2.perspectiveTransform(grid.reshape(1, -1, 2).astype(np.float64), homography)[0]
    inside = ((there >= 0) & (there < (first.shape[1], first.shape[0]))).all(axis=1)
    share = float(inside.mean())
    area = abs(np.linalg.det(homography[:2, :2]))
    if share < MIN_SHARE or not 0.2 < area < 5:
        return None
    spread = np.ptp(source[inliers[:, 0] > 0], axis=0) / (width, height)
    if spread.min() < 0.25:  # all matches on one roof
        return None
    return np.asarray(homography, np.float64), share
