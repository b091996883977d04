"""Descriptors of others: every format round, and what broken ones say."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import savemat

from skylink import descriptors
from skylink.descriptors import (
    DescriptorPair,
    DescriptorSet,
    read_npy,
    read_pair,
    write_npz,
)
from skylink.errors import DescriptorError
from skylink.protocol import rank_metrics
from skylink.relevance import Distractors, Relevance

RNG = np.random.default_rng(0)
QUERY, GALLERY = RNG.standard_normal((3, 4)), RNG.standard_normal((5, 4))


def write_mat(path, **changes: object) -> None:
    """As University-1652's test.py does: labels as lists of int, paths as lists of text."""
    arrays = {
        "query_f": QUERY.astype(np.float32),
        "query_label": [839, 840, 841],
        "query_path": ["q/0839/image-01.jpeg", "q/0840/i.jpeg", "q/0841/i.jpeg"],
        "gallery_f": GALLERY.astype(np.float32),
        "gallery_label": [839, 840, 841, 842, 7],
        "gallery_path": [f"g/{i}.jpg" for i in range(5)],
    }
    merged = {**arrays, **changes}
    savemat(path, {k: v for k, v in merged.items() if v is not None})


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int16, np.uint8]),
        st.tuples(st.integers(1, 5), st.integers(1, 5)),
    )
)
def test_any_array_gives_unit_vectors_or_says_why_not(values) -> None:
    wide = values.astype(np.float64)
    with np.errstate(over="ignore"):
        norm = np.sqrt((wide**2).sum(axis=1))
    if np.isfinite(norm).all() and (norm > 0).all():
        unit = DescriptorSet.make(values).values
        assert unit.dtype == np.float32
        np.testing.assert_allclose(unit, wide / norm[:, None], atol=1e-7)
    else:
        first = int(np.flatnonzero(~(np.isfinite(norm) & (norm > 0)))[0])
        with pytest.raises(DescriptorError, match=f"row {first} (is all zeros|has a NaN)"):
            DescriptorSet.make(values)


def test_rows_are_checked_in_every_chunk(monkeypatch) -> None:
    monkeypatch.setattr(descriptors, "_ROWS", 2)
    values = np.ones((5, 3))
    values[4] = 0
    with pytest.raises(DescriptorError, match="row 4 is all zeros"):
        DescriptorSet.make(values)
    values[3, 1] = np.nan
    with pytest.raises(DescriptorError, match="row 3 has a NaN"):
        DescriptorSet.make(values)


def test_npz(tmp_path) -> None:
    path = tmp_path / "base.npz"
    np.savez(
        path,
        query=QUERY,
        query_ids=["a", "b", "c"],
        query_labels=["0839", "0840", "0841"],
        gallery=GALLERY.astype(np.float16),
        gallery_labels=["0839", "0840", "0841", "x", "y"],
    )
    pair = read_pair(path)
    assert pair.query.ids == ("a", "b", "c")
    assert pair.gallery.ids == ("0", "1", "2", "3", "4")
    assert pair.gallery.labels.tolist() == ["0839", "0840", "0841", "x", "y"]
    np.testing.assert_allclose(np.linalg.norm(pair.gallery.values, axis=1), 1, atol=1e-6)
    again = read_pair(write_npz(tmp_path / "again.npz", pair))
    for part in ("query", "gallery"):
        one, two = getattr(pair, part), getattr(again, part)
        assert one.ids == two.ids
        np.testing.assert_array_equal(one.labels, two.labels)
        np.testing.assert_allclose(one.values, two.values, atol=1e-7)


def test_pytorch_result_mat_to_figures(tmp_path) -> None:
    path = tmp_path / "pytorch_result.mat"
    write_mat(path)
    pair = read_pair(path)
    assert pair.query.ids[0] == "q/0839/image-01.jpeg"
    assert pair.query.ids[1] == "q/0840/i.jpeg"  # MATLAB pads texts with blanks
    assert pair.gallery.labels.tolist() == [839, 840, 841, 842, 7]
    figures = rank_metrics(
        pair.query.values,
        pair.gallery.values,
        Relevance.from_labels(pair.query.labels, pair.gallery.labels),
        distractors=Distractors.dropped,
    )
    assert (figures.queries, figures.gallery, figures.ranked) == (3, 5, 3)
    write_mat(path, query_path=None, gallery_path=None)
    assert read_pair(path).query.ids == ("0", "1", "2")


def test_npy_with_ids(tmp_path) -> None:
    path, ids = tmp_path / "query.npy", tmp_path / "query.txt"
    np.save(path, QUERY)
    ids.write_text("a b.jpg\nç.jpg\nc\n", encoding="utf-8")
    assert read_npy(path, ids).ids == ("a b.jpg", "ç.jpg", "c")
    assert read_npy(path, ids).labels is None
    ids.write_text("a\t0839\nb\t0840\nc\t0839\n")
    assert read_npy(path, ids).labels.tolist() == ["0839", "0840", "0839"]
    for text, message in (
        ("a\nb\n", "2 lines, but .* 3 rows"),
        ("a\t1\nb\nc\t1\n", "line 2"),
        ("a\t1\t2\n" * 3, "line 1"),
        ("a\nb\na\n", "'a' is there twice, in rows 0 and 2"),
        ("a\n\nc\n", "the id of row 1, '', is empty"),
        ("x" * 100_000, "too large"),
    ):
        ids.write_text(text)
        with pytest.raises(DescriptorError, match=message):
            read_npy(path, ids)
    ids.write_bytes(b"\xff\nb\nc\n")
    with pytest.raises(DescriptorError, match="cannot read"):
        read_npy(path, ids)
    with pytest.raises(DescriptorError, match="cannot read"):
        read_npy(path, tmp_path / "none.txt")


def test_queries_and_gallery_must_fit() -> None:
    query = DescriptorSet.make(QUERY, labels=np.array([1, 2, 3]))
    with pytest.raises(DescriptorError, match="4 dimensions and the gallery 3"):
        DescriptorPair(query, DescriptorSet.make(GALLERY[:, :3], labels=np.arange(5)))
    with pytest.raises(DescriptorError, match="one kind"):
        DescriptorPair(query, DescriptorSet.make(GALLERY))
    with pytest.raises(DescriptorError, match="one kind"):
        DescriptorPair(query, DescriptorSet.make(GALLERY, labels=np.array(list("12345"))))
    with pytest.raises(DescriptorError, match="labels are"):
        DescriptorSet.make(QUERY, labels=np.array([1, 2]))
    with pytest.raises(DescriptorError, match="2 ids"):
        DescriptorSet.make(QUERY, ids=("a", "b"))
    for values in (QUERY[0], QUERY[:0], QUERY.astype(complex)):
        with pytest.raises(DescriptorError, match="real numbers"):
            DescriptorSet.make(values)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"gallery": GALLERY}, "no array 'query'; it has gallery"),
        ({"query": QUERY, "gallery": GALLERY[:, :2]}, "dimensions"),
        ({"query": QUERY, "gallery": GALLERY * np.nan}, "'gallery': the descriptor of row 0"),
        ({"query": QUERY, "gallery": GALLERY, "query_ids": ["a", "b", "a"]}, "'a' is there twice"),
        ({"query": QUERY, "gallery": GALLERY, "query_ids": ["a"]}, "1 ids"),
        ({"query": QUERY, "gallery": GALLERY, "query_ids": [1.5, 2, 3]}, "whole number or a text"),
        (
            {"query": QUERY, "gallery": GALLERY, "query_ids": np.array(["a", 1, None], object)},
            "Python objects",
        ),
    ],
)
def test_broken_npz_says_what(tmp_path, arrays, message) -> None:
    path = tmp_path / "base.npz"
    np.savez(path, **arrays)
    with pytest.raises(DescriptorError, match=message):
        read_pair(path)


def header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"shape": shape, "fortran_order": False, "descr": "<f4"}
    )
    return buffer.getvalue()


def test_headers_that_lie_take_no_memory(tmp_path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("a\n")
    for shape, message in (((10**9, 1024), "too large"), ((1000, 8), "does not have the bytes")):
        content = header(shape) + b"\0" * 32
        path = tmp_path / "a.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("query.npy", content)
        with pytest.raises(DescriptorError, match=message):
            read_pair(path)
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(DescriptorError, match=message):
            read_npy(tmp_path / "a.npy", ids)


def test_mat_files_that_cannot_be_used(tmp_path) -> None:
    path = tmp_path / "pytorch_result.mat"
    write_mat(path, query_path=np.array(["a", "b", "c"], object))
    with pytest.raises(DescriptorError, match="MATLAB cell"):
        read_pair(path)
    write_mat(path, gallery_f=None)
    with pytest.raises(DescriptorError, match="no array 'gallery_f'"):
        read_pair(path)
    write_mat(path, gallery_f=GALLERY * np.inf)
    with pytest.raises(DescriptorError, match="'gallery_f': the descriptor of row 0"):
        read_pair(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 100)
    with pytest.raises(DescriptorError, match=r"MATLAB 7\.3"):
        read_pair(path)


@given(cut=st.integers(0, 2000), flip=st.integers(0, 2000), value=st.integers(0, 255))
def test_damaged_files_never_give_a_traceback(cut, flip, value, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    write_npz(
        folder / "a.npz", DescriptorPair(DescriptorSet.make(QUERY), DescriptorSet.make(GALLERY))
    )
    write_mat(folder / "a.mat")
    for name in ("a.npz", "a.mat"):
        data = bytearray((folder / name).read_bytes())
        data[flip % len(data)] = value
        (folder / name).write_bytes(data[: max(0, len(data) - cut)])
        try:
            pair = read_pair(folder / name)
        except DescriptorError:
            continue
        assert np.isfinite(pair.query.values).all()


def test_other_names(tmp_path) -> None:
    with pytest.raises(DescriptorError, match=r"neither \.npz nor \.mat"):
        read_pair(tmp_path / "base.npy")
    with pytest.raises(DescriptorError, match="cannot read"):
        read_pair(tmp_path / "none.npz")
