"""Encoders: what a descriptor promises, and that a model of one's own is held to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from map_helpers import texture
from skylink import encoder as encoder_module
from skylink.encoder import (
    BATCH,
    EmbeddedEncoder,
    Encoder,
    OnnxEncoder,
    cell_masks,
    fill_invalid,
    load_encoder,
    masked_mean,
    standardise,
    unit_parts,
)
from skylink.errors import ModelError


@pytest.fixture(scope="module")
def embedded() -> Encoder:
    return load_encoder()


def pictures(n: int, side: int = 224) -> NDArray[np.uint8]:
    return np.stack([texture(side, side, seed) for seed in range(n)])


# the parts


def test_fill_invalid_takes_the_valid_mean_and_leaves_the_input_alone() -> None:
    images = np.full((3, 4, 4, 3), 7, np.uint8)
    images[0, :2] = (10, 20, 30)
    before = images.copy()
    masks = np.ones((3, 4, 4), bool)
    masks[0, 2:] = False
    masks[2] = False
    filled = fill_invalid(images, masks)
    assert (filled[0] == (10, 20, 30)).all()
    assert (filled[1] == 7).all()
    assert (filled[2] == 128).all()
    assert (images == before).all()


def test_cell_masks_need_more_than_half() -> None:
    masks = np.zeros((1, 4, 4), bool)
    masks[0, :2, 0] = True  # half of the first cell
    masks[0, :2, 2:] = [[True, True], [True, False]]
    assert cell_masks(masks, 2).tolist() == [[[0, 1], [0, 0]]]


def test_masked_mean_by_hand() -> None:
    features = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    weights = np.array([[[1, 0], [0, 1]]], np.float32)
    assert masked_mean(features, weights).tolist() == [[1.5]]
    cubic = ((1 + 8 + 27) / 4) ** (1 / 3)
    everything = np.zeros((1, 2, 2), np.float32)  # an all-zero mask counts as all ones
    assert masked_mean(features, everything, power=3)[0, 0] == pytest.approx(cubic, rel=1e-4)


def test_unit_parts_give_each_part_the_same_say() -> None:
    rows = unit_parts(np.array([[3.0, 4.0, 1000.0]]), (2, 1))
    assert rows == pytest.approx(np.array([[0.6, 0.8, 1.0]]) / np.sqrt(2), abs=1e-6)
    assert np.isfinite(unit_parts(np.zeros((1, 3)), (2, 1))).all()


def test_standardise_takes_out_what_all_have_in_common() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(5, [1, 2, 4, 8], (50, 4)).astype(np.float32)
    out = standardise(rows, rows.mean(0), rows.std(0), (4,))
    assert np.linalg.norm(out, axis=1) == pytest.approx(np.ones(50), abs=1e-5)
    assert np.abs(out.mean(0)).max() < 0.1 < np.abs(unit_parts(rows, (4,)).mean(0)).max()
    assert np.isfinite(standardise(rows, rows.mean(0), np.zeros(4), (4,))).all()


# the embedded encoder


def test_descriptors_are_unit_norm_and_tell_pictures_apart(embedded: Encoder) -> None:
    assert isinstance(embedded, Encoder)
    vectors = embedded.encode(pictures(3))
    assert vectors.shape == (3, sum(embedded.parts))
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    for part in np.split(vectors, np.cumsum(embedded.parts)[:-1], axis=1):
        share = len(embedded.parts) ** -0.5
        assert np.linalg.norm(part, axis=1) == pytest.approx(np.full(3, share), abs=1e-5)
    cosines = vectors @ vectors.T
    assert (cosines[~np.eye(3, dtype=bool)] < 0.995).all()


def test_company_does_not_change_a_descriptor(embedded: Encoder) -> None:
    """Batches of 1, 3, 9 (batched, with a rest) and 20 (several threads)."""
    images = pictures(20)
    masks = np.ones(images.shape[:3], bool)
    masks[::2, :, 150:] = False
    alone = np.concatenate(
        [embedded.encode(images[i : i + 1], masks[i : i + 1]) for i in (0, 1, 2)]
    )
    assert 2 * BATCH < 9  # else nothing here is batched
    for count in (3, 9, 20):
        together = embedded.encode(images[:count], masks[:count])
        assert np.abs(together[:3] - alone).max() < 1e-5
    backwards = embedded.encode(images[::-1], masks[::-1])[::-1]
    assert np.abs(backwards - together).max() < 1e-5


def test_what_is_masked_does_not_matter(embedded: Encoder) -> None:
    image = pictures(1)
    mask = np.ones((1, 224, 224), bool)
    mask[:, :, 128:] = False
    other = image.copy()
    other[:, :, 128:] = 255 - other[:, :, 128:]
    seen = [embedded.encode(i, mask) for i in (image, other)]
    assert np.array_equal(seen[0], seen[1])
    bare = [embedded.encode(i) for i in (image, other)]
    assert np.abs(bare[0] - bare[1]).max() > 1e-3  # without the mask it would
    assert np.abs(seen[0] - bare[0]).max() > 1e-3


def test_an_all_valid_mask_is_no_mask(embedded: Encoder) -> None:
    image = pictures(1)
    assert np.array_equal(
        embedded.encode(image), embedded.encode(image, np.ones((1, 224, 224), bool))
    )


def test_an_all_invalid_mask_is_finite(embedded: Encoder) -> None:
    vectors = embedded.encode(pictures(2), np.zeros((2, 224, 224), bool))
    assert np.isfinite(vectors).all()
    assert np.array_equal(vectors[0], vectors[1])


def test_feature_maps_of_any_multiple_of_32(embedded: Encoder) -> None:
    image = texture(160, 256)[None]
    features = embedded.feature_map(image)
    assert features.shape == (1, 10, 16, embedded.channels)
    assert features.dtype == np.float32
    assert features.flags["C_CONTIGUOUS"]
    moved = embedded.feature_map(np.roll(image, 64, axis=2))[0]
    assert np.abs(moved[3:7, 8:12] - features[0, 3:7, 4:8]).mean() < 0.3 * np.abs(features).mean()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 100, 96, 3), np.uint8), ((1, 96, 48, 3), np.uint8), ((96, 96, 3), np.uint8),
        ((1, 96, 96, 4), np.uint8), ((1, 96, 96, 3), np.float32), ((0, 96, 96, 3), np.uint8),
    ],
)  # fmt: skip
def test_wrong_images_are_refused(embedded: Encoder, shape: tuple[int, ...], dtype: Any) -> None:
    with pytest.raises(ModelError):
        embedded.feature_map(np.zeros(shape, dtype))


def test_descriptors_have_one_size(embedded: Encoder) -> None:
    with pytest.raises(ModelError, match="224 x 224"):
        embedded.encode(pictures(1, 256))


def test_names(tmp_path: Path) -> None:
    assert load_encoder("embedded") is load_encoder("embedded")
    base = load_encoder("embedded-base")
    assert load_encoder("efficientnet-lite0").fingerprint == base.fingerprint
    assert load_encoder().fingerprint != base.fingerprint  # the tuned descriptor
    for name in ("resnet50", "onnx:", "", "onnx"):
        with pytest.raises(ModelError, match="unknown encoder") as caught:
            load_encoder(name)
        assert "onnx:PATH" in (caught.value.hint or "")
    with pytest.raises(ModelError, match="no model file"):
        load_encoder(f"onnx:{tmp_path / 'none.onnx'}")


def test_missing_weights_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbeddedEncoder, "_files", ("gone.onnx",))
    with pytest.raises(ModelError, match=r"gone\.onnx"):
        EmbeddedEncoder()


# models of one's own

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a model: an input of some shape and type, nodes, an output of some rank."""
    onnx = pytest.importorskip(
        "onnx", reason="onnx is needed to make models to test with: pip install onnx"
    )
    helper, types = onnx.helper, onnx.TensorProto

    def write(
        nodes: list[tuple[Any, ...]],
        *,
        shape: tuple[Any, ...] = ("n", 3, "h", "w"),
        kind: str = "float",
        rank: int = 2,
        constants: dict[str, Any] | None = None,
        inputs: int = 1,
        **meta: str,
    ) -> Path:
        element = types.UINT8 if kind == "uint8" else types.FLOAT
        made = [helper.make_node(op, ins, outs, **kw) for op, ins, outs, kw in nodes]
        weights = [onnx.numpy_helper.from_array(v, k) for k, v in (constants or {}).items()]
        graph = helper.make_graph(
            made,
            "tiny",
            [helper.make_tensor_value_info(f"x{i or ''}", element, shape) for i in range(inputs)],
            [helper.make_tensor_value_info("y", types.FLOAT, [None] * rank)],
            initializer=weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        helper.set_model_props(model, {f"skylink.{k}": v for k, v in meta.items()})
        path = tmp_path / "model.onnx"
        onnx.save(model, str(path))
        return path

    return write


MEAN_COLOUR = [
    ("GlobalAveragePool", ["x"], ["p"], {}),
    ("Flatten", ["p"], ["y"], {}),
]
CELLS = [("AveragePool", ["x"], ["y"], {"kernel_shape": [16, 16], "strides": [16, 16]})]


def colours() -> NDArray[np.uint8]:
    """Ten pictures of one colour each."""
    rng = np.random.default_rng(0)
    return np.broadcast_to(
        rng.integers(0, 256, (10, 1, 1, 3), dtype=np.uint8), (10, 64, 64, 3)
    ).copy()


def test_a_descriptor_model(save: Save) -> None:
    path = save(MEAN_COLOUR, input_px="64")
    model = load_encoder(f"onnx:{path}")
    assert isinstance(model, Encoder)
    assert (model.input_px, model.channels, model.parts) == (64, 0, (3,))
    assert model.name == f"onnx:{path}"
    images = colours()
    expected = (images[:, 0, 0] / 255 - encoder_module.IMAGENET_MEAN) / encoder_module.IMAGENET_STD
    assert model.encode(images) == pytest.approx(unit_parts(expected, (3,)), abs=1e-5)
    with pytest.raises(ModelError, match="no feature map"):
        model.feature_map(images)


def test_a_map_model_is_pooled_over_the_mask(save: Save) -> None:
    model = OnnxEncoder(save(CELLS, rank=4, input_px="64", mean="[0, 0, 0]", std="[1, 1, 1]"))
    assert (model.channels, model.stride_px) == (3, 16)
    images = colours()
    images[:, :, 32:] = 255 - images[:, :, :32]
    masks = np.ones((10, 64, 64), bool)
    masks[:, :, 32:] = False
    expected = unit_parts(images[:, 0, 0].astype(float), (3,))
    assert model.encode(images, masks) == pytest.approx(expected, abs=1e-5)
    assert np.abs(model.encode(images) - expected).max() > 0.05
    features = model.feature_map(texture(96, 160)[None])
    assert features.shape == (1, 6, 10, 3)
    cell = texture(96, 160)[16:32, 32:48].mean((0, 1)) / 255
    assert features[0, 1, 2] == pytest.approx(cell, abs=1e-5)


def test_a_model_of_bytes_gets_the_picture_as_it_is(save: Save) -> None:
    nodes = [
        ("Cast", ["x"], ["f"], {"to": 1}),
        ("ReduceMean", ["f"], ["y"], {"axes": [1, 2], "keepdims": 0}),
    ]
    model = OnnxEncoder(save(nodes, shape=("n", 64, 64, 3), kind="uint8"))
    assert model.input_px == 64
    images = colours()
    expected = unit_parts(images[:, 0, 0].astype(float), (3,))
    assert model.encode(images) == pytest.approx(expected, abs=1e-5)


def test_metadata_changes_the_preprocessing_and_the_fingerprint(save: Save) -> None:
    plain = OnnxEncoder(save(MEAN_COLOUR, input_px="64"))
    other = OnnxEncoder(
        save(MEAN_COLOUR, input_px="64", mean="[0.5, 0.5, 0.5]", std="[0.5, 0.25, 1.0]")
    )
    assert plain.fingerprint != other.fingerprint
    images = colours()
    expected = (images[:, 0, 0] / 255 - 0.5) / (0.5, 0.25, 1.0)
    assert other.encode(images) == pytest.approx(unit_parts(expected, (3,)), abs=1e-5)


@pytest.mark.parametrize(
    "meta",
    [
        {},  # a dynamic side and no skylink.input_px
        {"input_px": "many"},
        {"input_px": "16"},
        {"input_px": "4096"},
        {"input_px": "64", "mean": "[0.5, 0.5]"},
        {"input_px": "64", "mean": "not json"},
        {"input_px": "64", "mean": '["a", "b", "c"]'},
        {"input_px": "64", "std": '["a", "b", "c"]'},
        {"input_px": "64", "std": "[1, 0, 1]"},
        {"input_px": "64", "mean": "[NaN, 0, 0]"},
    ],
)
def test_bad_metadata(save: Save, meta: dict[str, str]) -> None:
    path = save(MEAN_COLOUR, **meta)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        OnnxEncoder(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08\x12"])
def test_a_bad_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        OnnxEncoder(path)


def test_wrong_inputs(save: Save) -> None:
    with pytest.raises(ModelError, match="one 4-D image input"):
        OnnxEncoder(save([("Identity", ["x"], ["y"], {})], shape=("n", 3)))
    with pytest.raises(ModelError, match="one 4-D image input"):
        OnnxEncoder(save([("Add", ["x", "x1"], ["y"], {})], inputs=2, rank=4))
    with pytest.raises(ModelError, match="failed on a batch"):  # four channels
        OnnxEncoder(save(CELLS, shape=("n", 4, 64, 64), rank=4))


def test_wrong_outputs(save: Save) -> None:
    path = save([("ReduceMean", ["x"], ["y"], {"axes": [1], "keepdims": 0})], rank=3, input_px="64")
    with pytest.raises(ModelError, match="returned shape"):
        OnnxEncoder(path)
    nan = {"c": np.float32(np.nan).reshape(1)}
    added = [MEAN_COLOUR[0], ("Flatten", ["p"], ["f"], {}), ("Add", ["f", "c"], ["y"], {})]
    path = save(added, constants=nan, input_px="64")
    with pytest.raises(ModelError, match="finite"):
        OnnxEncoder(path)
    odd = {"kernel_shape": [20, 20], "strides": [20, 20]}
    path = save([("AveragePool", ["x"], ["y"], odd)], rank=4, input_px="64")
    with pytest.raises(ModelError, match="3 x 3 cells for 64 px"):
        OnnxEncoder(path)


def test_not_a_number_on_one_picture_only(save: Save) -> None:
    """The probe at loading is a grey picture; a black one breaks this model."""
    nodes = [*MEAN_COLOUR[:1], ("Flatten", ["p"], ["f"], {}), ("Log", ["f"], ["y"], {})]
    model = OnnxEncoder(save(nodes, input_px="64", mean="[0, 0, 0]", std="[1, 1, 1]"))
    assert np.isfinite(model.encode(np.full((1, 64, 64, 3), 90, np.uint8))).all()
    with pytest.raises(ModelError, match="finite"):
        model.encode(np.zeros((1, 64, 64, 3), np.uint8))


def test_a_model_exported_for_single_pictures(save: Save) -> None:
    """torch.onnx.export without dynamic axes: the batch is fixed to 1, and so is the side."""
    model = OnnxEncoder(save(MEAN_COLOUR, shape=(1, 3, 64, 64)))
    images = colours()
    assert len(images) > 2 * BATCH
    assert model.encode(images) == pytest.approx(
        np.concatenate([model.encode(images[i : i + 1]) for i in range(10)]), abs=1e-6
    )


def test_a_map_model_of_one_size_gives_descriptors_only(save: Save) -> None:
    """Dense search runs the model on large pieces of the map, which this one refuses."""
    model = OnnxEncoder(save(CELLS, shape=("n", 3, 64, 64), rank=4))
    assert (model.channels, model.stride_px) == (0, 16)
    assert model.encode(colours()).shape == (10, 3)
    with pytest.raises(ModelError, match="no feature map"):
        model.feature_map(colours())


def test_a_feature_map_too_fine_for_dense_search(save: Save) -> None:
    """512 px at stride 4 are kernels of 128 cells, beyond an FFT block of 64."""
    fine = [("AveragePool", ["x"], ["y"], {"kernel_shape": [4, 4], "strides": [4, 4]})]
    model = OnnxEncoder(save(fine, rank=4, input_px="512"))
    assert model.channels == 0
