"""A tower learns to say codes of cells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from skylink.lvlm.random_checkpoint import write_random_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from skylink.lvlm.taught_tower import (  # noqa: E402
    MARK,
    CellCode,
    alike,
    codes_of,
    teach_tower,
    token_axes,
    tokens_of,
)

SIDE, PLACES, CODE, WIDTH = 112, 7, 16, 128
Batch = tuple[NDArray[np.uint8], Any]


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """The `small` shape with random weights."""
    write_random_checkpoint(tmp_path / "checkpoint", "smolvlm", shape="small")
    return transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint")


def batch(draw: np.random.Generator, count: int = 12) -> Batch:
    """Pictures of 7 x 7 plain squares, whose codes are fixed functions of their colours."""
    colours = draw.integers(20, 235, (count, PLACES, PLACES, 3), dtype=np.uint8)
    pictures = colours.repeat(SIDE // PLACES, axis=1).repeat(SIDE // PLACES, axis=2)
    mix = np.random.default_rng(9).standard_normal((3, CODE))
    values = (colours.reshape(count, -1, 3) / 127.5 - 1) @ mix
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return pictures, torch.from_numpy(values.astype(np.float32))


def batches(seed: int) -> Iterator[Batch]:
    draw = np.random.default_rng(seed)
    while True:
        yield batch(draw)


def told(model: Any, axes: Any) -> float:
    """Mean cosine of what the tower tells of new pictures and what it should."""
    pictures, codes = batch(np.random.default_rng(77))
    with torch.no_grad():
        return float((codes_of(tokens_of(model, pictures), axes) * codes).sum(-1).mean())


def test_codes_are_of_unit_length_and_nothing_where_nothing_is_seen() -> None:
    draw = np.random.default_rng(0)
    cells = draw.normal(3, 2, (5, 14, 14, 20)).astype(np.float32)
    code = CellCode.fitted(cells.reshape(-1, 20), 8)
    assert code.axes.T @ code.axes == pytest.approx(np.eye(8), abs=1e-5)
    valid = np.ones((5, 14, 14), np.float32)
    valid[0, :2, :2] = 0
    codes = code(cells, valid, side=7)
    assert codes.shape == (5, 49, 8)
    assert not codes[0, 0].any()
    assert torch.allclose(codes.norm(dim=-1).flatten()[1:], torch.ones(5 * 49 - 1), atol=1e-5)
    # what all cells of a map have in common, and in which units they are, says nothing
    other = CellCode.fitted((7 + 3 * cells).reshape(-1, 20), 8)
    again = other(7 + 3 * cells, valid, side=7)
    assert torch.allclose(alike(codes, again[:, None]), alike(codes, codes[:, None]), atol=1e-4)


def test_alike_is_the_mean_cosine_at_the_same_place() -> None:
    codes = torch.nn.functional.normalize(torch.randn(2, 9, 6), dim=-1)
    similarity = alike(codes, torch.stack([codes, -codes, codes.flip(1)], 1))
    assert torch.allclose(similarity[:, 0], torch.ones(2), atol=1e-5)
    assert torch.allclose(similarity[:, 1], -torch.ones(2), atol=1e-5)
    assert float(similarity[:, 2].max()) < 0.9


def test_axes_are_orthonormal() -> None:
    axes = token_axes(WIDTH, CODE, seed=4)
    assert torch.allclose(axes @ axes.T, torch.eye(1 + CODE), atol=1e-5)


@pytest.mark.slow
def test_a_taught_tower_tells_codes_of_new_pictures_and_leaves_the_language_model(
    model: Any,
) -> None:
    language = {k: v.clone() for k, v in model.model.text_model.state_dict().items()}
    axes, losses = token_axes(WIDTH, CODE), []
    before = told(model, axes)
    teach_tower(model, batches(0), axes, steps=60, say=lambda *step: losses.append(step))
    assert abs(before) < 0.2
    assert told(model, axes) > 0.6
    assert [step for step, _ in losses] == list(range(1, 61))
    assert losses[-1][1] < losses[0][1] / 2
    after = model.model.text_model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in language.items())
    assert not model.training
    with torch.no_grad():
        tokens = tokens_of(model, batch(np.random.default_rng(5))[0])
    assert float((tokens @ axes[0]).mean()) == pytest.approx(math.sqrt(MARK * WIDTH), rel=0.1)
    length = (tokens @ axes[1:].T).square().sum(-1).mean()
    assert float(length) == pytest.approx((1 - MARK) * WIDTH, rel=0.1)


def test_teaching_is_a_function_of_its_seed(model: Any) -> None:
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    outcomes = []
    for _ in range(2):
        model.load_state_dict(start)
        torch.rand(3)  # whatever was drawn before
        teach_tower(model, batches(1), token_axes(WIDTH, CODE), steps=2, seed=5)
        outcomes.append({name: weight.clone() for name, weight in model.state_dict().items()})
    assert all(torch.equal(outcomes[0][name], outcomes[1][name]) for name in start)


def test_batches_that_end_early_are_refused(model: Any) -> None:
    one = batch(np.random.default_rng(0), 2)
    with pytest.raises(ValueError, match="batch 2 of 3"):
        teach_tower(model, [one], token_axes(WIDTH, CODE), steps=3)
