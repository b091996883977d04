"""What a user should know of a training before it begins."""

from __future__ import annotations

from skylink.training.trainer import Trainer


def notes_on(trainer: Trainer) -> list[str]:
    """Warnings about lists, labels, validation and the cache, in words; none if all is well."""
    config, lists = trainer.config, trainer.lists
    found = [note for note in lists.file.header.notes if not note.startswith("labels ")]
    if lists.left_out:
        found.append(
            f"{lists.left_out:,} of {len(lists.file):,} lists are left out: they have no right "
            "candidate, or nothing that this loss can learn from"
        )
    if lists.statistics.note:  # of the labels that are learnt, not of those that were mined
        found.append(lists.statistics.note)
    if not len(trainer.validation):
        found.append(
            "there are no validation lists: the last step is kept, and fusion and confidence are "
            "not fitted"
        )
    if trainer.validation.left_out:
        found.append(
            f"{trainer.validation.left_out:,} validation lists are left out: the base found fewer "
            "than two candidates"
        )
    pictures = len(lists.pictures | trainer.validation.pictures)
    gb = pictures * trainer.picture_bytes / 2**30
    if 0 < config.compute.cache_gb < gb:
        found.append(
            f"the visual features of {pictures:,} pictures take {gb:.1f} GB and the cache is "
            f"bounded to {config.compute.cache_gb:g} GB, so that most are computed again in each "
            "epoch: raise compute.cache_gb"
        )
    return found
