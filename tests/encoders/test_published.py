"""Sample4Geo, CAMP, DAC, MEAN, Game4Loc. `published_helpers` says what stands in for the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install '.[bases]'")
timm = pytest.importorskip("timm", reason="needs timm: pip install '.[bases]'")

import published_helpers as originals  # noqa: E402
from published_helpers import AT_64, SIZE, OriginalConvNeXt  # noqa: E402

from encoder_helpers import check_contract, randomised, saved, scenes  # noqa: E402
from skylink.encoder import IMAGENET_MEAN, IMAGENET_STD, load_encoder, unit_parts  # noqa: E402
from skylink.encoders.camp import load_camp  # noqa: E402
from skylink.encoders.convnext_original import make_convnext  # noqa: E402
from skylink.encoders.dac import load_dac  # noqa: E402
from skylink.encoders.game4loc import load_game4loc  # noqa: E402
from skylink.encoders.mean import load_mean  # noqa: E402
from skylink.encoders.sample4geo import load_sample4geo  # noqa: E402
from skylink.errors import ModelError  # noqa: E402

HEADED: dict[str, tuple[Callable[[], Any], Callable[..., Any]]] = {
    "camp": (originals.camp, load_camp),
    "dac": (originals.dac, load_dac),
    "mean": (originals.mean, load_mean),
}
REAL = {
    "convnext_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
}


def normalised(images: Any, mean: Any = IMAGENET_MEAN, std: Any = IMAGENET_STD) -> Any:
    """What the published test transforms make of uint8 pictures."""
    values = (images / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(values.astype(np.float32)).permute(0, 3, 1, 2)


def unit(vectors: Any) -> Any:
    return torch.nn.functional.normalize(vectors, dim=-1).detach().numpy()


@pytest.mark.parametrize("name", HEADED)
def test_descriptors_are_those_of_the_original(name: str, tmp_path: Path) -> None:
    make, load = HEADED[name]
    original = randomised(make()).eval()
    encoder = load(saved(original.state_dict(), tmp_path / "w.pth"), AT_64, **SIZE)
    images = scenes(3, 64)
    expected = unit(original.model_1.convnext(normalised(images))[0])
    assert np.abs(encoder.encode(images) - expected).max() < 1e-5
    assert (encoder.channels, encoder.resize) == (0, "opencv-linear")
    assert encoder.name == f"{name}:{tmp_path / 'w.pth'}"
    check_contract(encoder)


@pytest.mark.parametrize("name", HEADED)
def test_no_key_is_ignored_and_none_may_be_missing(name: str, tmp_path: Path) -> None:
    make, load = HEADED[name]
    tensors = make().state_dict()
    path = tmp_path / "w.pth"

    def refused(changed: dict[str, Any], key: str) -> None:
        with pytest.raises(ModelError, match=key.replace(".", r"\.")):
            load(saved(changed, path), AT_64, **SIZE)

    refused({**tensors, "model_1.extra.weight": torch.ones(1)}, "model_1.extra.weight")
    refused({**tensors, "model_2.x": torch.ones(1)}, "model_2.x")
    refused({**tensors, "model_1.convnext.x": torch.ones(1)}, "first is x")
    for lost in ("norm.weight", "stages.1.1.gamma", "downsample_layers.3.1.bias"):
        less = {k: v for k, v in tensors.items() if k != f"model_1.convnext.{lost}"}
        refused(less, "lacks 1 of the tensors")
    head = "model_1.convnext.head.weight"
    without_heads = {k: v for k, v in tensors.items() if k.startswith("model_1.convnext.")}
    del without_heads[head]
    load(saved(without_heads, path), AT_64, **SIZE)  # what serves training alone may be gone
    parallel = {f"module.{k}": v for k, v in tensors.items()}
    load(saved(parallel, path), AT_64, **SIZE)


@pytest.mark.parametrize("name", REAL)
def test_published_shapes_of_the_backbone(name: str) -> None:
    """At real size, without memory: our key map fits the original's keys and shapes exactly."""
    network, keys = make_convnext(name)
    with torch.device("meta"):
        original = OriginalConvNeXt(*REAL[name]).state_dict()
    ours = network.state_dict()
    original = {k: v for k, v in original.items() if not k.startswith("head.")}
    assert keys.keys() == original.keys()
    assert sorted(keys.values()) == sorted(ours)
    for old, new in keys.items():
        assert ours[new].shape == original[old].shape, old


def test_timm_maps_the_same_keys() -> None:
    """timm's own filter for its authors' checkpoints is another witness of the key map."""
    _, keys = make_convnext("convnext_base", **SIZE)
    original = OriginalConvNeXt().state_dict()
    found = timm.models.convnext.checkpoint_filter_fn(
        {k: torch.full_like(v, i) for i, (k, v) in enumerate(original.items())},
        timm.create_model("convnext_base", num_classes=1000, **SIZE),
    )
    for i, old in enumerate(original):
        if not old.startswith("head."):
            assert (found[keys[old]] == i).all(), old


def small_sample4geo() -> dict[str, Any]:
    network = randomised(timm.create_model("convnext_base", num_classes=0, **SIZE))
    tensors = {f"model.{k}": v for k, v in network.state_dict().items()}
    return {**tensors, "logit_scale": torch.tensor(2.66)}


def test_sample4geo(tmp_path: Path) -> None:
    tensors = small_sample4geo()
    encoder = load_sample4geo(saved(tensors, tmp_path / "w.pth"), AT_64, **SIZE)
    network = timm.create_model("convnext_base", num_classes=0, **SIZE)
    network.load_state_dict({k[6:]: v for k, v in tensors.items() if k != "logit_scale"})
    images = scenes(2, 64)
    expected = unit(network.eval()(normalised(images)))
    assert np.abs(encoder.encode(images) - expected).max() < 1e-5
    check_contract(encoder)
    with pytest.raises(ModelError, match="logit_bias"):
        load_sample4geo(
            saved({**tensors, "logit_bias": torch.ones(1)}, tmp_path / "w.pth"), AT_64, **SIZE
        )


def test_sample4geo_key_names() -> None:
    """As published: timm's names under `model.`; a rename in timm would break real files."""
    with torch.device("meta"):
        keys = timm.create_model("convnext_base", num_classes=0).state_dict()
    names = {f"model.{k}": tuple(v.shape) for k, v in keys.items()}
    assert len(names) == 342
    assert names["model.stem.0.weight"] == (128, 3, 4, 4)
    assert names["model.stages.2.blocks.26.mlp.fc1.weight"] == (2048, 512)
    assert names["model.stages.3.downsample.1.weight"] == (1024, 512, 2, 2)
    assert names["model.stages.0.blocks.0.gamma"] == (128,)
    assert names["model.head.norm.weight"] == (1024,)


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    path = saved(small_sample4geo(), tmp_path / "w.pth")
    for load in (load_camp, load_dac, load_mean, lambda path: load_game4loc(path, 64, **VIT)):
        with pytest.raises(ModelError) as caught:
            load(path)
        assert str(path) in caught.value.message
        assert "architecture" in (caught.value.hint or "")
    with pytest.raises(ModelError, match="shape"):  # the right keys, another size
        load_sample4geo(path, AT_64, depths=SIZE["depths"], dims=(8, 16, 24, 32))


@pytest.mark.slow
def test_sample4geo_at_its_real_size(tmp_path: Path) -> None:
    network = timm.create_model("convnext_base.fb_in22k_ft_in1k_384", num_classes=0)
    tensors = {f"model.{k}": v for k, v in network.state_dict().items()}
    tensors["logit_scale"] = torch.tensor(2.66)
    path = saved(tensors, tmp_path / "weights_e1_0.9515.pth")
    encoder = load_encoder(f"sample4geo:{path}")
    assert (encoder.input_px, encoder.parts, encoder.channels) == (384, (1024,), 0)
    image = scenes(1, 384)
    with torch.inference_mode():
        expected = unit(network.eval()(normalised(image)))
    assert np.abs(encoder.encode(image) - expected).max() < 1e-5


VIT: dict[str, Any] = {"depth": 2, "embed_dim": 96, "num_heads": 3}


def test_game4loc(tmp_path: Path) -> None:
    name = "vit_base_patch16_rope_reg1_gap_256.sbb_in1k"
    network = randomised(timm.create_model(name, num_classes=0, img_size=64, **VIT)).eval()
    tensors = {f"model.{k}": v for k, v in network.state_dict().items()}
    tensors["logit_scale"] = torch.tensor(2.66)
    offsets = torch.nn.Module()
    offsets.fc1, offsets.fc2 = torch.nn.Linear(8, 4), torch.nn.Linear(4, 2)
    offsets.fc3 = torch.nn.Linear(2, 2)
    tensors |= {f"MLP.{k}": v for k, v in offsets.state_dict().items()}
    path = saved(tensors, tmp_path / "w.pth")
    encoder = load_game4loc(path, 64, **VIT)
    images = scenes(2, 64)
    half = (0.5, 0.5, 0.5)
    expected = unit_parts(network(normalised(images, half, half)).detach().numpy(), (96,))
    assert np.abs(encoder.encode(images) - expected).max() < 1e-5
    assert (encoder.resize, encoder.channels) == ("opencv-linear", 0)
    check_contract(encoder)
    each = {k.replace("model.", f"model{i}."): v for i in (1, 2) for k, v in tensors.items()}
    with pytest.raises(ModelError, match="unknown to us"):  # a network for each view
        load_game4loc(saved(each, tmp_path / "two.pth"), 64, **VIT)


def test_game4loc_key_names() -> None:
    """As the repository's copy of the network defines them, at real size."""
    with torch.device("meta"):
        network = timm.create_model(
            "vit_base_patch16_rope_reg1_gap_256.sbb_in1k", num_classes=0, img_size=384
        )
    names = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    block = {
        "gamma_1": (768,), "gamma_2": (768,), "norm1.weight": (768,), "norm1.bias": (768,),
        "attn.q_bias": (768,), "attn.v_bias": (768,), "attn.qkv.weight": (2304, 768),
        "attn.proj.weight": (768, 768), "attn.proj.bias": (768,), "norm2.weight": (768,),
        "norm2.bias": (768,), "mlp.fc1.weight": (3072, 768), "mlp.fc1.bias": (3072,),
        "mlp.fc2.weight": (768, 3072), "mlp.fc2.bias": (768,),
    }  # fmt: skip
    expected = {f"blocks.{i}.{k}": v for i in range(12) for k, v in block.items()}
    expected |= {
        "reg_token": (1, 1, 768), "patch_embed.proj.weight": (768, 3, 16, 16),
        "patch_embed.proj.bias": (768,), "fc_norm.weight": (768,), "fc_norm.bias": (768,),
    }  # fmt: skip
    assert names == expected
