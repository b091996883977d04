"""`trained:FOLDER`: an encoder that `skylink train-retriever` wrote.

    skylink.json             what it is and what became of its training (`TrainedInfo`)
    model.safetensors        the network's weights
    config.json, ...         of `hf:` models: what transformers needs
    opts.yaml                of `university1652:` models

The architecture is that of the encoder it was trained from, built without that encoder's weights:
the folder is all that is needed, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skylink.encoders.torch_encoder import TorchEncoder
from skylink.errors import ModelError, OptionError, first_complaint
from skylink.files import output_errors, write_atomic

INFO, WEIGHTS = "skylink.json", "model.safetensors"
MAX_INFO_BYTES = 2**20
UNFINISHED = '{"about": "saving was not finished"}\n'
"""Stands in skylink.json while the other files are written."""

FROM_FILE = ("sample4geo", "camp", "dac", "mean", "game4loc", "university1652")
"""Kinds of encoders whose value is a file of weights."""


class TrainedInfo(BaseModel):
    """skylink.json.

    Attributes:
        format: of the folder.
        kind: of folder: other trainings write other kinds.
        encoder: whose architecture it is: `timm:NAME`, `hf`, or a kind of `FROM_FILE`.
        sha256: of the weights' file.
        about: data, choices and figures, for people.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    kind: Literal["encoder"] = "encoder"
    encoder: str = Field(pattern=r"^(timm:[\w.:/-]+|hf|" + "|".join(FROM_FILE) + ")$")
    sha256: str
    about: dict[str, Any] = Field(default_factory=dict)


def load_trained(value: str) -> TorchEncoder:
    """The encoder of a folder.

    Raises:
        ModelError: it is not such a folder, not finished, damaged, or doesn't load whole.
    """
    folder = Path(value).expanduser()
    info = read_info(folder)
    try:
        with (folder / WEIGHTS).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"{folder / WEIGHTS}: {error.strerror}", hint="copy the whole folder again"
        ) from error
    if found != info.sha256:
        raise ModelError(
            f"{folder / WEIGHTS} is not what was saved with this encoder",
            hint="copy the whole folder again from where it was trained",
        )
    encoder = _made(plain_spec(f"trained:{folder}"))
    encoder.name = f"trained:{value}"
    return encoder


def save_trained(folder: Path, spec: str, encoder: TorchEncoder, about: dict[str, Any]) -> None:
    """Write the folder; what a kill leaves of it is refused by `load_trained`.

    Args:
        folder: made if missing.
        spec: of the encoder that was trained.
        encoder: as it is now.
        about: for people.

    Raises:
        OutputError: it can't be written.
        OptionError: `spec` is of a kind that can't be written (see `require_trainable`).
    """
    from safetensors.torch import save

    plain = require_trainable(spec)
    kind, _, value = plain.partition(":")
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / INFO, UNFINISHED)  # refused, until the last line here
    if kind == "hf":
        from skylink.encoders.hf_encoder import save_hf

        save_hf(encoder.network, value, folder)
    else:
        tensors = encoder.network.state_dict()
        data = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
        write_atomic(folder / WEIGHTS, data)
    if kind == "university1652":
        source, copy = Path(value).expanduser().with_name("opts.yaml"), folder / "opts.yaml"
        if source.absolute() != copy.absolute():
            with output_errors(copy):
                shutil.copyfile(source, copy)
    with output_errors(folder), (folder / WEIGHTS).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    name = f"timm:{value.partition('@')[0]}" if kind == "timm" else kind
    info = TrainedInfo(encoder=name, sha256=sha256, about=about)
    write_atomic(folder / INFO, info.model_dump_json(indent=2) + "\n")


def require_trainable(spec: str) -> str:
    """The spec, without `trained:`, of an encoder that can be trained and written.

    Raises:
        OptionError: another kind of encoder.
        ModelError: a folder can't be read.
    """
    plain = plain_spec(spec)
    kind, _, value = plain.partition(":")
    if kind not in ("timm", "hf", *FROM_FILE) or not value:
        known = ", ".join(("timm:NAME", "hf:NAME", "trained:FOLDER", *FROM_FILE))
        raise OptionError(
            f"the encoder {spec!r} can't be trained", hint=f"encoders that can: {known}"
        )
    return plain


def plain_spec(spec: str) -> str:
    """The spec that loads the same weights without `trained:`; others as they are."""
    kind, _, value = spec.partition(":")
    if kind != "trained" or not value:
        return spec
    folder = Path(value).expanduser()
    encoder = read_info(folder).encoder
    if encoder == "hf":
        return f"hf:{folder}"
    joined = "@" if encoder.startswith("timm:") else ":"
    return f"{encoder}{joined}{folder / WEIGHTS}"


def read_info(folder: Path) -> TrainedInfo:
    """What the folder says of itself.

    Raises:
        ModelError: it isn't such a folder, or was not finished.
    """
    path = folder / INFO
    hint = "give the folder that `skylink train-retriever` wrote"
    try:
        with path.open("rb") as file:
            text = file.read(MAX_INFO_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{folder} is not a trained encoder: {INFO}: {reason}", hint=hint
        ) from error
    if text == UNFINISHED.encode():
        raise ModelError(
            f"{folder}: saving it was not finished", hint="give the same training command again"
        )
    try:
        if len(text) > MAX_INFO_BYTES:
            raise ModelError(f"{path}: larger than {MAX_INFO_BYTES >> 20} MB", hint=hint)
        return TrainedInfo.model_validate_json(text)
    except ValidationError as error:
        raise ModelError(f"{path}: {first_complaint(error)}", hint=hint) from error


def _made(spec: str) -> TorchEncoder:
    from skylink.encoders import make_encoder

    encoder = make_encoder(spec)
    assert isinstance(encoder, TorchEncoder)  # all kinds of `TrainedInfo.encoder` are
    return encoder
