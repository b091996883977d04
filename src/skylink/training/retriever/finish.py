"""The finished folder: an encoder that loads as `trained:FOLDER`, with what became of the training.

skylink.json, model.safetensors, ...      see `encoders/trained.py`
config.toml                               the training's choices
README.md                                 the model's card
training/                                 log and checkpoints, not needed any more
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skylink import __version__
from skylink.encoders import make_encoder
from skylink.encoders.trained import save_trained
from skylink.files import write_atomic
from skylink.task_descriptors import encode_items
from skylink.training.config_file import toml_text
from skylink.training.loop import Outcome
from skylink.training.retriever.trainer import RetrieverTrainer, recall

CARD, CONFIG = "README.md", "config.toml"


def finish(
    trainer: RetrieverTrainer,
    outcome: Outcome,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> dict[str, Any] | None:
    """Write the finished folder.

    Args:
        trainer: after its run, holding the best weights.
        outcome: of the run.
        progress: called with (done, total, words) while the untrained encoder is measured.

    Returns:
        What the folder says of its training; None in a process that doesn't write.

    Raises:
        OutputError: it can't be written; what of it is there is refused when loaded.
    """
    if not trainer.processes.first:
        return None
    config, examples, judged = trainer.config, trainer.examples, trainer.validation
    figures: dict[str, Any] = {}
    if judged is not None and outcome.best is not None:
        fresh = make_encoder(config.encoder)
        photos, tiles = (encode_items(x, fresh, progress) for x in (judged.photos, judged.tiles))
        figures = {
            "photos": len(judged),
            "tiles": len(judged.tiles),
            "untrained": recall(judged, photos, tiles),
            "trained": outcome.best,
        }
    about: dict[str, Any] = {
        "skylink": __version__,
        "from": config.encoder,
        "data": examples.title,
        "data sha256": examples.digest,
        "photos": len(examples),
        "tiles": len(examples.tiles),
        "loss": config.loss.name,
        "temperature": trainer.temperature,
        "steps": outcome.steps,
        "best_step": outcome.step,
        "seconds": round(outcome.seconds, 1),
        "notes": list(examples.notes),
        "validation": figures,
    }
    save_trained(config.out, config.encoder, trainer.encoder, about)
    write_atomic(config.out / CONFIG, toml_text(config))
    write_atomic(config.out / CARD, card(about))
    return about


def card(about: dict[str, Any]) -> str:
    """The model's card, Markdown."""
    rows = {
        "trained from": about["from"],
        "data": f"{about['data']}: {about['photos']:,} photos, {about['tiles']:,} tiles",
        "data sha256": about["data sha256"],
        "loss": f"{about['loss']}, temperature {about['temperature']:.3g} at the end",
        "steps": f"{about['steps']:,}; step {about['best_step']:,} is kept",
    }
    lines = ["# An encoder of drone photos and satellite tiles", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    lines += ["", *(f"{note[0].upper()}{note[1:]}." for note in about["notes"] if note), ""]
    found = about["validation"]
    if found:
        lines += [
            "## Validation",
            f"{found['photos']:,} photos of the training split that were held back, among "
            f"{found['tiles']:,} tiles. The best step was chosen on them, so these figures "
            "flatter; measure on the test split.",
            "",
            "| encoder | recall@1, % | mrr, % |",
            "|---|---|---|",
        ]
        for name in ("untrained", "trained"):
            recall_1, mrr = found[name]["recall@1"], found[name]["mrr"]
            lines.append(f"| {name} | {100 * recall_1:.2f} | {100 * mrr:.2f} |")
    else:
        lines.append("There was no validation: nothing is known of how well it retrieves.")
    lines += [
        "",
        "## Use",
        "    skylink evaluate --benchmark NAME --root DIR --retriever trained:THIS_FOLDER",
        "    skylink build map.tif --out GALLERY --encoder trained:THIS_FOLDER",
    ]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
