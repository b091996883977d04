"""What every benchmark dataset knows of itself, loads, checks, and can write in miniature."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np

from skylink.datasets.pictures import PictureReader
from skylink.datasets.report import Count, Finding, Report
from skylink.datasets.task import Item, Split, Task
from skylink.datasets.tree import Tree
from skylink.errors import DatasetError, OptionError, OutputError, SkyLinkError
from skylink.files import write_atomic

MINIATURE = "skylink-miniature.json"
"""Marks a generated miniature and holds its counts; real copies have no such file."""

SAMPLED = 64
"""Pictures that a check decodes unless it is asked for all."""


class Dataset(ABC):
    """One benchmark. Subclasses state the facts and fill in the four methods at the end.

    Attributes:
        name: how commands call it; `aliases` are other spellings.
        title: how papers call it.
        citation: BibTeX.
        terms: what its authors allow, as they say it.
        obtain: how to get it, with the official page.
        layout: the folder tree that is read.
        sizes: published counts, by the names that `counts` uses.
        splits: which splits there are.
        optional: folders that a copy may have and that are not read.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str]
    citation: ClassVar[str]
    terms: ClassVar[str]
    obtain: ClassVar[str]
    layout: ClassVar[str]
    sizes: ClassVar[Mapping[str, int]]
    splits: ClassVar[tuple[Split, ...]] = ("train", "test")
    optional: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """Names of its protocols."""

    def load(self, root: str | Path, task: str, split: Split = "test") -> Task:
        """One protocol of a copy on disk.

        Raises:
            OptionError: the dataset has no such protocol or split.
            DatasetError: the copy lacks something, or contradicts itself.
        """
        names = {name.casefold(): name for name in self.tasks()}
        if task.casefold() not in names:
            raise OptionError(
                f"{self.title} has no protocol {task!r}",
                hint=f"it has {', '.join(self.tasks())}",
            )
        if split not in get_args(Split) or split not in self.splits:
            raise OptionError(
                f"{self.title} has no split {split!r}", hint=f"it has {', '.join(self.splits)}"
            )
        return self._load(Tree(root), names[task.casefold()], split)

    def check(self, root: str | Path, *, full: bool = False, sample: int = SAMPLED) -> Report:
        """What a copy lacks, has too much or differs in, and what to do; never raises for those.

        Args:
            root: the dataset's folder.
            full: decode every picture; else `sample` of them, evenly spread.
            sample: how many.
        """
        findings: dict[Finding, None] = {}  # a set in order: one fault shows in several protocols

        def problem(error: SkyLinkError) -> None:
            fix = error.hint or self.obtain
            findings[Finding(kind="problem", what=error.message, fix=fix)] = None

        counts: list[Count] = []
        pictures: dict[str, Item] = {}
        decoded = 0
        miniature = False
        try:
            tree = Tree(root)
            made = _miniature_counts(tree)
            miniature = made is not None
            expected = self.sizes if made is None else made
            for relative in self._required(tree):
                if not tree.has(relative):
                    problem(tree.missing(relative))
            counts = [
                Count(what=what, found=found, expected=expected.get(what))
                for what, found in self._counts(tree).items()
            ]
            for task, split in self._protocols():
                try:
                    loaded = self._load(tree, task, split)
                except OptionError:
                    continue  # this protocol has no such split
                except DatasetError as error:
                    problem(error)
                    continue
                for item in (*loaded.queries, *loaded.gallery):
                    pictures[item.id] = item
                for note in loaded.notes:
                    fix = "nothing: the protocol leaves them out"
                    findings[Finding(kind="note", what=note, fix=fix)] = None
            for finding in (*_miscounted(counts), *self._contradictions(tree), *_notes(self, tree)):
                findings[finding] = None
            chosen = list(pictures.values())
            if not full and len(chosen) > sample:
                rows = np.linspace(0, len(chosen) - 1, max(1, sample)).round().astype(int)
                chosen = [chosen[row] for row in rows]
            decoded = len(chosen)
            for finding in _unreadable(chosen):
                findings[finding] = None
        except DatasetError as error:
            problem(error)
        return Report(
            dataset=self.title,
            root=Path(root),
            miniature=miniature,
            counts=tuple(counts),
            findings=tuple(sorted(findings, key=lambda finding: finding.kind != "problem")),
            decoded=decoded,
            pictures=len(pictures),
        )

    def write_miniature(self, folder: str | Path, *, seed: int = 0) -> Path:
        """A few made-up places in the exact real layout, some hundred kilobytes; the same for one
        seed. Good for trying commands and for tests, not for numbers.

        Raises:
            OutputError: the folder is not empty, or can't be written to.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder} is not an empty folder", hint="name a new folder")
        self._write_miniature(folder, seed)
        about = {
            "dataset": self.name,
            "seed": seed,
            "about": f"made-up pictures in the layout of {self.title}; not the dataset",
            "counts": self._counts(Tree(folder)),
        }
        write_atomic(folder / MINIATURE, json.dumps(about, indent=1) + "\n")
        return folder

    def _protocols(self) -> Iterable[tuple[str, Split]]:
        return ((task, split) for split in self.splits for task in self.tasks())

    def _contradictions(self, tree: Tree) -> Sequence[Finding]:
        """Faults of a copy that counts and loading do not show."""
        return ()

    @abstractmethod
    def _load(self, tree: Tree, task: str, split: Split) -> Task:
        """The protocol; `task` and `split` are of those it has. OptionError for a pair it lacks."""

    @abstractmethod
    def _required(self, tree: Tree) -> Sequence[str]:
        """Folders and files that a whole copy has."""

    @abstractmethod
    def _counts(self, tree: Tree) -> dict[str, int]:
        """How many of what there are, of what is there at all; names as in `sizes`."""

    @abstractmethod
    def _write_miniature(self, folder: Path, seed: int) -> None:
        """Pictures and lists of a few places."""


def _miniature_counts(tree: Tree) -> dict[str, int] | None:
    if not tree.has(MINIATURE):
        return None
    about = tree.json(MINIATURE)
    counts = about.get("counts") if isinstance(about, dict) else None
    if not isinstance(counts, dict) or not all(type(n) is int for n in counts.values()):
        raise DatasetError(f"{tree.root / MINIATURE} is damaged", hint="write the miniature again")
    return counts


def _miscounted(counts: Sequence[Count]) -> list[Finding]:
    return [
        Finding(
            kind="problem",
            what=f"{count.what}: {count.found:,} found, {count.expected:,} published",
            fix="too few: unpack the archives again; too many: remove what is not of the dataset. "
            "Numbers from this copy do not compare with published ones",
        )
        for count in counts
        if not count.ok
    ]


def _notes(dataset: Dataset, tree: Tree) -> list[Finding]:
    """Folders that are not read, beside those that are, and what was passed over anywhere."""
    known = {*dataset._required(tree), *dataset.optional}
    parents = {parent for relative in known for parent in _above(relative)}
    known |= parents
    extra = [
        f"{parent}/{name}".lstrip("/")
        for parent in sorted(parents)
        if tree.has(parent) or not parent
        for name in tree.folders(parent)
        if f"{parent}/{name}".lstrip("/") not in known
    ]
    found = [
        Finding(
            kind="note",
            what=f"{tree.root / relative} is not of {dataset.title} and not read",
            fix="nothing, unless it should have another name: docs/benchmarks.md has the layout",
        )
        for relative in extra
    ]
    fixes = {
        "symbolic links": "links are not followed: copy or hard-link the files",
        "empty folders": "nothing, if the archive has them empty",
    }
    return found + [
        Finding(kind="note", what=f"{number:,} {kind} ignored", fix=fixes.get(kind, "nothing"))
        for kind, number in sorted(tree.ignored.items())
    ]


def _above(relative: str) -> list[str]:
    """The folders that a path lies in, the dataset's own ("") first."""
    parts = relative.split("/")
    return ["/".join(parts[:depth]) for depth in range(len(parts))]


def _unreadable(items: Sequence[Item]) -> list[Finding]:
    failed: list[SkyLinkError] = []
    with PictureReader() as reader:
        for item in items:
            try:
                reader.read(item)
            except SkyLinkError as error:
                failed.append(error)
    if not failed:
        return []
    more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
    return [
        Finding(
            kind="problem",
            what=f"{len(failed)} of {len(items)} pictures tried cannot be read: "
            + "; ".join(error.message for error in failed[:5])
            + more,
            fix="unpack the archives again, then check with every picture",
        )
    ]
