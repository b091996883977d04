"""Published checkpoints of the field: what they have in common.

Each has a file of its own with the network, the preprocessing of its test script and the keys that
serve training alone, as read in the public repository that it names. The checkpoints themselves
could not be had where this was written: the tests build files with the published keys and shapes
from the architectures' definitions, so a real file is untested until someone runs it.

These networks were trained and published as single descriptors, so none offers a feature map.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from skylink.encoders.checkpoint import Tensors, drop_known, load_whole, read_tensors
from skylink.encoders.torch_encoder import Network, Preprocessing, TorchEncoder
from skylink.errors import ModelError

OPENCV_384 = Preprocessing(384, resize="opencv-linear")
"""ImageNet's mean and deviation, `cv2.INTER_LINEAR_EXACT` to 384 px: Sample4Geo's test transform,
which its successors kept."""

CONTRASTIVE = (
    "logit_scale", "logit_scale_blocks", "w_blocks1", "w_blocks2", "w_blocks3",
)  # fmt: skip
"""Temperatures and weights of losses that CAMP, DAC and MEAN store beside the network."""


def only_under(prefix: str, tensors: Tensors, origin: str) -> Tensors:
    """The tensors of one submodule, by their names inside it; others are an error.

    Raises:
        ModelError: naming a key elsewhere.
    """
    inside = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    others = sorted(k for k in tensors if not k.startswith(prefix))
    if others or not inside:
        raise ModelError(
            f"{origin}: {f'the key {others[0]} is unknown to us' if others else 'no key'}"
            f"{'' if others else f' starts with {prefix}'}",
            hint="is it a checkpoint of this architecture?",
        )
    return inside


def published_encoder(
    spec: str,
    path: str,
    network: Any,
    preprocessing: Preprocessing,
    *,
    prefix: str,
    unused: Collection[str],
    rename: dict[str, str] | None = None,
    describe: Network | None = None,
    made_by: str = "",
) -> TorchEncoder:
    """A network filled from a published checkpoint, strictly.

    A file with exactly the network's own keys is taken too: `skylink train-retriever` writes such.

    Args:
        spec: the kind, as in `sample4geo:PATH`.
        path: the checkpoint.
        network: built, without weights.
        preprocessing: of the published test script.
        prefix: before every key of the network.
        unused: keys, with their prefix, that serve training alone.
        rename: published key (without prefix) -> the network's key, where they differ.
        describe: as in `TorchEncoder`.
        made_by: as in `TorchEncoder`.

    Raises:
        ModelError: the file can't be read, or a key is missing, unknown or of another shape.
    """
    tensors = read_tensors(path)
    if tensors.keys() != network.state_dict().keys():
        tensors = only_under(prefix, drop_known(tensors, unused), path)
        if rename is not None:
            tensors = {rename.get(key, key): tensor for key, tensor in tensors.items()}
    load_whole(network, tensors, path)
    return TorchEncoder(
        f"{spec}:{path}", network, preprocessing, describe=describe, made_by=made_by
    )
