"""Drawing for evidence pictures: a canvas with text, and map panels that know where metres are."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from skylink.types import Surface

U8 = NDArray[np.uint8]
Colour = tuple[int, int, int]
Point = tuple[float, float]

BACKGROUND: Colour = (17, 20, 26)
PANEL: Colour = (29, 33, 41)
EDGE: Colour = (58, 65, 78)
TEXT: Colour = (233, 236, 241)
FAINT: Colour = (148, 158, 174)
FOUND: Colour = (64, 224, 255)
CAMERA: Colour = (255, 206, 84)
TRUTH: Colour = (120, 255, 130)
WHITE: Colour = (255, 255, 255)
_SHIFT = 4
"""Fractional bits of OpenCV's drawing coordinates."""


@lru_cache(maxsize=32)
def font(size: int, *, bold: bool = False) -> Any:
    """DejaVu Sans as matplotlib carries it: Latin, Greek, Cyrillic, signs. No import needed."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


class Canvas:
    """An RGB picture to put pictures, boxes and text on; (x, y) in pixels from the top left."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), BACKGROUND)
        self._draw = ImageDraw.Draw(self.image, "RGBA")

    def picture(
        self, x: int, y: int, rgb: U8, *, edge: Colour | None = EDGE, width: int = 1
    ) -> None:
        """Paste an (H, W, 3) picture with a thin frame around it."""
        self.image.paste(Image.fromarray(np.ascontiguousarray(rgb)), (x, y))
        if edge is not None:
            h, w = rgb.shape[:2]
            self._draw.rectangle(
                (x - width, y - width, x + w + width - 1, y + h + width - 1),
                outline=edge,
                width=width,
            )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 15,
        bold: bool = False,
        colour: Colour = TEXT,
        anchor: str = "ls",
        max_width: float | None = None,
        halo: bool = False,
    ) -> float:
        """Write one line, shortened to `max_width`; returns where it ends."""
        face = font(size, bold=bold)
        if max_width is not None and self.width(words, size=size, bold=bold) > max_width:
            while words and self.width(words + "…", size=size, bold=bold) > max_width:
                words = words[:-1]
            words = words.rstrip() + "…"
        stroke: dict[str, Any] = {"stroke_width": 2, "stroke_fill": (0, 0, 0, 170)} if halo else {}
        self._draw.text((x, y), words, font=face, fill=colour, anchor=anchor, **stroke)
        return x + self.width(words, size=size, bold=bold)

    def width(self, words: str, *, size: int = 15, bold: bool = False) -> float:
        """How wide a line would be, pixels."""
        return float(font(size, bold=bold).getlength(words))

    def box(
        self, x: float, y: float, w: float, h: float, *, fill: tuple[int, ...], radius: int = 6
    ) -> None:
        """A filled box with round corners; the fill may have an alpha."""
        self._draw.rounded_rectangle((x, y, x + w, y + h), radius=radius, fill=fill)

    def label(
        self, x: float, y: float, words: str, *, size: int = 13, colour: Colour = TEXT
    ) -> None:
        """Text on a dark, half transparent box whose top left corner is (x, y)."""
        wide = self.width(words, size=size)
        self.box(x, y, wide + 14, size + 11, fill=(0, 0, 0, 165), radius=5)
        self.text(x + 7, y + (size + 11) / 2, words, size=size, colour=colour, anchor="lm")


def contain(rgb: U8, width: int, height: int) -> U8:
    """The picture as large as it fits into width x height."""
    scale = min(width / rgb.shape[1], height / rgb.shape[0])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, size, interpolation=how), dtype=np.uint8)


def hatched(height: int, width: int) -> U8:
    """The ground of a panel where there is nothing to see: dark with faint diagonal lines."""
    rows, cols = np.mgrid[0:height, 0:width]
    lines = ((rows + cols) % 12 < 2)[..., None]
    return np.where(lines, np.array(PANEL), np.array(BACKGROUND)).astype(np.uint8)


def over_hatching(rgb: U8, valid: NDArray[np.bool_]) -> U8:
    """The picture where valid, hatching elsewhere."""
    return np.where(valid[..., None], rgb, hatched(*valid.shape)).astype(np.uint8)


class MapPanel:
    """A part of the map, north up, that things can be drawn on by local metres.

    Args:
        rgb: (H, W, 3) the map, changed in place.
        x_m, y_m: local metres of the panel's centre.
        gsd_m: metres a pixel.
    """

    def __init__(self, rgb: U8, *, x_m: float, y_m: float, gsd_m: float) -> None:
        self.rgb = np.ascontiguousarray(rgb)
        self.height, self.width = rgb.shape[:2]
        self.x_m, self.y_m, self.gsd_m = x_m, y_m, gsd_m

    def pixel(self, x_m: float, y_m: float) -> Point:
        """Panel pixels of a local point; may lie outside."""
        return (
            (self.width - 1) / 2 + (x_m - self.x_m) / self.gsd_m,
            (self.height - 1) / 2 - (y_m - self.y_m) / self.gsd_m,
        )

    def shows(self, x_m: float, y_m: float) -> bool:
        """Whether a local point is on the panel."""
        u, v = self.pixel(x_m, y_m)
        return bool(0 <= u < self.width and 0 <= v < self.height)

    def heat(self, surface: Surface) -> tuple[float, float]:
        """Lay the match scores over the map; returns the scores that look lowest and highest."""
        finite = np.isfinite(surface.score)
        grey = self.rgb.mean(axis=2, keepdims=True)
        dull = (0.35 * self.rgb + 0.65 * grey) * 0.7
        if not finite.any():
            self.rgb = dull.astype(np.uint8)
            return 0.0, 0.0
        known = surface.score[finite]
        low, high = float(np.percentile(known, 60)), float(known.max())
        # the peak stands far above the rest; the power lets people see the landscape around it
        share = np.clip((surface.score - low) / max(high - low, 1e-9), 0, 1) ** 0.65
        share[~finite] = 0
        step = self.gsd_m / surface.cell_m
        left = (self.x_m - (self.width - 1) / 2 * self.gsd_m - surface.x0_m) / surface.cell_m
        top = (surface.y0_m - self.y_m - (self.height - 1) / 2 * self.gsd_m) / surface.cell_m
        matrix = np.array([[step, 0, left], [0, step, top]])
        size = (self.width, self.height)

        def on_panel(values: NDArray[np.float32], how: int) -> NDArray[np.float32]:
            flags = how | cv2.WARP_INVERSE_MAP
            return np.asarray(cv2.warpAffine(values, matrix, size, flags=flags), np.float32)

        t = np.clip(on_panel(share.astype(np.float32), cv2.INTER_CUBIC), 0, 1)
        searched = on_panel(finite.astype(np.float32), cv2.INTER_NEAREST)[..., None] > 0.5
        colours = _colours(t).astype(np.float32)
        alpha = (0.85 * t**0.7)[..., None]
        mixed = np.where(searched, dull * (1 - alpha) + colours * alpha, dull * 0.6)
        self.rgb = np.ascontiguousarray(np.clip(mixed, 0, 255).astype(np.uint8))
        return low, high

    def line(
        self,
        points: Sequence[Point],
        *,
        colour: Colour,
        width: int = 2,
        closed: bool = False,
        fill: float = 0.0,
    ) -> None:
        """A line through local points; `fill` is the opacity of what it encloses."""
        pixels = np.array([self.pixel(x, y) for x, y in points])
        if not np.isfinite(pixels).all():
            return
        fixed = _fixed(np.clip(pixels, -8000, 8000))
        if fill > 0:
            layer = self.rgb.copy()
            cv2.fillPoly(layer, [fixed], colour, cv2.LINE_AA, _SHIFT)
            cv2.addWeighted(layer, fill, self.rgb, 1 - fill, 0, dst=self.rgb)
        for thick, shade in ((width + 2, (0, 0, 0)), (width, colour)):
            layer = self.rgb if shade == colour else self.rgb.copy()
            cv2.polylines(layer, [fixed], closed, shade, thick, cv2.LINE_AA, _SHIFT)
            if shade != colour:
                cv2.addWeighted(layer, 0.45, self.rgb, 0.55, 0, dst=self.rgb)

    def circle(
        self, x_m: float, y_m: float, radius_m: float, *, colour: Colour, fill: float = 0.16
    ) -> None:
        """A circle of a radius in metres, filled faintly."""
        angles = np.linspace(0, 2 * math.pi, 96, endpoint=False)
        ring = [(x_m + radius_m * math.cos(a), y_m + radius_m * math.sin(a)) for a in angles]
        self.line(ring, colour=colour, closed=True, fill=fill)

    def dot(
        self, x_m: float, y_m: float, *, colour: Colour, radius_px: float = 6, ring: bool = False
    ) -> None:
        """A dot (or ring) of a size in pixels, with a dark edge."""
        u, v = self.pixel(x_m, y_m)
        if not (math.isfinite(u) and math.isfinite(v) and max(abs(u), abs(v)) < 30_000):
            return
        centre = tuple(int(c) for c in _fixed(np.array([u, v])))
        size = round(radius_px * 2**_SHIFT)
        if ring:
            cv2.circle(self.rgb, centre, size, (0, 0, 0), 4, cv2.LINE_AA, _SHIFT)
            cv2.circle(self.rgb, centre, size, colour, 2, cv2.LINE_AA, _SHIFT)
            return
        cv2.circle(self.rgb, centre, size + (2 << _SHIFT), (0, 0, 0), -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(self.rgb, centre, size, colour, -1, cv2.LINE_AA, _SHIFT)

    def cross(self, x_m: float, y_m: float, *, colour: Colour, size_px: float = 9) -> None:
        """A diagonal cross of a size in pixels."""
        d = size_px * self.gsd_m
        self.line([(x_m - d, y_m - d), (x_m + d, y_m + d)], colour=colour, width=3)
        self.line([(x_m - d, y_m + d), (x_m + d, y_m - d)], colour=colour, width=3)


def _fixed(pixels: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.asarray(np.rint(pixels * 2**_SHIFT), dtype=np.int32)


def _colours(t: NDArray[np.float32]) -> U8:
    """(H, W) in 0..1 as RGB, dark violet over red to pale yellow."""
    # the map's darkest fifth would be lost on a dark map
    bgr = cv2.applyColorMap((51 + t * 204).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(bgr[..., ::-1])


def colour_bar(width: int, height: int) -> U8:
    """The colours of `MapPanel.heat`, low to high."""
    return _colours(np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1)))


def scale_bar(canvas: Canvas, x: int, y: int, panel: MapPanel) -> None:
    """A scale bar and a north arrow in the lower corners of a panel whose corner is (x, y)."""
    longest = 0.3 * panel.width * panel.gsd_m
    unit = 10.0 ** math.floor(math.log10(longest))
    length = max(f * unit for f in (1, 2, 5) if f * unit <= longest)
    words = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    bar = length / panel.gsd_m
    left, bottom = x + 14, y + panel.height - 14
    canvas.box(left - 7, bottom - 28, max(bar, 60) + 14, 35, fill=(0, 0, 0, 150), radius=5)
    canvas.text(left, bottom - 10, words, size=12)
    canvas.box(left, bottom - 4, bar, 4, fill=WHITE, radius=0)
    middle, base = x + panel.width - 24, y + panel.height - 14
    canvas.box(middle - 13, base - 40, 26, 47, fill=(0, 0, 0, 150), radius=5)
    canvas.text(middle, base, "N", size=13, bold=True, anchor="ms")
    canvas.text(middle, base - 12, "▲", size=18, anchor="ms")
