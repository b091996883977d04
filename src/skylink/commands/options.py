"""Options that several commands share, and their values' checks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skylink.errors import OptionError, QueriesError

if TYPE_CHECKING:
    from skylink.queries import QueryRow
    from skylink.reranker import Fusion
    from skylink.types import Prior, Telemetry

SEARCH, ALIGN, OUTPUT = "Search", "Camera", "Output"

GalleryPath = Annotated[
    Path, typer.Option("--gallery", "-g", metavar="GALLERY", help="Made by `skylink build`.")
]
OptionalGalleryPath = Annotated[
    Path | None,
    typer.Option("--gallery", "-g", metavar="GALLERY", help="Made by `skylink build`."),
]
QueriesPath = Annotated[
    Path | None,
    typer.Option("--queries", "-q", metavar="CSV", help="Photos, telemetry and the truth."),
]
Every = Annotated[int, typer.Option("--every", min=1, help="Only every Nth query.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N.")]
Retriever = Annotated[
    str,
    typer.Option(
        "--retriever",
        metavar="auto|dense|descriptor",
        help="What proposes candidates: `dense` correlates the photo with the whole map, "
        "`descriptor` compares it with tiles, `auto` picks.",
        rich_help_panel=SEARCH,
    ),
]
Reranker = Annotated[
    str,
    typer.Option(
        "--reranker",
        metavar="auto|none|dense|hog|matching|relational|lvlm:MODEL|http://HOST:PORT",
        help="What looks at photo and candidates together and orders them anew; `auto` is "
        "`relational` for candidates of descriptors, where its file fits the gallery. "
        "`skylink models` lists vision-language models; a server is any that speaks OpenAI's "
        "protocol (vLLM).",
        rich_help_panel=SEARCH,
    ),
]
TopK = Annotated[
    int, typer.Option("--top-k", metavar="K", help="How many candidates.", rich_help_panel=SEARCH)
]
PriorText = Annotated[
    str | None,
    typer.Option(
        "--prior",
        metavar="LON,LAT,RADIUS_M",
        help="Search only within RADIUS_M metres of a point.",
        rich_help_panel=SEARCH,
    ),
]
HeadingError = Annotated[
    float | None,
    typer.Option(
        "--heading-error",
        metavar="DEG",
        help="The heading may be wrong by up to this; 180 means not known.",
        rich_help_panel=SEARCH,
    ),
]
AltitudeError = Annotated[
    float | None,
    typer.Option(
        "--altitude-error",
        metavar="FRACTION",
        help="The altitude may be wrong by up to this fraction of itself, such as 0.3.",
        rich_help_panel=SEARCH,
    ),
]
TiltError = Annotated[
    float | None,
    typer.Option(
        "--tilt-error",
        metavar="DEG",
        help="The tilt may be wrong by up to this.",
        rich_help_panel=SEARCH,
    ),
]
TimeBudget = Annotated[
    float | None,
    typer.Option(
        "--time-budget",
        metavar="SECONDS",
        help="For each photo's search: the most likely camera poses first, until it is spent. "
        "[default: as long as it takes]",
        show_default=False,
        rich_help_panel=SEARCH,
    ),
]
BaseWeight = Annotated[
    float | None,
    typer.Option(
        "--base-weight",
        metavar="0..1",
        help="Share of the retriever's own score in the re-ranked one. [default: as fitted with a "
        "trained re-ranker, else 0]",
        show_default=False,
        rich_help_panel=SEARCH,
    ),
]
GateMargin = Annotated[
    float | None,
    typer.Option(
        "--gate",
        metavar="LEAD",
        help="Re-rank only where the retriever's lead, in standard deviations of its scores, is "
        "below this. [default: always]",
        show_default=False,
        rich_help_panel=SEARCH,
    ),
]
Refine = Annotated[
    bool,
    typer.Option(
        "--refine/--no-refine",
        help="Where candidates are tiles, find the place within the best one by correlation; or "
        "answer with its centre.",
        rich_help_panel=SEARCH,
    ),
]
MinConfidence = Annotated[
    float | None,
    typer.Option(
        "--min-confidence",
        metavar="0..1",
        help="Below this a photo is said to be not found on this map; its best guess is marked so. "
        "0: always answer. [default: as calibrated]",
        show_default=False,
        rich_help_panel=SEARCH,
    ),
]
EvidenceFolder = Annotated[
    Path | None,
    typer.Option(
        "--evidence",
        metavar="DIR",
        help="Write a picture for each photo that shows why.",
        rich_help_panel=OUTPUT,
    ),
]


def fusion(base_weight: float | None, gate: float | None) -> Fusion | None:
    """What was asked for; None where nothing was, and the re-ranker's own is used.

    Raises:
        OptionError: out of range.
    """
    from skylink.reranker import Fusion

    if base_weight is None and gate is None:
        return None
    return Fusion(base_weight=base_weight or 0.0, gate_margin=gate)


def parse_prior(text: str | None) -> Prior | None:
    """LON,LAT,RADIUS_M as a prior.

    Raises:
        OptionError: not three numbers, or out of range.
    """
    from skylink.types import Prior

    if text is None:
        return None
    try:
        lon, lat, radius = (float(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(
            f"--prior {text!r} is not LON,LAT,RADIUS_M",
            hint="three numbers with commas and no spaces, for example --prior -98.1,30.2,500",
        ) from error
    return Prior(lon=lon, lat=lat, radius_m=radius)


class TelemetryTable:
    """A CSV's telemetry by photo: by its path where that is the same file, else by its name.

    Raises:
        QueriesError: the CSV can't be used.
    """

    def __init__(self, path: Path) -> None:
        from skylink.queries import read_queries

        self.path = path
        self._by_path: dict[Path, QueryRow] = {}
        self._by_name: dict[str, list[QueryRow]] = {}
        for row in read_queries(path, require_truth=False):
            self._by_path[row.path.absolute()] = row
            self._by_name.setdefault(Path(row.file.replace("\\", "/")).name, []).append(row)

    def __call__(self, photo: Path) -> Telemetry | None:
        """What the CSV knows of a photo's camera; None where it has no row for it.

        Raises:
            QueriesError: several rows have that file's name, and none its path.
        """
        row = self._by_path.get(photo.absolute())
        rows = [row] if row is not None else self._by_name.get(photo.name, [])
        if len(rows) > 1:
            lines = ", ".join(str(r.line) for r in rows)
            raise QueriesError(
                f"{self.path}: {photo.name} is in lines {lines}, and none has the path {photo}",
                hint="write the photo's path in the CSV's file column",
            )
        return rows[0].telemetry if rows else None
