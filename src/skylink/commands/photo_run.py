"""Photo after photo through a localizer: what fails is reported, the others go on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from skylink.commands import options, terminal
from skylink.errors import GalleryError, ModelError, OutputError, PhotoError, SkyLinkError

if TYPE_CHECKING:
    from skylink.gallery import Gallery
    from skylink.localizer import Localizer
    from skylink.results import Outcome
    from skylink.types import Estimate, Prior, Query, Retrieval, Telemetry

FATAL = (GalleryError, ModelError)
"""Errors that every further photo would meet as well."""


@dataclass(frozen=True, slots=True)
class Job:
    """A photo to locate; `error` where it is already known that it can't be."""

    name: str
    path: Path
    error: PhotoError | None = None


def list_photos(paths: Sequence[Path]) -> list[Job]:
    """Files of all paths; those that can't be read become jobs that fail, the others go on.

    Photos are named by their file name, or by their path where two have the same.
    """
    from skylink.photo import expand_photos

    found: dict[Path, PhotoError | None] = {}
    for path in paths:
        try:
            found.update(dict.fromkeys(expand_photos([path])))
        except PhotoError as error:
            found[path] = error
    names = [path.name for path in found]
    return [
        Job(path.name if names.count(path.name) == 1 else str(path), path, error)
        for path, error in found.items()
    ]


class Pictures:
    """Writes evidence; after the first one that can't be written it stops, and results go on.

    Args:
        folder: where to.
        gallery: whose map is drawn.
        truths: the true view point by photo, (lon, lat), where known.
    """

    def __init__(
        self,
        folder: Path,
        gallery: Gallery,
        *,
        truths: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.folder, self.written = folder, 0
        self.problem: OutputError | None = None
        self._gallery = gallery
        self._truths = truths or {}
        self._used: set[str] = set()

    def __call__(self, query: Query, estimate: Estimate, retrieval: Retrieval) -> None:
        """Draw one photo's picture."""
        from skylink.evidence import write_evidence

        if self.problem is not None:
            return
        try:
            write_evidence(
                self.folder,
                query,
                estimate,
                retrieval,
                self._gallery,
                truth=self._truths.get(query.name),
                used=self._used,
            )
            self.written += 1
        except OutputError as error:
            self.problem = error


@dataclass
class Run:
    """Locates photos one after the other and keeps what came out.

    Attributes:
        outcomes: one a photo, in order.
        notes: things the user should know, said after the progress bar.
        interrupted: Ctrl-C was pressed; `outcomes` has the photos before it.
    """

    localizer: Localizer
    flags: Telemetry
    table: options.TelemetryTable | None = None
    prior: Prior | None = None
    gps_prior_m: float | None = None
    pictures: Pictures | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    def locate_all(self, jobs: Iterable[Job]) -> None:
        """Locate every photo; one that fails does not stop the others.

        Raises:
            SkyLinkError: something that every photo would meet.
        """
        jobs = list(jobs)
        start = time.monotonic()
        with terminal.progress("photos") as report:
            try:
                for number, job in enumerate(jobs):
                    report(number, len(jobs), job.name)
                    self.outcomes.append(self._locate(job))
                report(len(jobs), len(jobs), "done")
            except KeyboardInterrupt:
                self.interrupted = True
        self.seconds = time.monotonic() - start
        for note in self.notes:
            terminal.warn(note)

    def _locate(self, job: Job) -> Outcome:
        from skylink.results import Outcome

        try:
            if job.error is not None:
                raise job.error
            query = self._load(job)
            estimate, retrieval = self.localizer.locate_detailed(query, prior=self._prior_of(query))
        except FATAL:
            raise
        except SkyLinkError as error:
            return Outcome(name=job.name, error=error.message, hint=error.hint or "")
        if self.pictures is not None:
            self.pictures(query, estimate, retrieval)
        return Outcome(name=job.name, estimate=estimate)

    def _load(self, job: Job) -> Query:
        from skylink.photo import load_photo

        telemetry = self.flags
        if self.table is not None:
            known = self.table(job.path)
            if known is None:
                self.notes.append(f"{job.name} is not in {self.table.path}")
            else:
                telemetry = known.updated(self.flags)
        return load_photo(job.path, telemetry=telemetry, name=job.name)

    def _prior_of(self, query: Query) -> Prior | None:
        from skylink.types import Prior

        if self.gps_prior_m is None:
            return self.prior
        lon, lat = query.telemetry.lon, query.telemetry.lat
        if lon is None or lat is None:
            self.notes.append(f"{query.name} has no GPS position: the whole map was searched")
            return None
        return Prior(lon=lon, lat=lat, radius_m=self.gps_prior_m)
