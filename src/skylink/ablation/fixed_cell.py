"""Cells of what is never trained and has no language model: comparing photo and map directly.

They are what any learnt re-ranker has to beat on a map, and are the very ones of `--reranker`.
"""

from __future__ import annotations

from skylink.ablation.cell import Lists, Ready, Scores, Work
from skylink.ablation.grid import Model
from skylink.encoder import load_encoder
from skylink.errors import OptionError
from skylink.gallery import Gallery
from skylink.mined import MinedList
from skylink.photo import load_photo
from skylink.reranker import checked_scores, make_reranker
from skylink.types import Query, Telemetry

RERANKERS: dict[Model, str] = {"correlation": "dense", "hog": "hog"}
"""Models and the re-rankers that they are."""


def make_fixed(work: Work) -> Ready:
    """See `cell.Maker`."""
    return _Fixed(RERANKERS[work.cell.arm.model])


class _Fixed:
    """A re-ranker of galleries, by its name."""

    listwise = False
    trained = None

    def __init__(self, name: str) -> None:
        self._name = name

    def scores(self, lists: Lists) -> list[Scores]:
        """See `Ready.scores`.

        Raises:
            OptionError: candidates are no places on a map, or there is no gallery.
            RerankError: a candidate has no pose.
            GalleryError, PhotoError: the gallery or a photo can't be read.
        """
        if lists.gallery is None:
            raise OptionError(
                f"{self._name} compares photos with places on a map, and there is no gallery",
                hint="set data.gallery and test.gallery to where the lists were mined",
            )
        gallery = Gallery.open(lists.gallery)
        encoder = load_encoder(gallery.info.encoder.name)
        gallery.check_encoder(encoder)
        reranker = make_reranker(self._name, gallery, encoder)
        assert reranker is not None
        found = []
        for pick in lists.picks:
            candidates = [pick.mined.candidates[row].on_map() for row in pick.rows]
            query = _query(pick.mined, lists)
            found.append(checked_scores(reranker, query, candidates).astype("float64"))
        return found


def _query(mined: MinedList, lists: Lists) -> Query:
    photo = load_photo(lists.folder / mined.path, name=mined.query)
    return Query(name=mined.query, image=photo.image, telemetry=mined.telemetry or Telemetry())
