"""Tests of `skylink.training.processes`; several real ones are in the tests of killed runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from skylink.errors import ModelError
from skylink.training.processes import Processes


def test_one_process_has_everything() -> None:
    alone = Processes("cpu")
    assert (alone.index, alone.count, alone.first, alone.device) == (0, 1, True, "cpu")
    assert alone.gather(alone.share(range(3))) == [0, 1, 2]
    weight, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    weight.grad = torch.tensor([1.0, 2.0])
    alone.sum_gradients([weight, unused])
    assert weight.grad.tolist() == [1, 2]
    assert unused.grad is not None
    assert unused.grad.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("Connection closed by peer", ModelError, "another of the processes has ended"),
        ("CUDA out of memory", RuntimeError, "out of memory"),  # the loop has a hint for that
    ],
)
def test_where_another_has_ended(said: str, kind: type[Exception], words: str) -> None:
    class Gone:
        def reduce(self, *_: Any, **__: Any) -> torch.Tensor:
            raise RuntimeError(said)

        def wait_for_everyone(self) -> None:
            raise RuntimeError(said)

    left = Processes("cpu")
    left._accelerator = Gone()
    with pytest.raises(kind, match=words):
        left.sum_gradients([torch.nn.Parameter(torch.ones(2))])
    with pytest.raises(kind, match=words):
        left.wait()
