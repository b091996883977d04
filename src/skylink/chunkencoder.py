"""One chunk of the map through the encoder: feature cells, tiles with descriptors, imagery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skylink.chunkdata import pack_image, pack_valid
from skylink.errors import ModelError
from skylink.mosaic import Mosaic
from skylink.tiling import CHUNK_CELLS, Chunk, Grid, TileSpot

if TYPE_CHECKING:
    from skylink.encoder import Encoder

BATCH = 32


@dataclass(frozen=True, kw_only=True)
class EncodedChunk:
    """What goes into the two tables: one feature row, and columns of tiles."""

    features: dict[str, Any]
    tiles: dict[str, list[Any]]
    descriptors: NDArray[np.float32]


def encode_chunk(
    grid: Grid,
    chunk: Chunk,
    mosaic: Mosaic,
    encoder: Encoder,
    *,
    min_valid: float,
    imagery: bool,
    source_ids: Sequence[int],
) -> EncodedChunk | None:
    """Read a chunk with its halo once and encode all that belongs to it.

    Args:
        source_ids: the gallery's numbers of the mosaic's sources.

    Returns:
        None where the map has nothing in the chunk.

    Raises:
        MapError: the map is damaged.
        ModelError: the encoder returned something that breaks its contract.
    """
    level = grid.level
    x_min, _, _, y_max = grid.read_bounds(chunk)
    side = grid.read_px
    rgb, valid = mosaic.read(
        x_min=x_min, y_max=y_max, gsd_m=level.gsd_m, width_px=side, height_px=side
    )
    if not valid.any():
        return None
    filled = rgb
    if not valid.all():
        filled = rgb.copy()
        filled[~valid] = np.rint(rgb[valid].mean(axis=0)).astype(np.uint8)
    halo = grid.halo_cells * level.stride_px
    core = np.s_[halo : halo + grid.chunk_px, halo : halo + grid.chunk_px]
    spots = grid.tiles_in(chunk)
    tiles, descriptors, dropped = _tiles(
        grid, chunk, spots, filled, valid, mosaic, encoder, min_valid, source_ids
    )
    valid_px = int(valid[core].sum())
    if valid_px == 0 and len(descriptors) == 0:
        return None
    cell_valid, values = _features(filled, valid, grid, encoder)
    image, mask = pack_image(filled[core], valid[core]) if imagery else (b"", b"")
    return EncodedChunk(
        features={
            "area": grid.area.index,
            "level": level.index,
            "row": chunk.row,
            "col": chunk.col,
            "tiles": len(descriptors),
            "dropped": dropped,
            "valid_px": valid_px,
            "values": values,
            "valid": pack_valid(cell_valid),
            "image": image,
            "mask": mask,
        },
        tiles=tiles,
        descriptors=descriptors,
    )


def _features(
    filled: NDArray[np.uint8], valid: NDArray[np.bool_], grid: Grid, encoder: Encoder
) -> tuple[NDArray[np.bool_], bytes]:
    """(64, 64) validity and the bytes of (64, 64, C) float16 cells, zero where not valid."""
    stride, halo = grid.level.stride_px, grid.halo_cells
    core = slice(halo, halo + CHUNK_CELLS)
    n = grid.read_px // stride
    share = valid.reshape(n, stride, n, stride).mean(axis=(1, 3))
    cell_valid = share[core, core] > 0.5
    if encoder.channels == 0:
        return cell_valid, b""
    if not cell_valid.any():
        shape = (CHUNK_CELLS, CHUNK_CELLS, encoder.channels)
        return cell_valid, np.zeros(shape, dtype=np.float16).tobytes()
    found = np.asarray(encoder.feature_map(filled[None]))
    if found.shape != (1, n, n, encoder.channels):
        raise ModelError(
            f"encoder {encoder.name}: feature_map returned shape {found.shape}, "
            f"not (1, {n}, {n}, {encoder.channels})"
        )
    cells = found[0, core, core].astype(np.float32)
    _finite(cells, encoder.name, "feature_map")
    largest = float(np.finfo(np.float16).max)
    cells = np.where(cell_valid[..., None], np.clip(cells, -largest, largest), 0)
    return cell_valid, np.ascontiguousarray(cells, dtype=np.float16).tobytes()


def _tiles(
    grid: Grid,
    chunk: Chunk,
    spots: list[TileSpot],
    filled: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    mosaic: Mosaic,
    encoder: Encoder,
    min_valid: float,
    source_ids: Sequence[int],
) -> tuple[dict[str, list[Any]], NDArray[np.float32], int]:
    """(columns, raw descriptors, number dropped) of the tiles centred in a chunk."""
    level = grid.level
    size = level.input_px
    offset_x = grid.halo_cells * level.stride_px - chunk.col * grid.chunk_px
    offset_y = grid.halo_cells * level.stride_px - chunk.row * grid.chunk_px
    kept: list[TileSpot] = []
    windows: list[tuple[slice, slice]] = []
    shares: list[float] = []
    for spot in spots:
        y, x = spot.top_px + offset_y, spot.left_px + offset_x
        window = (slice(y, y + size), slice(x, x + size))
        share = float(valid[window].mean())
        if share >= min_valid:
            kept.append(spot)
            windows.append(window)
            shares.append(share)
    dimensions = sum(encoder.parts)
    found = [np.zeros((0, dimensions), dtype=np.float32)]
    for start in range(0, len(kept), BATCH):
        part = windows[start : start + BATCH]
        masks = np.stack([valid[w] for w in part])
        vectors = np.asarray(
            encoder.encode(np.stack([filled[w] for w in part]), None if masks.all() else masks)
        )
        if vectors.shape != (len(part), dimensions):
            raise ModelError(
                f"encoder {encoder.name}: encode returned shape {vectors.shape}, "
                f"not ({len(part)}, {dimensions})"
            )
        _finite(vectors, encoder.name, "encode")
        found.append(vectors.astype(np.float32, copy=False))
    return (
        _columns(grid, kept, shares, mosaic, source_ids),
        np.concatenate(found),
        len(spots) - len(kept),
    )


def _columns(
    grid: Grid,
    kept: list[TileSpot],
    shares: list[float],
    mosaic: Mosaic,
    source_ids: Sequence[int],
) -> dict[str, list[Any]]:
    """The tiles' columns without their descriptors."""
    level, area = grid.level, grid.area
    x_m, y_m = np.array([s.x_m for s in kept]), np.array([s.y_m for s in kept])
    half = level.tile_m / 2
    lon, lat = area.frame.to_lonlat(x_m=x_m, y_m=y_m)
    # corners from the north-west, clockwise
    dx, dy = half * np.array([-1, 1, 1, -1]), half * np.array([1, 1, -1, -1])
    corner_lon, corner_lat = area.frame.to_lonlat(
        x_m=x_m.reshape(-1, 1) + dx, y_m=y_m.reshape(-1, 1) + dy
    )
    source, window = mosaic.place(x_m=x_m, y_m=y_m, size_m=level.tile_m)
    return {
        "id": [f"a{area.index}-l{level.index}-r{s.row}-c{s.col}" for s in kept],
        "area": [area.index] * len(kept),
        "level": [level.index] * len(kept),
        "row": [s.row for s in kept],
        "col": [s.col for s in kept],
        "lon": lon.tolist(),
        "lat": lat.tolist(),
        "x_m": x_m.tolist(),
        "y_m": y_m.tolist(),
        "footprint": np.stack([corner_lon, corner_lat], axis=2).reshape(-1, 4, 2).tolist(),
        "gsd_m": [level.gsd_m] * len(kept),
        "source": [source_ids[i] if i >= 0 else -1 for i in source.tolist()],
        "window": window.tolist(),
        "valid_fraction": shares,
    }


def _finite(values: NDArray[Any], name: str, method: str) -> None:
    if not np.isfinite(values).all():
        raise ModelError(f"encoder {name}: {method} returned values that are not finite")
