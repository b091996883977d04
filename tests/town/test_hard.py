"""Towns made hard: the same seed gives the same, and their photos are queries like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from skylink.errors import OptionError
from skylink.geo import distance_m
from skylink.queries import read_queries
from skylink.town.hard import TRAINING, hard_town, write_queries

SEED = TRAINING[7]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_and_its_photos_are_queries(tmp_path: Path) -> None:
    one, other = (hard_town(tmp_path / name, seed=SEED, photos=2) for name in ("a", "b"))
    assert one.photos == other.photos
    assert one.map.read_bytes() == other.map.read_bytes()
    for photo in one.photos:
        assert one.path(photo).read_bytes() == other.path(photo).read_bytes()
    kept = one.path(one.photos[0]).stat().st_mtime_ns
    assert hard_town(tmp_path / "a", seed=SEED, photos=2).photos == one.photos
    assert one.path(one.photos[0]).stat().st_mtime_ns == kept  # made once
    rows = read_queries(write_queries(tmp_path / "a" / "queries.csv", [one]))
    for row, photo in zip(rows, one.photos, strict=True):
        assert row.load().image.shape == one.query(photo).image.shape
        place = {"lon1": row.ground_lon, "lat1": row.ground_lat}
        assert distance_m(**place, lon2=photo.lon, lat2=photo.lat) < 0.01
        told = photo.telemetry.heading_deg
        assert row.telemetry.heading_deg == pytest.approx(told, abs=0.01)


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="1000 photos"):
        hard_town(tmp_path, seed=SEED, photos=1000)
