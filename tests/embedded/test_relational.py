"""Relational models: what they begin as, what has no say, and the ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from skylink.correlation import correlate_window
from skylink.densemap import weigh
from skylink.embedded.relational import (
    LateInteraction,
    RelationalTransformer,
    shift_cosines,
)
from skylink.embedded.relational_finish import export_relational
from skylink.embedded.relational_lists import cut
from skylink.rerankers.relational import INPUTS, Identity

SIDE, REACH, CHANNELS = 6, 2, 12
SMALL = {"channels": CHANNELS, "side": SIDE, "reach": REACH}


def pairs(count: int = 5, views: int = 2, seed: int = 0) -> list[torch.Tensor]:
    """Made-up cells; windows look a little like the view that they are compared with."""
    rng = np.random.default_rng(seed)
    window = SIDE + 2 * REACH
    seen = rng.normal(size=(views, SIDE, SIDE, CHANNELS))
    seen_valid = (rng.random((views, SIDE, SIDE)) < 0.6).astype(np.float32)
    owner = rng.integers(views, size=count)
    ground = rng.normal(size=(count, window, window, CHANNELS))
    for row, (own, (dy, dx)) in enumerate(
        zip(owner, rng.integers(2 * REACH + 1, size=(count, 2)), strict=True)
    ):
        ground[row, dy : dy + SIDE, dx : dx + SIDE] += seen[own] * row / count
    ground_valid = (rng.random((count, window, window)) < 0.9).astype(np.float32)
    return [
        torch.from_numpy(np.asarray(each, np.float32))
        for each in (seen, seen_valid, ground, ground_valid)
    ] + [torch.from_numpy(owner)]


def correlated(given: list[torch.Tensor]) -> np.ndarray:
    """Training-free correlation, as the dense re-ranker computes it."""
    seen, seen_valid, ground, ground_valid, owner = (each.numpy() for each in given)

    def unit(cells: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return cells / np.linalg.norm(cells, axis=-1, keepdims=True) * valid[..., None]

    kernels = unit(seen, seen_valid) * weigh(seen_valid.sum((1, 2)).astype(int), SIDE)
    windows = unit(ground, ground_valid)
    return np.array(
        [correlate_window(w, kernels[o]).max() for w, o in zip(windows, owner, strict=True)]
    )


@pytest.mark.parametrize("kind", [LateInteraction, RelationalTransformer])
@pytest.mark.parametrize("head", ["none", "linear", "mlp"])
def test_untrained_it_is_training_free_correlation(kind: type, head: str) -> None:
    given = pairs(20)
    exact = kind(head, **SMALL, softness=1e-4, falloff=0)(*given).detach().numpy()
    assert exact == pytest.approx(correlated(given), abs=2e-4)
    soft = kind(head, **SMALL, softness=0.005, falloff=0)(*given).detach().numpy()
    assert soft == pytest.approx(correlated(given), abs=0.01)


def test_far_shifts_cost() -> None:
    steep = LateInteraction("none", **SMALL, softness=1e-5, falloff=10.0)
    near = LateInteraction("none", channels=CHANNELS, side=SIDE, reach=0, softness=1e-5)
    given = pairs(20)
    inner = [each[:, REACH:-REACH, REACH:-REACH] for each in given[2:4]]
    assert steep(*given).tolist() == pytest.approx(
        near(*given[:2], *inner, given[4]).tolist(), abs=1e-6
    )


def test_the_size_is_small() -> None:
    def numbers(model: torch.nn.Module) -> int:
        return sum(each.numel() for each in model.parameters())

    assert numbers(LateInteraction()) == 112**2 + 25 + 1
    assert numbers(RelationalTransformer(layers=3)) < 150_000


def test_cosines_of_shifts_are_those_of_cells() -> None:
    seen, _, ground, _, owner = pairs()
    found = shift_cosines(seen[owner], ground, REACH)
    assert found.shape == (5, SIDE, SIDE, 25)
    for candidate, row, column, dy, dx in [(0, 0, 0, 0, 0), (3, 2, 5, 4, 1), (4, 5, 1, 2, 2)]:
        expected = seen[owner[candidate], row, column] @ ground[candidate, row + dy, column + dx]
        assert float(found[candidate, row, column, dy * 5 + dx]) == pytest.approx(
            float(expected), abs=1e-5
        )


def trained(kind: type) -> LateInteraction:
    """With weights that differ from the untrained ones everywhere."""
    torch.manual_seed(0)
    model: LateInteraction = kind("mlp", **SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@pytest.mark.parametrize("kind", [LateInteraction, RelationalTransformer])
def test_what_is_not_valid_has_no_say(kind: type) -> None:
    model, given = trained(kind), pairs()
    plain = model(*given)
    for cells, valid in ((0, 1), (2, 3)):
        given[cells] = torch.where(given[valid][..., None] > 0, given[cells], 1e3)
    assert torch.equal(model(*given), plain)
    given[1] = torch.zeros_like(given[1])  # nothing is seen at all
    assert torch.isfinite(model(*given)).all()


@pytest.mark.parametrize("kind", [LateInteraction, RelationalTransformer])
def test_onnx_equals_pytorch_for_any_number_of_views_and_candidates(
    kind: type, tmp_path: Path
) -> None:
    model = trained(kind)
    assert export_relational(model, tmp_path / "m.onnx", trunk="abc") < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    told = session.get_modelmeta().custom_metadata_map["skylink.relational"]
    known = Identity.model_validate_json(told)
    assert (known.channels, known.side, known.reach) == (CHANNELS, SIDE, REACH)
    assert known.trunk == "abc"
    assert known.fusion is None
    for count, views in ((1, 1), (9, 4)):
        given = pairs(count, views, seed=count)
        feed = {name: each.numpy() for name, each in zip(INPUTS, given, strict=True)}
        (found,) = session.run(None, feed)
        expected = model(*given).detach().numpy()
        assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


def test_windows_beyond_the_ground_are_not_valid() -> None:
    rng = np.random.default_rng(0)
    ground = torch.from_numpy(rng.normal(size=(3, 8, 8, 4)).astype(np.float32))
    valid = torch.from_numpy((rng.random((3, 8, 8)) < 0.7).astype(np.float32))
    ground = ground * valid[..., None]
    where = torch.tensor([[0, 0, 0], [2, -3, 5], [1, 7, -4], [1, 40, 0]])
    cells, known = cut(ground, valid, where, 5)
    padded = np.pad(ground.numpy(), [(0, 0), (40, 60), (40, 60), (0, 0)])
    padded_valid = np.pad(valid.numpy(), [(0, 0), (40, 60), (40, 60)])
    for i, (number, row, column) in enumerate(where.tolist()):
        inner = np.s_[number, row + 40 : row + 45, column + 40 : column + 45]
        assert np.array_equal(cells[i].numpy(), padded[inner])
        assert np.array_equal(known[i].numpy(), padded_valid[inner])
