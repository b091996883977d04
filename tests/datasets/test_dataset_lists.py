"""GTA-UAV, UAV-VisLoc, VIGOR, CVUSA and CVACT by hand, and lists that contradict their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skylink.datasets import REGISTRY, cvact
from skylink.datasets.gtauav import tile_centre
from skylink.errors import DatasetError
from skylink.geo import distance_m

Miniature = Callable[[str], Path]

GTA, VISLOC, VIGOR, CVUSA, CVACT = (
    REGISTRY[name] for name in ("gtauav", "uavvisloc", "vigor", "cvusa", "cvact")
)
CROSS = "cross-area-drone2sate-test.json"


def edit(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))


def test_tile_centres_as_in_the_published_example() -> None:
    assert tile_centre("4_0_6_13.png") == pytest.approx((4492.8, 9331.2))
    assert tile_centre("5_0_12_27.png") == pytest.approx((4320.0, 9504.0))
    assert tile_centre("5_10_20.png") == tile_centre("5_0_10_20.png")  # the first release
    shifted, plain = tile_centre("4_128_6_13.png"), tile_centre("4_0_6_13.png")
    assert shifted
    assert plain
    assert shifted[0] - plain[0] == pytest.approx(691.2 / 2)  # half a tile
    assert tile_centre("readme.png") is None


def test_gta_pairs_weights_and_metres(miniature: Miniature) -> None:
    task = GTA.load(miniature("gtauav"), "cross-area")
    entries = json.loads((miniature("gtauav") / CROSS).read_text())
    assert len(task.gallery) == 80  # the whole map
    assert "1 photos have no tile above IoU 0.39" in task.notes[0]
    assert task.weights
    assert task.semi_positives
    assert task.semi_weights
    kept = [entry for entry in entries if entry["pair_pos_sate_img_list"]]
    assert [q.id for q in task.queries] == [f"drone/images/{e['drone_img_name']}" for e in kept]
    ious = set()
    for row, entry in enumerate(kept):
        names = [task.gallery[i].path.name for i in task.positives[row]]
        assert sorted(names) == sorted(entry["pair_pos_sate_img_list"])
        assert all(weight > 0.39 for weight in task.weights[row])
        assert all(0.14 < weight <= 0.39 for weight in task.semi_weights[row])
        both = {*task.positives[row], *task.semi_positives[row]}
        assert len(both) == len(entry["pair_pos_semipos_sate_img_list"])
        by_name = dict(
            zip(entry["pair_pos_sate_img_list"], entry["pair_pos_sate_weight_list"], strict=True)
        )
        assert [by_name[name] for name in names] == list(task.weights[row])
        ious.update(task.weights[row])
        # a shift of 8 and 4 px of 2.7 m from the tile's centre
        assert task.distances_m(row, task.positives[row][:1])[0] == pytest.approx(24.15, abs=0.01)
    # a square of 60 px, so far off the middle of one of 64, shares 54 x 58; 120 in 128, 116 x 120
    assert sorted({round(iou, 9) for iou in ious}) == [
        pytest.approx(54 * 58 / (60**2 + 64**2 - 54 * 58)),
        pytest.approx(116 * 120 / (120**2 + 128**2 - 116 * 120)),
    ]
    assert any(task.semi_positives)
    assert task.queries[0].altitude_m in (200, 400)
    assert task.queries[0].extra["cam_roll"] == -90
    assert task.queries[0].heading_deg is None


def test_gta_the_other_way(miniature: Miniature) -> None:
    there = GTA.load(miniature("gtauav"), "same-area", "train")
    back = GTA.load(miniature("gtauav"), "same-area S2D", "train")
    assert back.gallery == there.queries
    pairs = {
        (q.id, there.gallery[r].id)
        for q, rs in zip(there.queries, there.positives, strict=True)
        for r in rs
    }
    assert pairs == {
        (back.gallery[r].id, q.id)
        for q, rs in zip(back.queries, back.positives, strict=True)
        for r in rs
    }


def test_gta_list_that_points_nowhere(copied: Miniature) -> None:
    root = copied("gtauav")

    def change(entries: list[dict[str, Any]]) -> None:
        entries[0]["drone_img_name"] = "600_0001_0000009999.png"
        entries[1]["pair_pos_sate_img_list"][0] = "7_0_1_1.png"

    edit(root / CROSS, change)
    with pytest.raises(DatasetError, match="names 2 pictures that are not there") as caught:
        GTA.load(root, "cross-area")
    assert "600_0001_0000009999.png" in caught.value.message
    assert any("2 pictures that are not there" in p.what for p in GTA.check(root).problems)
    assert GTA.load(root, "same-area")  # the others still load


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e[0].update(drone_img_name="../../../etc/passwd"), "not a path in the dataset"),
        (lambda e: e[0].update(sate_img_dir="/tmp"), "not a path in the dataset"),
        (lambda e: e[0]["pair_pos_sate_weight_list"].append(0.5), "one weight in 0..1 each"),
        (lambda e: e[0]["pair_pos_sate_weight_list"].__setitem__(0, 7), "one weight in 0..1 each"),
        (lambda e: e[0]["pair_pos_sate_img_list"].__setitem__(0, 7), "are not names"),
        (lambda e: e[0].update(drone_loc_x_y=[1]), "entry 1: not as published"),
        (lambda e: e[0].update(drone_loc_x_y=[1, float("nan")]), "not finite"),
        (lambda e: e[1].pop("pair_pos_semipos_sate_img_list"), "entry 2: not as published"),
        (lambda e: e[0].update(drone_metadata=None), "entry 1: not as published"),
        (lambda e: e.append(3), "not a list of objects"),
    ],
)
def test_gta_entries_unlike_the_published(
    copied: Miniature, change: Callable[[list[dict[str, Any]]], object], words: str
) -> None:
    root = copied("gtauav")
    edit(root / CROSS, change)
    with pytest.raises(DatasetError, match=words) as caught:
        GTA.load(root, "cross-area")
    assert caught.value.hint


def test_gta_tile_with_another_name(copied: Miniature) -> None:
    root = copied("gtauav")
    (root / "satellite/5_0_12_20.png").rename(root / "satellite/tile (1).png")
    with pytest.raises(DatasetError, match="is not named"):
        GTA.load(root, "cross-area")


def test_visloc_nearest_tile_is_the_answer(miniature: Miniature) -> None:
    task = VISLOC.load(miniature("uavvisloc"), "all maps")
    assert len(task.queries) == 12
    assert task.queries[0].altitude_m == 466
    assert task.queries[0].heading_deg == pytest.approx(17.0)
    assert task.queries[0].extra["omega"] == 0.5
    assert task.semi_positives is not None
    for row, query in enumerate(task.queries):
        away = task.distances_m(row, range(len(task.gallery)))
        # ties are broken by a few pixels where tiles were rounded to whole ones
        assert away[task.positives[row][0]] <= away.min() + 10
        assert away[task.positives[row][0]] <= 110  # half of the stride's diagonal
        flight = query.id[:2]
        near = {*task.positives[row], *task.semi_positives[row]}
        assert all(task.gallery[i].id.startswith(f"{flight}/satellite{flight}") for i in near)
        assert len(near) >= 2
    # tiles are 300 m = 100 px
    assert {i.window[2:] for i in task.gallery if i.window} == {(100, 100)}


def test_visloc_tiles_reach_every_edge(miniature: Miniature) -> None:
    task = VISLOC.load(miniature("uavvisloc"), "map 01")
    windows = [item.window for item in task.gallery if item.window]
    assert min(w[0] for w in windows) == min(w[1] for w in windows) == 0
    assert max(w[0] + w[2] for w in windows) == 400
    assert max(w[1] + w[3] for w in windows) == 320
    first, last = task.gallery[0], task.gallery[-1]
    diagonal = distance_m(
        lon1=first.lon or 0, lat1=first.lat or 0, lon2=last.lon or 0, lat2=last.lat or 0
    )
    assert float(diagonal) == pytest.approx((900**2 + 660**2) ** 0.5, rel=1e-3)


def test_visloc_parts_of_a_map_lie_below_each_other(miniature: Miniature) -> None:
    task = VISLOC.load(miniature("uavvisloc"), "map 09")
    upper = [i.lat or 0 for i in task.gallery if "09_01-01" in i.id]
    lower = [i.lat or 0 for i in task.gallery if "09_02-01" in i.id]
    assert len(upper) == len(lower) > 0
    assert min(upper) > max(lower)
    # the centres of the last row above and the first one below are a tile apart
    gap = distance_m(lon1=112.1, lat1=min(upper), lon2=112.1, lat2=max(lower))
    assert float(gap) == pytest.approx(300, rel=1e-3)


def test_visloc_damage(copied: Miniature) -> None:
    root = copied("uavvisloc")
    table, flight = root / "satellite_coordinates_range.csv", root / "01/01.csv"
    published = flight.read_text()
    # the archive's own spelling of the table, and a flight without attitude
    table.rename(root / "satellite_ coordinates_range.csv")
    table = root / "satellite_ coordinates_range.csv"
    flight.write_text("\n".join(",".join(r.split(",")[:6]) for r in published.splitlines()))
    task = VISLOC.load(root, "map 01")
    assert (task.queries[0].heading_deg, task.queries[0].extra) == (None, {})
    assert VISLOC.check(root).ok
    flight.write_text(published.replace("01_0003.JPG", "01_0333.JPG"))
    with pytest.raises(DatasetError, match=r"names 1 pictures that are not there: 01_0333\.JPG"):
        VISLOC.load(root, "map 01")
    flight.write_text(published.replace("filename", "photo"))
    with pytest.raises(DatasetError, match="lacks the columns filename"):
        VISLOC.load(root, "map 01")
    rows = published.splitlines()
    rows[1] = rows[1].replace(rows[1].split(",")[3], "29.9")
    flight.write_text("\n".join(rows))
    assert VISLOC.load(root, "map 01").notes == ("1 photos lie outside their map and are left out",)
    flight.write_text(published)
    corners = table.read_text()
    table.write_text(corners.replace("29.77", "north"))
    with pytest.raises(DatasetError, match="lt_lat_map = 'north'"):
        VISLOC.load(root, "map 01")
    table.write_text(corners)
    (root / "09/satellite09_02-01.tif").write_bytes(b"II*\0" + b"\xff" * 40)
    with pytest.raises(DatasetError, match="is not a TIFF map"):
        VISLOC.load(root, "map 09")


def test_visloc_corners_of_half_the_world(copied: Miniature) -> None:
    root = copied("uavvisloc")
    table = root / "satellite_coordinates_range.csv"
    header = table.read_text().splitlines()[0]
    table.write_text(
        f"{header}\nsatellite01.tif,80,-170,-80,170,x\nsatellite09.tif,31,112,30,113,x\n"
    )
    with pytest.raises(DatasetError, match=r"01/satellite01\.tif covers .* km: too large"):
        VISLOC.load(root, "map 01")


def test_vigor_positives_and_cities(miniature: Miniature) -> None:
    task = VIGOR.load(miniature("vigor"), "cross-area")
    assert {q.id.split("/")[0] for q in task.queries} == {"Chicago", "SanFrancisco"}
    assert [rows[0] for rows in task.positives] == [0, 1, 2, 3, 6, 7, 8, 9]
    assert task.semi_positives
    assert task.semi_positives[:2] == ((1, 2, 3), (0, 2, 3))
    assert task.metres == "geodesic"
    assert task.distances_m(0, [0])[0] == pytest.approx(34**0.5, abs=0.2)  # 5 m east, 3 m north
    same = VIGOR.load(miniature("vigor"), "same-area", "train")
    assert len(same.gallery) == 24
    assert [rows[0] for rows in same.positives] == [0, 2, 6, 8, 12, 14, 18, 20]


def test_vigor_as_sample4geo_arranges_it(copied: Miniature, miniature: Miniature) -> None:
    root = copied("vigor")
    (root / "ground").mkdir()
    (root / "satellite").mkdir()
    for city in ("Chicago", "NewYork", "SanFrancisco", "Seattle"):
        (root / city / "panorama").rename(root / "ground" / city)
        (root / city / "satellite").rename(root / "satellite" / city)
        (root / city).rmdir()
    task = VIGOR.load(root, "same-area")
    assert task.positives == VIGOR.load(miniature("vigor"), "same-area").positives
    assert task.queries[0].id.startswith("ground/Chicago/")
    assert VIGOR.check(root).ok


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (" 0.0 ", " ", "line 1: not a panorama and four"),
        ("satellite_", "satellit_", "line 1: not a panorama and four"),
        ("Pano00", "../Pano00", "not a path"),
        ("Pano00", "Pano99", "names 1 pictures that are not there"),
    ],
)
def test_vigor_labels_unlike_the_published(
    copied: Miniature, old: str, new: str, words: str
) -> None:
    root = copied("vigor")
    labels = root / "splits/Chicago/pano_label_balanced.txt"
    labels.write_text(labels.read_text().replace(old, new, 1))
    with pytest.raises(DatasetError, match=words):
        VIGOR.load(root, "cross-area")
    assert not VIGOR.check(root).ok


def test_cvusa_pairs(copied: Miniature) -> None:
    root = copied("cvusa")
    task = CVUSA.load(root, "ground2satellite")
    assert task.queries[0].id == "streetview/panos/0000005.jpg"
    assert task.gallery[0].id == "bingmap/19/0000005.jpg"
    assert (task.gallery[0].lat, task.gallery[0].lon) == (38.4, -90.4)
    assert task.positives == ((0,), (1,), (2,), (3,), (4,))
    (root / "split_locations/all.csv").write_text("38,x,1,1\n")
    with pytest.raises(DatasetError, match=r"all\.csv, line 1"):
        CVUSA.load(root, "ground2satellite")
    (root / "split_locations/all.csv").unlink()
    assert CVUSA.load(root, "ground2satellite").metres is None
    assert CVUSA.check(root).ok
    (root / "bingmap/19/0000006.jpg").unlink()
    with pytest.raises(DatasetError, match="1 pictures that are not there: bingmap/19/0000006"):
        CVUSA.load(root, "ground2satellite")
    (root / "splits/val-19zl.csv").write_text("bingmap/19/0000005.jpg\n")
    with pytest.raises(DatasetError, match="line 1: not satellite,panorama"):
        CVUSA.load(root, "ground2satellite")


def test_cvact_pairs_and_the_one_that_is_known_to_be_missing(copied: Miniature) -> None:
    root = copied("cvact")
    task = CVACT.load(root, "val")
    assert [q.place for q in task.queries] == [g.place for g in task.gallery]
    assert task.queries[0].id == "ANU_data_small/streetview/pano_03-dAAAAAAAAAAAA_grdView.jpg"
    assert task.metres == "local"
    assert task.distances_m(0, [0, 1]).tolist() == pytest.approx([0, 50])  # 40 and 30 m
    assert task.rows_within_m(0, 60) == (0, 1)
    next((root / "ANU_data_small/streetview").glob("pano_01*")).unlink()
    trained = CVACT.load(root, "val", "train")
    assert len(trained.queries) == 2
    assert "1 places lack one of their two pictures" in trained.notes[0]
    assert CVACT.check(root).ok  # the counts are those of the list
    next((root / "ANU_data_test/satview_polish").glob("pano_09*")).unlink()
    assert len(CVACT.load(root, "test").queries) == 4
    assert any("test pairs: 4 found, 5" in p.what for p in CVACT.check(root).problems)


def test_cvact_damaged_file(copied: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    root = copied("cvact")
    mat = root / "ACT_data.mat"
    monkeypatch.setattr(cvact, "MAX_VALUES", 20)  # utm alone has 24
    with pytest.raises(DatasetError, match="a variable in it is too large"):
        CVACT.load(root, "val")
    mat.write_bytes(mat.read_bytes()[:300])
    with pytest.raises(DatasetError, match="not the published MATLAB file"):
        CVACT.load(root, "val")
    monkeypatch.setattr(cvact, "MAX_MAT_BYTES", 10)
    with pytest.raises(DatasetError, match="too large"):
        CVACT.load(root, "val")
    mat.unlink()
    with pytest.raises(DatasetError, match=r"ACT_data\.mat is missing"):
        CVACT.load(root, "val")
