"""The re-ranker protocol, its one public wrapper, fusion with the base score, and the gate.

Every re-ranker, now and later, goes through `rerank`: it checks what comes back, fuses it with the
retriever's score, and leaves confident rankings alone. What fails is `reranked = False` with its
reason; the base order is never passed off as a re-ranked one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from skylink.errors import OptionError, RerankError, SkyLinkError
from skylink.types import Candidate, Query

if TYPE_CHECKING:
    from skylink.datasets import Task
    from skylink.encoder import Encoder
    from skylink.gallery import Gallery
    from skylink.lvlm.options import LvlmOptions

NAMES = ("none", "dense", "hog", "matching", "relational")


class Reranker(Protocol):
    """Looks at a photo and its candidates together.

    It may also have `about: str`, what it is in words, `max_candidates: int | None`, the most that
    it can score together, and `fusion: Fusion | None`, as fitted when it was trained.

    Attributes:
        name: as the command line and the results call it.
    """

    name: str

    def score(self, query: Query, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        """Relevance (K,) of each candidate, in their order; higher is better, all finite.

        Raises:
            RerankError: this query can't be scored (the reason goes into the result).
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How the retriever's score takes part in the final ranking.

    Attributes:
        base_weight: 0 (the re-ranker alone) .. 1 (the base alone), on scores standardised within
            the list. 0 by default: in a prototype on real flights a weak base at equal weight
            lowered a strong re-ranker by 3 points.
        gate_margin: re-rank only when the base's lead, (first - second) / standard deviation of
            the list's scores, is below this; None: always.
        depth: candidates of the lists that both were fitted on, where they were: scores are
            standardised within a list, so that others depend on how many there are.
    """

    base_weight: float = 0.0
    gate_margin: float | None = None
    depth: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.base_weight <= 1:
            raise OptionError(f"base weight {self.base_weight!r} is not in 0..1")
        if self.gate_margin is not None and not self.gate_margin >= 0:
            raise OptionError(f"gate margin {self.gate_margin!r} is not a positive number")

    def keeps(self, base: NDArray[np.float64]) -> bool:
        """Whether the gate leaves a list as the base ordered it.

        Args:
            base: (K,) the base's scores, best first, K >= 2.
        """
        return self.gate_margin is not None and lead(base) >= self.gate_margin

    def fused(self, base: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K,) float64 what a list is ordered by, from the base's (K,) and the re-ranker's (K,)."""
        if self.base_weight == 0:
            return scores
        return (1 - self.base_weight) * _zscore(scores) + self.base_weight * _zscore(base)


def lead(base: NDArray[np.float64]) -> float:
    """How sure a base is: (first - second) / standard deviation of its (K,) scores, K >= 2."""
    return float((base[0] - base[1]) / max(float(base.std()), 1e-12))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranking:
    """What `rerank` returns.

    Attributes:
        candidates: best first; `score` is the fused one, `base_score` the retriever's.
        reranked: the re-ranker ran and decided the order.
        failed: it was tried and failed; the order is the base's.
        note: why it did not run or failed; empty if it ran.
    """

    candidates: Sequence[Candidate]
    reranked: bool
    failed: bool = False
    note: str = ""


def checked_scores(
    reranker: Reranker, query: Query, candidates: Sequence[Candidate]
) -> NDArray[np.float32]:
    """`reranker.score`, held to its contract.

    Raises:
        RerankError: wrong shape, wrong type, a score that is not finite, or any exception of the
            re-ranker's own (a plug-in, a server or a GPU may fail in ways that we don't know).
    """
    try:
        scores = np.asarray(reranker.score(query, candidates))
    except SkyLinkError:
        raise
    except Exception as error:
        raise RerankError(
            f"re-ranker {reranker.name} failed: {type(error).__name__}: {error}"
        ) from error
    if scores.shape != (len(candidates),) or scores.dtype.kind not in "iuf":
        raise RerankError(
            f"re-ranker {reranker.name} returned {scores.dtype} {scores.shape} "
            f"for {len(candidates)} candidates"
        )
    with np.errstate(over="ignore"):
        scores = scores.astype(np.float32)
    if not np.isfinite(scores).all():
        raise RerankError(f"re-ranker {reranker.name} returned scores that are not finite")
    return scores


def fusion_of(reranker: Reranker | None) -> Fusion:
    """The fusion that was fitted when the re-ranker was trained, else the re-ranker alone."""
    fitted: Fusion | None = getattr(reranker, "fusion", None)
    return fitted or Fusion()


def rerank(
    reranker: Reranker, query: Query, candidates: Sequence[Candidate], fusion: Fusion
) -> Reranking:
    """Score candidates together with the photo and order them. Ties keep the base's order."""
    if len(candidates) < 2:
        return Reranking(
            candidates=candidates, reranked=False, note="fewer than two candidates to rank"
        )
    base = np.array([c.score for c in candidates], dtype=np.float64)
    if fusion.keeps(base):
        note = f"the base was sure (lead {lead(base):.2f} >= {fusion.gate_margin:g})"
        return Reranking(candidates=candidates, reranked=False, note=note)
    try:
        scores = checked_scores(reranker, query, candidates)
    except SkyLinkError as error:
        return Reranking(candidates=candidates, reranked=False, failed=True, note=error.message)
    fused = fusion.fused(base, scores.astype(np.float64))
    order = np.argsort(-fused, kind="stable")
    ranked = [
        replace(candidates[i], score=float(fused[i]), base_score=candidates[i].score) for i in order
    ]
    return Reranking(candidates=ranked, reranked=True)


def _zscore(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-12))


def make_task_reranker(name: str, task: Task, lvlm: LvlmOptions | None = None) -> Reranker | None:
    """The re-ranker of a name over a benchmark's own pictures; None for `none`.

    Raises:
        OptionError: unknown name, or one that needs a map.
        ModelError: a model can't be loaded, or a server not be used.
    """
    from skylink.rerank_run import TileShow

    if name == "none":
        return None
    if name == "matching":
        from skylink.rerankers.matching import PictureMatchingReranker

        return PictureMatchingReranker(TileShow(task))
    if name.startswith("lvlm:") and name != "lvlm:":
        from skylink.rerankers import lvlm as local

        return local.load_for(
            name.removeprefix("lvlm:"), lambda px: TileShow(task, size_px=px), lvlm
        )
    if name.startswith(("http://", "https://")):
        from skylink.remote.connect import connect

        return connect(name, TileShow(task), lvlm)
    raise OptionError(
        f"{name!r} can't re-rank a benchmark's pictures",
        hint="known are: none, matching, lvlm:CHECKPOINT (see `skylink models`), http://HOST:PORT",
    )


def auto_reranker(retriever: str, gallery: Gallery, encoder: Encoder) -> Reranker | None:
    """The re-ranker that a retriever's candidates get unless another is asked for; None: none.

    Tiles that descriptors chose are re-ranked by the relational model that comes with SkyLink,
    where the gallery has the cells that it was trained on. Dense search has compared cells already.

    Args:
        retriever: its name.
        gallery: where candidates come from.
        encoder: the gallery's.

    Raises:
        ModelError: the model's file is damaged.
    """
    if retriever != "descriptor" or not gallery.info.encoder.channels:
        return None
    from skylink.rerankers.relational import OtherCells, RelationalReranker, model_file

    try:
        return RelationalReranker(model_file(None), gallery, encoder)
    except OtherCells:
        return None


def make_reranker(
    name: str, gallery: Gallery, encoder: Encoder, lvlm: LvlmOptions | None = None
) -> Reranker | None:
    """The re-ranker of a name; None for `none`.

    Args:
        name: `none`, `dense`, `hog`, `matching`, `relational` (or `relational:FOLDER`, of
            `skylink train-relational`), `lvlm:CHECKPOINT` (hub name, preset or folder), or the
            `http(s)://` address of a server.
        gallery: where candidates come from.
        encoder: the gallery's.
        lvlm: choices for vision-language models, local or served.

    Raises:
        OptionError: unknown name, or one that this gallery can't serve.
        ModelError: a model can't be loaded, or a server not be used.
    """
    if name == "none":
        return None
    if name == "dense":
        from skylink.rerankers.dense import DenseReranker

        if not gallery.info.encoder.channels:
            raise OptionError(
                f"{gallery.path} has no feature raster for the dense re-ranker",
                hint="use --reranker hog, matching or none",
            )
        return DenseReranker(gallery, encoder)
    if name in ("hog", "matching") and not gallery.info.imagery:
        raise OptionError(
            f"{gallery.path} has no pictures for the {name} re-ranker",
            hint=f"build it with imagery: {gallery.info.command(gallery.path)}",
        )
    if name == "hog":
        from skylink.rerankers.hog import HogReranker

        return HogReranker(gallery, encoder.input_px)
    if name == "matching":
        from skylink.rerankers.matching import MatchingReranker

        return MatchingReranker(gallery, encoder.input_px)
    if name == "relational" or (name.startswith("relational:") and name != "relational:"):
        from skylink.rerankers.relational import RelationalReranker, model_file

        folder = name.partition(":")[2] or None
        return RelationalReranker(model_file(folder), gallery, encoder)
    if name.startswith("lvlm:") and name != "lvlm:":
        from skylink.rerankers import lvlm as local

        return local.load(name.removeprefix("lvlm:"), gallery, lvlm)
    if name.startswith(("http://", "https://")):
        from skylink.remote.connect import connect
        from skylink.showing import GalleryShow

        way = lvlm.show if lvlm is not None and lvlm.show is not None else "auto"
        return connect(name, GalleryShow(gallery, way=way), lvlm)
    raise OptionError(
        f"unknown re-ranker {name!r}",
        hint=f"known are: {', '.join(NAMES)}, relational:FOLDER, lvlm:CHECKPOINT (see "
        "`skylink models`) and http://HOST:PORT",
    )
