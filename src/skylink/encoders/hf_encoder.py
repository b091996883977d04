"""`hf:NAME_OR_FOLDER`: DINOv2, DINOv3, SigLIP, SigLIP 2 and CLIP, run by transformers.

Weights load from safetensors only, code that comes with a checkpoint never runs, and a checkpoint
of which a tensor is missing is refused. Of models with a text side only the vision side is loaded.
Side, mean, deviation and interpolation are the image processor's; its centre crop isn't made, since
a crop would throw ground away.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skylink.encoders.extra import missing
from skylink.encoders.torch_encoder import Network, Preprocessing, TorchEncoder
from skylink.errors import ModelError
from skylink.files import output_errors

try:
    import transformers
    from transformers import AutoConfig, AutoImageProcessor
except (ImportError, OSError, RuntimeError) as problem:
    raise missing("transformers", problem) from problem

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
MADE_BY = f"transformers {transformers.__version__.split('.')[0]}"


@dataclass(frozen=True)
class Family:
    """How a family of checkpoints gives a descriptor.

    Attributes:
        loader: class of transformers that holds the vision side alone.
        output: which of its outputs is the descriptor.
        resized: whether other sides than the trained one must be asked for.
    """

    loader: str
    output: str = "pooler_output"
    resized: bool = False


FAMILIES = {
    # the class token after the last normalisation
    "dinov2": Family("Dinov2Model"),
    "dinov2_with_registers": Family("Dinov2WithRegistersModel"),
    "dinov3_vit": Family("DINOv3ViTModel"),
    # the mean of the last map, normalised
    "dinov3_convnext": Family("DINOv3ConvNextModel"),
    # the attention pooling that image-text training used; SigLIP 2 of fixed size is of this type
    "siglip": Family("SiglipVisionModel", resized=True),
    "siglip_vision_model": Family("SiglipVisionModel", resized=True),
    # the class token, projected into the space shared with text
    "clip": Family("CLIPVisionModelWithProjection", "image_embeds", resized=True),
    "clip_vision_model": Family("CLIPVisionModelWithProjection", "image_embeds", resized=True),
}
"""`model_type` of config.json -> family."""

_HINTS = {
    "siglip2": "take a SigLIP 2 checkpoint of fixed size, such as google/siglip2-base-patch16-256",
}


def load_hf(source: str) -> TorchEncoder:
    """The encoder of a hub name or a folder with config.json and safetensors.

    Raises:
        ModelError: neither of them, another family, or a checkpoint that isn't whole.
    """
    where = _checked(source)
    try:
        with _quiet():
            network, processor, family, report = _load(where, source)
    except ModelError:
        raise
    except Exception as error:  # of the hub, of safetensors, of json and of the model
        raise ModelError(
            f"{source} can't be loaded: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}",
            hint="check the name and the network; a folder needs config.json, "
            "preprocessor_config.json and model.safetensors",
        ) from error
    _require_whole(source, report)
    return TorchEncoder(
        f"hf:{source}",
        network,
        preprocessing_of(processor, source),
        describe=_describe_of(network, family),
        dense=_dense_of(network, family),
        made_by=f"{MADE_BY} {family}",
    )


def save_hf(network: Any, source: str, folder: Path) -> None:
    """Write a network as a folder that `load_hf` reads, its image processor beside it.

    Args:
        network: of `load_hf(source)`, its weights changed.
        source: as given to `load_hf`.
        folder: there already.

    Raises:
        OutputError: it can't be written.
        ModelError: the processor can't be had any more.
    """
    try:
        processor = AutoImageProcessor.from_pretrained(_checked(source), trust_remote_code=False)
    except Exception as error:  # of the hub and of json
        words = " ".join(str(error).split())[:300]
        raise ModelError(f"{source}: its image processor can't be loaded: {words}") from error
    with output_errors(folder), _quiet():
        network.save_pretrained(str(folder), max_shard_size="100GB")  # one file
        processor.save_pretrained(str(folder))


def _load(where: str, source: str) -> tuple[Any, Any, Family, Mapping[str, Any]]:
    """(network, image processor, family, what the library says of the loading)."""
    kind = str(AutoConfig.from_pretrained(where, trust_remote_code=False).model_type)
    if kind not in FAMILIES:
        raise ModelError(
            f"{source} is of the family {kind}, which is not supported",
            hint=_HINTS.get(kind, f"supported are: {', '.join(sorted(FAMILIES))}"),
        )
    processor = AutoImageProcessor.from_pretrained(where, trust_remote_code=False)
    network, report = getattr(transformers, FAMILIES[kind].loader).from_pretrained(
        where, use_safetensors=True, output_loading_info=True, dtype="float32"
    )
    return network, processor, FAMILIES[kind], report


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, and no table of the text side's tensors: `_require_whole` looks at them."""
    logs = transformers.utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


def preprocessing_of(processor: Any, origin: str) -> Preprocessing:
    """What an image processor does, its crop left out.

    Raises:
        ModelError: it doesn't resize to a square, or doesn't normalise as these models need.
    """
    config: dict[str, Any] = json.loads(processor.to_json_string())
    size = config.get("crop_size") if config.get("do_center_crop") else None
    size = size or config.get("size") or {}
    size = size if isinstance(size, Mapping) else {"shortest_edge": size}
    sides = {size.get(key) for key in ("height", "width", "shortest_edge")} - {None}
    scale = config.get("rescale_factor", 1 / 255)
    usual = config.get("do_normalize", True) and math.isclose(scale, 1 / 255, rel_tol=1e-6)
    resample = {1: "lanczos", 2: "bilinear", 3: "bicubic"}.get(config.get("resample", 3))
    try:
        (side,) = sides
        mean, std = (tuple(map(float, config[f"image_{key}"])) for key in ("mean", "std"))
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{origin}: its image processor doesn't give one side, a mean and a deviation "
            f"(size {size})"
        ) from error
    if not usual or resample is None or len(mean) != 3 or len(std) != 3:
        raise ModelError(f"{origin}: its image processor scales or resizes in another way")
    return Preprocessing(int(side), mean, std, f"pil-{resample}")  # type: ignore[arg-type]


def _describe_of(network: Any, family: Family) -> Network:
    def describe(pixels: Any) -> Any:
        return getattr(network(pixel_values=pixels), family.output)

    return describe


def _dense_of(network: Any, family: Family) -> Network:
    """Patch tokens of the last layer as (N, C, h, w); what comes before them is left out."""
    options = {"interpolate_pos_encoding": True} if family.resized else {}
    patch = getattr(network.config, "patch_size", 32)  # ConvNeXt reduces 32 times

    def dense(pixels: Any) -> Any:
        tokens = network(pixel_values=pixels, **options).last_hidden_state
        rows, columns = (side // patch for side in pixels.shape[2:])
        patches = tokens[:, tokens.shape[1] - rows * columns :]
        return patches.transpose(1, 2).reshape(len(pixels), -1, rows, columns)

    return dense


def _checked(source: str) -> str:
    """A folder that holds a checkpoint, or a name on the hub."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} is not a checkpoint: there is no config.json in it",
                hint="give the folder that holds config.json and model.safetensors",
            )
        return str(folder)
    if not HUB_NAME.fullmatch(source):
        raise ModelError(
            f"{source}: no such folder, and not a name on the hub",
            hint="give a folder, or a name like facebook/dinov2-base",
        )
    return source


def _require_whole(origin: str, report: Mapping[str, Any]) -> None:
    """Tensors of the text side may be left over; none of the vision side may be missing."""
    for what in ("missing_keys", "mismatched_keys", "error_msgs"):
        wrong = sorted(str(key) for key in report.get(what) or ())
        if wrong:
            raise ModelError(
                f"{origin}: {len(wrong)} of its tensors are missing or of another size, the first "
                f"is {wrong[0]}; they would be random",
                hint="use a complete checkpoint",
            )
