"""A re-ranker trained on a bare CPU, from nothing: data, checkpoint, training and table.

    python scripts/cpu_training.py OUT [--pool DIR] [--seeds 3] [--small]

1. Two generated towns, one to learn from and one to be tested on; `skylink mine` lists candidates
   of its photos by the descriptor base.
2. Pieces of the first town's map, and with --pool of the scenes of a folder; of each, views as if
   photographed years later. Every tenth scene is kept for testing.
3. A checkpoint: a tiny SmolVLM with random weights whose tower learnt from these pictures to say
   what the embedded encoder's cells say, and whose language model begins by comparing two pictures
   (`skylink.lvlm.taught_tower`, `skylink.lvlm.comparing`). The same with random weights beside it.
4. Lists of views: a view, crops of its own piece and of others.
5. `skylink ablate`: LoRA on all projections with several seeds, against the untrained models, the
   base, training-free correlation and HOG, on the other town: OUT/ablation/ablation.md. The same
   models on lists of views, of the other town's map and of scenes that were kept: OUT/views.md.

What is there already is kept: after a kill the same command goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpu_pictures import CODE, FAMILY, SHAPE, TEMPLATE, TOKENS, Bank, view_lists
from cpu_views import views_table
from skylink.files import write_atomic
from skylink.gallery import Gallery
from skylink.lvlm.comparing import begin_comparing, picture_distance
from skylink.lvlm.random_checkpoint import write_random_checkpoint
from skylink.lvlm.taught_tower import teach_tower, token_axes
from skylink.mined import MinedList
from skylink.minedfile import MinedFile, write_mined
from skylink.prompt import template_of
from skylink.town import TownInputs, write_inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything.

    Attributes:
        town, other: (side m, photos) of the towns to learn from and to be tested on.
        pieces, test_pieces: of map, two views of each.
        tower_steps, steps: of the tower's and the re-ranker's training.
        candidates: of a list of views, and of a list that a step sees.
        depth: candidates of a mined list that are re-ranked.
    """

    town: tuple[int, int] = (1000, 240)
    other: tuple[int, int] = (1200, 160)
    pieces: int = 1000
    test_pieces: int = 120
    tower_steps: int = 900
    steps: int = 300
    candidates: int = 6
    depth: int = 10


SMALL = Size(
    town=(500, 16), other=(500, 16), pieces=250, test_pieces=80, tower_steps=200, steps=100, depth=5
)


def main() -> int:
    """Everything, step by step; the exit code of `skylink ablate`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--pool", type=Path, help="a folder of satellite or aerial scenes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="minutes, to see that it runs")
    asked = parser.parse_args()
    size = SMALL if asked.small else Size()
    out: Path = asked.out
    town, other = towns(out, size)
    learnt = Bank.kept(out / "pieces.npz", town, asked.pool, size.pieces, test=False)
    checkpoints = [
        prepared(out / "prepared", learnt, size.tower_steps),
        write_once(out / "random"),
    ]
    lists = train_lists(out, town, learnt, size)
    test = mine(other, out / "test.jsonl", "--split", "test", "--no-force")
    grid = out / "grid.toml"
    write_atomic(grid, grid_text(lists, test, checkpoints, range(asked.seeds), size))
    failed = skylink("ablate", grid, "--out", out / "ablation")
    say("lists of views of ground that was never learnt from")
    kept = Bank.kept(out / "test-pieces.npz", other, asked.pool, size.test_pieces, test=True)
    table = views_table(out, kept, learnt.code(), trained(out, *checkpoints), size.candidates)
    write_atomic(out / "views.md", table)
    print(table)
    return failed


# ---- towns


def towns(out: Path, size: Size) -> tuple[Path, Path]:
    """The folders of the two towns, each with map, photos and gallery."""
    folders = []
    for name, seed, (side, photos) in (("town", 31, size.town), ("other", 52, size.other)):
        folder = out / name
        if not (folder / "gallery" / "gallery.json").exists():
            say(f"generating {name}: {side} m, {photos} photos")
            made = write_inputs(folder, seed=seed, size_m=side, cell_m=1, photos=photos)
            _rename(made, name)
            Gallery.build([made.map], folder / "gallery")
        folders.append(folder)
    return folders[0], folders[1]


def _rename(made: TownInputs, name: str) -> None:
    """Photos of different towns have different names, since lists go by them."""
    for photo in made.photos:
        photo.rename(photo.with_name(photo.name.replace("town", name)))
    table = made.queries.read_text(encoding="utf-8").replace("town_", f"{name}_")
    write_atomic(made.queries, table)


# ---- model


def write_once(folder: Path, **options: Any) -> Path:
    """A checkpoint, if it isn't there."""
    return (
        folder
        if folder.exists()
        else write_random_checkpoint(folder, FAMILY, shape=SHAPE, **options)
    )


def prepared(folder: Path, bank: Bank, steps: int) -> Path:
    """A checkpoint whose tower has learnt from a bank and whose language model compares."""

    def prepare(model: Any, processor: Any) -> None:
        axes = token_axes(model.config.get_text_config().hidden_size, CODE)
        code = bank.code()
        teach_tower(model, bank.batches(code, 0), axes, steps=steps, say=told)
        distance = picture_distance(processor, template_of(TEMPLATE, "pointwise"))
        begin_comparing(model, axes, distance)

    def told(step: int, loss: float) -> None:
        if step % 50 == 0:
            say(f"tower: step {step} of {steps}, {loss:.0%} of the codes are not told")

    return write_once(folder, prepare=prepare)


def trained(out: Path, checkpoint: Path, random: Path) -> list[tuple[str, Path, Path | None]]:
    """(name, checkpoint, adapter) of each model of the ablation."""
    cells = sorted(path.parent for path in (out / "ablation" / "cells").glob("*/skylink.json"))
    adapters = [(cell.name.rpartition("-")[0], checkpoint, cell) for cell in cells]
    return [*adapters, ("prepared, untrained", checkpoint, None), ("random", random, None)]


# ---- lists


def mine(town: Path, out: Path, *options: str) -> Path:
    """Lists of a town's photos by the descriptor base."""
    if not out.exists():
        gallery, queries = town / "gallery", town / "photos" / "queries.csv"
        skylink(
            "mine", "--gallery", gallery, "--queries", queries, "--retriever", "descriptor",
            "--top-k", 10, "--out", out, *options,
        )  # fmt: skip
    return out


def train_lists(out: Path, town: Path, bank: Bank, size: Size) -> Path:
    """Mined lists and lists of views in one file, `validation.jsonl` beside it."""
    both = out / "train.jsonl"
    if both.exists():
        return both
    held_out = ("--held-out", "0.2", "--validation-out", str(out / "validation.jsonl"))
    mined = MinedFile(mine(town, out / "mined.jsonl", *held_out))

    def every() -> Iterator[MinedList]:
        yield from mined
        yield from view_lists(town / "photos", "views", bank, size.candidates)

    known = mined.header.provenance
    about = f"{known.dataset}, and views"
    write_mined(both, known.model_copy(update={"dataset": about}), every())
    return both


# ---- training


def grid_text(
    lists: Path, test: Path, checkpoints: Sequence[Path], seeds: Sequence[int], size: Size
) -> str:
    """What `skylink ablate` runs."""
    trained, random = (path.name for path in checkpoints)
    return f"""\
checkpoints = ["{trained}", "{random}"]
seeds = {list(seeds)}

[data]
train = "{lists.name}"
validation = ["validation.jsonl"]
folder = "town/photos"
gallery = "town/gallery"
list_size = {size.candidates}
negatives = "sampled"

[test]
lists = ["{test.name}"]
folder = "other/photos"
gallery = "other/gallery"

[[rows]]
title = "A tiny model, on another town"
models = ["lvlm-lora", "lvlm-head", "lvlm-zero-shot", "base", "correlation", "hog"]
losses = ["relational"]
labels = ["overlap"]
checkpoints = ["{trained}"]

[[rows]]
title = "The same shape with random weights"
models = ["lvlm-zero-shot"]
checkpoints = ["{random}"]

[asking]
template = "{TEMPLATE}"
facts = false
visual_tokens = {TOKENS}

[tune]
r = 128
alpha = 128
dropout = 0.0
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

[optimizer]
steps = {size.steps}
lists_per_step = 8
lr_lora = 2e-3
lr_head = 1e-3
warmup = 0.1
final_lr = 0.05

[compute]
device = "cpu"
cache = "cache"

[validation]
depth = {size.depth}
every = {size.steps}
"""


def skylink(*words: object) -> int:
    """Run a command as one would by hand; the exit code."""
    command = ["skylink", *map(str, words)]
    say("$ " + " ".join(command))
    done = subprocess.run([sys.executable, "-m", *command], check=words[0] != "ablate")
    return done.returncode


def say(words: str) -> None:
    """With the seconds since the start."""
    print(f"[{time.monotonic() - START:.0f} s] {words}", flush=True)


START = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
