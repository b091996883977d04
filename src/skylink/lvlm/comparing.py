"""A small language model that begins by comparing two pictures, so that training need not find it.

From random weights a language model learns its lists by heart long before it finds that a photo's
and a candidate's tokens are to be held against each other. `begin_comparing` sets its first
weights so that they are, without any data and without knowing which answer is right:

- in the first layer a token looks back by the number of tokens that lie between the photo and the
  candidate, to about the same place of the photo, and there to what is most like itself; what it
  reads there is subtracted from it. Alike tokens leave less behind than others;
- all other attention is nearly even, the units of each MLP begin near squares, norms are 1 and
  residual branches small.

It is in the spirit of mimetic initialisation (Trockman and Kolter, ICML 2023). The score of such a
model is as meaningless as before: the tests and docs/log.md have its recall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skylink.lvlm.taught_tower import MARK
from skylink.prompt import NOTHING, Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """How strong it is.

    Attributes:
        place: logit of attention at exactly the other picture's same place.
        likeness: logit of attention to a token of the same code.
        wavelengths: (shortest, longest) in tokens of the rotary pairs that tell the place.
        taken: share of what is read that is subtracted.
        residual: gain of what layers add.
    """

    place: float = 6.0
    likeness: float = 6.0
    wavelengths: tuple[float, float] = (12.0, 130.0)
    taken: float = 0.8
    residual: float = 0.3


def begin_comparing(
    model: Any, axes: Tensor, distance: int, *, how: Beginning | None = None, seed: int = 0
) -> None:
    """Set the language model's weights, in place.

    Args:
        model: a float32 SmolVLM or Idefics3 on the CPU, with as many key as query heads.
        axes: (1 + D, H) of its visual tokens, see `taught_tower.token_axes`; D is at most half of
            H, and a multiple of the number of heads.
        distance: tokens from a place in the photo to the same place in the candidate, see
            `picture_distance`.
        how: strengths.
        seed: of all that is drawn.
    """
    how = how or Beginning()
    text = model.model.text_model
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        text.embed_tokens.weight.normal_(generator=draw)
        text.norm.weight.fill_(1)
        for layer in text.layers:
            _small(layer, how.residual, draw)
        first = text.layers[0]
        _look_back(first.self_attn, text.rotary_emb.inv_freq, axes, distance, how)
        _subtract(first.self_attn, axes[1:], how.taken, draw)
        first.mlp.down_proj.weight *= 0.3


def picture_distance(processor: Any, template: Template) -> int:
    """Tokens from a place in the photo to the same place in the candidate, without facts.

    Args:
        processor: of the checkpoint.
        template: a pointwise one, as the model will be asked.
    """
    messages = template.build(NOTHING, [NOTHING]).messages()
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    side = processor.image_processor.max_image_size["longest_edge"]
    blank = np.zeros((side, side, 3), np.uint8)
    ids = processor(text=[text], images=[blank, blank], input_data_format="channels_last")
    token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    places = np.flatnonzero(np.array(ids["input_ids"][0]) == token)
    return int(places[len(places) // 2] - places[0])


def _small(layer: Any, residual: float, draw: torch.Generator) -> None:
    """Norms 1, nearly even attention, MLP units near squares, small residual branches."""
    layer.input_layernorm.weight.fill_(1)
    layer.post_attention_layernorm.weight.fill_(1)
    attention, mlp = layer.self_attn, layer.mlp
    for part, gain in (
        (attention.q_proj, 0.2),
        (attention.k_proj, 0.2),
        (attention.v_proj, 1.0),
        (attention.o_proj, residual),
        (mlp.gate_proj, 1.0),
        (mlp.up_proj, 0.3),
        (mlp.down_proj, residual),
    ):
        part.weight.normal_(generator=draw).mul_(gain / math.sqrt(part.in_features))
    mlp.up_proj.weight += mlp.gate_proj.weight  # silu(x) x is even in x, but for a small part


def _look_back(attention: Any, turns: Tensor, axes: Tensor, distance: int, how: Beginning) -> None:
    """Queries and keys: rotary pairs of some wavelengths from the mark, slow ones from the code."""
    query, key = attention.q_proj.weight.zero_(), attention.k_proj.weight.zero_()
    size, width = attention.head_dim, query.shape[1]
    half, heads = size // 2, width // size
    waves = 2 * math.pi / turns
    shortest, longest = how.wavelengths
    placed = torch.nonzero((waves >= shortest) & (waves <= longest))[:, 0]
    slow = torch.arange(half // 2, half)
    # after the norm a visual token has the length sqrt(H), of which the mark has its share
    mark = math.sqrt(how.place * math.sqrt(size) / (len(placed) * MARK * width)) * axes[0]
    codes = axes[1:].chunk(heads)
    like = math.sqrt(how.likeness * math.sqrt(size) * heads / (width * (1 - MARK)))
    for head in range(heads):
        at = head * size
        key[at + placed] = mark
        query[at + placed] = torch.outer((turns[placed] * distance).cos(), mark)
        query[at + half + placed] = torch.outer(-(turns[placed] * distance).sin(), mark)
        rows = torch.cat([at + slow, at + half + slow])[: len(codes[head])]
        query[rows] = like * codes[head]
        key[rows] = like * codes[head]


def _subtract(attention: Any, codes: Tensor, taken: float, draw: torch.Generator) -> None:
    """Values and their output: what is read of the code is taken away."""
    width = codes.shape[1]
    turn = torch.linalg.qr(torch.randn(width, width, generator=draw))[0]
    attention.v_proj.weight.copy_(turn @ codes.T @ codes)
    attention.o_proj.weight.copy_(-taken * turn.T)
