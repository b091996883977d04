"""The table of an ablation as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skylink.ablation.summary import Difference, Part, RowSummary, Spread

ISOLATES = {"lvlm": "the loss is fixed and the LVLM varied", "loss": "the LVLM is fixed and the "
            "loss varied"}  # fmt: skip
HEAD = (
    "| what scores | loss | labels | ranking | R@1 | AP | median m | against the base | "
    "against the first row | loss variance | gradient norm, mean / max | R@1 variance | "
    "training | seeds |"
)


def markdown(parts: Sequence[Part], *, queries: int, blocks: int, depth: int, several: bool) -> str:
    """The whole page.

    Args:
        parts: of the table.
        queries: test lists.
        blocks: of queries that are resampled together.
        depth: candidates that are re-ranked.
        several: there is more than one checkpoint, so that rows name theirs.
    """
    lines = [
        "# Ablation",
        "",
        f"{queries:,} test lists in {blocks:,} blocks; the first {depth} candidates of each are "
        "re-ranked. R@1 and AP (in steps, over the right candidates of a list) in %, mean ± "
        "standard deviation over seeds; differences of R@1 in points with 95 % intervals of a "
        "paired bootstrap over blocks. *pure* ranks by the score alone, *fused* by weight and gate "
        "that were fitted on the validation lists.",
    ]
    for number, part in enumerate(parts, 1):
        isolated = f" ({ISOLATES[part.isolates]})" if part.isolates else ""
        lines += ["", f"## {number}. {_cell(part.title) or 'Rows'}{isolated}", "", HEAD]
        lines.append("|" + "---|" * HEAD.count(" | ") + "---|")
        lines += [_row(row, several) for row in part.rows]
    lines += _failures(parts) + _labels(parts)
    return "\n".join(lines) + "\n"


def name_of(row: RowSummary, several: bool) -> str:
    """What scores, in words."""
    checkpoint = Path(row.arm.checkpoint).name
    return f"{row.arm.model} ({checkpoint})" if several and checkpoint else row.arm.model


def loss_of(row: RowSummary) -> str:
    """Its loss, marked where soft labels are not there."""
    return f"{row.arm.loss} (= hard labels)" if row.equals_hard else row.arm.loss


def _row(row: RowSummary, several: bool) -> str:
    calm, wanted = row.calm, row.wanted
    cells = [
        name_of(row, several),
        loss_of(row),
        row.arm.labels,
        "" if row.arm.model == "base" else row.ranking,
        _spread(row.recall_at_1),
        _spread(row.ap_step),
        _spread(row.median_error_m, ".1f"),
        _difference(row.against_base),
        _difference(row.against_first),
        "" if calm is None else f"{calm.loss_variance:.3g}",
        "" if calm is None else f"{calm.grad_norm_mean:.3g} / {calm.grad_norm_max:.3g}",
        "" if calm is None or calm.recall_variance is None else f"{calm.recall_variance:.2f}",
        "" if row.train_seconds is None else f"{row.train_seconds:,.0f} s",
        "" if not wanted else f"{len(row.seeds)} of {wanted}" + (" !" if row.failed else ""),
    ]
    return "| " + " | ".join(map(_cell, cells)) + " |"


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


def _labels(parts: Sequence[Part]) -> list[str]:
    """What was learnt from: each loss and source once."""
    rows = {
        (row.arm.labels, row.arm.loss): row.labels
        for part in parts
        for row in part.rows
        if row.labels is not None
    }
    if not rows:
        return []
    lines = [
        "",
        "## Labels",
        "Shares of training lists; entropy of its maximum: 0 is one-hot, 1 all alike.",
        "",
        "| labels | loss | lists | with a soft one | one-hot | entropy | |",
        "|---|---|---|---|---|---|---|",
    ]
    for (source, loss), labels in rows.items():
        assert labels is not None
        lines.append(
            f"| {source} | {loss} | {labels.lists:,} | {100 * labels.soft_share:.1f} % | "
            f"{100 * labels.one_hot_share:.1f} % | {labels.relative_entropy:.3f} | {labels.note} |"
        )
    return lines


def _cell(words: str) -> str:
    return " ".join(words.replace("|", "\\|").split())
