"""Several map sources read as one north-up picture in a local metric frame.

Each pixel's centre is carried exactly (PROJ on a coarse grid, interpolated only where that is
good to a tenth of a source pixel) into the source, which is read as a reduced window (block
averages where it is finer than asked) and sampled bilinearly. GDAL's own warper is not used: it
knows neither several control points in a Mercator map across the antimeridian nor missing blocks.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.geo import LocalFrame
from skylink.mapsource import Locator, MapSource, PixelReader

FloatArray = NDArray[np.float64]
Bounds = tuple[float, float, float, float]

GRID_STEP_PX = 32
MAX_ERROR_PX = 0.1
EDGE_PX = 0.5
MAX_WINDOW_PX = 32_000_000
OPEN_SOURCES = 32


class Mosaic:
    """Sources joined: the first one that is valid at a pixel wins, later ones fill the holes.

    Readers are opened on first use, per thread, and the least used are closed again.

    Args:
        sources: what to read, most wanted first.
        frame: the local metric frame (x east, y north) that reads are made in.
    """

    def __init__(self, sources: Sequence[MapSource], frame: LocalFrame) -> None:
        self.sources = list(sources)
        self.frame = frame
        self._local = threading.local()
        self._locators: dict[int, Locator] = {}
        boxes = []
        for source in self.sources:
            lon, lat = np.array(source.ring).T
            x, y = frame.to_xy(lon=lon, lat=lat)
            # edges bulge between the ring's points, and validity reaches half a pixel out
            margin = 0.01 * max(np.ptp(x), np.ptp(y)) + 2 * source.gsd_m
            boxes.append((x.min() - margin, y.min() - margin, x.max() + margin, y.max() + margin))
        self._boxes = np.array(boxes).reshape(-1, 4)

    def read(
        self, *, x_min: float, y_max: float, gsd_m: float, width_px: int, height_px: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A window of the map.

        Args:
            x_min, y_max: the outer corner of the first pixel, local metres.
            gsd_m: metres a pixel.
            width_px, height_px: size of the result.

        Returns:
            rgb (height_px, width_px, 3) uint8, row 0 in the north, zero where not valid; and
            valid (height_px, width_px) bool.

        Raises:
            MapError: a source is corrupt or cut short.
        """
        rgb = np.zeros((height_px, width_px, 3), dtype=np.uint8)
        valid = np.zeros((height_px, width_px), dtype=bool)
        bounds = (x_min, y_max - height_px * gsd_m, x_min + width_px * gsd_m, y_max)
        for index in self._near(bounds):
            # only the part of the result that the source can reach
            box = self._boxes[index]
            left = max(0, math.floor((box[0] - x_min) / gsd_m))
            right = min(width_px, math.ceil((box[2] - x_min) / gsd_m))
            top = max(0, math.floor((y_max - box[3]) / gsd_m))
            bottom = min(height_px, math.ceil((y_max - box[1]) / gsd_m))
            part = np.s_[top:bottom, left:right]
            if right <= left or bottom <= top or valid[part].all():
                continue
            piece = self._read_source(
                index,
                x_min + left * gsd_m,
                y_max - top * gsd_m,
                gsd_m,
                right - left,
                bottom - top,
            )
            if piece is None:
                continue
            new = piece[1] & ~valid[part]
            rgb[part][new] = piece[0][new]
            valid[part] |= new
        return rgb, valid

    def covers(self, bounds: Bounds) -> bool:
        """False only if surely no source has pixels in (x_min, y_min, x_max, y_max); cheap."""
        x_min, y_min, x_max, y_max = bounds
        xs, ys = np.meshgrid(np.linspace(x_min, x_max, 9), np.linspace(y_min, y_max, 9))
        for index in self._near(bounds):
            source = self.sources[index]
            cols, rows = self._locate(index, xs, ys)
            if not (np.isfinite(cols).all() and np.isfinite(rows).all()):
                return True
            box = []
            for values, size in ((cols, source.width), (rows, source.height)):
                margin = 2 + 0.02 * float(np.ptp(values))
                low = max(0, int(np.floor(values.min() - margin)))
                high = min(size, int(np.ceil(values.max() + margin)))
                box.append((low, high - low))
            (col, width), (row, height) = box
            if width > 0 and height > 0 and self._reader(index).occupied(col, row, width, height):
                return True
        return False

    def place(
        self, *, x_m: FloatArray, y_m: FloatArray, size_m: float
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Which source shows a square, and where in it.

        Args:
            x_m, y_m: (N,) centres of the squares, local metres.
            size_m: their side.

        Returns:
            source (N,) index of the first source whose footprint has the centre, or else of the one
            that shows most of the square, -1 where none does;
            windows (N, 4) (col_off, row_off, width, height) in its pixels, cut to the image.
        """
        chosen = np.full(len(x_m), -1, dtype=np.int32)
        windows = np.zeros((len(x_m), 4), dtype=np.int32)
        if len(x_m) == 0:
            return chosen, windows
        half = size_m / 2
        bounds = (
            float(x_m.min()) - half,
            float(y_m.min()) - half,
            float(x_m.max()) + half,
            float(y_m.max()) + half,
        )
        dx = np.array([0, -half, 0, half, -half, half, -half, 0, half])
        dy = np.array([0, half, half, half, 0, 0, -half, -half, -half])
        best = np.zeros(len(x_m))
        for index in self._near(bounds):
            source = self.sources[index]
            cols, rows = self._locate(index, x_m[:, None] + dx, y_m[:, None] + dy)
            with np.errstate(invalid="ignore"):
                found = np.stack(
                    [
                        np.clip(np.floor(cols.min(axis=1)), 0, source.width),
                        np.clip(np.floor(rows.min(axis=1)), 0, source.height),
                        np.clip(np.ceil(cols.max(axis=1)), 0, source.width),
                        np.clip(np.ceil(rows.max(axis=1)), 0, source.height),
                    ],
                    axis=1,
                )
                found[:, 2:] -= found[:, :2]
                inside = (cols[:, 0] >= 0) & (cols[:, 0] <= source.width)
                inside &= (rows[:, 0] >= 0) & (rows[:, 0] <= source.height)
                score = np.where(inside, np.inf, found[:, 2] * found[:, 3])
                better = (score > best) & np.isfinite(found).all(axis=1)
            best[better] = score[better]
            chosen[better] = index
            windows[better] = found[better]
        return chosen, windows

    def close(self) -> None:
        """Close what this thread has open."""
        for reader in self._opened().values():
            reader.close()
        self._opened().clear()

    def _near(self, bounds: Bounds) -> list[int]:
        x_min, y_min, x_max, y_max = bounds
        b = self._boxes
        hit = (b[:, 0] <= x_max) & (b[:, 2] >= x_min) & (b[:, 1] <= y_max) & (b[:, 3] >= y_min)
        return [int(i) for i in np.flatnonzero(hit)]

    def _opened(self) -> OrderedDict[int, PixelReader]:
        if not hasattr(self._local, "readers"):
            self._local.readers = OrderedDict()
        readers: OrderedDict[int, PixelReader] = self._local.readers
        return readers

    def _reader(self, index: int) -> PixelReader:
        readers = self._opened()
        if index not in readers:
            readers[index] = self.sources[index].open()
            if len(readers) > OPEN_SOURCES:
                readers.popitem(last=False)[1].close()
        readers.move_to_end(index)
        return readers[index]

    def _locate(self, index: int, xs: FloatArray, ys: FloatArray) -> tuple[FloatArray, FloatArray]:
        if index not in self._locators:
            self._locators[index] = self.sources[index].locator(self.frame)
        return self._locators[index](xs, ys)

    def _pixels(
        self, index: int, xs: FloatArray, ys: FloatArray
    ) -> tuple[FloatArray, FloatArray, float, float]:
        """Source coordinates of every pixel centre, and source pixels a result pixel (col, row)."""
        grid_x, grid_y = _nodes(xs), _nodes(ys)
        nodes = self._locate(index, *np.meshgrid(grid_x, grid_y))
        middle_x, middle_y = (grid_x[1:] + grid_x[:-1]) / 2, (grid_y[1:] + grid_y[:-1]) / 2
        exact = self._locate(index, *np.meshgrid(middle_x, middle_y))
        scale = []
        error = 0.0
        for values, truth in zip(nodes, exact, strict=True):
            between = (values[1:, 1:] + values[1:, :-1] + values[:-1, 1:] + values[:-1, :-1]) / 4
            # not finite (outside the CRS's domain) compares as too large, on purpose
            error = max(error, float(np.max(np.abs(between - truth), initial=0.0)))
            error = error if np.isfinite(error) and np.isfinite(between).all() else np.inf
            step_x = max(len(xs) - 1, 1) / (len(grid_x) - 1)
            step_y = max(len(ys) - 1, 1) / (len(grid_y) - 1)
            across = np.diff(values, axis=1)[:-1] / step_x
            down = np.diff(values, axis=0)[:, :-1] / step_y
            rates = np.hypot(across, down)
            rates = rates[np.isfinite(rates)]
            scale.append(float(np.median(rates)) if rates.size else 1.0)
        if error > MAX_ERROR_PX:
            cols, rows = self._locate(index, *np.meshgrid(xs, ys))
        else:
            to_x, to_y = _weights(xs, grid_x), _weights(ys, grid_y)
            cols, rows = (to_y @ values @ to_x.T for values in nodes)
        return cols, rows, scale[0], scale[1]

    def _read_source(
        self, index: int, x_min: float, y_max: float, gsd_m: float, width_px: int, height_px: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        source = self.sources[index]
        xs = x_min + (np.arange(width_px, dtype=np.float64) + 0.5) * gsd_m
        ys = y_max - (np.arange(height_px, dtype=np.float64) + 0.5) * gsd_m
        cols, rows, scale_x, scale_y = self._pixels(index, xs, ys)
        with np.errstate(invalid="ignore"):
            inside = (cols >= -EDGE_PX) & (cols <= source.width + EDGE_PX)
            inside &= (rows >= -EDGE_PX) & (rows <= source.height + EDGE_PX)
        if not inside.any():
            return None
        reader = self._reader(index)
        spans = []
        for values, size, scale in (
            (cols, source.width, scale_x),
            (rows, source.height, scale_y),
        ):
            factor = reader.factor(max(1, min(round(scale), size)))
            spans.append(_span(values[inside], size, factor))
        while (spans[0][1] // spans[0][2]) * (spans[1][1] // spans[1][2]) > MAX_WINDOW_PX:
            axis = 0 if spans[0][1] // spans[0][2] >= spans[1][1] // spans[1][2] else 1
            values, size = ((cols, source.width), (rows, source.height))[axis]
            factor = reader.factor(spans[axis][2] * 2)
            if factor <= spans[axis][2]:
                break
            spans[axis] = _span(values[inside], size, factor)
        (col, width, fx), (row, height, fy) = spans
        if not reader.occupied(col, row, width, height):
            return None
        rgb, valid = reader.read(col, row, width, height, fx=fx, fy=fy)
        if not valid.any():
            return None
        map_x = _clipped((cols - col) / fx - 0.5, rgb.shape[1])
        map_y = _clipped((rows - row) / fy - 0.5, rgb.shape[0])
        return _sample(rgb, valid, map_x, map_y, inside)


def _nodes(values: FloatArray) -> FloatArray:
    """Every 32nd of evenly spaced values with both ends, two at least."""
    count = max(2, -(-len(values) // GRID_STEP_PX) + 1)
    last = values[-1] if len(values) > 1 else values[0] + 1e-3
    return np.linspace(values[0], last, count)


def _weights(values: FloatArray, nodes: FloatArray) -> FloatArray:
    """(len(values), len(nodes)) linear interpolation as a matrix."""
    position = (values - nodes[0]) / (nodes[-1] - nodes[0]) * (len(nodes) - 1)
    low = np.clip(np.floor(position).astype(int), 0, len(nodes) - 2)
    matrix = np.zeros((len(values), len(nodes)))
    at = np.arange(len(values))
    matrix[at, low] = 1 - (position - low)
    matrix[at, low + 1] = position - low
    return matrix


def _span(values: FloatArray, size: int, factor: int) -> tuple[int, int, int]:
    """(offset, length, factor): whole blocks of `factor` pixels around values, in the image."""
    factor = min(factor, size)
    usable = size // factor * factor
    low = int(np.floor(values.min() / factor - 1)) * factor
    high = int(np.ceil(values.max() / factor + 1)) * factor
    low = min(max(low, 0), usable - factor)
    high = min(max(high, low + factor), usable)
    return low, high - low, factor


def _clipped(values: FloatArray, size: int) -> NDArray[np.float32]:
    """Coordinates inside the window: the outermost pixels reach to the image's edge."""
    return np.clip(np.nan_to_num(values, nan=0.0), 0, size - 1).astype(np.float32)


def _sample(
    rgb: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    map_x: NDArray[np.float32],
    map_y: NDArray[np.float32],
    inside: NDArray[np.bool_],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Bilinear samples; pixels that are not valid do not bleed into those that are."""
    border = cv2.BORDER_REPLICATE
    if valid.all():
        out = cv2.remap(rgb, map_x, map_y, cv2.INTER_LINEAR, borderMode=border)
        keep = inside
    else:
        weight = valid.astype(np.float32)
        summed = cv2.remap(
            rgb.astype(np.float32) * weight[..., None],
            map_x,
            map_y,
            cv2.INTER_LINEAR,
            borderMode=border,
        )
        share = cv2.remap(weight, map_x, map_y, cv2.INTER_LINEAR, borderMode=border)
        keep = inside & (share >= 0.5)
        out = np.rint(summed / np.maximum(share, 0.5)[..., None]).clip(0, 255).astype(np.uint8)
    result = np.asarray(out, dtype=np.uint8)
    result[~keep] = 0
    return result, keep
