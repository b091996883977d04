"""`mean:PATH`: MEAN (Chen et al., IEEE TGRS 2025, arXiv 2412.14819).

Read in github.com/ISChenawei/MEAN: `sample4geo/hand_convnext/ConvNext/make_model.py` and
`.../backbones/model_convnext.py` (ConvNeXt-Tiny, one for both views; all else serves training),
`sample4geo/trainer.py` (the descriptor is the second last output, the pooled one, normalised),
`train_university.py` (384 px), `Cross-MEAN/dataset/university.py` (the test transform). The file
of the wrapping `two_view_net` is not public as text; its names are those that the trainer and the
training script use, as in DAC, which it's built on. An older version called the module `DEG` `MSE`.
"""

from __future__ import annotations

from typing import Any

from skylink.encoders.checkpoint import AFFINE, BATCH_NORM, leaves
from skylink.encoders.convnext_original import CLASSIFIER, PREFIX, make_convnext
from skylink.encoders.published import CONTRASTIVE, OPENCV_384, published_encoder
from skylink.encoders.timm_encoder import MADE_BY
from skylink.encoders.torch_encoder import Preprocessing, TorchEncoder


def _class_block(name: str) -> list[str]:
    """Keys of the multi-scale classifier."""
    scales = ("dilated1", "dilated2", "dilated3", "extra1.0")
    return [
        *(k for scale in scales for k in leaves(f"{name}.multi_scale_block.{scale}", AFFINE)),
        *leaves(f"{name}.add_block.0", BATCH_NORM),
        *leaves(f"{name}.classifier", AFFINE),
    ]


def _enhancement(name: str) -> list[str]:
    """Keys of the dilated convolutions of progressive diversification."""
    return [*(f"{name}.FC1{i}.weight" for i in (1, 2, 3)), *leaves(f"{name}.FC1", AFFINE)]


UNUSED = frozenset(
    [
        *CONTRASTIVE,
        *CLASSIFIER,
        *(key for n in ("1", "_mcb1", "_mcb2") for key in _class_block(f"model_1.classifier{n}")),
        *_enhancement("model_1.DEG"),
        *_enhancement("model_1.MSE"),
        *(k for n in ("1", "2", "_fusion") for k in leaves(f"model_1.MSF.conv{n}", AFFINE)),
        *leaves("model_1.MSF.bn", BATCH_NORM),
        *(f"model_1.proj.layers.{layer}.0.weight" for layer in (0, 1)),
        *leaves("model_1.proj.layers.0.1", BATCH_NORM),
        *leaves("model_1.feature_scaling.proj", AFFINE),
    ]
)


def load_mean(path: str, preprocessing: Preprocessing = OPENCV_384, **size: Any) -> TorchEncoder:
    """The encoder of a checkpoint, D = 768; `size` overrides depths and widths, for tests.

    Raises:
        ModelError: the file can't be read or is not this architecture's, whole.
    """
    network, keys = make_convnext("convnext_tiny", **size)
    return published_encoder(
        "mean", path, network, preprocessing,
        prefix=PREFIX, unused=UNUSED, rename=keys, made_by=MADE_BY,
    )  # fmt: skip
