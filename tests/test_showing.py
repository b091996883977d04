"""What a vision-language model is shown: the town's photos beside the town's map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from skylink.camera import ground_width_m
from skylink.errors import OptionError, RerankError
from skylink.gallery import Gallery
from skylink.geo import LocalFrame
from skylink.prompt import Facts
from skylink.queries import QueryRow
from skylink.showing import GalleryShow, Image, Showing
from skylink.types import CameraPose, Candidate, Query

PX = 96


def pose_of(query: Query, **other: float) -> CameraPose:
    t = query.telemetry
    assert t.relative_altitude_m is not None
    assert t.heading_deg is not None
    assert t.camera_tilt_from_nadir_deg is not None
    assert t.horizontal_fov_deg is not None
    pose = CameraPose(
        altitude_m=t.relative_altitude_m, heading_deg=t.heading_deg,
        tilt_deg=t.camera_tilt_from_nadir_deg, hfov_deg=t.horizontal_fov_deg,
    )  # fmt: skip
    return replace(pose, **other)


def places(gallery: Gallery, pose: CameraPose | None, count: int = 3) -> list[Candidate]:
    """Tiles of the gallery, or a pose at their centres."""
    tiles = gallery.tiles()
    step = len(tiles) // count
    return [
        Candidate(
            lon=float(tiles.lon[i]), lat=float(tiles.lat[i]), score=0.5, id=str(tiles.id[i]),
            area=int(tiles.area[i]), level=int(tiles.level[i]),
            x_m=float(tiles.x_m[i]), y_m=float(tiles.y_m[i]), pose=pose,
        )
        for i in range(0, step * count, step)
    ]  # fmt: skip


def likeness(a: Image, b: Image) -> float:
    """Correlation of two pictures' brightness where both show something."""
    grey = [x.astype(float).mean(axis=2) for x in (a, b)]
    both = (grey[0] > 0) & (grey[1] > 0)
    return float(np.corrcoef(grey[0][both], grey[1][both])[0, 1])


def at_truth(gallery: Gallery, row: QueryRow, pose: CameraPose) -> Candidate:
    """A candidate where the photo was taken of, and how."""
    assert row.ground_lon is not None
    assert row.ground_lat is not None
    area = gallery.info.areas[0]
    x_m, y_m = LocalFrame(area.lon, area.lat).to_xy(lon=row.ground_lon, lat=row.ground_lat)
    return Candidate(
        lon=row.ground_lon, lat=row.ground_lat, score=1.0, id="truth", area=0, level=0,
        x_m=float(x_m), y_m=float(y_m), pose=pose,
    )  # fmt: skip


def test_north_up(town_gallery: Gallery, town_queries: Sequence[Query]) -> None:
    query, show = town_queries[0], GalleryShow(town_gallery, size_px=PX)
    pose = pose_of(query)
    candidates = places(town_gallery, pose)
    seen = show(query, candidates)
    assert seen.name == query.name
    assert list(seen.ids) == [c.id for c in candidates]
    assert {p.shape for p in (seen.photo, *seen.candidates)} == {(PX, PX, 3)}
    assert {p.dtype for p in (seen.photo, *seen.candidates)} == {np.dtype(np.uint8)}
    width = town_gallery.levels[0].tile_m
    assert seen.photo_facts == Facts(north_up=True, width_m=width, altitude_m=pose.altitude_m)
    assert list(seen.candidate_facts) == [Facts(north_up=True, width_m=width)] * 3
    for candidate, picture in zip(candidates, seen.candidates, strict=True):
        np.testing.assert_array_equal(picture, show.tile(candidate))
    assert len({p.tobytes() for p in seen.candidates}) == 3


def test_tiles_look_the_same_for_every_photo(
    town_gallery: Gallery, town_queries: Sequence[Query]
) -> None:
    """So that what a model makes of them can be kept."""
    show = GalleryShow(town_gallery, size_px=PX)
    first, second = (
        show(query, places(town_gallery, pose_of(query))) for query in town_queries[:2]
    )
    for a, b in zip(first.candidates, second.candidates, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.photo != second.photo).any()


def test_as_taken(town_gallery: Gallery, town_queries: Sequence[Query]) -> None:
    query, show = town_queries[0], GalleryShow(town_gallery, size_px=PX, way="as-taken")
    pose = pose_of(query)
    seen = show(query, places(town_gallery, pose))
    height, width = seen.photo.shape[:2]
    assert height * width <= PX**2 * 1.02
    assert width / height == pytest.approx(query.image.shape[1] / query.image.shape[0], rel=0.03)
    assert {p.shape for p in seen.candidates} == {(PX, PX, 3)}
    assert seen.photo_facts == Facts(altitude_m=query.telemetry.relative_altitude_m)
    assert list(seen.candidate_facts) == [Facts(width_m=ground_width_m(pose))] * 3


def test_a_small_photo_is_not_made_larger(
    town_gallery: Gallery, town_queries: Sequence[Query]
) -> None:
    small = replace(town_queries[0], image=town_queries[0].image[:30, :40])
    show = GalleryShow(town_gallery, size_px=PX, way="as-taken")
    np.testing.assert_array_equal(show(small, places(town_gallery, None)).photo, small.image)


def test_the_map_is_turned_to_each_heading(
    town_gallery: Gallery, town_queries: Sequence[Query]
) -> None:
    query, show = town_queries[0], GalleryShow(town_gallery, size_px=PX)
    (place,) = places(town_gallery, None, 1)
    turned = [replace(place, pose=pose_of(query, heading_deg=h)) for h in (0.0, 90.0)]
    north, east = show(query, turned).candidates
    assert likeness(np.rot90(north), east) > 0.9
    assert likeness(north, east) < 0.5


def test_auto_takes_the_first_way_that_can(
    town_gallery: Gallery, town_queries: Sequence[Query]
) -> None:
    query, show = town_queries[0], GalleryShow(town_gallery, size_px=PX)
    one = places(town_gallery, pose_of(query))
    assert show(query, one).photo_facts.north_up is True
    mixed = [one[0], replace(one[1], pose=pose_of(query, heading_deg=17.0)), one[2]]
    assert show(query, mixed).photo_facts.north_up is None
    unknown = show(query, places(town_gallery, None))
    assert unknown.photo_facts.north_up is None
    width = town_gallery.levels[0].tile_m
    assert list(unknown.candidate_facts) == [Facts(north_up=True, width_m=width)] * 3


@pytest.mark.parametrize("way", ["north-up", "as-taken"])
def test_the_right_place_looks_like_the_photo(
    town_gallery: Gallery, town_rows: Sequence[QueryRow], way: str
) -> None:
    """Against places elsewhere, so that neither turn nor width nor centre can be wrong."""
    show = GalleryShow(town_gallery, size_px=PX, way=way)  # type: ignore[arg-type]
    row = town_rows[0]
    query = row.load()
    pose = pose_of(query)
    truth = at_truth(town_gallery, row, pose)
    seen = show(query, [truth, *places(town_gallery, pose)])
    tiles = list(seen.candidates)
    if way == "as-taken":  # maps are square: their middle is as high as the photo
        high = round(PX * seen.photo.shape[0] / seen.photo.shape[1])
        top = (PX - high) // 2
        tiles = [tile[top : top + high] for tile in tiles]
    size = tiles[0].shape[1::-1]
    photo = np.asarray(cv2.resize(seen.photo, size, interpolation=cv2.INTER_AREA), np.uint8)
    likes = [likeness(photo, tile) for tile in tiles]
    assert likes[0] > 0.5
    assert likes[0] > max(likes[1:]) + 0.3


@pytest.mark.parametrize("way", ["auto", "north-up", "as-taken"])
def test_no_candidates(town_gallery: Gallery, town_queries: Sequence[Query], way: str) -> None:
    seen = GalleryShow(town_gallery, size_px=PX, way=way)(town_queries[0], [])  # type: ignore[arg-type]
    assert len(seen.candidates) == len(seen.ids) == len(seen.candidate_facts) == 0


@pytest.mark.parametrize("known", [True, False])
def test_north_up_needs_one_pose(
    town_gallery: Gallery, town_queries: Sequence[Query], known: bool
) -> None:
    query, show = town_queries[0], GalleryShow(town_gallery, size_px=PX, way="north-up")
    candidates = places(town_gallery, None)
    if known:
        poses = [pose_of(query, heading_deg=float(i)) for i in range(3)]
        candidates = [replace(c, pose=p) for c, p in zip(candidates, poses, strict=True)]
    says = "differ in pose or tile size" if known else "no pose is known"
    with pytest.raises(RerankError, match=says) as caught:
        show(query, candidates)
    assert "auto" in str(caught.value.hint)


def test_a_candidate_off_the_map(town_gallery: Gallery, town_queries: Sequence[Query]) -> None:
    (place,) = places(town_gallery, None, 1)
    away = replace(place, x_m=90_000.0, id="far-away")
    with pytest.raises(RerankError, match="far-away has no picture"):
        GalleryShow(town_gallery, size_px=PX)(town_queries[0], [place, away])


def test_a_gallery_without_imagery(town_folder: Path, tmp_path: Path) -> None:
    bare = Gallery.build([town_folder / "map.tif"], tmp_path / "bare", store_imagery=False)
    with pytest.raises(OptionError, match="built without imagery") as caught:
        GalleryShow(bare)
    assert "skylink build" in str(caught.value.hint)


def test_an_unknown_way(town_gallery: Gallery) -> None:
    with pytest.raises(OptionError, match="unknown way to show 'sideways'") as caught:
        GalleryShow(town_gallery, way="sideways")  # type: ignore[arg-type]
    assert "north-up" in str(caught.value.hint)


def test_a_showing_is_complete() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError):
        Showing(
            name="a", photo=picture, candidates=[picture], ids=["x", "y"],
            photo_facts=Facts(), candidate_facts=[Facts()],
        )  # fmt: skip
