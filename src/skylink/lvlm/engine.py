"""The exact fast path: states at the end of many prompts that begin alike, several times cheaper.

Two savings, neither of which changes a score beyond rounding (docs/lvlm.md has the measurements):

1. What all prompts begin with (instruction, photo) goes through the model once; its keys and values
   are then shared by every candidate's own, short rest.
2. Pictures enter as features that were computed before (`cache.py`), so the vision tower never runs
   twice on a tile.

Rests of different lengths are padded on the right: with causal attention a padded position can't
touch an earlier one, so batching changes nothing either.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import psutil
import torch

from skylink.errors import RerankError
from skylink.lvlm.backbone import Backbone, Encoded
from skylink.memory import out_of_memory

log = logging.getLogger(__name__)


class Engine:
    """Hidden states at the last position of prompts.

    Args:
        backbone: the model.
        memory_bytes: what a pass may take beside the weights; None: half of what is free.
        share: compute what prompts begin with once; False only to measure what that saves.

    Attributes:
        chunks: how many prompts went together in each pass so far, the last 1,000.
        shrunk: how often memory ran out and the group was made smaller.
    """

    def __init__(
        self, backbone: Backbone, *, memory_bytes: int | None = None, share: bool = True
    ) -> None:
        self.backbone, self.memory_bytes, self.share = backbone, memory_bytes, share
        self.chunks: list[int] = []
        self.shrunk = 0
        self._limit: int | None = None

    def last_states(self, prompts: Sequence[Encoded]) -> torch.Tensor:
        """(B, H) float32, on the CPU: the states at the last positions.

        Raises:
            RerankError: not even one prompt fits into memory.
        """
        if not prompts:
            return torch.empty(0, 0)
        ids = [torch.tensor(p.ids) for p in prompts]
        positions = [self.backbone.positions(p).cpu() for p in prompts]
        shared, shared_images = (0, 0)
        if self.share and len(prompts) > 1:
            shared, shared_images = common_prefix(prompts)
        with torch.inference_mode():
            prefix = None
            if shared:
                prefix = self._prefix(
                    ids[0][:shared], positions[0][..., :shared], prompts[0].images[:shared_images]
                )
            states: list[torch.Tensor] = []
            while len(states) < len(prompts):
                longest = max(len(i) for i in ids[len(states) :])
                size = min(self._group(shared, longest), len(prompts) - len(states))
                group = slice(len(states), len(states) + size)
                try:
                    states += self._rest(
                        [i[shared:] for i in ids[group]],
                        [p[..., shared:] for p in positions[group]],
                        [image for p in prompts[group] for image in p.images[shared_images:]],
                        prefix,
                    )
                    self.chunks = [*self.chunks[-999:], size]
                    continue
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    if size == 1:
                        raise self._too_large() from error
                # only here, where the error no longer holds on to what filled the memory
                self._shrink(size)
        return torch.stack(states)

    def _prefix(self, ids: torch.Tensor, positions: torch.Tensor, images: Sequence[Any]) -> Any:
        """Keys and values of what all prompts begin with."""
        device = self.backbone.device
        try:
            return self.backbone.forward(
                ids[None].to(device), positions.to(device), images, use_cache=True
            ).past_key_values
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise self._too_large() from error

    def _rest(
        self,
        ids: list[torch.Tensor],
        positions: list[torch.Tensor],
        images: list[Any],
        prefix: Any,
    ) -> list[torch.Tensor]:
        """Last states of a group, given the shared beginning's keys and values."""
        longest = max(len(i) for i in ids)
        # padded with a prompt's last token: a word, not a picture's place
        batch = torch.stack([_pad(i, longest, int(i[-1])) for i in ids]).to(self.backbone.device)
        along = torch.cat([_pad(p, longest, 0) for p in positions], dim=-2)
        cache = None
        if prefix is not None:
            cache = copy.deepcopy(prefix)
            if len(ids) > 1:
                cache.batch_repeat_interleave(len(ids))
        states = self.backbone.forward(
            batch, along.to(self.backbone.device), images, cache
        ).last_hidden_state
        return [states[row, len(i) - 1].float().cpu() for row, i in enumerate(ids)]

    def _group(self, shared: int, longest: int) -> int:
        """How many prompts may go together."""
        fits = max(1, self._budget() // self._bytes(shared, longest))
        return int(fits if self._limit is None else min(fits, self._limit))

    def _budget(self) -> int:
        if self.memory_bytes is not None:
            return self.memory_bytes
        if self.backbone.device.type == "cuda":
            device = self.backbone.device
            kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return int((torch.cuda.mem_get_info(device)[0] + kept) // 2)
        return int(psutil.virtual_memory().available // 2)

    def _bytes(self, shared: int, longest: int) -> int:
        """What one more prompt of a group takes: its keys and values (twice, while they are joined
        to the shared ones) and the activations of one layer. An estimate; running out is handled.
        """
        config = self.backbone.model.config.get_text_config()
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        size = self.backbone.dtype.itemsize
        rest = longest - shared
        keys_values = 2 * config.num_hidden_layers * kv_heads * head_dim * longest * 2
        wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        activations = rest * (10 * config.hidden_size + 3 * wide) + heads * rest * longest
        return int((keys_values + activations) * size)

    def _too_large(self) -> RerankError:
        return RerankError(
            f"not enough memory to score one candidate with {self.backbone.name}",
            hint="fewer --lvlm-tokens, --lvlm-dtype bfloat16, or a smaller model",
        )

    def _shrink(self, size: int) -> None:
        self._limit = size // 2
        self.shrunk += 1
        log.warning("memory ran out with %d candidates at once: %d from now on", size, self._limit)
        if self.backbone.device.type == "cuda":
            torch.cuda.empty_cache()


def common_prefix(prompts: Sequence[Encoded]) -> tuple[int, int]:
    """(tokens, pictures) that all prompts begin with; a picture is never cut, one token is left.

    Pictures are the same if they are the same object: a photo shown to all candidates is.
    """
    first, tokens, pictures = prompts[0], 0, 0
    for texts in zip(*(p.texts for p in prompts), strict=False):
        same = _common(texts)
        tokens += same
        if any(len(t) > same for t in texts) or any(len(p.images) == pictures for p in prompts):
            break
        image = first.images[pictures]
        if any(p.images[pictures] is not image for p in prompts):
            break
        tokens, pictures = tokens + len(image.ids), pictures + 1
    # the last position is never shared: it is what we want to know (and is in the words)
    return min(tokens, min(len(p.ids) for p in prompts) - 1), pictures


def _common(texts: Sequence[Sequence[int]]) -> int:
    """How many tokens all begin with."""
    for index, column in enumerate(zip(*texts, strict=False)):
        if len(set(column)) > 1:
            return index
    return min(len(t) for t in texts)


def _pad(values: torch.Tensor, length: int, fill: int) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, length - values.shape[-1]), value=fill)
