"""The control without a language model: a head on the descriptors of photo and tile.

It sees the same lists in the same order, under the same loss, as many steps and the same choice of
the best one; what it lacks is a model that looks at both pictures together. A linear head
(`hidden` 0) gives a sum of something of the photo and something of the tile, so that it can only
learn which tiles are popular.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch

from skylink.ablation.cell import Lists, Ready, Scores, Work
from skylink.ablation.grid import Pairs
from skylink.ablation.held_out import scored
from skylink.ablation.lvlm_cell import trained_of
from skylink.ablation.pictures import list_show
from skylink.ablation.result import Trained
from skylink.encode import to_square
from skylink.encoder import Encoder, load_encoder
from skylink.errors import ModelError
from skylink.loss_registry import make_loss
from skylink.lvlm.cache import picture_key
from skylink.showing import Image
from skylink.training.config import TrainConfig
from skylink.training.data import Pick, TrainingLists, ValidationLists
from skylink.training.draws import drawn_from
from skylink.training.loop import Group, Loop, Part, last_checkpoint
from skylink.training.pictures import ListShow
from skylink.training.state import Weights, put_back, weights_of
from skylink.training.validation import better, figures


class Looks:
    """Descriptors of lists' pictures as models are shown them, each computed once for all cells.

    Args:
        encoder: as `load_encoder` takes it; loaded when first needed.
    """

    def __init__(self, encoder: str) -> None:
        self._name = encoder
        self._encoder: Encoder | None = None
        self._known: dict[str, torch.Tensor] = {}
        self._keys: dict[tuple[tuple[str, int], int], tuple[str, str]] = {}

    @property
    def encoder(self) -> Encoder:
        """Raises ModelError: it can't be loaded."""
        if self._encoder is None:
            self._encoder = load_encoder(self._name)
        return self._encoder

    def pairs(self, pick: Pick, show: ListShow) -> torch.Tensor:
        """(len(pick.rows), 2 D) float32: the photo's descriptor, then the candidate's.

        Components are scaled to a variance of about 1. Raises as `ListShow` does.
        """
        wanted = [(pick.key, row) for row in pick.rows]
        if any(key not in self._keys for key in wanted):
            showing = show(pick.mined, pick.rows)
            photo = self._look(showing.photo)
            for key, picture in zip(wanted, showing.candidates, strict=True):
                self._keys[key] = photo, self._look(picture)
        return torch.stack(
            [torch.cat([self._known[name] for name in self._keys[key]]) for key in wanted]
        )

    def _look(self, picture: Image) -> str:
        key = picture_key(picture)
        if key not in self._known:
            found = self.encoder.encode(to_square(picture, self.encoder)[None])[0]
            if not np.isfinite(found).all():
                raise ModelError(f"encoder {self._name} made a descriptor that is not finite")
            self._known[key] = torch.from_numpy(found * math.sqrt(len(found))).float()
        return key


def make_pairs(looks: Looks, work: Work) -> Ready:
    """Train the head, going on from its last checkpoint; see `cell.Maker`.

    Raises:
        SkyLinkError: lists can't be used, a picture can't be read, or the loss is not finite.
    """
    work.say("descriptors")
    config = work.config
    learner = _Learner(config, work.grid.pairs, looks)
    inputs = [f.header.summary.sha256 for f in (learner.lists.file, *learner.validation.files)]
    loop = Loop(
        learner,
        config,
        steps=config.optimizer.steps_over(len(learner.lists), config.optimizer.lists_per_step),
        inputs=inputs,
        saved=last_checkpoint(config, inputs),
    )
    outcome = loop.run(lambda step, steps, words: work.say(f"step {step} of {steps}: {words}"))
    learner.trained = trained_of(work.cell, learner.lists.statistics, loop.folder, outcome)
    return learner


class _Learner:
    """The head: under training (`loop.Learner`), then ready (`cell.Ready`)."""

    unit = "lists"
    if_not_finite = "lower pairs.lr"
    if_out_of_memory = "a smaller pairs.hidden or data.list_size"
    listwise = False
    trained: Trained | None = None

    def __init__(self, config: TrainConfig, pairs: Pairs, looks: Looks) -> None:
        self.config, self.rate, self.looks = config, pairs.lr, looks
        self.loss = make_loss(config.loss.name, **config.loss.params)
        self.lists = TrainingLists(config.data, config.labels, self.loss, seed=config.seed)
        self.validation = ValidationLists(
            config.data.validation, config.validation.depth, self.lists,
            config.validation.tolerance_m,
        )  # fmt: skip
        self.show = self._shown(
            config.data.folder or config.data.train.parent,
            config.data.gallery,
            needed=self.lists.needs_gallery or self.validation.needs_gallery,
        )
        first = looks.pairs(self.lists.at(0), self.show)
        with drawn_from((config.seed,), torch.device("cpu")):
            self.head = _head(first.shape[1], pairs.hidden)

    def groups(self) -> list[Group]:
        """The whole head."""
        decay = self.config.optimizer.weight_decay
        return [Group("head", list(self.head.parameters()), self.rate, decay)]

    def weights(self) -> Weights:
        """The head's."""
        return weights_of(self.head.named_parameters())

    def set_weights(self, weights: Weights) -> None:
        """The head's."""
        put_back(self.head.named_parameters(), weights)

    def batch(self, step: int) -> list[Part]:
        """A part for each list that the loss can learn from."""
        count = self.config.optimizer.lists_per_step
        picks = [self.lists.at(step * count + place) for place in range(count)]
        usable = [p for p in picks if self.loss.usable(torch.from_numpy(p.labels)[None]).all()]
        return [
            Part((pick.mined.query,), partial(self._backward, pick, len(usable))) for pick in usable
        ]

    def validate(self) -> dict[str, float]:
        """Recall and mrr on the validation lists."""
        with torch.no_grad():
            return figures([scored(p, self._plain(p, self.show)) for p in self.validation])

    def better(self, new: dict[str, float], old: dict[str, float]) -> bool:
        """By recall at 1, then mrr."""
        return better(new, old)

    def scores(self, lists: Lists) -> list[Scores]:
        """See `Ready.scores`."""
        show = self._shown(lists.folder, lists.gallery, needed=lists.needs_gallery)
        with torch.no_grad():
            return [self._plain(pick, show) for pick in lists.picks]

    def _shown(self, folder: Path, gallery: Path | None, *, needed: bool) -> ListShow:
        way, size_px = self.config.asking.show, self.looks.encoder.input_px
        return list_show(folder, gallery, needed=needed, way=way, size_px=size_px)

    def _backward(self, pick: Pick, lists: int) -> float:
        """Add the gradient of one list of so many; its loss, NaN where it can't be computed."""
        labels = torch.from_numpy(pick.labels)[None]
        try:
            loss = self.loss(self._scores(pick, self.show)[None], labels)
        except ModelError:
            return math.nan
        (loss / lists).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _plain(self, pick: Pick, show: ListShow) -> Scores:
        return np.asarray(self._scores(pick, show).double().numpy(), np.float64)

    def _scores(self, pick: Pick, show: ListShow) -> torch.Tensor:
        found: torch.Tensor = self.head(self.looks.pairs(pick, show))[:, 0]
        return found


def _head(inputs: int, hidden: int) -> torch.nn.Module:
    if not hidden:
        return torch.nn.Linear(inputs, 1)
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1)
    )
