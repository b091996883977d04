"""gallery.json: what a gallery is, checked on the way in and out. Its schema is documented."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skylink.errors import GalleryError, first_complaint
from skylink.geo import LocalFrame
from skylink.tiling import Area, Level

SCHEMA_VERSION: Final = 1
INFO_FILE = "gallery.json"
DATA_PREFIX = "data-"
FULL_CHECK_BYTES = 64 * 1024 * 1024
UNFINISHED = (
    "the build was not finished; run the same `skylink build` command again, "
    "it continues where it stopped"
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EncoderInfo(_Part):
    """The encoder that a gallery was built with."""

    name: str
    fingerprint: str
    input_px: int = Field(gt=0)
    stride_px: int = Field(ge=0)
    channels: int = Field(ge=0)
    parts: tuple[int, ...]


class AreaInfo(_Part):
    """An area: the centre of its local frame, its bounds in metres there, its sources."""

    lon: float
    lat: float
    bounds: tuple[float, float, float, float]
    sources: tuple[int, ...]


class LevelInfo(_Part):
    """A level; see `tiling.Level`."""

    tile_m: float = Field(gt=0)
    stride_m: float = Field(gt=0)
    gsd_m: float = Field(gt=0)
    cell_m: float = Field(gt=0)


class SourceInfo(_Part):
    """A map source as it was when the gallery was built."""

    path: str
    absolute_path: str
    hash: str
    kind: str
    crs: str
    bands: str
    gsd_m: float
    width: int
    height: int
    ring: tuple[tuple[float, float], ...]
    attribution: str


class FileInfo(_Part):
    """A data file, relative to the gallery folder."""

    path: str
    size: int
    sha256: str


class GalleryInfo(_Part):
    """The whole of gallery.json.

    Attributes:
        schema_version: of the folder's layout.
        created_at: ISO 8601, UTC.
        build_id: hash of sources, parameters, encoder and schema.
        data: name of the data folder.
        imagery: whether the map's pictures are stored with it.
        min_valid: least valid share of a kept tile.
        tiles_kept, tiles_dropped: tiles stored, and tiles left out for too few valid pixels.
        chunks_stored, chunks_total: chunks with something in them, and of the whole grid.
        area_km2: ground with valid pixels, at the first level.
        attribution: whom to credit for the imagery.
        notes: things worth telling the user.
    """

    schema_version: Literal[1]
    skylink_version: str
    created_at: str
    build_id: str
    data: str = Field(pattern=r"^data-[0-9a-f]{16}$")
    encoder: EncoderInfo
    areas: tuple[AreaInfo, ...]
    levels: tuple[LevelInfo, ...]
    sources: tuple[SourceInfo, ...]
    imagery: bool
    min_valid: float
    tiles_kept: int
    tiles_dropped: int
    chunks_stored: int
    chunks_total: int
    area_km2: float
    attribution: str
    notes: tuple[str, ...]
    files: tuple[FileInfo, ...]

    def make_areas(self) -> list[Area]:
        """The areas as the rest of the code knows them."""
        return [
            Area(index=i, frame=LocalFrame(a.lon, a.lat), bounds=a.bounds, sources=a.sources)
            for i, a in enumerate(self.areas)
        ]

    def make_levels(self) -> list[Level]:
        """The levels as the rest of the code knows them."""
        return [
            Level(
                index=i,
                tile_m=level.tile_m,
                stride_m=level.stride_m,
                input_px=self.encoder.input_px,
                stride_px=round(level.cell_m / level.gsd_m),
            )
            for i, level in enumerate(self.levels)
        ]

    def command(self, folder: Path) -> str:
        """The command that builds this gallery again."""
        words = ["skylink", "build", *dict.fromkeys(s.path for s in self.sources)]
        words += ["--out", str(folder)]
        for level in self.levels:
            words += ["--tile-m", f"{level.tile_m:g}"]
        words += ["--stride-m", f"{self.levels[0].stride_m:g}"]
        return shlex.join(words)


def read_info(folder: Path) -> GalleryInfo:
    """gallery.json of a finished gallery.

    Raises:
        GalleryError: no gallery here, an unfinished one, another schema version, or damaged JSON.
    """
    path = folder / INFO_FILE
    if not folder.exists():
        raise GalleryError(
            f"{folder}: no such gallery", hint=f"build one: `skylink build MAP --out {folder}`"
        )
    if not folder.is_dir():
        raise GalleryError(f"{folder}: a gallery is a folder, this is a file")
    if not path.exists():
        if any(folder.glob(f"{DATA_PREFIX}*")):
            raise GalleryError(f"{folder}: {UNFINISHED}")
        raise GalleryError(
            f"{folder}: not a gallery (it has no {INFO_FILE})",
            hint=f"build one: `skylink build MAP --out {folder}`",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GalleryError(
            f"{path}: cannot be read: {error}", hint="the gallery is damaged: build it again"
        ) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise GalleryError(
            f"{folder}: this gallery has schema version {version!r}, "
            f"this SkyLink reads version {SCHEMA_VERSION}",
            hint="build it again with this SkyLink, or use the SkyLink that built it",
        )
    try:
        return GalleryInfo.model_validate(content)
    except ValidationError as error:
        raise GalleryError(
            f"{path}: {first_complaint(error)} ({error.error_count()} problems)",
            hint="the gallery is damaged: build it again",
        ) from error


def list_files(folder: Path, data: str) -> tuple[FileInfo, ...]:
    """Every file below the data folder with size and hash, by name."""
    # the hint changes when an index is added to a table later; all else that is listed stays
    files = sorted(
        p
        for p in (folder / data).rglob("*")
        if p.is_file() and p.name != "latest_version_hint.json"
    )
    return tuple(
        FileInfo(path=p.relative_to(folder).as_posix(), size=p.stat().st_size, sha256=_sha256(p))
        for p in files
    )


def check_files(folder: Path, info: GalleryInfo, *, hashes: bool) -> None:
    """Every file that gallery.json lists is there, with its size and, if asked, its content.

    Raises:
        GalleryError: naming the first file that is not as it was written.
    """
    hint = f"the gallery is damaged or was changed; build it again: `{info.command(folder)}`"
    data = (folder / info.data).resolve()
    for file in info.files:
        path = folder / file.path
        if not path.resolve().is_relative_to(data):
            raise GalleryError(f"{folder}: gallery.json lists a file outside it: {file.path}")
        if not path.is_file():
            raise GalleryError(f"{folder}: {file.path} is missing", hint=hint)
        size = path.stat().st_size
        if size != file.size:
            raise GalleryError(
                f"{folder}: {file.path} has {size} bytes, not {file.size}", hint=hint
            )
        if hashes and _sha256(path) != file.sha256:
            raise GalleryError(f"{folder}: {file.path} was changed (its hash differs)", hint=hint)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
