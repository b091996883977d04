from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install '.[bases]'")
timm = pytest.importorskip("timm", reason="needs timm: pip install '.[bases]'")

from safetensors.torch import save_file  # noqa: E402

from encoder_helpers import check_contract, randomised, saved, scenes  # noqa: E402
from skylink.encoder import load_encoder, unit_parts  # noqa: E402
from skylink.encoders import timm_encoder  # noqa: E402
from skylink.encoders.timm_encoder import create, dense_of, load_timm, preprocessing_of  # noqa: E402
from skylink.encoders.torch_encoder import TorchEncoder  # noqa: E402
from skylink.errors import ModelError  # noqa: E402

CNN = "test_convnext"  # timm's own tiny models
VIT = "test_vit"


def weights(name: str, **options: Any) -> dict[str, Any]:
    return randomised(timm.create_model(name, **options)).state_dict()


@pytest.mark.parametrize("name", [CNN, VIT, "test_efficientnet", "test_byobnet"])
def test_weights_of_a_file(name: str, tmp_path: Path) -> None:
    """With the classifier that training leaves in the file; the descriptor is timm's pooled one."""
    tensors = weights(name, num_classes=5)
    path = saved(tensors, tmp_path / "w.pth")
    encoder = load_encoder(f"timm:{name}@{path}")
    check_contract(encoder)
    assert encoder.name == f"timm:{name}@{path}"
    network = timm.create_model(name, num_classes=5)
    network.load_state_dict(tensors)
    network.reset_classifier(0)
    config = timm.data.resolve_model_data_config(network)
    images = scenes(2, encoder.input_px)
    values = ((images / 255 - config["mean"]) / config["std"]).astype(np.float32)
    expected = network.eval()(torch.from_numpy(values).permute(0, 3, 1, 2)).detach().numpy()
    assert np.abs(encoder.encode(images) - unit_parts(expected, encoder.parts)).max() < 1e-5
    assert encoder.input_px == config["input_size"][1]
    save_file(tensors, tmp_path / "w.safetensors")
    assert load_timm(f"{name}@{tmp_path / 'w.safetensors'}").fingerprint == encoder.fingerprint


def test_a_file_of_another_model(tmp_path: Path) -> None:
    tensors = weights(CNN, num_classes=5)
    with pytest.raises(ModelError, match="lacks"):
        load_timm(f"{VIT}@{saved(tensors, tmp_path / 'w.pth')}")
    more = saved({**tensors, "extra": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="unknown to us, 1"):
        load_timm(f"{CNN}@{more}")


def test_pretrained_weights_come_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub itself is out of reach of tests: what timm is asked for is what matters."""
    asked: list[dict[str, Any]] = []
    real = timm.create_model

    def fake(name: str, **options: Any) -> Any:
        asked.append({"name": name, **options})
        return real(name, **{**options, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", fake)
    check_contract(load_timm(VIT))
    assert asked[0]["name"] == VIT
    assert asked[0]["pretrained"] is True
    assert asked[0]["num_classes"] == 0


@pytest.mark.parametrize("name", ["../evil", "a b", "hf-hub:x", "", "local-dir:/etc", "a/b/c"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ModelError, match="not a model name"):
        load_timm(f"{name}@file.pth")


def test_unknown_models_and_lost_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no_such_model") as caught:
        load_timm("no_such_model")
    assert "list_models" in (caught.value.hint or "")

    def offline(*_: Any, **__: Any) -> Any:
        raise OSError("no route to the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match="no route") as caught:
        load_timm(VIT)
    assert f"timm:{VIT}@FILE" in (caught.value.hint or "")


MAPS = {
    "test_convnext": ({}, 32),
    "test_vit": ({}, 16),
    "test_vit2": ({}, 16),
    "vit_tiny_patch16_224": ({"depth": 1, "embed_dim": 48}, 16),  # a class token
    "vit_base_patch16_rope_reg1_gap_256": ({"depth": 1, "embed_dim": 96, "num_heads": 3}, 16),
    "swin_tiny_patch4_window7_224": ({"depths": (1, 1, 1, 1), "embed_dim": 24}, 32),
}


@pytest.mark.parametrize("name", MAPS)
def test_feature_maps(name: str) -> None:
    """NCHW, NHWC and tokens with what comes before them: a mark stays where it was put."""
    options, stride = MAPS[name]
    network = randomised(create(name, pretrained=False, num_classes=0, **options))
    encoder = TorchEncoder("x", network, preprocessing_of(network), dense=dense_of(network))
    assert (encoder.channels, encoder.stride_px) == (network.num_features, stride)
    image = np.full((1, 6 * stride, 10 * stride, 3), 90, np.uint8)
    marked = image.copy()
    marked[:, stride : 2 * stride, 7 * stride : 8 * stride] = scenes(1, stride)
    changed = np.abs(encoder.feature_map(marked) - encoder.feature_map(image)).sum(-1)[0]
    assert changed.shape == (6, 10)
    assert np.unravel_index(changed.argmax(), changed.shape) == (1, 7)


def test_models_without_a_usable_map() -> None:
    for name in ("mixer_s32_224", "test_nfnet"):
        network = create(name, pretrained=False, num_classes=0)
        encoder = TorchEncoder("x", network, preprocessing_of(network), dense=dense_of(network))
        assert encoder.channels in (0, network.num_features)
        check_contract(encoder)


def test_inputs_that_are_not_square() -> None:
    network = create(CNN, pretrained=False, num_classes=0)
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (3, 128, 256)}
    with pytest.raises(ModelError, match="256 x 128"):
        preprocessing_of(network)
    assert preprocessing_of(network, 64).input_px == 64
    assert timm_encoder.MADE_BY.startswith("timm ")
