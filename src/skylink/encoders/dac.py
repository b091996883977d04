"""`dac:PATH`: DAC (Xia et al., IEEE TCSVT 2024).

Read in github.com/SummerpanKing/DAC: `sample4geo/hand_convnext/model.py`,
`.../ConvNext/make_model.py` and `.../backbones/model_convnext.py` (ConvNeXt-Base, one for both
views; projections, attention and classifiers serve training), `sample4geo/trainer.py` (the
descriptor is the second last output, the pooled one, normalised), `train_university.py` (384 px).
"""

from __future__ import annotations

from typing import Any

from skylink.encoders.camp import HEADS
from skylink.encoders.checkpoint import BATCH_NORM, leaves
from skylink.encoders.convnext_original import PREFIX, make_convnext
from skylink.encoders.published import CONTRASTIVE, OPENCV_384, published_encoder
from skylink.encoders.timm_encoder import MADE_BY
from skylink.encoders.torch_encoder import Preprocessing, TorchEncoder


def _projection(name: str) -> list[str]:
    """Keys of the two-layer projection of the domain alignment loss."""
    convolutions = [f"{name}.mlp.{layer}.weight" for layer in (0, 3)]
    return [*convolutions, *leaves(f"{name}.mlp.1", BATCH_NORM)]


UNUSED = frozenset(
    [*CONTRASTIVE, *HEADS, *_projection("model_1.proj"), *_projection("model_1.proj_obj")]
)


def load_dac(path: str, preprocessing: Preprocessing = OPENCV_384, **size: Any) -> TorchEncoder:
    """The encoder of a checkpoint, D = 1024; `size` overrides depths and widths, for tests.

    Raises:
        ModelError: the file can't be read or is not this architecture's, whole.
    """
    network, keys = make_convnext("convnext_base", **size)
    return published_encoder(
        "dac", path, network, preprocessing,
        prefix=PREFIX, unused=UNUSED, rename=keys, made_by=MADE_BY,
    )  # fmt: skip
