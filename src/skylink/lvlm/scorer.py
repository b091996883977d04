"""Photo and candidates in, relevance out: the three ways to ask a model, over one engine.

- pointwise: photo and one candidate a prompt; the value head on the last state is the score. What
  trained adapters and re-ranker checkpoints are made for; untrained, it is known to do harm.
- listwise: all candidates in one prompt, each under a letter; the score is the log-probability of
  its letter, averaged over seeded orders against a liking for certain places.
- pairwise: two candidates a prompt, each pair in both orders; a merge sort ranks them all.

Nothing is generated in any of them: only states at the last position are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from skylink.errors import RerankError
from skylink.lvlm.adapter import AdapterInfo
from skylink.lvlm.backbone import Backbone, Encoded
from skylink.lvlm.cache import FeatureCache, ImageFeatures, picture_key
from skylink.lvlm.engine import Engine
from skylink.lvlm.head import ValueHead
from skylink.lvlm.options import LvlmOptions
from skylink.lvlm.plain import plain_states
from skylink.memory import out_of_memory
from skylink.prompt import LETTERS, NOTHING, Facts, Mode, Prompt, Template
from skylink.showing import Image, Showing
from skylink.tournament import tournament

MAX_LISTWISE = len(LETTERS)


class Scorer:
    """Scores what is shown, in one mode.

    Args:
        backbone: a loaded model.
        template: how it is asked; gives the mode.
        options: `facts`, `orders`, `seed`, `max_comparisons`, `memory_gb` and `plain` are used.
            `plain` is the slow reference way, without any feature reused.
        head: the trained value head for pointwise scoring; None: log-odds of Yes.
        cache: tiles' features on disk; None keeps none.
        info: what an adapter's folder says of itself.

    Raises:
        ModelError: the checkpoint can't be asked this way: no chat template, one that doesn't
            show every picture, or an answer that isn't a single token in it.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: Template,
        options: LvlmOptions | None = None,
        *,
        head: ValueHead | None = None,
        cache: FeatureCache | None = None,
        info: AdapterInfo | None = None,
    ) -> None:
        self.backbone, self.template, self.cache = backbone, template, cache
        self.info = info
        self.options = options = options or LvlmOptions()
        memory = options.memory_gb
        self.engine = Engine(backbone, memory_bytes=None if memory is None else int(memory * 2**30))
        self.mode: Mode = template.mode
        self.trained = head is not None
        self.head = head
        # made here, since what is wrong with a checkpoint should not wait for the first photo
        most = {"pointwise": 1, "pairwise": 2, "listwise": MAX_LISTWISE}[self.mode]
        prompt = template.build(NOTHING, [NOTHING] * most)
        backbone.answer_ids(prompt)
        if not options.plain:
            backbone.words(prompt)
        if self.mode == "pointwise" and head is None:
            self.head = ValueHead.yes_minus_no(backbone, prompt).cpu()

    def score(self, showing: Showing) -> NDArray[np.float32]:
        """Relevance (K,) of the candidates, higher is better, comparable within this showing.

        pointwise: value head (log-odds of Yes where untrained); listwise: mean log-probability of
        a candidate's letter; pairwise: K for the best .. 1.

        Raises:
            RerankError: a score isn't finite (the candidate is named), more candidates than the
                mode takes, a picture that can't be taken, or memory ran out.
        """
        if not showing.candidates:
            return np.zeros(0, np.float32)
        score = {
            "pointwise": self._pointwise, "listwise": self._listwise, "pairwise": self._pairwise
        }[self.mode]  # fmt: skip
        try:
            return score(showing, _Looked(self, showing))
        except (RuntimeError, MemoryError) as error:  # of the tower, or in the plain way
            if not out_of_memory(error):
                raise
            raise RerankError(
                f"not enough memory to look at a picture with {self.backbone.name}",
                hint="fewer --lvlm-tokens, --lvlm-dtype bfloat16, or a smaller model",
            ) from error

    def prompt_of(self, showing: Showing) -> str:
        """The first prompt that `score` would ask, in the model's chat template; empty if none.

        Raises:
            RerankError: more candidates than the mode takes.
        """
        count = len(showing.candidates)
        least = 2 if self.mode == "pairwise" else 1
        if count < least:
            return ""
        self._require_few(count)
        shown = count if self.mode == "listwise" else least
        return self.backbone.render(self._prompt(showing, range(shown)))

    def features(self, picture: Image, *, keep: bool = False) -> ImageFeatures:
        """A picture's visual features: from the cache, or by one pass of the tower.

        Args:
            picture: (H, W, 3) uint8 RGB.
            keep: look it up in the cache and put it there (tiles; photos are seen once).
        """
        if self.cache is None or not keep:
            return self.backbone.look(picture)
        key = picture_key(picture)
        known = self.cache.get(key)
        if known is None:
            known = self.backbone.look(picture)
            if torch.isfinite(known.tokens).all():  # else one overflow would stay for good
                self.cache.put(key, known)
        return known

    # ---- modes

    def _pointwise(self, showing: Showing, looked: _Looked) -> NDArray[np.float32]:
        assert self.head is not None
        states = looked.states([(i,) for i in range(len(showing.candidates))])
        with torch.inference_mode():
            scores = self.head(states).numpy()
        for name, score in zip(showing.ids, scores, strict=True):
            if not np.isfinite(score):
                raise RerankError(f"{self.backbone.name} scored candidate {name} as {score}")
        return np.asarray(scores, np.float32)

    def _listwise(self, showing: Showing, looked: _Looked) -> NDArray[np.float32]:
        count = len(showing.candidates)
        self._require_few(count)
        # the base's own order is the first; the others don't depend on the query, nor on threads.
        # None comes twice, which would be the same question: few candidates have few orders
        draw = np.random.default_rng(self.options.seed)
        orders = [tuple(range(count))]
        while len(orders) < min(self.options.orders, math.factorial(count)):
            order = tuple(map(int, draw.permutation(count)))
            if order not in orders:
                orders.append(order)
        letters = self._log_probabilities(showing, looked, orders)
        scores = np.zeros(count, np.float64)
        for order, row in zip(orders, letters, strict=True):
            scores[list(order)] += row / len(orders)
        return scores.astype(np.float32)

    def _pairwise(self, showing: Showing, looked: _Looked) -> NDArray[np.float32]:
        def compare(pairs: Sequence[tuple[int, int]]) -> list[float]:
            both = [order for i, j in pairs for order in ((i, j), (j, i))]
            letters = self._log_probabilities(showing, looked, both)
            lead = letters[:, 0] - letters[:, 1]  # of what stands first
            return [float(x) for x in (lead[::2] - lead[1::2]) / 2]

        limit = self.options.max_comparisons
        return tournament(len(showing.candidates), compare, max_comparisons=limit)

    def _log_probabilities(
        self, showing: Showing, looked: _Looked, orders: Sequence[tuple[int, ...]]
    ) -> NDArray[np.float64]:
        """(orders, candidates in a prompt) log-probabilities of the letters, among themselves."""
        states = looked.states(orders)
        ids = self.backbone.answer_ids(self._prompt(showing, orders[0]))
        with torch.inference_mode():
            rows = self.backbone.head_rows(ids).cpu()
            logits = (states @ rows.T).double().log_softmax(dim=-1).numpy()
        for order, row in zip(orders, logits, strict=True):
            if not np.isfinite(row).all():
                names = ", ".join(showing.ids[i] for i in order)
                raise RerankError(f"{self.backbone.name} gave no finite answer for {names}")
        return np.asarray(logits)

    def _require_few(self, count: int) -> None:
        if self.mode == "listwise" and count > MAX_LISTWISE:
            raise RerankError(
                f"{count} candidates are more than the {MAX_LISTWISE} of one prompt",
                hint=f"at most --top-k {MAX_LISTWISE}, or --lvlm-mode pairwise",
            )

    def _prompt(self, showing: Showing, order: Sequence[int]) -> Prompt:
        """The prompt that shows these candidates in this order."""
        if self.options.facts is False:
            return self.template.build(NOTHING, [NOTHING] * len(order))
        facts: list[Facts] = [showing.candidate_facts[i] for i in order]
        return self.template.build(showing.photo_facts, facts)


class _Looked:
    """One showing under scoring: features of its pictures, made once and when first needed."""

    def __init__(self, scorer: Scorer, showing: Showing) -> None:
        self._scorer, self._showing = scorer, showing
        self._photo: ImageFeatures | None = None
        self._tiles: dict[int, ImageFeatures] = {}

    def states(self, orders: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """(B, H) last states of the prompts that show candidates in these orders."""
        scorer, showing = self._scorer, self._showing
        prompts = [scorer._prompt(showing, order) for order in orders]
        if scorer.options.plain:
            shown = [[showing.candidates[i] for i in order] for order in orders]
            return plain_states(scorer.backbone, prompts, showing.photo, shown)
        if self._photo is None:
            self._photo = scorer.features(showing.photo)
        for i in dict.fromkeys(i for order in orders for i in order):
            if i not in self._tiles:
                self._tiles[i] = scorer.features(showing.candidates[i], keep=True)
        encoded: list[Encoded] = [
            scorer.backbone.encode(prompt, self._photo, [self._tiles[i] for i in order])
            for prompt, order in zip(prompts, orders, strict=True)
        ]
        return scorer.engine.last_states(encoded)
