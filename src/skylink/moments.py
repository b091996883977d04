"""Means, deviations and covariances of many vectors, batch by batch, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Moments:
    """Running mean and sum of squared deviations (Chan's update: no cancellation).

    Args:
        dimensions: D.
        full: keep the whole (D, D) covariance, not only its diagonal.
    """

    def __init__(self, dimensions: int, *, full: bool) -> None:
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(dimensions)
        self._full = full
        self._squares: NDArray[np.float64] = np.zeros((dimensions,) * (2 if full else 1))

    def add(self, rows: ArrayLike) -> None:
        """Take in (N, D) vectors."""
        values = np.asarray(rows, dtype=np.float64)
        n = len(values)
        if n == 0:
            return
        mean = values.mean(axis=0)
        centred = values - mean
        step = mean - self.mean
        weight = self.count * n / (self.count + n)
        if self._full:
            self._squares += centred.T @ centred + weight * np.outer(step, step)
        else:
            self._squares += (centred**2).sum(axis=0) + weight * step**2
        self.mean = self.mean + step * (n / (self.count + n))
        self.count += n

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(D, D), or the (D,) variances where not `full`; over N, zero where nothing came in."""
        return self._squares / max(self.count, 1)
