"""Figures worked out by hand on a localizer that answers as it is told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scene_helpers import candidate
from skylink.errors import GalleryError, ModelError, OptionError, QueriesError, RerankError
from skylink.evaluate import WITHOUT, Evaluation, evaluate
from skylink.figures import Results
from skylink.geo import LocalFrame
from skylink.hypotheses import SearchSpace
from skylink.queries import QueryRow
from skylink.types import CameraPose, Candidate, Estimate, Prior, Query, Retrieval, Telemetry

FRAME = LocalFrame(35.2, 32.1)
RADIUS_M = 25.0


POSE = CameraPose(altitude_m=100, heading_deg=0, tilt_deg=0, hfov_deg=70)


def at(error_m: float) -> Candidate:
    return candidate(east_m=error_m, pose=POSE)


@dataclasses.dataclass
class Told:
    """Answers by the query's name: base and final errors in metres, and a confidence."""

    answers: dict[str, tuple[list[float], list[float], float]]
    top_k: int = 5
    min_confidence: float = 0.75
    retriever_name: str = "dense"
    reranks: bool = True
    space: SearchSpace = dataclasses.field(default_factory=SearchSpace)
    camera_error_m: float | None = None
    seen: list[Query] = dataclasses.field(default_factory=list)
    priors: list[Prior | None] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.retriever = SimpleNamespace(name=self.retriever_name)
        self.reranker = SimpleNamespace(name="told") if self.reranks else None
        tiles = [candidate(east_m=e) for e in (0.0, 30.0, 60.0, 0.0)]
        self.gallery = SimpleNamespace(
            tile_count=4,
            tiles=lambda: SimpleNamespace(
                lon=np.array([c.lon for c in tiles]),
                lat=np.array([c.lat for c in tiles]),
                level=np.array([0, 0, 0, 1]),
            ),
        )

    def locate_detailed(self, query: Query, *, prior: Prior | None) -> tuple[Estimate, Retrieval]:
        self.seen.append(query)
        self.priors.append(prior)
        base, final, confidence = self.answers.get(query.name, ([10.0], [10.0], 0.5))
        if not base:
            raise OptionError("nothing of the map lies within the prior")
        ranked = [at(e) for e in (final if self.reranks else base)]
        camera: tuple[float, float] | tuple[None, None] = (None, None)
        if self.camera_error_m is not None:
            camera = FRAME.point(x_m=0, y_m=1000 + self.camera_error_m)
        estimate = Estimate(
            name=query.name, lon=ranked[0].lon, lat=ranked[0].lat, radius_m=RADIUS_M,
            radius_90_m=3 * RADIUS_M, confidence=confidence, located=confidence >= 0.75,
            candidates=ranked, reranked=self.reranks,
            rerank_failed=query.name == "d.png",
            rerank_note="the server is away" if query.name == "d.png" else "",
            camera_lon=camera[0], camera_lat=camera[1],
            ms={"retrieve": 10.0, "rerank": 5.0, "total": 15.0},
        )  # fmt: skip
        retrieval = Retrieval(candidates=[at(e) for e in base], retriever=self.retriever.name)
        return estimate, retrieval

    def camera_of(self, c: Candidate) -> tuple[float, float]:
        return FRAME.point(x_m=c.x_m, y_m=1000)


ANSWERS = {
    "a.png": ([10.0, 60.0], [10.0, 60.0], 0.9),
    "b.png": ([100.0, 30.0], [30.0, 100.0], 0.8),  # fixed
    "c.png": ([20.0, 200.0], [200.0, 20.0], 0.7),  # broken
    "d.png": ([80.0, 300.0, 40.0, 45.0, 500.0], [80.0, 300.0, 40.0, 45.0, 500.0], 0.85),
}


@pytest.fixture
def rows(tmp_path: Path) -> list[QueryRow]:
    """Two flights: a, b and c, d, e (whose photo is missing), and one that is not usable."""
    camera = FRAME.point(x_m=0, y_m=1000)
    made = []
    for line, name in enumerate("abcdef", start=2):
        path = tmp_path / f"{name}.png"
        if name != "e":
            Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
        made.append(
            QueryRow(
                file=path.name, path=path, line=line,
                telemetry=Telemetry(
                    relative_altitude_m=100, heading_deg=350, camera_tilt_from_nadir_deg=2,
                    horizontal_fov_deg=70,
                ),
                truth_lon=camera[0], truth_lat=camera[1],
                ground_lon=FRAME.lon, ground_lat=FRAME.lat, usable=name != "f",
                extra={"flight": "x" if name in "ab" else "y"},
            )
        )  # fmt: skip
    return made


def run(localizer: Told, rows: Sequence[QueryRow], **options: Any) -> Evaluation:
    return evaluate(localizer, rows, **options)  # type: ignore[arg-type]


def test_figures_by_hand(rows: list[QueryRow]) -> None:
    evaluation = run(Told(ANSWERS), rows)
    results = evaluation.results
    assert (results.queries, results.gallery, results.failed) == (5, 4, 1)
    assert (results.retriever, results.reranker, results.top_k) == ("dense", "told", 5)
    assert results.telemetry == "as given"
    base, final = results.retrieved, results.reranked
    assert final is not None
    assert (base.recall_1, base.recall_5, base.recall_10, base.recall_20) == (40, 80, None, None)
    assert base.ap == pytest.approx(100 * (1 + 1 / 2 + 1 + (1 / 3 + 2 / 4) / 2 + 0) / 5)
    assert base.median_error_m == pytest.approx(80, abs=0.1)  # 10 20 80 100 inf
    assert (base.within_25_m, base.within_50_m) == (40, 40)
    assert (final.recall_1, final.recall_5) == (40, 80)
    assert final.ap == pytest.approx(100 * (1 + 1 + 1 / 2 + (1 / 3 + 2 / 4) / 2 + 0) / 5)
    assert (final.within_25_m, final.within_50_m) == (20, 40)
    assert results.flips == {"fixed": 1, "broken": 1}
    assert run(Told(ANSWERS), rows[:2]).results.flips == {"fixed": 1, "broken": 0}
    assert (results.reranked_queries, results.rerank_failed) == (4, 1)
    assert results.rerank_notes == {"the server is away": 1}
    assert list(results.failures) == ["e.png"]
    assert "e.png" in results.failures["e.png"]
    assert results.ms_per_query["retrieve_median"] == 10
    assert results.ms_per_query["total_p95"] == 15
    assert results.camera is None
    assert results.retrieved.recall_1_interval is None  # one block can't be resampled
    assert [o.row.file for o in evaluation.outcomes] == [f"{n}.png" for n in "abcde"]
    assert np.isinf(evaluation.outcomes[4].final_m).all()


def test_honesty_by_hand(rows: list[QueryRow]) -> None:
    honesty = run(Told(ANSWERS), rows).results.honesty
    assert honesty is not None
    assert honesty.within_radius == 25  # of 10, 30, 200, 80 m
    assert honesty.auroc_confidence == 0.75  # 0.9 and 0.8 right, 0.7 and 0.85 wrong
    expected = (abs(1 - 0.9) + abs(1 - 0.8 - 0.85) + 0.7) / 4
    assert honesty.expected_calibration_error == pytest.approx(expected)
    assert honesty.within_radius_90 == (75 if 80 <= 3 * RADIUS_M < 200 else 50)
    assert honesty.brier_score == pytest.approx((0.1**2 + 0.2**2 + 0.7**2 + 0.85**2) / 4)
    bins = [(b.queries, b.confidence, b.right) for b in honesty.reliability]
    assert bins == [(1, 0.7, 0.0), (2, pytest.approx(0.825), 0.5), (1, 0.9, 1.0)]
    assert honesty.within_radius_interval_95 is None  # one block can't be resampled


def test_abstentions_by_hand(rows: list[QueryRow]) -> None:
    """a, b and d are answered, two of them right; c is not found, and wrong."""
    honesty = run(Told(ANSWERS), rows).results.honesty
    assert honesty is not None
    assert (honesty.min_confidence, honesty.answered) == (0.75, 75)
    assert honesty.right_when_answered == pytest.approx(200 / 3)
    assert honesty.right_when_not == 0
    always = run(Told(ANSWERS, min_confidence=0.0), rows).results.honesty
    assert always is not None
    assert (always.answered, always.right_when_answered, always.right_when_not) == (100, 50, None)


def test_intervals_of_the_radii(rows: list[QueryRow]) -> None:
    honesty = run(Told(ANSWERS), rows, group_by="flight").results.honesty
    assert honesty is not None
    for share, interval in (
        (honesty.within_radius, honesty.within_radius_interval_95),
        (honesty.within_radius_90, honesty.within_radius_90_interval_95),
    ):
        assert share is not None
        assert interval is not None
        assert interval[0] <= share <= interval[1]


def test_groups(rows: list[QueryRow]) -> None:
    results = run(Told(ANSWERS), rows, group_by="Flight").results
    assert {n: g.queries for n, g in results.groups.items()} == {"x": 2, "y": 3}
    x, y = results.groups["x"], results.groups["y"]
    assert (x.retrieved.recall_1, y.retrieved.recall_1) == (50, pytest.approx(100 / 3))
    assert x.reranked is not None
    assert y.reranked is not None
    assert (x.reranked.recall_1, y.reranked.recall_1) == (100, 0)
    assert results.retrieved.recall_1_interval is not None
    low, high = results.retrieved.recall_1_interval
    assert 0 <= low <= results.retrieved.recall_1 <= high <= 100
    assert results.reranked_minus_retrieved_interval is not None
    with pytest.raises(QueriesError, match="no column 'pilot'") as caught:
        run(Told(ANSWERS), rows, group_by="pilot")
    assert "flight" in (caught.value.hint or "")


def test_without_a_reranker(rows: list[QueryRow]) -> None:
    results = run(Told(ANSWERS, reranks=False), rows, group_by="flight").results
    assert results.reranker == "none"
    assert results.reranked is None
    assert all(g.reranked is None for g in results.groups.values())
    assert results.flips == {"fixed": 0, "broken": 0}
    assert results.reranked_queries == 0
    assert results.reranked_minus_retrieved_interval is None


def test_tiles_count_what_was_not_retrieved(rows: list[QueryRow]) -> None:
    """Two tiles of the level lie within 50 m; one is found, at rank 2."""
    told = Told({"a.png": ([100.0, 30.0], [30.0, 100.0], 0.5)}, retriever_name="descriptor")
    results = run(told, rows[:1]).results
    assert results.retrieved.ap == pytest.approx(100 * (1 / 2) / 2)
    assert results.reranked is not None
    assert results.reranked.ap == pytest.approx(100 / 2)
    strict = run(told, rows[:1], tolerance_m=20.0).results.retrieved
    assert (strict.recall_1, strict.recall_5, strict.ap) == (0, 0, 0)


def test_the_place_within_a_tile_is_the_answer(rows: list[QueryRow]) -> None:
    """Rankings stay those of tiles; the answer, its error and the radii are of the place found."""

    class Refined(Told):
        def locate_detailed(
            self, query: Query, *, prior: Prior | None
        ) -> tuple[Estimate, Retrieval]:
            estimate, retrieval = super().locate_detailed(query, prior=prior)
            if query.name == "d.png":  # 80 m off: the place is found 20 m from the truth
                place = at(20.0)
                estimate = dataclasses.replace(estimate, refined=True, lon=place.lon, lat=place.lat)
            return estimate, retrieval

    plain, found = (run(made(ANSWERS), rows).results for made in (Told, Refined))
    assert (found.retrieved, found.reranked) == (plain.retrieved, plain.reranked)
    assert plain.answer is not None
    assert found.answer is not None
    assert (plain.answer.refined, found.answer.refined) == (0, 1)
    assert (plain.answer.within_tolerance, found.answer.within_tolerance) == (40, 60)  # a, b; d
    assert (plain.answer.within_25_m, found.answer.within_25_m) == (20, 40)
    assert (plain.answer.median_error_m, found.answer.median_error_m) == pytest.approx((80, 30))
    assert plain.honesty is not None
    assert found.honesty is not None
    assert (plain.honesty.within_radius, found.honesty.within_radius) == (25, 50)


def test_the_camera_is_scored_apart(rows: list[QueryRow]) -> None:
    results = run(Told(ANSWERS, camera_error_m=30.0), rows).results
    assert results.camera is not None
    assert results.camera.queries == 4
    assert results.camera.median_error_m == pytest.approx(30, abs=0.1)
    assert (results.camera.within_25_m, results.camera.within_50_m) == (0, 100)


def test_without_ground_truth_the_camera_is_the_truth(rows: list[QueryRow]) -> None:
    """A candidate's camera is compared where it is known, else the view point itself."""
    bare = [dataclasses.replace(r, ground_lon=None, ground_lat=None) for r in rows]
    unposed = run(Told(ANSWERS), bare).results.retrieved  # view points are 1 km from the camera
    assert (unposed.recall_1, unposed.recall_5) == (0, 0)
    posed = run(Told(ANSWERS, camera_error_m=0.0), bare).results.retrieved
    assert (posed.recall_1, posed.recall_5) == (40, 80)
    unknown = [dataclasses.replace(r, truth_lon=None, truth_lat=None) for r in bare]
    with pytest.raises(QueriesError, match=r"a\.png \(line 2\) has no truth"):
        run(Told(ANSWERS), unknown)


def test_everything_failed(rows: list[QueryRow]) -> None:
    results = run(Told({f"{n}.png": ([], [], 0.0) for n in "abcd"}), rows).results
    assert (results.queries, results.failed, results.reranked_queries) == (5, 5, 0)
    assert results.retrieved.recall_1 == 0
    assert results.retrieved.median_error_m is None
    assert results.honesty is None
    assert results.ms_per_query == {}
    assert "within the prior" in results.failures["a.png"]


def test_results_json_has_the_documented_keys(rows: list[QueryRow]) -> None:
    for evaluation in (
        run(Told(ANSWERS, camera_error_m=1.0), rows, group_by="flight"),
        run(Told({f"{n}.png": ([], [], 0.0) for n in "abcd"}, reranks=False), rows),
    ):
        text = evaluation.to_json()
        assert "NaN" not in text
        assert "Infinity" not in text
        data = json.loads(text)
        assert {
            "schema_version", "protocol", "queries", "gallery", "tolerance_m", "retrieved",
            "reranked", "flips", "reranked_queries", "failed", "ms_per_query",
        } <= set(data)  # fmt: skip
        assert {
            "recall@1", "recall@5", "recall@10", "recall@20", "ap", "median_error_m",
            "within_25_m",
        } <= set(data["retrieved"])  # fmt: skip
        assert set(data["flips"]) == {"fixed", "broken"}
        page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
        told = page.split("### results.json")[1].split("### ")[0]
        assert [key for key in data if f"`{key}`" not in told] == []
        assert data["schema_version"] == 1
        assert Results.model_validate_json(text) == evaluation.results


def test_recall_beyond_top_k_is_not_a_figure(rows: list[QueryRow]) -> None:
    one = {k: (b[:1], f[:1], c) for k, (b, f, c) in ANSWERS.items()}
    results = run(Told(one, top_k=1), rows).results.retrieved
    assert (results.recall_1, results.recall_5) == (40, None)


# what the localizer gets to see


def test_the_truth_never_reaches_the_localizer(town_rows: list[QueryRow]) -> None:
    """The town's photos carry their GPS position in EXIF; the CSV carries it as the truth."""
    from skylink.photo import load_photo

    assert load_photo(town_rows[0].path).telemetry.lon is not None
    wide = SearchSpace(heading_error_deg=20, altitude_error=0.2, tilt_error_deg=5)
    for without in (None, *WITHOUT):
        for perturb in (False, True):
            told = Told({}, space=wide)
            run(told, town_rows[:2], without=without, perturb=perturb)
            assert len(told.seen) == 2
            for query in told.seen:
                assert query.telemetry.lon is None
                assert query.telemetry.lat is None
                gone = WITHOUT.get(without or "", ())
                assert all(getattr(query.telemetry, name) is None for name in gone)
                if without == "all":
                    assert query.telemetry == Telemetry()
                elif without is None:
                    assert query.telemetry.is_pose


def test_perturbed_within_the_space_and_the_same_for_a_seed(rows: list[QueryRow]) -> None:
    wide = SearchSpace(heading_error_deg=20, altitude_error=0.2, tilt_error_deg=5)
    rows = [row for row in rows if row.file not in ("e.png", "f.png")]

    def telemetry(seed: int, space: SearchSpace = wide, **options: Any) -> list[Telemetry]:
        told = Told({}, space=space)
        results = run(told, rows, perturb=True, seed=seed, **options).results
        assert f"perturbed within the search space (seed {seed})" in results.telemetry
        return [query.telemetry for query in told.seen]

    some = telemetry(1)
    assert some == telemetry(1) != telemetry(2)
    changes = np.array([t.heading_deg or 0 for t in some]) - 350
    assert 0 < np.abs(changes).max() <= 20
    assert len(set(changes)) == len(rows)
    altitudes = np.array([t.relative_altitude_m or 0 for t in some]) / 100 - 1
    assert 0 < np.abs(altitudes).max() <= 0.2
    assert all(0 <= (t.camera_tilt_from_nadir_deg or 0) <= 7 for t in some)
    assert telemetry(1, SearchSpace()) == [row.telemetry for row in rows]  # nothing may be off
    assert all(t.heading_deg is None for t in telemetry(1, without="heading"))


def test_callbacks_and_prior(rows: list[QueryRow]) -> None:
    told, steps, results = Told(ANSWERS), [], []
    prior = Prior(lon=35.2, lat=32.1, radius_m=500)
    run(
        told, rows, prior=prior, on_query=lambda *a: steps.append(a),
        on_result=lambda row, query, estimate, retrieval: results.append(row.file),
    )  # fmt: skip
    assert steps == [(i, 5, f"{n}.png") for i, n in enumerate("abcde")]
    assert results == [f"{n}.png" for n in "abcd"]
    assert told.priors == [prior] * 4


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tolerance_m": 0.0}, OptionError),
        ({"tolerance_m": float("nan")}, OptionError),
        ({"tolerance_m": float("inf")}, OptionError),
        ({"without": "everything"}, OptionError),
    ],
)
def test_bad_options(rows: list[QueryRow], options: dict[str, Any], error: type) -> None:
    told = Told(ANSWERS)
    with pytest.raises(error):
        run(told, rows, **options)
    assert not told.seen


def test_no_usable_row(rows: list[QueryRow]) -> None:
    for none in ([], [rows[-1]]):
        with pytest.raises(QueriesError, match="no usable row"):
            run(Told(ANSWERS), none)


def test_a_strict_re_ranker_fails_the_photo_not_the_run(rows: list[QueryRow]) -> None:
    class Strict(Told):
        def locate_detailed(
            self, query: Query, *, prior: Prior | None
        ) -> tuple[Estimate, Retrieval]:
            raise RerankError(f"{query.name}: the server is away")

    results = run(Strict(ANSWERS), rows).results
    assert results.failed == results.queries
    assert all("the server is away" in cause for cause in list(results.failures.values())[:-1])


@pytest.mark.parametrize("error", [ModelError("no such model"), GalleryError("tampered")])
def test_errors_that_are_not_a_photos_stop_the_run(rows: list[QueryRow], error: Exception) -> None:
    class Stopped(Told):
        def locate_detailed(
            self, query: Query, *, prior: Prior | None
        ) -> tuple[Estimate, Retrieval]:
            raise error

    with pytest.raises(type(error)):
        run(Stopped(ANSWERS), rows)


def test_on_the_town(town_rows: list[QueryRow], town_folder: Path) -> None:
    """End to end with the embedded encoder: five of five usable photos within 25 m."""
    from skylink.localizer import Localizer

    rows = [dataclasses.replace(town_rows[0], usable=False), *town_rows[1:]]
    localizer = Localizer(town_folder / "gallery", reranker="dense", top_k=5)
    results = evaluate(localizer, rows).results
    assert (results.queries, results.failed, results.reranked_queries) == (5, 0, 5)
    assert (results.retrieved.recall_1, results.retrieved.within_25_m) == (100, 100)
    assert results.reranked is not None
    assert results.reranked.recall_1 == 100
    assert results.camera is not None
    assert results.camera.within_25_m == 100
    assert results.ms_per_query["total_median"] > 0
