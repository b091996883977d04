"""Map sources -> pixels: what may be given as a map.

GeoTIFF/COG and whatever else GDAL reads, in any CRS; a `{z}/{x}/{y}` tile folder; a folder of
images with a CSV of corners; a folder of GeoTIFFs. `Mosaic` reads them as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skylink.corners import find_corners_csv, read_corners
from skylink.errors import MapError
from skylink.mapsource import MapSource
from skylink.mosaic import Mosaic
from skylink.rasterfile import open_raster
from skylink.tilefolder import is_tile_folder, open_tile_folder

__all__ = ["MapSource", "Mosaic", "open_sources"]

FOLDER_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")


def open_sources(paths: Sequence[str | Path]) -> list[MapSource]:
    """Look at every map given; nothing stays open.

    Args:
        paths: rasters, tile folders, folders of images with a CSV of corners, folders of GeoTIFFs.

    Returns:
        The sources in the order given (files of a folder by name); a file given twice counts once.

    Raises:
        MapError: one of them is missing, is not an image, is damaged, or has no usable
            georeference; the message names it and says what to do.
    """
    if not paths:
        raise MapError("no map given", hint="name at least one GeoTIFF or folder")
    sources: list[MapSource] = []
    seen: set[Path] = set()
    for path in map(Path, paths):
        if not path.exists():
            raise MapError(f"{path}: no such file or folder")
        resolved = path.resolve()
        if resolved in seen:
            continue
        seen.add(resolved)
        sources += _open_folder(path) if path.is_dir() else [open_raster(path)]
    return sources


def _open_folder(folder: Path) -> list[MapSource]:
    table = find_corners_csv(folder)
    if table is not None:
        return [open_raster(place.file, placed=place) for place in read_corners(table)]
    if is_tile_folder(folder):
        return [open_tile_folder(folder)]
    rasters = sorted(p for p in folder.iterdir() if p.suffix.lower() in FOLDER_SUFFIXES)
    if rasters:
        return [open_raster(path) for path in rasters]
    raise MapError(
        f"{folder}: nothing in this folder can be used as a map",
        hint="a folder must hold tiles as z/x/y.png (or jpg, webp), or images with a corners.csv, "
        "or GeoTIFFs",
    )
