"""An ablation's files: ablation.json for programs, ablation.md and ablation.png for people.

They can be written at any time: rows whose cells are not finished say so.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from skylink import __version__
from skylink.ablation.figure import png
from skylink.ablation.run import Ablation
from skylink.ablation.summary import Part, RowSummary, summarise
from skylink.ablation.table import markdown
from skylink.files import write_atomic

JSON, MARKDOWN, FIGURE = "ablation.json", "ablation.md", "ablation.png"
VERSION = 1


def write_report(ablation: Ablation) -> tuple[Part, ...]:
    """Write the three files from what is finished.

    Raises:
        OutputError: one can't be written.
    """
    grid, held = ablation.grid, ablation.held
    base = held.judge_base()
    parts = summarise(grid, held.blocks, base, ablation.results(), flights=held.flights)
    blocks = len(np.unique(held.blocks))
    several, each_depth = len(grid.checkpoints) > 1, len(grid.ranked) > 1
    document = {
        "format": "skylink-ablation",
        "version": VERSION,
        "skylink": __version__,
        "grid": grid.model_dump(mode="json"),
        "test": {
            "sha256": held.sha256,
            "queries": len(held),
            "blocks": blocks,
            "positions": held.has_positions,
            "base_recall_at_1": 100 * float(np.mean(base.hits)),
        },
        "parts": [
            {
                "title": part.title,
                "isolates": part.isolates,
                "rows": [_row(row) for row in part.rows],
            }
            for part in parts
        ],
    }
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_atomic(ablation.out / JSON, text)
    page = markdown(
        parts,
        checkpoints=grid.checkpoints,
        queries=len(held),
        blocks=blocks,
        depths=grid.ranked,
        positions=held.has_positions,
    )
    write_atomic(ablation.out / MARKDOWN, f"{page}\n![recall at 1 of every row]({FIGURE})\n")
    write_atomic(ablation.out / FIGURE, png(parts, several=several, each_depth=each_depth))
    return parts


def unfinished(parts: tuple[Part, ...]) -> tuple[int, int]:
    """(failed, not run yet): cells of all parts, each once."""
    rows = {row.arm: row for part in parts for row in part.rows}.values()
    failed = sum(len(row.failed) for row in rows)
    return failed, sum(row.wanted - len(row.seeds) for row in rows) - failed


def _row(row: RowSummary) -> dict[str, Any]:
    values = asdict(row)
    arm = values.pop("arm")
    values["label_statistics"] = values.pop("labels")  # the arm's own `labels` are their source
    values["failed"] = [{"seed": seed, "cause": cause} for seed, cause in row.failed]
    values["fusions"] = [
        {"base_weight": weight, "gate_margin": gate} for weight, gate in row.fusions
    ]
    return {**arm, **values}
