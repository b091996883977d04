"""What the benchmarks share: where real data may be, tables, figures as JSON, the machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy
import onnxruntime

from skylink import __version__
from skylink.files import write_atomic

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Real imagery that is not part of the repository; benchmarks say what they skip without it."""


def machine() -> str:
    """The machine and the versions, in a line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} cores {platform.machine()}, Python {platform.python_version()}, "
        f"numpy {numpy.__version__}, onnxruntime {onnxruntime.__version__}, skylink {__version__}"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_json(path: Path | None, name: str, figures: dict[str, float]) -> None:
    """`{"name", "machine", "figures"}` to a file, if one was asked for."""
    if path is not None:
        payload = {"name": name, "machine": machine(), "figures": figures}
        write_atomic(path, json.dumps(payload, indent=2) + "\n")
