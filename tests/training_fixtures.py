"""A small random model, written once in a session: fixtures of the training and ablation tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# before transformers is imported, which reads it once: no test may ask the network
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, and no more cores than the tests around."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(once: Once) -> Path:
    """The folder of a random SmolVLM; not to be changed."""
    from skylink.lvlm.random_checkpoint import write_random_checkpoint

    def fill(place: Path) -> None:
        write_random_checkpoint(place, "smolvlm")

    return once("training-checkpoint", fill)
