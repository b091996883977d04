"""What stands in the town: buildings, pads, trees and cars, as lists of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.town.buildings import (
    FLAT,
    SHED,
    Building,
    Pad,
    Plots,
    build,
    deck_colour,
    lay_garden,
    lay_pad,
    tile_colour,
)
from skylink.town.grid import Colour, Rng, fractal
from skylink.town.ground import Ground
from skylink.town.plan import BLOCKS, CENTRE, HOUSES, INDUSTRY, PARK, ROWS, WOOD, Plan

_WHERE = {
    "pad": (INDUSTRY, BLOCKS, CENTRE, PARK, ROWS),
    "large": (INDUSTRY, BLOCKS, CENTRE),
    "small": (HOUSES, ROWS, CENTRE, INDUSTRY),
    "hut": (HOUSES, ROWS, BLOCKS),
}

_NEAR = {  # no building of a stage stands farther from its road, metres, by use
    "large": (33, 43, 0, 0, 50, 0, 0, 0),
    "small": (19, 0, 21, 24, 999, 0, 0, 0),
}

_PAINTS: tuple[Colour, ...] = (
    (222, 222, 222),
    (200, 202, 204),
    (60, 62, 66),
    (40, 42, 46),
    (120, 122, 126),
    (150, 34, 32),
    (44, 66, 118),
    (90, 100, 92),
    (178, 168, 148),
)


@dataclass(frozen=True)
class Things:
    """All of it.

    Attributes:
        buildings: those that stand; `reserve`: plots where `Town.changed` may build.
        pads: painted rectangles.
        trees: (t, 5) float32: x, y, crown radius, height (metres), tone 0..255.
        slots: (s, 4) float32: x, y, angle of places for cars, chance that a car stands there.
        cars: (c, 6) float32: x, y, angle, length, width (metres), number of its paint.
    """

    buildings: tuple[Building, ...]
    reserve: tuple[Building, ...]
    pads: tuple[Pad, ...]
    trees: NDArray[np.float32]
    slots: NDArray[np.float32]
    cars: NDArray[np.float32]


def paint_of(number: float) -> Colour:
    """The colour of a car."""
    return _PAINTS[int(number) % len(_PAINTS)]


def place_things(rng: Rng, plan: Plan, ground: Ground) -> Things:
    """Fill the town: pads, then big buildings, then small ones, then trees and cars."""
    plots = Plots(plan, ground)
    buildings: list[Building] = []
    pads: list[Pad] = []
    area = plan.grid.size_m**2
    for stage, density in (
        ("pad", 1 / 600),
        ("large", 1 / 100),
        ("small", 1 / 20),
        ("hut", 1 / 90),
    ):
        count = int(area * density)
        spots = rng.uniform(-0.5, 0.5, (count, 2)) * plan.grid.size_m
        cell = plan.coarse.at(spots[:, 0], spots[:, 1])
        uses, gaps = plan.uses[plan.district[cell]], ground.road_gap_m[cell]
        fits = np.isin(uses, _WHERE[stage])
        if stage in _NEAR:
            fits &= gaps < np.array(_NEAR[stage])[uses]
        spots, uses, gaps, flows = spots[fits], uses[fits], gaps[fits], ground.flow[cell][fits]
        for (x, y), use, gap, flow in zip(spots, uses, gaps, flows, strict=True):
            if stage == "pad":
                lay_pad(rng, plots, pads, float(x), float(y), int(use), float(gap), flow)
            else:
                built = build(rng, plots, stage, float(x), float(y), int(use), float(gap), flow)
                if built is not None:
                    buildings.append(built)
                    if use == HOUSES and stage == "small" and rng.uniform() < 0.75:
                        lay_garden(rng, plots, pads, built)
    spare = rng.uniform(size=len(buildings)) < 0.04
    trees = _trees(rng, plan, ground, plots)
    slots = _slots(rng, plan, pads)
    return Things(
        tuple(b for b, s in zip(buildings, spare, strict=True) if not s),
        tuple(b for b, s in zip(buildings, spare, strict=True) if s),
        tuple(pads),
        trees,
        slots,
        park_cars(rng, slots),
    )


def _trees(rng: Rng, plan: Plan, ground: Ground, plots: Plots) -> NDArray[np.float32]:
    """Woods, parks, gardens, street trees, hedges and river banks."""
    area = plan.grid.size_m**2
    count = int(area / 17)
    x, y = (rng.uniform(-0.5, 0.5, (2, count))) * plan.grid.size_m
    cell = plan.coarse.at(x, y)
    use, gap = plan.uses[plan.district[cell]], ground.road_gap_m[cell]
    clump = fractal(rng, plan.coarse, 60.0, 3)[cell]
    chance = np.array([0.035, 0.075, 0.075, 0.085, 0.02, 0.0, 0.0, 0.0])[use]
    chance = chance * np.clip(1 + 0.8 * clump, 0.1, 2.5)
    chance = np.where(use == PARK, np.clip(0.5 * (clump - 0.25), 0.02, 0.6), chance)
    chance = np.where(use == WOOD, np.clip(1.6 * (clump + 0.75), 0.03, 1.0), chance)
    street = (gap > 0.5) & (gap < 3.0) & (clump > 0.1)
    chance = np.where(street & (use != WOOD), 0.16, chance)
    row, column = plan.grid.at(x, y)
    border = plan.border_m[row, column]
    chance = np.where((plan.lane_m[cell] < 0) & (border < 2.5), 0.7, chance)
    wet = np.asarray(cv2.GaussianBlur(plan.water, (0, 0), 3.0 / plan.grid.cell_m))[row, column]
    chance = np.where((wet > 0.03) & (wet < 0.35), np.maximum(chance, 0.3), chance)
    keep = (rng.uniform(size=count) < chance) & plots.free(x, y)
    size = np.where(np.isin(use, (HOUSES, ROWS, CENTRE)), 2.3, 3.1) * rng.lognormal(0, 0.3, count)
    radius = np.clip(size, 0.9, 6.0)
    height = radius * rng.uniform(1.8, 3.2, count) + 1.0
    tone = np.clip(rng.normal(128 + 30 * clump, 62, count), 0, 255)
    return np.stack([x, y, radius, height, tone], axis=1)[keep].astype(np.float32)


def _slots(rng: Rng, plan: Plan, pads: list[Pad]) -> NDArray[np.float32]:
    """Where cars may stand: along kerbs, on lanes, in car parks, on drives."""
    out: list[tuple[float, float, float, float]] = []
    odds = {CENTRE: 0.5, BLOCKS: 0.35, ROWS: 0.4, HOUSES: 0.15, INDUSTRY: 0.15}
    for road in plan.roads:
        ahead = np.diff(road.points, axis=0)
        angles = np.arctan2(ahead[:, 1], ahead[:, 0])
        for (x, y), a in zip(road.points[1:], angles, strict=True):
            side = 1.0 if rng.uniform() < 0.5 else -1.0
            lane = rng.uniform() < (0.5 if road.main else 0.12)
            if not lane and (road.main or rng.uniform() < 0.3):
                continue
            off = side * road.width_m * (0.24 if lane else 0.5) - side * (0.0 if lane else 1.1)
            spot = (float(x - off * math.sin(a)), float(y + off * math.cos(a)), float(a))
            out.append((*spot, 0.12 if lane else odds[road.use]))
    for pad in pads:
        c, s = math.cos(pad.angle), math.sin(pad.angle)
        if pad.kind == "drive" and pad.d > pad.w:
            out.append((pad.x, pad.y, pad.angle + math.pi / 2, 0.5))
        elif pad.kind == "parking":
            full = rng.uniform(0.25, 0.9)
            for v in np.arange(-pad.d / 2 + 2.9, pad.d / 2, 11.2 if pad.d < 20 else 9.1):
                for u in np.arange(-pad.w / 2 + 1.6, pad.w / 2 - 1.2, 2.6):
                    x, y = pad.x + u * c - v * s, pad.y + u * s + v * c
                    out.append((float(x), float(y), pad.angle + math.pi / 2, full))
    return np.array(out, dtype=np.float32).reshape(-1, 4)


def park_cars(rng: Rng, slots: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cars in some of the slots; see `Things.cars`."""
    chosen = slots[rng.uniform(size=len(slots)) < slots[:, 3]]
    count = len(chosen)
    big = rng.uniform(size=count) < 0.06
    length = np.where(big, rng.uniform(5.5, 9, count), rng.normal(4.4, 0.3, count))
    width = np.where(big, 2.3, rng.normal(1.85, 0.08, count))
    wobble = rng.normal(0, 0.03, count)
    paint = rng.integers(0, len(_PAINTS), count)
    spots = chosen[:, :2] + rng.normal(0, 0.15, (count, 2))
    columns = [spots[:, 0], spots[:, 1], chosen[:, 2] + wobble, length, width, paint]
    return np.stack(columns, axis=1).astype(np.float32)


def change_things(rng: Rng, things: Things) -> Things:
    """The same town later: cars elsewhere, trees felled, plots built on, roofs renewed."""
    buildings = []
    for building in things.buildings:
        b = building
        roll = rng.uniform()
        if roll < 0.015:
            continue
        if roll < 0.08:
            new = deck_colour(rng) if b.roof in (FLAT, SHED) else tile_colour(rng)
            b = replace(b, colour=new)
        buildings.append(b)
    trees = things.trees[rng.uniform(size=len(things.trees)) > 0.07].copy()
    trees[:, 2:4] *= rng.uniform(0.92, 1.12, (len(trees), 1)).astype(np.float32)
    built = [b for b in things.reserve if rng.uniform() < 0.7]
    left = tuple(b for b in things.reserve if b not in built)
    return replace(
        things,
        buildings=tuple(buildings + built),
        reserve=left,
        trees=trees,
        cars=park_cars(rng, things.slots),
    )
