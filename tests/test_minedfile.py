"""Files of mined lists: round trips, what is counted, atomic writes, and what broken files say."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import weakref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mined_helpers import PROVENANCE, candidate, mined, others
from mined_strategies import mined_lists, text
from skylink.errors import OptionError, OutputError, QueriesError
from skylink.mined import MinedList
from skylink.minedfile import MinedFile, leakage, read_header, write_mined

RELAXED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# round trips


@given(data=st.data(), names=st.lists(text, min_size=1, max_size=4, unique=True))
@RELAXED
def test_what_is_written_is_read_back(data, names, tmp_path) -> None:
    lists = [data.draw(mined_lists(name)) for name in names]
    header = write_mined(tmp_path / "lists.jsonl", PROVENANCE, lists)
    found = MinedFile(tmp_path / "lists.jsonl")
    assert list(found) == lists
    assert [found[i] for i in range(len(found))] == lists
    assert found[::-1] == lists[::-1]
    assert found[-1] == lists[-1]
    assert found.queries == tuple(names)
    assert found.header == header == read_header(found.path)
    assert found.header.provenance == PROVENANCE
    again = write_mined(tmp_path / "again.jsonl", PROVENANCE, found)
    assert again == header
    assert (tmp_path / "again.jsonl").read_bytes() == found.path.read_bytes()


def test_the_header_counts_what_is_there(tmp_path) -> None:
    first = mined("b", candidates=(candidate("x", 1, is_ground_truth=True, label=1.0),
                                   candidate("y", 2)))  # fmt: skip
    forced = mined("c", candidates=(candidate("x", 1), candidate("y", 2), candidate(
        "z", None, is_ground_truth=True, label=1.0)))  # fmt: skip
    header = write_mined(tmp_path / "a.jsonl", PROVENANCE, [mined(), first, forced])
    summary = header.summary
    assert (summary.lists, summary.candidates, summary.forced) == (3, 8, 1)
    assert summary.base_r_at_1 == pytest.approx(100 / 3)
    assert summary.labels.soft_share == pytest.approx(1 / 3)
    assert not summary.labels.collapsed
    assert header.notes == ()
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert json.loads(lines[0])["provenance"]["labels"]["threshold"] == 0.8
    assert json.loads(lines[2])["query"] == "b"


def test_a_base_that_knows_the_answers_and_hard_labels_are_warned_of(tmp_path) -> None:
    easy = (candidate("x", 1, is_ground_truth=True, label=1.0), candidate("y", 2))
    header = write_mined(tmp_path / "a.jsonl", PROVENANCE, [mined(candidates=easy)])
    assert header.summary.base_r_at_1 == 100
    assert header.summary.labels.collapsed
    assert "one-hot" in header.notes[0]
    assert "held-out" in header.notes[1]


# bad files


def broken(change) -> bytes:
    """A file of three lists whose second was changed."""
    lines = [json.loads(mined(name).model_dump_json(exclude_none=True)) for name in "abc"]
    change(lines[1])
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def written(folder, lists) -> tuple[bytes, bytes]:
    """(header, lists) of a good file."""
    path = folder / "good.jsonl"
    write_mined(path, PROVENANCE, lists)
    head, _, body = path.read_bytes().partition(b"\n")
    return head + b"\n", body


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line["candidates"].pop(1), "no positive"),
        (lambda line: line.update(candidates=line["candidates"][1:2]), "at least 2 items"),
        (lambda line: line["candidates"][2].update(id="0840"), "'0840' is there twice"),
        (lambda line: line["candidates"][0].update(label=1.5), r"candidates\.0\.label.*equal to 1"),
        (lambda line: line["candidates"][0].update(label=math.nan), r"candidates\.0\.label"),
        (lambda line: line["candidates"][0].update(base_score=math.inf), "finite"),
        (lambda line: line["candidates"][0].update(label="0.5"), r"candidates\.0\.label"),
        (lambda line: line["candidates"][0].pop("id"), r"candidates\.0\.id: Field required"),
        (lambda line: line.pop("path"), "path: Field required"),
        (lambda line: line.update(pth="x"), "pth: Extra inputs"),
        (lambda line: line.update(telemetry={"relative_altitude_m": -3.0}), "relative_altitude_m"),
        (lambda line: line.update(telemetry={"lat": 3.0}), "telemetry has a position"),
        (lambda line: line.update(query="a"), "query 'a' is there twice"),
        (lambda line: line.update(query=""), "query: String should have at least 1"),
    ],
)
def test_broken_lines_are_named(change, message, tmp_path) -> None:
    head, _ = written(tmp_path, others("a", "b", "c"))
    path = tmp_path / "lists.jsonl"
    path.write_bytes(head + broken(change))
    with pytest.raises(QueriesError, match=message) as caught:
        MinedFile(path)
    assert "lists.jsonl, line 3" in caught.value.message
    assert "query '" in caught.value.message


def test_files_that_were_cut_joined_or_changed_are_refused(tmp_path) -> None:
    head, body = written(tmp_path, others("a", "b", "c"))
    path = tmp_path / "lists.jsonl"
    rows = body.splitlines(keepends=True)
    cases = {
        "has 2 of 3 lists": head + rows[0] + rows[1],
        "has 4 of 3 lists": head + body + rows[0].replace(b'"a"', b'"d"'),
        "sha256": head + rows[1] + rows[0] + rows[2],
        "line 4": head + body[:-20],
        "is empty": b"",
        "not the header": body,
        "line 3": head + rows[0] + b"\n" + rows[1],
    }
    for message, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(QueriesError, match=message):
            MinedFile(path)
    path.write_bytes(head + body.replace(b'":', b'": '))  # only blanks between: the same lists
    assert MinedFile(path).queries == ("a", "b", "c")


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path) -> None:
    head, body = written(tmp_path, others("a", "b"))
    found = MinedFile(tmp_path / "good.jsonl")
    rows = body.splitlines(keepends=True)
    found.path.write_bytes(head + rows[1] + rows[0])
    with pytest.raises(QueriesError, match="was changed while it was in use"):
        found[0]
    found.path.unlink()
    with pytest.raises(QueriesError, match="cannot read"):
        found[0]
    with pytest.raises(IndexError):
        found[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head.update(version=2), "version"),
        (lambda head: head["provenance"].pop("base"), r"provenance\.base: Field required"),
        (lambda head: head["provenance"]["labels"].update(threshold=3.0), "threshold = 3.0"),
        (lambda head: head["provenance"]["labels"].update(thresold=0.3), "thresold"),
        (lambda head: head["summary"].update(lists=0), r"summary\.lists"),
    ],
)
def test_broken_headers_are_named(change, message, tmp_path) -> None:
    head, body = written(tmp_path, others("a"))
    fields = json.loads(head)
    change(fields)
    path = tmp_path / "lists.jsonl"
    path.write_bytes(json.dumps(fields).encode() + b"\n" + body)
    with pytest.raises(QueriesError, match=message) as caught:
        read_header(path)
    assert "line 1" in caught.value.message


@given(data=st.binary(max_size=200), cut=st.integers(0, 3000))
@RELAXED
def test_any_bytes_give_lists_or_our_error(data, cut, tmp_path) -> None:
    path = tmp_path / "any.jsonl"
    head, body = written(tmp_path, others("a", "b"))
    whole = head + body
    for content in (data, head + data, whole[:cut] + data + whole[cut:]):
        path.write_bytes(content)
        with contextlib.suppress(QueriesError):
            assert MinedFile(path).queries == ("a", "b")


def test_lines_are_bounded(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("skylink.minedjsonl.MAX_LINE", 100)
    path = tmp_path / "long.jsonl"
    path.write_bytes(b"x" * 101)
    with pytest.raises(QueriesError, match="line 1 is longer than 100 bytes"):
        read_header(path)


# writing


def test_evaluation_lists_may_lack_a_positive_and_training_lists_not(tmp_path) -> None:
    without = mined("q", candidates=(candidate("a", 1), candidate("b", 2)))
    with pytest.raises(QueriesError, match="query 'q' has no positive"):
        write_mined(tmp_path / "a.jsonl", PROVENANCE, [without])
    honest = PROVENANCE.model_copy(update={"ground_truth": "not-forced", "split": "test"})
    header = write_mined(tmp_path / "b.jsonl", honest, [without, mined()])
    assert header.summary.base_r_at_1 == 0
    assert list(MinedFile(tmp_path / "b.jsonl")) == [without, mined()]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.jsonl"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "lists.jsonl"
    write_mined(path, PROVENANCE, others("a"))
    before = path.read_bytes()

    def failing():
        yield mined("b")
        raise RuntimeError("the base broke")

    with pytest.raises(RuntimeError, match="the base broke"):
        write_mined(path, PROVENANCE, failing())
    for lists, message in (([], "no lists"), (others("a", "a"), "'a' is there twice")):
        with pytest.raises(QueriesError, match=message):
            write_mined(path, PROVENANCE, lists)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["lists.jsonl"]


def test_places_that_can_not_be_written_or_read(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_mined(tmp_path / "file" / "lists.jsonl", PROVENANCE, others("a"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_mined(tmp_path / "folder", PROVENANCE, others("a"))
    for path in (tmp_path / "folder", tmp_path / "none.jsonl", "a\0b"):
        with pytest.raises(QueriesError, match="cannot read"):
            MinedFile(path)


def test_lists_are_streamed(tmp_path) -> None:
    alive: list[weakref.ref[MinedList]] = []

    def remembered(lists):
        for number, one in enumerate(lists):
            alive.append(weakref.ref(one))
            if number % 50 == 0:
                gc.collect()
                assert sum(ref() is not None for ref in alive) < 5
            yield one

    path = tmp_path / "lists.jsonl"
    header = write_mined(path, PROVENANCE, remembered(mined(str(i)) for i in range(300)))
    assert header.summary.lists == 300
    assert sum(1 for _ in remembered(MinedFile(path))) == 300
    assert len(alive) == 600


# leakage


def test_leakage_is_refused_and_lists_the_first() -> None:
    leakage(["a", "b"], ["c", "d"])
    leakage([], iter(["a"]))
    with pytest.raises(OptionError) as caught:
        leakage(iter("abcdefgh"), iter("xhgfedcbb"), what="places")
    assert caught.value.message == (
        "7 places are in training and in test: h, g, f, e, d and 2 more"
    )


@given(st.lists(text, max_size=8), st.lists(text, max_size=8))
@RELAXED
def test_leakage_is_refused_exactly_where_ids_are_shared(train, test) -> None:
    if set(train) & set(test):
        with pytest.raises(OptionError):
            leakage(train, test)
    else:
        leakage(train, test)
