"""`skylink evaluate --benchmark` and `--run`: a base and a re-ranker on a published protocol.

What `skylink rerank` shares with it is here too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skylink.commands import terminal
from skylink.lvlm.options import LvlmOptions

if TYPE_CHECKING:
    from skylink.benchmark import BenchmarkResults
    from skylink.datasets import Task
    from skylink.relevance import Relevance
    from skylink.reranker import Fusion, Reranker
    from skylink.retrieval_metrics import RetrievalFigures

BENCHMARK = "Published benchmarks"

BenchmarkName = Annotated[
    str | None,
    typer.Option(
        "--benchmark",
        metavar="NAME",
        help="A published dataset: `skylink datasets` lists them.",
        rich_help_panel=BENCHMARK,
        show_default=False,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="DIR", help="Where its copy is.", rich_help_panel=BENCHMARK,
        show_default=False,
    ),
]  # fmt: skip
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task", metavar="TASK", help="Its protocol, such as D2S. [default: its first]",
        rich_help_panel=BENCHMARK, show_default=False,
    ),
]  # fmt: skip
SplitName = Annotated[str, typer.Option("--split", metavar="train|test", rich_help_panel=BENCHMARK)]
DistractorsName = Annotated[
    str,
    typer.Option(
        "--distractors",
        metavar="kept|dropped",
        help="Gallery images that no query shows are ranked like others, or dropped as junk. "
        "Both are in print; the results hold both.",
        rich_help_panel=BENCHMARK,
    ),
]
SavedRun = Annotated[
    Path | None,
    typer.Option(
        "--save-run", metavar="FILE", rich_help_panel=BENCHMARK, show_default=False,
        help="Write the final lists as a TREC run (or .jsonl), with FILE.qrels beside it.",
    ),
]  # fmt: skip


def evaluate_benchmark(
    name: str,
    root: Path | None,
    task_name: str | None,
    split: str,
    distractors: str,
    *,
    retriever: str,
    reranker: str,
    top_k: int,
    fusion: Fusion | None,
    strict: bool,
    limit: int | None,
    every: int,
    out: Path | None,
    save_run: Path | None,
    lvlm: LvlmOptions,
) -> BenchmarkResults:
    """Base beside re-ranked on one protocol; prints the table and writes the files.

    Raises:
        OptionError, DatasetError, ModelError, RunError: see the library's functions.
    """
    from dataclasses import replace

    from skylink.bases import open_base
    from skylink.benchmark import benchmark_results, ranked_under
    from skylink.files import write_atomic
    from skylink.rerank_run import rerank_lists
    from skylink.reranker import fusion_of

    convention = parse_distractors(distractors)
    for file in (out, save_run):
        if file is not None:
            terminal.require_writable(file.parent)
    task, relevance = open_task(name, root, task_name, split, every=every, limit=limit)
    stage = open_stage(reranker, task, lvlm, top_k)
    terminal.say(
        f"{task.title}, {task.split} split: {len(task.queries):,} queries in a gallery of "
        f"{len(task.gallery):,}, {convention.value}; base: {retriever}"
    )
    with terminal.progress("pictures") as report:
        base = open_base(retriever, task, relevance, progress=report)
    reranked, about, journal = None, "none", None
    if stage is not None:
        about = getattr(stage, "about", stage.name)
        terminal.say(f"Re-ranking the best {top_k} by {about}")
        journal = None if out is None else out.with_name(f"{out.name}.journal")
        with terminal.progress("queries") as report:
            reranked = rerank_lists(
                task, base.rows, base.scores, stage, top_k=top_k, strict=strict,
                fusion=fusion or fusion_of(stage), journal=journal,
                made_from=(reranker, replace(lvlm, on_prompt=None)), progress=report,
            )  # fmt: skip
    results = benchmark_results(
        task, relevance, base, reranked, reranker=about, top_k=top_k, distractors=convention
    )
    terminal.print_table(results_table(results))
    warn_of(results.rerank_notes)
    if out is not None:
        from skylink.report import write_benchmark_details

        text = results.model_dump_json(indent=2) + "\n"
        write_atomic(out, text)
        write_benchmark_details(
            out, text, task, relevance, base, reranked, root=root or Path(), distractors=convention
        )
        terminal.say(f"Wrote {out}; see it by `skylink report {terminal.quoted(out)}`")
    if save_run is not None:
        rows = base.rows if reranked is None else reranked.rows
        scores = base.scores if reranked is None else reranked.scores
        tag = base.name if stage is None else stage.name
        rows, scores = ranked_under(rows, relevance, convention, scores)
        write_lists(save_run, task, relevance, rows, scores, tag=tag)
    if journal is not None:
        journal.unlink(missing_ok=True)
    return results


def open_stage(name: str, task: Task, lvlm: LvlmOptions, top_k: int) -> Reranker | None:
    """The re-ranker of a name over a benchmark's pictures, before anything long is done.

    Raises:
        OptionError: there is no such one, or it can't take that many candidates.
        ModelError: it can't be loaded.
    """
    from skylink.errors import OptionError
    from skylink.reranker import make_task_reranker

    if top_k < 1:
        raise OptionError(f"top-k {top_k} is not at least 1", hint="--top-k 10")
    terminal.say_what_loads(name)
    stage = make_task_reranker(name, task, lvlm)
    limit = getattr(stage, "max_candidates", None)
    if limit is not None and top_k > limit:
        raise OptionError(
            f"top-k {top_k} is more than the {limit} candidates that it can score together",
            hint=f"--top-k {limit}",
        )
    return stage


def warn_of(notes: dict[str, int], most: int = 10) -> None:
    """Say why queries were not re-ranked, the commonest reasons first."""
    for note, count in sorted(notes.items(), key=lambda item: -item[1])[:most]:
        terminal.warn(f"{count} not re-ranked: {note}")
    if len(notes) > most:
        terminal.warn(f"{len(notes) - most} more reasons are not shown")


def open_task(
    name: str,
    root: Path | None,
    task_name: str | None,
    split: str,
    *,
    every: int = 1,
    limit: int | None = None,
) -> tuple[Task, Relevance]:
    """A protocol of a copy on disk, thinned out if asked for, and who is right for whom in it.

    Thinned out or not, distractors are what no query of the whole protocol shows.

    Raises:
        OptionError, DatasetError: unknown, or not there.
    """
    from dataclasses import replace

    from skylink.bases import relevance_of
    from skylink.datasets import find_dataset
    from skylink.errors import OptionError

    dataset = find_dataset(name)
    if root is None:
        raise OptionError(
            f"--benchmark {name} needs --root DIR", hint=f"how to get it: {dataset.obtain}"
        )
    task = dataset.load(root, task_name or dataset.tasks()[0], split)  # type: ignore[arg-type]
    for note in task.notes:
        terminal.say(f"note: {note}")
    keep = list(range(len(task.queries)))[::every][:limit]
    relevance = relevance_of(task)
    if len(keep) == len(task.queries):
        return task, relevance

    def some(values: Any) -> Any:
        return None if values is None else tuple(values[i] for i in keep)

    thinned = replace(
        task, queries=some(task.queries), positives=some(task.positives),
        weights=some(task.weights), semi_positives=some(task.semi_positives),
        semi_weights=some(task.semi_weights),
        notes=(*task.notes, f"only {len(keep)} of {len(task.queries)} queries"),
    )  # fmt: skip
    return thinned, relevance.select(keep)


def parse_distractors(text: str) -> Any:
    """A gallery convention.

    Raises:
        OptionError: neither of the two.
    """
    from skylink.errors import OptionError
    from skylink.relevance import Distractors

    if text not in Distractors.__members__:
        raise OptionError(f"--distractors {text!r}", hint="it is kept or dropped")
    return Distractors[text]


def write_lists(
    path: Path, task: Task, relevance: Relevance, rows: Any, scores: Any, *, tag: str
) -> None:
    """A run file, and the qrels beside it."""
    from skylink.bases import to_run
    from skylink.runfiles import write_run, write_trec_qrels
    from skylink.runs import Qrels

    write_run(path, to_run(task, rows, scores, tag=Path(tag).name))
    qrels = path.with_name(f"{path.name}.qrels")
    queries, gallery = [q.id for q in task.queries], [g.id for g in task.gallery]
    write_trec_qrels(qrels, Qrels.from_relevance(relevance, queries, gallery))
    terminal.say(f"Wrote {path} and {qrels}")


ROWS = (
    ("recall@1", "R@1 %"), ("recall@5", "R@5 %"), ("recall@10", "R@10 %"),
    ("recall@1%", "R@1% (rounded) %"), ("recall@top1", "Recall@top1 %"),
    ("ap_step", "AP, step %"), ("ap_trapezoid", "AP, trapezoid %"), ("mrr", "MRR %"),
    ("median_error_m", "median error m"), ("within_50_m", "within 50 m %"),
    ("sdm_gta@3", "SDM@3 (GTA-UAV)"), ("sdm_denseuav@3", "SDM@3 (DenseUAV)"),
    ("dis@1_m", "Dis@1 m"),
)  # fmt: skip


def results_table(results: BenchmarkResults) -> Any:
    """Base beside re-ranked, and the other gallery convention where it differs."""
    from rich.table import Table

    columns: list[tuple[str, dict[str, Any] | None]] = [("base", results.retrieved)]
    if results.reranked is not None:
        columns.append(("re-ranked", results.reranked))
    if results.other_convention is not None:
        other = "dropped" if "kept" in results.distractors else "kept"
        columns.append((f"base, distractors {other}", results.other_convention["retrieved"]))
        if results.reranked is not None:
            columns.append((f"re-ranked, {other}", results.other_convention["reranked"]))
    table = Table(title=results.protocol)
    table.add_column("")
    for name, _ in columns:
        table.add_column(name, justify="right")
    oracle = f"oracle_recall@1_of_{results.top_k}"
    for key, words in (*ROWS, (oracle, f"best possible R@1 of {results.top_k} %")):
        values = [figures.get(key) if figures else None for _, figures in columns]
        if any(value is not None for value in values):
            table.add_row(words, *("-" if v is None else f"{v:.2f}" for v in values))
    if results.reranked is not None:
        change = results.reranked_minus_retrieved_interval
        if change is not None:
            table.add_row("R@1 change, 95 %", "", f"{change[0]:+.1f} .. {change[1]:+.1f}")
        table.add_row("fixed / broken", "", f"{results.flips['fixed']} / {results.flips['broken']}")
        table.add_row(
            "re-ranked / failed", "", f"{results.reranked_queries} / {results.rerank_failed}"
        )
    return table


def score_run(run: Path, qrels: Path | None, out: Path | None) -> None:
    """Figures of any run file against qrels.

    Raises:
        OptionError: no qrels given.
        RunError: a file can't be read, or they don't fit.
    """
    import json

    from skylink.errors import OptionError
    from skylink.files import write_atomic
    from skylink.runfiles import read_run, read_trec_qrels
    from skylink.runs import evaluate_run

    if qrels is None:
        raise OptionError(
            "--run needs --qrels FILE",
            hint=f"or --benchmark NAME --root DIR --retriever {terminal.quoted(run)}",
        )
    figures: RetrievalFigures = evaluate_run(
        read_run(run), read_trec_qrels(qrels), k=(1, 5, 10, 20)
    )
    from rich.table import Table

    table = Table(title=f"{run.name} by {qrels.name}: {figures.queries:,} queries")
    table.add_column("")
    table.add_column("", justify="right")
    found = figures.as_dict()
    for key, words in ROWS:
        if found.get(key) is not None:
            table.add_row(words, f"{found[key]:.2f}")
    if figures.unanswered:
        table.add_row("queries without a list (not found)", str(figures.unanswered))
    terminal.print_table(table)
    if out is not None:
        write_atomic(out, json.dumps(found, indent=2) + "\n")
        terminal.say(f"Wrote {out}")
