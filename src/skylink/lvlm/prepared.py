"""What a random vision-language model needs before minutes of training can teach it anything.

A tiny model with random weights learns its lists by heart: its tower sees nothing that carries
over, and nothing in it relates two pictures. Both can be had without labels, in minutes of a CPU,
and are done to the weights before the checkpoint is written (`write_random_checkpoint(prepare=)`):

- `teach_tower`: the tower learns from pairs of a drone's view and a map's crop of the same ground
  that the same patches look alike. Its tokens then say what is there, and where in the picture.
- `mark_pictures`: all visual tokens get something in common, by which attention finds pictures.
- `compare_pictures`: the first layer begins by subtracting the photo from the candidate.

Nothing of it knows how to rank: the yes-or-no score of a prepared model is still meaningless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from skylink.contrastive import info_nce
from skylink.prompt import NOTHING, Template

Pairs = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""(N, S, S, 3) views and (M, S, S, 3) crops, M >= N, RGB: crop i < N is of the ground of view i,
and all others are not. S is the side that the tower takes."""

WHERE = 0.3
"""Weight of telling a token's place in the picture."""
TURNS = 4
"""Pairs of rotary dimensions by which attention finds a distance, the quickest ones."""


def teach_tower(
    model: Any,
    batches: Iterable[Pairs],
    *,
    steps: int,
    lr: float = 1e-3,
    seed: int = 0,
    say: Callable[[int, float], None] = lambda *_: None,
) -> None:
    """Train tower and connector of a SmolVLM or Idefics3 on pairs, in place.

    Loss: InfoNCE over the mean cosine of tokens at the same place, what all pictures have there
    taken away; and the cross-entropy of a linear guess at each token's place, so that what they
    all have there does not vanish.

    Args:
        model: a float32 `...ForConditionalGeneration` on the CPU; its language model isn't touched.
        batches: at least `steps`.
        steps: batches that are learnt.
        lr: of AdamW, after a short warm-up and before a cosine to a fiftieth.
        seed: of the guess's first weights.
        say: hears of each step and its loss.

    Raises:
        ValueError: there are fewer batches than steps, or fewer crops than views.
        ModelError: the training diverged.
    """
    inner = model.model
    parts = [*inner.vision_model.parameters(), *inner.connector.parameters()]
    width = model.config.get_text_config().hidden_size
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        guess: torch.nn.Linear | None = None
        scale = torch.nn.Parameter(torch.tensor(math.log(10.0)))
        optimizer = torch.optim.AdamW(parts, lr=lr, weight_decay=0.05, foreach=False)
        optimizer.add_param_group({"params": [scale], "weight_decay": 0.0})
        source = iter(batches)
        model.train()
        for step in range(steps):
            views, crops = next(source, (None, None))
            if views is None or crops is None or len(crops) < len(views):
                raise ValueError(f"batch {step + 1} of {steps} is missing or has too few crops")
            tokens = tokens_of(model, np.concatenate([views, crops]))
            if guess is None:
                guess = torch.nn.Linear(width, tokens.shape[1])
                optimizer.add_param_group({"params": list(guess.parameters())})
            rate = lr * min(1, (step + 1) / 20)
            rate *= 0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            seen, shown = tokens[: len(views)], tokens[len(views) :]
            loss = info_nce(alike(seen, shown), torch.arange(len(views)), scale=scale.exp())
            places = torch.arange(tokens.shape[1]).repeat(len(tokens))
            told = guess((math.sqrt(width) * normalize(tokens, dim=-1)).flatten(0, 1))
            loss = loss + WHERE * cross_entropy(told, places)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parts, 1.0)
            optimizer.step()
            say(step + 1, float(loss.detach()))
        model.eval()


def mark_pictures(
    model: Any, pictures: NDArray[np.uint8], *, share: float = 0.45, seed: int = 0
) -> None:
    """Give all visual tokens something in common and a mean square of one, in place.

    Args:
        model: as for `teach_tower`, and after it.
        pictures: (N, S, S, 3) uint8 RGB that are measured.
        share: of the tokens' mean square that they have in common afterwards.
        seed: of the common part's direction.
    """
    inner = model.model
    bias = inner.vision_model.post_layernorm.bias  # the projection behind it has none
    project = inner.connector.modality_projection.proj
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        size = tokens_of(model, pictures).square().mean()
        direction = torch.randn(bias.shape, generator=draw)
        common = project(direction.repeat(inner.connector.scale_factor**2)).square().mean()
        bias += direction * (share / (1 - share) * size / common).sqrt()
        project.weight /= tokens_of(model, pictures).square().mean().sqrt()


def tokens_of(model: Any, pictures: NDArray[np.uint8]) -> Tensor:
    """(N, T, D) visual tokens of (N, S, S, 3) uint8 RGB pictures, with gradients as elsewhere."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    out = model.model.get_image_features((pixels / 127.5 - 1)[:, None], return_dict=True)
    return torch.stack(list(out.pooler_output))


def alike(views: Tensor, crops: Tensor) -> Tensor:
    """(N, M) mean cosine of the tokens at the same place, each side centred by its own mean.

    Args:
        views, crops: (N, T, D) and (M, T, D) tokens.
    """
    a, b = (normalize(t - t.mean(0), dim=-1).flatten(1) for t in (views, crops))
    return a @ b.T / views.shape[1]


def compare_pictures(
    model: Any, distance: int, *, sharpness: float = 35.0, gain: float = 0.7, seed: int = 0
) -> None:
    """Let the first layer begin by subtracting one picture from the other, in place.

    Attention of the first layer looks from each visual token `distance` tokens back, where the
    photo's token of the same place stands, and takes what it reads away. What two pictures have in
    common is then what remains of alike ones, and stands out once the next norm has made all
    tokens equally long. Later layers begin with nearly even attention, by which the last token
    sees all others. It is in the spirit of mimetic initialisation (Trockman & Kolter, ICML 2023),
    with positions in place of likeness, since a token is most like itself.

    Args:
        model: as for `teach_tower`, after `mark_pictures`; it has as many key as query heads.
        distance: tokens from a place in the photo to the same place in the candidate, which the
            prompt's words between them decide.
        sharpness: logit at that distance.
        gain: share that is taken away.
        seed: of the directions that values pass through.
    """
    text = model.model.text_model
    first, *later = text.layers
    attention, width = first.self_attn, first.self_attn.q_proj.in_features
    size = attention.head_dim
    heads = width // size
    draw = torch.Generator().manual_seed(seed)
    # from the projection of the mark, which all visual tokens share, four quickly turning pairs
    turns = text.rotary_emb.inv_freq[:TURNS].float()
    key, query = torch.zeros(heads, 2, size // 2), torch.zeros(heads, 2, size // 2)
    key[:, 0, :TURNS] = 1.0
    query[:, 0, :TURNS] = (turns * distance).cos()
    query[:, 1, :TURNS] = -(turns * distance).sin()
    with torch.no_grad():
        mark = normalize(_mark(model), dim=0)
        # a token's length is the root of its width after the norm; the mark's part of it squared
        part = width * float(_mark(model).square().mean())
        scale = math.sqrt(sharpness * math.sqrt(size) / (TURNS * part))
        attention.q_proj.weight.copy_(scale * torch.outer(query.flatten(), mark))
        attention.k_proj.weight.copy_(scale * torch.outer(key.flatten(), mark))
        read = torch.linalg.qr(torch.randn(width, width, generator=draw))[0]
        attention.v_proj.weight.copy_(read)
        attention.o_proj.weight.copy_(-gain * read.T)
        first.mlp.down_proj.weight *= 0.1
        first.input_layernorm.weight.fill_(1.0)
        for layer in later:
            layer.self_attn.q_proj.weight *= 0.1
            layer.self_attn.k_proj.weight *= 0.1


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


def _mark(model: Any) -> Tensor:
    """(D,) what visual tokens have in common: the projection of the tower's last bias."""
    inner = model.model
    bias = inner.vision_model.post_layernorm.bias.detach()
    mark: Tensor = inner.connector.modality_projection.proj(
        bias.repeat(inner.connector.scale_factor**2)
    ).detach()
    return mark
