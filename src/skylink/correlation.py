"""Masked cross-correlation of query kernels with a map's feature raster.

`SpectralMap` does it everywhere at once by overlap-save FFT: spectra of overlapping blocks of the
map are kept, and each frequency is one small matrix product (kernels x channels) @ (channels x
blocks), so that many headings and scales share the work. `correlate_direct` is the plain form: the
oracle of the tests, and cheaper for a window of a few cells.

Positions: index (r, c) of a surface is the view whose centre lies at cell coordinates
(r + k/2 - k//2, c + k/2 - k//2), measured from the top left *corner* of the raster: for the usual
even k, the corner between cells. A surface is thus one longer than the raster on each axis.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BLOCK = 64
"""FFT side. With kernels of 14 cells, 51 of 64 outputs are of use on each axis."""


def correlate_direct(features: Floats, kernels: Floats) -> Floats:
    """(H, R + 1 - k % 2, C + 1 - k % 2) float32 sums of products, zero beyond the raster.

    Args:
        features: (R, C, K) float32; zero where the map is not valid.
        kernels: (H, k, k, K) float32; zero where the view is not valid.
    """
    k = kernels.shape[1]
    pad = k // 2
    padded = np.pad(features, ((pad, pad), (pad, pad), (0, 0)))
    rows, columns = padded.shape[0] - k + 1, padded.shape[1] - k + 1
    out = np.zeros((len(kernels), rows, columns), dtype=np.float32)
    for i in range(k):
        for j in range(k):
            window = padded[i : i + rows, j : j + columns]
            out += np.moveaxis(window @ kernels[:, i, j].T, 2, 0)
    return out


def correlate_window(features: Floats, kernel: Floats) -> Floats:
    """Valid part only, (R - k + 1, C - k + 1) float32: for a few cells around a peak."""
    k = kernel.shape[0]
    rows, columns = features.shape[0] - k + 1, features.shape[1] - k + 1
    flat = np.ascontiguousarray(kernel).reshape(-1)
    out = np.empty((rows, columns), np.float32)
    for row in range(rows):
        for column in range(columns):
            out[row, column] = features[row : row + k, column : column + k].reshape(-1) @ flat
    return out


@lru_cache(maxsize=8)
def _dft(n: int, k: int) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Conjugate DFT matrices of a zero-padded kernel: rows (n, k) and columns (k, n/2 + 1).

    As matrix products they are several times faster than FFTs of blocks that are mostly zero.
    """
    rows = np.exp(2j * np.pi * np.outer(np.arange(n), np.arange(k)) / n)
    columns = np.exp(2j * np.pi * np.outer(np.arange(k), np.arange(n // 2 + 1)) / n)
    return rows.astype(np.complex64), columns.astype(np.complex64)


class SpectralMap:
    """The spectra of a feature raster, for kernels of one size.

    Args:
        features: (R, C, K) float16 or float32; zero where the map is not valid. Not kept.
        kernel: cells along a kernel's side (k).

    Memory: about 8 bytes x K x (64 / (65 - k))^2 / 2 a cell; `nbytes` tells.
    """

    def __init__(self, features: NDArray[np.floating], kernel: int) -> None:
        if not 1 <= kernel <= BLOCK:
            raise ValueError(f"kernels of {kernel} cells don't fit into blocks of {BLOCK}")
        self.kernel = kernel
        self.step = BLOCK - kernel + 1
        pad = kernel // 2
        rows, columns, channels = features.shape
        self.shape = (rows + 2 * pad - kernel + 1, columns + 2 * pad - kernel + 1)
        self._grid = (-(-self.shape[0] // self.step), -(-self.shape[1] // self.step))
        blocks = self._grid[0] * self._grid[1]
        self._spectra = np.empty((BLOCK * (BLOCK // 2 + 1), channels, blocks), np.complex64)
        for index in range(blocks):
            top = index // self._grid[1] * self.step - pad
            left = index % self._grid[1] * self.step - pad
            block = np.zeros((BLOCK, BLOCK, channels), np.float32)
            r0, c0 = max(0, top), max(0, left)
            r1, c1 = min(rows, top + BLOCK), min(columns, left + BLOCK)
            block[r0 - top : r1 - top, c0 - left : c1 - left] = features[r0:r1, c0:c1]
            spectrum = np.fft.rfft2(block, axes=(1, 0))  # halves axis 0 (the last of `axes`)
            self._spectra[:, :, index] = spectrum.transpose(1, 0, 2).reshape(-1, channels)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._spectra.nbytes

    def correlate(self, kernels: Floats) -> Floats:
        """Same as `correlate_direct` on the features given at construction, to about 1e-6."""
        count, k = kernels.shape[:2]
        if k != self.kernel:
            raise ValueError(f"kernels of {k} cells, spectra are for {self.kernel}")
        rows, columns = _dft(BLOCK, k)
        # spectra are laid out (column frequency, row frequency): transform accordingly
        planes = kernels.transpose(0, 3, 2, 1).astype(np.complex64)  # (H, K, column, row)
        spectra = rows @ (planes @ columns)
        spectra = spectra.reshape(count, kernels.shape[3], -1).transpose(2, 0, 1)
        product = np.matmul(np.ascontiguousarray(spectra), self._spectra)  # (F, H, blocks)
        half = product.transpose(1, 2, 0).reshape(count, -1, BLOCK, BLOCK // 2 + 1)
        tiles = np.fft.irfft2(half, s=(BLOCK, BLOCK), axes=(2, 3))  # (H, blocks, column, row)
        tiles = tiles[:, :, : self.step, : self.step].transpose(0, 1, 3, 2)
        grid = tiles.reshape(count, *self._grid, self.step, self.step).transpose(0, 1, 3, 2, 4)
        whole = grid.reshape(count, self._grid[0] * self.step, self._grid[1] * self.step)
        return np.ascontiguousarray(whole[:, : self.shape[0], : self.shape[1]], dtype=np.float32)
