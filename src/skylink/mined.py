"""Mined candidate lists: what `skylink mine` makes and training learns from.

`minedfile.py` writes and reads them.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from skylink import __version__
from skylink.errors import QueriesError
from skylink.label_statistics import LabelStatistics
from skylink.soft_labels import SoftLabels, Source
from skylink.types import CameraPose, Candidate, Telemetry

MAX_LISTS = 5_000_000
MAX_CANDIDATES = 1000
SUSPICIOUS_R_AT_1 = 99.0
"""Percent; a base above it has seen these queries, and its lists are too easy to learn from."""

_Text = Annotated[str, Field(min_length=1, max_length=1024)]
_Path = Annotated[str, Field(min_length=1, max_length=4096)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class MapPlace(_Part):
    """A place on a gallery's map; see `types.Candidate`. `pose`: under which it matched."""

    area: int = Field(ge=0)
    level: int = Field(ge=0)
    x_m: float
    y_m: float
    lon: float = Field(ge=-180, le=180)
    lat: float = Field(ge=-90, le=90)
    pose: CameraPose | None = None


class Measured(_Part):
    """What was measured between a candidate and the true place, as `soft_labels.measured` gives
    it, so that other labels can be made without the imagery; None where it was not measured."""

    overlap: float | None = None
    cosine: float | None = None
    distance_m: float | None = None
    weight: float | None = None


class MinedCandidate(_Part):
    """One candidate of a query.

    Attributes:
        id: unique within its list.
        path: its picture, relative to the dataset's folder; None where it is a place on a map.
        window: (column, row, width, height), pixels, where it is a part of that picture.
        place: where it is on the gallery's map; None where it is a picture.
        base_score: the base's score, higher is better; None where the base did not score it.
        rank: its rank in the base's own list, from 1; None for a ground truth that the base did
            not list and that was forced in.
        is_ground_truth: whether it counts as right.
        label: 0..1, see `soft_labels`.
        measured: what the label was made from.
    """

    id: _Text
    path: _Path | None = None
    window: tuple[int, int, int, int] | None = None
    place: MapPlace | None = None
    base_score: float | None = None
    rank: int | None = Field(default=None, ge=1)
    is_ground_truth: bool
    label: float = Field(ge=0, le=1)
    measured: Measured = Measured()

    def on_map(self) -> Candidate:
        """The candidate as retrievers give it. Raises QueriesError where it is not on a map."""
        if self.place is None:
            raise QueriesError(f"candidate {self.id!r} is a picture, not a place on a map")
        score = -math.inf if self.base_score is None else self.base_score
        fields = {name: getattr(self.place, name) for name in MapPlace.model_fields}
        return Candidate(id=self.id, score=score, base_score=self.base_score, **fields)


class MinedList(_Part):
    """One query and its candidates, at least two, in the base's order, forced ones last.

    Attributes:
        query: its id, unique within the file.
        path: its photo, relative to the dataset's folder.
        telemetry: what is needed to show it; without its position, which is the answer.

    Raises:
        QueriesError: candidates are there twice or out of order, or contradict themselves.
    """

    query: _Text
    path: _Path
    telemetry: Telemetry | None = None
    candidates: tuple[MinedCandidate, ...] = Field(min_length=2, max_length=MAX_CANDIDATES)

    @property
    def ground_truth(self) -> NDArray[np.bool_]:
        """(K,) which candidates are right."""
        return np.array([c.is_ground_truth for c in self.candidates])

    def right(self, tolerance_m: float | None = None) -> NDArray[np.bool_]:
        """(K,) which candidates count as right when they are ranked.

        Args:
            tolerance_m: those this near to the true place; None: the ground truth.

        Raises:
            QueriesError: distances are not known.
        """
        if tolerance_m is None:
            return self.ground_truth
        return self.values("distance") <= tolerance_m

    @property
    def labels(self) -> NDArray[np.float32]:
        """(K,) float32."""
        return np.array([c.label for c in self.candidates], dtype=np.float32)

    def values(self, source: Source) -> NDArray[np.float64]:
        """(K,) what was measured, for `SoftLabels.labels_of` and `fitted`.

        Raises:
            QueriesError: it was not measured for every candidate.
        """
        name = {"distance": "distance_m", "dataset": "weight"}.get(source, source)
        found = [getattr(c.measured, name) for c in self.candidates]
        if None in found:
            raise QueriesError(
                f"query {self.query!r}: {source} was not measured when it was mined",
                hint="mine the lists again with that source of labels, or choose another",
            )
        return np.array(found, dtype=np.float64)

    def relabelled(self, labels: SoftLabels) -> MinedList:
        """The same list with labels made anew from what was measured."""
        made = labels.labels_of(self.values(labels.source), self.ground_truth, name=self.query)
        pairs = zip(self.candidates, made.tolist(), strict=True)
        candidates = tuple(c.model_copy(update={"label": label}) for c, label in pairs)
        return self.model_copy(update={"candidates": candidates})

    @model_validator(mode="after")
    def _consistent(self) -> MinedList:
        def wrong(what: str, hint: str | None = None) -> QueriesError:
            return QueriesError(f"query {self.query!r}: {what}", hint=hint)

        known = self.telemetry
        if known is not None and (known.lon is not None or known.lat is not None):
            raise wrong("its telemetry has a position", "that is what is to be found: leave it out")
        seen: set[str] = set()
        for c in self.candidates:
            if c.id in seen:
                raise wrong(f"candidate {c.id!r} is there twice")
            seen.add(c.id)
            if c.path is None and c.place is None:
                raise wrong(f"candidate {c.id!r} has neither a path nor a place")
            if c.is_ground_truth and c.label == 0:
                raise wrong(f"the ground truth {c.id!r} has the label 0")
            if c.rank is None and not c.is_ground_truth:
                raise wrong(f"candidate {c.id!r} has no rank", "only a ground truth is forced in")
            if c.rank is not None and c.base_score is None:
                raise wrong(f"candidate {c.id!r} has a rank, but no base score")
        for one, other in pairwise(self.candidates):
            if other.rank is None:
                continue
            if one.rank is None or one.rank >= other.rank:
                raise wrong(f"candidate {other.id!r} is not in the order of ranks")
            if (one.base_score or 0.0) < (other.base_score or 0.0):
                raise wrong(f"the base score rises at candidate {other.id!r}", "higher is better")
        return self


class Provenance(_Part):
    """Where lists come from.

    Attributes:
        base, base_fingerprint: the retriever that listed the candidates, and its weights' hash.
        dataset, split: whose queries.
        gallery: hash of what was searched.
        k: candidates a list, before any was forced in.
        seed: of whatever was drawn.
        ground_truth: how a ground truth that the base did not list came in; `not-forced` for lists
            that are to be evaluated.
        folds: 1: the base may have been trained on these queries; n: each query was listed by a
            base trained on the other n - 1 parts.
        labels: how labels were made.
        skylink_version: that wrote the file.
    """

    base: _Text
    base_fingerprint: _Text
    dataset: _Text
    split: _Text
    gallery: _Text
    k: int = Field(ge=1, le=MAX_CANDIDATES)
    seed: int
    ground_truth: Literal["appended", "replaced-last", "not-forced"]
    folds: int = Field(default=1, ge=1)
    labels: SoftLabels
    skylink_version: str = __version__


class Summary(_Part):
    """What the writer counted.

    Attributes:
        lists, candidates: how many.
        forced: lists whose ground truth was forced in.
        base_r_at_1: percent of lists whose first candidate of the base is right.
        labels: statistics of the labels.
        sha256: of the lists' lines: names this very set of lists.
    """

    lists: int = Field(ge=1, le=MAX_LISTS)
    candidates: int
    forced: int
    base_r_at_1: float
    labels: LabelStatistics
    sha256: str


class Header(_Part):
    """What stands above the lists."""

    format: Literal["skylink-mined"] = "skylink-mined"
    version: Literal[1] = 1
    provenance: Provenance
    summary: Summary

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be warned of."""
        notes = [self.summary.labels.note] if self.summary.labels.note else []
        if self.summary.base_r_at_1 > SUSPICIOUS_R_AT_1:
            notes.append(
                f"the base finds {self.summary.base_r_at_1:.1f} % of these queries at once: it has "
                "probably been trained on them, and there is little to learn; mine in folds or "
                "with held-out queries"
            )
        return tuple(notes)
