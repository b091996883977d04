"""Scores of a candidate list with gradients: one forward, what all prompts begin with only once.

The prompts of a list begin alike (instruction, photo). Their shared beginning and all their rests
go through the model as one row of tokens,

    [ beginning | rest 1 | rest 2 | ... | rest K ]

under an attention mask by which a rest sees the beginning and itself, at the positions that it has
in its own prompt. That is the same sum as K whole prompts, in value and in gradient, without
padding and without the beginning's K - 1 repetitions.

Keys and values kept from a pass over the beginning would do the same, but gradient checkpointing
runs layers again and can't write to such a cache twice; the mask works with it and without.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from skylink.lvlm.backbone import Backbone, Encoded
from skylink.lvlm.cache import ImageFeatures
from skylink.lvlm.engine import common_prefix


def group_states(backbone: Backbone, prompts: Sequence[Encoded]) -> torch.Tensor:
    """(K, H) states at the last positions of prompts that begin alike, in the model's own type.

    Gradients flow wherever the caller's context and the model's parameters let them.
    """
    if len(prompts) == 1:
        return whole_states(backbone, prompts)
    shared, shared_images = common_prefix(prompts)
    ids = [torch.tensor(p.ids) for p in prompts]
    positions = [backbone.positions(p).cpu() for p in prompts]
    row = torch.cat([ids[0][:shared], *(i[shared:] for i in ids)])
    along = torch.cat([positions[0][..., :shared], *(p[..., shared:] for p in positions)], dim=-1)
    lengths = torch.tensor([len(i) - shared for i in ids])
    images = [
        *prompts[0].images[:shared_images],
        *(image for p in prompts for image in p.images[shared_images:]),
    ]
    out = backbone.inner(
        input_ids=row[None].to(backbone.device),
        position_ids=along.to(backbone.device),
        attention_mask=_tree_mask(shared, lengths, backbone),
        mm_encoder_outputs={"image": backbone.visual(images)},
        use_cache=False,
    )
    ends = (shared - 1 + lengths.cumsum(0)).to(backbone.device)
    states: torch.Tensor = out.last_hidden_state[0, ends]
    return states


def whole_states(backbone: Backbone, prompts: Sequence[Encoded]) -> torch.Tensor:
    """The same by K whole prompts, one after another: the reference that tests compare with."""
    states = [
        backbone.forward(
            torch.tensor([p.ids], device=backbone.device), backbone.positions(p), p.images
        ).last_hidden_state[0, -1]
        for p in prompts
    ]
    return torch.stack(states)


def usable(features: ImageFeatures) -> ImageFeatures:
    """Features as autograd takes them: those of `Backbone.look` come from inference mode."""
    return ImageFeatures(
        ids=features.ids,
        grid=features.grid,
        tokens=features.tokens.clone(),
        deepstack=tuple(layer.clone() for layer in features.deepstack),
    )


def _tree_mask(shared: int, lengths: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """(1, 1, T, T): 0 where a token sees another, else the least number of the model's type."""
    branch = torch.repeat_interleave(torch.arange(1, len(lengths) + 1), lengths)
    branch = torch.cat([torch.zeros(shared, dtype=branch.dtype), branch]).to(backbone.device)
    place = torch.arange(len(branch), device=backbone.device)
    seen = (place[:, None] >= place) & ((branch == 0) | (branch[:, None] == branch))
    kind = _computed_in(backbone)
    mask = torch.zeros(seen.shape, dtype=kind, device=backbone.device)
    return mask.masked_fill_(~seen, torch.finfo(kind).min)[None, None]


def _computed_in(backbone: Backbone) -> torch.dtype:
    """What attention is computed in: autocast's type where it is on."""
    device = backbone.device.type
    on = torch.is_autocast_enabled(device)
    kind: torch.dtype = torch.get_autocast_dtype(device) if on else backbone.dtype
    return kind
