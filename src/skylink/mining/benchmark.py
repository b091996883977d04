"""Lists from a published dataset: any base's candidates, labelled by what the dataset tells.

The truth of a query are all gallery images that answer it. Where the base lists none of them, one
is forced in: the one that the base ranks best where that is known, else the heaviest by the
dataset's weights, else one by the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skylink.bases import Base, gallery_descriptors, open_base
from skylink.datasets import Dataset, Item, Task
from skylink.errors import DatasetError, OptionError
from skylink.geo import LocalFrame, centre_lonlat
from skylink.mined import Measured, MinedCandidate, MinedList
from skylink.minedfile import leakage
from skylink.mining.lists import About, Progress, check_top_k, count
from skylink.mining.split import Parts, Sites, components
from skylink.relevance import Relevance
from skylink.soft_labels import LabelList, Places, Source, measured
from skylink.types import Telemetry

SAME_GROUND_M = 100.0
"""Photos nearer to each other show the same ground, even where each has a right image of its own
(DenseUAV's places are some 20 m apart)."""


class BenchmarkMine:
    """See `lists.Mine`.

    Args:
        task: whose queries are mined.
        root: the dataset's folder, which pictures' paths become relative to.
        bases: what lists candidates; several: `bases[fold[q]]` lists those of query q.
        top_k: candidates of a list.
        seed: of whatever is drawn.
        fold: (Q,) int64, where there are several bases.
        descriptors: (G, D) of the gallery for cosines; None: those of each base.

    Raises:
        OptionError: `top_k` is out of range, or there is not one base for each fold.
    """

    def __init__(
        self,
        task: Task,
        root: Path,
        bases: Sequence[Base],
        *,
        top_k: int,
        seed: int = 0,
        fold: Parts | None = None,
        descriptors: NDArray[np.float32] | None = None,
    ) -> None:
        deepest = max(base.rows.shape[1] for base in bases)
        check_top_k(top_k)
        if top_k > deepest and deepest < len(task.gallery):
            raise OptionError(
                f"top-k {top_k}, but the base lists {deepest} candidates at the most",
                hint=f"--top-k {deepest}",
            )
        self._fold = np.zeros(len(task.queries), np.int64) if fold is None else fold
        if len(bases) != int(self._fold.max()) + 1:
            raise OptionError(
                f"{len(bases)} bases for {int(self._fold.max()) + 1} folds",
                hint="give --retriever once for each fold, in order",
            )
        self._task, self._root, self._bases = task, root, bases
        self._descriptors = [
            base.descriptors if descriptors is None else descriptors for base in bases
        ]
        self.about = About(
            base=", ".join(base.name for base in bases),
            base_fingerprint=", ".join(base.fingerprint for base in bases),
            dataset=task.title,
            split=task.split,
            gallery=_gallery_hash(task.gallery),
            k=top_k,
            seed=seed,
            folds=len(bases),
        )
        self.queries: Sequence[str] = tuple(item.id for item in task.queries)
        self.sites = sites_of(task)
        known: dict[Source, bool] = {
            "dataset": task.weights is not None,
            "cosine": all(values is not None for values in self._descriptors),
            "distance": task.metres is not None,
        }
        self.sources: tuple[Source, ...] = tuple(source for source, is_ in known.items() if is_)
        self.default_source: Source = "dataset" if known["dataset"] else "cosine"
        self.left_out: dict[str, int] = {}
        self.failed = 0

    def lists(
        self, rows: Sequence[int], progress: Progress = lambda *_: None
    ) -> Iterator[MinedList]:
        """See `lists.Mine`."""
        for done, query in enumerate(rows, 1):
            progress(done, len(rows), self.queries[query])
            base = self._bases[int(self._fold[query])]
            listed = base.rows[query][base.rows[query] >= 0].tolist()
            scores = dict(zip(listed, base.scores[query].tolist(), strict=False))
            right = set(self._task.positives[query])
            taken = listed[: self.about.k]
            forced = [] if right.intersection(taken) else [self._truth(query, listed)]
            if len(taken) + len(forced) < 2:
                count(self.left_out, "the base listed fewer than two candidates")
                continue
            found = self._measured(query, [*taken, *forced])
            item = self._task.queries[query]
            yield MinedList(
                query=item.id,
                path=self._relative(item),
                telemetry=_telemetry(item),
                candidates=tuple(
                    self._candidate(
                        row,
                        score=scores.get(row),
                        rank=rank if rank <= len(taken) else None,
                        right=row in right,
                        known=known,
                    )
                    for rank, (row, known) in enumerate(
                        zip([*taken, *forced], found, strict=True), 1
                    )
                ),
            )

    def _truth(self, query: int, listed: Sequence[int]) -> int:
        """The right gallery row that is forced into a list."""
        right = self._task.positives[query]
        for row in listed:
            if row in right:
                return int(row)
        if self._task.weights is not None:
            return right[int(np.argmax(self._task.weights[query]))]
        draw = np.random.default_rng((self.about.seed, *self.queries[query].encode()))
        return int(draw.choice(right))

    def _candidate(
        self, row: int, *, score: float | None, rank: int | None, right: bool, known: Measured
    ) -> MinedCandidate:
        item = self._task.gallery[row]
        return MinedCandidate(
            id=item.id,
            path=self._relative(item),
            window=item.window,
            base_score=score,
            rank=rank,
            is_ground_truth=right,
            label=float(right),
            measured=known,
        )

    def _measured(self, query: int, rows: Sequence[int]) -> list[Measured]:
        """All that is known of candidates against the images that answer the query."""
        truth = list(self._task.positives[query])
        asked = LabelList(
            name=self.queries[query],
            ground_truth=np.isin(rows, truth),
            candidates=self._places(query, rows),
            truth=self._places(query, truth),
            weights=self._weights(query, rows),
        )
        values: dict[str, Any] = {}
        for source in self.sources:
            name = {"distance": "distance_m", "dataset": "weight"}.get(source, source)
            values[name] = measured(asked, source).tolist()
        return [
            Measured(**{name: found[i] for name, found in values.items()}) for i in range(len(rows))
        ]

    def _places(self, query: int, rows: Sequence[int]) -> Places:
        descriptors = self._descriptors[int(self._fold[query])]
        kept = None if descriptors is None else descriptors[list(rows)]
        items = [self._task.gallery[row] for row in rows]
        if self._task.metres == "geodesic":
            lon, lat = np.array([(i.lon, i.lat) for i in items], dtype=np.float64).T
            return Places(descriptors=kept, lon=lon, lat=lat)
        if self._task.metres == "local":
            x, y = np.array([(i.x_m, i.y_m) for i in items], dtype=np.float64).T
            return Places(descriptors=kept, x_m=x, y_m=y)
        return Places(descriptors=kept)

    def _weights(self, query: int, rows: Sequence[int]) -> NDArray[np.float64] | None:
        task = self._task
        if task.weights is None:
            return None
        known = dict(zip(task.positives[query], task.weights[query], strict=True))
        if task.semi_positives is not None and task.semi_weights is not None:
            known |= dict(zip(task.semi_positives[query], task.semi_weights[query], strict=True))
        return np.array([known.get(row, 0.0) for row in rows])

    def _relative(self, item: Item) -> str:
        return item.path.relative_to(self._root).as_posix()


def open_mine(
    task: Task,
    root: Path,
    relevance: Relevance,
    specs: Sequence[str],
    *,
    top_k: int,
    seed: int = 0,
    fold: Parts | None = None,
    label_encoder: str | None = None,
    progress: Progress = lambda *_: None,
) -> BenchmarkMine:
    """Run or read the bases, and what cosines are made of; arguments as for `BenchmarkMine`.

    Args:
        specs: of bases, as `bases.open_base` takes them.
        label_encoder: an encoder or descriptors for cosines, instead of the base's own.

    Raises:
        OptionError, DescriptorError, RunError, ModelError, PhotoError: see `open_base`.
    """
    check_top_k(top_k)
    bases = [
        open_base(spec, task, relevance, progress=progress, keep_descriptors=label_encoder is None)
        for spec in specs
    ]
    descriptors = None
    if label_encoder is not None:
        descriptors = gallery_descriptors(label_encoder, task, progress=progress)
    return BenchmarkMine(
        task, root, bases, top_k=top_k, seed=seed, fold=fold, descriptors=descriptors
    )


def sites_of(task: Task) -> Sites:
    """Where a task's queries are: by position where the dataset has some, else by what answers."""
    if task.metres is None:
        return Sites(place=components(task.positives))
    xy = task.positions("queries")
    if task.metres == "geodesic":
        lon, lat = centre_lonlat(lon=xy[:, 0], lat=xy[:, 1])
        xy = np.stack(LocalFrame(lon, lat).to_xy(lon=xy[:, 0], lat=xy[:, 1]), axis=1)
    answers = task.positives if task.semi_positives is None else _both(task)
    # two queries that are farther apart than this have no answer in common
    reach = 2 * max(
        float(task.distances_m(query, rows).max()) for query, rows in enumerate(answers)
    )
    return Sites(xy_m=xy, reach_m=max(reach, SAME_GROUND_M))


def refuse_test_leakage(task: Task, dataset: Dataset, root: Path) -> str:
    """The training split shares neither queries nor named places with the dataset's test split.

    Returns:
        What was compared, in words.

    Raises:
        OptionError: they share some; the first are named.
    """
    try:
        test = dataset.load(root, task.name, "test")
    except (DatasetError, OptionError) as error:
        return f"leakage from the test split was not looked for: {error.message}"
    leakage((q.id for q in task.queries), (q.id for q in test.queries))
    mine, theirs = (
        {q.place for q in asked.queries if q.place is not None} for asked in (task, test)
    )
    leakage(mine, sorted(theirs), what="places")
    named = f" and {len(theirs):,} places" if theirs else ""
    return f"no leakage: {len(test.queries):,} queries{named} of the test split are not in these"


def _both(task: Task) -> list[tuple[int, ...]]:
    semi = task.semi_positives or ((),) * len(task.queries)
    return [(*a, *b) for a, b in zip(task.positives, semi, strict=True)]


def _telemetry(item: Item) -> Telemetry | None:
    """What re-rankers are told of a benchmark's photo (`rerank_run.py` tells them the same)."""
    altitude = item.altitude_m or 0.0
    return Telemetry(relative_altitude_m=altitude) if altitude > 0.5 else None


def _gallery_hash(items: Sequence[Item]) -> str:
    """Of the gallery's ids and the sizes of its files: contents would take hours to read."""
    digest = hashlib.sha256()
    for item in items:
        try:
            size = item.path.stat().st_size
        except OSError:
            size = -1  # descriptors may be there without pictures
        digest.update(f"{item.id}\n{item.window}\n{size}\n".encode())
    return f"sha256:{digest.hexdigest()}"
