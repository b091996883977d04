"""The control without a language model: a head on the descriptors of photo and tile.

It sees the same lists in the same order, under the same loss, as many steps and the same choice of
the best one; what it lacks is a model that looks at both pictures together. A linear head
(`hidden` 0) gives a sum of something of the photo and something of the tile, so that it can only
learn which tiles are popular. Training takes seconds once descriptors are there, and is begun anew
after a kill.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch

from skylink.ablation.grid import Cell, Pairs
from skylink.ablation.held_out import HeldOut, scored
from skylink.ablation.lvlm_cell import Say, done, fitted, trained_of
from skylink.ablation.pictures import list_show
from skylink.ablation.result import Done
from skylink.encode import to_square
from skylink.encoder import Encoder, load_encoder
from skylink.errors import ModelError
from skylink.loss_registry import make_loss
from skylink.lvlm.cache import picture_key
from skylink.showing import Image
from skylink.training.config import TrainConfig
from skylink.training.data import Pick, TrainingLists, ValidationLists
from skylink.training.fusion import Scored
from skylink.training.journal import Journal
from skylink.training.pictures import ListShow
from skylink.training.trainer import FOLDER, rate_factor, steps_of
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


def run_pairs(
    cell: Cell, config: TrainConfig, pairs: Pairs, held: HeldOut, looks: Looks, say: Say
) -> Done:
    """Train the head and measure it.

    Raises:
        SkyLinkError: lists can't be used, a picture can't be read, or the loss is not finite.
    """
    say("descriptors")
    learner = _Learner(config, pairs, looks)
    steps, best, seconds = learner.run(say)
    fit = fitted(learner.scored(learner.validation, learner.show))
    start = time.monotonic()
    show = list_show(
        held.folder, held.gallery, needed=held.needs_gallery, way=config.asking.show,
        size_px=looks.encoder.input_px,
    )  # fmt: skip
    scores = [each.scores for each in learner.scored(held, show)]
    judge_seconds = time.monotonic() - start
    trained = trained_of(
        cell, learner.lists.statistics, config.out / FOLDER,
        steps=steps, best_step=best, seconds=seconds,
    )  # fmt: skip
    return done(held, scores, fit, trained, judge_seconds)


class _Learner:
    """The head under training."""

    def __init__(self, config: TrainConfig, pairs: Pairs, looks: Looks) -> None:
        self.config, self.rate, self.looks = config, pairs.lr, looks
        self.loss = make_loss(config.loss.name, **config.loss.params)
        self.lists = TrainingLists(config.data, config.labels, self.loss, seed=config.seed)
        self.validation = ValidationLists(
            config.data.validation, config.validation.depth, self.lists
        )
        self.steps = steps_of(config.optimizer, len(self.lists))
        self.show = list_show(
            config.data.folder or config.data.train.parent,
            config.data.gallery,
            needed=self.lists.needs_gallery or self.validation.needs_gallery,
            way=config.asking.show,
            size_px=looks.encoder.input_px,
        )
        first = looks.pairs(self.lists.at(0), self.show)
        with torch.random.fork_rng([]):
            torch.manual_seed(config.seed)
            self.head = _head(first.shape[1], pairs.hidden)
        self.optimizer = torch.optim.AdamW(
            self.head.parameters(), lr=pairs.lr, weight_decay=config.optimizer.weight_decay
        )

    def run(self, say: Say) -> tuple[int, int, float]:
        """(steps done, the best of them, whose weights the head then has, seconds)."""
        start = time.monotonic()
        journal = Journal(self.config.out / FOLDER, after=0)
        wish = self.config.validation
        every = wish.every or max(1, math.ceil(self.steps / 4))
        best_step, best, kept, waited = 0, None, self._weights(), 0
        for step in range(1, self.steps + 1):
            loss, norm = self._step(step - 1)
            journal.add(step, loss=loss, grad_norm=norm)
            if step % every and step < self.steps:
                continue
            found = figures(self.scored(self.validation, self.show))
            say(f"step {step} of {self.steps}: recall@1 {100 * found['recall@1']:.1f} %")
            waited += 1
            if best is None or better(found, best):
                best_step, best, kept, waited = step, found, self._weights(), 0
            if wish.patience is not None and waited >= wish.patience:
                break
        journal.close()
        self.head.load_state_dict(kept)
        return step, best_step, time.monotonic() - start

    def scored(self, lists: Sequence[Pick] | HeldOut, show: ListShow) -> list[Scored]:
        """Every list with its scores."""
        with torch.no_grad():
            return [
                scored(pick, self._scores(pick, show).double().numpy())
                for pick in (lists[i] for i in range(len(lists)))
            ]

    def _scores(self, pick: Pick, show: ListShow) -> torch.Tensor:
        found: torch.Tensor = self.head(self.looks.pairs(pick, show))[:, 0]
        return found

    def _step(self, step: int) -> tuple[float | None, float]:
        """Mean loss of the step's lists, and the gradient's norm before clipping."""
        rates = self.config.optimizer
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * rate_factor(rates, step, self.steps)
        count = rates.lists_per_step
        self.optimizer.zero_grad()
        losses = []
        for pick in (self.lists.at(step * count + place) for place in range(count)):
            labels = torch.from_numpy(pick.labels)[None]
            if self.loss.usable(labels).all():
                losses.append(self.loss(self._scores(pick, self.show)[None], labels))
        if not losses:
            return None, 0.0
        loss = torch.stack(losses).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(self.head.parameters(), rates.clip))
        value = float(loss.detach())
        if not (math.isfinite(norm) and math.isfinite(value)):
            raise ModelError(
                f"the loss or gradient of step {step + 1} is not finite", hint="lower pairs.lr"
            )
        self.optimizer.step()
        return value, norm

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.head.state_dict().items()}


def _head(inputs: int, hidden: int) -> torch.nn.Module:
    if not hidden:
        return torch.nn.Linear(inputs, 1)
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1)
    )
