"""Challenging conditions: controlled, seeded changes of a query, at severities 1 to 5.

Why not a library of corruptions (looked at in 2026): `albumentations` (MIT) ended in June 2025 and
its successor `albumentationsx` is AGPL; `imagecorruptions` (Apache-2.0, the code of Hendrycks and
Dietterich's ImageNet-C, arXiv 1903.12261) draws from NumPy's global state, takes 15 conditions of
ground-level photos in pixels, and needs numba and scikit-image; `imgaug` has been dead since 2020;
`kornia` and `torchvision` need torch, which this package runs without. None knows a camera above
the ground: telemetry that is off, fog by distance, rain seen from above, shadows that lie on the
ground. What is here needs OpenCV and NumPy alone. docs/conditions.md has the levels as a table.
"""

from __future__ import annotations

import difflib
import hashlib

import numpy as np

from skylink.conditions.condition import KINDS, SEVERITIES, Condition, Kind
from skylink.conditions.light import LIGHT
from skylink.conditions.sensor import SENSOR
from skylink.conditions.viewpoint import VIEWPOINT
from skylink.conditions.weather import WEATHER
from skylink.errors import OptionError
from skylink.types import Query

__all__ = [
    "CONDITIONS",
    "KINDS",
    "SEVERITIES",
    "Condition",
    "Kind",
    "apply",
    "select_conditions",
    "view_shift_m",
]

CONDITIONS: dict[str, Condition] = {c.name: c for c in (*VIEWPOINT, *LIGHT, *WEATHER, *SENSOR)}
"""By name, in the order of tables and pictures."""


def apply(query: Query, condition: str, severity: int, seed: int = 0) -> Query:
    """The query under a condition.

    Chance depends on (seed, query's name, condition, severity) alone: each result can be had again
    by itself, whatever ran before.

    Args:
        query: left as it is.
        condition: a name in `CONDITIONS`.
        severity: 1..5, or 0 for the query as it is.
        seed: another seed draws other shadows, drops and signs.

    Returns:
        A query with an image of the same shape (a crop apart) or other telemetry; the query itself
        where there was nothing to change. A changed image has no `path`.

    Raises:
        OptionError: there is no such condition or severity.
    """
    found = _condition(condition)
    if not _checked(severity):
        return query
    generator = _generator(query, found, severity, seed)
    return found.apply(query, found.level(severity), generator)


def view_shift_m(
    query: Query, condition: str, severity: int, seed: int = 0
) -> tuple[float, float] | None:
    """(east, north) metres by which `apply`, with the same arguments, moves the view point.

    (0, 0) for all conditions that leave the photo's centre where it was; None where it moves by an
    amount that can't be known without the camera's pose.

    Raises:
        OptionError: there is no such condition or severity.
    """
    found = _condition(condition)
    if not _checked(severity) or found.view_shift_m is None:
        return 0.0, 0.0
    generator = _generator(query, found, severity, seed)
    return found.view_shift_m(query, found.level(severity), generator)


def select_conditions(text: str) -> list[Condition]:
    """Conditions by names and kinds with commas between them, or `all`; in the table's order.

    Raises:
        OptionError: a name is neither; the hint has the nearest one.
    """
    chosen: set[str] = set()
    for word in (part.strip().lower().replace("_", "-") for part in text.split(",")):
        if word == "all":
            chosen.update(CONDITIONS)
        elif word in KINDS:
            chosen.update(c.name for c in CONDITIONS.values() if c.kind == word)
        else:
            chosen.add(_condition(word).name)
    return [c for name, c in CONDITIONS.items() if name in chosen]


def _condition(name: str) -> Condition:
    if name in CONDITIONS:
        return CONDITIONS[name]
    near = difflib.get_close_matches(name, ("all", *KINDS, *CONDITIONS), n=1, cutoff=0.5)
    known = f"known are all, {', '.join((*KINDS, *CONDITIONS))}"
    raise OptionError(
        f"there is no condition {name!r}",
        hint=f"did you mean {near[0]}? {known}" if near else known,
    )


def _checked(severity: int) -> int:
    if severity not in (0, *SEVERITIES):
        raise OptionError(f"severity {severity!r} is not in 0..{SEVERITIES[-1]}")
    return severity


def _generator(query: Query, condition: Condition, severity: int, seed: int) -> np.random.Generator:
    words = f"{seed}\0{query.name}\0{condition.name}\0{severity}"
    digest = hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
