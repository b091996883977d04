"""A made-up town, from a seed: a satellite map and drone photos of one place.

For the demo and for tests: the map and the photos differ in sun, season and what has changed
since, the photos have true relief and occlusion, and where each was taken is known exactly.
"""

from skylink.town.inputs import Shot, TownInputs, plan_shots, write_inputs
from skylink.town.light import DRONE, SATELLITE, Look
from skylink.town.render import render_map, render_photo, write_map
from skylink.town.world import Town

__all__ = [
    "DRONE",
    "SATELLITE",
    "Look",
    "Shot",
    "Town",
    "TownInputs",
    "plan_shots",
    "render_map",
    "render_photo",
    "write_inputs",
    "write_map",
]
