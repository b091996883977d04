"""What training leaves behind: a folder with LoRA weights, a value head, and how to ask.

    skylink.json                 what it was trained on and with (`AdapterInfo`)
    value_head.safetensors       the head (`head.py`); absent if it was not trained
    adapter_config.json          LoRA, as PEFT writes it; absent if the backbone was frozen
    adapter_model.safetensors

A folder that loads only in part would score at random and look alive (it has happened in a peer's
library). So head and LoRA are held to their hashes, every LoRA tensor in the model is compared with
the file after loading, and a value head inside PEFT's `modules_to_save` is refused.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skylink.errors import ModelError, OptionError, pip_hint
from skylink.files import follow_umask, output_errors, write_atomic
from skylink.lvlm.backbone import Backbone
from skylink.lvlm.head import ValueHead
from skylink.lvlm.options import Way
from skylink.prompt import TEMPLATES, Mode

INFO, HEAD = "skylink.json", "value_head.safetensors"
CONFIG, LORA = "adapter_config.json", "adapter_model.safetensors"
MAX_INFO_BYTES = 2**20
UNFINISHED = '{"about": "saving was not finished"}\n'
"""Stands in skylink.json while the other files are written."""


class AdapterInfo(BaseModel):
    """skylink.json.

    Attributes:
        format: of the folder.
        checkpoint, revision: what it was trained on, by hub name or folder.
        model_type, hidden_size: of that checkpoint; another kind is refused.
        mode, template, facts, show, visual_tokens: how it was asked; used again unless the user
            says otherwise (the template must be the same).
        head_sha256: of the value head's file, where there is one.
        lora_sha256: over the SHA-256 of LoRA's configuration and of its weights, where there are.
        base_weight, gate_margin, temperature: fusion with the retriever's score, as fitted on
            validation lists; None where it was not fitted. fusion_depth: of how many candidates.
        about: data, command and figures, for people.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    checkpoint: str
    revision: str | None = None
    model_type: str
    hidden_size: int = Field(gt=0)
    mode: Mode = "pointwise"
    template: str
    facts: bool = True
    show: Way = "auto"
    visual_tokens: int = Field(gt=0)
    head_sha256: str | None = None
    lora_sha256: str | None = None
    base_weight: float | None = Field(default=None, ge=0, le=1)
    gate_margin: float | None = Field(default=None, ge=0)
    fusion_depth: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, gt=0)
    about: dict[str, Any] = Field(default_factory=dict)


def read_info(folder: Path) -> AdapterInfo | None:
    """What the folder says of itself; None for a plain PEFT adapter of someone else's.

    Raises:
        ModelError: it isn't an adapter folder, or its skylink.json can't be used.
    """
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: no such adapter folder", hint="give the folder that training wrote"
        )
    path = folder / INFO
    if not path.exists():
        if (folder / CONFIG).exists() and not (folder / HEAD).exists():
            return None
        raise ModelError(
            f"{folder}: there is no {INFO} in it"
            + ("" if (folder / HEAD).exists() else f", nor {CONFIG}"),
            hint="give the folder that training wrote",
        )
    try:
        with path.open("rb") as file:
            text = file.read(MAX_INFO_BYTES + 1)
        if len(text) > MAX_INFO_BYTES:
            raise ModelError(
                f"{path}: larger than {MAX_INFO_BYTES >> 20} MB",
                hint="copy the whole folder again from where it was trained",
            )
        if text == UNFINISHED.encode():
            raise ModelError(f"{folder}: saving it was not finished", hint="train or save it again")
        info = AdapterInfo.model_validate_json(text)
    except OSError as error:
        raise ModelError(
            f"{path}: {error.strerror}", hint="check the folder and who may read it"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(
            f"{path}: {where}: {first['msg']}",
            hint="it may be damaged, or written by a later version of SkyLink",
        ) from error
    if info.template not in TEMPLATES:
        raise ModelError(
            f"{path}: it was trained with the prompt template {info.template!r}, which this "
            "version does not have",
            hint="install the version of SkyLink that it was trained with",
        )
    return info


def save_adapter(
    folder: Path, info: AdapterInfo, *, head: ValueHead | None, lora: Any = None
) -> AdapterInfo:
    """Write an adapter folder; what a kill leaves of it is refused by `read_info`.

    Args:
        folder: made if missing.
        info: hashes are filled in here.
        head: the trained value head.
        lora: the PEFT model, if the backbone was adapted.

    Raises:
        OutputError: it can't be written.
    """
    hashes: dict[str, str | None] = {"head_sha256": None, "lora_sha256": None}
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / INFO, UNFINISHED)  # refused, until the last line here
        for name in (HEAD, CONFIG, LORA):  # of an earlier training, into the same folder
            (folder / name).unlink(missing_ok=True)
        if head is not None:
            hashes["head_sha256"] = head.save(folder / HEAD)
        if lora is not None:
            # no embeddings: to find out whether they changed, PEFT would ask the hub
            lora.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
            follow_umask(folder / LORA)  # safetensors writes for the owner alone
            hashes["lora_sha256"] = _lora_sha256(folder)
    done = info.model_copy(update=hashes)
    write_atomic(folder / INFO, done.model_dump_json(indent=2) + "\n")
    return done


def load_head(folder: Path, info: AdapterInfo, backbone: Backbone) -> ValueHead | None:
    """The trained head, or None if only LoRA was trained.

    Raises:
        ModelError: see `ValueHead.load`; or the adapter is for another model.
    """
    require_same_kind(folder, info, backbone.model.config, backbone.name)
    hidden = backbone.model.config.get_text_config().hidden_size
    if info.head_sha256 is None:
        return None
    return ValueHead.load(folder / HEAD, sha256=info.head_sha256, hidden_size=hidden)


def require_same_kind(folder: Path, info: AdapterInfo, config: Any, name: str) -> None:
    """Refuse an adapter that was trained on another kind of model than this configuration's.

    Raises:
        ModelError: family or width differ.
    """
    hidden = getattr(config.get_text_config(), "hidden_size", None)
    if info.model_type != config.model_type or info.hidden_size != hidden:
        raise ModelError(
            f"{folder} was trained on {info.checkpoint} ({info.model_type}, {info.hidden_size} "
            f"hidden units), not on {name} ({config.model_type}, {hidden})",
            hint=f"use --reranker lvlm:{info.checkpoint}",
        )


def apply_lora(model: Any, folder: Path, info: AdapterInfo | None, *, merge: bool = True) -> Any:
    """The model with the folder's LoRA weights, merged into its own unless `merge` is False.

    Raises:
        ModelError: it doesn't fit the model, isn't safetensors, or did not load whole.
    """
    try:
        from peft import PeftModel, get_peft_model_state_dict
        from safetensors.torch import load_file
    except ImportError as error:
        raise OptionError(
            f"LoRA adapters need packages that are not installed ({error})",
            hint=pip_hint("lvlm"),
        ) from error

    config = folder / CONFIG
    if not config.exists():
        if info is not None and info.lora_sha256 is None:
            return model
        raise ModelError(f"{config}: missing", hint="copy the whole adapter folder again")
    _check_config(config)
    weights = folder / LORA
    if not weights.exists():
        raise ModelError(f"{weights}: missing", hint="adapters load from safetensors only")
    if info is not None and info.lora_sha256 != _lora_sha256(folder):
        raise ModelError(
            f"{weights}: these weights or {CONFIG} are not what was saved with this adapter",
            hint="copy the whole folder again from where it was trained",
        )
    try:
        stored = load_file(str(weights))
        with warnings.catch_warnings():  # what PEFT misses is an error below
            warnings.simplefilter("ignore")
            adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except Exception as error:  # a configuration that isn't ours makes PEFT raise all sorts
        words = " ".join(str(error).split())[:400]
        raise ModelError(
            f"{folder} doesn't fit this model: {type(error).__name__}: {words}",
            hint="load it with the checkpoint that it was trained on",
        ) from error
    # no embeddings, as in `save_adapter`: by them the folder could make PEFT ask the hub
    loaded = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    wrong = sorted(
        set(stored) ^ set(loaded)
        | {k for k in set(stored) & set(loaded) if not _equal(stored[k], loaded[k])}
    )
    if wrong:
        raise ModelError(
            f"{folder}: {len(wrong)} of its tensors are not in the model as they were saved, "
            f"the first is {wrong[0]}",
            hint="load it with the checkpoint that it was trained on",
        )
    return adapted.merge_and_unload() if merge else adapted


def _check_config(path: Path) -> None:
    again = "copy the whole adapter folder again"
    try:
        with path.open("rb") as file:
            text = file.read(MAX_INFO_BYTES + 1)
        if len(text) > MAX_INFO_BYTES:
            raise ModelError(f"{path}: larger than {MAX_INFO_BYTES >> 20} MB", hint=again)
        config = json.loads(text)
        kind, saved = config["peft_type"], config.get("modules_to_save")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: not an adapter's configuration: {error}", hint=again) from error
    if kind != "LORA":
        raise ModelError(
            f"{path}: a {kind} adapter; only LoRA is supported", hint="train one with LoRA"
        )
    if saved:
        raise ModelError(
            f"{path}: modules_to_save = {saved}: whole modules inside an adapter have reloaded as "
            "random ones, and are refused",
            hint=f"save a value head by `skylink.lvlm.adapter.save_adapter`, as {HEAD}",
        )


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool((a.float() == b.float().cpu()).all())


def _lora_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CONFIG, LORA):  # the configuration scales the weights
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
