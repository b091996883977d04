"""At which scores dense search doubts a heading: those of the base, carried over to a head.

A head's scores have another scale than the base's, whose thresholds were found on real flights.
On held-out maps, the head's threshold is the score that as many right places lie below as below the
base's; the margin is scaled with the spread of the scores.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skylink.embedded.bank import Bank
from skylink.embedded.head import relational
from skylink.embedded.sampling import standardised
from skylink.embedded.surface import surfaces
from skylink.retrievers.dense import FITS_BETTER, UNSURE

MAPS = 256
BATCH = 8


def doubts(bank: Bank, head: nn.Module) -> tuple[float, float]:
    """(unsure, fits better) of a head; see `retrievers/dense.py`.

    Args:
        bank: held out.
        head: on (..., C) standardised cells.
    """
    rng = np.random.default_rng(0)
    maps = rng.permutation(len(bank))[:MAPS]
    base, learnt = best_scores(bank, maps, None), best_scores(bank, maps, head)
    below = float((base < UNSURE).mean())
    unsure = float(np.quantile(learnt, below))
    margin = FITS_BETTER * float(learnt.std() / max(float(base.std()), 1e-6))
    return min(max(unsure, 0.0), 1.0), min(max(margin, 0.0), 1.0)


@torch.no_grad()
def best_scores(bank: Bank, maps: NDArray[np.int64], head: nn.Module | None) -> NDArray[np.float32]:
    """(N * V,) highest score of each view on its own map."""
    found = []
    for first in range(0, len(maps), BATCH):
        rows = bank.rows(maps[first : first + BATCH])
        ground, ground_valid, seen, seen_valid = standardised(rows, list(range(bank.views)))
        cells, kernels = relational(head, ground, ground_valid), relational(head, seen, seen_valid)
        for number in range(len(rows)):
            own = slice(number * bank.views, (number + 1) * bank.views)
            scores = surfaces(cells[number : number + 1], kernels[own], seen_valid[own])
            found.append(scores.flatten(1).amax(1).numpy())
    return np.concatenate(found)
