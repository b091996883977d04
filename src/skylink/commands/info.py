"""`skylink info`: what is in a gallery, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skylink.commands import terminal

if TYPE_CHECKING:
    from skylink.gallery import Gallery


def info(
    gallery: Annotated[Path, typer.Argument(metavar="GALLERY", help="The gallery folder.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file and compare its hash.")
    ] = False,
) -> None:
    """Show what is in a gallery."""
    from skylink.gallery import Gallery

    opened = Gallery.open(gallery)
    terminal.print_table(_table(opened))
    if verify:
        count = len(opened.info.files)
        terminal.say(f"Checking the hashes of {count} files")
        opened.verify()
        terminal.say(f"All {count} files are as they were written")
    terminal.say(f"Next: skylink locate PHOTO... --gallery {terminal.quoted(gallery)}")


def _table(gallery: Gallery) -> Any:
    """Two columns: what, and its value."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from skylink.names import shown

    about = gallery.info
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")

    def row(name: str, value: str) -> None:
        table.add_row(name, Text(shown(value)))

    row("gallery", str(gallery.path))
    row("built", f"{about.created_at} by SkyLink {about.skylink_version}")
    row("size on disk", f"{sum(file.size for file in about.files) / 1e6:,.1f} MB")
    row("map", f"{gallery.area_km2:.3f} km2 in {len(about.areas)} area(s)")
    row("tiles", f"{about.tiles_kept:,} ({about.tiles_dropped:,} mostly empty ones left out)")
    for level in about.levels:
        row(
            "level",
            f"tiles of {level.tile_m:g} m every {level.stride_m:g} m, {level.gsd_m:.3f} m a pixel, "
            f"feature cells of {level.cell_m:.1f} m",
        )
    for area in about.areas:
        x0, y0, x1, y1 = area.bounds
        row(
            "area", f"around lon {area.lon:.6f} lat {area.lat:.6f}, {x1 - x0:.0f} x {y1 - y0:.0f} m"
        )
    for source in about.sources:
        row(
            "source",
            f"{source.path} ({source.width} x {source.height} px, {source.gsd_m:.3f} m a pixel, "
            f"{source.crs}, {source.bands})",
        )
    encoder = about.encoder
    row("encoder", f"{encoder.name}, fingerprint {encoder.fingerprint[:12]}")
    row("dense search", "yes" if encoder.channels else "no: the encoder has no feature map")
    row("imagery", "stored" if about.imagery else "not stored: no evidence maps, no matching")
    row("attribution", about.attribution or "none given")
    for note in about.notes:
        row("note", note)
    return table
