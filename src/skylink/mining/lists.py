"""From what a base found to lists that are learnt from: the truth forced in, labelled, written.

A `Mine` gives whole lists: the base's candidates, and at the end the truth where the base did not
list it, with what was measured between each candidate and the true place. `write_lists` labels them
and takes the truth out again where nothing may be forced.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from skylink.errors import OptionError, QueriesError
from skylink.files import output_errors
from skylink.mined import MAX_CANDIDATES, Header, MinedCandidate, MinedList, Provenance
from skylink.minedfile import MinedFile, write_mined
from skylink.mining.split import Sites
from skylink.soft_labels import THRESHOLDS, SoftLabels, Source

Forcing = Literal["appended", "replaced-last", "not-forced"]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a mine says of itself in the lists' provenance; see `mined.Provenance`."""

    base: str
    base_fingerprint: str
    dataset: str
    split: str
    gallery: str
    k: int
    seed: int
    folds: int = 1


class Mine(Protocol):
    """Where lists come from.

    Attributes:
        about: for the provenance.
        queries: (Q,) ids.
        sites: where they are.
        sources: of labels that are measured.
        default_source: the best of them for this mine.
        left_out: why queries have no list, with how many; it grows while lists are made.
        failed: how many of those have a picture that can't be read.
    """

    about: About
    queries: Sequence[str]
    sites: Sites
    sources: tuple[Source, ...]
    default_source: Source
    left_out: dict[str, int]
    failed: int

    def lists(self, rows: Sequence[int], progress: Progress = ...) -> Iterator[MinedList]:
        """The lists of these queries, unlabelled (the ground truth 1, others 0), truth included.

        `progress` is called with (done, total, words).
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Lists to be written.

    Attributes:
        path: the file.
        rows: of which queries of the mine.
        forcing: how a truth that the base did not list comes in.
    """

    path: Path
    rows: Sequence[int]
    forcing: Forcing = "appended"


def check_forcing(split: str, forcing: Forcing) -> None:
    """Refuse to force the truth into lists that are tested on.

    Raises:
        OptionError: they are of the test split.
    """
    if split == "test" and forcing != "not-forced":
        raise OptionError(
            "the ground truth is never forced into lists of the test split",
            hint="leave out --force, or mine --split train",
        )


def check_top_k(top_k: int, most: int = MAX_CANDIDATES - 1) -> None:
    """Raises OptionError where lists would be too short or too long."""
    if not 2 <= top_k <= most:
        raise OptionError(f"top-k {top_k} is not in 2..{most}", hint="--top-k 10")


def write_lists(
    mine: Mine, lists: Lists, labels: SoftLabels, progress: Progress = lambda *_: None
) -> tuple[Header, SoftLabels]:
    """Mine, label and write.

    A threshold by quantile needs all lists before the first is written; they wait in a file beside
    the result.

    Returns:
        The header, and the labels with the threshold that was found: labels for other lists of the
        same mine.

    Raises:
        OptionError: the labels' source is not measured here, or forcing is refused.
        QueriesError: a list can't be labelled, or there is none: it says why.
        OutputError: the file can't be written.
    """
    check_forcing(mine.about.split, lists.forcing)
    require_source(mine, labels.source)
    if labels.threshold is None and labels.quantile is None:  # the record says what was used
        labels = replace(labels, threshold=THRESHOLDS[labels.source])
    if labels.threshold is not None:
        return _write(mine, lists, labels, mine.lists(lists.rows, progress)), labels
    with output_errors(lists.path.parent):
        lists.path.parent.mkdir(parents=True, exist_ok=True)
        waiting = tempfile.TemporaryDirectory(dir=lists.path.parent, prefix=".mining.")
    with waiting as folder:
        file = Path(folder) / "lists.jsonl"
        found = _some(mine, mine.lists(lists.rows, progress))
        write_mined(file, _provenance(mine, "appended", labels), found)
        kept = MinedFile(file)
        fitted = labels.fitted((m.query, m.values(labels.source), m.ground_truth) for m in kept)
        return _write(mine, lists, fitted, iter(kept)), fitted


def require_source(mine: Mine, source: Source) -> None:
    """Raises OptionError where a source of labels is not measured by this mine."""
    if source not in mine.sources:
        hint = f"--labels {' or '.join(mine.sources)}" if mine.sources else None
        if "cosine" not in mine.sources:
            more = "--label-encoder ENCODER for cosines"
            hint = f"{hint}, or {more}" if hint else more
        raise OptionError(f"{mine.about.dataset} does not tell {source} of candidates", hint=hint)


def as_asked(whole: MinedList, forcing: Forcing) -> MinedList | None:
    """A whole list as it is to be written; None where fewer than two candidates are left."""
    forced = whole.candidates[-1]
    if forced.rank is not None or forcing == "appended":
        return whole
    listed = whole.candidates[:-1]
    if forcing == "not-forced":
        kept: tuple[MinedCandidate, ...] = listed
    else:
        kept = (*listed[:-1], forced)
    if len(kept) < 2:
        return None
    return MinedList(query=whole.query, path=whole.path, telemetry=whole.telemetry, candidates=kept)


def _write(mine: Mine, lists: Lists, labels: SoftLabels, whole: Iterator[MinedList]) -> Header:
    def made() -> Iterator[MinedList]:
        for one in whole:
            asked = as_asked(one.relabelled(labels), lists.forcing)
            if asked is None:
                count(mine.left_out, "the base listed fewer than two candidates")
            else:
                yield asked

    return write_mined(lists.path, _provenance(mine, lists.forcing, labels), _some(mine, made()))


def _some(mine: Mine, lists: Iterator[MinedList]) -> Iterator[MinedList]:
    """The lists; QueriesError where there is none."""
    none = True
    for one in lists:
        none = False
        yield one
    if none:
        why = "; ".join(f"{number} x {reason}" for reason, number in mine.left_out.items())
        raise QueriesError(
            f"no query gave a list: {why[:1000] or 'there are no queries'}",
            hint="look at the queries' true places, and whether lon and lat are exchanged",
        )


def count(reasons: dict[str, int], reason: str) -> None:
    """One more for a reason."""
    reasons[reason] = reasons.get(reason, 0) + 1


def _provenance(mine: Mine, forcing: Forcing, labels: SoftLabels) -> Provenance:
    about = mine.about
    return Provenance(
        base=about.base,
        base_fingerprint=about.base_fingerprint,
        dataset=about.dataset,
        split=about.split,
        gallery=about.gallery,
        k=about.k,
        seed=about.seed,
        folds=about.folds,
        ground_truth=forcing,
        labels=labels,
    )
