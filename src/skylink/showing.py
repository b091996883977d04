"""How a photo and its candidates are shown to a vision-language model: pictures and facts.

A re-ranker that looks at pictures takes a `Showing`; where the pictures come from (a gallery's map,
a benchmark's tiles) is the business of whoever made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from skylink.camera import ViewRenderer, ground_width_m
from skylink.errors import OptionError, RerankError
from skylink.lvlm.options import WAYS, Way
from skylink.prompt import Facts
from skylink.types import Candidate, Query

if TYPE_CHECKING:
    from skylink.gallery import Gallery

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """One photo and its candidates, ready to be looked at.

    Attributes:
        name: the query's name, for messages.
        photo: (H, W, 3) uint8 RGB.
        candidates: K pictures (H, W, 3) uint8 RGB; sizes may differ.
        ids: (K,) names of the candidates, for messages.
        photo_facts, candidate_facts: what the prompt may say of them.
    """

    name: str
    photo: Image
    candidates: Sequence[Image]
    ids: Sequence[str]
    photo_facts: Facts
    candidate_facts: Sequence[Facts]

    def __post_init__(self) -> None:
        if not len(self.candidates) == len(self.ids) == len(self.candidate_facts):
            raise ValueError("a showing needs one picture, one id and one set of facts a candidate")


class Show(Protocol):
    """Makes the pictures for a query and its candidates."""

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> Showing:
        """Raises RerankError where a candidate has no picture."""
        ...


class GalleryShow:
    """Pictures of a gallery's map.

    Two ways to show a photo whose pose is known or supposed:

    - `north-up`: the photo warped to a view of the ground with north up, covering what a tile
      covers; candidates as the tiles are. Tiles look the same for every photo, so what a model
      makes of them can be kept. Only where all candidates are of one pose.
    - `as-taken`: the photo as it is; the map around each candidate is turned to that candidate's
      heading and as wide as the ground that the photo shows.

    `auto` takes the first where it can and the second otherwise. A photo without any pose is shown
    as it is beside tiles with north up.

    Args:
        gallery: built with imagery.
        size_px: side of the pictures.
        way: see above.
    """

    def __init__(self, gallery: Gallery, *, size_px: int = 448, way: Way = "auto") -> None:
        if not gallery.info.imagery:
            raise OptionError(
                f"{gallery.path} was built without imagery: there is nothing to show",
                hint=f"build it with imagery: {gallery.info.command(gallery.path)}",
            )
        if way not in WAYS:
            raise OptionError(f"unknown way to show {way!r}", hint=f"known: {', '.join(WAYS)}")
        self._gallery, self.size_px, self.way = gallery, size_px, way

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> Showing:
        """See `Show`."""
        poses = {c.pose for c in candidates}
        levels = {c.level for c in candidates}
        one_view = len(poses) == 1 and None not in poses and len(levels) == 1
        if self.way == "north-up" and candidates and not one_view:
            why = "no pose is known" if None in poses else "candidates differ in pose or tile size"
            raise RerankError(
                f"{why}: the photo has no single north-up view", hint="--lvlm-show auto"
            )
        if one_view and self.way != "as-taken":
            return self._north_up(query, candidates)
        return self._as_taken(query, candidates)

    def tile(self, candidate: Candidate) -> Image:
        """The picture of a candidate's tile, north up, as wide as the level's tiles."""
        return self._map(candidate, self._gallery.levels[candidate.level].tile_m, 0.0)

    def _north_up(self, query: Query, candidates: Sequence[Candidate]) -> Showing:
        pose, width_m = candidates[0].pose, self._gallery.levels[candidates[0].level].tile_m
        assert pose is not None
        view = ViewRenderer(query.image).render(
            pose, gsd_m=width_m / self.size_px, size_px=self.size_px
        )
        facts = Facts(north_up=True, width_m=width_m)
        return Showing(
            name=query.name,
            photo=view.image,
            candidates=[self.tile(c) for c in candidates],
            ids=[c.id for c in candidates],
            photo_facts=Facts(north_up=True, width_m=width_m, altitude_m=pose.altitude_m),
            candidate_facts=[facts] * len(candidates),
        )

    def _as_taken(self, query: Query, candidates: Sequence[Candidate]) -> Showing:
        pictures, facts = [], []
        for candidate in candidates:
            level, pose = self._gallery.levels[candidate.level], candidate.pose
            width_m = level.tile_m if pose is None else ground_width_m(pose)
            heading = 0.0 if pose is None else pose.heading_deg
            pictures.append(self._map(candidate, width_m, heading))
            facts.append(Facts(north_up=True if pose is None else None, width_m=width_m))
        known = query.telemetry
        return Showing(
            name=query.name,
            photo=within_pixels(query.image, self.size_px**2),
            candidates=pictures,
            ids=[c.id for c in candidates],
            photo_facts=Facts(altitude_m=known.relative_altitude_m),
            candidate_facts=facts,
        )

    def _map(self, candidate: Candidate, width_m: float, heading_deg: float) -> Image:
        image, valid = self._gallery.picture(
            area=candidate.area,
            level=candidate.level,
            x_m=candidate.x_m,
            y_m=candidate.y_m,
            size_px=self.size_px,
            gsd_m=width_m / self.size_px,
            heading_deg=heading_deg,
        )
        if not valid.any():
            raise RerankError(f"candidate {candidate.id} has no picture on the map")
        return image


def within_pixels(image: Image, pixels: int) -> Image:
    """The picture made smaller, in proportion, to have at most so many pixels."""
    height, width = image.shape[:2]
    scale = (pixels / (height * width)) ** 0.5
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
