"""Fit confidence and radii, and check them: photos on their own map, and on another place's.

    python benchmarks/calibration.py [--write] [--plot FILE.png] [--json FILE] [--ariel]

For each scorer (a retriever, or a retriever and a re-ranker: `descriptor+dense`) photos of
generated towns, made hard (skylink.town.hard), are located on their own town's map and on the next
one's: once with all telemetry, once without a part of it, some within a prior. The figures printed
are of each town under coefficients fitted on the other towns; `--write` then fits on all towns and
writes src/skylink/weights/calibration.json, scorers that did not run kept as they are. `--ariel`
checks what is in that file on real flights, if ../shared/data/ariel is there; nothing is fitted to
them.

With --cache DIR the towns, galleries and measurements are kept: a second run only fits. Galleries
and measurements belong to an encoder and are made anew for another one; --fresh measures again
after other changes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from _calibration_report import Tested, figures_table, plot, threshold_table
from _common import SHARED, write_json
from skylink import Gallery, Localizer
from skylink.calibration import PATH, Calibration, Cases
from skylink.calibration_fit import Sample, fit, left_out
from skylink.encoder import load_encoder
from skylink.errors import SkyLinkError
from skylink.estimate import ELSEWHERE_M, Signs, signs
from skylink.files import write_atomic
from skylink.geo import LocalFrame, distance_m
from skylink.queries import read_queries
from skylink.town.hard import CALIBRATION, HardTown, hard_town
from skylink.types import Candidate, Estimate, Prior, Query, Retrieval

SCORERS = ("dense", "descriptor", "descriptor+dense", "descriptor+relational", "descriptor+hog",
           "descriptor+matching")  # fmt: skip
TOP_K = 20
LESS = (("heading_deg",), ("heading_deg", "relative_altitude_m"), ("heading_deg",),
        ("heading_deg", "relative_altitude_m", "camera_tilt_from_nadir_deg"))  # fmt: skip
"""What photos don't know when they are located a second time, in turn."""


Found = tuple[bool, Sample]
"""Whether the whole pose was known, and the sample."""


@dataclass(frozen=True)
class Ask:
    """One photo to locate: what it knows, where it is, and whether this map shows it."""

    query: Query
    prior: Prior | None
    own: bool
    lon: float
    lat: float
    group: str


class Once:
    """A retriever that remembers: re-rankers share its work."""

    def __init__(self, retriever: Any) -> None:
        self.retriever, self.name, self.known = retriever, retriever.name, {}

    def retrieve(self, query: Query, k: int, prior: Prior | None = None) -> Retrieval:
        key = query.name, query.telemetry, prior, k
        if key not in self.known:
            self.known[key] = self.retriever.retrieve(query, k, prior)
        return self.known[key]


def key_of(scorer: str) -> str:
    """`descriptor+dense` -> `re-ranked by dense`."""
    base, _, reranker = scorer.partition("+")
    return f"re-ranked by {reranker}" if reranker else base


def town_asks(town: HardTown, gallery: Gallery, *, own: bool) -> Iterator[Ask]:
    """Each photo twice: with all telemetry, and with less; every third time within a prior."""
    for k, photo in enumerate(town.photos):
        rng = np.random.default_rng([own, *photo.name.encode()])
        query = town.query(photo)
        for case, unknown in enumerate(((), LESS[k % len(LESS)])):
            told = photo.telemetry.without(*unknown)
            prior = None
            if (k + case) % 3 == 0:
                radius = float(rng.uniform(120, 400))
                lon, lat = photo.telemetry.lon, photo.telemetry.lat
                if not own:
                    west, south, east, north = gallery.areas[0].bounds
                    x, y = rng.uniform((west, south), (east, north))
                    lon, lat = gallery.areas[0].frame.point(x_m=float(x), y_m=float(y))
                east, north = rng.uniform(-0.5, 0.5, 2) * radius
                lon, lat = LocalFrame(lon, lat).point(x_m=float(east), y_m=float(north))
                prior = Prior(lon=lon, lat=lat, radius_m=radius)
            yield Ask(
                replace(query, telemetry=told), prior, own, photo.lon, photo.lat,
                town.folder.name,
            )  # fmt: skip


def ariel_asks(*, own: bool) -> Iterator[Ask]:
    """Every twelfth frame of real flights, with all telemetry and without the heading."""
    for row in [r for r in read_queries(SHARED / "ariel/queries.csv") if r.usable][::12]:
        query = row.load()
        for unknown in ((), ("heading_deg",)):
            told = replace(query, telemetry=query.telemetry.without(*unknown))
            yield Ask(told, None, own, row.ground_lon, row.ground_lat, "ariel")


def measure(localizer: Localizer, asks: Iterable[Ask]) -> Iterator[Found]:
    """Each photo that could be located."""
    for ask in asks:
        try:
            found, retrieval = localizer.locate_detailed(ask.query, prior=ask.prior)
        except SkyLinkError as error:
            print(f"  {ask.query.name}: {error.message}", flush=True)
            continue
        yield retrieval.aligned, _sample(localizer, ask, found)


def _sample(localizer: Localizer, ask: Ask, found: Estimate) -> Sample:
    candidates = found.candidates
    best = candidates[0]
    within: Candidate | None = None
    if found.refined:
        within = replace(best, lon=found.lon, lat=found.lat, pose=found.pose)
    level = localizer.gallery.levels[best.level]
    seen = signs(
        candidates, cell_m=level.cell_m, tile_m=level.tile_m,
        extent_m=localizer.extent_m(best, ask.prior), within=within,
    )  # fmt: skip
    lon, lat = np.array([(found.lon, found.lat), *((c.lon, c.lat) for c in candidates[1:])]).T
    errors = distance_m(lon1=lon, lat1=lat, lon2=ask.lon, lat2=ask.lat)
    away = distance_m(lon1=lon, lat1=lat, lon2=found.lon, lat2=found.lat)
    return Sample(
        signs=seen, own=ask.own, error_m=float(errors[0]), others_m=errors[away > ELSEWHERE_M],
        group=ask.group,
    )  # fmt: skip


def save(path: Path, found: Sequence[Found]) -> None:
    """Measurements as JSON."""
    rows = [{"aligned": aligned, **asdict(sample)} for aligned, sample in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(rows, default=np.ndarray.tolist))


def load(path: Path) -> list[Found]:
    """What `save` wrote."""
    found = []
    for row in json.loads(path.read_text()):
        seen = row.pop("signs")
        arrays = {name: np.array(seen.pop(name), float) for name in ("scores", "away_m")}
        others = np.array(row.pop("others_m"), float)
        aligned = row.pop("aligned")
        found.append((aligned, Sample(signs=Signs(**seen, **arrays), others_m=others, **row)))
    return found


def gallery_of(town: HardTown, encoder: str) -> Gallery:
    """Of a town's map, built if it is not there: one for each encoder (its fingerprint)."""
    path = town.folder / f"gallery-{encoder}"
    if not (path / "gallery.json").is_file():
        return Gallery.build([town.map], path)
    return Gallery.open(path)


def localizers(scorers: Sequence[str], gallery: Gallery) -> dict[str, Localizer]:
    """One for each scorer; those of the same base share its work."""
    made: dict[str, Localizer] = {}
    bases: dict[str, Once] = {}
    for scorer in scorers:
        base, _, reranker = scorer.partition("+")
        found = Localizer(gallery, retriever=base, reranker=reranker or "none", top_k=TOP_K)
        found.retriever = bases.setdefault(base, Once(found.retriever))
        made[scorer] = found
    return made


def measure_towns(
    towns: Sequence[HardTown], scorers: Sequence[str], folder: Path, *, fresh: bool
) -> dict[str, list[Found]]:
    """All photos by all scorers, on their own map and the next one's; what is kept is read."""
    encoder = load_encoder("embedded").fingerprint[:12]
    galleries = [gallery_of(town, encoder) for town in towns]
    measured: dict[str, list[Found]] = {scorer: [] for scorer in scorers}
    made: dict[int, dict[str, Localizer]] = {}  # of two maps at a time: they take memory
    for i, town in enumerate(towns):
        asks: dict[int, list[Ask]] = {}
        for scorer in scorers:
            path = folder / f"{scorer}-{encoder}-{len(towns)}x{len(town.photos)}" / f"{i}.json"
            if fresh or not path.is_file():
                found = []
                for on in (i, (i + 1) % len(towns)):
                    if on not in made:
                        made[on] = localizers(scorers, galleries[on])
                    if on not in asks:
                        asks[on] = list(town_asks(town, galleries[on], own=on == i))
                    found += measure(made[on][scorer], asks[on])
                save(path, found)
                print(f"  {scorer}: {town.folder.name}", flush=True)
            measured[scorer] += load(path)
        made.pop(i, None)
    return measured


def measure_ariel(town: HardTown, scorers: Sequence[str], folder: Path) -> dict[str, list[Found]]:
    """Real flights on their own map, and on a town's."""
    encoder = load_encoder("embedded").fingerprint[:12]
    home = folder / f"ariel-{encoder}"
    known = (home / "gallery.json").is_file()
    real = Gallery.open(home) if known else Gallery.build([SHARED / "ariel/map.tif"], home)
    on_own = localizers(scorers, real)
    on_other = localizers(scorers, gallery_of(town, encoder))
    return {
        scorer: [
            *measure(on_own[scorer], ariel_asks(own=True)),
            *measure(on_other[scorer], ariel_asks(own=False)),
        ]
        for scorer in scorers
    }


def by_case(found: Sequence[Found]) -> dict[bool, list[Sample]]:
    """Samples by whether the whole pose was known."""
    return {known: [s for aligned, s in found if aligned is known] for known in (True, False)}


def write(fitted: dict[str, Cases], words: str) -> None:
    """Put coefficients into the package's file."""
    known = Calibration.read(PATH)
    scorers = dict(known.scorers) | {key_of(scorer): cases for scorer, cases in fitted.items()}
    new = known.model_copy(update={"scorers": scorers, "fitted_on": words})
    write_atomic(PATH, new.model_dump_json(indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--towns", type=int, default=8)
    parser.add_argument("--photos", type=int, default=12, help="of each town")
    parser.add_argument("--scorers", default=",".join(SCORERS))
    parser.add_argument("--cache", type=Path, metavar="DIR")
    parser.add_argument("--fresh", action="store_true", help="measure again")
    parser.add_argument("--ariel", action="store_true", help="check the file on real flights")
    parser.add_argument("--write", action="store_true", help=f"write {PATH.name}")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    scorers = options.scorers.split(",")
    figures: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        cache = options.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        towns = [
            hard_town(cache, seed=s, photos=options.photos) for s in CALIBRATION[: options.towns]
        ]
        words = f"{len(towns)} generated towns made hard, {options.photos} photos each"
        print(words, flush=True)
        tested: dict[str, Tested] = {}
        fitted: dict[str, Cases] = {}
        for scorer, found in measure_towns(towns, scorers, cache, fresh=options.fresh).items():
            cases = by_case(found)
            try:
                tested[scorer] = {known: (s, left_out(s)) for known, s in cases.items()}
                fitted[scorer] = Cases(aligned=fit(cases[True]), searched=fit(cases[False]))
            except ValueError as error:
                print(f"{scorer} is not fitted: {error}; more towns or photos would help\n")
                continue
            figures |= figures_table(f"{scorer}, towns left out in turn", tested[scorer])
            print(f"  {fitted[scorer]}\n", flush=True)
        threshold_table(tested)
        if options.plot:
            plot(options.plot, tested)
        if options.write:
            write(fitted, words)
        if options.ariel and (SHARED / "ariel").is_dir():
            known = Calibration.read(PATH)
            for scorer, found in measure_ariel(towns[0], scorers, cache).items():
                real: Tested = {
                    aligned: (s, [known.of(key_of(scorer), aligned=aligned)] * len(s))
                    for aligned, s in by_case(found).items()
                }
                figures |= figures_table(f"{scorer}, real flights", real)
    write_json(options.json, "calibration", figures)


if __name__ == "__main__":
    main()
