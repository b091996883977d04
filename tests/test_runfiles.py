"""Run files: round trips, strictness, and what broken files say."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink import runfiles
from skylink.errors import RunError
from skylink.runfiles import (
    read_jsonl,
    read_run,
    read_trec_qrels,
    read_trec_run,
    write_jsonl,
    write_run,
    write_trec_qrels,
    write_trec_run,
)
from skylink.runs import Qrels, RankedList, Run

GOOD = "q1 Q0 d1 1 0.9 base\nq1 Q0 d2 2 0.5 base\n"

any_id = st.text(min_size=1, max_size=20)
trec_id = any_id.filter(lambda text: text.split() == [text] and text.isprintable())
numbers = st.floats(allow_nan=False, allow_infinity=False)


def runs(ids: st.SearchStrategy[str]) -> st.SearchStrategy[Run]:
    lists = st.dictionaries(ids, numbers, min_size=1, max_size=5).map(
        lambda d: RankedList.by_score(list(d), list(d.values()))
    )
    return st.dictionaries(ids, lists, min_size=1, max_size=4).map(Run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@given(run=runs(trec_id), packed=st.booleans())
def test_trec_runs_come_back(run, packed, folder) -> None:
    path = folder / ("base.run.gz" if packed else "base.run")
    assert read_run(write_run(path, run)) == run
    assert read_trec_run(path, ranks="ignore") == run


@given(run=runs(any_id.filter(lambda text: max(text) < "\ud800" or min(text) > "\udfff")))
def test_jsonl_takes_any_text_as_id(run, folder) -> None:
    path = write_run(folder / "base.jsonl", run)
    assert read_run(path) == run
    assert path.read_bytes().count(b"\n") == len(run)


@given(
    judged=st.dictionaries(
        trec_id,
        st.dictionaries(trec_id, st.integers(-2, 3), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_qrels_come_back(judged, folder) -> None:
    assert read_trec_qrels(write_trec_qrels(folder / "x.qrels", Qrels(judged))) == Qrels(judged)


@given(text=any_id)
def test_an_id_is_written_so_that_it_reads_back_or_not_at_all(text, folder) -> None:
    run = Run({"q": RankedList.by_score([text], [1.0])})
    if text.split() == [text] and text.isprintable():
        assert read_trec_run(write_trec_run(folder / "one.run", run)) == run
    else:
        with pytest.raises(RunError, match="can't stand in a TREC file") as error:
            write_trec_run(folder / "one.run", run)
        assert "jsonl" in (error.value.hint or "")


def test_order_is_by_score_and_ties_stay(tmp_path) -> None:
    path = tmp_path / "base.run"
    path.write_text("q Q0 low 3 0.1 t\nq Q0 b 1 0.5 t\nr Q0 z 7 2 t\nq Q0 a 2 5e-1 t\n")
    run = read_trec_run(path)
    assert run["q"].ids == ("b", "a", "low")
    assert list(run) == ["q", "r"]
    assert run.tag == "t"


@pytest.mark.parametrize(
    "lines",
    [
        "q Q0 near 1 0.1 t\nq Q0 far 2 0.7 t\n",  # distances: smaller is better
        "q Q0 b 2 0.5 t\nq Q0 a 1 0.5 t\n",  # a tie that the ranks break the other way
    ],
)
def test_ranks_that_contradict_the_scores_are_refused(tmp_path, lines) -> None:
    path = tmp_path / "base.run"
    path.write_text(lines)
    with pytest.raises(RunError, match=r"base.run, line \d: rank and score of query 'q'") as error:
        read_trec_run(path)
    assert "negate distances" in (error.value.hint or "")
    assert len(read_trec_run(path, ranks="ignore")["q"]) == 2
    path.write_text("q Q0 a 0 0.9 t\nq Q0 b 0 0.1 t\n")  # ranks that say nothing
    assert read_trec_run(path)["q"].ids == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 my photo.jpg 1 0.5 t\n", "line 1: 7 fields, not 6"),
        (GOOD + "\nq1 Q0 d3 3 0.4\n", "line 4: 5 fields"),
        (GOOD + "q1 Q0 d1 3 0.1 t\n", "line 3: query 'q1' has the document 'd1' twice"),
        ("q Q0 d 1 nan t\n", "line 1: the score 'nan'"),
        ("q Q0 d 1 1e999 t\n", "score '1e999'"),
        ("q Q0 d 1 1_0 t\n", "score '1_0'"),
        ("q Q0 d one 1 t\n", "rank 'one' is not a whole number"),
        ("", "no candidates"),
        (" \n\n", "no candidates"),
        (f"q Q0 {'d' * 1025} 1 1 t\n", "more than 1024"),
        (f"q Q0 {'d' * 9000} 1 1 t\n", "longer than"),
    ],
)
def test_broken_runs_say_where(tmp_path, text, message) -> None:
    path = tmp_path / "base.run"
    path.write_text(text)
    with pytest.raises(RunError, match=message):
        read_trec_run(path)


def test_other_line_ends_marks_and_blanks(tmp_path) -> None:
    path = tmp_path / "base.run"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").replace(" ", "\t ").encode())
    assert read_trec_run(path)["q1"].ids == ("d1", "d2")
    path.write_bytes(b"q Q0 \xff 1 1 t\n")
    with pytest.raises(RunError, match="not UTF-8"):
        read_trec_run(path)
    path.write_bytes("q Q0 a\u00a0b 1 1 t\n".encode())  # no blank to trec_eval
    assert read_trec_run(path)["q"].ids == ("a\u00a0b",)


def test_sizes_are_bounded_also_when_unpacked(tmp_path, monkeypatch) -> None:
    path = tmp_path / "base.run.gz"
    monkeypatch.setattr(runfiles, "MAX_BYTES", 10_000)
    for content in (b"\n" * 100_000, b"".join(b"q Q0 d%d 1 1 t\n" % i for i in range(1000))):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(RunError, match="more than 10,000 bytes"):
            read_trec_run(path)
    monkeypatch.setattr(runfiles, "MAX_ENTRIES", 1)
    plain = tmp_path / "base.run"
    plain.write_text(GOOD)
    with pytest.raises(RunError, match="more than 1 lines"):
        read_trec_run(plain)


def test_files_that_are_none(tmp_path) -> None:
    for path, data in (
        (tmp_path / "none.run", None),
        (tmp_path / "bad.gz", b"not gzip"),
        (tmp_path / "cut.gz", gzip.compress(GOOD.encode())[:-9]),
    ):
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(RunError, match="cannot read"):
            read_trec_run(path)
    with pytest.raises(RunError, match="cannot read"):
        read_jsonl(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q 0 d\n", "3 fields, not 4"),
        ("q 0 d 0.5\n", "the grade '0.5' is not a whole number"),
        ("q 0 d 1\nq 0 d 0\n", "line 2: query 'q' has the document 'd' twice"),
        ("", "no candidates or judgments"),
    ],
)
def test_broken_qrels_say_where(tmp_path, text, message) -> None:
    path = tmp_path / "x.qrels"
    path.write_text(text)
    with pytest.raises(RunError, match=message):
        read_trec_qrels(path)


def line(**changes: object) -> str:
    entry = {"query": "q", "candidates": [{"id": "a", "score": 1}, {"id": "b", "score": 0.5}]}
    return json.dumps({**entry, **changes}) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line() + line(), "line 2: query 'q' is there twice"),
        (line(extra=1), "line 1: extra"),
        (line(query=5), "line 1: query"),
        (line(query=""), "line 1: query"),
        (line(candidates=[{"id": "a"}]), r"candidates.0.score: Field required"),
        (line(candidates=[{"id": "a", "score": "1"}]), "candidates.0.score"),
        (line(candidates=[{"id": "a", "score": float("nan")}]), "candidates.0.score"),
        (
            line(candidates=[{"id": "a", "score": 1}, {"id": "b", "score": 2}]),
            "line 1: scores rise",
        ),
        (line(candidates=[{"id": "a", "score": 1}] * 2), "line 1: .*'a' is there twice"),
        (line(candidates=[]), "no candidates"),
        ("{\n", "line 1: .*JSON"),
        ("[" * 5000 + "\n", "line 1: .*JSON"),
    ],
)
def test_broken_jsonl_says_where(tmp_path, text, message) -> None:
    path = tmp_path / "base.jsonl"
    path.write_text(text)
    with pytest.raises(RunError, match=message):
        read_jsonl(path)
    path.write_text(line())
    assert read_jsonl(path)["q"].ids == ("a", "b")


def test_what_cannot_be_written() -> None:
    for run in (
        Run({"": RankedList.by_score(["a"], [1.0])}),
        Run({"q": RankedList.by_score(["\udcff"], [1.0])}),
        Run({"q": RankedList.by_score(["x" * 1025], [1.0])}),
    ):
        for write in (write_jsonl, write_trec_run):
            with pytest.raises(RunError):
                write("never.run", run)
    with pytest.raises(RunError, match="my tag"):
        write_trec_run("never.run", Run({"q": RankedList.by_score(["a"], [1.0])}, "my tag"))
    with pytest.raises(RunError, match="no judgment"):
        write_trec_qrels("never.qrels", Qrels({"q": {}}))
