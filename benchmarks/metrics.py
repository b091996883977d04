"""Retrieval metrics at the real size of University-1652, against the field's loop over queries.

    python benchmarks/metrics.py [--loop-share 0.1] [--json FILE]

Synthetic descriptors of 1,024 numbers: 37,855 drone images for 951 tiles, and 701 tiles for 51,355
drone images. The loop is what published evaluations do with each query: a product with the whole
gallery, a full sort, masks of good and junk images, a loop of trapezoids. It runs on a share of the
queries, drawn at random, and its time is scaled to all of them; on that share both must agree.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from _common import machine, table, write_json
from skylink.protocol import rank_metrics
from skylink.relevance import Distractors, Relevance

PLACES, SHOWN, VIEWS, DIMENSIONS = 951, 701, 54, 1024
DRONE_QUERIES, DRONE_GALLERY = 37_855, 51_355
NOISE = 2.7
"""Against unit variance of a place: recall@1 between 50 and 100 %, neither trivial nor chance."""

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def views(places: Floats, labels: Labels, generator: np.random.Generator) -> Floats:
    """(N, D) unit-norm descriptors of images of places."""
    noise = generator.standard_normal((len(labels), DIMENSIONS), dtype=np.float32)
    noise *= np.float32(NOISE)
    noise += places[labels]
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return noise


def loop(query: Floats, query_labels: Labels, gallery: Floats, gallery_labels: Labels) -> Labels:
    """Percentages of the usual loop: recall@1, recall@5, recall@10, AP by trapezoids."""
    curve, total = np.zeros(len(gallery)), 0.0
    for descriptor, label in zip(query, query_labels, strict=True):
        index = np.argsort(gallery @ descriptor)[::-1]
        good = np.argwhere(gallery_labels == label)
        junk = np.argwhere(gallery_labels == -1)
        if good.size == 0:
            continue
        index = index[np.isin(index, junk, invert=True)]
        places = np.flatnonzero(np.isin(index, good))
        curve[places[0] :] += 1
        for i, place in enumerate(places):
            before = i / place if place else 1.0
            total += (before + (i + 1) / (place + 1)) / 2 / len(good)
    return 100 * np.array([*curve[[0, 4, 9]], total]) / len(query)


def peak_gb() -> float:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop-share", type=float, default=0.1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not 0 < options.loop_share <= 1:
        parser.error("--loop-share is between 0 and 1")
    print(machine(), flush=True)
    generator = np.random.default_rng(0)
    places = generator.standard_normal((PLACES, DIMENSIONS), dtype=np.float32)
    tiles = np.arange(PLACES)
    drone = np.concatenate([np.repeat(tiles, VIEWS), tiles])[:DRONE_GALLERY]
    directions = {
        "drone to satellite": (drone[drone < SHOWN][:DRONE_QUERIES], tiles),
        "satellite to drone": (tiles[:SHOWN], drone),
    }
    figures: dict[str, float] = {}
    lines, fast, slow, apart = [], 0.0, 0.0, 0.0
    for name, (query_labels, gallery_labels) in directions.items():
        query = views(places, query_labels, generator)
        gallery = views(places, gallery_labels, generator)
        relevance = Relevance.from_labels(query_labels, gallery_labels)
        share = generator.permutation(len(query))[: max(1, int(len(query) * options.loop_share))]
        part = relevance.select(share)
        for convention in Distractors:
            began = time.perf_counter()
            ours = rank_metrics(query, gallery, relevance, distractors=convention)
            took = time.perf_counter() - began
            figures[f"{name}, {convention}, s"] = took
            figures["peak memory, GB"] = peak_gb()  # before the loop, which needs little
            theirs = gallery_labels
            if convention is Distractors.dropped:
                theirs = np.where(relevance.distractors, -1, gallery_labels)
            began = time.perf_counter()
            expected = loop(query[share], query_labels[share], gallery, theirs)
            looped = (time.perf_counter() - began) * len(query) / len(share)
            same = rank_metrics(query[share], gallery, part, distractors=convention)
            got = [*same.recall.values(), same.ap_trapezoid]
            apart = max(apart, float(np.abs(expected - got).max()))
            fast, slow = fast + took, slow + looped
            lines.append(
                (
                    name,
                    convention,
                    f"{len(query):,} x {len(gallery):,}",
                    f"{ours.recall[1]:.2f}",
                    f"{ours.ap_trapezoid:.2f}",
                    f"{took:.2f}",
                    f"{looped:.1f}",
                    f"{looped / took:.0f}x",
                )
            )
            print(" | ".join(map(str, lines[-1])), flush=True)
    header = ("direction", "gallery", "size", "R@1", "AP", "s", "loop, s", "ratio")
    print(table(header, lines))
    figures |= {
        "all metrics, s": fast,
        "loop, s": slow,
        "speedup_vs_loop": slow / fast,
        "largest difference, points": apart,
    }
    print(
        f"loop on {options.loop_share:.0%} of the queries, scaled; speed-up {slow / fast:.0f}x; "
        f"peak memory {figures['peak memory, GB']:.2f} GB; largest difference {apart:.4f} points"
    )
    # the two products round differently, so that near ties may swap; more than that is an error
    if apart > 0.05:
        raise SystemExit("the loop and the metrics disagree")
    write_json(options.json, "metrics", figures)


if __name__ == "__main__":
    main()
