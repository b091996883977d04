"""Metrics of how far the ranked candidates lie from the truth: SDM in both definitions, Dis@K.

Distances are those of the first candidates of each query, best first. Each function gives one value
a query, which bootstrap intervals need; peers report the mean. A candidate that is missing has the
distance infinity: it adds nothing to an SDM and makes Dis@K infinite. NaN is refused.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

SDM_PER_DEGREE = 5e3
SDM_PER_METRE = 1e-3


def sdm_denseuav(
    *, lon: ArrayLike, lat: ArrayLike, true_lon: ArrayLike, true_lat: ArrayLike, k: int
) -> FloatArray:
    """(Q,) 0..1, SDM@K of DenseUAV (`evaluateDistance.py`).

    sum over i = 0..K-1 of (1 - i/K) exp(-5000 d_i) / sum of (1 - i/K), where d is the Euclidean
    distance in raw degrees: the same metres count for less east to west. The published script
    rounds degrees to float32, 0.7 m steps to the east at its place; here they stay float64.

    Args:
        lon, lat: (Q, K') of the candidates, K' >= k; NaN in both where there is none.
        true_lon, true_lat: (Q,) of the truth.
        k: K.

    Raises:
        ValueError: shapes don't fit, coordinates are float32 (the metre is lost), or a truth is
            NaN.
    """
    for values in (lon, lat, true_lon, true_lat):
        kind = np.asarray(values).dtype
        if kind.kind == "f" and kind.itemsize < 8:
            raise ValueError(f"coordinates are {kind}, which rounds them to about a metre")
    east = np.asarray(lon, np.float64) - _column("true_lon", true_lon)
    north = np.asarray(lat, np.float64) - _column("true_lat", true_lat)
    missing = np.isnan(east) & np.isnan(north)
    return _sdm(np.where(missing, np.inf, np.hypot(east, north)), k, SDM_PER_DEGREE)


def sdm_gta(distance_m: ArrayLike, k: int) -> FloatArray:
    """(Q,) 0..1, SDM@K of GTA-UAV (`game4loc/evaluate/gta.py`).

    sum over i = 0..K-1 of (K - i) exp(-0.001 d_i) / sum of (K - i), d in metres. Its weights are
    DenseUAV's times K; what differs is the distance.

    Args:
        distance_m: (Q, K') metres, K' >= k.
        k: K.
    """
    return _sdm(distance_m, k, SDM_PER_METRE)


def dis_at(distance_m: ArrayLike, k: int) -> FloatArray:
    """(Q,) metres, Dis@K of GTA-UAV: the mean distance of the first K, not the nearest of them.

    Args: as for `sdm_gta`.
    """
    return np.asarray(_first(distance_m, k).mean(axis=1))


def _sdm(distances: ArrayLike, k: int, per_unit: float) -> FloatArray:
    weight = np.arange(k, 0, -1, dtype=np.float64)
    return np.asarray(np.exp(-per_unit * _first(distances, k)) @ weight / weight.sum())


def _first(distances: ArrayLike, k: int) -> FloatArray:
    values = np.asarray(distances, dtype=np.float64)
    if k < 1:
        raise ValueError(f"k = {k} is not at least 1")
    if values.ndim != 2 or not len(values) or values.shape[1] < k:
        raise ValueError(f"distances have the shape {values.shape}, not (Q, {k} or more)")
    if not (values[:, :k] >= 0).all():  # also NaN
        raise ValueError("a distance is negative or NaN")
    return values[:, :k]


def _column(name: str, values: ArrayLike) -> FloatArray:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not np.isfinite(column).all():
        raise ValueError(f"{name} is not (Q,) finite degrees")
    return column[:, None]
