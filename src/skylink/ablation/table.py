"""The table of an ablation as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skylink.ablation.summary import Difference, Part, RowSummary, Spread

ISOLATES = {"lvlm": "the loss is fixed and the LVLM varied", "loss": "the LVLM is fixed and the "
            "loss varied"}  # fmt: skip


def markdown(
    parts: Sequence[Part],
    *,
    checkpoints: Sequence[str],
    queries: int,
    blocks: int,
    depths: Sequence[int],
    positions: bool,
) -> str:
    """The whole page.

    Args:
        parts: of the table.
        checkpoints: of the grid; rows name theirs where there are several.
        queries: test lists.
        blocks: of queries that are resampled together.
        depths: how many candidates are re-ranked; rows name theirs where there are several.
        positions: errors in metres are known.
    """
    several, each_depth = len(checkpoints) > 1, len(depths) > 1
    names = "".join(f"{Path(each).name}, " for each in checkpoints).rstrip(", ")
    lines = [
        "# Ablation",
        "",
        f"{names}{'; ' if names else ''}{queries:,} test lists in {blocks:,} blocks; the first "
        f"{'K' if each_depth else depths[0]} candidates of each are re-ranked. R@1 and AP (in "
        "steps, over the right candidates of a list) in %, mean ± standard deviation over seeds; "
        "differences of R@1 in points with 95 % intervals of a paired bootstrap over blocks. "
        "*pure* ranks by the score alone, *fused* by weight and gate that were fitted on the "
        "validation lists.",
    ]
    for number, part in enumerate(parts, 1):
        isolated = f" ({ISOLATES[part.isolates]})" if part.isolates else ""
        lines += ["", f"## {number}. {_cell(part.title) or 'Rows'}{isolated}", ""]
        lines += _table(
            [*_head(each_depth), "R@1", "AP", *(["median m"] if positions else []),
             "against the base", "against the first row", "seeds"],
            [_row(row, several, each_depth, positions) for row in part.rows],
        )  # fmt: skip
    lines += _failures(parts) + _flights(parts, several, each_depth)
    lines += _trainings(parts, several) + _labels(parts)
    return "\n".join(lines) + "\n"


def name_of(row: RowSummary, several: bool) -> str:
    """What scores, in words."""
    checkpoint = Path(row.arm.checkpoint).name
    return f"{row.arm.model} ({checkpoint})" if several and checkpoint else row.arm.model


def loss_of(row: RowSummary) -> str:
    """Its loss, marked where soft labels are not there."""
    return f"{row.arm.loss} (= hard labels)" if row.equals_hard else row.arm.loss


def _row(row: RowSummary, several: bool, each_depth: bool, positions: bool) -> list[str]:
    return [
        *_which(row, several, each_depth),
        _spread(row.recall_at_1),
        _spread(row.ap_step),
        *([_spread(row.median_error_m, ".1f")] if positions else []),
        _difference(row.against_base),
        _difference(row.against_first),
        f"{len(row.seeds)} of {row.wanted}" if row.wanted else "",
    ]


def _which(row: RowSummary, several: bool, each_depth: bool) -> list[str]:
    depth = ["" if row.depth is None else str(row.depth)] if each_depth else []
    return [*_what(row, several), *depth, "" if row.arm.model == "base" else row.ranking]


def _what(row: RowSummary, several: bool) -> list[str]:
    return [name_of(row, several), loss_of(row), row.arm.labels]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]


def _spread(figure: Spread | None, how: str = ".2f") -> str:
    if figure is None:
        return ""
    return f"{figure.mean:{how}}" + ("" if figure.std is None else f" ± {figure.std:{how}}")


def _difference(found: Difference | None) -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _failures(parts: Sequence[Part]) -> list[str]:
    """Each failed cell once."""
    found = {
        f"- {row.arm}, seed {seed}: {_cell(cause)}": None
        for part in parts
        for row in part.rows
        for seed, cause in row.failed
    }
    return ["", "## Failed", *found] if found else []


def _head(each_depth: bool) -> list[str]:
    return ["what scores", "loss", "labels", *(["K"] if each_depth else []), "ranking"]


def _flights(parts: Sequence[Part], several: bool, each_depth: bool) -> list[str]:
    """R@1 of every row by flight: each row once."""
    rows = {
        (row.arm, row.depth, row.ranking): row
        for part in parts
        for row in part.rows
        if row.by_flight
    }
    if not rows:
        return []
    names = list(next(iter(rows.values())).by_flight)
    lines = ["", "## Flights", "R@1, % ± standard deviation over seeds.", ""]
    return lines + _table(
        [*_head(each_depth), *names],
        [
            [*_which(row, several, each_depth), *(_spread(row.by_flight[n]) for n in names)]
            for row in rows.values()
        ],
    )


def _trainings(parts: Sequence[Part], several: bool) -> list[str]:
    """How calm and how long: each arm once."""
    rows = {row.arm: row for part in parts for row in reversed(part.rows) if row.calm}
    if not rows:
        return []
    head = [
        "what scores", "loss", "labels", "loss variance", "gradient norm, mean", "largest",
        "R@1 variance over seeds", "training", "test",
    ]  # fmt: skip
    lines = [
        "",
        "## Trainings",
        "Variance of the steps' losses over the last half of a training; norms before clipping; "
        "times of one seed.",
        "",
    ]
    made = []
    for row in sorted(rows.values(), key=lambda row: row.arm):
        calm = row.calm
        assert calm is not None
        made.append([
            *_what(row, several),
            f"{calm.loss_variance:.3g}",
            f"{calm.grad_norm_mean:.3g}",
            f"{calm.grad_norm_max:.3g}",
            "" if calm.recall_variance is None else f"{calm.recall_variance:.2f}",
            _seconds(row.train_seconds),
            _seconds(row.judge_seconds),
        ])  # fmt: skip
    return lines + _table(head, made)


def _labels(parts: Sequence[Part]) -> list[str]:
    """What was learnt from: each loss and source once."""
    found = {
        (row.arm.labels, row.arm.loss): row.labels
        for part in parts
        for row in part.rows
        if row.labels is not None
    }
    if not found:
        return []
    lines = [
        "",
        "## Labels",
        "Shares of training lists; entropy of its maximum: 0 is one-hot, 1 all alike.",
        "",
    ]
    rows = [
        [
            source,
            loss,
            f"{labels.lists:,}",
            f"{100 * labels.soft_share:.1f} %",
            f"{100 * labels.one_hot_share:.1f} %",
            f"{labels.relative_entropy:.3f}",
            labels.note,
        ]
        for (source, loss), labels in found.items()
    ]
    head = ["labels", "loss", "lists", "with a soft one", "one-hot", "entropy", ""]
    return lines + _table(head, rows)


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.1f} s"


def _cell(words: str) -> str:
    return " ".join(words.replace("|", "\\|").split())
