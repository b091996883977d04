"""Re-rank by a large vision-language model that runs here: the paper's second stage.

This is only the plug: pictures come from `showing.py`, words from `prompt.py`, scores from
`skylink.lvlm`. Nothing heavy is imported until a re-ranker is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skylink.lvlm.options import LvlmOptions
from skylink.reranker import Fusion
from skylink.showing import GalleryShow, Show
from skylink.types import Candidate, Query

if TYPE_CHECKING:
    from skylink.gallery import Gallery
    from skylink.lvlm.scorer import Scorer


class LvlmReranker:
    """See the module.

    Args:
        scorer: a loaded model and how to ask it (`skylink.lvlm.load.load_scorer`).
        show: makes the pictures.
    """

    name = "lvlm"

    def __init__(self, scorer: Scorer, show: Show) -> None:
        self.scorer, self.show = scorer, show

    @property
    def max_candidates(self) -> int | None:
        """The most candidates that it can score together; None: any number."""
        from skylink.lvlm.scorer import MAX_LISTWISE

        return MAX_LISTWISE if self.scorer.mode == "listwise" else None

    @property
    def fusion(self) -> Fusion | None:
        """How the base takes part, as fitted on the training split's validation lists."""
        info = self.scorer.info
        if info is None or info.base_weight is None:
            return None
        return Fusion(
            base_weight=info.base_weight, gate_margin=info.gate_margin, depth=info.fusion_depth
        )

    @property
    def about(self) -> str:
        """What it is, in words."""
        backbone, how = self.scorer.backbone, self.scorer
        trained = "trained head" if how.trained else "untrained head"
        mode = f"pointwise, {trained}" if how.mode == "pointwise" else how.mode
        kind = str(backbone.dtype).removeprefix("torch.")
        slow = ", the plain way" if how.options.plain else ""
        return f"{backbone.name} ({mode}, {how.template.name}, {kind} on {backbone.device}{slow})"

    def score(self, query: Query, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        """See `Reranker.score` and `Scorer.score`."""
        showing = self.show(query, candidates)
        if self.scorer.options.on_prompt is not None and len(candidates) > 1:
            self.scorer.options.on_prompt(self.scorer.prompt_of(showing))
        return self.scorer.score(showing)


def load(checkpoint: str, gallery: Gallery, options: LvlmOptions | None = None) -> LvlmReranker:
    """The re-ranker of a checkpoint over a gallery's map.

    Raises:
        ModelError, OptionError: see `load_scorer` and `GalleryShow`.
    """
    GalleryShow(gallery)  # says what is wrong before a large model loads
    reranker = load_for(checkpoint, lambda px: GalleryShow(gallery, size_px=px), options)
    way = reranker.scorer.options.show or "auto"
    px = reranker.scorer.backbone.picture_px
    return LvlmReranker(reranker.scorer, GalleryShow(gallery, size_px=px, way=way))


def load_for(
    checkpoint: str, show: Callable[[int], Show], options: LvlmOptions | None = None
) -> LvlmReranker:
    """The re-ranker of a checkpoint over pictures of any kind.

    Args:
        checkpoint: hub name, preset or folder.
        show: makes the pictures, given the side in pixels that suits the model.
        options: choices.

    Raises:
        ModelError, OptionError: see `load_scorer`.
    """
    from skylink.lvlm.load import load_scorer

    scorer = load_scorer(checkpoint, options)
    return LvlmReranker(scorer, show(scorer.backbone.picture_px))
