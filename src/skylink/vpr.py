"""File names of the visual place recognition (VPR) field, which carry the position.

    @ UTM_east @ UTM_north @ UTM_zone_number @ UTM_zone_letter @ latitude @ longitude @ pano_id
    @ tile_num @ heading @ pitch @ roll @ height @ timestamp @ note @ extension

(without the blanks), as VPR-datasets-downloader lays them out; unknown fields are empty. Programs
of that field read the first two, in metres, and call two images the same place within 25 m. So all
names of a data set are in one UTM zone: across a zone's border the distances would be nonsense.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skylink.errors import QueriesError
from skylink.geo import CrsTransform, centre_lonlat

WIDEST_DEG = 9.0
"""From the zone's central meridian: distances are 1 % too long there, more beyond."""

MAX_NAME_BYTES = 255
_BANDS = "CDEFGHJKLMNPQRSTUVWXX"


def utm_zone(*, lon: float, lat: float) -> int:
    """The UTM zone, 1..60, with the exceptions of Norway and Svalbard."""
    if 56 <= lat < 64 and 3 <= lon < 12:
        return 32
    if 72 <= lat <= 84 and 0 <= lon < 42:
        return 31 + 2 * int((lon + 3) // 12)
    return int((lon + 180) // 6) % 60 + 1


def vpr_names(
    ids: Sequence[str],
    *,
    lon: ArrayLike,
    lat: ArrayLike,
    heading_deg: ArrayLike | None = None,
    height_m: ArrayLike | None = None,
    extension: str = ".jpg",
    zone: int | None = None,
) -> list[str]:
    """A file name for each image, queries and gallery in one call, so that they share a zone.

    Args:
        ids: (N,) different ids; they become the pano_id, encoded as in URLs (`@` is %40), which
            `urllib.parse.unquote` undoes.
        lon, lat: (N,) WGS 84 degrees, float64.
        heading_deg: (N,) degrees clockwise from north, NaN where not known; rounded to degrees.
        height_m: (N,) above the ground, metres, NaN where not known.
        extension: with its dot.
        zone: the UTM zone; by default that of the centre.

    Raises:
        QueriesError: positions or ids can't be used, or lie too far from the zone.
    """
    if not re.fullmatch(r"\.\w{1,8}", extension, re.ASCII):
        raise QueriesError(f"extension {extension!r} is not like .jpg")
    if zone is not None and not 1 <= zone <= 60:
        raise QueriesError(f"UTM zone {zone} is not one of 1..60")
    lons, lats = _numbers("lon", lon, len(ids)), _numbers("lat", lat, len(ids))
    unknown = np.full(len(ids), np.nan)
    headings = unknown if heading_deg is None else _numbers("heading_deg", heading_deg, len(ids))
    heights = unknown if height_m is None else _numbers("height_m", height_m, len(ids))
    if len(set(ids)) < len(ids):
        raise QueriesError("an id is there twice: two images would get one name")
    if not ids:
        return []
    bad = ~((np.abs(lons) <= 180) & (lats >= -80) & (lats <= 84))  # also NaN
    if bad.any():
        raise QueriesError(
            f"{ids[int(np.flatnonzero(bad)[0])]!r} has no position, or one where there is no UTM "
            "(above 84 or below -80 degrees of latitude)"
        )
    centre_lon, centre_lat = centre_lonlat(lon=lons, lat=lats)
    zone = zone or utm_zone(lon=centre_lon, lat=centre_lat)
    off = np.abs((lons - (6 * zone - 183) + 180) % 360 - 180)
    if off.max() > WIDEST_DEG:
        raise QueriesError(
            f"{ids[int(off.argmax())]!r} is {off.max():.1f} degrees from the middle of UTM zone "
            f"{zone}: distances would be wrong",
            hint="export each area on its own",
        )
    code = (32700 if centre_lat < 0 else 32600) + zone
    east, north = CrsTransform("EPSG:4326", f"EPSG:{code}")(lons, lats)
    names = []
    for i, image_id in enumerate(ids):
        name = "@".join(
            [
                "",
                f"{east[i]:010.2f}",
                f"{north[i]:010.2f}",
                f"{zone:02d}",
                _BANDS[int((lats[i] + 80) // 8)],
                f"{lats[i]:09.5f}",
                f"{lons[i]:010.5f}",
                quote(image_id, safe=""),
                "",  # tile_num
                "" if np.isnan(headings[i]) else f"{round(headings[i]) % 360:03d}",
                "",  # pitch
                "",  # roll
                "" if np.isnan(heights[i]) else f"{heights[i]:.1f}",
                "",  # timestamp
                "",  # note
                extension,
            ]
        )
        if len(name.encode()) > MAX_NAME_BYTES:
            raise QueriesError(f"the id {image_id[:60]!r}... is too long for a file name")
        names.append(name)
    return names


def _numbers(name: str, values: ArrayLike, count: int) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (count,):
        raise QueriesError(f"{name} has the shape {numbers.shape} for {count} ids")
    if np.isinf(numbers).any():
        raise QueriesError(f"{name} has an infinite value")
    return numbers
