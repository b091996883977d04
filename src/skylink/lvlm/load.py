"""From a checkpoint's name to a scorer: found, checked, loaded whole, and never executed.

Weights load from safetensors only. Code that comes with a checkpoint runs only if asked for. A
checkpoint of which any tensor is missing is refused: the library would fill it with random numbers.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skylink.errors import ModelError, OptionError, SkyLinkError, pip_hint
from skylink.lvlm.families import DEFAULT_TOKENS, REFUSED, family_of, fit_to_budget
from skylink.lvlm.options import LvlmOptions
from skylink.lvlm.presets import Preset, checkpoint_of, find
from skylink.prompt import NOTHING, TEMPLATES, Mode, Template, template_of

try:
    import psutil  # noqa: F401 - for the engine
    import torch
    import torchvision  # noqa: F401 - the processors' image backend
    import transformers
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
except (ImportError, OSError, RuntimeError) as error:  # torchvision of another torch: RuntimeError
    raise OptionError(
        f"vision-language models need packages that are not installed, or not in versions that fit "
        f"together ({error})",
        hint=pip_hint("lvlm"),
    ) from error

from skylink.lvlm.adapter import AdapterInfo, apply_lora, load_head, read_info, require_same_kind
from skylink.lvlm.backbone import Backbone
from skylink.lvlm.cache import FeatureCache, default_folder
from skylink.lvlm.engine import Engine
from skylink.lvlm.plain import plain_states
from skylink.lvlm.scorer import Scorer

log = logging.getLogger(__name__)

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
PROBE_TOLERANCE = 1e-3
"""States of the fast way may differ from the plain one's by this, relative to their size, for a
family that we have not tested to be scored by it; our tests hold the tested ones to 1e-5."""
PROBE_ROUNDINGS = 8
"""In half precision: by so many units of the last place."""


def load_scorer(checkpoint: str, options: LvlmOptions | None = None) -> Scorer:
    """A scorer for a checkpoint, by hub name, preset alias or folder.

    What was chosen by the user comes first, then what the adapter was trained with, then the
    preset's, then the defaults.

    Raises:
        ModelError: it can't be loaded, or not whole; the message says which part.
        OptionError: a choice that doesn't fit it, or the extra is not installed.
    """
    preset = find(checkpoint)
    chosen = options or LvlmOptions()
    info = read_info(chosen.adapter) if chosen.adapter is not None else None
    template, settled = _settle(chosen, info, preset)
    backbone = load_backbone(checkpoint, settled, info)
    head = None
    if settled.adapter is not None and info is not None:
        head = load_head(settled.adapter, info, backbone)
    cache = None
    if settled.cache_gb > 0 and not settled.plain:
        folder = settled.cache or default_folder()
        limit = int(settled.cache_gb * 2**30)
        cache = FeatureCache(folder, backbone.features_key(), max_bytes=limit)
    return Scorer(
        backbone,
        template,
        replace(settled, plain=settled.plain or not agrees_with_plain(backbone)),
        head=head,
        cache=cache,
        info=info,
    )


def load_backbone(
    checkpoint: str, options: LvlmOptions, info: AdapterInfo | None = None
) -> Backbone:
    """The model and its processor, with an adapter's LoRA weights merged in.

    Args:
        checkpoint: hub name, preset alias or folder.
        options: settled ones.
        info: of `options.adapter`.

    Raises:
        ModelError: see `load_scorer`.
    """
    where, name = _source(checkpoint, options.revision)
    trust = options.trust_remote_code
    common = {"revision": options.revision, "trust_remote_code": trust}
    with _loading(name, trust):
        config = AutoConfig.from_pretrained(where, **common)
    family = family_of(config.model_type)
    if family.model_type in REFUSED:
        raise ModelError(
            f"{name} is of the family {family.model_type}: {REFUSED[family.model_type]}",
            hint="`skylink models` lists what works",
        )
    if options.adapter is not None and info is not None:
        require_same_kind(options.adapter, info, config, name)  # before many GB are read
    device = _device(options.device)
    with _loading(name, trust):
        model, report = AutoModelForImageTextToText.from_pretrained(
            where,
            config=config,
            dtype=_dtype(options.dtype, device),
            use_safetensors=True,
            output_loading_info=True,
            device_map={"": device} if device.type != "cpu" else None,
            **common,
        )
        processor = AutoProcessor.from_pretrained(where, **common)
    _require_whole(name, report)
    if options.adapter is not None:
        model = apply_lora(model, options.adapter, info)
    model.eval().requires_grad_(False)
    _check_processor(name, processor)
    px = fit_to_budget(processor, family, options.visual_tokens or DEFAULT_TOKENS)
    try:
        return Backbone(model, processor, family, name, picture_px=px)
    except AttributeError as error:
        raise ModelError(
            f"{name}: models of the family {family.model_type} can't be scored: {error}",
            hint="`skylink models` lists what works",
        ) from error


def agrees_with_plain(backbone: Backbone) -> bool:
    """Whether the fast way may be used: true of tested families, tried out on the others.

    Raises:
        ModelError: a family that we have not tested can't be scored in the plain way either.
    """
    if backbone.family.tested:
        return True
    draw = np.random.default_rng(0)
    side = backbone.picture_px
    photo, one, other = draw.integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    template = template_of(None, "pointwise")
    prompt = template.build(NOTHING, [NOTHING])
    try:
        plain = plain_states(backbone, [prompt, prompt], photo, [[one], [other]])
        rows = backbone.head_rows(backbone.answer_ids(prompt))
    except SkyLinkError:
        raise
    except Exception as error:
        raise ModelError(
            f"{backbone.name}: models of the family {backbone.family.model_type} can't be scored: "
            f"{type(error).__name__}: {error}",
            hint="`skylink models` lists what works",
        ) from error
    if not torch.isfinite(plain @ rows.cpu().T).all():
        raise ModelError(
            f"{backbone.name} gave scores that are not finite on a test picture",
            hint="its weights may be damaged, or --lvlm-dtype float32 may help",
        )
    try:
        seen = backbone.look(photo)
        encoded = [backbone.encode(prompt, seen, [backbone.look(x)]) for x in (one, other)]
        fast = Engine(backbone).last_states(encoded)
    except Exception as error:
        log.warning("%s: the fast way fails (%s); the plain one is used", backbone.name, error)
        return False
    difference = float((fast - plain).abs().max() / plain.abs().max())
    if not difference <= max(PROBE_TOLERANCE, PROBE_ROUNDINGS * torch.finfo(backbone.dtype).eps):
        log.warning("%s: the fast way differs by %.2g; the plain one is used",
                    backbone.name, difference)  # fmt: skip
        return False
    return True


def _settle(
    options: LvlmOptions, info: AdapterInfo | None, preset: Preset | None
) -> tuple[Template, LvlmOptions]:
    """The template, and the options with what the user left open filled in."""
    if info is not None:
        for name, trained in (("template", info.template), ("mode", info.mode)):
            if getattr(options, name) not in (None, trained):
                raise OptionError(
                    f"{options.adapter} was trained with the {name} {trained}, "
                    f"not {getattr(options, name)}",
                    hint=f"leave --lvlm-{name} out",
                )
        template = template_of(info.template, info.mode)
        facts, show, tokens = info.facts, info.show, info.visual_tokens
    else:
        # an adapter of someone else's is trained, as far as we can know, on yes-or-no questions
        mode: Mode = "pairwise" if options.adapter is None else "pointwise"
        if preset is not None and preset.trained:
            mode = preset.mode
        if options.template in TEMPLATES:
            mode = TEMPLATES[options.template].mode
        mode = options.mode or mode
        fits = preset is not None and preset.mode == mode and options.template is None
        template = template_of(preset.template if preset and fits else options.template, mode)
        facts, show, tokens = True, "auto", preset.tokens if preset else DEFAULT_TOKENS
    return template, replace(
        options,
        mode=template.mode,
        template=template.name,
        facts=facts if options.facts is None else options.facts,
        show=options.show or show,
        visual_tokens=options.visual_tokens or tokens,
    )


def _source(checkpoint: str, revision: str | None) -> tuple[str, str]:
    """(what to load, how to call it): an existing folder, or a name on the hub.

    Raises:
        ModelError: a folder without a model, or neither.
    """
    try:
        folder = Path(checkpoint).expanduser()
        there, whole = folder.exists(), (folder / "config.json").is_file()
    except (OSError, RuntimeError, ValueError):  # too long a name, a home that isn't there
        there = False
    if there:
        if not whole:
            raise ModelError(
                f"{folder} is not a checkpoint: there is no config.json in it",
                hint="give the folder that holds config.json and model.safetensors",
            )
        if (folder / "adapter_config.json").exists():  # the library would load it unasked
            raise ModelError(
                f"{folder} holds an adapter_config.json beside the checkpoint",
                hint="move the adapter to a folder of its own and give it by --lvlm-adapter",
            )
        return str(folder), folder.resolve().name
    checkpoint = checkpoint_of(checkpoint)
    if not HUB_NAME.fullmatch(checkpoint):
        raise ModelError(
            f"{checkpoint}: no such folder, and not a name on the hub",
            hint="give a folder or a name like Qwen/Qwen2-VL-7B-Instruct; "
            "`skylink models` lists presets",
        )
    return checkpoint, checkpoint if revision is None else f"{checkpoint}@{revision}"


@contextlib.contextmanager
def _loading(name: str, trust: bool) -> Iterator[None]:
    """Errors of the libraries that load, in our words; their progress bars are kept quiet."""
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    except SkyLinkError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:400]
        if not trust and "trust_remote_code" in str(error):
            raise ModelError(
                f"{name} comes with Python code of its own, which would run on this machine",
                hint="read that code; to run it all the same add --trust-remote-code",
            ) from error
        hints: dict[type[Exception], str] = {
            SafetensorError: "a weight file is damaged or cut short: download it again",
            OSError: "check the name, the network and that the checkpoint has safetensors files",
            ImportError: pip_hint("lvlm"),
        }
        fitting = (hint for kind, hint in hints.items() if isinstance(error, kind))
        raise ModelError(
            f"{name} can't be loaded: {type(error).__name__}: {words}",
            hint=next(fitting, "`skylink models` lists what works"),
        ) from error
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _require_whole(name: str, report: dict[str, Any]) -> None:
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs"):
        wrong = sorted(str(key) for key in report.get(what) or ())
        if not wrong:
            continue
        if what == "unexpected_keys":
            log.warning("%s has %d tensors of no use here, such as %s", name, len(wrong), wrong[0])
            continue
        raise ModelError(
            f"{name}: {len(wrong)} of its tensors are missing or of another size, the first is "
            f"{wrong[0]}; they would be random",
            hint="use a complete checkpoint of an image-text-to-text model",
        )


def _check_processor(name: str, processor: Any) -> None:
    if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
        raise ModelError(
            f"{name} has no processor for pictures",
            hint="use a vision-language checkpoint: `skylink models` lists some",
        )
    if getattr(processor, "image_token", None) is None:
        raise ModelError(
            f"{name}: its processor has no image token, so prompts can't be made",
            hint="use a vision-language checkpoint: `skylink models` lists some",
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()  # `meta` makes tensors without values
    except (RuntimeError, AssertionError) as error:
        raise OptionError(
            f"device {name!r} can't be used here: {(str(error).splitlines() or [''])[0]}",
            hint="--lvlm-device auto takes a GPU if there is one",
        ) from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "float32" if device.type == "cpu" else "bfloat16"
    kind: torch.dtype = getattr(torch, name)
    return kind
