"""Results files of any kind, with what lies beside them, as the runs of one report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from skylink.benchmark import BenchmarkResults
from skylink.errors import first_complaint
from skylink.figures import Answer, Results
from skylink.report.details import Details, ReportError, details_path, read_details
from skylink.robustness import Robustness

MAX_BYTES = 256_000_000
Figures = Mapping[str, Any]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One results file.

    Attributes:
        path: the file; `name`, what tells it from the others of the report.
        protocol: what was asked, in words; runs of the same protocol stand in one table.
        facts: what else is known of it, in words.
        base, final: names and figures by key, percent or metres; final is None without a
            re-ranker.
        answer: figures of the places that were answered, where they were found within tiles.
        other: the same under the other convention about distractors, and its name.
        change: interval of the difference of recall@1.
        flips, counts: how many queries were fixed, broken, re-ranked, failed ...
        groups: figures apart, by group: base and re-ranked.
        failures: photos that could not be located or re-ranked, and why.
        honesty: figures of radius and confidence, by name.
        tolerance_m: this near was right; None where labels decide.
        details, conditions: what lies beside it.
        notes: what is missing, and what to do about it.
    """

    path: Path
    name: str
    protocol: str
    queries: int
    facts: Sequence[str] = ()
    base: tuple[str, Figures]
    final: tuple[str, Figures] | None = None
    answer: Figures | None = None
    other: tuple[str, Figures, Figures | None] | None = None
    change: Interval | None = None
    flips: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, tuple[Figures, Figures | None]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    honesty: Mapping[str, float] = field(default_factory=dict)
    tolerance_m: float | None = None
    details: Details | None = None
    conditions: Robustness | None = None
    notes: Sequence[str] = ()


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Read results files, in the order given.

    Raises:
        ReportError: one can't be read, or is no results file.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise ReportError("no results to report", hint="skylink report results.json")
    names = _names(files)
    return [_read(path, name) for path, name in zip(files, names, strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    """As short as tells them apart."""
    for parts in range(1, 5):
        names = ["/".join(path.resolve().parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ReportError("two of the results files are the same file", hint="name each once")


def _read(path: Path, name: str) -> Run:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ReportError(f"{path} has more than {MAX_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError as error:
        raise ReportError(
            f"cannot read {path}: {error.strerror}", hint="evaluations write it with --out"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is not JSON: {error}", hint="is it a results.json?") from error
    keys = set(content) if isinstance(content, dict) else set()
    known = {"path": path, "name": name}
    try:
        if {"dataset", "task", "retrieved"} <= keys:
            run = _benchmark(BenchmarkResults.model_validate(content), known)
        elif {"tolerance_m", "telemetry", "retrieved", "failures"} <= keys:
            run = _own_map(Results.model_validate(content), known)
        elif {"queries", "recall@1", "ap_step"} <= keys:
            return _scored(content, known)
        else:
            whole = path.with_name(path.name.replace(".conditions", ""))
            hint = f"give {whole}: its conditions are found beside it" if "cells" in keys else None
            raise ReportError(f"{path} is no results file", hint=hint or "evaluate ... --out FILE")
    except ValidationError as error:
        raise ReportError(
            f"{path} is damaged, or of another version: {first_complaint(error)}",
            hint="run the evaluation again with --out",
        ) from error
    return _with_neighbours(run, text)


def _benchmark(results: BenchmarkResults, known: dict[str, Any]) -> Run:
    base = _short(results.retriever)
    other = None
    if results.other_convention is not None:
        word = "dropped as junk" if "kept" in results.distractors else "kept"
        found = results.other_convention
        other = (f"distractors {word}", found["retrieved"] or {}, found["reranked"])
    return Run(
        **known,
        protocol=results.protocol,
        queries=results.queries,
        facts=(f"{results.gallery:,} gallery images", *results.notes),
        base=(base, results.retrieved),
        final=None if results.reranked is None else (results.reranker, results.reranked),
        other=other,
        change=results.reranked_minus_retrieved_interval,
        flips=results.flips,
        counts={
            "top-k": results.top_k,
            "re-ranked": results.reranked_queries,
            "re-ranking failed": results.rerank_failed,
        },
        failures={note: f"{count} queries" for note, count in results.rerank_notes.items()},
    )


def _own_map(results: Results, known: dict[str, Any]) -> Run:
    def figures(ranking: Any) -> Figures | None:
        return None if ranking is None else ranking.model_dump(by_alias=True)

    final = figures(results.reranked)
    honesty = {}
    if results.honesty is not None:
        told = results.honesty.model_dump().items()
        honesty = {name: value for name, value in told if isinstance(value, float)}
    return Run(
        **known,
        protocol=f"Own map: right within {results.tolerance_m:g} m, telemetry {results.telemetry}",
        queries=results.queries,
        facts=(f"{results.gallery:,} tiles",),
        base=(results.retriever, figures(results.retrieved) or {}),
        final=None if final is None else (results.reranker, final),
        answer=_answer(results.answer),
        change=results.reranked_minus_retrieved_interval,
        flips=results.flips,
        counts={
            "top-k": results.top_k,
            "re-ranked": results.reranked_queries,
            "re-ranking failed": results.rerank_failed,
            "not located": results.failed,
        },
        groups={
            name: (figures(group.retrieved) or {}, figures(group.reranked))
            for name, group in results.groups.items()
        },
        failures=results.failures,
        honesty=honesty,
        tolerance_m=results.tolerance_m,
    )


def _answer(found: Answer | None) -> Figures | None:
    """By the keys of rankings, so that they stand in the same columns."""
    if found is None or not found.refined:
        return None
    return {
        "recall@1": found.within_tolerance,
        "recall@1_interval_95": found.within_tolerance_interval_95,
        "median_error_m": found.median_error_m,
        "within_25_m": found.within_25_m,
        "within_50_m": found.within_50_m,
    }


def _scored(content: dict[str, Any], known: dict[str, Any]) -> Run:
    """Of `evaluate --run`: figures of a run file and nothing else."""
    numbers = {
        key: float(value)
        for key, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if "queries" not in numbers:
        raise ReportError(f"{known['path']} is no results file", hint="evaluate ... --out FILE")
    return Run(
        **known,
        protocol="run files scored by their qrels",
        queries=int(numbers["queries"]),
        base=(known["name"], numbers),
        notes=("a scored run file has no pictures: evaluate with --benchmark to see them",),
    )


def _with_neighbours(run: Run, text: str) -> Run:
    """The run with its details and conditions, where they are there and belong to it."""
    details, conditions, notes = None, None, list(run.notes)
    try:
        details = read_details(run.path, text)
    except ReportError as error:
        missing = not details_path(run.path).exists()
        why = f"there is no {details_path(run.path).name} beside it" if missing else error.message
        notes.append(f"{run.name}: {why}: no pictures and curves of it")
    beside = run.path.with_name(f"{run.path.stem}.conditions{run.path.suffix}")
    if beside.exists():
        try:
            if beside.stat().st_size > MAX_BYTES:
                raise ReportError(f"{beside} has more than {MAX_BYTES:,} bytes")
            conditions = Robustness.model_validate_json(beside.read_bytes())
            clean = conditions.clean.retrieved.model_dump(by_alias=True)
            if conditions.queries != run.queries or clean != run.base[1]:
                raise ReportError(f"{beside.name} is not of the run that wrote {run.path.name}")
        except (OSError, ValidationError, ReportError) as error:
            conditions = None
            why = error.message if isinstance(error, ReportError) else f"{beside} can't be read"
            notes.append(f"{run.name}: {why}: its conditions are left out")
    return replace(run, details=details, conditions=conditions, notes=notes)


def _short(name: str) -> str:
    """A file's name without its folders; other names as they are."""
    return Path(name).name if Path(name).suffix and ":" not in name else name
