"""The value head: one linear unit on the last token's hidden state gives the relevance.

Untrained, it is the difference of the output head's rows for Yes and No, so that the score is the
model's log-odds of Yes (as Qwen3-VL-Reranker is made; GeoRanker starts from random weights).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from skylink.errors import ModelError
from skylink.files import write_atomic
from skylink.lvlm.backbone import Backbone
from skylink.prompt import Prompt

MAX_BYTES = 16 * 2**20


class ValueHead(torch.nn.Module):
    """score = weight . state + bias, in float32 whatever the model's type.

    Args:
        weight: (H,) float32.
        bias: a number.
    """

    def __init__(self, weight: torch.Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.detach().float().clone())
        self.bias = torch.nn.Parameter(torch.tensor(float(bias)))

    @classmethod
    def yes_minus_no(cls, backbone: Backbone, prompt: Prompt) -> ValueHead:
        """The untrained head for a pointwise prompt.

        Raises:
            ModelError: its answers aren't single tokens here.
        """
        yes, no = backbone.head_rows(backbone.answer_ids(prompt))
        return cls(yes - no)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., H) -> (...) float32."""
        return states.float() @ self.weight + self.bias

    def save(self, path: Path) -> str:
        """Write it; returns the file's SHA-256, hex.

        Raises:
            OutputError: it can't be written.
        """
        data = save_tensors({"weight": self.weight.data.cpu(), "bias": self.bias.data.cpu()})
        write_atomic(path, data)
        return hashlib.sha256(data).hexdigest()

    @classmethod
    def load(cls, path: Path, *, sha256: str, hidden_size: int) -> ValueHead:
        """A trained head, exactly the one that was saved.

        Raises:
            ModelError: another file than was saved, of another size, or not trained at all.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise ModelError(
                    f"{path}: not the value head that was saved with this adapter",
                    hint="copy the whole folder again from where it was trained",
                )
            tensors = load_tensors(data)
            weight, bias = tensors["weight"], tensors["bias"]
        except (OSError, SafetensorError, KeyError) as error:
            raise ModelError(
                f"{path}: no value head can be read: {error}",
                hint="copy the whole folder again from where it was trained",
            ) from error
        if weight.shape != (hidden_size,) or bias.numel() != 1:
            raise ModelError(
                f"{path}: a value head of {tuple(weight.shape)}, but the model has {hidden_size} "
                "hidden units",
                hint="load it with the checkpoint that it was trained on",
            )
        values = weight.float().numpy()
        if not (np.isfinite(values).all() and values.any() and np.isfinite(float(bias))):
            raise ModelError(
                f"{path}: the value head is zero or not finite",
                hint="it was not trained, or training went wrong: train it again",
            )
        return cls(weight, float(bias))
