"""Numbers and texts from MATLAB 5 files, the format of `scipy.io.savemat`.

Our own reader of these two kinds of arrays, because the files come from anywhere: SciPy's `loadmat`
(1.17.1) crashed the whole process on damaged ones in our tests. Here every length is checked before
it is used.

Layout: "MAT-File Format", The MathWorks, chapter 1. A header of 128 bytes, then elements: a tag
(type, bytes) and the data; those of a matrix are again elements: flags, dimensions, name, values.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MATRIX, COMPRESSED = 14, 15
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_CHARACTERS = {2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_OTHERS = {1: "cell array", 2: "struct", 5: "sparse matrix", 16: "function"}
_CHAR, _NUMERIC = 4, range(6, 16)
_COMPLEX = 0x0800


def read_mat(
    path: str | Path, names: Collection[str], *, max_bytes: int
) -> dict[str, NDArray[Any]]:
    """The arrays of these names that a file has.

    Args:
        path: MATLAB 5 file (also called version 6 or 7), packed or not, of either byte order.
        names: those wanted; others are passed over.
        max_bytes: bound of an array, unpacked.

    Returns:
        Real numbers (rows, columns, ...) in the type that they are stored in, or texts (rows,)
        without the blanks that MATLAB pads them with.

    Raises:
        NotImplementedError: version 7.3 (HDF5).
        ValueError: the file is damaged, too large, or a wanted array is of another kind.
        OSError: it can't be read.
    """
    found: dict[str, NDArray[Any]] = {}
    with Path(path).open("rb") as file:
        head = file.read(128)
        order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
        if order is None:
            raise ValueError("it is not a MATLAB 5 file")
        if struct.unpack(order + "H", head[124:126])[0] != 0x0100:
            raise NotImplementedError("MATLAB 7.3")
        while tag := file.read(8):
            if len(tag) < 8:
                raise ValueError("it ends in the middle of an element")
            kind, size = struct.unpack(order + "II", tag)
            if size > max_bytes:
                raise ValueError(f"an element of {size:,} bytes is too large")
            data = file.read(size)
            if len(data) < size:
                raise ValueError("it ends in the middle of an element")
            if kind == COMPRESSED:
                kind, data = _unpacked(data, order, max_bytes)
            if kind == MATRIX:
                name, array = _matrix(memoryview(data), order, names)
                if array is not None:
                    found[name] = array
    return found


def _unpacked(data: bytes, order: str, max_bytes: int) -> tuple[int, bytes]:
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(data, max_bytes + 8)
    except zlib.error as error:
        raise ValueError(f"a packed element is damaged: {error}") from error
    if not unpacker.eof:
        raise ValueError("a packed element is cut off or too large")
    if len(plain) < 8:
        raise ValueError("a packed element is too short")
    kind, size = struct.unpack(order + "II", plain[:8])
    if size > len(plain) - 8:
        raise ValueError("a packed element is cut off")
    return kind, plain[8 : 8 + size]


def _element(data: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """(type, data, where the next begins) of the element at an offset of a matrix."""
    if at + 8 > len(data):
        raise ValueError("an array is cut off")
    kind, size = struct.unpack(order + "II", data[at : at + 8])
    start = at + 8
    if kind >> 16:  # up to four bytes, within the tag
        kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if size > 4:
            raise ValueError("a short element is too long")
    if start + size > len(data):
        raise ValueError("an array is cut off")
    following = at + 8 if start == at + 4 else start + -(-size // 8) * 8
    return kind, data[start : start + size], following


def _matrix(
    data: memoryview, order: str, names: Collection[str]
) -> tuple[str, NDArray[Any] | None]:
    """(name, array) of a matrix; None for the array where it is not wanted."""
    _, flags, at = _element(data, 0, order)
    _, sizes, at = _element(data, at, order)
    _, label, at = _element(data, at, order)
    name = bytes(label).decode("latin-1")
    if name not in names:
        return name, None
    if len(flags) != 8 or len(sizes) % 4 or not 8 <= len(sizes) <= 32:
        raise ValueError(f"{name!r} has no flags or dimensions")
    flag = struct.unpack(order + "I", flags[:4])[0]
    shape = tuple(np.frombuffer(sizes, order + "i4").tolist())
    if min(shape) < 0:
        raise ValueError(f"{name!r} has the dimensions {shape}")
    family = flag & 0xFF
    if family != _CHAR and (family not in _NUMERIC or flag & _COMPLEX):
        what = "complex" if family in _NUMERIC else f"a MATLAB {_OTHERS.get(family, 'object')}"
        raise ValueError(f"{name!r} is {what}, not real numbers or a list of texts")
    kind, values, _ = _element(data, at, order)
    if family == _CHAR:
        return name, _texts(name, kind, values, shape, order)
    if kind not in _NUMBERS:
        raise ValueError(f"{name!r} has values of the unknown type {kind}")
    array = np.frombuffer(values, order + _NUMBERS[kind]) if len(values) else np.empty(0)
    if array.size != math.prod(shape):
        raise ValueError(f"{name!r} has {array.size} values for the dimensions {shape}")
    return name, array.reshape(shape, order="F").astype(array.dtype.newbyteorder("="), copy=False)


def _texts(
    name: str, kind: int, values: memoryview, shape: tuple[int, ...], order: str
) -> NDArray[np.str_]:
    """(rows,) texts of a table of characters, which is stored column by column."""
    if kind not in _CHARACTERS or len(shape) != 2:
        raise ValueError(f"{name!r} is not a list of texts")
    encoding = _CHARACTERS[kind]
    if encoding != "utf-8":
        encoding += "-le" if order == "<" else "-be"
    text = bytes(values).decode(encoding)
    rows, width = shape
    if len(text) != rows * width:
        raise ValueError(f"{name!r} has {len(text)} characters for the dimensions {shape}")
    return np.array([text[row::rows].rstrip(" ") for row in range(rows)], dtype=np.str_)
