"""University-1652, SUES-200 and DenseUAV by hand, and how their copies go wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from skylink.datasets import REGISTRY
from skylink.errors import DatasetError

Miniature = Callable[[str], Path]

UNIVERSITY, SUES, DENSE = (REGISTRY[name] for name in ("university1652", "sues200", "denseuav"))


def test_university_drone_to_satellite(miniature: Miniature) -> None:
    task = UNIVERSITY.load(miniature("university1652"), "D2S")
    assert task.title == "University-1652 D2S"
    assert [g.id for g in task.gallery] == [
        f"test/gallery_satellite/{n:04d}/{n:04d}.jpg" for n in range(4, 10)
    ]
    assert task.queries[3].id == "test/query_drone/0005/image-01.jpeg"
    assert task.queries[3].place == "0005"
    assert task.positives == ((0,),) * 3 + ((1,),) * 3 + ((2,),) * 3 + ((3,),) * 3
    assert task.distractor_rows == (4, 5)
    assert task.metres is None


def test_university_satellite_to_drone_and_street(miniature: Miniature) -> None:
    root = miniature("university1652")
    task = UNIVERSITY.load(root, "S2D")
    assert task.positives == ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11))
    assert task.distractor_rows == tuple(range(12, 18))
    street = UNIVERSITY.load(root, "satellite2street")
    assert [q.place for q in street.queries] == ["0004", "0005", "0006", "0007"]
    assert [g.place for g in street.gallery] == ["0004", "0005", "0006", "0007", "0008"]
    trained = UNIVERSITY.load(root, "D2S", "train")
    assert {q.place for q in trained.queries} == {"0000", "0001", "0002", "0003"}


def test_published_sizes_agree_with_each_other() -> None:
    assert UNIVERSITY.sizes["test/query_drone images"] == 37_855
    assert UNIVERSITY.sizes["test/gallery_satellite images"] == 951
    assert SUES.sizes["test/150/gallery_drone images"] == 200 * 50
    assert SUES.sizes["test/300/query_satellite images"] == 80
    assert SUES.sizes["train/200/drone images"] == 6_000
    assert DENSE.sizes["train/drone images"] == 6_768
    assert DENSE.sizes["train/satellite images"] == 13_536
    assert DENSE.sizes["test/query_drone images"] == 2_331
    assert DENSE.sizes["test/gallery_satellite images"] == 18_198
    both = DENSE.sizes["train/drone places"] + DENSE.sizes["test/query_drone places"]
    assert both == DENSE.sizes["test/gallery_drone places"]


def test_extra_place_and_wrong_count(copied: Miniature) -> None:
    root = copied("university1652")
    shutil.copytree(root / "test/gallery_satellite/0008", root / "test/gallery_satellite/0099")
    report = UNIVERSITY.check(root)
    counts = {c.what: c for c in report.counts}
    assert not counts["test/gallery_satellite places"].ok
    assert any("7 found, 6 published" in p.what for p in report.problems)
    (root / "test/query_drone/0004/image-02.jpeg").unlink()
    problems = " ".join(p.what for p in UNIVERSITY.check(root).problems)
    assert "test/query_drone images: 11 found, 12 published" in problems


def test_a_query_without_its_gallery(copied: Miniature) -> None:
    root = copied("university1652")
    shutil.rmtree(root / "test/gallery_satellite/0006")
    with pytest.raises(DatasetError, match="1 places are not in test/gallery_satellite: 0006"):
        UNIVERSITY.load(root, "D2S")
    assert any("0006" in p.what for p in UNIVERSITY.check(root).problems)


def test_splits_that_share_a_place(copied: Miniature) -> None:
    root = copied("university1652")
    shutil.copytree(root / "train/drone/0002", root / "test/query_drone/0002")
    problems = " ".join(p.what for p in UNIVERSITY.check(root).problems)
    assert "1 places are in train/drone and in test/query_drone: 0002" in problems


def test_links_are_named_where_nothing_else_is_left(copied: Miniature, tmp_path: Path) -> None:
    root = copied("university1652")
    for place in sorted((root / "test/query_drone").iterdir()):
        target = tmp_path / f"elsewhere-{place.name}"
        place.rename(target)
        place.symlink_to(target)
    with pytest.raises(DatasetError, match="4 symbolic links ignored"):
        UNIVERSITY.load(root, "D2S")
    assert any("links are not followed" in f.fix for f in UNIVERSITY.check(root).findings)


def test_sues_heights_both_ways(miniature: Miniature) -> None:
    task = SUES.load(miniature("sues200"), "D2S-250")
    assert task.queries[0].id == "Testing/250/query_drone/0004/0.jpg"
    assert task.queries[0].altitude_m == 250
    assert task.gallery[0].altitude_m is None
    assert [g.place for g in task.gallery] == [f"{n:04d}" for n in range(1, 7)]
    assert task.positives == ((3,), (3,), (4,), (4,), (5,), (5,))
    assert task.distractor_rows == (0, 1, 2)
    back = SUES.load(miniature("sues200"), "s2d-250")
    assert back.positives == ((6, 7), (8, 9), (10, 11))
    assert len(back.distractor_rows) == 6


@pytest.mark.parametrize("names", [("train", "test"), ("Dataset/Training", "Dataset/Testing")])
def test_sues_other_folder_names(copied: Miniature, names: tuple[str, str]) -> None:
    root = copied("sues200")
    (root / "Dataset").mkdir()
    for old, new in zip(("Training", "Testing"), names, strict=True):
        (root / old).rename(root / new)
    report = SUES.check(root)
    assert report.ok, report.problems
    assert all(count.ok for count in report.counts)
    assert SUES.load(root, "D2S-150").gallery[0].id.startswith(f"{names[1]}/150/")


def test_sues_split_that_differs_between_heights(copied: Miniature) -> None:
    root = copied("sues200")
    home = root / "Testing/200"
    (home / "query_drone/0004").rename(home / "query_drone/0001")
    problems = " ".join(p.what for p in SUES.check(root).problems)
    assert "Testing/200/query_drone hold different places" in problems
    assert "places are in Training/200/drone and in Testing/200/query_drone: 0001" in problems


def test_dense_positions_and_heights(miniature: Miniature) -> None:
    task = DENSE.load(miniature("denseuav"), "D2S")
    assert [q.altitude_m for q in task.queries[:3]] == [100, 80, 90]  # by file name
    assert task.queries[0].extra == {"gps_height_m": 94.606}
    assert task.queries[0].lon == pytest.approx(120.387, abs=0.001)
    assert task.queries[0].lat == pytest.approx(30.324, abs=0.001)
    assert task.positives[0] == tuple(range(18, 24))
    assert len(task.distractor_rows) == 18
    assert task.metres == "geodesic"
    # places are 20 m apart along one line: 3, 4, 5 are asked for
    assert task.distances_m(0, [0, 6, 12, 18, 24]).tolist() == pytest.approx(
        [60, 40, 20, 0, 20], abs=0.05
    )
    back = DENSE.load(miniature("denseuav"), "S2D")
    assert back.positives[0] == (9, 10, 11)
    assert back.queries[0].altitude_m is None


def test_dense_position_lists(copied: Miniature) -> None:
    root = copied("denseuav")
    everything = root / "Dense_GPS_ALL.txt"
    lines = everything.read_text().splitlines()
    everything.write_text(
        "\n".join(lines[:-1]) + "\ntest/query_satellite/000005/H80.tif W1.5 S2 -3\n"
    )
    last = DENSE.load(root, "D2S").queries[-1]
    assert (last.lon, last.lat, last.extra["gps_height_m"]) == (-1.5, -2.0, -3.0)
    everything.write_text("\n".join(lines[:-1]) + "\n")
    assert DENSE.load(root, "D2S").metres is None
    assert any("1 places have no position" in p.what for p in DENSE.check(root).problems)
    everything.unlink()  # the other two say the same
    assert DENSE.load(root, "D2S").metres == "geodesic"
    assert any("Dense_GPS_ALL.txt is missing" in p.what for p in DENSE.check(root).problems)
    everything.write_text("test/query_satellite/000005/H80.tif 120.1 30.2\n")
    with pytest.raises(DatasetError, match=r"Dense_GPS_ALL\.txt, line 1"):
        DENSE.load(root, "D2S")
