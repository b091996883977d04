"""The ground as pictures: colour, material and tone of every cell before anything stands on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.town.grid import F32, U8, Colour, Grid, Rng, blend, fractal, resized
from skylink.town.plan import (
    BLOCKS,
    CENTRE,
    FARM,
    HOUSES,
    INDUSTRY,
    PARK,
    ROWS,
    WOOD,
    Plan,
)

SOIL, GRASS, TREE, CROP, WATER, ROAD, PAVED, ROOF, CAR = range(9)

_BASE: dict[int, Colour] = {
    CENTRE: (139, 133, 125),
    BLOCKS: (108, 118, 76),
    ROWS: (110, 117, 77),
    HOUSES: (103, 114, 70),
    INDUSTRY: (128, 124, 116),
    PARK: (99, 116, 64),
    FARM: (118, 120, 72),
    WOOD: (88, 94, 58),
}
_CROPS: tuple[Colour, ...] = (
    (184, 167, 112),
    (164, 148, 98),
    (112, 130, 64),
    (84, 106, 54),
    (96, 116, 52),
    (122, 99, 76),
    (138, 114, 88),
    (163, 146, 104),
    (172, 162, 74),
    (118, 126, 74),
)


@dataclass(frozen=True)
class Ground:
    """What the ground looks like.

    Attributes:
        colour: (n, n, 3) float32 RGB 0..255, colour under even light in summer.
        material: (n, n) uint8, one of SOIL .. CAR.
        tone: (n, n) uint8; the place's own number (parcel, tree): how season changes it.
        paved: (n, n) uint8; 255 where a road or pavement is (anti-aliased edge).
        flow: coarse, (m, m, 2) float32 unit vectors (east, north) away from the nearest road.
        road_gap_m: coarse, (m, m) float32 distance to the nearest road's edge.
    """

    colour: F32
    material: U8
    tone: U8
    paved: U8
    flow: F32
    road_gap_m: F32


def paint_ground(rng: Rng, plan: Plan) -> Ground:
    """Paint fields, gardens, yards, water and roads."""
    grid = plan.grid
    n = grid.n
    district = _nearest(plan.district, n)
    uses = plan.uses[district]
    palette = np.array([_BASE[k] for k in range(8)], dtype=np.float32)
    colour = palette[uses]
    material = np.full((n, n), GRASS, dtype=np.uint8)
    material[uses == CENTRE] = PAVED
    blobs = fractal(rng, grid, 130.0, 5, 0.65)
    fine = fractal(rng, grid, 5.0, 3, 0.8)
    tone = np.clip(128 + 50 * blobs, 0, 255).astype(np.uint8)
    _gardens(rng, plan, uses, colour, tone)
    _yards(rng, grid, uses, colour, material)
    _fields(rng, plan, district, colour, material, tone)
    green = (material == GRASS) | (material == CROP)
    sway = np.where(green, 0.085, 0.05).astype(np.float32) * blobs + 0.055 * fine
    colour *= 1 + sway[..., None]
    dry = np.clip(blobs - 0.7, 0, 1) * np.where(material == GRASS, 0.5, 0.0).astype(np.float32)
    blend(colour, dry.astype(np.float32), (150, 138, 96))
    _wet(rng, plan, colour, material)
    paved = _roads(rng, plan, colour, material)
    flow, gap = _away(plan, paved)
    return Ground(colour, material, tone, paved, flow, gap)


def _nearest(labels: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    """Coarse labels in n x n cells, their stepped borders frayed by a fixed dither."""
    m = labels.shape[0]
    rng = np.random.default_rng(12)
    shift = rng.uniform(-0.75, 0.75, (2, 256, 256)).astype(np.float32)
    tiles = -(-n // 256)
    at = (np.arange(n, dtype=np.float32) + 0.5) * (m / n)
    row = np.clip(at[:, None] + np.tile(shift[0], (tiles, tiles))[:n, :n], 0, m - 1)
    column = np.clip(at[None, :] + np.tile(shift[1], (tiles, tiles))[:n, :n], 0, m - 1)
    return np.asarray(labels[row.astype(np.int32), column.astype(np.int32)])


def _cells(rng: Rng, grid: Grid, spacing_m: float, bend: F32) -> NDArray[np.int32]:
    """(n, n) int32 labels of irregular cells of about `spacing_m`, borders bent by noise."""
    count = max(4, int((grid.size_m / spacing_m) ** 2))
    mask = np.full((grid.n, grid.n), 255, np.uint8)
    spots = rng.integers(0, grid.n, (count, 2))
    mask[spots[:, 0], spots[:, 1]] = 0
    _, labels = cv2.distanceTransformWithLabels(
        mask, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    column, row = np.meshgrid(*(np.arange(grid.n, dtype=np.float32),) * 2)
    moved = cv2.remap(
        np.asarray(labels, np.float32),
        column + bend,
        row + bend,
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, np.int32)


def _gardens(rng: Rng, plan: Plan, uses: NDArray[np.int64], colour: F32, tone: U8) -> None:
    """Each garden has its own green; some are gravel, vegetable beds or meadow."""
    coarse = plan.coarse
    labels = _cells(rng, coarse, 19.0, fractal(rng, coarse, 20.0, 2) * 1.5)
    count = int(labels.max()) + 1
    tint = 1 + rng.normal(0, 0.09, (count, 3)) * np.array([1.1, 0.7, 0.9])
    tint += rng.normal(0, 0.10, (count, 1))
    bare = rng.uniform(size=count) < 0.13
    tint[bare] *= np.array([1.38, 1.16, 1.4])
    full = _nearest(labels, plan.grid.n)
    tint = np.where(bare[:, None], tint, np.clip(tint, 0.7, 1.35))
    strength = np.zeros(8, np.float32)
    strength[[HOUSES, ROWS, BLOCKS, PARK]] = 1.0, 1.0, 0.7, 0.35
    mix = strength[uses][..., None]
    colour *= 1 + mix * (tint.astype(np.float32)[full] - 1)
    own = rng.integers(0, 256, count).astype(np.uint8)
    tone[:] = np.where(mix[..., 0] > 0.5, own[full], tone)


def _yards(rng: Rng, grid: Grid, uses: NDArray[np.int64], colour: F32, material: U8) -> None:
    """Green courts in the centre; concrete, asphalt and gravel yards in industry."""
    noise = fractal(rng, grid, 45.0, 3)
    court = (uses == CENTRE) & (noise > 0.15)
    colour[court] = (102, 112, 70)
    material[court] = GRASS
    works = uses == INDUSTRY
    for mask, shade, kind in (
        (works & (noise > 0.75), (106, 112, 72), GRASS),
        (works & (noise < -0.55), (94, 94, 95), PAVED),
        (works & (np.abs(noise) <= 0.3), (152, 147, 138), PAVED),
        (works & (noise > 0.3) & (noise <= 0.75), (142, 128, 106), SOIL),
    ):
        colour[mask] = shade
        material[mask] = kind
    material[works & (noise < -0.3) & (noise >= -0.55)] = PAVED


def _fields(
    rng: Rng, plan: Plan, district: NDArray[np.int32], colour: F32, material: U8, tone: U8
) -> None:
    """Parcels with rows, tramlines, headlands and mottled growth."""
    grid = plan.grid
    x, y = (a.astype(np.float32) for a in grid.axes())
    warped = resized(plan.warped, grid.n)
    mottle = fractal(rng, grid, 38.0, 3)
    for i in np.flatnonzero(plan.uses == FARM):
        where = district == i
        rows, cols = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
        if not len(rows):
            continue
        box = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        inside = where[box]
        angle = rng.uniform(0, math.pi)
        c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        wx, wy = warped[box][..., 0], warped[box][..., 1]
        u, v = wx * c + wy * s, wy * c - wx * s
        u_cut = np.cumsum(rng.uniform(28, 95, 40)) - 1400
        strip = np.searchsorted(u_cut, u)
        shift = rng.uniform(-90, 90, 41).astype(np.float32)
        v_cut = np.cumsum(rng.uniform(90, 260, 24)) - 2000
        parcel = strip * 32 + np.searchsorted(v_cut, v + shift[strip])
        straight = (x[None, box[1]] * c + y[box[0], None] * s,)
        cross = y[box[0], None] * c - x[None, box[1]] * s
        edge = np.zeros_like(inside)
        edge[:, 1:] |= parcel[:, 1:] != parcel[:, :-1]
        edge[1:] |= parcel[1:] != parcel[:-1]
        painted = colour[box]
        for p in np.unique(parcel[inside]):
            mask = inside & (parcel == p)
            shade = np.array(_CROPS[int(rng.integers(len(_CROPS)))]) * rng.uniform(0.86, 1.12)
            period, strength = rng.uniform(1.6, 5.0), rng.uniform(0.02, 0.13)
            tram, turned = rng.uniform(14, 26), rng.uniform() < 0.25
            lane = (cross if turned else straight[0])[mask] + 0.7 * mottle[box][mask]
            texture = 1 + strength * np.sin(lane * (2 * math.pi / period))
            texture -= 0.16 * (np.abs((lane % tram) - tram / 2) < 0.6)
            texture += rng.uniform(0.02, 0.09) * mottle[box][mask]
            painted[mask] = shade * texture[:, None]
            tone[box][mask] = rng.integers(0, 256)
        hedge = cv2.dilate(edge.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        painted[hedge & inside] = (104, 108, 62)
        material[box][inside] = CROP


def _wet(rng: Rng, plan: Plan, colour: F32, material: U8) -> None:
    """River and lake with darker depth and a pale bank."""
    water = plan.water
    deep = cv2.GaussianBlur(water, (0, 0), 5.0 / plan.grid.cell_m)
    shade = np.stack([66 - 20 * deep, 80 - 18 * deep, 72 - 12 * deep], axis=-1).astype(np.float32)
    shade *= 1 + 0.05 * fractal(rng, plan.grid, 25.0, 4, 0.7)[..., None]
    shore = np.clip(np.asarray(deep, np.float32) * 6, 0, 1) * 0.45
    blend(colour, shore, (122, 116, 84))
    blend(colour, water, shade)
    material[water > 0.5] = WATER


def _roads(rng: Rng, plan: Plan, colour: F32, material: U8) -> U8:
    """Pavements, asphalt and markings; returns what is paved."""
    grid = plan.grid
    n = grid.n
    walk, street, line, path = (np.zeros((n, n), np.uint8) for _ in range(4))
    for road in plan.roads:
        verge = 2.2 if road.use == HOUSES else 3.6
        grid.draw(walk, road.points, road.width_m + (1.6 if road.main else verge))
        grid.draw(street, road.points, road.width_m)
        if road.main:
            for k in range(0, len(road.points) - 2, 3):
                grid.draw(line, road.points[k : k + 2], 0.3)
    for road in plan.paths:
        grid.draw(path, road.points, road.width_m)
    lane = resized(plan.lane_m, n, smooth=False)
    dry = 1 - plan.water
    half = np.where(lane > 0, lane / 2, np.float32(-9))
    soft = np.float32(grid.cell_m)
    edge = (half - plan.border_m) / soft + 0.5
    rural = (lane <= 3.0) & (lane > 0)
    track = np.clip(edge, 0, 1) * rural * dry
    edge = np.where(rural, -9, edge)
    asphalt = np.maximum(street / np.float32(255), np.clip(edge, 0, 1))
    pavement = np.maximum(walk / np.float32(255), np.clip(edge + 1.8 / soft, 0, 1))
    white = np.clip((0.18 - plan.border_m) / soft + 0.5, 0, 1) * (lane > 7) * 0.7
    white = np.maximum(white, line / np.float32(255)) * (np.clip(edge, 0, 1) + street / 255 > 0.9)
    wear = fractal(rng, grid, 140.0, 4, 0.6)
    grain = fractal(rng, grid, 2.0, 2)
    patch = _cells(rng, grid, 26.0, fractal(rng, grid, 8.0, 1))
    age = rng.normal(0, 7, int(patch.max()) + 1).astype(np.float32)[patch]
    grey = 97 + 9 * wear + 0.7 * age + 3 * grain
    gravel = (wear, 8.0, (158.0, 146.0, 120.0))
    _cast(colour, track, *gravel)
    _cast(colour, (path / np.float32(255) * dry).astype(np.float32), *gravel)
    _cast(colour, pavement, grey, 0.4, (108.0, 102.0, 94.0))
    _cast(colour, asphalt, grey, 1.0, (0.0, 0.0, 1.5))
    blend(colour, (white * 0.8).astype(np.float32), (214, 214, 208))
    material[(track > 0.5) | (path > 127)] = SOIL
    material[pavement > 0.5] = PAVED
    material[asphalt > 0.5] = ROAD
    over = (pavement > 0.5) & (plan.water > 0.02)
    np.copyto(plan.terrain, plan.bank, where=over)
    covered = np.clip(np.maximum(pavement, track) * 255, 0, 255)
    return np.asarray(covered, dtype=np.uint8)


def _cast(colour: F32, alpha: F32, grey: F32, scale: float, offset: Colour) -> None:
    """Mix a shade of grey, scaled and coloured, into a picture by an (n, n) alpha."""
    flat, share = colour.reshape(-1, 3), alpha.ravel()
    at = np.flatnonzero(share > 0)
    old = flat[at]
    new = grey.ravel()[at, None] * np.float32(scale) + np.array(offset, np.float32)
    flat[at] = old + share[at, None].astype(np.float32) * (new - old)


def _away(plan: Plan, paved: U8) -> tuple[F32, F32]:
    """Direction away from, and distance to, the nearest road at coarse cells."""
    coarse = plan.coarse
    small = cv2.resize(paved, (coarse.n, coarse.n), interpolation=cv2.INTER_AREA)
    free = (np.asarray(small) < 110).astype(np.uint8)
    gap = np.asarray(cv2.distanceTransform(free, cv2.DIST_L2, 5), np.float32) * coarse.cell_m
    soft = cv2.GaussianBlur(gap, (0, 0), 2.5)
    east, south = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    flow = np.stack([east, -np.asarray(south)], axis=-1)
    length = np.maximum(np.linalg.norm(flow, axis=-1, keepdims=True), 1e-6)
    return (flow / length).astype(np.float32), gap.astype(np.float32)
