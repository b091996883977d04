"""The finished folder: an adapter that re-rankers load as it is, with what became of the training.

skylink.json, value_head.safetensors, adapter_*      see `lvlm/adapter.py`
config.toml                                          the training's choices
README.md, reliability.png                           the model's card
training/                                            log and checkpoints, not needed any more
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from skylink import __version__
from skylink.files import output_errors, write_atomic
from skylink.lvlm.adapter import AdapterInfo, save_adapter
from skylink.reranker import Fusion
from skylink.training.config_file import toml_text
from skylink.training.fusion import (
    BASE_ONLY,
    RERANKER_ONLY,
    Recall,
    Reliability,
    Scored,
    confidences,
    fit_fusion,
    fit_temperature,
)
from skylink.training.loop import Outcome
from skylink.training.trainer import Trainer
from skylink.training.validation import score_lists

CARD, PLOT, CONFIG = "README.md", "reliability.png", "config.toml"


def finish(trainer: Trainer, outcome: Outcome) -> AdapterInfo | None:
    """Fit fusion and confidence, and write the finished folder.

    Args:
        trainer: after its run, holding the best weights.
        outcome: of the run.

    Returns:
        What the folder says of itself; None in a process that doesn't write.

    Raises:
        OutputError: the folder can't be written; what of it is there is refused when loaded.
    """
    scored = score_lists(trainer.validation, trainer.scorer, trainer.processes)
    if not trainer.processes.first:
        return None
    config, student = trainer.config, trainer.student
    fitted: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    reliability = None
    if scored:
        fusion = fit_fusion(scored)
        temperature = fit_temperature(scored, fusion)
        fitted = {"base_weight": fusion.base_weight, "gate_margin": fusion.gate_margin}
        fitted |= {"fusion_depth": fusion.depth, "temperature": temperature}
        figures = _figures(scored, fusion)
        if temperature is not None:
            reliability = Reliability.of(*confidences(scored, fusion, temperature))
            plain = Reliability.of(*confidences(scored, fusion, 1.0))
            figures["calibration error"] = reliability.error
            figures["calibration error at temperature 1"] = plain.error
    model = student.backbone.model.config
    info = AdapterInfo(
        checkpoint=config.checkpoint,
        revision=config.revision,
        model_type=model.model_type,
        hidden_size=model.get_text_config().hidden_size,
        template=config.asking.template,
        facts=config.asking.facts,
        show=config.asking.show,
        visual_tokens=config.asking.visual_tokens,
        about={
            "skylink": __version__,
            "data": _data(trainer),
            "tuned": config.tune.how,
            "loss": {"name": trainer.loss.name, **trainer.loss.defaults},
            "steps": outcome.steps,
            "best_step": outcome.step,
            "seconds": round(outcome.seconds, 1),
            "validation": figures,
        },
        **fitted,
    )
    # PEFT leaves a card of its own, and complains of any other that it finds
    with output_errors(config.out):
        (config.out / CARD).unlink(missing_ok=True)
    info = save_adapter(config.out, info, head=student.head, lora=student.lora)
    write_atomic(config.out / CONFIG, toml_text(config))
    if reliability is not None:
        write_atomic(config.out / PLOT, reliability_png(reliability))
    words = card(info, trainable=trainable(trainer), plot=reliability is not None)
    write_atomic(config.out / CARD, words)
    return info


def trainable(trainer: Trainer) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for _, p in trainer.student.named_parameters())


def card(info: AdapterInfo, *, trainable: int, plot: bool) -> str:
    """The model's card, Markdown."""
    about = info.about
    rows = [
        ("model", f"{info.checkpoint}{'' if info.revision is None else ' @ ' + info.revision}"),
        ("trained", f"{about['tuned']}, {trainable:,} numbers, {about['steps']} steps; "
                    f"step {about['best_step']} is kept"),
        ("loss", ", ".join(f"{k} = {v}" for k, v in about["loss"].items())),
        ("prompt", f"{info.template}, {info.visual_tokens} visual tokens a picture, shown "
                   f"{info.show}, {'with' if info.facts else 'without'} facts"),
        *about["data"].items(),
    ]  # fmt: skip
    lines = ["# A re-ranker of satellite candidates for drone photos", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows), ""]
    found = about["validation"]
    if found:
        lines += [
            "## Validation lists",
            "Of the training split. The best step, fusion and temperature were chosen on them, so "
            "these figures flatter; measure on your own test split with `skylink evaluate`.",
            "",
            "| ranking | recall@1, % | mrr, % |",
            "|---|---|---|",
        ]
        for name in ("base", "re-ranker", "fused"):
            recall, mrr = found[name]["recall@1"], found[name]["mrr"]
            lines.append(f"| {name} | {100 * recall:.2f} | {100 * mrr:.2f} |")
        gate = "none" if info.gate_margin is None else f"{info.gate_margin:.3g}"
        lines += ["", f"Fused: base weight {info.base_weight:g}, gate {gate}."]
        if info.temperature is not None:
            lines.append(
                f"Confidence: softmax of the fused scores / {info.temperature:.3g}; its "
                f"calibration error is {100 * found['calibration error']:.1f} %, "
                f"{100 * found['calibration error at temperature 1']:.1f} % without."
            )
        if plot:
            lines += ["", f"![confidence and accuracy]({PLOT})"]
    else:
        lines.append(
            "There were no validation lists: nothing is known of how well it ranks, and fusion and "
            "confidence are not fitted."
        )
    lines += [
        "",
        "## Use",
        f"    skylink locate PHOTO --gallery GALLERY --reranker lvlm:{info.checkpoint} \\",
        "        --lvlm-adapter THIS_FOLDER",
    ]
    return "\n".join(lines) + "\n"


def reliability_png(reliability: Reliability) -> bytes:
    """Accuracy over confidence, with how many lists each bin has."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    width = 1 / len(reliability.count)
    filled = reliability.count > 0
    top.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=(0, (4, 4)))
    top.plot(
        reliability.confidence[filled], reliability.accuracy[filled], "o-", color="#1f6f8b",
        label=f"calibration error {100 * reliability.error:.1f} %",
    )  # fmt: skip
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right")
    top.legend(loc="upper left", frameon=False)
    below.bar((np.arange(len(filled)) + 0.5) * width, reliability.count, 0.9 * width,
              color="#9aa5b1")  # fmt: skip
    below.set(xlabel="confidence", ylabel="lists")
    for axes in (top, below):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def _figures(scored: list[Scored], fusion: Fusion) -> dict[str, Any]:
    kinds = {"base": BASE_ONLY, "re-ranker": RERANKER_ONLY, "fused": fusion}
    figures: dict[str, Any] = {"lists": len(scored)}
    for name, kind in kinds.items():
        recall = Recall.of(scored, kind)
        figures[name] = {"recall@1": recall.recall_at_1, "mrr": recall.mrr}
    return figures


def _data(trainer: Trainer) -> dict[str, Any]:
    """What it learnt from, for the card."""
    header = trainer.lists.file.header
    where, labels = header.provenance, trainer.lists.statistics
    config = trainer.config
    soft = f"{100 * labels.soft_share:.1f} % of lists have soft ones"
    judged = [file.header.summary.sha256 for file in trainer.validation.files]
    return {
        "dataset": f"{where.dataset}, {where.split}",
        "base": where.base,
        "lists": f"{len(trainer.lists):,} of {len(trainer.lists.file):,}, "
        f"{config.data.list_size} candidates each ({config.data.negatives})",
        "lists sha256": header.summary.sha256,
        "labels": f"{config.labels.source}; {soft}",
        "validation lists sha256": ", ".join(judged) or "none",
    }


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
