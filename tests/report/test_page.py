"""The page: whole, safe, needs nothing, and says what the results say."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skylink.errors import OptionError
from skylink.report import ReportError, pictures, write_report
from skylink.report.details import details_path, digest, read_details
from skylink.report.queries import kind_of
from skylink.report.read import read_runs

VOID = {"br", "img", "meta", "circle", "line", "path", "rect"}
URI = re.compile(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)")


class Checker(HTMLParser):
    """Balanced elements, attributes that load or run something, and texts by element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.problems: list[str] = []
        self.feed(page)
        self.close()
        self.problems += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        known = dict(attrs)
        self.problems += [f"{key} on {tag}" for key in known if key.startswith("on")]
        self.links += [known[key] or "" for key in ("src", "href", "srcset") if key in known]
        self.ids += [known["id"] or ""] if "id" in known else []
        if tag == "img" and not known.get("alt"):
            self.problems.append("an image without alt")
        if tag == "th" and known.get("scope") is None:
            self.problems.append("a heading without scope")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.problems.append(f"<{tag}/>")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> out of place")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(*results: Path, folder: Path, **options: object) -> tuple[str, Checker]:
    path = write_report(results, folder / "page.html", **options)  # type: ignore[arg-type]
    page = path.read_text(encoding="utf-8")
    found = Checker(page)
    assert found.problems == []
    assert page.startswith("<!DOCTYPE html>")
    return page, found


def test_everything_in_one_safe_page(
    town_results: Path, benchmark_results: list[Path], tmp_path: Path
) -> None:
    page, found = page_of(town_results, *benchmark_results, folder=tmp_path, title="A & <b>")
    anchors = [link for link in found.links if link.startswith("#")]
    assert {link[1:] for link in anchors} == set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in found.links)
    without = URI.sub("", page)
    assert not re.search(r"https?:|//|@import|url\(", without.replace("http-equiv", ""))
    assert "script" not in found.tags
    assert "<title>A &amp; &lt;b&gt;</title>" in page
    assert "no pictures and curves" not in page
    for words in ("Recall by K", "Recall by distance", "Calibration", "Challenging conditions"):
        assert f">{words}</h" in page
    for scheme in ("prefers-color-scheme: dark", "@media print", "@media (max-width"):
        assert scheme in page


def test_pictures_are_small_and_there(town_results: Path, tmp_path: Path) -> None:
    page, _ = page_of(town_results, folder=tmp_path)
    uris = URI.findall(page)
    queries = json.loads(town_results.read_text())["queries"]
    assert len(uris) == 5 * queries, "photo, base's first, re-ranked first, answer, truth"
    for uri in uris:
        data = base64.b64decode(uri)
        with Image.open(io.BytesIO(data)) as image:
            assert image.width * image.height <= pictures.SIDE_PX**2 * 1.05
            assert image.height <= pictures.SIDE_PX
        assert len(data) < 60_000


def test_answers_within_tiles_stand_beside_rankings(town_results: Path, tmp_path: Path) -> None:
    """Each under its own run's name, also where two runs share a base that is shown once."""
    alone = tmp_path / "alone.json"
    content = json.loads(town_results.read_text())
    content |= {"reranked": None, "reranker": "none"}
    content["groups"] = {}
    alone.write_text(json.dumps(content))
    page = write_report([town_results, alone], tmp_path / "both.html").read_text()
    assert page.count("descriptor + dense, placed within the tile") == 1
    assert page.count(">descriptor, placed within the tile") == 1
    assert page.count("placed within the tile, placed") == 0
    assert "placed within the tile (results.json)" in page  # recall by distance
    details = read_details(town_results, town_results.read_text())
    answer = content["answer"]
    errors = [query.answer.error_m for query in details.queries if query.answer]
    assert len(errors) == answer["refined"] == content["queries"]
    assert np.median(errors) == pytest.approx(answer["median_error_m"], abs=0.01)
    tiles = [query.last[0].error_m for query in details.queries]
    assert np.median(errors) < np.median(tiles) / 3


def test_the_cards_are_the_results_flips(benchmark_results: list[Path], tmp_path: Path) -> None:
    page, _ = page_of(benchmark_results[1], folder=tmp_path)
    results = json.loads(benchmark_results[1].read_text())
    fixed = results["flips"]["fixed"]
    assert fixed > 0
    assert f"Put right by re-ranking: {fixed}</h4>" in page
    assert page.count('class="kind fixed"') == fixed
    few, _ = page_of(benchmark_results[1], folder=tmp_path, pictures=2)
    assert f"Put right by re-ranking: {fixed}, 2 shown</h4>" in few
    none, _ = page_of(benchmark_results[1], folder=tmp_path, pictures=0)
    assert "data:image" not in none
    with pytest.raises(OptionError, match="negative"):
        write_report(benchmark_results, tmp_path / "x.html", pictures=-1)


def test_runs_of_one_protocol_stand_in_one_table(
    town_results: Path, benchmark_results: list[Path], tmp_path: Path
) -> None:
    page, found = page_of(*benchmark_results, town_results, folder=tmp_path, pictures=0)
    assert page.count("Base beside re-ranked, 12 queries") == 2  # caption and label
    for path in benchmark_results:
        results = json.loads(path.read_text())
        low, high = results["reranked_minus_retrieved_interval"]
        assert f"{low:+.1f} .. {high:+.1f}" in found.texts
        for figures in (results["retrieved"], results["reranked"]):
            assert f"{figures['ap_trapezoid']:.1f}" in found.texts
            low, high = figures["recall@1_interval_95"]
            assert f"{low:.1f} .. {high:.1f}" in found.texts
    assert "The same lists, distractors dropped as junk" in page


def test_a_base_that_two_share_is_shown_once(benchmark_results: list[Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for path in (benchmark_results[0], details_path(benchmark_results[0])):
            shutil.copy(path, tmp_path / name)
    _, found = page_of(tmp_path / "a/good.json", tmp_path / "b/good.json", folder=tmp_path)
    assert found.texts.count("good.npz") == 2, "under either convention about distractors"
    assert "a/good.json" in found.texts
    assert "b/good.json" in found.texts
    with pytest.raises(ReportError, match="the same file"):
        write_report([benchmark_results[0]] * 2, tmp_path / "x.html")


HOSTILE = '"><img src=x onerror=alert(1)></td><script>alert(1)</script>\x1b[31m\u202e'


def test_hostile_names_are_words(benchmark_results: list[Path], tmp_path: Path) -> None:
    results = json.loads(benchmark_results[1].read_text())
    results |= {"reranker": HOSTILE, "retriever": HOSTILE, "protocol": HOSTILE}
    results |= {"rerank_notes": {HOSTILE: 1}, "notes": [HOSTILE]}
    text = json.dumps(results)
    (tmp_path / "r.json").write_text(text)
    lines = [json.loads(line) for line in details_path(benchmark_results[1]).open()]
    lines[0]["results_sha256"] = digest(text)
    lines[0]["source"] = str(benchmark_results[0].parent)
    for line in lines[1:]:
        line["query"] = HOSTILE
        line["note"] = HOSTILE
        line["base"][0]["id"] = HOSTILE
    details_path(tmp_path / "r.json").write_text("".join(json.dumps(x) + "\n" for x in lines))
    page, found = page_of(tmp_path / "r.json", folder=tmp_path, title=HOSTILE)
    assert "script" not in found.tags
    assert set(found.links) <= {
        link for link in found.links if link[0] == "#" or link[:5] == "data:"
    }
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "A picture is missing" in page


def copied(results: Path, folder: Path) -> Path:
    shutil.copy(results, folder)
    return folder / results.name


def test_what_lies_not_beside_is_said(
    town_results: Path, benchmark_results: list[Path], tmp_path: Path
) -> None:
    alone = copied(benchmark_results[0], tmp_path)
    page, _ = page_of(alone, folder=tmp_path)
    assert "there is no good.queries.jsonl beside it" in page
    assert "data:image" not in page
    assert "Recall by K" in page, "from the results alone"
    shutil.copy(details_path(benchmark_results[1]), details_path(alone))
    page, _ = page_of(alone, folder=tmp_path)
    assert "is not of the run that wrote" in page
    town = copied(town_results, tmp_path)
    conditions = town.with_name("results.conditions.json")
    other = json.loads(town_results.with_name("results.conditions.json").read_text())
    other["clean"]["retrieved"]["recall@1"] = 1.25
    conditions.write_text(json.dumps(other))
    page, _ = page_of(town, folder=tmp_path)
    assert "results.conditions.json is not of the run" in page
    assert 'id="conditions"' not in page
    conditions.write_text("{}")
    assert "its conditions are left out" in page_of(town, folder=tmp_path)[0]


def test_data_that_is_gone(town_results: Path, tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    results = copied(town_results, deep)  # paths are relative to where it was
    shutil.copy(details_path(town_results), deep)
    page, _ = page_of(results, folder=tmp_path)
    assert "no picture" in page
    assert page.count("A picture is missing") >= 1


def test_too_many_pictures_are_left_out(
    town_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures.Budget.__init__, "__defaults__", (80_000,))
    page, _ = page_of(town_results, folder=tmp_path)
    assert sum(map(len, URI.findall(page))) < 80_000
    assert "pictures were left out" in page
    assert "--pictures" in page


def test_a_scored_run_file_is_a_row(tmp_path: Path, benchmark_results: list[Path]) -> None:
    figures = {
        "queries": 7,
        "recall@1": 12.5,
        "ap_step": 20.0,
        "recall@5": None,
        "denominator": "x",
    }
    (tmp_path / "scored.json").write_text(json.dumps(figures))
    page, found = page_of(tmp_path / "scored.json", benchmark_results[0], folder=tmp_path)
    assert "12.5" in found.texts
    assert "a scored run file has no pictures" in page


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not JSON"),
        ("[1]", "is no results file"),
        ('{"a": 1}', "is no results file"),
        ("[" * 100_000, "is not JSON"),
        ('{"dataset": "x", "task": "y", "retrieved": {}}', "is damaged, or of another version"),
    ],
)
def test_what_is_no_results_file(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(ReportError, match=said):
        read_runs([tmp_path / "r.json"])


def test_the_conditions_file_is_not_the_results(town_results: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="is no results file") as caught:
        read_runs([town_results.with_name("results.conditions.json")])
    assert str(town_results) in (caught.value.hint or "")
    with pytest.raises(ReportError, match="cannot read"):
        read_runs([tmp_path / "none.json"])


def test_kinds_cover_every_query(benchmark_results: list[Path]) -> None:
    (run,) = read_runs(benchmark_results[1:])
    assert run.details is not None
    kinds = [kind_of(query) for query in run.details.queries]
    assert kinds.count("fixed") == run.flips["fixed"]
    assert kinds.count("broken") == run.flips["broken"]
    assert len(kinds) == run.queries


def test_the_heat_map_has_its_cells(town_results: Path, tmp_path: Path) -> None:
    page, _ = page_of(town_results, folder=tmp_path, pictures=0)
    heat = page[page.index('class="heat"') :]
    heat = heat[: heat.index("</table>")]
    assert heat.count("<td") == 3 * 2, (
        "base, re-ranked and difference, unchanged and at one severity"
    )
    cells = json.loads(town_results.with_name("results.conditions.json").read_text())
    clean = cells["clean"]["retrieved"]["recall@1"]
    assert f">{clean:.0f}</td>" in heat
