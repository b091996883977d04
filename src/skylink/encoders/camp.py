"""`camp:PATH`: CAMP (Wu et al., IEEE TGRS 2024).

Read in github.com/Mabel0403/CAMP: `sample4geo/hand_convnext/model.py` and
`.../ConvNext/make_model.py` (ConvNeXt-Base, one for both views; the position embedding, attention
and classifiers touch only what training uses), `sample4geo/trainer.py` (the descriptor is the
second last output, the pooled one, normalised), `sample4geo/dataset/university.py` (384 px). Its
copy of the backbone's file was not to be had; it was read in DAC, MEAN and LKGL, which share it.
"""

from __future__ import annotations

from typing import Any

from skylink.encoders.checkpoint import AFFINE, BATCH_NORM, leaves
from skylink.encoders.convnext_original import CLASSIFIER, PREFIX, make_convnext
from skylink.encoders.published import CONTRASTIVE, OPENCV_384, published_encoder
from skylink.encoders.timm_encoder import MADE_BY
from skylink.encoders.torch_encoder import Preprocessing, TorchEncoder


def class_block(name: str) -> list[str]:
    """Keys of MCCG's classifier, which CAMP and DAC train with."""
    return [
        *leaves(f"{name}.add_block.0", AFFINE),
        *leaves(f"{name}.add_block.1", BATCH_NORM),
        *leaves(f"{name}.classifier.0", AFFINE),
    ]


HEADS = [
    *CLASSIFIER,
    *(key for n in ("1", "_mcb1", "_mcb2") for key in class_block(f"model_1.classifier{n}")),
    *(f"model_1.tri_layer.{gate}.conv.conv.weight" for gate in ("cw", "hc")),
    *(k for g in ("cw", "hc") for k in leaves(f"model_1.tri_layer.{g}.conv.bn", BATCH_NORM)),
]
"""Keys of the training heads that CAMP and DAC share."""

PAIRS = ("D_D", "S_S", "D_fine_D_fine", "D_fine_S_fine", "S_fine_S_fine")
UNUSED = frozenset(
    [*CONTRASTIVE, *HEADS, "model_1.pos_scale", "model_1.pos_embed"]
    + [f"ECE_weight_{pair}" for pair in PAIRS]
)


def load_camp(path: str, preprocessing: Preprocessing = OPENCV_384, **size: Any) -> TorchEncoder:
    """The encoder of a checkpoint, D = 1024; `size` overrides depths and widths, for tests.

    Raises:
        ModelError: the file can't be read or is not this architecture's, whole.
    """
    network, keys = make_convnext("convnext_base", **size)
    return published_encoder(
        "camp", path, network, preprocessing,
        prefix=PREFIX, unused=UNUSED, rename=keys, made_by=MADE_BY,
    )  # fmt: skip
