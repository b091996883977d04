"""Folders of datasets: order, what is passed over, and lists that point elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.datasets import tree as tree_module
from skylink.datasets.tree import Tree
from skylink.errors import DatasetError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_lists_in_one_order_and_counts_what_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "p/0010/b.JPG", "p/0010/a.jpeg", "p/0002/x.Tif", "p/0010/notes.txt")
    touch(tmp_path, "p/.DS_Store", "p/0002/Thumbs.db", "p/0002/.x.jpg", "p/__MACOSX/y.jpg")
    (tmp_path / "p/0003").mkdir()
    (tmp_path / "p/0002/link.jpg").symlink_to(tmp_path / "p/0010/b.JPG")
    (tmp_path / "p/0004").symlink_to(tmp_path / "p/0010")
    tree = Tree(tmp_path)
    for _ in range(2):  # a second look counts nothing twice
        assert list(tree.places("p")) == [("0002", ("x.Tif",)), ("0010", ("a.jpeg", "b.JPG"))]
    assert tree.ignored == {"hidden files": 4, "symbolic links": 2, "empty folders": 1}
    assert tree.has("p/0010/notes.txt")
    assert not tree.has("p/0004")
    assert not tree.has("q/0010/b.JPG")


def test_a_linked_root_is_fine(tmp_path: Path) -> None:
    touch(tmp_path, "real/p/1/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list(Tree(tmp_path / "link").places("p")) == [("1", ("a.jpg",))]


def test_what_is_missing_is_named_by_its_topmost_folder(tmp_path: Path) -> None:
    touch(tmp_path, "train/drone/1/a.jpg")
    with pytest.raises(DatasetError, match=r"test is missing") as caught:
        Tree(tmp_path).folders("test/query_drone")
    assert "query_drone" not in caught.value.message
    with pytest.raises(DatasetError, match=r"train/street is missing"):
        Tree(tmp_path).folders("train/street")
    with pytest.raises(DatasetError, match="is not a folder"):
        Tree(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "listed",
    ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "C:/a.jpg", "a\\b.jpg", "", "a\0.jpg", ".."],
)
def test_lists_cannot_leave_the_dataset(tmp_path: Path, listed: str) -> None:
    with pytest.raises(DatasetError, match="not a path in the dataset"):
        Tree(tmp_path).inside(listed)


@given(st.text(alphabet=st.sampled_from("ab./\\:\0~"), max_size=12))
def test_paths_of_lists_stay_inside(listed: str) -> None:
    tree = Tree(os.path.dirname(__file__))
    try:
        relative = tree.inside(listed)
    except DatasetError:
        return
    root = os.path.realpath(tree.root)
    assert os.path.realpath(os.path.join(root, relative)).startswith(root)


def test_text_is_bounded_and_must_be_text(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\n")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "bad.json").write_text("{")
    tree = Tree(tmp_path)
    assert tree.text("list.txt") == "a\nb\n"
    with pytest.raises(DatasetError, match="more than 3 bytes"):
        tree.text("list.txt", limit=3)
    with pytest.raises(DatasetError, match="not UTF-8"):
        tree.text("bad.txt")
    with pytest.raises(DatasetError, match="not JSON"):
        tree.json("bad.json")
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(DatasetError, match="not JSON"):
        tree.json("deep.json")
    with pytest.raises(DatasetError, match=r"none\.txt is missing"):
        tree.text("none.txt")


def test_folders_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    monkeypatch.setattr(tree_module, "MAX_ENTRIES", 2)
    with pytest.raises(DatasetError, match="more than 2 entries"):
        Tree(tmp_path).pictures()
