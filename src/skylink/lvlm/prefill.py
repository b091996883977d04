"""Fill the feature cache with a gallery's tiles ahead of time: `skylink build --cache-features`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skylink.errors import OptionError, OutputError
from skylink.lvlm.options import LvlmOptions
from skylink.rerankers.lvlm import load
from skylink.showing import GalleryShow
from skylink.types import Candidate

if TYPE_CHECKING:
    from skylink.gallery import Gallery


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefilled:
    """What `prefill` did.

    Attributes:
        tiles: of the gallery.
        computed: how many went through the vision tower; the others were there.
        cache_bytes: size of the whole cache now.
    """

    tiles: int
    computed: int
    cache_bytes: int


def prefill(
    gallery: Gallery,
    checkpoint: str,
    options: LvlmOptions | None = None,
    *,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Prefilled:
    """Compute and keep the visual features of every tile as a re-ranker will be shown it.

    They serve photos whose pose is known, which are shown beside tiles with north up; each tile is
    written when it is done, so that a killed run goes on where it stopped.

    Raises:
        OptionError: the cache may not grow that large; the message says how large.
        OutputError: the cache can't be written to.
        ModelError: the model can't be loaded.
    """
    options = options or LvlmOptions()
    scorer = load(checkpoint, gallery, options).scorer
    show, cache = GalleryShow(gallery, size_px=scorer.backbone.picture_px), scorer.cache
    if cache is None:
        raise OptionError("there is no cache to fill", hint="leave out --lvlm-cache-gb 0")
    tiles = gallery.tiles()
    passes = scorer.backbone.tower_passes
    for i in range(len(tiles)):
        place = Candidate(
            lon=float(tiles.lon[i]), lat=float(tiles.lat[i]), score=0.0, id=str(tiles.id[i]),
            area=int(tiles.area[i]), level=int(tiles.level[i]),
            x_m=float(tiles.x_m[i]), y_m=float(tiles.y_m[i]),
        )  # fmt: skip
        features = scorer.features(show.tile(place), keep=True)
        if cache.problem is not None:
            raise OutputError(f"the feature cache can't be filled: {cache.problem}")
        if i == 0:
            needed = len(tiles) * features.nbytes
            if needed > options.cache_gb * 2**30:
                raise OptionError(
                    f"the features of {len(tiles):,} tiles take {needed / 2**30:.1f} GB, the "
                    f"cache is bounded to {options.cache_gb:g} GB",
                    hint=f"--lvlm-cache-gb {1.1 * needed / 2**30 + 0.1:.1f}, or fewer "
                    "--lvlm-tokens",
                )
        progress(i + 1, len(tiles), f"tile {tiles.id[i]}")
    return Prefilled(
        tiles=len(tiles),
        computed=scorer.backbone.tower_passes - passes,
        cache_bytes=cache.size_bytes(),
    )
