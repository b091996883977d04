"""Things put on the ground: their heights, colours and materials in the cells they cover."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.town.buildings import COURT, ELL, FLAT, GABLE, HIP, SHED, Building, Pad
from skylink.town.grid import F32, U8, Grid, Patch, Rng, blend, fractal
from skylink.town.ground import CAR, GRASS, PAVED, ROAD, ROOF, TREE, WATER
from skylink.town.things import Things, paint_of


@dataclass
class Canvas:
    """Arrays that stamps write to: see `Town` for their meaning; `colour` is float32 here."""

    grid: Grid
    terrain: F32
    height: F32
    colour: F32
    material: U8
    tone: U8
    owner: NDArray[np.uint16]


def stamp_things(canvas: Canvas, things: Things) -> None:
    """Put everything on the ground, in the order in which it hides other things."""
    for pad in things.pads:
        _pad(canvas, pad)
    for number, building in enumerate(things.buildings, start=1):
        _building(canvas, building, number)
    for x, y, angle, length, width, paint in things.cars:
        _car(canvas, float(x), float(y), float(angle), float(length), float(width), float(paint))
    _trees(canvas, things.trees)


def _pad(canvas: Canvas, pad: Pad) -> None:
    patch = canvas.grid.patch(pad.x, pad.y, pad.w, pad.d, pad.angle)
    if patch is None:
        return
    rng = np.random.default_rng(pad.seed)
    u, v, cell = patch.u, patch.v, canvas.grid.cell_m
    inset = np.minimum(pad.w / 2 - np.abs(u), pad.d / 2 - np.abs(v))
    inside = inset > 0
    kind = canvas.material[patch.window]
    if pad.kind == "drive":  # a drive ends at the pavement
        inside &= kind != ROAD
    grain = 1 + 0.03 * rng.standard_normal(u.shape, dtype=np.float32)
    thick = max(0.16, 0.5 * cell)
    line = np.zeros_like(inside)
    mark: tuple[float, float, float] = (210, 210, 206)
    if pad.kind == "parking":
        shade, what = np.array([96.0, 96, 98]) + rng.normal(0, 9), PAVED
        row = (v + pad.d / 2) % (11.2 if pad.d < 20 else 9.1)
        line = (np.abs((u + pad.w / 2 - 0.3) % 2.6) < thick) & (row > 0.4) & (row < 5.4)
        mark = (158, 158, 156)
    elif pad.kind == "pitch":
        shade, what = np.array([92.0, 118, 58]) * rng.uniform(0.9, 1.1), GRASS
        grain = grain * (1 + 0.05 * np.sign(np.sin(u * (math.pi / rng.uniform(4, 7)))))
        line = (np.abs(inset - 2.5) < 0.3) | (np.abs(u) < 0.3) & (inset > 2.5)
        line |= np.abs(np.hypot(u, v) - 9.15) < 0.3
        box = np.maximum(np.abs(np.abs(u) - pad.w / 2 + 2.5) - 16, np.abs(v) - 18)
        line |= (np.abs(box) < 0.3) & (inset > 2.5)
    elif pad.kind == "court":
        tones = np.array([[168.0, 96, 70], [72, 116, 92], [80, 104, 136]])
        shade, what = tones[int(rng.integers(3))], PAVED
        line = (np.abs(np.abs(np.abs(u) - 8.5) - 5.4) < thick) & (np.abs(v) < 7)
        line |= (np.abs(np.abs(v) - 6.4) < thick) & (np.abs(np.abs(u) - 8.5) < 5.4)
    elif pad.kind == "pool":
        shade, what = np.array([92.0, 170, 190]), WATER
        line, mark = inset < 0.6, (196, 192, 184)
    else:
        tones = np.array([[150.0, 146, 140], [120, 118, 116], [164, 140, 120], [172, 166, 150]])
        shade, what = tones[int(rng.integers(4))] * rng.uniform(0.9, 1.08), PAVED
    colour = canvas.colour[patch.window]
    colour[inside] = shade * grain[inside][:, None]
    colour[line & inside] = mark
    kind[inside] = what


def _wings(b: Building) -> list[tuple[float, float, float, float]]:
    """The rectangles of a footprint: (centre u, centre v, w, d)."""
    if b.shape == ELL:
        arm = min(b.d * 0.55, b.w * 0.45)
        side = 1 if b.seed & 1 else -1
        return [
            (0, -(b.d - arm) / 2, b.w, arm),
            (side * (b.w - arm) / 2, 0, arm, b.d),
        ]
    if b.shape == COURT:
        arm = 0.3 * min(b.w, b.d)
        return [
            (0, -(b.d - arm) / 2, b.w, arm),
            (0, (b.d - arm) / 2, b.w, arm),
            (-(b.w - arm) / 2, 0, arm, b.d),
            ((b.w - arm) / 2, 0, arm, b.d),
        ]
    return [(0, 0, b.w, b.d)]


def _building(canvas: Canvas, b: Building, number: int) -> None:
    patch = canvas.grid.patch(b.x, b.y, b.w, b.d, b.angle)
    if patch is None:
        return
    rng = np.random.default_rng(b.seed)
    u, v, cell = patch.u, patch.v, canvas.grid.cell_m
    inset = np.full(u.shape, -np.inf, np.float32)
    rise = np.zeros(u.shape, np.float32)
    ribs = np.zeros(u.shape, np.float32)
    for cu, cv, w, d in _wings(b):
        du, dv = w / 2 - np.abs(u - cu), d / 2 - np.abs(v - cv)
        own = np.minimum(du, dv)
        inset = np.maximum(inset, own)
        slope, half = (dv, d / 2) if w >= d else (du, w / 2)
        if b.roof == HIP:
            slope = own
        if b.roof in (GABLE, HIP):
            lift = b.rise_m * np.clip(slope / half, 0, 1)
            ribs = np.where((own > 0) & (lift >= rise), slope, ribs)
            rise = np.where(own > 0, np.maximum(rise, lift), rise)
    if b.roof == SHED:
        rise = (b.rise_m * (v / b.d + 0.5)).astype(np.float32)
    inside = inset > 0
    if not inside.any():
        return
    row, column = canvas.grid.at(b.x, b.y)
    base = float(canvas.terrain[row, column])
    shade = 1 + 0.035 * rng.standard_normal(u.shape, dtype=np.float32)
    stain = fractal(rng, Grid(max(u.shape), cell), 9.0, 2)[: u.shape[0], : u.shape[1]]
    shade += 0.04 * stain
    top = np.full(u.shape, b.eaves_m, np.float32) + rise
    colour = np.array(b.colour, np.float32) * shade[..., None]
    if b.roof in (FLAT, SHED):
        _deck(rng, b, u, v, inset, top, colour)
    else:
        colour *= (1 + 0.05 * np.sin(ribs * (2 * math.pi / 1.7)))[..., None]
        colour[(b.rise_m - rise) < 0.12 * cell + 0.05] *= 1.12
        _tiles(rng, b, u, v, top, colour)
    _cover(canvas, patch, inset, base + top, colour)
    canvas.material[patch.window][inside] = ROOF
    canvas.tone[patch.window][inside] = 0
    canvas.owner[patch.window][inside] = number


def _cover(canvas: Canvas, patch: Patch, inset: F32, top: F32, colour: F32) -> None:
    """Write heights and colours, cells on the edge in part: edges at any angle stay straight."""
    share = np.clip(inset / canvas.grid.cell_m + 0.5, 0, 1).astype(np.float32)
    height = canvas.height[patch.window]
    height += share * np.maximum(top - height, 0)
    blend(canvas.colour[patch.window], share, colour)


def _deck(rng: Rng, b: Building, u: F32, v: F32, inset: F32, top: F32, colour: F32) -> None:
    """A flat roof: parapet, skylight strips, machines, solar panels, a green roof."""
    big = b.w * b.d > 250
    look = rng.uniform()
    if b.roof == FLAT and look < 0.12:
        colour[:] = np.array([104, 114, 72]) * (colour / np.maximum(colour.mean((0, 1)), 1))
    if big and 0.15 < look < 0.5:
        step, at = rng.uniform(7, 13), rng.uniform(0, 5)
        strip = (np.abs((u + at) % step - step / 2) < 0.8) & (inset > 3)
        colour[strip] = (204, 212, 216)
        top[strip] += 0.5
    elif big and look > 0.72:
        side = v > rng.uniform(-0.3, 0.3) * b.d
        panel = ((v % 2.6) < 1.7) & ((u % 9.0) < 8.2) & (inset > 2) & side
        colour[panel] = (38, 46, 72)
        top[panel] += 0.4
    for _ in range(int(rng.integers(1, 3 + int(b.w * b.d / 90))) if b.roof == FLAT else 0):
        x, y = rng.uniform(-0.4, 0.4, 2) * (b.w, b.d)
        w, d = rng.uniform(0.9, 3.6, 2)
        box = (np.abs(u - x) < w / 2) & (np.abs(v - y) < d / 2) & (inset > 1)
        colour[box] = rng.uniform(90, 205) * np.array([1, 1, 1.01])
        top[box] += rng.uniform(0.5, 2.4)
    if b.roof == FLAT:
        rim = inset < 0.5
        colour[rim] = colour[rim] * 0.5 + 98
        top[rim] += 0.35


def _tiles(rng: Rng, b: Building, u: F32, v: F32, top: F32, colour: F32) -> None:
    """A pitched roof: chimneys, roof windows, solar panels."""
    if rng.uniform() < 0.28:
        side = 1 if rng.uniform() < 0.5 else -1
        x, w = rng.uniform(-0.2, 0.2) * b.w, rng.uniform(0.25, 0.8) * b.w
        panel = (np.abs(u - x) < w / 2) & (np.abs(side * v - b.d * 0.25) < b.d * 0.15)
        colour[panel] = (34, 42, 68)
    for _ in range(int(rng.integers(0, 3 + int(b.w / 10)))):
        x, y = rng.uniform(-0.4, 0.4, 2) * (b.w, b.d)
        size = rng.uniform(0.5, 0.8)
        box = (np.abs(u - x) < size) & (np.abs(v - y) < size)
        chimney = rng.uniform() < 0.5
        colour[box] = (120, 86, 72) if chimney else (58, 62, 70)
        top[box] += 1.2 if chimney else 0.0


def _car(
    canvas: Canvas, x: float, y: float, angle: float, length: float, width: float, paint: float
) -> None:
    patch = canvas.grid.patch(x, y, length, width, angle)
    if patch is None:
        return
    inside = (np.abs(patch.u) < length / 2) & (np.abs(patch.v) < width / 2)
    if bool((canvas.owner[patch.window][inside] > 0).any()):
        return
    inset = np.minimum(length / 2 - np.abs(patch.u), width / 2 - np.abs(patch.v))
    colour = np.empty((*inside.shape, 3), np.float32)
    colour[:] = paint_of(paint)
    along = patch.u / length
    glass = inside & (((along > 0.08) & (along < 0.24)) | (along < -0.36) & (along > -0.46))
    cabin = inside & (np.abs(along + 0.08) < 0.3)
    if length < 5.2:
        colour[glass] = (46, 52, 58)
    ground = canvas.terrain[patch.window]
    tall = 1.5 if length < 5.2 else 2.6
    lift = np.where(cabin, tall, 0.65 * tall if length < 5.2 else tall)
    _cover(canvas, patch, inset, ground + np.asarray(lift, np.float32), colour)
    canvas.material[patch.window][inside] = CAR


def _trees(canvas: Canvas, trees: NDArray[np.float32]) -> None:
    """Bumpy domes; where crowns meet, the higher one shows."""
    grid, cell = canvas.grid, canvas.grid.cell_m
    rng = np.random.default_rng(20)
    lumps = fractal(rng, Grid(256, cell), max(1.4, 1.5 * cell), 2)
    base_row, base_column = grid.at(trees[:, 0], trees[:, 1])
    ground = canvas.terrain[base_row, base_column]
    for k, (x, y, radius, high, tone) in enumerate(trees.tolist()):
        patch = grid.patch(x, y, 2.3 * radius, 2.3 * radius, 0.0)
        if patch is None:
            continue
        rows, cols = patch.u.shape
        r0, c0 = (k * 37) % (256 - rows), (k * 91) % (256 - cols)
        lump = lumps[r0 : r0 + rows, c0 : c0 + cols]
        far = (patch.u**2 + patch.v**2) / radius**2 + 0.16 * lump
        crown = np.sqrt(np.maximum(1.02 - far, 0))
        top = (ground[k] + high * (0.25 + 0.75 * crown) + 0.35 * lump).astype(np.float32)
        window = canvas.height[patch.window]
        seen = (far < 1.0) & (top > window)
        window[seen] = top[seen]
        t = tone / 255
        shade = np.array([64 + 34 * t, 84 + 22 * t, 42 + 12 * t], np.float32)
        texture = (0.80 + 0.26 * crown + 0.07 * lump)[seen]
        canvas.colour[patch.window][seen] = shade * texture[:, None]
        canvas.material[patch.window][seen] = TREE
        canvas.tone[patch.window][seen] = int(tone)
        canvas.owner[patch.window][seen] = 0


def byte_colour(colour: F32) -> U8:
    """Colours as uint8."""
    return np.asarray(cv2.convertScaleAbs(np.clip(colour, 0, 255)), dtype=np.uint8)
