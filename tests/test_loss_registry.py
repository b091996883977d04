"""Losses by name: parameters are kept, and typos are told from what is known."""

from __future__ import annotations

import math

import pytest
import torch

from skylink.errors import OptionError
from skylink.loss_registry import LOSSES, make_loss


@pytest.mark.parametrize(
    ("name", "params", "message", "hint"),
    [
        ("relatonal", {}, "unknown loss 'relatonal'", "did you mean 'relational'?"),
        ("zzz", {}, "unknown loss 'zzz'", "known: relational, "),
        ("hard", {"temprature": 1.0}, "no parameter 'temprature'", "did you mean 'temperature'?"),
        ("hard", {"temperature": 0.0}, "temperature = 0.0", "temperature = 1.0"),
        ("hard", {"temperature": math.nan}, "temperature = nan", ""),
        ("hard", {"temperature": "1"}, "is not a number", ""),
        ("symmetric-kl", {"label_temperature": -1.0}, "label_temperature = -1.0", ""),
        ("plackett-luce", {"second": -1.0}, "second = -1.0", "0 or more"),
        ("plackett-luce", {"first": 0.0, "second": 0.0}, "both 0", ""),
    ],
)
def test_options_that_can_not_be_used(name, params, message, hint) -> None:
    with pytest.raises(OptionError) as caught:
        make_loss(name, **params)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_parameters_are_kept_and_told() -> None:
    loss = make_loss("plackett-luce", first=1.0, second=0.0)
    assert loss.defaults == {"temperature": 1.0, "first": 1.0, "second": 0.0}
    scores, labels = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[1.0, 0.4, 0.0]])
    alone = LOSSES["plackett-luce-first"](scores, labels)
    assert loss(scores, labels).item() == pytest.approx(alone.item())
