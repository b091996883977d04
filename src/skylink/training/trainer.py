"""A vision-language model under training as a re-ranker: mined lists, batches, validation.

`loop.py` runs it.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from skylink.errors import ModelError, OptionError
from skylink.loss_registry import Loss, make_loss
from skylink.lvlm.cache import FeatureCache, default_folder
from skylink.minedfile import require_gallery
from skylink.training.config import Optimizer, TrainConfig
from skylink.training.data import Pick, TrainingLists, ValidationLists, require_pictures
from skylink.training.loop import (
    FOLDER,
    Group,
    Loop,
    Outcome,
    Part,
    Progress,
    last_checkpoint,
    rate_factor,
)
from skylink.training.model import Student, check_groups, load_student
from skylink.training.pictures import ListShow, Prompter, require_cache
from skylink.training.processes import Processes
from skylink.training.scoring import ListScorer
from skylink.training.state import Weights
from skylink.training.validation import better, figures, score_lists

if TYPE_CHECKING:
    from skylink.gallery import Gallery

__all__ = ["FOLDER", "Outcome", "Trainer", "rate_factor", "steps_of"]


class Trainer:
    """One training, new or continued.

    Args:
        config: all choices.
        resume: go on from the last checkpoint, if there is one; False: begin anew.
        processes: this process among all; made from the environment by default.

    Attributes:
        student: the model, under training.
        lists, validation: what is learnt from and what it is judged by.
        loop: steps, checkpoints, log.
        picture_bytes: what one picture's features take.

    Raises:
        QueriesError: lists can't be used, or pictures are missing.
        OptionError: a choice that doesn't fit; or a checkpoint of another configuration.
        ModelError: the model can't be loaded.
    """

    def __init__(
        self, config: TrainConfig, *, resume: bool = True, processes: Processes | None = None
    ) -> None:
        self.config = config
        self.processes = processes or Processes(config.compute.device)
        self.loss: Loss = make_loss(config.loss.name, **config.loss.params)
        self.lists = TrainingLists(config.data, config.labels, self.loss, seed=config.seed)
        self.validation = ValidationLists(
            config.data.validation, config.validation.depth, self.lists,
            config.validation.tolerance_m,
        )  # fmt: skip
        inputs = [f.header.summary.sha256 for f in (self.lists.file, *self.validation.files)]
        saved = last_checkpoint(config, inputs, resume=resume)  # before many GB are read
        gallery = self._check_pictures()
        self.student: Student = load_student(config, device=self.processes.device)
        backbone = self.student.backbone
        cache = None
        if config.compute.cache_gb > 0:
            cache = FeatureCache(
                config.compute.cache or default_folder(),
                backbone.features_key(),
                max_bytes=int(config.compute.cache_gb * 2**30),
            )
        self.prompter = Prompter(
            backbone,
            self.student.template,
            ListShow.over(self._pictures, gallery, backbone, config.asking.show),
            facts=config.asking.facts,
            cache=cache,
        )
        first = self.lists.at(0)
        prompts = self.prompter.prompts(first.mined, first.rows[:2])
        check_groups(backbone, prompts)
        require_cache(cache)
        self.picture_bytes = prompts[0].images[0].nbytes
        self.scorer = ListScorer(self.student, self.prompter, group=config.data.list_size)
        self.loop = Loop(
            self,
            config,
            steps=steps_of(config.optimizer, len(self.lists)),
            inputs=inputs,
            saved=saved,
            processes=self.processes,
        )

    def run(self, progress: Progress = lambda *_: None) -> Outcome:
        """Train to the end; the student then holds the best weights. Raises as `Loop.run`."""
        return self.loop.run(progress)

    @property
    def folder(self) -> Path:
        """Of checkpoints and log."""
        return self.loop.folder

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.loop.steps

    @property
    def done(self) -> int:
        """Steps that are done."""
        return self.loop.done

    # ---- as `loop.Learner`

    unit = "lists"
    if_not_finite = (
        "look at these lists; lower optimizer.lr_lora and lr_head, or set "
        'compute.precision = "fp32"'
    )
    if_out_of_memory = (
        "compute.gradient_checkpointing = true, fewer asking.visual_tokens, a smaller "
        "data.list_size, or a smaller model"
    )

    def groups(self) -> list[Group]:
        """The head, whose bias has no weight decay, and LoRA's weights."""
        rates, named = self.config.optimizer, dict(self.student.named_parameters())
        groups = [
            Group("head", [named["head.weight"]], rates.lr_head, rates.weight_decay),
            Group("head", [named["head.bias"]], rates.lr_head),
        ]
        if not self.student.frozen:
            lora = [p for name, p in named.items() if name.startswith("lora.")]
            groups.append(Group("lora", lora, rates.lr_lora, rates.weight_decay))
        return groups

    def weights(self) -> Weights:
        """The student's."""
        return self.student.weights()

    def set_weights(self, weights: Weights) -> None:
        """The student's."""
        self.student.set_weights(weights)

    def batch(self, step: int) -> list[Part]:
        """A part for each list that the loss can learn from."""
        count = self.config.optimizer.lists_per_step
        picks = [self.lists.at(step * count + place) for place in range(count)]
        usable = [pick for pick in picks if self._usable(pick)]
        return [
            Part((pick.mined.query,), partial(self._backward, pick, len(usable), step))
            for pick in usable
        ]

    def validate(self) -> dict[str, float]:
        """Recall and mrr on the validation lists, if there are any."""
        if not len(self.validation):
            return {}
        return figures(score_lists(self.validation, self.scorer, self.processes))

    def better(self, new: dict[str, float], old: dict[str, float]) -> bool:
        """By recall at 1, then mrr."""
        return better(new, old)

    def _backward(self, pick: Pick, lists: int, step: int) -> float:
        """Add the gradient of one list of so many; its loss, NaN where it can't be computed."""
        with self.student.training((self.config.seed, step, pick.key[1])):
            scores = self.scorer.scores(pick)
            labels = torch.from_numpy(pick.labels).to(scores.device)
            try:
                loss = self.loss(scores[None], labels[None])
            except ModelError:  # not finite; other processes must hear of it
                return math.nan
            (loss / lists).backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

    def _usable(self, pick: Pick) -> bool:
        return bool(self.loss.usable(torch.from_numpy(pick.labels)[None]).all())

    def _check_pictures(self) -> Gallery | None:
        """All pictures are there; the gallery, where candidates are places on a map."""
        data = self.config.data
        self._pictures = data.folder or data.train.parent
        require_pictures(self._pictures, self.lists.pictures | self.validation.pictures)
        if not (self.lists.needs_gallery or self.validation.needs_gallery):
            return None
        if data.gallery is None:
            raise OptionError(
                f"candidates of {data.train} are places on a map, and there is no gallery",
                hint="set data.gallery to the gallery that the lists were mined from",
            )
        from skylink.gallery import Gallery

        gallery = Gallery.open(data.gallery)
        require_gallery((self.lists.file, *self.validation.files), gallery)
        return gallery


def steps_of(optimizer: Optimizer, lists: int) -> int:
    """Steps of a run over so many lists."""
    return optimizer.steps_over(lists, optimizer.lists_per_step)
