"""Servers of other projects, each in a process of its own, for the tests in tests/integration."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

VLLM, SERVING = "SKYLINK_TEST_VLLM", "SKYLINK_TEST_SERVING"
START_S = 300
BLOCK = 32
"""Tokens that vLLM caches together: no more than all prompts of a photo begin with."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}
ON_CPU = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}


def needed(variable: str) -> str:
    """An environment variable's value, or the test is skipped."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: run `make test-server`, which sets up real servers")
    return value


class Served:
    """A running server.

    Args:
        command: takes `--host` and `--port`.
        log: file for what it prints.
        environment: variables for it.

    Attributes:
        url: on the loopback, a port that was free.
    """

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self._log = f"http://127.0.0.1:{port}", log
        beside = Path(command[0]).parent  # its own tools come first
        path = f"{beside}{os.pathsep}{os.environ['PATH']}"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port)],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **OFFLINE, "PATH": path, **environment},
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        self.kill()
        said = self._log.read_text(errors="replace")[-3000:]
        pytest.fail(f"the server did not start:\n{said}")

    def kill(self) -> None:
        """At once, with its workers, as a crash would."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait(30)

    def counter(self, name: str) -> float:
        """A number of its Prometheus metrics, summed over labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


def vllm(checkpoint: Path, log: Path, *more: str) -> Served:
    """`vllm serve`, with room for the prompts of the tests."""
    flags = ["--served-model-name", "tiny", "--enforce-eager", "--dtype", "float32"]
    flags += ["--max-model-len", "2048", "--block-size", str(BLOCK)]
    return Served([needed(VLLM), "serve", str(checkpoint), *flags, *more], log, **ON_CPU)


def transformers_serve(checkpoint: Path, folder: Path) -> Served:
    """`transformers serve` of this environment; what it needs beside that is in a folder."""
    (folder / "hub").mkdir()
    program = Path(sys.executable).parent / "transformers"
    return Served(
        [str(program), "serve", str(checkpoint), "--device", "cpu"],
        folder / "serving.log",
        PYTHONPATH=needed(SERVING),
        HF_HUB_CACHE=str(folder / "hub"),  # it wants one, even an empty one
        OMP_NUM_THREADS="1",
    )
