"""The reference way: every prompt through the checkpoint's own processor and one whole forward.

Nothing is shared and nothing reused; the fast path is held to this in tests, at the load of a
family that we have not tested, and in `benchmarks/lvlm_scoring.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from skylink.lvlm.backbone import Backbone
from skylink.prompt import Picture, Prompt
from skylink.showing import Image


def plain_states(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    photo: Image,
    shown: Sequence[Sequence[Image]],
) -> torch.Tensor:
    """(B, H) float32, on the CPU: the states at the last positions.

    Args:
        backbone: the model.
        prompts: B of them.
        photo: (H, W, 3) uint8 RGB.
        shown: the pictures of the candidates that each prompt speaks of.
    """
    states = []
    for prompt, candidates in zip(prompts, shown, strict=True):
        pictures = [
            photo if part.candidate is None else candidates[part.candidate]
            for part in prompt.user
            if isinstance(part, Picture)
        ]
        inputs = plain_inputs(backbone, prompt, pictures)
        with torch.inference_mode():
            out = backbone.inner(**inputs, use_cache=False)
        backbone.tower_passes += len(pictures)
        states.append(out.last_hidden_state[0, -1].float().cpu())
    return torch.stack(states)


def plain_inputs(
    backbone: Backbone, prompt: Prompt, pictures: Sequence[Image]
) -> dict[str, object]:
    """What the checkpoint's processor makes of a prompt and its pictures, on the model's device."""
    rendered = backbone.render(prompt)
    inputs = backbone.process(rendered, pictures, special=backbone.starts_bare(rendered))
    return dict(inputs.to(backbone.device))
