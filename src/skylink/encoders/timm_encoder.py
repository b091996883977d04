"""`timm:NAME`: any image model of timm, with its pretrained weights or with one's own.

`timm:NAME` takes the weights from the hub; `timm:NAME@FILE` from a `.safetensors` or `.pth` file.
The descriptor is what timm pools before the classifier (`num_classes=0`). Mean, deviation, side and
interpolation are those of timm's own data configuration; its centre crop isn't made, since a crop
would throw ground away.
"""

from __future__ import annotations

import re
from typing import Any

from skylink.encoders.checkpoint import AFFINE, drop_known, leaves, load_whole, read_tensors
from skylink.encoders.extra import PIP, missing
from skylink.encoders.torch_encoder import Network, Preprocessing, TorchEncoder
from skylink.errors import ModelError

try:
    import timm
    import timm.data
except (ImportError, OSError, RuntimeError) as problem:
    raise missing("timm", problem) from problem

_data: Any = timm.data  # not typed
NAME = re.compile(r"(hf-hub:[\w.-]+/)?[\w.-]+")
MADE_BY = f"timm {timm.__version__.split('.')[0]}"


def load_timm(value: str) -> TorchEncoder:
    """The encoder of `NAME` or `NAME@FILE`.

    Raises:
        ModelError: unknown name, weights that can't be had, or a file that doesn't fit.
    """
    name, _, file = value.partition("@")
    if not NAME.fullmatch(name):
        raise ModelError(f"{name!r} is not a model name of timm", hint="timm.list_models() has all")
    network = create(name, pretrained=not file, num_classes=0)
    if file:
        heads = network.pretrained_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else heads
        unused = [key for head in heads for key in leaves(head, AFFINE)]
        load_whole(network, drop_known(read_tensors(file), unused), file)
    return TorchEncoder(
        f"timm:{value}",
        network,
        preprocessing_of(network),
        dense=dense_of(network),
        made_by=f"{MADE_BY} {name}",
    )


def create(name: str, *, pretrained: bool, **options: Any) -> Any:
    """`timm.create_model`, its errors in our words; the model takes any side if it can.

    Raises:
        ModelError: unknown name, or weights that can't be had.
    """
    try:
        try:
            return timm.create_model(name, pretrained=pretrained, dynamic_img_size=True, **options)
        except TypeError:  # only transformers know the option
            return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # of timm, of the hub and of the network
        raise ModelError(
            f"timm's model {name} can't be made: {' '.join(str(error).split())[:300]}",
            hint="check the name (timm.list_models(pretrained=True)) and the network, or give the "
            f"weights as timm:{name}@FILE"
            if pretrained
            else PIP,
        ) from error


def preprocessing_of(network: Any, input_px: int | None = None) -> Preprocessing:
    """A timm model's own side (unless given), mean, deviation and interpolation.

    Raises:
        ModelError: the input is not square.
    """
    config = _data.resolve_model_data_config(network)
    _, height, width = config["input_size"]
    if height != width and input_px is None:
        raise ModelError(f"this model takes {width} x {height} px: only square inputs are usable")
    return Preprocessing(
        input_px or height,
        tuple(config["mean"]),
        tuple(config["std"]),
        f"pil-{config['interpolation']}",
    )


def dense_of(network: Any) -> Network:
    """A timm model's last features as (N, C, h, w), whether it gives maps or patch tokens."""
    width = network.num_features
    prefix = getattr(network, "num_prefix_tokens", 0)

    def dense(pixels: Any) -> Any:
        features = network.forward_features(pixels)
        if features.ndim == 4:
            return features if features.shape[1] == width else features.permute(0, 3, 1, 2)
        rows, columns = (
            side // patch
            for side, patch in zip(pixels.shape[2:], network.patch_embed.patch_size, strict=True)
        )
        patches = features[:, prefix:]
        return patches.transpose(1, 2).reshape(len(pixels), -1, rows, columns)

    return dense
