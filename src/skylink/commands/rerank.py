"""`skylink rerank`: any base's candidates in, a run file back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from skylink.commands import benchmark_run, options, terminal
from skylink.commands.lvlm_options import takes_lvlm
from skylink.lvlm.options import LvlmOptions


@takes_lvlm
def rerank(
    retriever: Annotated[
        str,
        typer.Argument(
            metavar="BASE",
            help="A run (TREC or .jsonl), descriptors (.npz, .mat, QUERY.npy,GALLERY.npy), or an "
            "encoder's name.",
            show_default=False,
        ),
    ],
    benchmark: Annotated[
        str, typer.Option("--benchmark", metavar="NAME", help="`skylink datasets` lists them.")
    ],
    root: Annotated[Path, typer.Option("--root", metavar="DIR", help="Where its copy is.")],
    reranker: options.Reranker,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The re-ranked run to write.")
    ],
    task: benchmark_run.TaskName = None,
    split: benchmark_run.SplitName = "test",
    top_k: options.TopK = 10,
    base_weight: options.BaseWeight = None,
    gate: options.GateMargin = None,
    every: options.Every = 1,
    limit: options.Limit = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="A query whose re-ranking fails is an error.")
    ] = False,
    *,
    lvlm: LvlmOptions,
) -> None:
    """Re-rank any base's candidates and write a run file back.

    A run that was interrupted goes on where it stopped when the same command is given again.
    """
    from skylink.bases import open_base
    from skylink.errors import OptionError
    from skylink.rerank_run import rerank_lists
    from skylink.reranker import fusion_of

    asked = options.fusion(base_weight, gate)
    terminal.require_writable(out.parent)
    opened, relevance = benchmark_run.open_task(
        benchmark, root, task, split, every=every, limit=limit
    )
    stage = benchmark_run.open_stage(reranker, opened, lvlm, top_k)
    if stage is None:
        raise OptionError("there is nothing to do without a re-ranker", hint="--reranker matching")
    terminal.say(
        f"Re-ranking the best {top_k} of {len(opened.queries):,} queries of {opened.title} by "
        f"{getattr(stage, 'about', stage.name)}"
    )
    with terminal.progress("pictures") as report:
        base = open_base(retriever, opened, relevance, progress=report)
    journal = out.with_name(f"{out.name}.journal")
    with terminal.progress("queries") as report:
        done = rerank_lists(
            opened, base.rows, base.scores, stage, top_k=top_k, strict=strict,
            fusion=asked or fusion_of(stage), journal=journal,
            made_from=(reranker, replace(lvlm, on_prompt=None)), progress=report,
        )  # fmt: skip
    benchmark_run.write_lists(out, opened, relevance, done.rows, done.scores, tag=stage.name)
    journal.unlink(missing_ok=True)
    terminal.say(f"Re-ranked {int(done.reranked.sum()):,} queries, {int(done.failed.sum())} failed")
    benchmark_run.warn_of(done.notes)
    terminal.say(f"Next: skylink evaluate --run {terminal.quoted(out)} "
                 f"--qrels {terminal.quoted(f'{out}.qrels')}")  # fmt: skip
    if done.failed.any():
        every_one = bool(done.failed.all())
        raise typer.Exit(terminal.ALL_FAILED if every_one else terminal.SOME_FAILED)
