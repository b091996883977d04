"""What docs/ablation.md's table is made of: generated towns made hard, mined, and a grid over them.

    python scripts/ablation_data.py OUT [--ariel DIR] [--encoder embedded]
    skylink ablate OUT/grid.toml --out OUT/ablation

Towns to learn from and towns that choices are made by are in one gallery, far apart; their photos
are in two lists of queries. `skylink mine` lists the candidates of both by the descriptor base,
within 500 m of where the drone may be. What is measured on are the real flights of --ariel, on
their whole map, or further towns. What is there already is kept: after a kill the same command goes
on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from skylink.encoder import load_encoder
from skylink.files import write_atomic
from skylink.gallery import Gallery
from skylink.town.hard import TRAINING, VALIDATION, HardTown, hard_town, write_queries

TILE_M, STRIDE_M, DEPTH, PRIOR_M = 162.0, 32.4, 50, 500.0
GRID = Path(__file__).with_name("ablation_grid.toml")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--ariel", type=Path, metavar="DIR", help="map.tif, queries.csv, queries/")
    parser.add_argument("--encoder", default="embedded")
    parser.add_argument("--train", type=int, default=10, help="towns to learn from")
    parser.add_argument("--validation", type=int, default=4, help="towns that choices are made by")
    parser.add_argument("--test", type=int, default=3, help="towns that are measured on")
    parser.add_argument("--photos", type=int, default=48, help="of each town")
    parser.add_argument("--every", type=int, default=2, help="take every Nth frame of --ariel")
    asked = parser.parse_args()
    out: Path = asked.out
    learnt = towns(out, TRAINING[: asked.train], asked.photos)
    judged = towns(out, VALIDATION[: asked.validation], asked.photos)
    gallery = build([town.map for town in (*learnt, *judged)], out / "gallery", asked.encoder)
    train = write_queries(out / "train.csv", learnt)
    held = write_queries(out / "validation.csv", judged)
    prior = ("--prior-m", str(PRIOR_M))
    mine(gallery, train, out / "train.jsonl", *prior)
    mine(gallery, held, out / "validation.jsonl", "--no-force", *prior)
    if asked.ariel is None:
        others = towns(out, VALIDATION[asked.validation :][: asked.test], asked.photos)
        queries, maps = write_queries(out / "test.csv", others), [town.map for town in others]
        every = 1
    else:
        queries, maps = asked.ariel / "queries.csv", [asked.ariel / "map.tif"]
        every = asked.every
    test = build(maps, out / "test-gallery", asked.encoder)
    mine(test, queries, out / "test.jsonl", "--split", "test", "--every", str(every))
    grid = GRID.read_text(encoding="utf-8")
    write_atomic(out / "grid.toml", grid.replace("TEST_FOLDER", str(queries.parent.resolve())))
    print(f"\nNext: skylink ablate {out / 'grid.toml'} --out {out / 'ablation'}")


def towns(out: Path, seeds: Sequence[int], photos: int) -> list[HardTown]:
    """Towns, made where they are not there."""
    made = []
    for number, seed in enumerate(seeds, 1):
        print(f"town {seed}: {number} of {len(seeds)}", flush=True)
        made.append(hard_town(out / "towns", seed=seed, photos=photos))
    return made


def build(maps: Sequence[Path], path: Path, encoder: str) -> Path:
    """A gallery, whole."""
    if not (path / "gallery.json").is_file():
        print(f"building {path.name} of {len(maps)} maps", flush=True)
        made = load_encoder(encoder)
        Gallery.build(list(maps), path, tile_m=(TILE_M,), stride_m=STRIDE_M, encoder=made)
    return path


def mine(gallery: Path, queries: Path, out: Path, *options: str) -> None:
    """Lists of all photos, as by hand."""
    if out.exists():
        return
    command = [
        sys.executable, "-m", "skylink", "mine", "--gallery", str(gallery),
        "--queries", str(queries), "--retriever", "descriptor", "--top-k", str(DEPTH),
        "--out", str(out), *options,
    ]  # fmt: skip
    print("$ skylink", *command[3:], flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
