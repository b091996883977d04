"""Whole runs of the command line, in one process or in two, killed without warning."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
ONE = [sys.executable, "-m", "skylink"]
TWO = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
    "-m", "skylink",
]  # fmt: skip
"""On a CPU `accelerate launch` starts one process, however many are asked for."""


def whole(args: list[str]) -> str:
    """Run a command to its end; what it said."""
    done = subprocess.run(args, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def killed(args: list[str], log: Path, *, after: int, delay_s: float = 0.0) -> None:
    """Kill -9, all processes at once, soon after a step was logged."""
    with subprocess.Popen(args, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as launched:
        limit = time.monotonic() + 240
        while len(lines(log)) < after and launched.poll() is None and time.monotonic() < limit:
            time.sleep(0.005)
        time.sleep(delay_s)
        assert launched.poll() is None, "it ended before it could be killed"
        parent = psutil.Process(launched.pid)
        for process in (parent, *parent.children(recursive=True)):  # each in a session of its own
            process.kill()


def lines(log: Path) -> list[str]:
    """Of a log, if it is there."""
    return log.read_text().splitlines() if log.exists() else []
