"""Tiny models of each family, made from their configurations; no published weights were at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install '.[bases]'")
tf = pytest.importorskip("transformers", reason="needs transformers: pip install '.[bases]'")

from safetensors.torch import load_file, save_file  # noqa: E402

from encoder_helpers import check_contract, randomised, scenes  # noqa: E402
from skylink.encoder import load_encoder, unit_parts  # noqa: E402
from skylink.encoders.hf_encoder import load_hf  # noqa: E402
from skylink.errors import ModelError  # noqa: E402

SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
}  # fmt: skip
VISION = {"patch_size": 16, "image_size": 64, **SMALL}
TEXT = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, **SMALL}
DINO = {"patch_size": 14, "image_size": 56, **SMALL}


def crop(side: int) -> Any:
    """A processor that resizes the short side to more than it then cuts out."""
    return tf.BitImageProcessor(
        size={"shortest_edge": side + 8}, crop_size={"height": side, "width": side},
        image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3],
    )  # fmt: skip


def square(side: int) -> Any:
    return tf.SiglipImageProcessor(size={"height": side, "width": side}, resample=2)


def siglip() -> Any:
    return tf.SiglipModel(tf.SiglipConfig(text_config=TEXT, vision_config=VISION))


def clip() -> Any:
    sides = {"text_config": TEXT, "vision_config": {**VISION, "projection_dim": 24}}
    return tf.CLIPModel(tf.CLIPConfig(projection_dim=24, **sides))


CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any], Callable[[Any, Any], Any]]] = {
    "dinov2": (
        lambda: tf.Dinov2Model(tf.Dinov2Config(**DINO)),
        lambda: crop(56),
        lambda m, x: m(x).last_hidden_state[:, 0],
    ),
    "dinov2 with registers": (
        lambda: tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**DINO)),
        lambda: crop(56),
        lambda m, x: m(x).last_hidden_state[:, 0],
    ),
    "dinov3": (
        lambda: tf.DINOv3ViTModel(tf.DINOv3ViTConfig(num_register_tokens=4, **VISION)),
        lambda: square(64),
        lambda m, x: m(x).last_hidden_state[:, 0],
    ),
    "dinov3 convnext": (
        lambda: tf.DINOv3ConvNextModel(
            tf.DINOv3ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1])
        ),
        lambda: square(64),
        lambda m, x: m(x).last_hidden_state[:, 0],
    ),
    "siglip": (siglip, lambda: square(64), lambda m, x: m.vision_model(x).pooler_output),
    "clip": (
        clip,
        lambda: crop(64),
        lambda m, x: m.visual_projection(m.vision_model(x).pooler_output),
    ),
}


def stored(folder: Path, name: str) -> Any:
    """Save a case; the model itself."""
    make, processor, _ = CASES[name]
    torch.manual_seed(0)
    model = randomised(make()).eval()
    model.save_pretrained(folder)
    processor().save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", CASES)
def test_each_family(name: str, tmp_path: Path) -> None:
    model = stored(tmp_path, name)
    encoder = load_encoder(f"hf:{tmp_path}")
    check_contract(encoder)
    assert encoder.channels > 0
    assert encoder.input_px == (56 if "dinov2" in name else 64)
    processor = CASES[name][1]()
    assert encoder.resize == {2: "pil-bilinear", 3: "pil-bicubic"}[int(processor.resample)]
    images = scenes(2, encoder.input_px)
    values = (images / 255 - processor.image_mean) / processor.image_std
    pixels = torch.from_numpy(values.astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = CASES[name][2](model, pixels).numpy()
    assert np.abs(encoder.encode(images) - unit_parts(expected, encoder.parts)).max() < 1e-5


@pytest.mark.parametrize("name", ["dinov2", "dinov3", "siglip", "clip"])
def test_a_mark_stays_where_it_was_put(name: str, tmp_path: Path) -> None:
    stored(tmp_path, name)
    encoder = load_hf(str(tmp_path))
    step = encoder.stride_px
    image = np.full((1, 4 * step, 6 * step, 3), 90, np.uint8)
    marked = image.copy()
    marked[:, step : 2 * step, 4 * step : 5 * step] = scenes(1, step)
    changed = np.abs(encoder.feature_map(marked) - encoder.feature_map(image)).sum(-1)[0]
    assert np.unravel_index(changed.argmax(), changed.shape) == (1, 4)


def test_missing_tensors_are_refused(tmp_path: Path) -> None:
    stored(tmp_path, "dinov2")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    lost = next(key for key in tensors if "layernorm.weight" in key)
    del tensors[lost]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="would be random"):
        load_hf(str(tmp_path))


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    model = stored(tmp_path, "dinov2")
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="can't be loaded") as caught:
        load_hf(str(tmp_path))
    assert "model.safetensors" in (caught.value.hint or "")


def test_code_of_a_checkpoint_never_runs(tmp_path: Path) -> None:
    stored(tmp_path, "dinov2")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    path.write_text(json.dumps(config))
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError):
        load_hf(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_families_that_are_not_supported(tmp_path: Path) -> None:
    for kind, words in (("resnet", "supported are: clip"), ("siglip2", "fixed size")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(ModelError, match="not supported") as caught:
            load_hf(str(tmp_path))
        assert words in (caught.value.hint or "")


@pytest.mark.parametrize(
    "change",
    [
        {"size": {"height": 64, "width": 32}, "do_center_crop": False},
        {"rescale_factor": 1 / 127.5},
        {"do_normalize": False},
        {"resample": 0},
    ],
)
def test_processors_that_do_something_else(change: dict[str, Any], tmp_path: Path) -> None:
    stored(tmp_path, "clip")
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match="image processor"):
        load_hf(str(tmp_path))


def test_what_is_neither_a_folder_nor_a_name(tmp_path: Path) -> None:
    for source in (str(tmp_path / "none"), "dinov2", "a/b/c", "../x y"):
        with pytest.raises(ModelError, match="no such folder"):
            load_hf(source)
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_hf(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="can't be loaded"):
        load_hf(str(tmp_path))
