"""Tasks: what they refuse, distances, distractors, and asking the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.datasets import Item, Task
from skylink.datasets.task import escaped
from skylink.errors import DatasetError
from skylink.geo import destination


def items(names: str, **said: Any) -> tuple[Item, ...]:
    return tuple(Item(id=name, path=Path(name), **said) for name in names)


def task(**changed: Any) -> Task:
    """Queries a, b; gallery w..z; a shows w and x, b shows z."""
    fields: dict[str, Any] = {
        "dataset": "Toy",
        "name": "D2S",
        "split": "test",
        "queries": items("ab"),
        "gallery": items("wxyz"),
        "positives": ((0, 1), (3,)),
    }
    return Task(**(fields | changed))


def test_distractors_are_what_no_query_shows() -> None:
    assert task().distractor_rows == (2,)
    assert task(semi_positives=((2,), ())).distractor_rows == ()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"queries": ()}, "queries are empty"),
        ({"gallery": items("wxyw")}, "w is in the gallery twice"),
        ({"queries": items("a ")}, "without spaces"),
        ({"positives": ((0, 1),)}, "not of one length"),
        ({"positives": ((0, 1), (4,))}, "not ascending rows"),
        ({"positives": ((1, 0), (3,))}, "not ascending rows"),
        ({"positives": ((-1, 0), (3,))}, "not ascending rows"),
        ({"positives": ((0, 1), ())}, "b has no positive"),
        ({"weights": ((0.5,), (0.5,))}, "one in 0..1 each"),
        ({"weights": ((0.5, float("nan")), (0.5,))}, "one in 0..1 each"),
        ({"weights": ((0.5, 1.5), (0.5,))}, "one in 0..1 each"),
    ],
)
def test_refuses_what_would_make_numbers_lie(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=words) as caught:
        task(**changed)
    assert "Toy D2S" in caught.value.message
    assert caught.value.hint


def test_geodesic_metres() -> None:
    lon, lat = destination(lon=10, lat=50, east_m=300, north_m=400)
    places = (*items("w", lon=10.0, lat=50.0), *items("x", lon=lon, lat=lat))
    asked = task(queries=items("a", lon=10.0, lat=50.0), gallery=places, positives=((0,),))
    assert asked.metres == "geodesic"
    assert asked.distances_m(0, [1, 0]).tolist() == pytest.approx([500.0, 0.0], abs=1e-6)
    assert asked.positions("gallery").tolist() == [[10.0, 50.0], [lon, lat]]
    assert asked.rows_within_m(0, 499) == (0,)
    assert asked.rows_within_m(0, 501) == (0, 1)


def test_local_metres() -> None:
    places = (*items("w", x_m=0.0, y_m=0.0), *items("x", x_m=3.0, y_m=-4.0))
    asked = task(queries=items("a", x_m=0.0, y_m=0.0), gallery=places, positives=((0,),))
    assert asked.metres == "local"
    assert asked.distances_m(0, [0, 1]).tolist() == [0.0, 5.0]
    assert asked.distances_m(0, []).shape == (0,)


def test_no_metres_where_one_position_is_unknown() -> None:
    places = (*items("w", lon=10.0, lat=50.0), *items("x"))
    asked = task(queries=items("a", lon=10.0, lat=50.0), gallery=places, positives=((0,),))
    assert asked.metres is None
    with pytest.raises(DatasetError, match="no positions"):
        asked.distances_m(0, [0])


def test_reversed_by_hand() -> None:
    back = task(
        weights=((0.9, 0.4), (0.5,)),
        semi_positives=((2,), (0, 2)),
        semi_weights=((0.2,), (0.3, 0.1)),
    ).reversed("S2D")
    assert back.title == "Toy S2D"
    assert [q.id for q in back.queries] == ["w", "x", "z"]  # y shows nothing fully
    assert [g.id for g in back.gallery] == ["a", "b"]
    assert back.positives == ((0,), (0,), (1,))
    assert back.weights == ((0.9,), (0.4,), (0.5,))
    assert back.semi_positives == ((1,), (), ())
    assert back.semi_weights == ((0.3,), (), ())


@given(st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=1, max_size=6))
def test_reversed_holds_the_same_pairs(rows: list[set[int]]) -> None:
    asked = task(
        queries=items("abcdef"[: len(rows)]),
        gallery=items("uvwxyz"),
        positives=tuple(tuple(sorted(row)) for row in rows),
    )
    back = asked.reversed("S2D")
    pairs = {
        (q, asked.gallery[r].id)
        for q, rs in zip("abcdef", asked.positives, strict=False)
        for r in rs
    }
    turned = {
        (back.gallery[r].id, q.id)
        for q, rs in zip(back.queries, back.positives, strict=True)
        for r in rs
    }
    assert turned == pairs


@given(st.text())
def test_ids_have_no_whitespace(name: str) -> None:
    assert not any(c.isspace() for c in escaped(name))
    if not any(c.isspace() for c in name):
        assert escaped(name) == name
