"""Sun, shadow and season: the town's cells as they are lit, before any camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from skylink.town.grid import F32, U8, Colour
from skylink.town.ground import CROP, GRASS, ROOF, TREE

Season = Literal["spring", "summer", "autumn"]


@dataclass(frozen=True, kw_only=True)
class Look:
    """The light, the season and the camera's rendering.

    Attributes:
        sun_azimuth_deg: where the sun stands, degrees clockwise from north.
        sun_elevation_deg: its height above the horizon, degrees in 5..85.
        season: how vegetation looks.
        exposure: factor on linear light; 1 is neutral.
        skylight: share of a flat lit ground's light that comes from the sky, 0..1; it is all
            that shadows get.
        haze: extinction a kilometre of air.
        colour_cast: factors on red, green, blue.
        saturation: 1 leaves colours alone, 0 is grey.
        noise: sensor noise, standard deviation in 0..255 levels.
    """

    sun_azimuth_deg: float = 152.0
    sun_elevation_deg: float = 52.0
    season: Season = "summer"
    exposure: float = 1.0
    skylight: float = 0.28
    haze: float = 0.1
    colour_cast: Colour = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    noise: float = 1.5

    @property
    def sun(self) -> tuple[float, float, float]:
        """Unit vector to the sun: east, north, up."""
        a, e = math.radians(self.sun_azimuth_deg), math.radians(self.sun_elevation_deg)
        return math.sin(a) * math.cos(e), math.cos(a) * math.cos(e), math.sin(e)


SATELLITE = Look(haze=0.0, exposure=0.96, saturation=0.9, colour_cast=(0.98, 1.0, 1.02))
"""The map's look: late morning in summer."""

DRONE = Look(
    sun_azimuth_deg=228.0,
    sun_elevation_deg=36.0,
    season="autumn",
    exposure=1.12,
    skylight=0.36,
    haze=0.35,
    colour_cast=(1.05, 1.0, 0.93),
    saturation=1.1,
    noise=2.5,
)
"""The photos' look: an autumn afternoon, warmer, hazier, with longer shadows."""

SKY_TINT = np.array([0.90, 1.0, 1.16], dtype=np.float32)
SUN_TINT = np.array([1.04, 1.0, 0.93], dtype=np.float32)


@dataclass(frozen=True)
class Light:
    """The lit town.

    Attributes:
        lit: (n, n, 3) float32 linear RGB, 1 is white; as seen from straight above.
        shade_m: (n, n) float32; below this elevation a point at the cell is in shadow.
    """

    lit: F32
    shade_m: F32


def linear(colour: U8 | F32) -> F32:
    """Colours 0..255 as linear light 0..1 (gamma 2: near sRGB and cheap)."""
    scaled = np.asarray(colour, dtype=np.float32) / np.float32(255)
    return scaled * scaled


def display(light: F32, look: Look) -> F32:
    """Linear light as 0..255 float32 with the look's exposure, cast and saturation."""
    cast = np.array(look.colour_cast, np.float32) * np.float32(look.exposure)
    out = np.sqrt(np.maximum(light * cast, 0))
    out = out + (out - out.mean(axis=-1, keepdims=True)) * np.float32(look.saturation - 1)
    bright = np.maximum(out - np.float32(0.8), 0)
    out = np.minimum(out, np.float32(0.8)) + bright / (1 + np.float32(1.6) * bright)
    return np.asarray(out * np.float32(255), np.float32)


def shine(look: Look, *, cell_m: float, height: F32, colour: U8, material: U8, tone: U8) -> Light:
    """Light the cells."""
    shade = _shade_m(look, cell_m, height)
    east, north, up = look.sun
    gx, gy = (_slope(height, axis) / np.float32(cell_m) for axis in (1, 0))
    rim = (material == ROOF) & ((np.abs(gx) > 2) | (np.abs(gy) > 2))
    gx, gy = (np.where(rim, 0, np.clip(g, -1.8, 1.8)) for g in (gx, gy))
    facing = (up - gx * east + gy * north) / np.sqrt(1 + gx * gx + gy * gy)
    under = np.clip((shade - height) * np.float32(1.6) - np.float32(0.15), 0, 1)
    shadow = np.asarray(cv2.GaussianBlur(under, (0, 0), max(0.4, 0.3 / cell_m)), np.float32)
    sun = np.clip(facing, 0, None) / np.float32(up) * (1 - shadow)
    albedo = linear(seasoned(look, colour, material, tone))
    sky = np.float32(look.skylight) * _openness(height, cell_m)
    albedo *= sky[..., None] * SKY_TINT + sun[..., None] * (
        SUN_TINT * np.float32(1 - look.skylight)
    )
    return Light(lit=albedo, shade_m=shade)


def _shade_m(look: Look, cell_m: float, height: F32) -> F32:
    """The elevation under which a cell's column of air lies in shadow: doubling steps sunward."""
    east, north, up = look.sun
    fall = up / math.hypot(east, north) * cell_m
    reach = (float(height.max() - height.min()) + 1) / fall
    ground = math.hypot(east, north)
    dx, dy = east / ground, -north / ground

    def moved(field: F32, steps: float) -> F32:
        shift = np.array([[1, 0, round(dx * steps)], [0, 1, round(dy * steps)]], np.float32)
        size = (field.shape[1], field.shape[0])
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        out = cv2.warpAffine(field, shift, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(out, np.float32) - np.float32(fall * steps)

    shade, steps = moved(height, 1.0), 1.0
    while steps < reach:
        shade = np.maximum(shade, moved(shade, steps))
        steps *= 2
    return shade


def _slope(height: F32, axis: int) -> F32:
    """Height change a cell along an axis, the gentler side's: roofs keep their own slope."""
    step = np.diff(height, axis=axis)
    pad = [(0, 0), (0, 0)]
    pad[axis] = (1, 0)
    before = np.pad(step, pad, mode="edge")
    pad[axis] = (0, 1)
    after = np.pad(step, pad, mode="edge")
    return np.where(np.abs(before) < np.abs(after), before, after)


def _openness(height: F32, cell_m: float) -> F32:
    """How much sky a place sees, 0.55..1.1: darker beside walls and under trees."""
    around = cv2.GaussianBlur(
        cv2.resize(height, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        (0, 0),
        1.5 / cell_m,
    )
    full = np.asarray(cv2.resize(around, height.shape[::-1]), np.float32)
    return np.asarray(np.clip(1 - np.float32(0.055) * (full - height), 0.55, 1.1), np.float32)


def seasoned(look: Look, colour: U8, material: U8, tone: U8) -> F32:
    """(n, n, 3) float32 0..255: the colours as the season has them."""
    out = colour.astype(np.float32)
    if look.season == "summer":
        return out
    flat, kinds = out.reshape(-1, 3), material.ravel()
    tree, crop, grass = (np.flatnonzero(kinds == k) for k in (TREE, CROP, GRASS))
    if look.season == "spring":
        flat[tree] *= np.array([0.98, 1.08, 0.92], np.float32)
        flat[grass] *= np.array([0.98, 1.08, 0.92], np.float32)
        flat[crop] *= np.array([0.72, 0.98, 0.72], np.float32)
        return out
    own = tone.ravel().astype(np.float32)[:, None] / np.float32(255)
    leaf, age = flat[tree], own[tree]
    red, yellow = (np.array(c, np.float32) for c in ((1.62, 1.02, 0.44), (1.36, 1.06, 0.62)))
    turned = _grey(leaf) * (red + age * (yellow - red))
    flat[tree] = leaf + np.clip((age - 0.35) * 1.7, 0, 0.9) * (turned - leaf)
    flat[grass] *= np.array([1.07, 1.0, 0.84], np.float32)
    cut = crop[own[crop, 0] > 0.5]  # harvested
    field = flat[cut]
    soil = _grey(field) * (np.array([1.2, 0.98, 0.78], np.float32) * (0.7 + 0.4 * own[cut]))
    flat[cut] = field + np.float32(0.8) * (soil - field)
    return out


def _grey(colour: F32) -> F32:
    """(N, 1) mean of (N, 3) colours."""
    return np.asarray(colour @ np.full((3, 1), 1 / 3, np.float32), np.float32)
