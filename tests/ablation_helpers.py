"""A small ablation: made-up lists that can be learnt, and a grid over them as TOML."""

from __future__ import annotations

from pathlib import Path

from training_helpers import write_lists

ROWS = """
[[rows]]
title = "models"
models = ["lvlm-head", "base"]
losses = ["relational"]
rankings = ["pure", "fused"]
"""


def write_ablation(folder: Path) -> None:
    """`train`, `held` and `test` lists in a folder; the base is right for a quarter of each."""
    write_lists(folder)
    write_lists(folder, name="held", lists=12)
    write_lists(folder, name="test", lists=16, split="test", ground_truth="not-forced")


def write_grid(
    folder: Path,
    checkpoint: Path | str,
    *,
    rows: str = ROWS,
    seeds: str = "[0, 1]",
    steps: int = 6,
    more: str = "",
    name: str = "grid",
) -> Path:
    """`NAME.toml` beside the lists."""
    path = folder / f"{name}.toml"
    path.write_text(
        f"""
checkpoints = ["{checkpoint}"]
seeds = {seeds}
{more}
[data]
train = "train.jsonl"
validation = ["held.jsonl"]
list_size = 4
[test]
lists = ["test.jsonl"]
{rows}
[asking]
visual_tokens = 16
template = "pointwise-short-v1"
[tune]
r = 4
dropout = 0.0
[optimizer]
steps = {steps}
lists_per_step = 4
lr_head = 0.03
lr_lora = 3e-3
[validation]
every = 3
[checkpointing]
every = 1
[compute]
device = "cpu"
precision = "fp32"
cache = "cache"
"""
    )
    return path
