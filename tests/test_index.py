"""One suite for both indexes; brute force is the oracle of the approximate one."""

from __future__ import annotations

from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from skylink.index import (
    ExactIndex,
    Index,
    LanceIndex,
    create_ann_index,
    top_k,
)

ROWS, DIMENSIONS, CLUSTERS = 3000, 32, 60

Floats = NDArray[np.float32]


def unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def descriptors() -> Floats:
    """Clustered, as descriptors are: uniform noise has no neighbours to speak of."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, DIMENSIONS))
    spread = rng.normal(size=(ROWS, DIMENSIONS)) * 0.4
    return unit((centres[rng.integers(0, CLUSTERS, ROWS)] + spread).astype(np.float32))


@pytest.fixture(scope="module")
def table(descriptors: Floats, tmp_path_factory: pytest.TempPathFactory) -> Any:
    flat = pa.array(descriptors.astype(np.float16).reshape(-1))
    data = pa.table(
        {
            "descriptor": pa.FixedSizeListArray.from_arrays(flat, DIMENSIONS),
            "level": pa.array(np.arange(ROWS) % 2, pa.int32()),
        }
    )
    made = lancedb.connect(tmp_path_factory.mktemp("index")).create_table("tiles", data)
    create_ann_index(made, ROWS)
    return made


@pytest.fixture(params=["exact", "lance"])
def index(request: pytest.FixtureRequest, descriptors: Floats, table: Any) -> Index:
    if request.param == "exact":
        return ExactIndex(descriptors.astype(np.float16))
    return LanceIndex(table)


@pytest.fixture(scope="module")
def queries(descriptors: Floats) -> Floats:
    rng = np.random.default_rng(1)
    near = descriptors[rng.integers(0, ROWS, 40)]
    return unit(near + 0.05 * rng.normal(size=near.shape).astype(np.float32))


def brute(descriptors: Floats, queries: Floats, k: int) -> NDArray[np.int64]:
    return np.argsort(-(queries @ descriptors.T), axis=1, kind="stable")[:, :k]


def test_the_ann_index_is_there_and_has_to_choose(table: Any) -> None:
    """Otherwise the suite would compare an exact scan with itself."""
    (info,) = table.list_indices()
    assert "ivf" in str(info.index_type).lower()
    assert info.columns == ["descriptor"]
    assert LanceIndex(table)._probes < round(ROWS**0.5)


def test_a_descriptor_finds_itself_first(index: Index, descriptors: Floats) -> None:
    rows, scores = index.search(descriptors[:30], 3)
    assert rows[:, 0].tolist() == list(range(30))
    assert scores[:, 0] == pytest.approx(1, abs=2e-3)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32


def test_recall_at_10(index: Index, descriptors: Floats, queries: Floats) -> None:
    rows, scores = index.search(queries, 10)
    assert rows.shape == scores.shape == (40, 10)
    true = brute(descriptors, queries, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, true, strict=True)])
    assert recall >= 0.95
    cosines = np.take_along_axis(queries @ descriptors.T, rows, 1)
    assert scores == pytest.approx(cosines, abs=2e-3)


def test_a_search_for_several_is_several_searches(index: Index, queries: Floats) -> None:
    rows, scores = index.search(queries[:5], 4)
    for i in range(5):
        one, score = index.search(queries[i : i + 1], 4)
        assert one[0].tolist() == rows[i].tolist()
        assert score[0] == pytest.approx(scores[i], abs=1e-6)


def test_more_than_there_are(index: Index, queries: Floats) -> None:
    rows, scores = index.search(queries[:2], ROWS + 500)
    assert 10 <= rows.shape[1] <= ROWS
    assert rows.shape == scores.shape
    for line, found in zip(rows, np.isfinite(scores), strict=True):
        assert found[0]
        assert len(set(line[found].tolist())) == found.sum()
    if isinstance(index, ExactIndex):
        assert rows.shape[1] == ROWS


def test_a_condition(index: Index, descriptors: Floats, queries: Floats) -> None:
    if isinstance(index, ExactIndex):
        with pytest.raises(ValueError, match="select the rows before"):
            index.search(queries, 5, where="level = 1")
        return
    rows, _ = index.search(queries, 10, where="level = 1")
    assert (rows % 2 == 1).all()
    odd = np.arange(1, ROWS, 2)
    true = odd[brute(descriptors[odd], queries, 10)]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, true, strict=True)])
    assert recall >= 0.95
    nothing, scores = index.search(queries[:2], 10, where="level = 7")
    assert nothing.shape == scores.shape == (2, 0)


def test_ties_go_to_the_lower_row_always() -> None:
    same = np.tile(unit(np.ones((1, 4), np.float32)), (50, 1))
    rows, scores = ExactIndex(same).search(same[:2], 7)
    assert rows.tolist() == [list(range(7))] * 2
    assert scores == pytest.approx(1, abs=1e-6)


@given(
    scores=st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0]), min_size=1, max_size=30),
    k=st.integers(1, 35),
)
def test_top_k_is_a_stable_sort(scores: list[float], k: int) -> None:
    line = np.array([scores, scores[::-1]], np.float32)
    rows, best = top_k(line, k)
    expected = np.argsort(-line, axis=1, kind="stable")[:, :k]
    assert rows.tolist() == expected.tolist()
    assert np.array_equal(best, np.take_along_axis(line, expected, 1))
