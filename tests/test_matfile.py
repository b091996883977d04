"""The MATLAB reader against scipy.io.savemat, and on damaged files, where loadmat crashes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import loadmat, savemat

from skylink.matfile import read_mat

LARGE = 10**6
kinds = st.sampled_from([np.dtype(c) for c in ("i1", "u1", "i2", "u2", "i4", "i8", "f4", "f8")])
texts = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF), min_size=1, max_size=9)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("mat") / "a.mat"


@given(
    array=kinds.flatmap(
        lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=2, max_dims=3, max_side=5))
    ),
    words=st.lists(texts, min_size=1, max_size=4),
    packed=st.booleans(),
)
def test_what_savemat_writes(array, words, packed, path) -> None:
    savemat(path, {"x": array, "t": words, "other": {"a": 1}}, do_compression=packed)
    found = read_mat(path, ["x", "t", "none"], max_bytes=LARGE)
    assert set(found) == {"x", "t"}
    assert found["x"].dtype == array.dtype
    np.testing.assert_array_equal(found["x"], array)
    assert found["t"].tolist() == words
    np.testing.assert_array_equal(found["x"], loadmat(path)["x"])


def element(order: str, kind: int, data: bytes) -> bytes:
    return struct.pack(order + "II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def file_of(order: str, family: int, shape: tuple[int, ...], kind: int, data: bytes) -> bytes:
    """A file with one array x, written as the format's description says."""
    body = element(order, 6, struct.pack(order + "II", family, 0))
    body += element(order, 5, struct.pack(f"{order}{len(shape)}i", *shape))
    body += struct.pack(order + "I", 1 << 16 | 1) + b"x\0\0\0"  # a short element
    body += element(order, kind, data)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "H", 0x0100)
    return head + (b"IM" if order == "<" else b"MI") + element(order, 14, body)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_and_what_matlab_itself_writes(path, order) -> None:
    # a matrix of doubles that fit bytes is stored as bytes, column by column
    path.write_bytes(file_of(order, 6, (2, 3), 2, bytes([1, 2, 3, 4, 5, 6])))
    assert read_mat(path, ["x"], max_bytes=LARGE)["x"].tolist() == [[1, 3, 5], [2, 4, 6]]
    path.write_bytes(file_of(order, 6, (1, 2), 9, struct.pack(order + "2d", 0.5, -2)))
    assert read_mat(path, ["x"], max_bytes=LARGE)["x"].tolist() == [[0.5, -2.0]]
    wide = "aébß ç".encode("utf-16-le" if order == "<" else "utf-16-be")
    path.write_bytes(file_of(order, 4, (2, 3), 4, wide))
    assert read_mat(path, ["x"], max_bytes=LARGE)["x"].tolist() == ["ab", "éßç"]


@pytest.mark.parametrize(
    ("family", "shape", "kind", "data", "message"),
    [
        (6, (2, 3), 2, bytes(5), "5 values for the dimensions"),
        (6, (-1, 3), 2, bytes(5), "dimensions"),
        (6, (2,), 2, bytes(2), "no flags or dimensions"),
        (6, (1, 1), 99, bytes(8), "unknown type 99"),
        (4, (2, 3), 16, b"abcde", "5 characters"),
        (4, (1, 1), 16, b"\xff", "utf-8"),
        (1, (1, 1), 14, b"", "MATLAB cell array"),
        (5, (1, 1), 2, b"", "MATLAB sparse matrix"),
        (0x0800 | 6, (1, 1), 2, b"1", "complex"),
    ],
)
def test_arrays_that_cannot_be_used(path, family, shape, kind, data, message) -> None:
    content = file_of("<", family, shape, kind, data)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_mat(path, ["x"], max_bytes=LARGE)
    assert read_mat(path, ["y"], max_bytes=LARGE) == {}


def test_sizes_are_bounded_also_when_unpacked(path) -> None:
    zeros = {"x": np.zeros((300, 300))}
    for packed, message in ((False, "too large"), (True, "cut off or too large")):
        savemat(path, zeros, do_compression=packed)
        with pytest.raises(ValueError, match=message):
            read_mat(path, ["x"], max_bytes=10_000)
        assert read_mat(path, ["x"], max_bytes=LARGE)["x"].shape == (300, 300)


@settings(max_examples=300)
@given(
    packed=st.booleans(),
    changes=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 1500),
)
def test_damaged_files_raise_and_never_crash(packed, changes, cut, path) -> None:
    savemat(path, {"x": np.arange(12.0).reshape(3, 4), "t": ["ab", "c"]}, do_compression=packed)
    data = bytearray(path.read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    path.write_bytes(data[: max(0, len(data) - cut)] if cut % 2 else data)
    try:
        found = read_mat(path, ["x", "t"], max_bytes=LARGE)
    except (ValueError, NotImplementedError):
        return
    assert set(found) <= {"x", "t"}
