"""An encoder under training as a retriever: descriptors with gradients, loss, validation.

`training/loop.py` runs it. A batch may be larger than memory: pictures go through the encoder in
chunks without gradients, the loss gives the gradient of every descriptor, and each chunk goes
through once more with gradients (Gao et al., Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup, 2021). Dropout is drawn from seed, step and chunk, so that both passes drop
alike. Batch normalisation keeps the statistics that it came with: a descriptor must not depend on
the pictures that happen to be beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from skylink.contrastive import info_nce
from skylink.datasets import Item
from skylink.encoders import make_encoder
from skylink.encoders.torch_encoder import TorchEncoder
from skylink.encoders.trained import require_trainable
from skylink.errors import ModelError, OptionError
from skylink.losses import relational_cross_entropy
from skylink.training.draws import drawn_from
from skylink.training.loop import Group, Loop, Outcome, Part, Progress, last_checkpoint
from skylink.training.processes import Processes
from skylink.training.retriever.batches import Batch, Batches, hardest_tiles
from skylink.training.retriever.config import RetrieverConfig
from skylink.training.retriever.examples import Examples, load_examples
from skylink.training.retriever.pictures import Pictures, Turn
from skylink.training.state import Weights, put_back, weights_of

MOST_SCALE = 100.0
"""1 / temperature at the most, as in CLIP."""
BATCH_NORMS = (torch.nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """Pictures that go through the encoder together."""

    number: int
    items: Sequence[Item]
    turns: Sequence[Turn]


class RetrieverTrainer:
    """One training, new or continued; a `loop.Learner`.

    Args:
        config: all choices.
        resume: go on from the last checkpoint, if there is one; False: begin anew.
        processes: this process among all; made from the environment by default.

    Attributes:
        encoder: under training.
        examples, validation: what is learnt from and what it is judged by, if anything.
        loop: steps, checkpoints, log.

    Raises:
        OptionError: a choice that doesn't fit; a checkpoint of another configuration; training and
            test share queries or places.
        DatasetError, QueriesError: what is learnt from can't be used.
        ModelError: the encoder can't be loaded.
    """

    unit = "photos"
    if_not_finite = 'lower optimizer.lr, or set compute.precision = "fp32"'
    if_out_of_memory = "a smaller compute.pictures_at_once"

    def __init__(
        self,
        config: RetrieverConfig,
        *,
        resume: bool = True,
        processes: Processes | None = None,
    ) -> None:
        self.config = config
        self.processes = processes or Processes(config.compute.device)
        require_trainable(config.encoder)
        self.examples, self.validation = load_examples(config.data, seed=config.seed)
        if len(self.examples) < 2:
            raise OptionError(f"{self.examples.title}: one photo is not enough to learn from")
        judged = [] if self.validation is None else [self.validation.digest]
        inputs = [self.examples.digest, *judged]
        saved = last_checkpoint(config, inputs, resume=resume)
        self.encoder = _loaded(config.encoder, self.processes.device)
        self.network: torch.nn.Module = self.encoder.network.requires_grad_(True)
        self._bf16 = config.compute.precision == "bf16" or (
            config.compute.precision == "auto" and self.encoder.device.type == "cuda"
        )
        log_scale = torch.tensor(-math.log(config.loss.temperature), device=self.encoder.device)
        self.log_scale = torch.nn.Parameter(log_scale, requires_grad=config.loss.learn_temperature)
        self.hardest = torch.from_numpy(self.examples.hardest.copy())
        self.pictures = Pictures(
            self.encoder,
            workers=config.compute.workers,
            max_bytes=int(config.compute.memory_gb * 2**30),
        )
        rates = config.optimizer
        self.batches = Batches(
            self.examples, config.data, size=rates.photos_per_step, seed=config.seed
        )
        self.loop = Loop(
            self,
            config,
            steps=rates.steps_over(len(self.examples), self.batches.size),
            inputs=inputs,
            saved=saved,
            processes=self.processes,
        )

    def run(self, progress: Progress = lambda *_: None) -> Outcome:
        """Train to the end; the encoder then holds the best weights. Raises as `Loop.run`."""
        outcome = self.loop.run(progress)
        self.network.requires_grad_(False)
        return outcome

    @property
    def temperature(self) -> float:
        """As it is now."""
        return 1 / float(self._scale().detach())

    @property
    def most_chunks(self) -> int:
        """Of a batch, which processes share: fewer where photos have tiles in common."""
        pictures = (2 + self.config.data.hard) * self.batches.size
        return math.ceil(pictures / self.config.compute.pictures_at_once)

    # ---- as `loop.Learner`

    def groups(self) -> list[Group]:
        """The encoder, whose vectors have no weight decay, and the temperature."""
        rates = self.config.optimizer
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        groups = [Group("encoder", matrices, rates.lr, rates.weight_decay)] if matrices else []
        if vectors:
            groups.append(Group("encoder", vectors, rates.lr))
        if self.log_scale.requires_grad:
            groups.append(Group("temperature", [self.log_scale], rates.lr_temperature))
        return groups

    def weights(self) -> Weights:
        """The encoder's, the temperature, and which tiles are known to be hardest."""
        return weights_of(self._changing())

    def set_weights(self, weights: Weights) -> None:
        """See `weights`."""
        put_back(self._changing(), weights)

    def batch(self, step: int) -> list[Part]:
        """One part for each chunk of the batch's pictures; all of them have the batch's loss."""
        if self.batches.mines_at(step):
            self.hardest = torch.from_numpy(self._mined())
        batch = self.batches.at(step, self.hardest.numpy())
        names = [self.examples.photos[photo].id for photo in batch.photos]
        chunks = list(self._chunks(batch))
        if len(chunks) == 1:
            return [Part(tuple(names), partial(self._backward_whole, batch, chunks[0], step))]
        with torch.no_grad():
            mine = [self._embedded(chunk, step).cpu() for chunk in self.processes.share(chunks)]
        found = torch.cat(self.processes.gather(mine)).to(self.encoder.device).requires_grad_()
        try:
            loss = self._loss(found, batch)
            loss.backward()  # type: ignore[no-untyped-call]
        except ModelError:  # the descriptors are not finite
            return [Part(tuple(names), lambda: math.nan)]
        assert found.grad is not None
        scale_gradient, self.log_scale.grad = self.log_scale.grad, None
        rows = torch.split(found.grad, [len(chunk.items) for chunk in chunks])
        shares = [names[i :: len(chunks)] for i in range(len(chunks))]
        return [
            Part(
                tuple(share),
                partial(
                    self._backward_chunk, chunk, step, rows[chunk.number], float(loss.detach()),
                    scale_gradient if chunk.number == 0 else None,
                ),
            )
            for chunk, share in zip(chunks, shares, strict=True)
        ]  # fmt: skip

    def validate(self) -> dict[str, float]:
        """Recall at 1 and mrr of the validation photos among all validation tiles."""
        if self.validation is None:
            return {}
        photos, tiles = (
            self._described(x) for x in (self.validation.photos, self.validation.tiles)
        )
        return recall(self.validation, photos, tiles)

    def better(self, new: dict[str, float], old: dict[str, float]) -> bool:
        """By recall at 1, then mrr."""
        return (new["recall@1"], new["mrr"]) > (old["recall@1"], old["mrr"])

    # ---- a step

    def _chunks(self, batch: Batch) -> Iterator[_Chunk]:
        """The batch's pictures, photos first."""
        items = [self.examples.photos[row] for row in batch.photos]
        items += [self.examples.tiles[row] for row in batch.tiles]
        turns = [*batch.photo_turns, *batch.tile_turns]
        most = self.config.compute.pictures_at_once
        for number, start in enumerate(range(0, len(items), most)):
            yield _Chunk(number, items[start : start + most], turns[start : start + most])

    def _backward_whole(self, batch: Batch, chunk: _Chunk, step: int) -> float:
        try:
            loss = self._loss(self._embedded(chunk, step), batch)
        except ModelError:  # the descriptors are not finite
            return math.nan
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _backward_chunk(
        self,
        chunk: _Chunk,
        step: int,
        gradient: torch.Tensor,
        loss: float,
        scale_gradient: torch.Tensor | None,
    ) -> float:
        """Add the gradient of one chunk's descriptors; the batch's loss."""
        if scale_gradient is not None:
            self.log_scale.grad = scale_gradient
        self._embedded(chunk, step).backward(gradient)  # type: ignore[no-untyped-call]
        return loss

    def _embedded(self, chunk: _Chunk, step: int) -> torch.Tensor:
        """(len(chunk.items), D) float32, unit norm, with dropout."""
        squares = self.pictures.read(chunk.items, chunk.turns)
        with (
            self._dropping(),
            drawn_from((self.config.seed, step, chunk.number), self.encoder.device),
        ):
            return self._unit(squares)

    def _unit(self, squares: NDArray[np.uint8]) -> torch.Tensor:
        with torch.autocast(self.encoder.device.type, torch.bfloat16, enabled=self._bf16):
            found = self.encoder.describe(squares)
        return normalize(found.float(), dim=1)

    def _loss(self, descriptors: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The batch's loss, of (B + N, D) descriptors. Raises ModelError: they are not finite."""
        device = descriptors.device
        photos, tiles = torch.split(descriptors, [len(batch.photos), len(batch.tiles)])
        similarity, scale = photos @ tiles.T, self._scale()
        partner = torch.from_numpy(batch.partner).to(device)
        same = torch.from_numpy(batch.same).to(device)
        if self.config.loss.name == "infonce":
            return info_nce(
                similarity, partner, same, scale=scale,
                label_smoothing=self.config.loss.label_smoothing,
            )  # fmt: skip
        labels = torch.from_numpy(batch.labels).to(device)
        real = ~same | (
            labels > 0
        )  # what shows the place, nobody knows how much of it, is left out
        return (
            relational_cross_entropy(scale * similarity, labels, real)
            + relational_cross_entropy(
                scale * similarity[:, partner].T, labels[:, partner].T, real[:, partner].T
            )
        ) / 2

    def _scale(self) -> torch.Tensor:
        return self.log_scale.exp().clamp(max=MOST_SCALE)

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Dropout is on; batch normalisation stays as it is."""
        self.network.train()
        for module in self.network.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()
        try:
            yield
        finally:
            self.network.eval()

    # ---- descriptors of everything

    def _mined(self) -> NDArray[np.int64]:
        photos, tiles = (self._described(x) for x in (self.examples.photos, self.examples.tiles))
        return hardest_tiles(self.examples, photos, tiles, self.config.data.pool)

    def _described(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """(N, D) float32, unit norm; the work is shared among processes."""
        most = self.config.compute.pictures_at_once
        groups = [items[start : start + most] for start in range(0, len(items), most)]
        with torch.no_grad():
            mine = [
                self._unit(self.pictures.read(group)).cpu()
                for group in self.processes.share(groups)
            ]
        return np.asarray(torch.cat(self.processes.gather(mine)).numpy())

    def _changing(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield "log_scale", self.log_scale
        yield "hardest", self.hardest
        for name, parameter in self.network.named_parameters():
            yield f"encoder.{name}", parameter


def recall(
    examples: Examples, photos: NDArray[np.float32], tiles: NDArray[np.float32]
) -> dict[str, float]:
    """Recall at 1 and mean reciprocal rank of the first right tile among all, 0..1; ties lose."""
    ranks = []
    for photo, right in zip(photos, examples.right, strict=True):
        scores = tiles @ photo
        best = scores[list(right)].max()
        others = np.delete(scores, list(right))
        ranks.append(1 + int((others >= best).sum()))
    found = np.array(ranks)
    return {"recall@1": float(np.mean(found == 1)), "mrr": float(np.mean(1 / found))}


def _loaded(spec: str, device: str) -> TorchEncoder:
    encoder: Any = make_encoder(spec)
    if not isinstance(encoder, TorchEncoder):
        raise ModelError(f"the encoder {spec!r} is no torch network, and can't be trained")
    if device == "auto":
        return encoder
    try:
        return encoder.to(device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(
            f"compute.device = {device!r}: {' '.join(str(error).split())[:200]}", hint='"auto"'
        ) from error
