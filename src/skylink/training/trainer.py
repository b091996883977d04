"""The loop: lists in, gradients, steps, validations, checkpoints.

A run that was killed goes on from its last checkpoint to the same losses: bit for bit in one
process on a CPU, up to rounding elsewhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from skylink.errors import ModelError, OptionError
from skylink.loss_registry import Loss, make_loss
from skylink.lvlm.backbone import out_of_memory
from skylink.lvlm.cache import FeatureCache, default_folder
from skylink.training import state
from skylink.training.config import Optimizer, TrainConfig
from skylink.training.data import Pick, TrainingLists, ValidationLists, require_pictures
from skylink.training.journal import Journal
from skylink.training.model import Student, check_groups, load_student
from skylink.training.pictures import ListShow, Prompter, require_cache
from skylink.training.processes import Processes
from skylink.training.scoring import ListScorer
from skylink.training.state import Best, Saved
from skylink.training.validation import better, figures, score_lists

if TYPE_CHECKING:
    from skylink.gallery import Gallery

Progress = Callable[[int, int, str], None]
FOLDER = "training"
"""Checkpoints and logs, within the folder that the finished adapter is written to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to.

    Attributes:
        step: of the weights that the student holds now: the best validation's, or the last.
        steps: steps done.
        best: figures of that validation; None without validation lists.
        stopped_early: validations did not get better for `validation.patience` times.
        seconds: spent in steps, by all runs together.
    """

    step: int
    steps: int
    best: dict[str, float] | None
    stopped_early: bool
    seconds: float


class Trainer:
    """One training, new or continued.

    Args:
        config: all choices.
        resume: go on from the last checkpoint, if there is one; False: begin anew.
        processes: this process among all; made from the environment by default.

    Attributes:
        student: the model, under training.
        lists, validation: what is learnt from and what it is judged by.
        steps: of the whole run.
        done: steps that are done.
        best: the best validation so far.
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
            config.data.validation, config.validation.depth, self.lists
        )
        self.folder = config.out / FOLDER
        self.steps = steps_of(config.optimizer, len(self.lists))
        found = state.checkpoints(self.folder) if resume else []
        saved = state.load(found[-1]) if found else None
        if saved is not None:
            self._require_same(saved, found[-1])  # before many GB are read
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
        self._parameters = [p for _, p in self.student.named_parameters()]
        self.optimizer = _optimizer(self.student, config.optimizer)
        self.done = 0
        self.best: Best | None = None
        self._waited, self._seconds = 0, 0.0
        if saved is not None:
            self._restore(saved)

    def run(self, progress: Progress = lambda *_: None) -> Outcome:
        """Train to the end; the student then holds the best weights.

        Raises:
            ModelError: loss or gradient is not finite; the lists are named, and the last
                checkpoint is as it was.
            OutputError: the disk is full, or not to be written to; the last checkpoint is whole.
        """
        journal = None
        if self.processes.first:
            if self.done == 0:
                state.remove_all(self.folder)
            journal = Journal(self.folder, after=self.done)
        every = self.config.validation.every or max(1, math.ceil(self.steps / 4))
        stopped = self._hopeless()
        while self.done < self.steps and not stopped:
            start = time.monotonic()
            try:
                entry = self._step()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                raise ModelError(
                    f"not enough memory to learn from a list of {self.config.data.list_size}",
                    hint="compute.gradient_checkpointing = true, fewer asking.visual_tokens, a "
                    "smaller data.list_size, or a smaller model",
                ) from error
            self.done += 1
            self._seconds += time.monotonic() - start
            words = "" if entry["loss"] is None else f"loss {entry['loss']:.4f}"
            last = self.done == self.steps
            if len(self.validation) and (last or self.done % every == 0):
                entry |= self._validate()
                stopped = self._hopeless()
                words += f", recall@1 {100 * entry['recall@1']:.1f} %"
            if journal is not None:
                journal.add(self.done, **entry, seconds=round(self._seconds, 3))
                if last or stopped or self.done % self.config.checkpoints.every == 0:
                    self.save()
            progress(self.done, self.steps, words)
        if journal is not None:
            journal.close()
        self.processes.wait()
        if self.best is not None:
            self.student.set_weights(self.best.weights)
        return Outcome(
            step=self.done if self.best is None else self.best.step,
            steps=self.done,
            best=None if self.best is None else self.best.figures,
            stopped_early=stopped and self.done < self.steps,
            seconds=self._seconds,
        )

    def save(self) -> Path:
        """Write a checkpoint of the run as it is. Raises OutputError, the last one intact."""
        saved = Saved(
            step=self.done,
            config=self.config.json_dict(),
            lists=self._lists_hashes(),
            weights=self.student.weights(),
            optimizer=self.optimizer.state_dict(),
            best=self.best,
            waited=self._waited,
            seconds=self._seconds,
        )
        return state.save(self.folder, saved, keep=self.config.checkpoints.keep)

    # ---- a step

    def _step(self) -> dict[str, Any]:
        """One step: gradients of its lists summed, clipped, applied."""
        rates = self.config.optimizer
        count = rates.lists_per_step
        picks = [self.lists.at(self.done * count + place) for place in range(count)]
        usable = [pick for pick in picks if self._usable(pick)]
        factor = rate_factor(rates, self.done, self.steps)
        for group, rate in zip(
            self.optimizer.param_groups, _rates(rates, len(self.optimizer.param_groups)),
            strict=True,
        ):  # fmt: skip
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[tuple[str, float]] = []
        for pick in self.processes.share(usable):
            with self.student.training((self.config.seed, self.done, pick.key[1])):
                value = self._backward(pick, len(usable))
            losses.append((pick.mined.query, value))
        losses = self.processes.gather(losses)
        if broken := [query for query, value in losses if not math.isfinite(value)]:
            self._give_up("the loss", broken)
        self.processes.sum_gradients(self._parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, rates.clip))
        if not math.isfinite(norm):
            self._give_up("the gradient", [query for query, _ in losses])
        if usable:
            self.optimizer.step()
        return {
            "loss": sum(value for _, value in losses) / len(losses) if losses else None,
            "grad_norm": norm,
            "lr_head": rates.lr_head * factor,
            "lr_lora": None if self.student.frozen else rates.lr_lora * factor,
            "lists": len(usable),
        }

    def _backward(self, pick: Pick, lists: int) -> float:
        """Add the gradient of one list of so many; its loss, NaN where it can't be computed."""
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

    def _give_up(self, what: str, queries: list[str]) -> None:
        names = ", ".join(map(repr, queries))
        found = state.checkpoints(self.folder)
        kept = f"{found[-1]} is the last good checkpoint" if found else "there is no checkpoint yet"
        raise ModelError(
            f"{what} of step {self.done + 1} is not finite, on the lists of {names}; {kept}",
            hint="look at these lists; lower optimizer.lr_lora and lr_head, or set "
            'compute.precision = "fp32"; then train again with --fresh',
        )

    # ---- validation

    def _validate(self) -> dict[str, float]:
        found = figures(score_lists(self.validation, self.scorer, self.processes))
        if self.best is None or better(found, self.best.figures):
            self.best = Best(step=self.done, figures=found, weights=self.student.weights())
            self._waited = 0
        else:
            self._waited += 1
        return found

    def _hopeless(self) -> bool:
        patience = self.config.validation.patience
        return patience is not None and self._waited >= patience

    # ---- beginning and going on

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

        return Gallery.open(data.gallery)

    def _lists_hashes(self) -> list[str]:
        files = [self.lists.file, *self.validation.files]
        return [file.header.summary.sha256 for file in files]

    def _require_same(self, saved: Saved, path: Path) -> None:
        differing = self.config.differences(saved.config)
        if saved.lists != self._lists_hashes():
            differing.append("the lists themselves")
        if differing:
            raise OptionError(
                f"{path} is of a training with other choices: {', '.join(differing)}",
                hint="set them back to go on, or begin anew with --fresh",
            )

    def _restore(self, saved: Saved) -> None:
        self.student.set_weights(saved.weights)
        self.optimizer.load_state_dict(saved.optimizer)
        self.done, self.best = saved.step, saved.best
        self._waited, self._seconds = saved.waited, saved.seconds


def steps_of(optimizer: Optimizer, lists: int) -> int:
    """Steps of a run over so many lists."""
    if optimizer.steps is not None:
        return optimizer.steps
    return max(1, math.ceil(optimizer.epochs * lists / optimizer.lists_per_step))


def rate_factor(optimizer: Optimizer, step: int, steps: int) -> float:
    """What learning rates are multiplied by: linear warm-up, then a cosine to `final_lr`.

    Args:
        optimizer: the configuration's.
        step: from 0.
        steps: of the whole run.
    """
    warm = math.ceil(optimizer.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    along = (step - warm) / max(1, steps - warm)
    return optimizer.final_lr + (1 - optimizer.final_lr) * (1 + math.cos(math.pi * along)) / 2


def _optimizer(student: Student, config: Optimizer) -> torch.optim.AdamW:
    """AdamW; the bias has no weight decay."""
    named = dict(student.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [named["head.weight"]], "weight_decay": config.weight_decay},
        {"params": [named["head.bias"]], "weight_decay": 0.0},
    ]
    if not student.frozen:
        lora = [p for name, p in named.items() if name.startswith("lora.")]
        groups.append({"params": lora, "weight_decay": config.weight_decay})
    return torch.optim.AdamW(groups, lr=config.lr_head, foreach=False)


def _rates(config: Optimizer, groups: int) -> list[float]:
    return [config.lr_head, config.lr_head, config.lr_lora][:groups]
