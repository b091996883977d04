"""Mined lists as Parquet: the same lists, header, checks and hash as JSONL, and broken files."""

from __future__ import annotations

import contextlib
import gc
import json
import weakref
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mined_helpers import PROVENANCE, candidate, mined, others
from mined_strategies import mined_lists, text
from skylink.errors import OutputError, QueriesError
from skylink.mined import Header
from skylink.minedfile import MinedFile, read_header, write_mined
from skylink.minedparquet import GROUP, KEY, SCHEMA

RELAXED = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(data=st.data(), names=st.lists(text, min_size=1, max_size=4, unique=True))
@RELAXED
def test_it_holds_what_jsonl_holds(data, names, tmp_path) -> None:
    lists = [data.draw(mined_lists(name)) for name in names]
    header = write_mined(tmp_path / "a.jsonl", PROVENANCE, lists)
    assert write_mined(tmp_path / "a.parquet", PROVENANCE, lists) == header
    found = MinedFile(tmp_path / "a.parquet")
    assert list(found) == lists
    assert [found[i] for i in range(len(found))] == lists
    assert found[::-1] == lists[::-1]
    assert found.queries == tuple(names)
    assert found.header == header == read_header(found.path)
    # and back, to the same bytes
    write_mined(tmp_path / "b.jsonl", PROVENANCE, found)
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    write_mined(tmp_path / "b.parquet", PROVENANCE, MinedFile(tmp_path / "b.jsonl"))
    assert (tmp_path / "b.parquet").read_bytes() == found.path.read_bytes()


def test_lists_of_several_row_groups_are_found_by_number(tmp_path: Path) -> None:
    lists = others(*(f"{n}" for n in range(2 * GROUP + 3)))
    path = tmp_path / "a.parquet"
    write_mined(path, PROVENANCE, lists)
    assert pq.ParquetFile(path).num_row_groups == 3
    found = MinedFile(path)
    for number in (0, GROUP - 1, GROUP, 2 * GROUP, 2 * GROUP + 2, 1):
        assert found[number] == lists[number]
    assert [each.query for each in found] == [each.query for each in lists]


def test_others_can_read_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.PARQUET"
    header = write_mined(path, PROVENANCE, others("a", "b"))
    table = pq.read_table(path)
    assert table.column("query").to_pylist() == ["a", "b"]
    labels = [c["label"] for c in table.column("candidates").to_pylist()[0]]
    assert labels == [0.5, 1.0, 0.0]
    assert Header.model_validate_json(pq.read_metadata(path).metadata[KEY]) == header


def test_lists_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skylink.minedparquet.GROUP", 8)
    alive: list[weakref.ref] = []

    def remembered(lists):
        for number, one in enumerate(lists):
            alive.append(weakref.ref(one))
            if number % 50 == 0:
                gc.collect()
                assert sum(ref() is not None for ref in alive) < 5
            yield one

    path = tmp_path / "a.parquet"
    write_mined(path, PROVENANCE, remembered(mined(str(i)) for i in range(200)))
    assert sum(1 for _ in remembered(MinedFile(path))) == 200


# writing


def test_what_is_refused_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_mined(path, PROVENANCE, others("a"))
    before = path.read_bytes()
    huge = mined(candidates=(candidate("x", 1, is_ground_truth=True, label=1.0),
                             candidate("y", 2**70)))  # fmt: skip
    without = mined("q", candidates=(candidate("a", 1), candidate("b", 2)))
    for lists, message in (
        ([], "no lists"),
        (others("a", "a"), "'a' is there twice"),
        ([without], "query 'q' has no positive"),
        ([huge], "don't fit into Parquet"),
    ):
        with pytest.raises(QueriesError, match=message):
            write_mined(path, PROVENANCE, lists)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_mined(tmp_path / "a.parquet", PROVENANCE, others("a"))
    assert not list(tmp_path.iterdir())


# broken files


def rewritten(path: Path, table: pa.Table, header: bytes | None, **options: object) -> None:
    """A file of these rows with this header."""
    with pq.ParquetWriter(path, table.schema.with_metadata(None)) as writer:
        writer.write_table(table, **options)
        if header is not None:
            writer.add_key_value_metadata({KEY: header})


def good(folder: Path, *names: str) -> tuple[pa.Table, bytes]:
    path = folder / "good.parquet"
    write_mined(path, PROVENANCE, others(*names))
    table = pq.read_table(path)
    return table, pq.read_metadata(path).metadata[KEY]


def changed(table: pa.Table, row: int, change) -> pa.Table:
    rows = table.to_pylist()
    change(rows[row])
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["candidates"].pop(1), "no positive"),
        (lambda row: row.update(candidates=row["candidates"][1:2]), "at least 2 items"),
        (lambda row: row["candidates"][0].update(label=1.5), r"candidates\.0\.label"),
        (lambda row: row["candidates"][0].update(label=float("nan")), r"candidates\.0\.label"),
        (lambda row: row["candidates"][0].update(id=None), r"candidates\.0\.id: Field required"),
        (lambda row: row["candidates"][0].update(window=[1, 2, 3]), r"candidates\.0\.window"),
        (lambda row: row.update(telemetry={"lat": 3.0}), "telemetry has a position"),
        (lambda row: row.update(query="a"), "query 'a' is there twice"),
    ],
)
def test_broken_rows_are_named(change, message, tmp_path) -> None:
    table, header = good(tmp_path, "a", "b", "c")
    path = tmp_path / "lists.parquet"
    rewritten(path, changed(table, 1, change), header)
    with pytest.raises(QueriesError, match=message) as caught:
        MinedFile(path)
    assert "lists.parquet, list 2" in caught.value.message


def test_files_that_were_cut_joined_or_changed_are_refused(tmp_path: Path) -> None:
    table, header = good(tmp_path, "a", "b", "c")
    path = tmp_path / "lists.parquet"
    whole = (tmp_path / "good.parquet").read_bytes()
    cases = {
        "has 2 of 3 lists": lambda: rewritten(path, table.slice(0, 2), header),
        "sha256": lambda: rewritten(path, table.take([1, 0, 2]), header),
        "not the header": lambda: rewritten(path, table, None),
        "header: version": lambda: rewritten(
            path, table, json.dumps(json.loads(header) | {"version": 2}).encode()
        ),
        "columns are others": lambda: rewritten(path, table.drop_columns(["path"]), header),
        "is not Parquet": lambda: path.write_bytes(whole[:-40]),
        "lists.parquet is not Parquet": lambda: path.write_bytes(b'{"format":"skylink-mined"}\n'),
        "Parquet as `skylink mine` writes it": lambda: path.write_bytes(b""),
    }
    for message, write in cases.items():
        write()
        with pytest.raises(QueriesError, match=message):
            MinedFile(path)
    rewritten(path, table, header, row_group_size=1)  # the same lists, in other groups
    assert MinedFile(path)[2].query == "c"


def test_sizes_are_bounded_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skylink.minedparquet.GROUP", 8)
    table, header = good(tmp_path, *map(str, range(9)))
    path = tmp_path / "lists.parquet"
    rewritten(path, table, header, row_group_size=9)
    with pytest.raises(QueriesError, match="row group 1 is too large"):
        read_header(path)
    long = changed(
        table.slice(0, 2), 0, lambda row: row.update(candidates=row["candidates"] * 10**6)
    )
    rewritten(path, long, header)
    with pytest.raises(QueriesError, match="row group 1 is too large"):
        read_header(path)
    monkeypatch.setattr("skylink.minedparquet.MAX_GROUP_BYTES", 1000)
    with pytest.raises(QueriesError, match="row group 1 is too large"):
        read_header(tmp_path / "good.parquet")


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    good(tmp_path, "a", "b")
    found = MinedFile(tmp_path / "good.parquet")
    write_mined(found.path, PROVENANCE, others("c", "d"))
    found[0]  # its group is kept
    again = MinedFile(found.path)
    write_mined(found.path, PROVENANCE, others("e", "f"))
    again._store._kept = None  # as after reading elsewhere
    with pytest.raises(QueriesError, match="was changed while it was in use"):
        again[0]
    with pytest.raises(QueriesError, match="cannot read"):
        MinedFile(tmp_path / "none.parquet")


@given(data=st.binary(max_size=60), cut=st.integers(0, 9000), keep=st.booleans())
@RELAXED
def test_any_bytes_give_lists_or_our_error(data, cut, keep, tmp_path) -> None:
    path = tmp_path / "any.parquet"
    if not (tmp_path / "good.parquet").exists():
        good(tmp_path, "a", "b")
    whole = (tmp_path / "good.parquet").read_bytes()
    path.write_bytes(whole[:cut] + data + whole[cut + (len(data) if keep else 0) :])
    with contextlib.suppress(QueriesError):
        assert MinedFile(path).queries == ("a", "b")
