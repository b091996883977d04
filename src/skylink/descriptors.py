"""Descriptors computed elsewhere: `.npz`, `.npy` with ids, and the field's `pytorch_result.mat`.

- `.npz`: `query` (Q, D), `gallery` (G, D), and optionally `query_ids`, `query_labels`,
  `gallery_ids`, `gallery_labels`, each one entry a row;
- `.npy` (N, D) with a UTF-8 text file, a line for each row: its id, or id, tab, label;
- `.mat`, as University-1652's `test.py` saves it: `query_f`, `query_label`, `query_path`,
  `gallery_f`, `gallery_label`, `gallery_path` (the paths may be missing), MATLAB format 5.

Ids are texts, all different; where a file has none they are the row numbers from 0. Labels are
whole numbers or texts. Rows are brought to unit norm, float32. Nothing is unpickled.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from skylink.errors import DescriptorError
from skylink.files import write_atomic
from skylink.matfile import read_mat

MAX_BYTES = 16_000_000_000
"""Of an array, unpacked."""
MAX_ID = 1024
_ROWS = 8192

T = TypeVar("T")

_NPZ_KEYS = ("query", "query_ids", "query_labels", "gallery", "gallery_ids", "gallery_labels")
_MAT_KEYS = ("query_f", "query_path", "query_label", "gallery_f", "gallery_path", "gallery_label")


@dataclass(frozen=True, slots=True, eq=False)
class DescriptorSet:
    """The descriptors of the queries, or of the gallery.

    Attributes:
        ids: N different texts.
        labels: (N,) int64 or texts, the places shown; None where not known.
        values: (N, D) float32, unit norm.

    Raises:
        DescriptorError: they don't fit each other. `make` checks and normalises values.
    """

    ids: tuple[str, ...]
    labels: NDArray[Any] | None
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.ids)
        if self.values.ndim != 2 or len(self.values) != count or self.values.dtype != np.float32:
            raise DescriptorError(
                f"{count} ids, but descriptors are {self.values.dtype} {self.values.shape}"
            )
        if self.labels is not None and (
            self.labels.shape != (count,) or self.labels.dtype.kind not in "iU"
        ):
            raise DescriptorError(
                f"labels are {self.labels.dtype} {self.labels.shape}, "
                f"not {count} whole numbers or texts"
            )
        seen: dict[str, int] = {}
        for row, name in enumerate(self.ids):
            if not 1 <= len(name) <= MAX_ID or not name.isprintable():
                raise DescriptorError(
                    f"the id of row {row}, {name[:80]!r}, is empty, too long or not printable"
                )
            if seen.setdefault(name, row) != row:
                raise DescriptorError(
                    f"the id {name!r} is there twice, in rows {seen[name]} and {row}",
                    hint="ids must tell images apart: take paths, not file names alone",
                )

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def make(
        cls,
        values: NDArray[Any],
        *,
        ids: tuple[str, ...] | None = None,
        labels: NDArray[Any] | None = None,
    ) -> DescriptorSet:
        """From any real (N, D) array, which may be memory-mapped.

        Args:
            values: brought to unit norm.
            ids: None: the row numbers.
            labels: (N,) whole numbers or texts.

        Raises:
            DescriptorError: names the first row that is NaN, infinite or zero; or shapes, ids.
        """
        if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
            raise DescriptorError(
                f"descriptors are {values.dtype} of shape {values.shape}, not real numbers (N, D)"
            )
        unit = np.empty(values.shape, np.float32)
        for start in range(0, len(values), _ROWS):
            rows = np.asarray(values[start : start + _ROWS], dtype=np.float64)
            with np.errstate(over="ignore"):
                norm = np.sqrt(np.einsum("nd,nd->n", rows, rows))
            bad = ~(np.isfinite(norm) & (norm > 0))
            if bad.any():
                first = int(np.flatnonzero(bad)[0])
                what = "is all zeros" if norm[first] == 0 else "has a NaN or infinite value"
                raise DescriptorError(
                    f"the descriptor of row {start + first} {what}",
                    hint="a photo that failed has no descriptor: compute it again or leave it out",
                )
            unit[start : start + _ROWS] = rows / norm[:, None]
        names = tuple(map(str, range(len(values)))) if ids is None else ids
        if labels is not None and labels.dtype.kind in "iu":
            labels = labels.astype(np.int64)
        return cls(names, labels, unit)


@dataclass(frozen=True, slots=True)
class DescriptorPair:
    """Queries and gallery, of one dimension.

    Raises:
        DescriptorError: the dimensions differ, or only one side has labels, or their kinds differ.
    """

    query: DescriptorSet
    gallery: DescriptorSet

    def __post_init__(self) -> None:
        dimensions = self.query.values.shape[1], self.gallery.values.shape[1]
        if dimensions[0] != dimensions[1]:
            raise DescriptorError(
                f"queries have {dimensions[0]} dimensions and the gallery {dimensions[1]}",
                hint="take both from the same model",
            )
        labels = self.query.labels, self.gallery.labels
        if len({None if side is None else side.dtype.kind for side in labels}) > 1:
            raise DescriptorError(
                "labels of queries and gallery are not of one kind (numbers, texts, none)",
                hint="839 and 0839 are different labels: write both sides alike",
            )


def read_pair(path: str | Path) -> DescriptorPair:
    """Read `.npz` or `.mat`; the module says what they hold.

    Raises:
        DescriptorError: says which array and why.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _pair(path, _npz(path), _NPZ_KEYS)
    if suffix == ".mat":
        arrays = _explained(path, lambda: read_mat(path, _MAT_KEYS, max_bytes=MAX_BYTES))
        return _pair(path, arrays, _MAT_KEYS)
    raise DescriptorError(
        f"{path} is neither .npz nor .mat",
        hint="for .npy give queries and gallery one by one, each with its ids",
    )


def read_npy(path: str | Path, ids: str | Path) -> DescriptorSet:
    """Read a `.npy` of descriptors and the text file of their ids (and labels, after a tab).

    Raises:
        DescriptorError: says which row or line and why.
    """
    path, ids = Path(path), Path(ids)

    def read() -> DescriptorSet:
        with path.open("rb") as file:
            _check_header(file, path.stat().st_size, str(path))
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if ids.stat().st_size > (MAX_ID + 64) * 4 * max(1, len(values)):
            raise DescriptorError(f"{ids} is too large for the ids of {len(values)} rows")
        lines = ids.read_text(encoding="utf-8-sig").splitlines()
        if len(lines) != len(values):
            raise DescriptorError(
                f"{ids} has {len(lines)} lines, but {path} {len(values)} rows",
                hint="one line for each row, in the same order, without a header",
            )
        cells = [line.split("\t") for line in lines]
        wide = next((n for n, c in enumerate(cells, 1) if len(c) != len(cells[0]) or len(c) > 2), 0)
        if wide:
            raise DescriptorError(
                f"{ids}, line {wide}: not an id, or id, tab, label, as in the first line"
            )
        labels = np.array([c[1] for c in cells], dtype=np.str_) if len(cells[0]) == 2 else None
        return DescriptorSet.make(values, ids=tuple(c[0] for c in cells), labels=labels)

    return _explained(path, read)


def write_npz(path: str | Path, pair: DescriptorPair) -> Path:
    """Write a pair as `.npz`, as `read_pair` reads it.

    Raises:
        OutputError: the file can't be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, part in (("query", pair.query), ("gallery", pair.gallery)):
        arrays[name] = part.values
        arrays[f"{name}_ids"] = np.array(part.ids, dtype=np.str_)
        if part.labels is not None:
            arrays[f"{name}_labels"] = part.labels
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return write_atomic(path, buffer.getvalue())


def _pair(path: Path, arrays: Mapping[str, NDArray[Any]], keys: tuple[str, ...]) -> DescriptorPair:
    """Queries and gallery from arrays under a format's six names: values, ids, labels of each."""
    parts = []
    for values, ids, labels in (keys[:3], keys[3:]):
        if values not in arrays:
            raise DescriptorError(
                f"{path} has no array {values!r}; it has {', '.join(sorted(arrays)) or 'none'}",
                hint=f"it needs {keys[0]!r} and {keys[3]!r}; the ids and labels are "
                f"{', '.join(repr(k) for k in keys if k not in (keys[0], keys[3]))}",
            )
        try:
            names = None
            if ids in arrays:
                names = tuple(map(str, _column(ids, arrays[ids]).tolist()))
            label = _column(labels, arrays[labels]) if labels in arrays else None
            parts.append(DescriptorSet.make(arrays[values], ids=names, labels=label))
        except DescriptorError as error:
            raise DescriptorError(
                f"{path}, {values!r}: {error.message}", hint=error.hint
            ) from error
    try:
        return DescriptorPair(*parts)
    except DescriptorError as error:
        raise DescriptorError(f"{path}: {error.message}", hint=error.hint) from error


def _column(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """(N,) whole numbers or texts, of an array that may be a MATLAB row or column of doubles."""
    column = values.reshape(-1) if max(values.shape, default=0) == values.size else values
    if column.dtype.kind == "f" and (np.abs(column) < 2**53).all() and (column % 1 == 0).all():
        column = column.astype(np.int64)
    if column.ndim != 1 or column.dtype.kind not in "iuU":
        raise DescriptorError(
            f"{name!r} is {values.dtype} {values.shape}, not a whole number or a text a row"
        )
    return column


def _npz(path: Path) -> dict[str, NDArray[Any]]:
    def read() -> dict[str, NDArray[Any]]:
        arrays = {}
        with zipfile.ZipFile(path) as archive:
            for name in _NPZ_KEYS:
                if f"{name}.npy" not in archive.namelist():
                    continue
                info = archive.getinfo(f"{name}.npy")
                with archive.open(info) as member:
                    _check_header(member, info.file_size, f"{path}, {name!r}")
                with archive.open(info) as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
        return arrays

    return _explained(path, read)


def _check_header(file: IO[bytes], size: int, where: str) -> None:
    """A .npy header must fit the bytes that follow, before any memory is taken for them."""
    version = np.lib.format.read_magic(file)
    readers: dict[tuple[int, int], Callable[[IO[bytes]], tuple[Any, ...]]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise DescriptorError(f"{where} is .npy version {version}, not 1.0 or 2.0")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject or dtype.kind not in "fiuU":
        raise DescriptorError(
            f"{where} holds {'Python objects' if dtype.hasobject else dtype}, not numbers or texts",
            hint="convert ids with np.array(ids, dtype=str); nothing is unpickled",
        )
    if math.prod(shape) * dtype.itemsize > MAX_BYTES:
        raise DescriptorError(f"{where} {shape} is too large to read")
    if file.tell() + math.prod(shape) * dtype.itemsize != size:
        raise DescriptorError(f"{where} {shape} does not have the bytes that its header says")


def _explained(path: Path, read: Callable[[], T]) -> T:
    """Turn what broken files make NumPy, zipfile and zlib raise into a `DescriptorError`."""
    try:
        return read()
    except DescriptorError:
        raise
    except NotImplementedError as error:
        raise DescriptorError(
            f"cannot read {path}: it is a MATLAB 7.3 file, or packed in an unknown way",
            hint="save it again with scipy.io.savemat or np.savez",
        ) from error
    except Exception as error:  # parsers of untrusted bytes raise anything
        reason = getattr(error, "strerror", None) or str(error)
        raise DescriptorError(f"cannot read {path}: {reason}") from error
