"""Small random models of every family, written and loaded once in a session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# before transformers is imported, which reads it once: no test may ask the network
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

if TYPE_CHECKING:
    from skylink.lvlm.backbone import Backbone

Once = Callable[[str, Callable[[Path], None]], Path]
Checkpoint = Callable[[str], Path]
Backbones = Callable[..., "Backbone"]


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Sums in one order, and no more cores than the tests around."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(once: Once, one_thread: None) -> Checkpoint:
    """The folder of a family's random checkpoint; not to be changed."""
    from skylink.lvlm.random_checkpoint import write_random_checkpoint

    def folder(family: str) -> Path:
        def fill(place: Path) -> None:
            write_random_checkpoint(place, family)

        return once(f"checkpoint-{family}", fill)

    return folder


@pytest.fixture(scope="session")
def backbone(checkpoint: Checkpoint) -> Backbones:
    """A family's loaded model; not to be changed.

    `split=True`: SmolVLM and Idefics3 cut pictures into four and an overview.
    """
    from skylink.lvlm.load import load_backbone
    from skylink.lvlm.options import LvlmOptions

    loaded: dict[tuple[str, bool], Backbone] = {}

    def get(family: str, *, split: bool = False) -> Backbone:
        if (family, split) not in loaded:
            options = LvlmOptions(visual_tokens=80 if split else 16)
            loaded[family, split] = load_backbone(str(checkpoint(family)), options)
        return loaded[family, split]

    return get


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `load_scorer` keeps, it keeps in the test's folder, not in the user's."""
    monkeypatch.setenv("SKYLINK_CACHE", str(tmp_path / "features"))
