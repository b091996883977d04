"""A training of the embedded encoder, from pictures to the finished folder.

    OUT/work/overlaps-*.csv      which drone photos overlap
    OUT/work/bank, held_out      features of all samples by the frozen trunk
    OUT/work/dense, descriptor   log and checkpoints of the two trainings
    OUT/                         the finished files: see `finish.py`

Each step is kept: the same command goes on where it was interrupted, and does nothing twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from skylink.embedded.bank import Bank, Progress, build_bank
from skylink.embedded.dense_learner import DenseLearner, hit_rates
from skylink.embedded.descriptor_learner import DescriptorLearner
from skylink.embedded.network import read_weights, shipped
from skylink.embedded.recipe import DenseStage, DescriptorStage, EncoderRecipe, Stage, Views
from skylink.embedded.sources import SampleSource
from skylink.embedded.tuned import TunedDescriptor
from skylink.encoder import EmbeddedEncoder
from skylink.errors import OptionError, QueriesError
from skylink.files import output_errors
from skylink.training.draws import drawn_from
from skylink.training.loop import Loop, Outcome, last_checkpoint
from skylink.views import MapPool, Overlap, OverlapPool

WORK = "work"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """What became of one of the two trainings.

    Attributes:
        learner: holding the best weights.
        outcome: of its loop.
        untrained: the same figures before, or of the base.
    """

    learner: DenseLearner | DescriptorLearner
    outcome: Outcome
    untrained: dict[str, float]


class EncoderTraining:
    """See the module. Pictures are looked for at once.

    Args:
        recipe: all choices.
        resume: False: begin anew, and remove what is there of other choices.

    Raises:
        QueriesError: there are no pictures to learn from, or no overlaps among photos.
        OptionError: folders of held-out photos that there are not.
    """

    def __init__(self, recipe: EncoderRecipe, *, resume: bool = True) -> None:
        self.recipe, self.resume = recipe, resume
        self.encoder = EmbeddedEncoder()
        self.work = recipe.out / WORK
        data = recipe.data
        self.maps = MapPool(data.maps, every=data.held_out_every, skip=True)
        self.held_maps = MapPool(data.maps, every=data.held_out_every)
        self.sites = [] if data.photos is None else _sites(data.photos)
        if missing := sorted(set(data.held_out_photos) - set(self.sites)):
            raise OptionError(
                f"data.held_out_photos: there is no folder {missing[0]!r} in {data.photos}",
                hint=f"there are: {', '.join(self.sites) or 'none'}",
            )
        self.bank: Bank | None = None
        self.held: Bank | None = None

    def build(self, progress: Progress = lambda *_: None) -> tuple[Bank, Bank | None]:
        """The features of all samples; what is there is kept.

        Args:
            progress: called with (done, total, words).

        Raises:
            OptionError: what is there is of other choices, and `resume`.
            QueriesError, PhotoError: pictures can't be used.
            OutputError: it can't be written.
        """
        overlaps = self._overlaps(progress)
        recipe, held = self.recipe, set(self.recipe.data.held_out_photos)
        real = {
            True: [o for o in overlaps if o.first.parent.name in held],
            False: [o for o in overlaps if o.first.parent.name not in held],
        }
        sources = {
            "bank": _source(self.maps, real[False], recipe.views, recipe.seed + 1),
            "held_out": _source(self.held_maps, real[True], recipe.held_out, recipe.seed + 2),
        }
        made: dict[str, Bank] = {}
        for name, source in sources.items():
            if len(source):
                made[name] = build_bank(
                    self.work / name, source, self.encoder, fresh=not self.resume,
                    progress=lambda done, total, _: progress(done, total, "features"),
                )  # fmt: skip
        if "bank" not in made or len(made["bank"]) < 2:
            raise QueriesError("there are no two maps to learn from", hint="views.synthetic = 2520")
        self.bank, self.held = made["bank"], made.get("held_out")
        return self.bank, self.held

    def train_dense(self, progress: Progress = lambda *_: None) -> Trained:
        """Train the dense head, or go on. Call `build` before. Raises as `Loop.run`."""
        bank, held = self._banks()
        config = DenseStage.of(self.recipe)
        learner = DenseLearner(config, bank, held)
        steps = config.optimizer.steps_over(len(bank), config.dense.maps_per_step)
        outcome = self._run(learner, config, steps, progress)
        return Trained(
            learner=learner,
            outcome=outcome,
            untrained={} if held is None else hit_rates(held, None),
        )

    def train_descriptor(self, progress: Progress = lambda *_: None) -> Trained:
        """Train the descriptor, or go on. Call `build` before. Raises as `Loop.run`."""
        bank, held = self._banks()
        config = DescriptorStage.of(self.recipe)
        with drawn_from((config.seed, 4), torch.device("cpu")):
            model = TunedDescriptor(config.descriptor.size)
        read_weights(model.top, shipped("top"))
        learner = DescriptorLearner(config, bank, held, model)
        steps = config.optimizer.steps_over(len(bank), config.descriptor.maps_per_step)
        outcome = self._run(learner, config, steps, progress)
        figures = outcome.best or {}
        untrained = {k.removeprefix("base "): v for k, v in figures.items() if k.startswith("base")}
        return Trained(learner=learner, outcome=outcome, untrained=untrained)

    def _run(
        self,
        learner: DenseLearner | DescriptorLearner,
        config: Stage,
        steps: int,
        progress: Progress,
    ) -> Outcome:
        bank, held = self._banks()
        inputs = [each.identity.model_dump_json() for each in (bank, held) if each is not None]
        saved = last_checkpoint(config, inputs, resume=self.resume)
        return Loop(learner, config, steps=steps, inputs=inputs, saved=saved).run(progress)

    def _banks(self) -> tuple[Bank, Bank | None]:
        if self.bank is None:
            self.build()
        assert self.bank is not None
        return self.bank, self.held

    def _overlaps(self, progress: Progress) -> list[Overlap]:
        photos = self.recipe.data.photos
        if photos is None:
            return []
        cache = self.work / f"overlaps-{_listed(photos, self.sites)}.csv"
        if not self.resume:
            with output_errors(cache):
                cache.unlink(missing_ok=True)
        pool = OverlapPool.of(
            photos, self.sites, cache=cache,
            progress=lambda done, total: progress(done, total, "overlapping photos"),
        )  # fmt: skip
        return pool.overlaps


def _source(maps: MapPool, overlaps: list[Overlap], views: Views, seed: int) -> SampleSource:
    return SampleSource(
        maps, OverlapPool(overlaps) if overlaps else None, synthetic=views.synthetic,
        real=views.real, views=views.views, seed=seed, difficulty=views.difficulty,
        map_px=views.map_px, view_px=views.view_px,
    )  # fmt: skip


def _sites(photos: Path) -> list[str]:
    try:
        found = sorted(p.name for p in photos.iterdir() if p.is_dir() and p.name[0] != ".")
    except OSError as error:
        raise QueriesError(f"data.photos: {photos} can't be read: {error.strerror}") from error
    if not found:
        raise QueriesError(f"data.photos: {photos} holds no folders of photos")
    return found


def _listed(photos: Path, sites: list[str]) -> str:
    """A short hash of the photos' names and sizes: other photos, other overlaps."""
    listed = [
        (f"{site}/{path.name}", path.stat().st_size)
        for site in sites
        for path in sorted((photos / site).iterdir())
        if path.is_file()
    ]
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:12]
