"""Where things go: districts and their uses, the river, the road network, the lie of the land."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skylink.town.grid import F32, Grid, Rng, fractal, resized

CENTRE, BLOCKS, ROWS, HOUSES, INDUSTRY, PARK, FARM, WOOD = range(8)
URBAN = (CENTRE, BLOCKS, ROWS, HOUSES, INDUSTRY)

_STREETS = {  # use: (between streets, between cross streets, width), metres
    CENTRE: ((48, 78), (60, 115), 7.0),
    BLOCKS: ((75, 115), (90, 170), 6.5),
    ROWS: ((40, 58), (70, 150), 5.5),
    HOUSES: ((44, 68), (70, 170), 5.0),
    INDUSTRY: ((95, 150), (120, 220), 8.0),
}


@dataclass(frozen=True)
class Road:
    """A road's middle line, (N, 2) float64 metres; its width; its district's use; if it is main."""

    points: NDArray[np.float64]
    width_m: float
    use: int
    main: bool = False


@dataclass(frozen=True)
class Plan:
    """The town on paper.

    Attributes:
        grid: the cells.
        coarse: cells of about 2 m for the fields below that are `coarse`.
        uses: (districts,) land use of each.
        district: coarse, (m, m) int32; which district a place is in.
        warped: coarse, (m, m, 2) float32; district coordinates, bent by noise, metres.
        border_m: (n, n) float32; distance to the border of the district.
        lane_m: coarse, (m, m) float32; width of the road on that border; 0 none, -1 a hedge.
        water: (n, n) float32 in 0..1.
        roads: middle lines of streets and main roads, and `paths` of parks.
        bank, terrain: (n, n) float32 elevation without and with the river's bed, metres.
    """

    grid: Grid
    coarse: Grid
    uses: NDArray[np.int64]
    district: NDArray[np.int32]
    warped: F32
    border_m: F32
    lane_m: F32
    water: F32
    roads: list[Road]
    paths: list[Road]
    bank: F32
    terrain: F32


def make_plan(rng: Rng, grid: Grid) -> Plan:
    """Lay out a town on the grid."""
    coarse = grid.coarse(2.0)
    seeds = _seeds(rng, grid.size_m)
    uses = _uses(rng, seeds, grid.size_m)
    x, y = coarse.axes()
    bend = [
        fractal(rng, coarse, 170.0, 2) * 17 + fractal(rng, coarse, 45.0, 2) * 2.5 for _ in range(2)
    ]
    warped = np.stack([x[None, :] + bend[0], y[:, None] + bend[1]], axis=-1)
    district, second, border = _districts(seeds, warped)
    lanes = _lanes(rng, uses)
    water = _water(rng, grid, coarse)
    wet = resized(water, coarse.n) > 0.05
    roads = _main_roads(rng, grid.size_m)
    paths: list[Road] = []
    for i, seed in enumerate(seeds):
        use = int(uses[i])
        here = (district == i) & ~wet
        if use in _STREETS:
            roads += _streets(rng, coarse, here, seed, use)
        elif use in (PARK, WOOD):
            paths += _paths(rng, coarse, here, seed, use)
    hills = fractal(rng, coarse, 520.0, 3, 0.4) * 3.0
    bank = resized(hills - np.float32(hills.min()), grid.n)
    return Plan(
        grid=grid,
        coarse=coarse,
        uses=uses,
        district=district,
        warped=warped,
        border_m=resized(border, grid.n),
        lane_m=lanes[district, second],
        water=water,
        roads=roads,
        paths=paths,
        bank=bank,
        terrain=bank - np.float32(2.5) * np.clip(water, 0, 1),
    )


def _seeds(rng: Rng, size_m: float) -> NDArray[np.float64]:
    """(districts, 2) points, apart from each other but on no lattice."""
    count = max(4, round((size_m / 185) ** 2))
    points = [rng.uniform(-0.08, 0.08, 2) * size_m]
    while len(points) < count:
        tries = rng.uniform(-0.56, 0.56, (4, 2)) * size_m
        gaps = np.linalg.norm(tries[:, None] - np.array(points)[None], axis=2).min(axis=1)
        points.append(tries[int(gaps.argmax())])
    return np.array(points)


def _uses(rng: Rng, seeds: NDArray[np.float64], size_m: float) -> NDArray[np.int64]:
    """What each district is for: dense in the middle, fields and woods outside."""
    inner = ((HOUSES, 0.3), (ROWS, 0.22), (BLOCKS, 0.18), (PARK, 0.14), (INDUSTRY, 0.16))
    outer = ((FARM, 0.34), (HOUSES, 0.24), (WOOD, 0.18), (INDUSTRY, 0.12), (ROWS, 0.12))
    uses = np.zeros(len(seeds), dtype=np.int64)
    order = np.argsort(np.linalg.norm(seeds, axis=1))
    for rank, i in enumerate(order):
        share = inner if np.linalg.norm(seeds[i]) < 0.33 * size_m else outer
        kinds, odds = zip(*share, strict=True)
        uses[i] = CENTRE if rank == 0 else rng.choice(kinds, p=odds)
    wanted = (HOUSES, CENTRE, PARK, BLOCKS, ROWS, INDUSTRY)
    for i, use in zip(order[1:], wanted, strict=False):
        if use not in uses[order[1:]]:
            uses[i] = use
    if WOOD not in uses:
        uses[order[-1]] = WOOD
    return uses


def _districts(
    seeds: NDArray[np.float64], warped: F32
) -> tuple[NDArray[np.int32], NDArray[np.int32], F32]:
    """Nearest and second nearest seed of every place, and the distance to their border."""
    shape = warped.shape[:2]
    first, second = np.full(shape, np.inf, np.float32), np.full(shape, np.inf, np.float32)
    i1, i2 = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for i, (sx, sy) in enumerate(seeds.astype(np.float32)):
        d = (warped[..., 0] - sx) ** 2 + (warped[..., 1] - sy) ** 2
        nearest = d < first
        second = np.where(nearest, first, np.minimum(second, d))
        i2 = np.where(nearest, i1, np.where(d <= second, i, i2)).astype(np.int32)
        first = np.where(nearest, d, first)
        i1 = np.where(nearest, i, i1).astype(np.int32)
    apart = np.linalg.norm(seeds[i1] - seeds[i2], axis=-1).astype(np.float32)
    return i1, i2, (second - first) / (2 * np.maximum(apart, 1))


def _lanes(rng: Rng, uses: NDArray[np.int64]) -> F32:
    """(districts, districts) symmetric: the road on the border of two, see `Plan.lane_m`."""
    count = len(uses)
    table = np.zeros((count, count), np.float32)
    for a in range(count):
        for b in range(a):
            urban = (uses[a] in URBAN) + (uses[b] in URBAN)
            roll = rng.uniform()
            if urban == 2:
                lane = 8.0 if roll < 0.4 else 6.5
            elif urban == 1:
                lane = 6.0 if roll < 0.75 else 3.0
            else:
                lane = 3.0 if roll < 0.5 else (-1.0 if roll < 0.8 else 0.0)
            table[a, b] = table[b, a] = lane
    return table


def _winding(rng: Rng, size_m: float, angle: float, aside_m: float, bend_m: float) -> F32:
    """(N, 2) points of a winding line across the town and beyond."""
    s = np.arange(-0.8 * size_m, 0.8 * size_m, 5.0)
    lateral = np.full_like(s, aside_m)
    for wave in (900.0, 420.0, 190.0):
        size = bend_m * wave / 900.0 * rng.uniform(0.5, 1.0)
        lateral += size * np.sin(
            2 * math.pi * s / (wave * rng.uniform(0.8, 1.2)) + rng.uniform(0, 7)
        )
    ahead, left = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
    return np.stack([s * ahead[k] + lateral * left[k] for k in (0, 1)], axis=1).astype(np.float32)


def _water(rng: Rng, grid: Grid, coarse: Grid) -> F32:
    """(n, n) float32 in 0..1: a river of changing width and a lake."""
    line = _winding(rng, grid.size_m, rng.uniform(0, math.pi), 0.2 * grid.size_m, 90.0)
    x, y = coarse.axes()
    gap = np.full((coarse.n, coarse.n), np.inf, np.float32)
    for px, py in line[::2]:
        half = 40.0
        (r1, r0), (c0, c1) = (
            (np.searchsorted(-y, (-(py - half), -(py + half)))),
            np.searchsorted(x, (px - half, px + half)),
        )
        window = gap[r0:r1, c0:c1]
        d = np.hypot(x[None, c0:c1] - px, y[r0:r1, None] - py)
        np.minimum(window, d, out=window)
    width = 8.5 + fractal(rng, coarse, 90.0, 3) * 1.8
    river = np.where(np.isfinite(gap), width - gap, -50.0)
    lx, ly = rng.uniform(-0.4, 0.4, 2) * grid.size_m
    radius = 0.035 * grid.size_m
    lake = radius - np.hypot((x[None, :] - lx) * 0.75, y[:, None] - ly)
    lake = lake + fractal(rng, coarse, 60.0, 3) * 0.22 * radius
    shore = np.maximum(river, lake).astype(np.float32)
    return np.asarray(np.clip(resized(shore, grid.n) / 0.8 + 0.5, 0, 1), np.float32)


def _main_roads(rng: Rng, size_m: float) -> list[Road]:
    """Two or three roads across the whole town."""
    first = rng.uniform(0, math.pi)
    angles = [first, first + rng.uniform(1.1, 1.9)]
    if size_m > 700:
        angles.append(first + rng.uniform(0.3, 0.7))
    return [
        Road(
            _winding(rng, size_m, a, rng.uniform(-0.22, 0.22) * size_m, 70.0).astype(np.float64),
            10.5 if k == 0 else 8.5,
            CENTRE,
            main=True,
        )
        for k, a in enumerate(angles)
    ]


def _spaced(rng: Rng, low: float, high: float, reach: float) -> list[float]:
    """Irregular positions over -reach..reach."""
    out, at = [], -reach + rng.uniform(0, high)
    while at < reach:
        out.append(at)
        at += rng.uniform(low, high) * (1.5 if rng.uniform() < 0.1 else 1.0)
    return out


def _runs(
    coarse: Grid, here: NDArray[np.bool_], points: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """The stretches of a line that lie `here`, those of 20 m and more (points are 4 m apart)."""
    half = coarse.size_m / 2
    inside = here[coarse.at(points[:, 0], points[:, 1])] & (np.abs(points) < half).all(axis=1)
    edges = np.flatnonzero(np.diff(np.r_[False, inside, False].astype(np.int8)))
    return [points[max(0, a - 1) : b + 1] for a, b in edges.reshape(-1, 2) if b - a >= 5]


def _streets(
    rng: Rng, coarse: Grid, here: NDArray[np.bool_], seed: NDArray[np.float64], use: int
) -> list[Road]:
    """A bent, uneven net of streets in one district."""
    (gap_low, gap_high), (cross_low, cross_high), width = _STREETS[use]
    angle, reach = rng.uniform(0, math.pi), 230.0
    curve, wave, phase = rng.uniform(-0.0016, 0.0016), rng.uniform(60, 140), rng.uniform(0, 7)
    c, s = math.cos(angle), math.sin(angle)

    def place(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
        bent = u + curve * v**2 + 3.0 * np.sin(v / wave * 3 + phase)
        across = v + 3.0 * np.sin(u / wave * 3 + phase * 2)
        return np.stack([seed[0] + bent * c - across * s, seed[1] + bent * s + across * c], axis=1)

    along = np.arange(-reach, reach, 4.0)
    lines = _spaced(rng, gap_low, gap_high, reach)
    roads = []
    for k, u in enumerate(lines):
        pieces = [place(np.full_like(along, u), along)]
        if k + 1 < len(lines):
            across = np.append(np.arange(u, lines[k + 1], 4.0), lines[k + 1])
            skew = rng.uniform(-0.25, 0.25)
            pieces += [
                place(across, v + skew * (across - u))
                for v in _spaced(rng, cross_low, cross_high, reach)
                if rng.uniform() > 0.1
            ]
        for piece in pieces:
            stretch = piece[: -int(rng.integers(8, 30))] if rng.uniform() < 0.12 else piece
            wide = width * rng.uniform(0.85, 1.2)
            roads += [Road(run, wide, use) for run in _runs(coarse, here, stretch)]
    return roads


def _paths(
    rng: Rng, coarse: Grid, here: NDArray[np.bool_], seed: NDArray[np.float64], use: int
) -> list[Road]:
    """Winding footpaths."""
    out = []
    for _ in range(5 if use == PARK else 2):
        line = _winding(rng, 350.0, rng.uniform(0, math.pi), rng.uniform(-60, 60), 60.0)
        points = line.astype(np.float64) + seed
        out += [Road(run, rng.uniform(1.6, 3.0), use) for run in _runs(coarse, here, points)]
    return out
