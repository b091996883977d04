"""What `cpu_training.py` says of lists of views: recall of its models, and of plain correlation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cpu_pictures import SIDE, TEMPLATE, TOKENS, Bank, view_lists
from skylink.lvlm.adapter import read_info
from skylink.lvlm.load import load_scorer
from skylink.lvlm.options import LvlmOptions
from skylink.lvlm.taught_tower import CellCode, alike
from skylink.mined import MinedList
from skylink.training.pictures import ListShow


def views_table(
    out: Path,
    bank: Bank,
    code: CellCode,
    models: Sequence[tuple[str, Path, Path | None]],
    size: int,
) -> str:
    """Markdown: R@1 in percent of models on lists of a bank's views.

    Args:
        out: gets the pictures.
        bank: nothing of it was learnt from.
        code: what training-free correlation compares, at places to the nearest cell.
        models: (name, checkpoint, adapter or None) each.
        size: candidates of a list.
    """
    lists = list(view_lists(out, "test-views", bank, size))
    rows = [("training-free correlation of the encoder's cells", correlated(lists, bank, code))]
    rows += [(name, scored(lists, out, *which)) for name, *which in models]
    lines = [
        f"{len(lists)} lists of {size}, chance {100 / size:.0f} %",
        "",
        "| | R@1 |",
        "|---|---|",
        *(f"| {name} | {100 * recall:.1f} |" for name, recall in rows),
    ]
    return "\n".join(lines) + "\n"


def scored(
    lists: Sequence[MinedList], folder: Path, checkpoint: Path, adapter: Path | None
) -> float:
    """Share of the lists whose first is right, by a checkpoint."""
    template = TEMPLATE if adapter is None else read_info(adapter).template
    options = LvlmOptions(
        mode="pointwise", template=template, facts=False, adapter=adapter, device="cpu",
        visual_tokens=TOKENS, cache=folder / "cache",
    )  # fmt: skip
    scorer = load_scorer(str(checkpoint), options)
    show = ListShow(folder, None, size_px=scorer.backbone.picture_px)
    right = [
        m.ground_truth[np.argmax(scorer.score(show(m, range(len(m.candidates)))))] for m in lists
    ]
    return float(np.mean(right))


def correlated(lists: Sequence[MinedList], bank: Bank, code: CellCode) -> float:
    """The same by the mean cosine of codes at the same place."""
    side, cells, step = round(TOKENS**0.5), 14, SIDE // 14
    right = []
    for mined in lists:
        number, view = (int(word) for word in mined.query.rsplit("-", 2)[1:])
        at = [_corner(c.path, c.window) for c in mined.candidates]
        tiles = [
            bank.cells[n, row : row + cells, column : column + cells]
            for n, row, column in ((n, round(y / step), round(x / step)) for n, x, y in at)
        ]
        seen = bank.view_cells[number, view][None].astype(np.float32)
        photo = code(seen, bank.seen[number, view][None], side=side)
        likeness = alike(photo, code(np.stack(tiles).astype(np.float32), side=side)[None])
        right.append(mined.ground_truth[int(likeness.argmax())])
    return float(np.mean(right))


def _corner(path: str | None, window: tuple[int, int, int, int] | None) -> tuple[int, int, int]:
    assert path is not None
    assert window is not None
    return int(Path(path).stem.rsplit("-", 1)[1]), window[0], window[1]
