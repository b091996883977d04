"""The network in PyTorch against the shipped ONNX files, and what is exported of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from skylink.embedded.encoder import DESCRIPTOR, load_embedded, trained_encoder
from skylink.embedded.export import export_onnx
from skylink.embedded.finish import export_descriptor
from skylink.embedded.network import Top, Trunk, read_weights, shipped
from skylink.embedded.tuned import TunedDescriptor, coarse_cells, part_cosines, pooled
from skylink.encoder import (
    EmbeddedEncoder,
    cell_masks,
    masked_mean,
    onnx_session,
    standardise,
    unit_parts,
)
from skylink.errors import ModelError

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def halves() -> tuple[Trunk, Top]:
    trunk, top = Trunk().eval(), Top().eval()
    read_weights(trunk, shipped("trunk"))
    read_weights(top, shipped("top"))
    return trunk, top


def test_pytorch_is_what_is_shipped(halves: tuple[Trunk, Top]) -> None:
    trunk, top = halves
    with torch.no_grad():
        features = trunk(torch.from_numpy(PIXELS))
        got = [features, *top(features)]
    sessions = [onnx_session(str(shipped(part)), part) for part in ("trunk", "top")]  # type: ignore[arg-type]
    expected = sessions[0].run(None, {"images": PIXELS})
    expected += sessions[1].run(None, {"features": expected[0]})
    for a, b in zip(got, expected, strict=True):
        assert np.abs(a.numpy() - b).max() < 1e-4 * np.abs(b).max()


def test_an_export_is_the_shipped_file(halves: tuple[Trunk, Top], tmp_path: Path) -> None:
    trunk, _ = halves
    path = tmp_path / "trunk.onnx"
    grid = {0: "batch", 2: "rows", 3: "columns"}
    export_onnx(
        trunk, [torch.from_numpy(PIXELS)], path, inputs=["images"], outputs=["features"],
        axes={"images": {0: "batch", 1: "height", 2: "width"}, "features": grid},
    )  # fmt: skip
    ours, theirs = onnx.load(str(path)), onnx.load(str(shipped("trunk")))
    values = [{i.name: i.raw_data for i in m.graph.initializer} for m in (ours, theirs)]
    assert values[0] == values[1]
    assert [n.op_type for n in ours.graph.node] == [n.op_type for n in theirs.graph.node]
    assert "Pad" not in {n.op_type for n in ours.graph.node}


def test_a_file_that_differs_is_never_written(tmp_path: Path) -> None:
    class Other(torch.nn.Module):
        """Traced for one size, it is wrong for none; made wrong by its own state."""

        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x * self.calls

    path = tmp_path / "other.onnx"
    with pytest.raises(ModelError, match="would differ from PyTorch"):
        export_onnx(Other(), [torch.ones(2)], path, inputs=["x"], outputs=["y"], axes={})
    assert not path.exists()


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no weight"):
        read_weights(Top(), shipped("trunk"))
    with pytest.raises(ModelError, match="can't be read"):
        read_weights(Top(), tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 50)
    with pytest.raises(ModelError, match="can't be read"):
        read_weights(Top(), tmp_path / "bad.onnx")


# the tuned descriptor


@pytest.fixture(scope="module")
def tuned(halves: tuple[Trunk, Top]) -> TunedDescriptor:
    torch.manual_seed(2)
    model = TunedDescriptor(24).eval()
    model.top.load_state_dict(halves[1].state_dict())
    return model


def test_pooling_is_that_of_the_base() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 5, 4, 6)).astype(np.float32)
    weights = (rng.random((3, 4, 6)) < 0.5).astype(np.float32)
    weights[1] = 0
    for power in (1.0, 3.0):
        got = pooled(torch.from_numpy(features), torch.from_numpy(weights), power)
        np.testing.assert_allclose(got, masked_mean(features, weights, power), rtol=1e-5)
    valid = torch.from_numpy(np.kron(weights, np.ones((2, 2), np.float32)))
    assert np.array_equal(coarse_cells(valid), weights)


def test_cosines_are_those_of_use() -> None:
    rng = np.random.default_rng(0)
    queries, tiles = (rng.normal(size=(n, 9)).astype(np.float32) for n in (4, 20))
    got = part_cosines(torch.from_numpy(queries), torch.from_numpy(tiles), [4, 5])
    mean, std = tiles.mean(0), tiles.std(0)
    a, b = (standardise(x, mean, std, (4, 5)) for x in (queries, tiles))
    np.testing.assert_allclose(got / 2, a @ b.T, atol=1e-4)


def test_the_tuned_part_is_added_to_the_base(tuned: TunedDescriptor, tmp_path: Path) -> None:
    assert export_descriptor(tuned, [8, 8, 8], tmp_path / DESCRIPTOR) < 1e-4
    encoder, base = trained_encoder(tmp_path, name="mine"), EmbeddedEncoder()
    assert encoder.parts == (1280, 320, 112, 8, 8, 8)
    assert encoder.name == "mine"
    assert encoder.fingerprint != base.fingerprint
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 224, 224, 3), dtype=np.uint8)
    masks = np.ones((10, 224, 224), bool)
    masks[3, :, 100:] = False
    got, untuned = encoder.encode(images, masks), base.encode(images, masks)
    assert got.shape == (10, 1712 + 24)
    np.testing.assert_allclose(
        unit_parts(got[:, :1712], base.parts), untuned, atol=1e-6
    )  # the base as it was
    features = encoder.feature_map(np.where(masks[..., None], images, 0)[:3])
    with torch.no_grad():
        expected = tuned(
            torch.from_numpy(features).permute(0, 3, 1, 2),
            torch.from_numpy(cell_masks(masks[:3], 32)),
        ).numpy()
    expected = unit_parts(expected, (8, 8, 8)) / 2**0.5
    np.testing.assert_allclose(got[:3, 1712:], expected, atol=1e-4)
    alone = encoder.encode(images[3:4], masks[3:4])
    np.testing.assert_allclose(alone, got[3:4], atol=1e-5)


def test_folders_that_are_none(tmp_path: Path, tuned: TunedDescriptor) -> None:
    with pytest.raises(ModelError, match="holds neither"):
        load_embedded(str(tmp_path))
    path = tmp_path / DESCRIPTOR
    export_descriptor(tuned, [8, 8], path)  # of 24
    with pytest.raises(ModelError, match=r"skylink\.parts"):
        load_embedded(str(tmp_path))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="not an ONNX model"):
        load_embedded(str(tmp_path))
    path.unlink()
    (tmp_path / "dense_head.onnx").write_bytes(shipped("top").read_bytes())
    with pytest.raises(ModelError, match="is not what `skylink train-encoder` writes"):
        load_embedded(str(tmp_path))
