"""Vision-language checkpoints with random weights, for tests, benchmarks and dry runs offline.

A folder written here has the files, names and layout of a checkpoint on the Hugging Face hub, so
that whatever loads a published model (`AutoModelForImageTextToText`, `AutoProcessor`, vLLM) loads
it unchanged and takes the same path through the code. Only what it answers is meaningless.

Weights are drawn with unit gain (standard deviation 1/sqrt(fan-in)), not with the 0.02 of a fresh
training run: at these widths 0.02 leaves attention nearly uniform, and yes-no scores of the tiny
shapes move 7 to 35 times less when two images change places. A test of scoring would then pass
whatever is computed.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from skylink.errors import ModelError, OptionError, OutputError, pip_hint
from skylink.files import output_errors
from skylink.lvlm.random_language import (
    FAMILIES,
    IDEFICS,
    MAX_TOKENS,
    QWEN,
    language_of,
    make_tokenizer,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Dimensions of a checkpoint, the same words for every family.

    Attributes:
        families: the families that come in this shape.
        vocabulary: embedding rows; the tokenizer has fewer. None: as many as the tokenizer has.
        text: (width, layers, heads, key-value heads, MLP width) of the language model.
        vision: (width, layers, heads, MLP width) of the image tower.
        image_tokens: (fewest, most) tokens of an image; towers of a fixed size always take the
            most, which is a square number.
        patch: (patch side in px, patches a token along each side), where the family has no own.
        rope_theta: base of the rotary positions of the language model.
    """

    families: tuple[str, ...]
    vocabulary: int | None
    text: tuple[int, int, int, int, int]
    vision: tuple[int, int, int, int]
    image_tokens: tuple[int, int]
    patch: tuple[int, int] = (8, 2)
    rope_theta: float = 1e5

    def patching(self, family: str) -> tuple[int, int]:
        """(patch side in px, patches a token along each side) of a family in this shape."""
        own = {"qwen2_vl": (14, 2), "qwen2_5_vl": (14, 2), "qwen3_vl": (16, 2), "llava": (14, 1)}
        return own.get(family, self.patch)

    def image_px(self, family: str) -> int:
        """Side in px of the square image that takes the most tokens."""
        patch, merge = self.patching(family)
        return patch * merge * math.isqrt(self.image_tokens[1])


SHAPES = {
    # 64 a head, as much as serving needs at least; about a million weights
    "tiny": Shape(
        families=FAMILIES,
        vocabulary=None,
        text=(128, 2, 2, 1, 256),
        vision=(128, 3, 2, 256),
        image_tokens=(4, 16),
    ),
    # 49 tokens of what is where, and as many key as query heads: what a bare CPU can train
    "small": Shape(
        families=IDEFICS,
        vocabulary=None,
        text=(128, 3, 2, 2, 384),
        vision=(128, 3, 2, 256),
        image_tokens=(49, 49),
    ),
    # SmolVLM-256M-Instruct: SigLIP base/16 at 512 px and SmolLM2-135M
    "smolvlm-256m": Shape(
        families=IDEFICS,
        vocabulary=49280,
        text=(576, 30, 9, 3, 1536),
        vision=(768, 12, 12, 3072),
        image_tokens=(64, 64),
        patch=(16, 4),
    ),
    # no published model is that small: a Qwen-VL that a CPU runs in seconds (about 120 M weights)
    "qwen-vl": Shape(
        families=QWEN,
        vocabulary=49152,
        text=(512, 16, 8, 2, 2048),
        vision=(512, 10, 8, 2048),
        image_tokens=(4, 64),
        rope_theta=1e6,
    ),
}
"""Shapes by name; `Shape.families` says which families come in each."""


def write_random_checkpoint(
    folder: str | Path,
    family: str,
    *,
    shape: str = "tiny",
    seed: int = 0,
    prepare: Callable[[Any, Any], None] | None = None,
) -> Path:
    """Write a vision-language checkpoint with random weights.

    Args:
        folder: made if missing; must be empty.
        family: one of `FAMILIES`.
        shape: one of `SHAPES`. The weights are float32: 4 to 8 MB for `tiny`, 0.5 GB for
            `qwen-vl`, 1 GB for `smolvlm-256m`.
        seed: of the weights, not negative; the same seed gives the same bytes.
        prepare: changes weights in place before they are written; called with model and processor.

    Returns:
        The folder. It holds config.json, generation_config.json, model.safetensors, the tokenizer,
        chat_template.jinja and the processor's settings. Images are never split into sub-images,
        so that `smolvlm-256m` takes 64 tokens an image.

    Raises:
        OptionError: unknown family or shape, a family that doesn't come in the shape, or a
            negative seed.
        OutputError: the folder isn't empty or can't be written to.
        ModelError: torch or transformers isn't installed.
    """
    folder = Path(folder)
    if family not in FAMILIES:
        raise OptionError(f"unknown family {family!r}", hint=f"known: {', '.join(FAMILIES)}")
    if shape not in SHAPES:
        raise OptionError(f"unknown shape {shape!r}", hint=f"known: {', '.join(SHAPES)}")
    sizes = SHAPES[shape]
    if family not in sizes.families:
        raise OptionError(
            f"{family} doesn't come in shape {shape}",
            hint=f"families of {shape}: {', '.join(sizes.families)}",
        )
    if seed < 0:
        raise OptionError(f"seed = {seed} is negative", hint="use 0 or more")
    try:
        with output_errors(folder):
            _write(folder, family, sizes, seed, prepare)
    except ImportError as error:
        raise ModelError(
            f"random checkpoints need torch and transformers: {error}",
            hint=pip_hint("lvlm"),
        ) from error
    return folder


def _write(
    folder: Path, family: str, sizes: Shape, seed: int, prepare: Callable[[Any, Any], None] | None
) -> None:
    """Write the folder whole or not at all: beside its place, then moved there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} isn't an empty folder", hint="choose a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        unfinished = Path(scratch) / "checkpoint"
        language = language_of(family)
        tokenizer = make_tokenizer(language)
        model = _model(family, sizes, tokenizer, seed)
        processor = _processor(family, sizes, tokenizer, language.template)
        model.save_pretrained(unfinished)
        if prepare is not None:  # loaded: rotary frequencies, which aren't saved, are made then
            model = type(model).from_pretrained(unfinished)
            prepare(model, processor)
            model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        processor.image_processor.save_pretrained(unfinished)  # the hub has it in a file of its own
        if folder.exists():
            folder.rmdir()
        os.replace(unfinished, folder)


def _model(family: str, sizes: Shape, tokenizer: Any, seed: int) -> Any:
    """The model with its weights drawn, on the CPU, float32."""
    import torch

    hf: Any = import_module("transformers")
    # made without memory: torch would draw weights, from its global generator, only to lose them
    with torch.device("meta"):
        config = _config(family, sizes, tokenizer)
        model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.to_empty(device="cpu")
    model.tie_weights()
    random = np.random.default_rng(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            draw = random.standard_normal(tuple(weight.shape), dtype=np.float32)
            if weight.ndim > 1:
                draw /= np.float32(math.sqrt(math.prod(weight.shape[1:])))
            else:  # norms near one, biases near zero, neither negligible
                draw = np.float32(0.1) * draw + np.float32(name.endswith(".weight"))
            weight.copy_(torch.from_numpy(draw))
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    model.generation_config.update(**{name: getattr(tokenizer, name) for name in names})
    return model


def _config(family: str, sizes: Shape, tokenizer: Any) -> Any:
    """The family's configuration in a shape, with the tokenizer's ids."""
    hf: Any = import_module("transformers")
    width, layers, heads, kv_heads, mlp = sizes.text
    vision_width, depth, vision_heads, vision_mlp = sizes.vision
    patch, merge = sizes.patching(family)
    token = tokenizer.convert_tokens_to_ids
    tied = family in QWEN  # as the small published models of each family are
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": sizes.rope_theta}
    text: dict[str, Any] = {
        "vocab_size": sizes.vocabulary or len(tokenizer),
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": MAX_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_parameters": rope,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": tied,
    }
    vision: dict[str, Any] = {
        "hidden_size": vision_width,
        "intermediate_size": vision_mlp,
        "patch_size": patch,
    }
    both: dict[str, Any] = {
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": tied,
        "image_token_id": token("<|image_pad|>" if family in QWEN else "<image>"),
    }
    if family not in QWEN:
        text |= {"model_type": "llama", "head_dim": width // heads}
        vision |= {"num_hidden_layers": depth, "num_attention_heads": vision_heads}
        vision |= {"image_size": sizes.image_px(family)}
        if family in IDEFICS:
            vision |= {"model_type": f"{family}_vision"}
            both |= {"scale_factor": merge, "pad_token_id": tokenizer.pad_token_id}
        else:
            vision |= {"model_type": "clip_vision_model"}
            both |= {"image_seq_length": sizes.image_tokens[1]}
        return hf.AutoConfig.for_model(family, **both)
    # rotary pairs of a head for time, height, width; published of 64: 16 24 24, version 3 24 20 20
    pairs = width // heads // 2
    time = pairs * 3 // 8 if family == "qwen3_vl" else pairs // 4
    rope |= {"mrope_section": [time, (pairs - time) // 2, (pairs - time) // 2]}
    vision |= {"depth": depth, "num_heads": vision_heads, "spatial_merge_size": merge}
    if family == "qwen2_vl":
        del vision["intermediate_size"]
        vision |= {"embed_dim": vision_width, "hidden_size": width}
        vision |= {"mlp_ratio": vision_mlp // vision_width}
    elif family == "qwen2_5_vl":  # windows of 2 x 2 tokens; every third block sees the whole image
        vision |= {"out_hidden_size": width, "window_size": 2 * merge * patch}
        vision |= {"fullatt_block_indexes": list(range(1, depth, 3))}
    else:
        text |= {"head_dim": width // heads}
        rope |= {"mrope_interleaved": True}
        # a table of positions for the largest image, and DeepStack features spread over the depth
        vision |= {"out_hidden_size": width}
        vision |= {"num_position_embeddings": (sizes.image_px(family) // patch) ** 2}
        taps = min(3, layers)
        indexes = [depth * (i + 1) // (taps + 1) for i in range(taps)]
        vision |= {"deepstack_visual_indexes": indexes}
    both |= {f"vision_{edge}_token_id": token(f"<|vision_{edge}|>") for edge in ("start", "end")}
    return hf.AutoConfig.for_model(family, video_token_id=token("<|video_pad|>"), **both)


def _processor(family: str, sizes: Shape, tokenizer: Any, template: str) -> Any:
    """The family's processor: image settings, tokenizer and chat template."""
    hf: Any = import_module("transformers")
    side = sizes.image_px(family)
    patch, merge = sizes.patching(family)
    settings: dict[str, Any]
    if family in QWEN:
        low, high = ((patch * merge) ** 2 * tokens for tokens in sizes.image_tokens)
        settings = {"size": {"shortest_edge": low, "longest_edge": high}}
        settings |= {"patch_size": patch, "merge_size": merge}
        video = hf.Qwen2VLVideoProcessor
        if family == "qwen3_vl":
            settings |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
            video = hf.Qwen3VLVideoProcessor
        kinds = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
        parts = {"image_processor": hf.Qwen2VLImageProcessor(**settings)}
        parts |= {"video_processor": video(**settings)}
    elif family in IDEFICS:
        settings = {"size": {"longest_edge": 4 * side}, "max_image_size": {"longest_edge": side}}
        kinds = {"smolvlm": "SmolVLM", "idefics3": "Idefics3"}
        image = getattr(hf, f"{kinds[family]}ImageProcessor")
        parts = {"image_processor": image(do_image_splitting=False, **settings)}
        parts |= {"image_seq_len": sizes.image_tokens[1]}
        if family == "smolvlm":
            video = hf.SmolVLMVideoProcessor(fps=1, num_frames=8, **settings)
            parts |= {"video_processor": video}
    else:
        kinds = {"llava": "Llava"}
        crop = {"height": side, "width": side}
        image = hf.CLIPImageProcessor(size={"shortest_edge": side}, crop_size=crop)
        # of the tower's tokens the first, its class token, is dropped
        parts = {"image_processor": image, "patch_size": patch, "num_additional_image_tokens": 1}
        parts |= {"vision_feature_select_strategy": "default"}
    kind = getattr(hf, f"{kinds[family]}Processor")
    return kind(tokenizer=tokenizer, chat_template=template, **parts)
