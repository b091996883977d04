"""Building a gallery from maps: resumable, killed at any moment without harm, committed at once.

GALLERY/gallery.json is the commit point. It is written last and atomically, and names the data
folder; until then an older gallery in the same folder stays whole and usable.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from skylink import __version__
from skylink.chunkencoder import encode_chunk
from skylink.errors import GalleryError, MapError, OptionError
from skylink.files import output_errors, write_atomic
from skylink.gallery_info import (
    INFO_FILE,
    SCHEMA_VERSION,
    AreaInfo,
    EncoderInfo,
    GalleryInfo,
    LevelInfo,
    SourceInfo,
    check_files,
    list_files,
    read_info,
)
from skylink.imagery import MapSource, Mosaic, open_sources
from skylink.partial import PartialBuild
from skylink.tiling import Area, Chunk, Grid, Level, group_areas

if TYPE_CHECKING:
    from skylink.encoder import Encoder

MIN_VALID = 0.5
DEFAULT_STRIDE_PX = 16
MAX_TILES = 50_000_000

Progress = Callable[[int, int, str], None]


def build_gallery(
    maps: Sequence[str | Path],
    out: Path,
    *,
    tile_m: Sequence[float] = (160.0,),
    stride_m: float = 40.0,
    encoder: Encoder | None = None,
    progress: Progress | None = None,
    attribution: str | None = None,
    store_imagery: bool = True,
) -> GalleryInfo:
    """Build a gallery in `out`, or continue a build of the same maps and parameters there.

    Args:
        maps: rasters or folders, see `imagery.open_sources`; where they overlap the first wins.
        out: the gallery folder; made if missing. A finished gallery there is replaced at the end.
        tile_m: side of a tile on the ground in metres, one value a level.
        stride_m: distance between tile centres in metres.
        encoder: turns pixels into vectors; None is the embedded one.
        progress: called with (done, total, words) after every chunk.
        attribution: whom to credit for the imagery; None takes what the maps' tags say.
        store_imagery: keep the map's pictures in the gallery (JPEG); without them nothing can be
            shown or re-ranked by looking.

    Returns:
        What gallery.json says.

    Raises:
        MapError: a map can't be used, or no tile has enough of it.
        OptionError: a size that can't be used.
        GalleryError: another build is running in `out`.
        ModelError: the encoder broke its contract.
        OutputError: `out` can't be written to, or the disk is full; what is stored stays usable
            for the next run of the same command.
    """
    if encoder is None:
        from skylink.encoder import load_encoder

        encoder = load_encoder("embedded")
    levels = _levels(tile_m, stride_m, encoder)
    report = progress or (lambda done, total, words: None)
    sources = open_sources(maps)
    areas = group_areas(sources)
    _check_size(areas, levels)
    build_id = _build_id(sources, levels, encoder, store_imagery=store_imagery)
    if attribution is None:
        attribution = "; ".join(dict.fromkeys(s.attribution for s in sources if s.attribution))
    with _locked(out):
        finished = _finished(out, build_id)
        if finished is not None:
            if finished.attribution != attribution:
                finished = finished.model_copy(update={"attribution": attribution})
                _commit(out, finished)
            report(finished.chunks_stored, finished.chunks_stored, "already built")
            _remove_others(out, finished.data)
            return finished
        partial = PartialBuild(out, build_id, sum(encoder.parts))
        _encode_all(partial, sources, areas, levels, encoder, report, store_imagery=store_imagery)
        kept, dropped, stored, pixels = partial.totals()
        if kept == 0:
            smallest = min(level.tile_m for level in levels)
            partial.discard()
            raise MapError(
                "these maps are empty: no pixel of them is valid"
                if stored == 0
                else f"no tile of {smallest:g} m has half its pixels on the map",
                hint="check the maps' nodata value and alpha band with `gdalinfo`"
                if stored == 0
                else "the map is too small for its tiles: give a smaller --tile-m",
            )
        report(stored, stored, "computing statistics")
        partial.finish(levels=len(levels), parts=tuple(encoder.parts), channels=encoder.channels)
        info = GalleryInfo(
            schema_version=SCHEMA_VERSION,
            skylink_version=__version__,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            build_id=build_id,
            data=partial.data.name,
            encoder=EncoderInfo(
                name=encoder.name,
                fingerprint=encoder.fingerprint,
                input_px=encoder.input_px,
                stride_px=encoder.stride_px,
                channels=encoder.channels,
                parts=tuple(encoder.parts),
            ),
            areas=tuple(
                AreaInfo(lon=a.frame.lon, lat=a.frame.lat, bounds=a.bounds, sources=a.sources)
                for a in areas
            ),
            levels=tuple(
                LevelInfo(tile_m=v.tile_m, stride_m=v.stride_m, gsd_m=v.gsd_m, cell_m=v.cell_m)
                for v in levels
            ),
            sources=tuple(map(_source_info, sources)),
            imagery=store_imagery,
            min_valid=MIN_VALID,
            tiles_kept=kept,
            tiles_dropped=dropped,
            chunks_stored=stored,
            chunks_total=sum(math.prod(Grid(a, v).chunk_shape) for a in areas for v in levels),
            area_km2=pixels * levels[0].gsd_m ** 2 / 1e6,
            attribution=attribution,
            notes=_notes(sources, levels),
            files=list_files(out, partial.data.name),
        )
        _commit(out, info)
        _remove_others(out, info.data)
        return info


def _levels(tile_m: Sequence[float], stride_m: float, encoder: Encoder) -> list[Level]:
    """One level a tile size, checked."""
    sizes = list(dict.fromkeys(float(size) for size in tile_m))
    if not sizes:
        raise OptionError("no tile size given", hint="for example --tile-m 160")
    for size in sizes:
        if not (math.isfinite(size) and 1 <= size <= 100_000):
            raise OptionError(f"tile size {size:g} m is not usable: expected 1..100000 metres")
        if not (math.isfinite(stride_m) and 0 < stride_m <= size):
            raise OptionError(
                f"stride {stride_m:g} m is not usable: expected more than 0 and at most the tile's "
                f"{size:g} m, so that tiles cover the map",
                hint="a quarter of the tile is a good stride",
            )
    return [
        Level(
            index=i,
            tile_m=size,
            stride_m=float(stride_m),
            input_px=encoder.input_px,
            stride_px=encoder.stride_px or DEFAULT_STRIDE_PX,
        )
        for i, size in enumerate(sizes)
    ]


def _check_size(areas: list[Area], levels: list[Level]) -> None:
    tiles = sum(math.prod(Grid(area, level).tile_shape) for area in areas for level in levels)
    if tiles > MAX_TILES:
        raise OptionError(
            f"{tiles:,} tiles would be needed; up to {MAX_TILES:,} can be built",
            hint="give a larger --stride-m, or a smaller part of the map",
        )


def _encode_all(
    partial: PartialBuild,
    sources: list[MapSource],
    areas: list[Area],
    levels: list[Level],
    encoder: Encoder,
    report: Progress,
    *,
    store_imagery: bool,
) -> None:
    """Every chunk that has map in it and is not stored yet."""
    mosaics = [Mosaic([sources[i] for i in area.sources], area.frame) for area in areas]
    jobs = []
    for area, mosaic in zip(areas, mosaics, strict=True):
        for level in levels:
            grid = Grid(area, level)
            jobs += [(grid, mosaic, chunk) for chunk in covered_chunks(grid, mosaic)]
    try:
        for number, (grid, mosaic, chunk) in enumerate(jobs):
            report(number, len(jobs), "encoding the map")
            key = (grid.area.index, grid.level.index, chunk.row, chunk.col)
            if key in partial.done:
                continue
            encoded = encode_chunk(
                grid,
                chunk,
                mosaic,
                encoder,
                min_valid=MIN_VALID,
                imagery=store_imagery,
                source_ids=grid.area.sources,
            )
            if encoded is not None:
                partial.add(key, encoded)
        partial.flush()
    except (KeyboardInterrupt, MapError):
        # what is encoded is worth keeping; a second interrupt while writing does no harm
        partial.flush()
        raise
    finally:
        for mosaic in mosaics:
            mosaic.close()
    report(len(jobs), len(jobs), "encoding the map")


def covered_chunks(grid: Grid, mosaic: Mosaic) -> list[Chunk]:
    """Chunks that may have map in them, row by row; halves of the grid that don't are skipped."""
    found: list[tuple[int, int]] = []

    def search(row0: int, row1: int, col0: int, col1: int) -> None:
        first = grid.read_bounds(grid.chunk(row0, col0))
        last = grid.read_bounds(grid.chunk(row1 - 1, col1 - 1))
        if not mosaic.covers((first[0], last[1], last[2], first[3])):
            return
        if row1 - row0 == 1 and col1 - col0 == 1:
            found.append((row0, col0))
        elif row1 - row0 >= col1 - col0:
            middle = (row0 + row1) // 2
            search(row0, middle, col0, col1)
            search(middle, row1, col0, col1)
        else:
            middle = (col0 + col1) // 2
            search(row0, row1, col0, middle)
            search(row0, row1, middle, col1)

    rows, cols = grid.chunk_shape
    search(0, rows, 0, cols)
    return [grid.chunk(row, col) for row, col in sorted(found)]


def _build_id(
    sources: list[MapSource], levels: list[Level], encoder: Encoder, *, store_imagery: bool
) -> str:
    """16 hex digits that change with anything that changes the data."""
    content = {
        "schema": SCHEMA_VERSION,
        "sources": [
            (s.sha256, s.kind, s.crs_wkt, s.width, s.height, s.transform.signature())
            for s in sources
        ],
        "levels": [(v.tile_m, v.stride_m, v.input_px, v.stride_px) for v in levels],
        "encoder": (encoder.name, encoder.fingerprint, encoder.channels, list(encoder.parts)),
        "min_valid": MIN_VALID,
        "imagery": store_imagery,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Only one build in a folder; the lock goes with the process, also when it is killed."""
    with output_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GalleryError(
                f"{out}: another build is writing here",
                hint="wait for it to end, or choose another --out",
            ) from None
        yield


def _finished(out: Path, build_id: str) -> GalleryInfo | None:
    """The gallery in `out` if it is just what is asked for; a damaged one of it is removed."""
    try:
        info = read_info(out)
    except GalleryError:
        return None
    if info.build_id != build_id:
        return None
    try:
        check_files(out, info, hashes=True)
    except GalleryError:
        (out / INFO_FILE).unlink()
        shutil.rmtree(out / info.data, ignore_errors=True)
        return None
    return info


def _commit(out: Path, info: GalleryInfo) -> None:
    write_atomic(out / INFO_FILE, info.model_dump_json(indent=1) + "\n")


def _remove_others(out: Path, keep: str) -> None:
    """Data of older builds and of builds with other parameters that never finished."""
    for path in out.iterdir():
        if re.fullmatch(r"(data|work)-[0-9a-f]{16}", path.name) and path.name != keep:
            shutil.rmtree(path, ignore_errors=True)


def _source_info(source: MapSource) -> SourceInfo:
    return SourceInfo(
        path=str(source.path),
        absolute_path=str(source.path.resolve()),
        hash=source.sha256,
        kind=source.kind,
        crs=source.crs,
        bands=source.bands,
        gsd_m=source.gsd_m,
        width=source.width,
        height=source.height,
        ring=source.ring,
        attribution=source.attribution,
    )


def _notes(sources: list[MapSource], levels: list[Level]) -> tuple[str, ...]:
    """What the user should know about the match of maps and levels."""
    finest = min(level.gsd_m for level in levels)
    return tuple(
        f"{source.path} has {source.gsd_m:.2g} m pixels, tiles are seen at {finest:.2g} m: "
        "a larger --tile-m would lose nothing"
        for source in sources
        if source.gsd_m > 2 * finest
    )
