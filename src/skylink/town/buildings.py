"""Buildings and painted ground: how they are chosen, sized and fitted in beside their roads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.town.grid import U8, Colour, Rng
from skylink.town.ground import Ground
from skylink.town.plan import BLOCKS, CENTRE, HOUSES, INDUSTRY, PARK, ROWS, Plan

FLAT, GABLE, HIP, SHED = range(4)
PLAIN, ELL, COURT = range(3)
_PROBE = {CENTRE: 7.0, ROWS: 8.0, HOUSES: 8.5}  # metres from the road where any house stands

_TILES: tuple[Colour, ...] = (
    (150, 84, 64),
    (166, 98, 74),
    (132, 76, 62),
    (118, 84, 72),
    (96, 88, 86),
    (84, 82, 84),
    (122, 116, 110),
    (140, 106, 82),
    (176, 116, 88),
)
_DECKS: tuple[Colour, ...] = (
    (168, 166, 162),
    (140, 138, 135),
    (112, 110, 108),
    (188, 186, 180),
    (150, 140, 126),
    (96, 100, 104),
    (124, 132, 110),
    (206, 205, 200),
    (128, 140, 152),
)
_WALLS: tuple[Colour, ...] = (
    (206, 198, 182),
    (190, 178, 158),
    (178, 150, 128),
    (214, 210, 202),
    (160, 120, 100),
    (186, 186, 184),
    (200, 180, 140),
    (150, 146, 140),
)


@dataclass(frozen=True, slots=True)
class Building:
    """A building; w along `angle` (radians, counter-clockwise from east), d across; metres."""

    x: float
    y: float
    w: float
    d: float
    angle: float
    eaves_m: float
    rise_m: float
    roof: int
    shape: int
    colour: Colour
    wall: Colour
    seed: int


@dataclass(frozen=True, slots=True)
class Pad:
    """A painted rectangle on the ground: `kind` is drive, parking, pitch, court or pool."""

    x: float
    y: float
    w: float
    d: float
    angle: float
    kind: str
    seed: int


class Plots:
    """Which ground is taken, in cells of about 1 m."""

    def __init__(self, plan: Plan, ground: Ground) -> None:
        self.grid = plan.grid.coarse(1.0)
        n, self.half = self.grid.n, self.grid.size_m / 2
        small = np.asarray(cv2.resize(ground.paved, (n, n), interpolation=cv2.INTER_AREA))
        wet = np.asarray(cv2.resize(plan.water, (n, n), interpolation=cv2.INTER_AREA))
        self.taken: U8 = ((small > 60) | (wet > 0.1)).astype(np.uint8)

    def busy(self, x: float, y: float) -> bool:
        """Whether a point is taken or off the map."""
        column = int((x + self.half) / self.grid.cell_m)
        row = int((self.half - y) / self.grid.cell_m)
        n = self.grid.n
        return not (0 < row < n - 1 and 0 < column < n - 1) or bool(self.taken[row, column])

    def take(self, x: float, y: float, w: float, d: float, angle: float, gap: float) -> bool:
        """Claim a rectangle with `gap` metres around it, if all of it is free and on the map."""
        c, s = math.cos(angle), math.sin(angle)
        for u, v in ((0, 0), (w, d), (-w, d), (-w, -d), (w, -d)):
            if self.busy(x + (u * c - v * s) / 2, y + (u * s + v * c) / 2):
                return False
        patch = self.grid.patch(x, y, w + 2 * gap, d + 2 * gap, angle)
        if patch is None:
            return False
        inside = (np.abs(patch.u) <= w / 2 + gap) & (np.abs(patch.v) <= d / 2 + gap)
        window = self.taken[patch.window]
        if bool((window[inside] > 0).any()):
            return False
        window[(np.abs(patch.u) <= w / 2) & (np.abs(patch.v) <= d / 2)] = 1
        return True

    def free(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the points are free."""
        return np.asarray(self.taken[self.grid.at(x, y)] == 0)


def _toward(
    gap: float, wanted: float, x: float, y: float, flow: NDArray[np.float32]
) -> tuple[float, float]:
    """The point moved straight away from the road until it is `wanted` metres from it."""
    step = wanted - gap
    return x + step * float(flow[0]), y + step * float(flow[1])


def _pick(rng: Rng, colours: tuple[Colour, ...]) -> Colour:
    base = np.array(colours[int(rng.integers(len(colours)))])
    r, g, b = base * rng.uniform(0.88, 1.1) + rng.normal(0, 3, 3)
    return float(r), float(g), float(b)


def deck_colour(rng: Rng) -> Colour:
    """A flat roof's colour."""
    return _pick(rng, _DECKS)


def tile_colour(rng: Rng) -> Colour:
    """A pitched roof's colour."""
    return _pick(rng, _TILES)


def build(
    rng: Rng,
    plots: Plots,
    stage: str,
    x: float,
    y: float,
    use: int,
    gap: float,
    flow: NDArray[np.float32],
) -> Building | None:
    """Try to put up a building near a spot, lined up with its road."""
    if stage == "small" and plots.busy(*_toward(gap, _PROBE.get(use, gap), x, y, flow)):
        return None
    angle = math.atan2(float(flow[1]), float(flow[0])) - math.pi / 2
    margin, shape, roof, rise = 2.5, PLAIN, FLAT, 0.0
    if stage == "large":
        if use == INDUSTRY:
            w, d, eaves = rng.uniform(28, 74), rng.uniform(20, 46), rng.uniform(6, 12)
            front, margin = rng.uniform(7, 16), 6.0
            shape = ELL if rng.uniform() < 0.3 else PLAIN
            if rng.uniform() < 0.3:
                roof, rise = GABLE, rng.uniform(1.5, 3.5)
        elif use == BLOCKS:
            w, d = rng.uniform(30, 62), rng.uniform(11, 15)
            eaves, front, margin = 3.0 * rng.integers(4, 11), rng.uniform(5, 12), 9.0
            if rng.uniform() < 0.3:
                w, d, shape = rng.uniform(34, 46), rng.uniform(30, 40), ELL
        elif use == CENTRE and rng.uniform() < 0.5:
            w, d, eaves = rng.uniform(28, 44), rng.uniform(26, 38), rng.uniform(10, 19)
            shape, front, margin = COURT if rng.uniform() < 0.6 else ELL, 1.0, 0.5
            if rng.uniform() < 0.55:
                roof, rise = GABLE, rng.uniform(3, 4.5)
        else:
            return None
    elif stage == "small":
        if use == HOUSES:
            w, d, eaves = rng.uniform(9, 15), rng.uniform(7.5, 11), rng.uniform(2.8, 6.0)
            front, margin = 4.0 + 2.5 * math.sin(x / 37 + y / 53), rng.uniform(1.6, 3.5)
            roof = int(rng.choice([GABLE, HIP, FLAT], p=[0.62, 0.22, 0.16]))
            rise = 0.0 if roof == FLAT else rng.uniform(2.0, 3.8)
            if rng.uniform() < 0.28:
                shape, d = ELL, d * 1.35
            if rng.uniform() < 0.3 and d > 8.5:
                angle += math.pi / 2
                w, d = d, w
                front += (d - w) / 2
        elif use == ROWS:
            w, d, eaves = rng.uniform(16, 46), rng.uniform(8, 10.5), rng.uniform(5.5, 8.5)
            front, roof, rise = rng.uniform(3, 5), GABLE, rng.uniform(2.4, 3.6)
            if rng.uniform() < 0.18:
                roof, rise = FLAT, 0.0
        elif use == CENTRE:
            w, d, eaves = rng.uniform(9, 24), rng.uniform(10, 14), rng.uniform(8, 17)
            front, margin = 1.5, 0.2
            if rng.uniform() < 0.65:
                roof, rise = (GABLE if rng.uniform() < 0.7 else HIP), rng.uniform(3, 4.5)
        elif use == INDUSTRY and rng.uniform() < 0.12:
            w, d, eaves, front = rng.uniform(10, 20), rng.uniform(8, 14), rng.uniform(4, 7), gap
        else:
            return None
    else:
        if use not in (HOUSES, ROWS, BLOCKS) or gap < 10:
            return None
        w, d, eaves, front = rng.uniform(3, 6.5), rng.uniform(2.6, 4), rng.uniform(2, 2.8), gap
        roof, rise, margin = SHED, 0.6, 1.0
    wanted = front + d / 2
    if abs(wanted - gap) > 11:
        return None
    x, y = _toward(gap, wanted, x, y, flow)
    angle += float(rng.normal(0, 0.02))
    if not plots.take(x, y, w, d, angle, margin):
        return None
    return Building(
        x, y, float(w), float(d), angle, float(eaves), float(rise), roof, shape,
        _pick(rng, _DECKS if roof in (FLAT, SHED) or use == INDUSTRY else _TILES),
        _pick(rng, _WALLS), int(rng.integers(1 << 30)),
    )  # fmt: skip


def lay_pad(
    rng: Rng,
    plots: Plots,
    pads: list[Pad],
    x: float,
    y: float,
    use: int,
    gap: float,
    flow: NDArray[np.float32],
) -> None:
    """Try to lay a car park or a sports ground."""
    angle = math.atan2(float(flow[1]), float(flow[0])) - math.pi / 2
    roll, kind = rng.uniform(), "parking"
    if use in (INDUSTRY, BLOCKS, CENTRE) and roll < 0.5:
        w, d = rng.uniform(18, 58), float(rng.choice([17.0, 17.0, 33.0]))
    elif use == PARK and roll < 0.2:
        kind, w, d, angle = "pitch", rng.uniform(60, 100), rng.uniform(42, 64), rng.uniform(0, 3)
    elif use in (PARK, ROWS) and roll < 0.3:
        kind, w, d = "court", 34.0, 17.0
    else:
        return
    wanted = d / 2 + rng.uniform(1, 4)
    if kind == "parking":
        if abs(wanted - gap) > 30:
            return
        x, y = _toward(gap, wanted, x, y, flow)
    if plots.take(x, y, w, d, angle, 2.0):
        pads.append(Pad(x, y, w, d, angle, kind, int(rng.integers(1 << 30))))


def lay_garden(rng: Rng, plots: Plots, pads: list[Pad], house: Building) -> None:
    """A drive beside the house, sometimes a pool or terrace behind it."""
    c, s = math.cos(house.angle), math.sin(house.angle)
    side = rng.choice([-1, 1]) * (house.w / 2 + 1.8)
    reach = house.d / 2 + 3.0
    x, y = house.x + side * c + reach / 2 * s, house.y + side * s - reach / 2 * c
    seed = int(rng.integers(1 << 30))
    pads.append(Pad(x, y, rng.uniform(2.6, 3.6), reach + house.d / 2, house.angle, "drive", seed))
    if rng.uniform() < 0.3:
        away, aside = house.d / 2 + rng.uniform(3.5, 9), rng.uniform(-4, 4)
        x, y = house.x + aside * c - away * s, house.y + aside * s + away * c
        w, d = rng.uniform(5, 9), rng.uniform(3, 4.5)
        if plots.take(x, y, w, d, house.angle, 0.5):
            kind = "pool" if rng.uniform() < 0.5 else "drive"
            pads.append(Pad(x, y, w, d, house.angle, kind, seed + 1))
