"""results.queries.jsonl: what it says agrees with the results, and what is not believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from skylink.report import Details, Header, Place, QueryDetails, ReportError, read_details
from skylink.report.details import details_path, digest, relative, write_details


def details_of(results: Path) -> Details:
    return read_details(results, results.read_text())


def copied(results: Path, folder: Path) -> Path:
    for path in (results, details_path(results)):
        shutil.copy(path, folder)
    return folder / results.name


def test_own_map(town_results: Path, town_folder: Path) -> None:
    results, details = json.loads(town_results.read_text()), details_of(town_results)
    assert details.header.kind == "gallery"
    assert details.source.resolve() == (town_folder / "gallery").resolve()
    assert len(details.queries) == results["queries"]
    for which, figures in (("base", results["retrieved"]), ("final", results["reranked"])):
        ranks = [getattr(query, f"{which}_rank") for query in details.queries]
        for k in (1, 5):
            hits = np.mean([rank is not None and rank <= k for rank in ranks])
            assert 100 * hits == pytest.approx(figures[f"recall@{k}"])
    errors = [query.last[0].error_m for query in details.queries]
    assert np.median(errors) == pytest.approx(results["reranked"]["median_error_m"], abs=0.01)
    for query in details.queries:
        assert details.photo(query).is_file()
        assert query.reranked
        assert len(query.base) == len(query.final) == 5
        assert query.confidence is not None
        assert query.base[0].score >= query.base[1].score
        assert (query.base[0].right) == (query.base_rank == 1)
        assert 0 < query.base[0].width_m < 5000
        (truth,) = query.positives
        assert (truth.lon, truth.lat) == (query.lon, query.lat)


def test_benchmark(benchmark_results: list[Path]) -> None:
    for path in benchmark_results:
        results, details = json.loads(path.read_text()), details_of(path)
        assert details.header.kind == "benchmark"
        assert details.header.ranked == 6
        for which, figures in (("base", results["retrieved"]), ("final", results["reranked"])):
            first = np.array([getattr(query, f"{which}_rank") for query in details.queries])
            assert 100 * (first == 1).mean() == pytest.approx(figures["recall@1"])
            assert 100 * (1 / first).mean() == pytest.approx(figures["mrr"])
        fixed = [not q.base[0].right and q.last[0].right for q in details.queries]
        assert sum(fixed) == results["flips"]["fixed"]
        for query in details.queries:
            assert details.photo(query).is_file()
            assert all((details.source / (p.path or p.id)).is_file() for p in query.last)
            assert query.positives[0].right


def test_a_folder_can_be_moved_with_its_data(benchmark_results: list[Path], tmp_path: Path) -> None:
    details = details_of(benchmark_results[0])
    shutil.copytree(details.source, tmp_path / "before" / "data")
    home = tmp_path / "before" / "out"
    home.mkdir()
    results = copied(benchmark_results[0], home)
    header = details.header.model_copy(
        update={"source": relative(tmp_path / "before" / "data", home)}
    )
    write_details(results, header, details.queries)
    (tmp_path / "before").rename(tmp_path / "after")
    moved = details_of(tmp_path / "after" / "out" / results.name)
    assert all(moved.photo(query).is_file() for query in moved.queries)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    results = tmp_path / "r.json"
    results.write_text("{}")
    header = Header(kind="gallery", source="g", results_sha256=digest("{}"), queries=2, ranked=3)
    place = Place(id="é </script>", score=0.5, right=True, error_m=3.0, lon=1.0, lat=2.0)
    queries = [QueryDetails(query="a\nb", base=[place], base_rank=1), QueryDetails(query="c")]
    path = write_details(results, header, queries)
    assert path == tmp_path / "r.queries.jsonl"
    assert len(path.read_text().splitlines()) == 3
    found = details_of(results)
    assert found.header == header
    assert list(found.queries) == queries
    assert found.queries[0].last == [place]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: lines[:2], "ends after 1 of 12 queries"),
        (lambda lines: [*lines, lines[1]], "has more than 12 queries"),
        (lambda lines: ["{}", *lines[1:]], "is damaged: kind"),
        (lambda lines: ["", *lines[1:]], "is damaged"),
        (lambda lines: [lines[0], "nonsense", *lines[2:]], "is damaged"),
        (lambda lines: [lines[0], '{"query": "x", "confidence": 7}', *lines[2:]], "confidence"),
        (lambda lines: [lines[0].replace('"schema_version":1', '"schema_version":9')], "version"),
        (lambda lines: [lines[0], '{"query": "' + "x" * 2_000_000 + '"}'], "is damaged"),
    ],
)  # fmt: skip
def test_damage_is_told(
    damage: object, said: str, benchmark_results: list[Path], tmp_path: Path
) -> None:
    results = copied(benchmark_results[0], tmp_path)
    path = details_path(results)
    lines = damage(path.read_text().splitlines())  # type: ignore[operator]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ReportError, match=said):
        details_of(results)


def test_details_of_another_run_are_not_believed(
    benchmark_results: list[Path], tmp_path: Path
) -> None:
    results = copied(benchmark_results[0], tmp_path)
    with pytest.raises(ReportError, match="is not of the run that wrote"):
        read_details(results, results.read_text() + " ")
    details_path(results).unlink()
    with pytest.raises(ReportError, match="cannot read"):
        details_of(results)
