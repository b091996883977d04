"""Lists from one's own map: the truth, overlap by hand, poses, what is left out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from skylink.encoder import load_encoder
from skylink.errors import OptionError, QueriesError
from skylink.gallery import Gallery
from skylink.geo import LocalFrame, distance_m
from skylink.minedfile import MinedFile
from skylink.mining.gallery import OUTSIDE, GalleryMine, true_point
from skylink.mining.lists import Forcing, Lists, write_lists
from skylink.mining.split import hold_out
from skylink.queries import QueryRow
from skylink.retriever import make_retriever
from skylink.showing import GalleryShow
from skylink.soft_labels import SoftLabels
from skylink.types import Candidate, Prior, Query, Retrieval, Telemetry

TILE, STRIDE = 160.0, 40.0


def mine_of(
    gallery: Gallery, rows: Sequence[QueryRow], folder: Path, name: str = "descriptor", **how
) -> GalleryMine:
    retriever = make_retriever(name, gallery, load_encoder("embedded"))
    return GalleryMine(gallery, rows, retriever, folder, **({"top_k": 5} | how))


def written(
    mine: GalleryMine, path: Path, labels: SoftLabels | None = None, forcing: Forcing = "appended"
) -> MinedFile:
    lists = Lists(path=path, rows=range(len(mine.queries)), forcing=forcing)
    write_lists(mine, lists, labels or SoftLabels())
    return MinedFile(path)


class Wrong:
    """A base that lists only tiles far from a point, unless it is asked near a place."""

    name = "descriptor"

    def __init__(self, base, truth: tuple[float, float]) -> None:
        self.base, self.truth = base, truth

    def retrieve(self, query: Query, k: int, prior: Prior | None = None) -> Retrieval:
        found = self.base.retrieve(query, 60 if prior is None else k, prior)
        if prior is not None:
            return found
        lon, lat = self.truth
        far = [c for c in found.candidates if _metres(c, lon, lat) > 60]
        return dataclasses.replace(found, candidates=far[:k])


def _metres(c: Candidate, lon: float, lat: float) -> float:
    return float(distance_m(lon1=c.lon, lat1=c.lat, lon2=lon, lat2=lat))


def shared(dx: float, dy: float) -> float:
    """IoU of two tiles whose centres are this far apart."""
    area = max(0.0, TILE - abs(dx)) * max(0.0, TILE - abs(dy))
    return area / (2 * TILE * TILE - area)


def test_tiles_are_labelled_by_overlap_with_the_true_view(
    town_gallery, town_rows, town_folder, tmp_path
) -> None:
    mine = mine_of(town_gallery, town_rows, town_folder / "photos")
    assert mine.default_source == "overlap"
    found = written(mine, tmp_path / "a.jsonl")
    tiles, frame = town_gallery.tiles(), town_gallery.areas[0].frame
    assert found.queries == tuple(row.file for row in town_rows)
    for row, one in zip(town_rows, found, strict=True):
        away = distance_m(lon1=tiles.lon, lat1=tiles.lat, lon2=row.ground_lon, lat2=row.ground_lat)
        nearest = str(tiles.id[int(np.argmin(away))])
        assert [c.id for c in one.candidates if c.is_ground_truth] == [nearest]
        x, y = (float(v) for v in frame.to_xy(lon=row.ground_lon, lat=row.ground_lat))
        for c in one.candidates:
            overlap = shared(c.place.x_m - x, c.place.y_m - y)
            assert c.measured.overlap == pytest.approx(overlap, abs=1e-6)
            assert c.label == pytest.approx(1.0 if c.is_ground_truth else overlap, abs=1e-6)
            metres = _metres(c.on_map(), row.ground_lon, row.ground_lat)
            assert c.measured.distance_m == pytest.approx(metres, abs=1e-6)
            row_of = int(np.flatnonzero(tiles.id == c.id)[0])
            here, there = (
                tiles.descriptor[i].astype(float) for i in (row_of, int(np.argmin(away)))
            )
            cosine = here @ there / np.linalg.norm(here) / np.linalg.norm(there)
            assert c.measured.cosine == pytest.approx(cosine, abs=1e-6)
        assert (town_folder / "photos" / one.path).is_file()
        assert one.telemetry.lon is None
        assert one.telemetry.relative_altitude_m == row.telemetry.relative_altitude_m
    assert not found.header.summary.labels.collapsed
    assert found.header.provenance.gallery == town_gallery.info.build_id
    assert found.header.provenance.labels.threshold == 0.0
    again = written(mine, tmp_path / "b.jsonl")
    assert again.path.read_bytes() == found.path.read_bytes()


def test_with_a_prior_only_its_disc_is_searched(
    town_gallery, town_rows, town_folder, tmp_path
) -> None:
    radius = 150.0
    whole = written(mine_of(town_gallery, town_rows, town_folder / "photos"), tmp_path / "a.jsonl")
    mine = mine_of(town_gallery, town_rows, town_folder / "photos", prior_m=radius)
    found = written(mine, tmp_path / "b.jsonl")
    assert "within 150 m" in found.header.provenance.base
    centres = set()
    for number, (row, one) in enumerate(zip(town_rows, found, strict=True)):
        prior = mine._prior(number)
        centres.add((round(prior.lon, 9), round(prior.lat, 9)))
        camera = {"lon1": row.truth_lon, "lat1": row.truth_lat}
        assert distance_m(**camera, lon2=prior.lon, lat2=prior.lat) <= prior.radius_m
        for candidate in one.candidates:
            east, north = candidate.place.pose.offset_m
            frame = town_gallery.areas[0].frame
            lon, lat = frame.point(x_m=candidate.place.x_m - east, y_m=candidate.place.y_m - north)
            away = distance_m(lon1=lon, lat1=lat, lon2=prior.lon, lat2=prior.lat)
            assert candidate.rank is None or away <= prior.radius_m + 0.5
    assert len(centres) == len(town_rows)
    assert found.header.summary.sha256 != whole.header.summary.sha256
    again = mine_of(town_gallery, town_rows, town_folder / "photos", prior_m=radius)
    assert written(again, tmp_path / "c.jsonl").path.read_bytes() == found.path.read_bytes()


def test_a_missed_truth_is_forced_in_with_a_pose_found_like_the_others(
    town_gallery, town_rows, town_folder, tmp_path
) -> None:
    row = town_rows[0]
    truth = row.ground_lon, row.ground_lat
    base = make_retriever("descriptor", town_gallery, load_encoder("embedded"))
    honest = base.retrieve(row.load(), 200)
    mine = GalleryMine(town_gallery, [row], Wrong(base, truth), town_folder / "photos", top_k=4)
    (one,) = written(mine, tmp_path / "a.jsonl")
    assert [c.rank for c in one.candidates] == [1, 2, 3, 4, None]
    assert one.ground_truth.tolist() == [False] * 4 + [True]
    forced = one.candidates[-1]
    assert forced.label == 1.0
    assert _metres(forced.on_map(), *truth) <= STRIDE / math.sqrt(2) + 0.5
    same = next(c for c in honest.candidates if c.id == forced.id)
    assert forced.base_score == pytest.approx(same.score, abs=1e-6)
    assert forced.place.pose == same.pose
    (bare,) = written(mine, tmp_path / "b.jsonl", forcing="not-forced")
    assert bare.candidates == one.candidates[:4]
    assert mine.sources == ("overlap", "cosine", "distance")
    # nothing but its place tells it from the others when it is shown
    shown = [c.on_map() for c in one.candidates]
    showing = GalleryShow(town_gallery, size_px=32)(row.load(), shown)
    assert len(set(showing.candidate_facts)) == 1


def test_places_with_a_pose_are_right_within_half_a_diagonal_of_the_grid(
    town_gallery, town_rows, town_folder, tmp_path
) -> None:
    mine = mine_of(town_gallery, town_rows[:3], town_folder / "photos", "dense")
    found = written(mine, tmp_path / "a.jsonl")
    frame = town_gallery.areas[0].frame
    for row, one in zip(town_rows, found, strict=False):
        x, y = (float(v) for v in frame.to_xy(lon=row.ground_lon, lat=row.ground_lat))
        assert one.ground_truth.any()
        for c in one.candidates:
            away = math.hypot(c.place.x_m - x, c.place.y_m - y)
            assert c.is_ground_truth == (away <= STRIDE / math.sqrt(2))
            assert c.place.pose is not None
            overlap = shared(c.place.x_m - x, c.place.y_m - y)
            assert c.measured.overlap == pytest.approx(overlap, abs=1e-6)
    assert found.header.provenance.base == "dense search, embedded"


def test_another_encoder_for_cosines(town_gallery, town_rows, town_folder, tmp_path) -> None:
    encoder = load_encoder("embedded")
    mine = mine_of(
        town_gallery, town_rows[:1], town_folder / "photos", label_encoder=encoder, top_k=3
    )
    (one,) = written(mine, tmp_path / "a.jsonl", SoftLabels(source="cosine", threshold=0.0))
    vectors = []
    for c in one.candidates:
        size = encoder.input_px
        image, valid = town_gallery.picture(
            area=0, level=0, x_m=c.place.x_m, y_m=c.place.y_m, size_px=size, gsd_m=TILE / size
        )
        vectors.append(encoder.encode(image[None], valid[None])[0])
    right = int(one.ground_truth.argmax())
    for c, vector in zip(one.candidates, vectors, strict=True):
        assert c.measured.cosine == pytest.approx(float(vector @ vectors[right]), abs=1e-4)


def test_photos_off_the_map_or_unreadable_are_left_out_and_counted(
    town_gallery, town_rows, town_folder, tmp_path
) -> None:
    broken = town_folder / "photos" / "queries.csv"
    rows = [
        town_rows[0],
        dataclasses.replace(town_rows[1], ground_lon=0.0, ground_lat=0.0),
        dataclasses.replace(town_rows[2], path=broken),
    ]
    mine = mine_of(town_gallery, rows, town_folder / "photos")
    found = written(mine, tmp_path / "a.jsonl")
    assert found.queries == (rows[0].file,)
    assert mine.left_out.pop(OUTSIDE) == 1
    assert list(mine.left_out.values()) == [1]
    assert mine.failed == 1
    nowhere = mine_of(town_gallery, rows[1:2], town_folder / "photos")
    with pytest.raises(QueriesError, match="no query gave a list: 1 x no tile lies"):
        written(nowhere, tmp_path / "b.jsonl")
    assert not (tmp_path / "b.jsonl").exists()


def test_photos_elsewhere_than_the_folder_are_refused(town_gallery, town_rows, tmp_path) -> None:
    with pytest.raises(QueriesError, match="is not within") as caught:
        mine_of(town_gallery, town_rows, tmp_path)
    assert "--photos" in str(caught.value.hint)


def test_held_out_photos_share_no_tile_with_mined_ones(
    town_gallery, town_rows, town_folder
) -> None:
    mine = mine_of(town_gallery, town_rows, town_folder / "photos")
    sites = mine.sites
    assert sites.reach_m == TILE
    tried = 0
    for seed in range(8):
        try:
            parts = hold_out(sites, 0.2, seed=seed)
        except OptionError:
            continue
        tried += 1
        mined, held = (sites.xy_m[parts == part] for part in (0, 1))
        for a in mined:
            assert all(shared(*(a - b)) == 0 for b in held)
    assert tried


def test_the_true_point_is_the_ground_at_the_photos_centre() -> None:
    known = Telemetry(relative_altitude_m=100, heading_deg=90, camera_tilt_from_nadir_deg=45)
    row = QueryRow(
        file="a.jpg", path=Path("a.jpg"), line=2, telemetry=known, truth_lon=35.2, truth_lat=32.1,
        ground_lon=35.3, ground_lat=32.2,
    )  # fmt: skip
    assert true_point(row) == (35.3, 32.2)
    row = dataclasses.replace(row, ground_lon=None, ground_lat=None)
    lon, lat = true_point(row)
    x, y = LocalFrame(35.2, 32.1).to_xy(lon=lon, lat=lat)
    assert (float(x), float(y)) == pytest.approx((100, 0), abs=1e-3)
    assert true_point(dataclasses.replace(row, telemetry=Telemetry())) == (35.2, 32.1)
    with pytest.raises(QueriesError, match=r"a\.jpg \(line 2\) has no true place"):
        true_point(dataclasses.replace(row, truth_lon=None, truth_lat=None))
