"""The demo's folder: made by us, marked as ours, and never anybody else's.

skylink-demo/
  map.tif photos/        the made-up town: a satellite map, drone photos, queries.csv
  gallery/               what `skylink build` makes of the map
  results.geojson        what `skylink locate` finds
  evidence/              a picture for each photo that shows why
  results.json recall.png    what `skylink evaluate` measures
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from skylink.errors import OptionError
from skylink.files import output_errors, write_atomic

MARKER = ".skylink-demo"


def claim_folder(folder: Path) -> None:
    """Make the folder a demo's, or refuse it; earlier photos and pictures are removed.

    The gallery stays: a build continues or is done already where the map is still the same.

    Raises:
        OptionError: there is something in it that no demo put there.
        OutputError: it can't be written to.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARKER).exists() and any(folder.iterdir()):
            raise OptionError(
                f"{folder} is not empty and not a demo's folder",
                hint="choose another one with --out; nothing in it was changed",
            )
        write_atomic(folder / MARKER, "Made by `skylink demo`, which may replace what is here.\n")
        for pattern in ("photos/*.jpg", "evidence/*.jpg"):
            for old in folder.glob(pattern):
                with contextlib.suppress(FileNotFoundError):
                    old.unlink()
