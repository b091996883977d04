"""Test lists: what the base listed and nothing else, and what a ranking of them is worth.

Lists know nothing of the gallery beyond them, so average precision is over the right candidates of
a list: exact where each query has one right image, an upper bound where the base missed some.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skylink.ablation.grid import Test
from skylink.ablation.result import Outcome
from skylink.errors import QueriesError
from skylink.figures import BLOCK_FRAMES
from skylink.metrics import average_precision_step, consecutive_blocks
from skylink.mined import MinedList
from skylink.minedfile import MinedFile, leakage
from skylink.mining.split import components
from skylink.reranker import Fusion
from skylink.training.data import Pick
from skylink.training.fusion import BASE_ONLY, Scored

Scores = NDArray[np.float64]


class HeldOut(Sequence[Pick]):
    """Lists that rows are measured on.

    Args:
        test: of the grid; the folder is known.
        depth: most candidates of a list that are re-ranked; the others keep their order behind.
        apart: queries that must not be among these, those of training and validation.

    Attributes:
        folder, gallery: where pictures are.
        files: the lists as read; sha256: of each one's.
        queries: (Q,) ids, in order.
        pictures: paths of all pictures, relative to the dataset's folder.
        needs_gallery: whether candidates are places on a map.
        has_positions: every candidate's distance to the true place is known.
        blocks: (Q,) int64: queries with the same number succeed and fail together: those with a
            right candidate in common, or on a map up to `BLOCK_FRAMES` in a row of one flight.
        flights: (Q,) names, on a map: the list's file and its photo's folder. Empty elsewhere.

    Raises:
        QueriesError: a file can't be read, or has the truth forced in; or there is a tolerance,
            and distances were not measured.
        OptionError: queries are in training too, or twice in these.
    """

    def __init__(self, test: Test, depth: int, apart: Iterable[str] = ()) -> None:
        self.folder, self.gallery = test.folder or test.lists[0].parent, test.gallery
        self.files = [MinedFile(path) for path in test.lists]
        self._depth, self._tolerance_m = depth, test.tolerance_m
        known = set(apart)
        self._places: list[tuple[int, int]] = []
        self.pictures: set[str] = set()
        self.needs_gallery, self.has_positions = False, True
        right: list[list[str]] = []
        flights: list[str] = []
        for which, file in enumerate(self.files):
            _refuse_forced(file)
            leakage(known, file.queries, what="queries of test lists")
            known |= set(file.queries)
            for number, mined in enumerate(file):
                self._places.append((which, number))
                self.pictures |= {mined.path, *(c.path for c in mined.candidates if c.path)}
                self.needs_gallery |= any(c.path is None for c in mined.candidates)
                self.has_positions &= _errors_m(mined) is not None
                hits = mined.right(test.tolerance_m)
                right.append([c.id for c, is_ in zip(mined.candidates, hits, strict=True) if is_])
                flights.append(f"{file.path.stem}/{Path(mined.path).parent}".removesuffix("/."))
        self.sha256 = tuple(file.header.summary.sha256 for file in self.files)
        self.queries = tuple(query for file in self.files for query in file.queries)
        if self.needs_gallery:
            self.blocks = consecutive_blocks(flights, BLOCK_FRAMES)
            self.flights = tuple(flights)
        else:
            self.flights = ()
            self.blocks = _blocks_of_places(right)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Pick:  # type: ignore[override]  # no slices are needed
        which, number = self._places[index]
        file = self.files[which]
        mined = file[number]
        rows = tuple(range(min(self._depth, len(mined.candidates))))
        return Pick(
            key=(str(file.path), number), mined=mined, rows=rows, tolerance_m=self._tolerance_m
        )

    def judge(self, scores: Sequence[Scores], fusion: Fusion) -> Outcome:
        """What a ranking is worth.

        Args:
            scores: of each list's first candidates, as many as are re-ranked.
            fusion: with the base's.
        """
        ranks: list[int | None] = []
        precisions, errors = [], []
        for pick, given in zip(self, scores, strict=True):
            ranked = scored(pick, given).ranked(fusion)
            order = np.arange(len(pick.mined.candidates))
            if ranked is not None:
                order[: len(given)] = ranked[0]
            hits = pick.mined.right(self._tolerance_m)[order]
            ranks.append(int(hits.argmax()) + 1 if hits.any() else None)
            precisions.append(float(average_precision_step(hits[None], int(hits.sum()))[0]))
            if self.has_positions:
                away = _errors_m(pick.mined)
                assert away is not None
                errors.append(away[int(order[0])])
        return Outcome(
            ranks=tuple(ranks),
            precisions=tuple(precisions),
            errors_m=tuple(errors) if self.has_positions else None,
        )

    def judge_base(self) -> Outcome:
        """The same of the base's own order."""
        return self.judge([np.zeros(len(pick.rows)) for pick in self], BASE_ONLY)


def scored(pick: Pick, scores: Scores) -> Scored:
    """A list's first candidates with their scores, to be fused or fitted on."""
    chosen = [pick.mined.candidates[row] for row in pick.rows[: len(scores)]]
    return Scored(
        base=np.array([c.base_score for c in chosen], dtype=np.float64),
        scores=scores,
        right=pick.right[: len(scores)],
    )


def _errors_m(mined: MinedList) -> list[float] | None:
    found = [c.measured.distance_m for c in mined.candidates]
    known = [each for each in found if each is not None]
    return known if len(known) == len(found) else None


def _refuse_forced(file: MinedFile) -> None:
    forced = file.header.summary.forced
    if forced:
        raise QueriesError(
            f"{file.path}: the truth was forced into {forced:,} of its lists, where the base did "
            "not find it: nothing may be measured on them",
            hint="mine them again with --no-force",
        )


def _blocks_of_places(right: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Lists with a right candidate in common, over any number of others; those without any stand
    alone: they are wrong under every ranking."""
    numbers: dict[str, int] = {}
    answers = [
        [numbers.setdefault(name, len(numbers)) for name in names or (f"none {at}", )]
        for at, names in enumerate(right)
    ]  # fmt: skip
    blocks = np.unique(components(answers), return_inverse=True)[1]
    return np.asarray(blocks, dtype=np.int64)
