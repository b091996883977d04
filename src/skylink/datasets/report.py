"""What a dataset's check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was noticed.

    Attributes:
        kind: `problem` where numbers would be wrong or loading fails, else `note`.
        what: what was found and where.
        fix: what to do about it.
    """

    kind: Literal["problem", "note"]
    what: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A number of things, beside what was published (None where nothing was)."""

    what: str
    found: int
    expected: int | None

    @property
    def ok(self) -> bool:
        """Whether they agree, or nothing was published."""
        return self.expected is None or self.found == self.expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check found.

    Attributes:
        dataset: the dataset's title.
        root: the folder.
        miniature: whether it is a generated miniature, whose counts are its own.
        counts: things counted, beside what was published.
        findings: problems first.
        decoded: how many pictures were decoded to see whether they can be.
        pictures: how many there are in all protocols together.
    """

    dataset: str
    root: Path
    miniature: bool
    counts: tuple[Count, ...]
    findings: tuple[Finding, ...]
    decoded: int
    pictures: int

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that matter."""
        return tuple(f for f in self.findings if f.kind == "problem")

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems
