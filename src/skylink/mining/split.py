"""Queries in parts that share no place: to hold some back, or to mine in folds.

Neighbouring photos show the same ground, so that a draw query by query would leave the answers of
one part in the other. Queries with a position are cut along a straight line in a direction that the
seed draws; others go by the gallery images that answer them, which stay together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skylink.errors import OptionError

Parts = NDArray[np.int64]
LEFT_OUT = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sites:
    """Where Q queries are: by position or by place.

    Attributes:
        xy_m: (Q, 2) float64 in one plane, metres; None: there are no positions.
        reach_m: queries farther apart than this, along x or along y, share no ground.
        place: (Q,) names of places; only used where there are no positions.
    """

    xy_m: NDArray[np.float64] | None = None
    reach_m: float = 0.0
    place: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.xy_m if self.xy_m is not None else self.place or ())


def hold_out(sites: Sites, fraction: float, *, seed: int = 0) -> Parts:
    """(Q,) int64: 0 mined, 1 held out, -1 neither, for it is too near to what is held out.

    Args:
        sites: where the queries are.
        fraction: of the queries, about: whole places are held out.
        seed: draws the direction, or the places.

    Raises:
        OptionError: nothing would be left on one of the sides.
    """
    if not 0 < fraction < 1:
        raise OptionError(f"held-out {fraction!r} is not a share between 0 and 1", hint="0.1")
    if sites.xy_m is None:
        parts = _by_place(sites, [1 - fraction, fraction], seed)
    else:
        along = _along(sites.xy_m, seed)
        held = max(1, round(fraction * len(along)))
        parts = (along >= np.sort(along)[-held]).astype(np.int64)
        parts[_shares_ground(sites, parts == 1)] = LEFT_OUT
    for part, what in ((0, "to mine"), (1, "to hold out")):
        if not (parts == part).any():
            raise OptionError(
                f"no query is left {what}: {len(sites)} queries have too few places apart",
                hint="another --held-out or --seed, or mine other photos for validation",
            )
    return np.asarray(parts, dtype=np.int64)


def fold_of(sites: Sites, folds: int, *, seed: int = 0) -> Parts:
    """(Q,) int64, 0..folds-1: about equal folds; arguments as for `hold_out`.

    Raises:
        OptionError: there are fewer places than folds.
    """
    if folds < 2:
        raise OptionError(f"{folds} folds are none", hint="--folds 5")
    if sites.xy_m is None:
        parts = _by_place(sites, [1 / folds] * folds, seed)
    else:
        order = np.argsort(_along(sites.xy_m, seed), kind="stable")
        parts = np.empty(len(order), np.int64)
        parts[order] = np.arange(len(order)) * folds // len(order)
    if len(np.unique(parts)) < folds:
        raise OptionError(
            f"{len(sites)} queries have too few places for {folds} folds", hint="--folds 2"
        )
    return parts


def components(answers: Sequence[Sequence[int]]) -> list[str]:
    """Names of places: queries that share an answer, over any number of others, share a place.

    Args:
        answers: for each query, the gallery rows that are right; at least one.
    """
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        parent.setdefault(row, row)
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for rows in answers:
        first = root(rows[0])
        for row in rows[1:]:
            parent[root(row)] = first
    return [str(root(rows[0])) for rows in answers]


def _along(xy_m: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Positions along a direction that the seed draws."""
    turn = 2 * math.pi * np.random.default_rng(seed).random()
    return np.asarray(xy_m @ np.array([math.sin(turn), math.cos(turn)]), dtype=np.float64)


def _shares_ground(sites: Sites, held: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of the queries that are not held and not out of reach of all that are."""
    assert sites.xy_m is not None
    others, there = np.flatnonzero(~held), sites.xy_m[held]
    there = there[np.argsort(there[:, 0])]
    near = []
    for query in others:
        x, y = sites.xy_m[query]
        first, last = np.searchsorted(there[:, 0], [x - sites.reach_m, x + sites.reach_m])
        if (np.abs(there[first : last + 1] - (x, y)) <= sites.reach_m).all(axis=1).any():
            near.append(query)
    return np.array(near, dtype=np.int64)


def _by_place(sites: Sites, shares: Sequence[float], seed: int) -> Parts:
    """Whole places, in an order that depends on their names and the seed alone, to whichever part
    is emptiest by its share."""
    names = np.array(list(sites.place or ()), dtype=np.str_)
    places, which, sizes = np.unique(names, return_inverse=True, return_counts=True)
    keys = [hashlib.sha256(f"{seed}:{place}".encode()).digest() for place in places.tolist()]
    filled = np.zeros(len(shares))
    part_of = np.empty(len(places), np.int64)
    for index in sorted(range(len(places)), key=keys.__getitem__):
        part = int(np.argmin((filled + sizes[index]) / np.array(shares)))
        part_of[index] = part
        filled[part] += sizes[index]
    return part_of[which]
