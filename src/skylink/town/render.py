"""Pictures of the town: the satellite map from above, and photos by a pinhole drone camera.

A photo is marched ray by ray through the town's surface, so relief and occlusion are true. Its
geometry is `skylink.camera`'s: the same axes, focal length and pixel centres. Beyond its edge
the town is continued as its mirror image.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.camera import camera_axes, focal_px
from skylink.files import output_errors
from skylink.town.grid import F32, U8
from skylink.town.ground import ROAD, ROOF, TREE, WATER
from skylink.town.light import DRONE, SATELLITE, SKY_TINT, SUN_TINT, Look, display, linear
from skylink.town.world import Town
from skylink.types import CameraPose

_FAR_M = 3500.0
_BLOCK_M = 8.0
_Reals = NDArray[np.floating[Any]]
_WIDE = 1024  # cv2.remap wants pictures, so lists of points travel as rows of this length


def render_map(town: Town, look: Look = SATELLITE, gsd_m: float = 0.5) -> U8:
    """The town from straight above, north up.

    Args:
        town: the town.
        look: sun, season and exposure.
        gsd_m: metres a pixel; the picture spans the town exactly, so the true value is
            `town.size_m / W` where `gsd_m` does not divide the size.

    Returns:
        (H, W, 3) uint8 RGB with H = W = round(town.size_m / gsd_m).
    """
    side = max(1, round(town.size_m / gsd_m))
    lit = town.light(look).lit
    if side != town.grid.n:
        how = cv2.INTER_AREA if side < town.grid.n else cv2.INTER_LINEAR
        lit = np.asarray(cv2.resize(lit, (side, side), interpolation=how), np.float32)
    return _finish(display(lit, look), look, np.random.default_rng([22, town.seed]), blur_px=0.45)


def write_map(town: Town, path: str | Path, *, look: Look = SATELLITE, gsd_m: float = 0.5) -> Path:
    """Write `render_map` as a tiled, JPEG-compressed GeoTIFF in the town's own projection.

    Raises:
        OutputError: the folder can't be written to; an older file stays as it was.
    """
    import rasterio
    from rasterio.transform import from_origin

    path = Path(path)
    image = render_map(town, look, gsd_m)
    pixel_m = town.size_m / image.shape[1]
    profile = {
        "driver": "GTiff",
        "width": image.shape[1],
        "height": image.shape[0],
        "count": 3,
        "dtype": "uint8",
        "crs": rasterio.crs.CRS.from_string(town.frame.proj4),
        "transform": from_origin(-town.size_m / 2, town.size_m / 2, pixel_m, pixel_m),
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "jpeg",
        "jpeg_quality": 90,
        "photometric": "ycbcr",
    }
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / "map.tif"
            with rasterio.open(temporary, "w", **profile) as file:
                file.write(np.moveaxis(image, -1, 0))
            os.replace(temporary, path)
    return path


class _Sampler:
    """Reads fields of the town at lists of points, mirrored beyond the edges."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.grid = town.grid
        block = max(1, round(_BLOCK_M / town.cell_m))
        m = -(-town.grid.n // block)
        pad = m * block - town.grid.n
        padded = np.pad(town.height, ((0, pad), (0, pad)), mode="edge")
        highest = padded.reshape(m, block, m, block).max(axis=(1, 3))
        self.block = block
        self.ceiling = np.asarray(cv2.dilate(highest, np.ones((3, 3), np.uint8)), np.float32)

    def cells(self, x: _Reals, y: _Reals) -> tuple[F32, F32]:
        """Fractional (column, row), mirrored into the town."""
        column, row = self.grid.cells(x, y)
        return self._mirror(column), self._mirror(row)

    def _mirror(self, at: F32) -> F32:
        n = self.grid.n
        if not len(at) or (at.min() >= -0.5 and at.max() <= n - 0.5):
            return at
        turn = np.mod(at + np.float32(0.5), np.float32(2 * n))
        return np.asarray(np.minimum(turn, np.float32(2 * n) - turn) - np.float32(0.5), np.float32)

    def soft(self, field: F32, column: _Reals, row: _Reals) -> F32:
        """Bilinear values at cells."""
        count = len(column)
        lines = max(1, -(-count // _WIDE))
        at = np.zeros((2, lines * _WIDE), np.float32)
        at[0, :count], at[1, :count] = column, row
        cols, rows = at.reshape(2, lines, _WIDE)
        out = cv2.remap(field, cols, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(out, np.float32).reshape(lines * _WIDE, *field.shape[2:])[:count]

    def near(self, column: F32, row: F32) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Index (row, column) of the nearest cells."""
        last = self.grid.n - 1
        return (
            np.clip(np.rint(row), 0, last).astype(np.int32),
            np.clip(np.rint(column), 0, last).astype(np.int32),
        )

    def roof_over(self, column: F32, row: F32) -> F32:
        """Nothing within one block of these cells is higher than this, metres."""
        r, c = self.near(column, row)
        return self.ceiling[r // self.block, c // self.block]


def render_photo(
    town: Town,
    *,
    x_m: float,
    y_m: float,
    pose: CameraPose,
    look: Look = DRONE,
    width_px: int = 960,
    height_px: int = 540,
) -> U8:
    """A drone photo.

    Args:
        town: the town as it is when the photo is taken (`Town.changed`).
        x_m, y_m: the point under the camera, metres in `town.frame`.
        pose: the camera's attitude; `pose.altitude_m` is above the bare ground at the view
            point, (x_m, y_m) + `pose.offset_m`. Over ground that is flat at that elevation the
            picture is exactly what `skylink.camera.ground_to_pixel` says.
        look: sun, season, exposure.
        width_px, height_px: size of the picture.

    Returns:
        (height_px, width_px, 3) uint8 RGB.
    """
    east, north = pose.offset_m
    level = town.ground_m(x_m=x_m + east, y_m=y_m + north)
    eye = np.array([x_m, y_m, level + pose.altitude_m])
    focal = focal_px(hfov_deg=pose.hfov_deg, width_px=width_px)
    px, py = np.meshgrid(
        (np.arange(width_px) - (width_px - 1) / 2) / focal,
        (np.arange(height_px) - (height_px - 1) / 2) / focal,
    )
    right, down, forward = camera_axes(pose)
    rays = (px[..., None] * right + py[..., None] * down + forward).reshape(-1, 3)
    rays = (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)
    sampler = _Sampler(town)
    far = march(sampler, eye, rays, 1 / focal)
    hit = np.isfinite(far)
    light = np.empty(rays.shape, np.float32)
    air = _sky(rays, look)
    light[~hit] = air[~hit]
    seen = _colours(sampler, eye, rays[hit], far[hit], look, 1 / focal)
    clear = np.exp(-far[hit] / 1000 * np.float32(look.haze))[:, None]
    light[hit] = seen * clear + air[hit] * (1 - clear)
    vignette = 1 - 0.22 * np.asarray(px**2 + py**2, np.float32)
    picture = light.reshape(height_px, width_px, 3) * vignette[..., None]
    spots = [town.seed, *(abs(round(v * 100)) for v in (x_m, y_m, pose.heading_deg))]
    return _finish(display(picture, look), look, np.random.default_rng(spots), blur_px=0.65)


def march(sampler: _Sampler, eye: NDArray[np.float64], rays: F32, spread: float) -> F32:
    """Distance along each ray to the surface, metres; inf where it meets the sky.

    Far over the roofs a ray strides a block at a time; near them it steps less than a cell
    (or than a pixel's width there), and where it has gone below the surface it is halved in on.
    """
    town = sampler.town
    top, bottom = float(town.height.max()) + 0.01, float(town.height.min()) - 0.01
    flat = np.maximum(np.hypot(rays[:, 0], rays[:, 1]), 1e-6)
    fall = np.maximum(-rays[:, 2], 1e-6)
    out = np.full(len(rays), np.inf, np.float32)
    start = np.maximum((eye[2] - top) / fall, 0).astype(np.float32)
    live = np.flatnonzero((rays[:, 2] < -0.01) & (start < _FAR_M))
    t, back = start[live], start[live]
    while len(live):
        x, y, z = (np.float32(eye[k]) + t * rays[live, k] for k in range(3))
        column, row = sampler.cells(x, y)
        clear = z - sampler.roof_over(column, row)
        low = np.flatnonzero(clear <= 0)
        below = np.zeros(len(live), bool)
        if len(low):
            below[low] = z[low] < sampler.soft(town.height, column[low], row[low])
        f, h = fall[live], flat[live]
        fine = np.maximum(0.7 * town.cell_m, t * np.float32(spread)) / h
        fine = np.minimum(fine, 1.0 / f)
        stride = np.where(clear > 0, np.minimum(np.maximum(clear / f, fine), 7.5 / h), fine)
        done = below | (z < bottom) | (t > _FAR_M)
        if below.any():
            ends = live[below]
            out[ends] = _halve(sampler, eye, rays[ends], back[below], t[below])
        keep = ~done
        live, back = live[keep], t[keep]
        t = (back + stride[keep]).astype(np.float32)
    return out


def _halve(sampler: _Sampler, eye: NDArray[np.float64], rays: F32, near: F32, far: F32) -> F32:
    """The crossing between a distance above the surface and one below it."""
    for _ in range(6):
        middle = (near + far) / 2
        x, y, z = (np.float32(eye[k]) + middle * rays[:, k] for k in range(3))
        below = z < sampler.soft(sampler.town.height, *sampler.cells(x, y))
        far = np.where(below, middle, far)
        near = np.where(below, near, middle)
    return np.asarray((near + far) / 2, np.float32)


def _colours(
    sampler: _Sampler, eye: NDArray[np.float64], rays: F32, far: F32, look: Look, spread: float
) -> F32:
    """Linear light from the points that rays hit: tops as lit from above, walls by themselves."""
    town = sampler.town
    light = town.light(look)
    x, y, z = (np.float32(eye[k]) + far * rays[:, k] for k in range(3))
    column, row = sampler.cells(x, y)
    cell = sampler.near(column, row)
    out = sampler.soft(light.lit, column, row)
    coarse = cv2.resize(light.lit, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    quarter = ((at - np.float32(1.5)) / np.float32(4) for at in (column, row))
    broad = sampler.soft(np.asarray(coarse, np.float32), *quarter)
    footprint = far * np.float32(spread) / np.maximum(-rays[:, 2], 0.05) / town.cell_m
    out += np.clip((footprint - 1) / 2.5, 0, 0.85)[:, None] * (broad - out)
    material = town.material[cell]
    out *= _grain(x, y, material, footprint)[:, None]
    around = np.ones((3, 3), np.uint8)
    highest = np.asarray(cv2.dilate(town.height, around), np.float32)[cell]
    sunk = highest - z
    owner = np.asarray(cv2.dilate(town.owner, around))[cell].astype(np.int64)
    wall = (sunk > 0.75) & (owner > 0) & (z - town.terrain[cell] > 0.25)
    crown = (material == TREE) & ~wall
    inward = np.clip(0.35 * (sunk[crown] - 0.4), 0, 1.6)
    inner = sampler.cells(x[crown] + inward * rays[crown, 0], y[crown] + inward * rays[crown, 1])
    foot = town.terrain[cell][crown]
    depth = np.clip(0.3 + 1.0 * (z[crown] - foot) / np.maximum(highest[crown] - foot, 1), 0.4, 1)
    leaves = _grain(
        x[crown] + z[crown], y[crown] + 0.6 * z[crown], material[crown], footprint[crown]
    )
    out[crown] = sampler.soft(light.lit, *inner) * (depth * leaves)[:, None]
    if wall.any():
        out[wall] = _walls(sampler, x[wall], y[wall], z[wall], owner[wall] - 1, light.shade_m, look)
    return out


def _grain(x: F32, y: F32, material: U8, footprint: _Reals) -> F32:
    """Detail finer than a cell, (N,) factors on light; it fades where pixels are wide."""
    rng = np.random.default_rng(11)
    tile = rng.standard_normal((512, 512), dtype=np.float32)
    tile = 0.5 * tile + 1.3 * np.asarray(cv2.GaussianBlur(tile, (0, 0), 1.2), np.float32)
    strength = np.full(9, 0.10, np.float32)
    strength[[TREE, ROAD, ROOF, WATER]] = 0.26, 0.05, 0.06, 0.03
    texel = tile[(y * 7.1).astype(np.int32) & 511, (x * 7.1).astype(np.int32) & 511]
    fade = np.clip(1.6 - footprint, 0, 1)
    return np.asarray(1 + strength[material] * texel * fade, np.float32)


def _walls(
    sampler: _Sampler, x: F32, y: F32, z: F32, owner: NDArray[np.int64], shade_m: F32, look: Look
) -> F32:
    """Facades: plaster or brick with floors of windows, lit by where they face."""
    town = sampler.town
    buildings = town.things.buildings
    table = np.array([(b.angle, b.x, b.y, b.eaves_m, b.rise_m) for b in buildings], np.float32)
    plaster = np.array([b.wall for b in buildings], np.float32)[owner]
    angle, bx, by, eaves, rise = table[owner].T
    c, s = np.cos(angle), np.sin(angle)
    reach = np.float32(1.2)
    slope_x, slope_y = (
        sampler.soft(town.height, *sampler.cells(x + reach * ex, y + reach * ey))
        - sampler.soft(town.height, *sampler.cells(x - reach * ex, y - reach * ey))
        for ex, ey in ((1, 0), (0, 1))
    )
    u, v = -(slope_x * c + slope_y * s), -(slope_y * c - slope_x * s)
    lengthwise = np.abs(u) > np.abs(v)
    nu, nv = np.where(lengthwise, np.sign(u), 0), np.where(lengthwise, 0, np.sign(v))
    dx, dy = x - bx, y - by
    along = np.where(lengthwise, dy * c - dx * s, dx * c + dy * s)
    nx, ny = nu * c - nv * s, nu * s + nv * c
    east, north, up = look.sun
    column, row = sampler.cells(x + nx * 1.5, y + ny * 1.5)
    open_sun = 1 - np.clip((sampler.soft(shade_m, column, row) - z) * 2 + 0.5, 0, 1)
    sun = np.clip(nx * east + ny * north, 0, None) / up * open_sun
    row_at, column_at = town.grid.at(bx, by)
    floor = z - town.terrain[row_at, column_at]
    storey = np.where(eaves > 5.6, 3.0, 2.8)
    pitch = 1.7 + (owner % 5) * 0.35
    level, bay = np.mod(floor, storey), np.mod(along, pitch)
    window = (level > 0.9) & (level < 2.3) & (bay < 0.52 * pitch) & (floor < eaves - 0.3)
    band = (owner % 3 == 0) & (level < 0.25) & (floor < eaves)
    pane = 44 + 26 * np.mod(np.floor(along / pitch) * 7 + np.floor(floor / storey) * 3, 5) / 5
    colour = np.where(band[:, None], plaster * 0.86, plaster)
    colour = np.where(window[:, None], pane[:, None] * np.array([0.92, 1, 1.1]), colour)
    machine = floor > eaves + rise + 0.45
    colour = np.where(machine[:, None], 150, colour)
    sky = look.skylight * 0.85 * np.clip(0.65 + floor / 14, 0.65, 1)
    glow = sky[:, None] * SKY_TINT + sun[:, None] * (SUN_TINT * np.float32(1 - look.skylight))
    return np.asarray(linear(colour.astype(np.float32)) * glow, np.float32)


def _sky(rays: F32, look: Look) -> F32:
    """(N, 3) linear light of air in a direction."""
    rise = np.clip(rays[:, 2:3] * 2.2, 0, 1)
    pale = np.array([0.62, 0.70, 0.78], np.float32)
    blue = np.array([0.20, 0.36, 0.66], np.float32)
    return np.asarray(pale + rise * (blue - pale), np.float32) / np.float32(look.exposure)


def _finish(picture: F32, look: Look, rng: np.random.Generator, *, blur_px: float) -> U8:
    """Optics and sensor: a little blur, a little noise, whole numbers."""
    soft = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur_px), np.float32)
    if look.noise > 0:
        grain = rng.standard_normal(soft.shape[:2], dtype=np.float32)
        soft += np.float32(look.noise) * grain[..., None]
    return np.asarray(np.clip(np.rint(soft), 0, 255), dtype=np.uint8)
