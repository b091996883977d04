"""Marks and the model of the tests that talk to real servers (`make test-server`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from real_servers import VLLM, needed


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "server: needs a real model server, see make test-server")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-VL with random weights."""
    needed(VLLM)
    from skylink.lvlm.random_checkpoint import write_random_checkpoint

    return write_random_checkpoint(tmp_path_factory.mktemp("model") / "qwen3", "qwen3_vl")
