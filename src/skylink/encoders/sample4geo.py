"""`sample4geo:PATH`: Sample4Geo (Deuser et al., ICCV 2023, arXiv 2303.11851).

Read in github.com/Skyy93/Sample4Geo: `sample4geo/model.py` (timm's ConvNeXt-Base without a
classifier, one for both views, and a temperature), `eval_university.py` and
`sample4geo/dataset/university.py` (384 px, ImageNet's mean and deviation), `sample4geo/trainer.py`
(the descriptor is what the network returns, normalised). The CVUSA and CVACT checkpoints have the
same keys but panoramas as queries, which don't fit a square input.
"""

from __future__ import annotations

from typing import Any

from skylink.encoders.extra import torch
from skylink.encoders.published import OPENCV_384, published_encoder
from skylink.encoders.timm_encoder import MADE_BY, create
from skylink.encoders.torch_encoder import Preprocessing, TorchEncoder

ARCHITECTURE = "convnext_base.fb_in22k_ft_in1k_384"


def load_sample4geo(
    path: str, preprocessing: Preprocessing = OPENCV_384, **size: Any
) -> TorchEncoder:
    """The encoder of a checkpoint, D = 1024; `size` overrides depths and widths, for tests.

    Raises:
        ModelError: the file can't be read or is not this architecture's, whole.
    """
    with torch.device("meta"):
        network = create(ARCHITECTURE, pretrained=False, num_classes=0, **size)
    return published_encoder(
        "sample4geo",
        path,
        network,
        preprocessing,
        prefix="model.",
        unused=("logit_scale",),
        made_by=MADE_BY,
    )
