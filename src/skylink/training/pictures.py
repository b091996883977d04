"""Photos and candidates of mined lists as prompts, each picture through the tower once, ever.

The tower is frozen in every training, so that what it makes of a picture is kept on disk
(`lvlm/cache.py`), photos included: other than in scoring, they come again in every epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skylink.datasets.pictures import PictureReader
from skylink.datasets.task import Item
from skylink.errors import OptionError, OutputError
from skylink.lvlm.backbone import Backbone, Encoded
from skylink.lvlm.cache import FeatureCache, ImageFeatures, picture_key
from skylink.lvlm.options import Way
from skylink.mined import MinedCandidate, MinedList
from skylink.prompt import NOTHING, Facts, Template
from skylink.showing import GalleryShow, Image, Showing, within_pixels
from skylink.training.groups import usable
from skylink.types import Query, Telemetry

if TYPE_CHECKING:
    from skylink.gallery import Gallery


class ListShow:
    """Makes the pictures for candidates of a mined list, as re-rankers are shown them.

    Args:
        folder: the dataset's, which paths are relative to.
        show: for candidates that are places on a map; None where all are pictures.
        size_px: side of the largest square picture.
    """

    def __init__(self, folder: Path, show: GalleryShow | None, *, size_px: int) -> None:
        self._folder, self._show, self.size_px = folder, show, size_px
        self._read = PictureReader().read

    @classmethod
    def over(cls, folder: Path, gallery: Gallery | None, backbone: Backbone, way: Way) -> ListShow:
        """For a model's pictures."""
        size_px = backbone.picture_px
        show = None if gallery is None else GalleryShow(gallery, size_px=size_px, way=way)
        return cls(folder, show, size_px=size_px)

    def __call__(self, mined: MinedList, rows: Sequence[int]) -> Showing:
        """The photo and the candidates of these rows.

        Raises:
            PhotoError, MapError: a picture can't be read.
            RerankError: a candidate has no picture on the map.
            OptionError: candidates are places on a map and there is no gallery.
        """
        photo = self._picture(mined.query, mined.path)
        telemetry = mined.telemetry or Telemetry()
        chosen = [mined.candidates[row] for row in rows]
        if any(c.path is None for c in chosen):
            if self._show is None:
                raise OptionError(
                    f"the candidates of {mined.query!r} are places on a map",
                    hint="set data.gallery to the gallery that the lists were mined from",
                )
            query = Query(name=mined.query, image=photo, telemetry=telemetry)
            return self._show(query, [c.on_map() for c in chosen])
        most = self.size_px**2
        return Showing(
            name=mined.query,
            photo=within_pixels(photo, most),
            candidates=[within_pixels(self._candidate(c), most) for c in chosen],
            ids=[c.id for c in chosen],
            photo_facts=Facts(altitude_m=telemetry.relative_altitude_m),
            candidate_facts=[NOTHING] * len(chosen),
        )

    def _candidate(self, candidate: MinedCandidate) -> Image:
        assert candidate.path is not None
        return self._picture(candidate.id, candidate.path, candidate.window)

    def _picture(
        self, name: str, path: str, window: tuple[int, int, int, int] | None = None
    ) -> Image:
        return self._read(Item(id=name, path=self._folder / path, window=window))


class Prompter:
    """Prompts of mined lists' candidates, with visual features in place of pictures.

    Args:
        backbone: whose features.
        template: how it is asked, pointwise.
        show: makes the pictures.
        facts: say what is known of them.
        cache: keeps features; None: the tower runs again each time.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: Template,
        show: ListShow,
        *,
        facts: bool,
        cache: FeatureCache | None,
    ) -> None:
        self.backbone, self.template, self.show = backbone, template, show
        self.facts, self.cache = facts, cache

    def prompts(self, mined: MinedList, rows: Sequence[int]) -> list[Encoded]:
        """One prompt a row. Raises as `ListShow` does; RerankError: a picture can't be taken."""
        showing = self.show(mined, rows)
        photo = self._features(showing.photo)
        about = showing.photo_facts if self.facts else NOTHING
        return [
            self.backbone.encode(
                self.template.build(about, [known if self.facts else NOTHING]),
                photo,
                [self._features(picture)],
            )
            for picture, known in zip(showing.candidates, showing.candidate_facts, strict=True)
        ]

    def _features(self, picture: Image) -> ImageFeatures:
        if self.cache is None:
            return usable(self.backbone.look(picture))
        key = picture_key(picture)
        known = self.cache.get(key)
        if known is None:
            known = usable(self.backbone.look(picture))
            self.cache.put(key, known)
        return known


def require_cache(cache: FeatureCache | None) -> None:
    """The cache can be written to.

    Raises:
        OutputError: it can't: training goes on only slowly, which should be a choice.
    """
    if cache is not None and cache.problem is not None:
        raise OutputError(
            f"visual features can't be kept: {cache.problem}",
            hint="set compute.cache to another folder, or compute.cache_gb = 0 to do without",
        )
