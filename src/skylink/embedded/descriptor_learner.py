"""The descriptor learns which tile a view lies on, by the relational-aware loss.

    frozen trunk cells -> tuned upper blocks, pooled, projected -> descriptors of views and of tiles
        candidates of a view: the tiles nearest to the batch's views, off by a jitter, and others
        of all maps;   labels: overlap with the truth, 0 on other maps

Tiles of other maps that may show the same ground are no candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skylink.embedded.bank import Bank
from skylink.embedded.descriptor_recall import HeldOutTiles
from skylink.embedded.head import log_of
from skylink.embedded.labels import relevance, square_overlap
from skylink.embedded.recipe import DescriptorStage
from skylink.embedded.sampling import Indices, draw_maps
from skylink.embedded.tuned import TunedDescriptor, coarse_cells, part_cosines
from skylink.losses import relational_cross_entropy
from skylink.training.loop import Group, Part
from skylink.training.state import Weights, put_back, weights_of

MIN_VALID = 0.3
"""Of a tile's cells, or it is no candidate: there is nothing to see."""

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """What a step learns from.

    Attributes:
        maps: (N,) of the bank.
        views: of each map.
        corners: (N, T, 2) top left cells of each map's tiles.
    """

    maps: Indices
    views: list[int]
    corners: NDArray[np.int64]


class DescriptorLearner:
    """See the module; a `Learner` of the training loop.

    Args:
        config: all choices.
        bank: to learn from.
        held: other maps, to be judged by; None: no validation.
        model: with the weights to begin with.

    Attributes:
        model: what is trained, with the temperature.
        sizes: of the descriptor's parts.
    """

    unit = "maps"
    if_not_finite = "lower descriptor_optimizer.lr"
    if_out_of_memory = "lower descriptor.maps_per_step"

    def __init__(
        self, config: DescriptorStage, bank: Bank, held: Bank | None, model: TunedDescriptor
    ) -> None:
        self.config, self.bank, self.model = config, bank, model
        self.held = None if held is None else HeldOutTiles(held)
        first = bank.rows([0])
        self.side, self.reach = first.views.shape[2], first.maps.shape[1]
        chosen = config.descriptor
        self.sizes = [chosen.size // chosen.weight] * chosen.weight
        self._log_temperature = log_of(chosen.temperature)
        self._all = nn.ModuleDict({"model": model})
        self._all.register_parameter("log_temperature", self._log_temperature)

    @property
    def temperature(self) -> float:
        """As it is now."""
        return float(self._log_temperature.detach().exp())

    def groups(self) -> list[Group]:
        rates, decay = self.config.optimizer, self.config.optimizer.weight_decay
        projection, quick = list(self.model.projection.parameters()), rates.lr_projection
        return [
            Group("blocks", list(self.model.top.parameters()), rates.lr, decay),
            Group("projection", projection, quick, decay),
            Group("temperature", [self._log_temperature], quick),
        ]

    def weights(self) -> Weights:
        return weights_of(self._all.state_dict().items())

    def set_weights(self, weights: Weights) -> None:
        put_back(self._all.state_dict().items(), weights)

    def batch(self, step: int) -> list[Part]:
        drawn = self.draw(np.random.default_rng((self.config.seed, 3, step)))

        def backward() -> float:
            loss = self.loss(drawn)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        return [Part(tuple(f"map {i}" for i in drawn.maps), backward)]

    def draw(self, rng: np.random.Generator) -> Draw:
        """Maps, views of them, and tiles: one near each view and others anywhere."""
        chosen = self.config.descriptor
        maps = draw_maps(self.bank, rng, chosen.maps_per_step, chosen.real_share)
        views = [int(v) for v in rng.permutation(self.bank.views)[: chosen.views_per_map]]
        last = self.reach - self.side
        near = self.bank.places[maps][:, views] - self.side / 2
        near = near + rng.normal(0, chosen.jitter_cells, near.shape)
        anywhere = rng.integers(0, last + 1, (len(maps), chosen.other_tiles, 2))
        corners = np.concatenate([np.clip(np.rint(near), 0, last).astype(np.int64), anywhere], 1)
        return Draw(maps, views, corners)

    def loss(self, drawn: Draw) -> Tensor:
        """Of one draw."""
        chosen, side = self.config.descriptor, self.side
        rows = self.bank.rows(drawn.maps)
        tiles, tiles_valid = (
            np.stack([
                values[n, r : r + side, c : c + side]
                for n, corners in enumerate(drawn.corners) for r, c in corners
            ])
            for values in (rows.maps, rows.maps_valid)
        )  # fmt: skip
        per_map, per_view = drawn.corners.shape[1], len(drawn.views)
        seen = rows.views[:, drawn.views].reshape(-1, *rows.views.shape[2:])
        seen_valid = rows.views_valid[:, drawn.views].reshape(-1, side, side)
        features = np.concatenate([seen, tiles])
        valid = torch.from_numpy(np.concatenate([seen_valid, tiles_valid]).astype(np.float32))
        vectors = self.model(
            torch.from_numpy(features.astype(np.float32)).permute(0, 3, 1, 2), coarse_cells(valid)
        )
        scores = part_cosines(vectors[: len(seen)], vectors[len(seen) :], self.sizes)
        scores = scores / len(self.sizes) / self._log_temperature.exp()
        places = torch.from_numpy(rows.places[:, drawn.views].reshape(-1, 2))
        centres = torch.from_numpy(drawn.corners.reshape(-1, 2).astype(np.float32)) + side / 2
        of_view = torch.arange(len(rows)).repeat_interleave(per_view)[:, None]
        of_tile = torch.arange(len(rows)).repeat_interleave(per_map)[None]
        overlap = square_overlap(places, centres, side) * (of_view == of_tile)
        group = torch.from_numpy(rows.group)
        other = (of_view == of_tile) | (group[of_view] != group[of_tile])
        shown = torch.from_numpy(tiles_valid.mean((1, 2)) >= MIN_VALID)[None].expand(other.shape)
        seen_enough = torch.from_numpy(seen_valid.sum((1, 2)) >= chosen.min_cells)[:, None]
        labels = seen_enough * relevance(
            overlap * shown, labels=chosen.labels, threshold=chosen.threshold, power=chosen.power
        )
        if not labels.any():  # nothing can be seen in any of these views
            return scores.sum() * 0
        return relational_cross_entropy(scores, labels, other & shown)

    def validate(self) -> dict[str, float]:
        return {} if self.held is None else self.held.recalls(self.model, self.sizes)

    def better(self, new: dict[str, float], old: dict[str, float]) -> bool:
        return new["recall@1"] > old["recall@1"]
