"""The retriever protocol: a photo in, candidates out; and which one `auto` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from skylink.errors import GalleryError, OptionError
from skylink.hypotheses import SearchSpace
from skylink.types import Prior, Query, Retrieval

if TYPE_CHECKING:
    from skylink.encoder import Encoder
    from skylink.gallery import Gallery

NAMES = ("auto", "dense", "descriptor")

DENSE_CELLS = 1_500_000
"""Cells of a level (some 200 km2 at 0.7 m a pixel) up to which the whole map is correlated; above,
descriptors choose where to correlate."""


class Retriever(Protocol):
    """Proposes candidates for a photo.

    Attributes:
        name: as the command line and the results call it.
    """

    name: str

    def retrieve(self, query: Query, k: int, prior: Prior | None = None) -> Retrieval:
        """At most `k` candidates, best first; fewer where the gallery or the prior has fewer."""
        ...


def make_retriever(
    name: str,
    gallery: Gallery,
    encoder: Encoder,
    space: SearchSpace | None = None,
    *,
    time_budget_s: float | None = None,
) -> Retriever:
    """The retriever of a name; `auto` takes dense search wherever the encoder has feature maps.

    Raises:
        OptionError: unknown name, or a time budget that is not positive.
        GalleryError: dense search asked of a gallery without feature rasters.
    """
    from skylink.retrievers.dense import DenseRetriever
    from skylink.retrievers.descriptor import DescriptorRetriever

    space = space or SearchSpace()
    if name not in NAMES:
        raise OptionError(f"unknown retriever {name!r}", hint=f"known are: {', '.join(NAMES)}")
    has_features = gallery.info.encoder.channels > 0
    if name == "dense" and not has_features:
        raise GalleryError(
            f"{gallery.path} has no feature raster: its encoder {gallery.info.encoder.name} "
            "gives descriptors only",
            hint="use --retriever descriptor",
        )
    if name == "descriptor" or not has_features:
        return DescriptorRetriever(gallery, encoder, space, time_budget_s=time_budget_s)
    half = None if time_budget_s is None else time_budget_s / 2  # the search needs the other half
    regions = DescriptorRetriever(gallery, encoder, space, time_budget_s=half)
    return DenseRetriever(gallery, encoder, space, regions=regions, time_budget_s=time_budget_s)
