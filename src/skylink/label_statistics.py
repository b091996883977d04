"""What a set of soft labels looks like, and whether anything can be learnt from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from skylink.errors import QueriesError


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStatistics:
    """What a set of labels looks like.

    Attributes:
        lists, candidates: how many.
        soft_share: share of lists with a label above 0 beside the ground truth's.
        one_hot_share: share of lists with at most one label above 0.
        entropy: mean entropy of the labels normalised to sum 1, nats.
        relative_entropy: the same by its maximum log K: 0 is one-hot, 1 all alike.
        histogram: candidates beside the ground truth: with label 0, then in ten equal bins
            (0, 0.1], ..., (0.9, 1].
        collapsed: every list is one-hot: soft losses are the hard one.
    """

    lists: int
    candidates: int
    soft_share: float
    one_hot_share: float
    entropy: float
    relative_entropy: float
    histogram: tuple[int, ...]
    collapsed: bool

    @property
    def note(self) -> str:
        """What is wrong with these labels, in words; empty where nothing is."""
        if self.collapsed:
            return (
                "labels collapsed: every list is one-hot, so soft labels are hard ones; lower the "
                "threshold, choose it by a quantile, or take another source"
            )
        if self.relative_entropy > 0.98:
            return (
                "labels are nearly flat: they hardly tell the ground truth from the others; raise "
                "the threshold, choose it by a quantile, or take another source"
            )
        return ""


class LabelCounter:
    """Gathers `LabelStatistics` list by list; nothing of the lists is kept."""

    def __init__(self) -> None:
        self._lists = self._candidates = self._soft = self._one_hot = 0
        self._entropy = self._relative = 0.0
        self._histogram = np.zeros(11, np.int64)

    def add(self, labels: ArrayLike, ground_truth: ArrayLike) -> None:
        """Count the labels (K,) of a list and its ground truth (K,) bool."""
        w, right = np.asarray(labels, dtype=np.float64), np.asarray(ground_truth, dtype=bool)
        p = w[w > 0] / w.sum()
        entropy = abs(float((p * np.log(p)).sum()))
        self._lists += 1
        self._candidates += len(w)
        self._soft += bool((w[~right] > 0).any())
        self._one_hot += len(p) <= 1
        self._entropy += entropy
        self._relative += entropy / math.log(len(w)) if len(w) > 1 else 0.0
        bins = np.ceil(np.round(w[~right], 6) * 10).astype(np.int64)  # 0.3 as float32 is not above
        self._histogram += np.bincount(np.clip(bins, w[~right] > 0, 10), minlength=11)

    def statistics(self) -> LabelStatistics:
        """What was counted so far. Raises QueriesError where there was no list."""
        if not self._lists:
            raise QueriesError("there are no lists: labels have no statistics")
        return LabelStatistics(
            lists=self._lists,
            candidates=self._candidates,
            soft_share=self._soft / self._lists,
            one_hot_share=self._one_hot / self._lists,
            entropy=self._entropy / self._lists,
            relative_entropy=self._relative / self._lists,
            histogram=tuple(self._histogram.tolist()),
            collapsed=self._one_hot == self._lists,
        )
