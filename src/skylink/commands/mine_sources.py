"""What `skylink mine` mines: a published benchmark, or one's own map and photos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skylink.commands import benchmark_run, terminal

if TYPE_CHECKING:
    from skylink.mining.lists import Mine


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is mined, and from where: the options that both kinds of source share."""

    retrievers: tuple[str, ...]
    top_k: int
    split: str
    seed: int
    every: int
    limit: int | None
    label_encoder: str | None
    folds: int
    folds_out: Path | None
    prior_m: float | None = None


def benchmark(name: str, root: Path | None, task_name: str | None, asked: Asked) -> Mine | None:
    """A published dataset's mine, its base run; None where only the folds were to be written.

    Raises:
        OptionError, DatasetError, ModelError, RunError: see the library's functions.
    """
    from skylink.datasets import find_dataset
    from skylink.errors import OptionError
    from skylink.mining.benchmark import open_mine, refuse_test_leakage, sites_of
    from skylink.mining.split import fold_of

    if asked.prior_m is not None:
        raise OptionError("--prior-m is for one's own map", hint="leave it out")
    task, relevance = benchmark_run.open_task(
        name, root, task_name, asked.split, every=asked.every, limit=asked.limit
    )
    assert root is not None  # open_task insists
    if asked.split == "train":
        terminal.say(refuse_test_leakage(task, find_dataset(name), root))
    specs = asked.retrievers or ("embedded",)
    fold = None
    if asked.folds > 1:
        fold = fold_of(sites_of(task), asked.folds, seed=asked.seed)
    if asked.folds_out is not None:
        if fold is None:
            raise OptionError("--folds-out needs --folds N", hint="--folds 5")
        _write_folds(asked.folds_out, [q.id for q in task.queries], fold.tolist(), asked.folds)
        return None
    if len(specs) != asked.folds:
        raise OptionError(
            f"{len(specs)} bases for {asked.folds} folds",
            hint="give --retriever once for each fold, in order of --folds-out",
        )
    terminal.say(
        f"Mining {len(task.queries):,} queries of {task.title}, {task.split} split: the best "
        f"{asked.top_k} of {len(task.gallery):,} by {', '.join(specs)}"
    )
    with terminal.progress("pictures") as report:
        return open_mine(
            task, root, relevance, specs, top_k=asked.top_k, seed=asked.seed, fold=fold,
            label_encoder=asked.label_encoder, progress=report,
        )  # fmt: skip


def gallery(path: Path, queries: Path | None, photos: Path | None, asked: Asked) -> Mine:
    """The mine of one's own map and photos.

    Raises:
        OptionError, QueriesError, GalleryError, ModelError: see the library's functions.
    """
    from skylink.commands.evaluate import select_rows
    from skylink.encoder import load_encoder
    from skylink.errors import OptionError
    from skylink.gallery import Gallery
    from skylink.mining.gallery import GalleryMine
    from skylink.queries import missing_files, require_files
    from skylink.retriever import make_retriever

    if queries is None:
        raise OptionError("which photos?", hint="--gallery G --queries CSV")
    if asked.folds > 1 or asked.folds_out is not None:
        raise OptionError("--folds is for benchmarks", hint="leave it out, or use --held-out")
    if len(asked.retrievers) > 1:
        raise OptionError("--gallery takes one --retriever", hint="--retriever dense")
    rows = select_rows(queries, photos, every=asked.every, limit=asked.limit)
    if len(missing_files(rows)) == len(rows):
        require_files(rows)
    opened = Gallery.open(path)
    encoder = load_encoder(opened.info.encoder.name)
    opened.check_encoder(encoder)
    (name,) = asked.retrievers or ("auto",)
    searched = make_retriever(name, opened, encoder)
    terminal.say(
        f"Mining {len(rows):,} photos of {queries} on {path}: the best {asked.top_k} by "
        f"{searched.name} search"
        + ("" if asked.prior_m is None else f", within {asked.prior_m:g} m of where they may be")
    )
    labels = None if asked.label_encoder is None else load_encoder(asked.label_encoder)
    return GalleryMine(
        opened, rows, searched, photos or queries.parent, split=asked.split, top_k=asked.top_k,
        seed=asked.seed, label_encoder=labels, prior_m=asked.prior_m,
    )  # fmt: skip


def _write_folds(path: Path, queries: list[str], fold: list[int], folds: int) -> None:
    from skylink.files import write_atomic

    lines = [f"{query},{part}" for query, part in zip(queries, fold, strict=True)]
    write_atomic(path, "\n".join(["query,fold", *lines]) + "\n")
    sizes = ", ".join(str(fold.count(part)) for part in range(folds))
    terminal.say(f"Wrote {path}: {folds} folds of {sizes} queries, whole places each")
    terminal.say(
        f"Next: train a base without each fold, then mine with --folds {folds} and --retriever "
        f"once for each, in order of the folds"
    )
