"""The University-1652 baseline; the checkpoints are made from the architecture's definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install '.[bases]'")
torchvision = pytest.importorskip("torchvision", reason="needs torchvision: pip install '.[bases]'")

from encoder_helpers import check_contract, randomised, saved, scenes  # noqa: E402
from skylink.encoder import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from skylink.encoders.university1652 import load_university1652  # noqa: E402
from skylink.errors import ModelError  # noqa: E402

OPTIONS = "batchsize: 8\ndata_dir: '/data/train'\nh: 64\nw: 64\nstride: 1\npool: avg\nviews: 3\n"


class Narrow(torchvision.models.resnet.Bottleneck):  # type: ignore[misc]
    """A bottleneck block that doesn't widen."""

    expansion = 1


def trunk() -> Any:
    """ResNet-50's names, in small: one narrow bottleneck block a stage."""
    return torchvision.models.ResNet(Narrow, [1, 1, 1, 1], width_per_group=4, num_classes=10)


def published(views: int = 3, *, shared: bool = True, width: int = 512) -> dict[str, Any]:
    """A `three_view_net` or `two_view_net`: a ResNet for each view, and the classifier."""
    network = torch.nn.Module()
    for view in range(1, views + 1):
        branch = torch.nn.Module()
        branch.model = randomised(trunk(), seed=0 if shared and view in (1, views) else view)
        setattr(network, f"model_{view}", branch)
    classifier = torch.nn.Module()
    bottleneck = torch.nn.Sequential(torch.nn.Linear(width, 512), torch.nn.BatchNorm1d(512))
    classifier.add_block = randomised(bottleneck)
    classifier.classifier = torch.nn.Sequential(torch.nn.Linear(512, 7))
    network.classifier = classifier
    return network.state_dict()


def written(folder: Path, tensors: dict[str, Any], options: str | None = OPTIONS) -> str:
    if options is not None:
        (folder / "opts.yaml").write_text(options)
    return saved(tensors, folder / "net_119.pth")


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_descriptors_are_those_of_the_test_script(views: int, stride: int, tmp_path: Path) -> None:
    tensors = published(views)
    path = written(tmp_path, tensors, OPTIONS.replace("stride: 1", f"stride: {stride}"))
    encoder = load_university1652(path, trunk())
    assert (encoder.parts, encoder.input_px, encoder.resize) == ((512,), 64, "pil-bicubic")
    net = trunk()
    net.fc = torch.nn.Linear(512, 10)
    net.load_state_dict({k[14:]: v for k, v in tensors.items() if k.startswith("model_1.model.")})
    if stride == 1:
        net.layer4[0].conv2.stride = net.layer4[0].downsample[0].stride = (1, 1)
    net.fc = torch.nn.Identity()  # its own pooling is the mean
    weight, bias, *norm = (
        tensors[f"classifier.add_block.{k}"]
        for k in ("0.weight", "0.bias", "1.running_mean", "1.running_var", "1.weight", "1.bias")
    )
    images = scenes(2, 64)
    values = ((images / 255 - IMAGENET_MEAN) / IMAGENET_STD).astype(np.float32)
    total = 0
    with torch.inference_mode():
        for picture in (values, values[:, :, ::-1].copy()):
            x = net.eval()(torch.from_numpy(picture).permute(0, 3, 1, 2))
            x = torch.nn.functional.batch_norm(x @ weight.T + bias, *norm)
            total = total + x
    expected = torch.nn.functional.normalize(total, dim=1).numpy()
    assert np.abs(encoder.encode(images) - expected).max() < 1e-5
    check_contract(encoder)


def test_a_mirror_image_has_the_same_descriptor(tmp_path: Path) -> None:
    encoder = load_university1652(written(tmp_path, published()), trunk())
    images = scenes(2, 64)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    assert np.abs(encoder.encode(images) - encoder.encode(mirrored)).max() < 1e-5


@pytest.mark.parametrize("pool", ["max", "avg+max"])
def test_other_poolings(pool: str, tmp_path: Path) -> None:
    options = OPTIONS.replace("pool: avg", f"pool: {pool}")
    tensors = published(width=1024 if "+" in pool else 512)
    check_contract(load_university1652(written(tmp_path, tensors, options), trunk()))


@pytest.mark.parametrize("views", [2, 3])
def test_views_with_weights_of_their_own_are_refused(views: int, tmp_path: Path) -> None:
    path = written(tmp_path, published(views, shared=False))
    with pytest.raises(ModelError, match="different weights") as caught:
        load_university1652(path, trunk())
    assert "--share" in (caught.value.hint or "")


def test_keys_are_accounted_for(tmp_path: Path) -> None:
    tensors = published()
    with pytest.raises(ModelError, match="unknown to us"):
        load_university1652(written(tmp_path, {**tensors, "x": torch.ones(1)}), trunk())
    more = {f"model_{i}.model.gem2.p": torch.ones(1) for i in (1, 2, 3)}
    with pytest.raises(ModelError, match=r"gem2\.p"):
        load_university1652(written(tmp_path, {**tensors, **more}), trunk())
    for lost in ("model_3.model.bn1.bias", "classifier.add_block.1.bias"):
        less = {k: v for k, v in tensors.items() if k != lost}
        with pytest.raises(ModelError, match=r"model_3 has not|lacks 1"):
            load_university1652(written(tmp_path, less), trunk())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (None, r"no opts\.yaml"),
        (OPTIONS.replace("w: 64", "w: 96"), "expected a square"),
        (OPTIONS.replace("stride: 1", "stride: 3"), "stride of 1 or 2"),
        (OPTIONS.replace("h: 64", "h: tall"), "not usable"),
        (OPTIONS.replace("pool: avg", "pool: gem"), "pool 'gem'"),
    ],
)
def test_options_that_cannot_be_used(options: str | None, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        load_university1652(written(tmp_path, published(), options), trunk())


def test_published_key_names() -> None:
    """At real size, without memory: torchvision's ResNet-50 has the keys of the published files."""
    from skylink.encoders.university1652 import Baseline

    with torch.device("meta"):
        names = {k: tuple(v.shape) for k, v in Baseline(1, "avg").state_dict().items()}
    assert names["model.conv1.weight"] == (64, 3, 7, 7)
    assert names["model.layer4.0.downsample.0.weight"] == (2048, 1024, 1, 1)
    assert names["model.layer3.5.bn3.running_var"] == (1024,)
    assert names["add_block.0.weight"] == (512, 2048)
    assert "model.fc.weight" not in names
    assert len(names) == 318 + 7
