"""Preparing a random model: its tower learns what looks alike, its attention begins there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from skylink.lvlm.random_checkpoint import write_random_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from skylink.lvlm.prepared import (  # noqa: E402
    alike,
    compare_pictures,
    mark_pictures,
    teach_tower,
    tokens_of,
)

SIDE = 96


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """The `small` shape with random weights."""
    kept: list[Any] = []
    write_random_checkpoint(
        tmp_path / "checkpoint",
        "smolvlm",
        shape="small",
        prepare=lambda model, _: kept.append(model),
    )
    return kept[0].eval()


def blocks(count: int, draw: np.random.Generator) -> NDArray[np.uint8]:
    """(count, SIDE, SIDE, 3) pictures of nine plain squares."""
    colours = draw.integers(30, 225, (count, 3, 3, 3), dtype=np.uint8)
    return colours.repeat(SIDE // 3, axis=1).repeat(SIDE // 3, axis=2)


def pairs(draw: np.random.Generator, count: int = 12) -> Iterator[Any]:
    """Views are the negatives of crops, and noisy."""
    while True:
        crops = blocks(count, draw)
        views = 255.0 - crops + draw.normal(0, 8, crops.shape)
        yield views.clip(0, 255).astype(np.uint8), crops


def found(model: Any, seed: int) -> float:
    """Share of new views that are most like their own crop."""
    views, crops = next(pairs(np.random.default_rng(seed), 40))
    with torch.no_grad():
        similarity = alike(tokens_of(model, views), tokens_of(model, crops))
    return float((similarity.argmax(1) == torch.arange(40)).float().mean())


def test_alike_is_one_for_equal_tokens_and_less_for_others() -> None:
    tokens = torch.randn(6, 9, 16, generator=torch.Generator().manual_seed(0))
    similarity = alike(tokens, tokens)
    assert torch.allclose(similarity.diagonal(), torch.ones(6), atol=1e-5)
    assert (similarity - 2 * torch.eye(6)).max() < 0.5
    shifted = tokens + torch.randn(9, 16)  # what all pictures have at a place says nothing
    assert torch.allclose(alike(tokens, shifted), similarity, atol=1e-5)


@pytest.mark.slow
def test_a_taught_tower_tells_new_pictures_apart_and_leaves_the_language_model(model: Any) -> None:
    language = {k: v.clone() for k, v in model.model.text_model.state_dict().items()}
    before, losses = found(model, 7), []
    draw = np.random.default_rng(0)
    teach_tower(model, pairs(draw), steps=30, say=lambda step, loss: losses.append((step, loss)))
    assert before < 0.2
    assert found(model, 7) > 0.5
    assert [step for step, _ in losses] == list(range(1, 31))
    assert losses[-1][1] < losses[0][1] / 2
    after = model.model.text_model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in language.items())
    assert not model.training


def test_teaching_is_a_function_of_its_seed(model: Any) -> None:
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    outcomes = []
    for _ in range(2):
        model.load_state_dict(start)
        torch.rand(3)  # whatever was drawn before
        teach_tower(model, pairs(np.random.default_rng(1), 4), steps=2, seed=5)
        outcomes.append({name: weight.clone() for name, weight in model.state_dict().items()})
    assert all(torch.equal(outcomes[0][name], outcomes[1][name]) for name in start)


def test_batches_that_end_early_or_lack_crops_are_refused(model: Any) -> None:
    views, crops = next(pairs(np.random.default_rng(0), 4))
    with pytest.raises(ValueError, match="batch 2 of 3"):
        teach_tower(model, [(views, crops)], steps=3)
    with pytest.raises(ValueError, match="too few crops"):
        teach_tower(model, [(views, crops[:2])], steps=1)


def test_marked_pictures_have_a_part_in_common_and_a_mean_square_of_one(model: Any) -> None:
    pictures = blocks(16, np.random.default_rng(3))
    with torch.no_grad():
        mark_pictures(model, pictures, share=0.4)
        tokens = tokens_of(model, pictures)
        assert float(tokens.square().mean()) == pytest.approx(1, abs=1e-4)
        common = tokens.mean((0, 1)).square().mean()
    assert 0.25 < float(common) < 0.75


def test_the_first_layer_subtracts_the_token_at_that_distance(model: Any) -> None:
    pictures = blocks(16, np.random.default_rng(3))
    with torch.no_grad():
        mark_pictures(model, pictures)
        tokens = tokens_of(model, pictures)
    compare_pictures(model, 12, gain=0.7)
    row = torch.cat([tokens[0], torch.randn(3, 128) * 0.1, tokens[1]])[None]  # 9 + 3 + 9
    layer = model.model.text_model.layers[0]
    length = row.shape[1]
    turned = model.model.text_model.rotary_emb(row, torch.arange(length)[None])
    unseen = torch.full((length, length), torch.finfo(row.dtype).min).triu(1)[None, None]
    with torch.no_grad():
        equal = layer.input_layernorm(row)
        written, _ = layer.self_attn(equal, position_embeddings=turned, attention_mask=unseen)
    cosine = torch.nn.functional.cosine_similarity(written[0, 12:, None], -equal[0, :9], dim=-1)
    assert (cosine.argmax(1) == torch.arange(9)).sum() >= 7
    assert cosine.diagonal().mean() > 0.9
