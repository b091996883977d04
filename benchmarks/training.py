"""Training a re-ranker on lists of K candidates: what people write, and ours saving by saving.

python benchmarks/training.py [--shape smolvlm-256m] [--k 10] [--times 2] [--json FILE]

One step on one list: scores, loss, gradients of LoRA and value head, with a frozen vision tower.
Models are random ones of a published shape, 64 visual tokens a picture, float32. Every way
computes the same loss of the same list, so that losses and gradients can be compared. Memory is
the process's own, weights included.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
import transformers

from _common import machine, table, write_json
from skylink.loss_registry import make_loss
from skylink.lvlm.backbone import Encoded
from skylink.lvlm.cache import ImageFeatures
from skylink.lvlm.load import load_backbone
from skylink.lvlm.options import LvlmOptions
from skylink.lvlm.random_checkpoint import write_random_checkpoint
from skylink.prompt import NOTHING, TEMPLATES, Prompt
from skylink.showing import Image
from skylink.town import Town, render_map
from skylink.training.config import Tune
from skylink.training.groups import group_states, usable, whole_states
from skylink.training.model import Student

FAMILIES = {"smolvlm-256m": "smolvlm", "qwen-vl": "qwen3_vl", "tiny": "smolvlm"}
TOKENS = 64
LOSS = make_loss("relational")


@dataclass(frozen=True)
class Task:
    """One list to learn from."""

    student: Student
    prompt: Prompt
    photo: Image
    tiles: Sequence[Image]
    labels: torch.Tensor

    def look(self) -> tuple[ImageFeatures, list[ImageFeatures]]:
        """All pictures through the tower."""
        backbone = self.student.backbone
        return usable(backbone.look(self.photo)), [usable(backbone.look(t)) for t in self.tiles]

    def encode(self, seen: tuple[ImageFeatures, list[ImageFeatures]]) -> list[Encoded]:
        """The list's prompts."""
        photo, tiles = seen
        return [self.student.backbone.encode(self.prompt, photo, [tile]) for tile in tiles]


@dataclass(frozen=True)
class Taken:
    """What one way took for one list."""

    loss: float
    gradient: torch.Tensor
    cpu_s: float
    wall_s: float
    peak_mb: float


def plain_states(task: Task) -> torch.Tensor:
    """What people write: K prompts in a batch, two pictures each, logits at all positions."""
    backbone = task.student.backbone
    text = backbone.render(task.prompt)
    inputs = backbone.processor(
        text=[text] * len(task.tiles),
        images=[[task.photo, tile] for tile in task.tiles],
        return_tensors="pt",
        input_data_format="channels_last",
        add_special_tokens=backbone.starts_bare(text),
        padding=True,
        padding_side="left",
    )
    out = backbone.model(**inputs, output_hidden_states=True, use_cache=False)
    states: torch.Tensor = out.hidden_states[-1][:, -1]
    return states


def ways(task: Task) -> dict[str, Callable[[], torch.Tensor]]:
    """States of the list's candidates, each way with one saving more."""
    backbone = task.student.backbone
    kept = task.look()
    return {
        "plain: two pictures a pair, all logits": lambda: plain_states(task),
        "last state only, each picture once": lambda: whole_states(
            backbone, task.encode(task.look())
        ),
        "+ features kept": lambda: whole_states(backbone, task.encode(kept)),
        "+ shared beginning (the default)": lambda: group_states(backbone, task.encode(kept)),
    }


def step(task: Task, states: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Loss and gradient of the list."""
    with task.student.training((0,)):
        scores = task.student.head(states())
        loss = LOSS(scores[None], task.labels[None])
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = []
    for _, parameter in task.student.named_parameters():
        if parameter.grad is not None:
            gradients.append(parameter.grad.reshape(-1))
        parameter.grad = None
    return float(loss.detach()), torch.cat(gradients)


def measure(run: Callable[[], tuple[float, torch.Tensor]], times: int) -> Taken:
    """The fastest of `times` runs, and the highest memory of all."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not done.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    watcher = threading.Thread(target=watch)
    watcher.start()
    taken = []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        loss, gradient = run()
        taken.append((time.process_time() - cpu, time.perf_counter() - wall))
    done.set()
    watcher.join()
    cpu_s, wall_s = min(taken)
    return Taken(loss, gradient, cpu_s, wall_s, peak[0] / 2**20)


def make_task(folder: Path, shape: str, k: int, *, gradient_checkpointing: bool) -> Task:
    """A model with LoRA, and pictures cut from a made-up town's map."""
    checkpoint = folder / shape
    if not checkpoint.exists():
        write_random_checkpoint(checkpoint, FAMILIES[shape], shape=shape)
    backbone = load_backbone(
        str(checkpoint), LvlmOptions(visual_tokens=TOKENS, device="cpu", dtype="float32")
    )
    template = TEMPLATES["pointwise-v1"]
    student = Student(
        backbone, template, Tune(dropout=0.0), gradient_checkpointing=gradient_checkpointing
    )
    with torch.no_grad():  # or half of LoRA has no gradient yet
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.01)
    whole, side = render_map(Town.generate(seed=7), gsd_m=1.0), backbone.picture_px
    draw = np.random.default_rng(0)
    corners = zip(
        draw.integers(0, whole.shape[0] - side, k + 1),
        draw.integers(0, whole.shape[1] - side, k + 1),
        strict=True,
    )
    photo, *tiles = (np.ascontiguousarray(whole[y : y + side, x : x + side]) for y, x in corners)
    labels = torch.linspace(1, 0, k)
    return Task(student, template.build(NOTHING, [NOTHING]), photo, tiles, labels)


def measure_ways(shape: str, k: int, times: int, scratch: Path) -> dict[str, Taken]:
    """Every way on one shape; the model is gone afterwards."""
    task = make_task(scratch, shape, k, gradient_checkpointing=False)
    count = sum(p.numel() for p in task.student.backbone.model.parameters()) / 1e6
    trained = sum(p.numel() for _, p in task.student.named_parameters()) / 1e3
    print(f"\n## {shape}: {count:.0f}M parameters, {trained:.0f}k trained, lists of {k}\n")
    found = {}
    for name, way in ways(task).items():
        found[name] = measure(lambda way=way: step(task, way), times)
        print(f"{name}: {found[name].cpu_s:.2f} CPU s", flush=True)
    return found


def run(shape: str, k: int, times: int, scratch: Path) -> dict[str, float]:
    """All ways on one shape: prints a table, returns the figures."""
    found = measure_ways(shape, k, times, scratch)
    again = make_task(scratch, shape, k, gradient_checkpointing=True)
    *_, default = ways(again).values()
    plain, *_, ours = found.values()
    found["+ gradient checkpointing"] = measure(lambda: step(again, default), times)

    def gap(taken: Taken) -> float:
        return float((taken.gradient - plain.gradient).norm() / plain.gradient.norm())

    rows = [
        (
            name, f"{t.cpu_s:.2f}", f"{t.wall_s:.2f}", f"{plain.cpu_s / t.cpu_s:.1f}x",
            f"{abs(t.loss - plain.loss):.1e}", f"{gap(t):.1e}", f"{t.peak_mb:,.0f}",
        )
        for name, t in found.items()
    ]  # fmt: skip
    header = ("a list", "CPU s", "wall s", "against plain", "loss differs", "gradient differs",
              "peak MB")  # fmt: skip
    print(table(header, rows), flush=True)
    return {
        "speedup_vs_plain": plain.cpu_s / ours.cpu_s,
        "max_relative_gradient_difference": max(gap(t) for t in found.values()),
        "peak_mb": ours.peak_mb,
        "peak_mb_plain": plain.peak_mb,
        "peak_mb_gradient_checkpointing": found["+ gradient checkpointing"].peak_mb,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=list(FAMILIES), default="smolvlm-256m")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--times", type=int, default=2, help="runs of each way; the best counts")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{machine()}, torch {torch.__version__}, transformers {transformers.__version__}, "
          f"{torch.get_num_threads()} threads", flush=True)  # fmt: skip
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        figures = run(options.shape, options.k, options.times, Path(scratch))
    print(f"\n{figures['speedup_vs_plain']:.1f} times the plain way's lists a CPU second; "
          f"peak {figures['peak_mb'] / 1024:.1f} GB")  # fmt: skip
    write_json(options.json, "training", figures)


if __name__ == "__main__":
    main()
