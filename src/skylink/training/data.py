"""Mined lists in the order in which training and validation see them.

What a step sees is a function of the seed and the step alone: position p of the training is list
p mod N of epoch p // N, whose order is a permutation by seed and epoch, and candidates are drawn by
seed, epoch and list. A run can therefore go on from any step, on any number of processes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skylink.errors import QueriesError
from skylink.label_statistics import LabelCounter, LabelStatistics
from skylink.loss_registry import Loss
from skylink.mined import MinedList
from skylink.minedfile import MinedFile, leakage
from skylink.soft_labels import SoftLabels
from skylink.training.config import Data, Labels

ORDER, DRAW = 0, 1
"""Streams of random numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pick:
    """Candidates of a list, for a step or for validation.

    Attributes:
        key: names the list among all that this process knows: (file, number).
        mined: the list, with the labels that are learnt.
        rows: which of its candidates, ascending.
        tolerance_m: a place this near to the true one is right; None: the ground truth is.
    """

    key: tuple[str, int]
    mined: MinedList
    rows: tuple[int, ...]
    tolerance_m: float | None = None

    @property
    def labels(self) -> NDArray[np.float32]:
        """(len(rows),) float32."""
        return self.mined.labels[list(self.rows)]

    @property
    def right(self) -> NDArray[np.bool_]:
        """(len(rows),) which of them count as right."""
        return self.mined.right(self.tolerance_m)[list(self.rows)]


class TrainingLists:
    """What is learnt from; see the module.

    Args:
        data, labels: of the configuration.
        loss: lists that can't teach it anything are left out.
        seed: of order and draws.

    Attributes:
        file: the lists.
        statistics: of the labels that are learnt.
        left_out: lists without a right candidate, or with nothing to learn from.
        pictures: paths of all pictures, relative to the dataset's folder.
        needs_gallery: whether candidates are places on a map.

    Raises:
        QueriesError: the lists can't be read, are of the test split, can't be labelled as asked
            for, or none can be learnt from.
    """

    def __init__(self, data: Data, labels: Labels, loss: Loss, *, seed: int) -> None:
        self.file = MinedFile(data.train)
        refuse_test_split(self.file)
        self._size, self._negatives, self._seed = data.list_size, data.negatives, seed
        self._soft = _soft_labels(labels, self.file)
        self.pictures: set[str] = set()
        self.needs_gallery = False
        counter, kept = LabelCounter(), []
        for number, mined in enumerate(self.file):
            right = mined.ground_truth
            if not right.any():
                continue
            pick = self._pick(number, mined, epoch=0)
            if not _teaches(loss, pick.labels):
                continue
            counter.add(pick.mined.labels, right)
            kept.append(number)
            self.pictures |= {mined.path, *(c.path for c in mined.candidates if c.path)}
            self.needs_gallery |= any(c.path is None for c in mined.candidates)
        if not kept:
            raise QueriesError(
                f"{data.train}: none of its {len(self.file):,} lists can teach the loss "
                f"{loss.name!r} anything: no right candidate, or all labels alike",
                hint="mine lists with the ground truth forced in, or choose another loss",
            )
        self._kept = np.array(kept)
        self.left_out = len(self.file) - len(kept)
        self.statistics: LabelStatistics = counter.statistics()
        self._epoch, self._order = -1, self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def at(self, position: int) -> Pick:
        """What position `position` of the whole training sees."""
        epoch, place = divmod(position, len(self))
        if epoch != self._epoch:
            draw = np.random.default_rng((self._seed, ORDER, epoch))
            self._epoch, self._order = epoch, draw.permutation(self._kept)
        number = int(self._order[place])
        return self._pick(number, self.file[number], epoch=epoch)

    def _pick(self, number: int, mined: MinedList, *, epoch: int) -> Pick:
        draw = np.random.default_rng((self._seed, DRAW, epoch, number))
        rows = choose(mined.ground_truth, self._size, self._negatives, draw)
        labelled = mined if self._soft is None else mined.relabelled(self._soft)
        return Pick(key=(str(self.file.path), number), mined=labelled, rows=rows)


class ValidationLists(Sequence[Pick]):
    """Lists that are ranked and never learnt from: what the base listed, nothing forced in.

    Args:
        paths: files of mined lists.
        depth: candidates of a list that are ranked.
        training: lists, or their file, whose queries none of them may be.
        tolerance_m: of their picks.

    Attributes:
        left_out: lists with fewer than two candidates of the base.
        pictures, needs_gallery: as of `TrainingLists`.

    Raises:
        QueriesError: a file can't be read, or is of the test split; or there is a tolerance, and
            distances were not measured.
        OptionError: queries are in training too.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        depth: int,
        training: TrainingLists | MinedFile,
        tolerance_m: float | None = None,
    ) -> None:
        learnt = training if isinstance(training, MinedFile) else training.file
        self.files = [MinedFile(path) for path in paths]
        self._places: list[tuple[int, int]] = []
        self.pictures: set[str] = set()
        self.needs_gallery = False
        self.left_out = 0
        self._depth, self._tolerance_m = depth, tolerance_m
        for which, file in enumerate(self.files):
            refuse_test_split(file)
            leakage(learnt.queries, file.queries, what="queries of validation lists")
            for number, mined in enumerate(file):
                rows = self._rows(mined)
                mined.right(tolerance_m)  # refuses lists without distances now, not in a training
                if len(rows) < 2:
                    self.left_out += 1
                    continue
                self._places.append((which, number))
                self.pictures |= {mined.path, *(c.path for c in mined.candidates if c.path)}
                self.needs_gallery |= any(c.path is None for c in mined.candidates)
        if paths and not self._places:
            raise QueriesError(
                f"{paths[0]}: no list has two candidates of the base to rank",
                hint="mine validation lists with more candidates",
            )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Pick:  # type: ignore[override]  # no slices are needed
        which, number = self._places[index]
        file = self.files[which]
        mined = file[number]
        return Pick(
            key=(str(file.path), number), mined=mined, rows=self._rows(mined),
            tolerance_m=self._tolerance_m,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Pick]:
        return (self[i] for i in range(len(self)))

    def _rows(self, mined: MinedList) -> tuple[int, ...]:
        listed = [row for row, c in enumerate(mined.candidates) if c.rank is not None]
        return tuple(listed[: self._depth])


def choose(
    right: NDArray[np.bool_],
    size: int,
    negatives: Literal["hard", "sampled"],
    draw: np.random.Generator,
) -> tuple[int, ...]:
    """Rows of a list that a step sees, ascending: a right one always, at most `size`.

    `hard`: the base's best; if none of them is right, the best right one takes the last place.
    `sampled`: one right one and the others drawn evenly.

    Args:
        right: (K,) bool, at least one True, in the base's order.
        size: how many, at least two.
        negatives: see above.
        draw: random numbers for `sampled`.
    """
    if len(right) <= size:
        return tuple(range(len(right)))
    if negatives == "hard":
        rows = list(range(size))
        if not right[:size].any():
            rows[-1] = int(right.argmax())
        return tuple(rows)
    truth = int(draw.choice(np.flatnonzero(right)))
    others = np.delete(np.arange(len(right)), truth)
    drawn = draw.choice(others, size - 1, replace=False)
    return tuple(sorted([truth, *map(int, drawn)]))


def require_pictures(folder: Path, pictures: set[str]) -> None:
    """All pictures of lists are there, so that none stops a training in the middle.

    Raises:
        QueriesError: some are missing, or a path leaves the folder.
    """
    missing = []
    for name in sorted(pictures):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise QueriesError(
                f"the picture {name!r} of a list is not within the dataset's folder",
                hint="paths in mined lists are relative to it: mine the lists again",
            )
        try:
            there = (folder / name).is_file()
        except (OSError, ValueError):
            there = False
        if not there:
            missing.append(name)
    if missing:
        raise QueriesError(
            f"{len(missing):,} of {len(pictures):,} pictures of the lists are not in {folder}, "
            f"the first is {missing[0]!r}",
            hint="set data.folder to the dataset's folder that the lists were mined from",
        )


def refuse_test_split(file: MinedFile) -> None:
    """Neither training nor what chooses its best step may see the test split.

    Raises:
        QueriesError: the lists are of the test split.
    """
    where = file.header.provenance
    if where.split == "test":
        raise QueriesError(
            f"{file.path}: these are lists of the test split of {where.dataset}",
            hint="mine lists of the training split; set a part of its places aside for validation",
        )


def _teaches(loss: Loss, labels: NDArray[np.float32]) -> bool:
    import torch

    return bool(loss.usable(torch.from_numpy(labels)[None]).all())


def _soft_labels(labels: Labels, file: MinedFile) -> SoftLabels | None:
    """How lists are labelled anew, its threshold found; None: they keep their own labels."""
    if labels.source == "stored":
        return None
    soft = SoftLabels(
        source=labels.source,
        threshold=labels.threshold,
        quantile=labels.quantile,
        scale_m=labels.scale_m,
        keep_ground_truth_one=labels.keep_ground_truth_one,
    )
    if soft.quantile is None or soft.threshold is not None:
        return dataclasses.replace(soft, quantile=None)
    return soft.fitted(
        (m.query, m.values(soft.source), m.ground_truth) for m in file if m.ground_truth.any()
    )
