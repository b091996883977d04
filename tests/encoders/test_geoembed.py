from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install '.[bases]'")

from encoder_helpers import check_contract, randomised, scenes  # noqa: E402
from skylink.encoders.geoembed import TileNetwork, load_geoembed  # noqa: E402
from skylink.errors import ModelError  # noqa: E402

installed = pytest.mark.skipif(
    importlib.util.find_spec("geoembed") is None,
    reason="needs geoembed's weights: pip install --no-deps geoembed==1.1.2",
)


def packed(folder: Path, **changes: Any) -> Path:
    """A file as geoembed bundles it, with other weights; None leaves a key out."""
    state = randomised(TileNetwork()).state_dict()
    arrays = {k: v.numpy() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    arrays["fc.weight"] = arrays["fc.weight"].T
    constants = {"embed_dim": 256, "base_channels": 64, "pool_size": 4}
    arrays |= {key: np.array([value], np.int32) for key, value in constants.items()}
    arrays |= {key.replace("__", "."): value for key, value in changes.items()}
    path = folder / "v3.npz"
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_the_network_as_its_package_describes_it(tmp_path: Path) -> None:
    path = packed(tmp_path)
    encoder = load_geoembed(path)
    assert (encoder.input_px, encoder.parts, encoder.channels) == (128, (256,), 0)
    assert (encoder.resize, encoder.name) == ("pil-bilinear", "geoembed")
    with np.load(path) as data:
        w = {k: torch.from_numpy(data[k]) for k in data.files}

    def layer(x: Any, convolution: str, norm: str, stride: int, padding: int = 1) -> Any:
        x = torch.nn.functional.conv2d(x, w[f"{convolution}.weight"], None, stride, padding)
        four = ("running_mean", "running_var", "weight", "bias")
        return torch.nn.functional.batch_norm(x, *(w[f"{norm}.{k}"] for k in four))

    images = scenes(1, 128)
    x = torch.from_numpy(images.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    x = layer(x, "bb.stem.0", "bb.stem.1", 1).relu()
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"bb.layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = layer(x, f"{name}.conv1", f"{name}.bn1", stride).relu()
            inner = layer(inner, f"{name}.conv2", f"{name}.bn2", 1)
            if f"{name}.short.0.weight" in w:
                x = layer(x, f"{name}.short.0", f"{name}.short.1", stride, 0)
            x = (inner + x).relu()
    pooled = torch.nn.functional.avg_pool2d(x, x.shape[2] // 4, x.shape[3] // 4)
    expected = pooled.flatten(1) @ w["fc.weight"] + w["fc.bias"]
    expected = torch.nn.functional.normalize(expected, dim=1).numpy()
    assert np.abs(encoder.encode(images) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pool_size": np.array([8])}, "pool_size is"),
        ({"embed_dim": None}, "embed_dim is"),
        ({"fc__bias": None}, r"fc\.bias"),
        ({"more": np.ones(1)}, "more"),
        ({"fc__weight": np.ones((256, 8192), np.float32)}, "shape"),
    ],
)
def test_another_file(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        load_geoembed(packed(tmp_path, **changes))


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "v3.npz"
    for content in (b"", b"PK", b"nonsense"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="can't be read"):
            load_geoembed(path)
    with pytest.raises(ModelError, match="can't be read"):
        load_geoembed(tmp_path / "none.npz")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="needs the package") as caught:
        load_geoembed()
    assert "geoembed==1.1.2" in (caught.value.hint or "")


@installed
def test_the_bundled_weights() -> None:
    check_contract(load_geoembed())
