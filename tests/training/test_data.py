"""Tests of `skylink.training.data`: what a step sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.errors import OptionError, QueriesError
from skylink.loss_registry import make_loss
from skylink.minedfile import MinedFile, write_mined
from skylink.training.config import Data, Labels
from skylink.training.data import TrainingLists, ValidationLists, choose, require_pictures
from training_helpers import provenance, write_lists


def lists_of(
    folder: Path, *, labels: Labels | None = None, loss: str = "relational", seed: int = 0,
    **data: Any,
) -> TrainingLists:  # fmt: skip
    chosen = Data(train=folder / "train.jsonl", **({"list_size": 4} | data))
    return TrainingLists(chosen, labels or Labels(), make_loss(loss), seed=seed)


@given(
    right=st.lists(st.booleans(), min_size=2, max_size=30).filter(any),
    size=st.integers(2, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_choice_has_a_right_one_and_no_more_than_asked_for(
    right: list[bool], size: int, seed: int
) -> None:
    truth = np.array(right)
    for negatives in ("hard", "sampled"):
        rows = choose(truth, size, negatives, np.random.default_rng(seed))  # type: ignore[arg-type]
        assert len(rows) == min(size, len(right))
        assert list(rows) == sorted(set(rows))
        assert truth[list(rows)].any()
        again = choose(truth, size, negatives, np.random.default_rng(seed))  # type: ignore[arg-type]
        assert again == rows


def test_hard_negatives_are_the_bases_best() -> None:
    right = np.zeros(20, bool)
    right[7] = True
    draw = np.random.default_rng(0)
    assert choose(right, 5, "hard", draw) == (0, 1, 2, 3, 7)
    assert choose(right, 9, "hard", draw) == tuple(range(9))
    drawn = {choose(right, 5, "sampled", draw) for _ in range(50)}
    assert len(drawn) > 30
    assert all(7 in rows for rows in drawn)


def test_every_epoch_has_every_list_once_in_its_own_order(folder: Path) -> None:
    lists = lists_of(folder)
    epochs = [[lists.at(e * 16 + p).mined.query for p in range(16)] for e in range(3)]
    assert all(set(epoch) == set(lists.file.queries) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_position_is_the_same_whatever_came_before(folder: Path) -> None:
    once = lists_of(folder, negatives="sampled", list_size=2)
    seen = [once.at(p) for p in range(40)]
    for position in (39, 3, 17):
        pick = lists_of(folder, negatives="sampled", list_size=2).at(position)
        assert (pick.key, pick.rows) == (seen[position].key, seen[position].rows)
    other = lists_of(folder, negatives="sampled", list_size=2, seed=1)
    assert [other.at(p).key for p in range(16)] != [pick.key for pick in seen[:16]]


def test_labels_are_stored_or_made_anew(folder: Path) -> None:
    assert lists_of(folder).at(0).labels.max() == 1
    assert lists_of(folder).statistics.collapsed
    soft = lists_of(folder, labels=Labels(source="overlap"))
    assert sorted(soft.at(0).labels.tolist()) == [0.25, 0.25, 0.25, 1.0]
    assert not soft.statistics.collapsed
    cut = lists_of(folder, labels=Labels(source="overlap", threshold=0.5))
    assert sorted(cut.at(0).labels.tolist()) == [0, 0, 0, 1]
    assert not lists_of(folder, labels=Labels(source="overlap", quantile=0.5)).statistics.collapsed
    with pytest.raises(QueriesError, match="cosine was not measured"):
        lists_of(folder, labels=Labels(source="cosine"))


def test_lists_that_teach_nothing_are_left_out(folder: Path) -> None:
    path = folder / "train.jsonl"
    lists = list(MinedFile(path))
    wrong = tuple(
        c.model_copy(update={"is_ground_truth": False, "label": 0.0}) for c in lists[0].candidates
    )
    lists[0] = lists[0].model_copy(update={"candidates": wrong})
    write_mined(path, provenance(ground_truth="not-forced"), lists)
    found = lists_of(folder)
    assert (len(found), found.left_out) == (15, 1)
    assert all(found.at(p).mined.query != lists[0].query for p in range(30))
    with pytest.raises(QueriesError, match="plackett-luce-second"):
        lists_of(folder, loss="plackett-luce-second")  # hard labels have one gap only


def test_validation_never_sees_what_was_forced_in(folder: Path) -> None:
    path = folder / "held.jsonl"
    lists = []
    for mined in MinedFile(path):
        moved = sorted(mined.candidates, key=lambda c: c.is_ground_truth)
        forced = [
            c.model_copy(update={"rank": None, "base_score": None} if c.is_ground_truth else {})
            for c in moved
        ]
        lists.append(mined.model_copy(update={"candidates": tuple(forced)}))
    write_mined(path, provenance(), lists)
    judged = ValidationLists([path], 10, lists_of(folder))
    assert len(judged) == 12
    assert all(not pick.mined.ground_truth[list(pick.rows)].any() for pick in judged)
    assert all(len(pick.rows) == 2 for pick in ValidationLists([path], 2, lists_of(folder)))


def test_the_test_split_and_queries_of_both_sides_are_refused(folder: Path) -> None:
    write_lists(folder, name="other", split="test")
    with pytest.raises(QueriesError, match="test split"):
        ValidationLists([folder / "other.jsonl"], 10, lists_of(folder))
    with pytest.raises(QueriesError, match="test split"):
        TrainingLists(Data(train=folder / "other.jsonl"), Labels(), make_loss("hard"), seed=0)
    with pytest.raises(OptionError, match="16 queries of validation lists"):
        ValidationLists([folder / "train.jsonl"], 10, lists_of(folder))


def test_missing_pictures_are_named_before_anything_is_trained(folder: Path) -> None:
    pictures = lists_of(folder).pictures
    require_pictures(folder, pictures)
    (folder / "train/3.png").unlink()
    with pytest.raises(QueriesError, match=r"1 of \d+ pictures .*'train/3.png'"):
        require_pictures(folder, pictures)
    for outside in ("/etc/passwd", "../x.png"):
        with pytest.raises(QueriesError, match="not within"):
            require_pictures(folder, {outside})
