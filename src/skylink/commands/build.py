"""`skylink build`: maps in, a gallery out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skylink.commands import terminal
from skylink.commands.lvlm_options import PANEL, takes_lvlm
from skylink.lvlm.options import LvlmOptions

if TYPE_CHECKING:
    from skylink.gallery import Gallery


@takes_lvlm
def build(
    maps: Annotated[
        list[Path],
        typer.Argument(
            metavar="MAP",
            help="GeoTIFF or COG files, a {z}/{x}/{y} tile folder, or a folder of images with a "
            "CSV of corners. Where maps overlap the first one wins.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="GALLERY", help="The gallery folder to write.")
    ],
    tile_m: Annotated[
        list[float] | None,
        typer.Option(
            "--tile-m",
            metavar="METRES",
            help="Side of a tile on the ground; give it several times for several scales. "
            "About the width of ground that a photo shows. [default: 160]",
            show_default=False,
        ),
    ] = None,
    stride_m: Annotated[
        float, typer.Option("--stride-m", metavar="METRES", help="Distance between tiles.")
    ] = 40.0,
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            help="`embedded`, `embedded:FOLDER`, onnx:PATH and others: docs/encoders.md.",
        ),
    ] = "embedded",
    attribution: Annotated[
        str | None,
        typer.Option(
            "--attribution",
            metavar="TEXT",
            help="Whom to credit for the imagery. [default: what the maps' tags say]",
            show_default=False,
        ),
    ] = None,
    no_imagery: Annotated[
        bool,
        typer.Option(
            "--no-imagery",
            help="Don't keep the map's pictures: a smaller gallery, but evidence pictures have "
            "no map and `--reranker matching` has nothing to look at.",
        ),
    ] = False,
    cache_features: Annotated[
        str | None,
        typer.Option(
            "--cache-features",
            metavar="MODEL",
            help="Also run a vision-language model's tower over all tiles and keep the features, "
            "so that `--reranker lvlm:MODEL` need not. For a gallery that is built already, too.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None,
    *,
    lvlm: LvlmOptions,
) -> None:
    """Build a gallery from satellite maps.

    An interrupted build continues where it stopped when the same command is given again; an older
    gallery in the same folder stays usable until the new one is finished.
    """
    from skylink.encoder import load_encoder
    from skylink.gallery import Gallery

    tiles = tuple(tile_m) if tile_m else (160.0,)
    sizes = ", ".join(f"{size:g}" for size in tiles)
    terminal.say(
        f"Building {out} from {len(maps)} map{'s' * (len(maps) > 1)}: tiles of {sizes} m, "
        f"one every {stride_m:g} m"
    )
    start = time.monotonic()
    with terminal.progress("chunks") as report:
        gallery = Gallery.build(
            maps,
            out,
            tile_m=tiles,
            stride_m=stride_m,
            encoder=load_encoder(encoder),
            progress=report,
            attribution=attribution,
            store_imagery=not no_imagery,
        )
    info = gallery.info
    seconds = time.monotonic() - start
    terminal.say(
        f"Built {out}: {info.tiles_kept:,} tiles over {gallery.area_km2:.2f} km2 in {seconds:.0f} s"
        + (f", {info.tiles_dropped:,} left out as mostly empty" if info.tiles_dropped else "")
    )
    for note in info.notes:
        terminal.warn(note)
    more = ""
    if cache_features is not None:
        _fill_cache(gallery, cache_features, lvlm)
        more = f" --reranker lvlm:{cache_features}"
    terminal.say(f"Next: skylink locate PHOTO... --gallery {terminal.quoted(out)}{more}")


def _fill_cache(gallery: Gallery, model: str, lvlm: LvlmOptions) -> None:
    """Run a model's vision tower over all tiles."""
    from skylink.lvlm.prefill import prefill

    terminal.say(f"Keeping what {model} sees in {gallery.tile_count:,} tiles; loading it ...")
    with terminal.progress("tiles") as report:
        done = prefill(gallery, model, lvlm, progress=report)
    terminal.say(
        f"Computed features of {done.computed:,} tiles, {done.tiles - done.computed:,} were there; "
        f"the cache holds {done.cache_bytes / 2**20:,.0f} MB"
    )
