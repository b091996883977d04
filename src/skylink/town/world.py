"""The town: what lies and stands where, generated from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skylink.errors import OptionError
from skylink.geo import LocalFrame
from skylink.town.grid import F32, U8, Grid
from skylink.town.ground import Ground, paint_ground
from skylink.town.light import Light, Look, shine
from skylink.town.plan import make_plan
from skylink.town.stamp import Canvas, byte_colour, stamp_things
from skylink.town.things import Things, change_things, place_things

LON, LAT = 9.4132, 48.2715
"""Where the town lies unless told otherwise, WGS 84 degrees: a place in open farmland."""


@dataclass(frozen=True, eq=False)
class Town:
    """A generated town on an (n, n) grid; row 0 is north, column 0 is west.

    Attributes:
        seed: what it was generated from.
        grid: the cells; `grid.cell_m` metres each, `grid.size_m` metres a side.
        frame: local metres around the town's centre, x east, y north.
        terrain: (n, n) float32 metres, the bare ground (bridges included).
        height: (n, n) float32 metres, the top of whatever stands there.
        colour: (n, n, 3) uint8 RGB under even light in summer.
        material: (n, n) uint8, `skylink.town.ground` SOIL .. CAR.
        tone: (n, n) uint8, the parcel's or tree's own number: how the season changes it.
        owner: (n, n) uint16, 1 + index of the building in `things`, 0 where there is none.
        things: what stands there, as lists.
    """

    seed: int
    grid: Grid
    frame: LocalFrame
    terrain: F32
    height: F32
    colour: U8
    material: U8
    tone: U8
    owner: NDArray[np.uint16]
    things: Things
    _ground: Ground = field(repr=False)
    _lights: dict[Look, Light] = field(default_factory=dict, repr=False)

    @classmethod
    def generate(
        cls,
        *,
        seed: int = 7,
        size_m: float = 1200.0,
        cell_m: float = 0.5,
        lon: float = LON,
        lat: float = LAT,
    ) -> Town:
        """Make the town of a seed: the same arguments give the same bytes.

        Args:
            seed: any non-negative integer.
            size_m: side of the square, metres; 200 to 4000.
            cell_m: side of a cell, metres; 0.25 to 2.
            lon, lat: the town's centre, WGS 84 degrees.

        Raises:
            OptionError: a size out of range.
        """
        if not 200 <= size_m <= 4000:
            raise OptionError(f"town size {size_m:g} m is not in 200..4000 m")
        if not 0.25 <= cell_m <= 2:
            raise OptionError(f"town cell {cell_m:g} m is not in 0.25..2 m")
        if seed < 0:
            raise OptionError(f"town seed {seed} is negative")
        rng = np.random.default_rng([20, seed])
        plan = make_plan(rng, Grid(round(size_m / cell_m), cell_m))
        ground = paint_ground(rng, plan)
        things = place_things(rng, plan, ground)
        frame = LocalFrame(lon, lat)
        return _raise(seed, plan.grid, frame, plan.terrain, ground, things)

    @property
    def cell_m(self) -> float:
        """Metres a cell."""
        return self.grid.cell_m

    @property
    def size_m(self) -> float:
        """Side of the town, metres."""
        return self.grid.size_m

    def changed(self, seed: int) -> Town:
        """The same place later: cars moved, trees felled, houses built, gone or re-roofed.

        Args:
            seed: which later; another seed changes other things.
        """
        things = change_things(np.random.default_rng([21, self.seed, seed]), self.things)
        return _raise(self.seed, self.grid, self.frame, self.terrain, self._ground, things)

    def ground_m(self, *, x_m: float, y_m: float) -> float:
        """Elevation of the bare ground at a point of `frame`, metres."""
        row, column = self.grid.at(x_m, y_m)
        return float(self.terrain[row, column])

    def light(self, look: Look) -> Light:
        """The town lit for a look (the last one is kept: photos of a flight share it)."""
        if look not in self._lights:
            self._lights.clear()
            self._lights[look] = shine(
                look,
                cell_m=self.cell_m,
                height=self.height,
                colour=self.colour,
                material=self.material,
                tone=self.tone,
            )
        return self._lights[look]


def _raise(
    seed: int, grid: Grid, frame: LocalFrame, terrain: F32, ground: Ground, things: Things
) -> Town:
    """Put `things` on the ground."""
    canvas = Canvas(
        grid=grid,
        terrain=terrain,
        height=terrain.copy(),
        colour=ground.colour.copy(),
        material=ground.material.copy(),
        tone=ground.tone.copy(),
        owner=np.zeros((grid.n, grid.n), np.uint16),
    )
    stamp_things(canvas, things)
    return Town(
        seed=seed,
        grid=grid,
        frame=frame,
        terrain=terrain,
        height=canvas.height,
        colour=byte_colour(canvas.colour),
        material=canvas.material,
        tone=canvas.tone,
        owner=canvas.owner,
        things=things,
        _ground=ground,
    )
