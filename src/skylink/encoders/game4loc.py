"""`game4loc:PATH`: Game4Loc (Ji et al., AAAI 2025), the base of GTA-UAV.

Read in github.com/Yux1angJi/GTA-UAV: `Game4Loc/game4loc/models/model.py` (timm's ViT-Base with
rotary positions, built for 384 px, one for both views, a temperature and, if trained with offsets,
an MLP that predicts them), `Game4Loc/eval_gta.py` (which model, 384 px, mean and deviation of
timm's configuration), `Game4Loc/game4loc/dataset/gta.py` (how the test resizes). Checkpoints with a
network for each view (`share_weights=False`) are refused: an encoder is one for both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from skylink.encoders.checkpoint import AFFINE, leaves
from skylink.encoders.published import published_encoder
from skylink.encoders.timm_encoder import MADE_BY, create, preprocessing_of
from skylink.encoders.torch_encoder import TorchEncoder

ARCHITECTURE = "vit_base_patch16_rope_reg1_gap_256.sbb_in1k"
UNUSED = frozenset(["logit_scale", *(k for i in (1, 2, 3) for k in leaves(f"MLP.fc{i}", AFFINE))])


def load_game4loc(path: str, input_px: int = 384, **size: Any) -> TorchEncoder:
    """The encoder of a checkpoint, D = 768; `size` overrides depth and width, for tests.

    Raises:
        ModelError: the file can't be read or is not this architecture's, whole.
    """
    network = create(ARCHITECTURE, pretrained=False, num_classes=0, img_size=input_px, **size)
    return published_encoder(
        "game4loc",
        path,
        network,
        replace(preprocessing_of(network, input_px), resize="opencv-linear"),
        prefix="model.",
        unused=UNUSED,
        made_by=MADE_BY,
    )
