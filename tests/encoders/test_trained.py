"""Tests of `trained:FOLDER`: what `skylink train-retriever` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install '.[bases]'")
tf = pytest.importorskip("transformers")
pytest.importorskip("timm")

from published_helpers import AT_64, SIZE  # noqa: E402

from encoder_helpers import check_contract, randomised, saved, scenes  # noqa: E402
from retriever_helpers import NAME, encoder_of  # noqa: E402
from skylink.encoder import load_encoder  # noqa: E402
from skylink.encoders import make_encoder  # noqa: E402
from skylink.encoders.sample4geo import load_sample4geo  # noqa: E402
from skylink.encoders.trained import (  # noqa: E402
    UNFINISHED,
    plain_spec,
    read_info,
    require_trainable,
    save_trained,
)
from skylink.errors import ModelError, OptionError  # noqa: E402


def changed(spec: str, seed: int = 7) -> Any:
    encoder: Any = make_encoder(spec)
    randomised(encoder.network, seed)
    return encoder


def test_a_timm_encoder_comes_back(once: Any, tmp_path: Path) -> None:
    spec = encoder_of(once)
    encoder = changed(spec)
    folder = tmp_path / "tuned"
    save_trained(folder, spec, encoder, {"words": "for people"})
    found = load_encoder(f"trained:{folder}")
    check_contract(found)
    pictures = scenes(3, 160)
    np.testing.assert_array_equal(found.encode(pictures), encoder.encode(pictures))
    assert np.abs(found.encode(pictures) - load_encoder(spec).encode(pictures)).max() > 1e-3
    assert found.name == f"trained:{folder}"
    assert found.fingerprint != load_encoder(spec).fingerprint
    assert read_info(folder).encoder == f"timm:{NAME}"
    # trained once more, from itself
    save_trained(tmp_path / "again", found.name, changed(found.name, 8), {})
    assert read_info(tmp_path / "again").encoder == f"timm:{NAME}"
    assert load_encoder(f"trained:{tmp_path / 'again'}").fingerprint != found.fingerprint


def test_an_hf_encoder_comes_back_with_its_processor(tmp_path: Path) -> None:
    source = tmp_path / "source"
    size: dict[str, Any] = {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "patch_size": 14, "image_size": 56,
    }  # fmt: skip
    tf.Dinov2Model(tf.Dinov2Config(**size)).save_pretrained(source)
    tf.BitImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56},
        image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3],
    ).save_pretrained(source)  # fmt: skip
    encoder = changed(f"hf:{source}")
    folder = tmp_path / "tuned"
    save_trained(folder, f"hf:{source}", encoder, {})
    (source / "config.json").unlink()  # the folder is all that is needed
    pictures = scenes(3, 56)
    for spec in (f"trained:{folder}", f"hf:{folder}"):
        np.testing.assert_array_equal(load_encoder(spec).encode(pictures), encoder.encode(pictures))


def test_published_architectures_load_their_own_keys(tmp_path: Path) -> None:
    import timm

    network = randomised(timm.create_model("convnext_base", num_classes=0, **SIZE))
    path = saved({f"model.{k}": v for k, v in network.state_dict().items()}, tmp_path / "w.pth")
    encoder = load_sample4geo(path, AT_64, **SIZE)
    randomised(encoder.network, 3)
    folder = tmp_path / "tuned"
    save_trained(folder, f"sample4geo:{path}", encoder, {})
    plain = plain_spec(f"trained:{folder}")
    assert plain == f"sample4geo:{folder / 'model.safetensors'}"
    again = load_sample4geo(plain.partition(":")[2], AT_64, **SIZE)
    np.testing.assert_array_equal(again.encode(scenes(2, 64)), encoder.encode(scenes(2, 64)))


def test_a_folder_that_is_none_or_was_changed_is_refused(once: Any, tmp_path: Path) -> None:
    spec = encoder_of(once)
    folder = tmp_path / "tuned"
    with pytest.raises(ModelError, match="not a trained encoder"):
        load_encoder(f"trained:{folder}")
    save_trained(folder, spec, make_encoder(spec), {})
    weights, info = folder / "model.safetensors", folder / "skylink.json"
    good = weights.read_bytes()
    weights.write_bytes(good[:-4] + b"\x00\x00\x80\x3f")
    with pytest.raises(ModelError, match="not what was saved"):
        load_encoder(f"trained:{folder}")
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_encoder(f"trained:{folder}")
    text = info.read_text()
    for wrong, message in (
        (UNFINISHED, "not finished"),
        ("{", "JSON"),
        (json.dumps(json.loads(text) | {"encoder": "timm:x@/etc/passwd"}), "encoder"),
        (json.dumps(json.loads(text) | {"encoder": "onnx"}), "encoder"),
        (json.dumps(json.loads(text) | {"kind": "adapter"}), "kind"),
        (json.dumps(json.loads(text) | {"more": 1}), "more"),
        (text + " " * 2**20, "larger"),
    ):
        info.write_text(wrong)
        with pytest.raises(ModelError, match=message):
            load_encoder(f"trained:{folder}")


def test_a_kill_while_saving_leaves_nothing_that_loads(
    once: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = encoder_of(once)
    folder = tmp_path / "tuned"
    save_trained(folder, spec, make_encoder(spec), {})
    from skylink.encoders import trained

    real = trained.write_atomic

    def killed(path: Path, data: Any) -> Path:
        if path.name == "model.safetensors":
            raise KeyboardInterrupt
        return real(path, data)

    monkeypatch.setattr(trained, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        save_trained(folder, spec, changed(spec), {})
    with pytest.raises(ModelError, match="not finished"):
        load_encoder(f"trained:{folder}")


@pytest.mark.parametrize("spec", ["embedded", "vlad", "onnx:a.onnx", "hf:", "trained", "x"])
def test_what_cannot_be_trained(spec: str) -> None:
    with pytest.raises(OptionError, match="can't be trained"):
        require_trainable(spec)
