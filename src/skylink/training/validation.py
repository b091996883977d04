"""How well the model ranks validation lists as it is now."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from skylink.errors import ModelError
from skylink.training.data import Pick
from skylink.training.fusion import BASE_ONLY, RERANKER_ONLY, Recall, Scored
from skylink.training.processes import Processes
from skylink.training.scoring import ListScorer


def score_lists(lists: Sequence[Pick], scorer: ListScorer, processes: Processes) -> list[Scored]:
    """Every list scored, in order, the work shared among processes.

    Raises:
        ModelError: a score isn't finite; the list is named.
    """
    part = []
    for number in processes.share(range(len(lists))):
        pick = lists[number]
        with torch.no_grad():
            scores = scorer.scores(pick).double().cpu().numpy()
        if not np.isfinite(scores).all():
            raise ModelError(f"validation list {pick.mined.query!r} got scores that aren't finite")
        base = [pick.mined.candidates[row].base_score for row in pick.rows]
        part.append(Scored(base=np.array(base, np.float64), scores=scores, right=pick.right))
    return processes.gather(part)


def figures(lists: list[Scored]) -> dict[str, float]:
    """Recall at 1 and mrr of the base and of the re-ranker alone, 0..1."""
    base, reranked = Recall.of(lists, BASE_ONLY), Recall.of(lists, RERANKER_ONLY)
    return {
        "recall@1": reranked.recall_at_1,
        "mrr": reranked.mrr,
        "base recall@1": base.recall_at_1,
        "base mrr": base.mrr,
    }


def better(new: dict[str, float], old: dict[str, float]) -> bool:
    """Whether a validation is better than another: by recall at 1, then mrr."""
    return (new["recall@1"], new["mrr"]) > (old["recall@1"], old["mrr"])
