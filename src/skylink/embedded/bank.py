"""Features of training samples by the frozen trunk, on disk: what every embedded training reads.

    bank.json                   what the features are of (`Identity`)
    shard-00000.safetensors     SHARD maps each: see `Rows`

A sample is a function of the recipe and its number, so that a bank that was interrupted is
completed to the same bytes. Shards are memory-mapped: what a step takes is all that is copied.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skylink.embedded.sources import SampleSource
from skylink.encoder import Encoder, cell_masks, fill_invalid
from skylink.errors import ModelError, OptionError
from skylink.files import output_errors, write_atomic

SHARD = 32
INFO = "bank.json"
HEAVY = ("maps", "maps_valid", "views", "views_valid")
MAX_INFO_BYTES = 2**16

Progress = Callable[[int, int, str], None]


class Identity(BaseModel):
    """bank.json.

    Attributes:
        format: of the folder.
        source: SHA-256 of all that samples are made of (`SampleSource.digest`).
        encoder: its fingerprint.
        synthetic, real: maps; the real ones come last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=1, ge=1, le=1)
    source: str = Field(pattern="^[0-9a-f]{64}$")
    encoder: str = Field(max_length=200)
    synthetic: int = Field(ge=0)
    real: int = Field(ge=0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """N maps with V views each, and one decoy: the first view, turned wrongly.

    Attributes:
        maps: (N, R, R, C) float16 features; maps_valid (N, R, R) uint8.
        views: (N, V + 1, k, k, C) float16, the decoy last; views_valid (N, V + 1, k, k) uint8.
        places: (N, V, 2) float32: row and column of the views' centres, in cells from the map's
            top left corner.
        group: (N,) int32; maps of one group may show the same ground.
    """

    maps: NDArray[np.float16]
    maps_valid: NDArray[np.uint8]
    views: NDArray[np.float16]
    views_valid: NDArray[np.uint8]
    places: NDArray[np.float32]
    group: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.maps)


class Bank:
    """The maps of a folder that `build_bank` wrote.

    Args:
        folder: with all of its shards.

    Attributes:
        identity: what it is of.
        places: (N, V, 2) and group (N,) of all maps, see `Rows`.

    Raises:
        ModelError: it isn't such a folder, not whole, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        identity = read_identity(folder)
        if identity is None:
            raise ModelError(f"{folder} holds no features: there is no {INFO}")
        self.identity = identity
        self._files: list[Any] = []
        light: dict[str, list[NDArray[Any]]] = {"places": [], "group": []}
        for number in range(-(-len(self) // SHARD)):
            path = _shard_path(folder, number)
            try:
                file: Any = safe_open(path, framework="numpy")
                for name, values in light.items():
                    values.append(file.get_tensor(name))
                shapes = {name: file.get_slice(name).get_shape() for name in HEAVY}
            except (OSError, SafetensorError) as error:
                raise ModelError(
                    f"{path} can't be read: {error}", hint="remove it and give the command again"
                ) from error
            if any(shape[0] != len(light["group"][-1]) for shape in shapes.values()):
                raise ModelError(f"{path} is damaged", hint="remove it and give the command again")
            self._files.append(file)
        self.places: NDArray[np.float32] = np.concatenate(light["places"])
        self.group: NDArray[np.int32] = np.concatenate(light["group"])
        if len(self.group) != len(self):
            raise ModelError(f"{folder} holds {len(self.group)} maps instead of {len(self)}")

    def __len__(self) -> int:
        return self.identity.synthetic + self.identity.real

    @property
    def synthetic(self) -> int:
        """Maps with synthetic views; the real ones come after them."""
        return self.identity.synthetic

    @property
    def views(self) -> int:
        """Views of a map, without the decoy."""
        return int(self.places.shape[1])

    def rows(self, indices: Sequence[int] | NDArray[np.int64]) -> Rows:
        """Copies of some maps, in that order."""
        wanted = [int(i) for i in indices]
        heavy = {
            name: np.concatenate(
                [self._files[i // SHARD].get_slice(name)[i % SHARD : i % SHARD + 1] for i in wanted]
            )
            for name in HEAVY
        }
        return Rows(**heavy, places=self.places[wanted], group=self.group[wanted])


def build_bank(
    folder: Path,
    source: SampleSource,
    encoder: Encoder,
    *,
    fresh: bool = False,
    progress: Progress = lambda *_: None,
) -> Bank:
    """Write the shards that are missing.

    Args:
        folder: made if missing.
        source: of the samples.
        encoder: whose feature map is kept.
        fresh: remove what is there of other samples or another encoder.
        progress: called with (maps done, maps, words).

    Raises:
        OptionError: what is there is of other samples or another encoder.
        PhotoError: a picture can't be read.
        OutputError: it can't be written.
    """
    identity = Identity(
        source=source.digest, encoder=encoder.fingerprint, synthetic=source.synthetic,
        real=source.real,
    )  # fmt: skip
    found = read_identity(folder)
    if found != identity:
        if found is not None and not fresh:
            raise OptionError(
                f"{folder} holds features of other pictures, choices or weights",
                hint="set them back to go on, or begin anew with --fresh",
            )
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("shard-*.safetensors"):
                old.unlink()
        write_atomic(folder / INFO, identity.model_dump_json(indent=2) + "\n")
    for number in range(-(-len(source) // SHARD)):
        path = _shard_path(folder, number)
        if not path.exists():
            write_atomic(path, _shard(source, encoder, number))
        progress(min(len(source), (number + 1) * SHARD), len(source), "")
    return Bank(folder)


def read_identity(folder: Path) -> Identity | None:
    """What a folder says that it holds; None where it says nothing. Raises ModelError."""
    path = folder / INFO
    try:
        with path.open("rb") as file:
            text = file.read(MAX_INFO_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error
    try:
        return Identity.model_validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise ModelError(f"{path} can't be read", hint=f"remove {folder}") from error


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.safetensors"


def _shard(source: SampleSource, encoder: Encoder, number: int) -> bytes:
    """The features of maps number * SHARD and following."""
    from safetensors.numpy import save

    stride = encoder.stride_px
    out: dict[str, list[NDArray[Any]]] = {}
    for index in range(number * SHARD, min(len(source), (number + 1) * SHARD)):
        samples, group = source.samples(index)
        first = samples[0]
        shown = [(s.view, s.view_mask) for s in samples] + [source.decoy(index, first)]
        images, masks = np.stack([v for v, _ in shown]), np.stack([m for _, m in shown])
        maps = encoder.feature_map(fill_invalid(first.map[None], first.map_mask[None]))[0]
        row: dict[str, NDArray[Any]] = {
            "maps": maps.astype(np.float16),
            "maps_valid": cell_masks(first.map_mask[None], stride)[0].astype(np.uint8),
            "views": encoder.feature_map(fill_invalid(images, masks)).astype(np.float16),
            "views_valid": cell_masks(masks, stride).astype(np.uint8),
            "places": np.array([(s.row, s.column) for s in samples], np.float32) / stride,
            "group": np.array(group, np.int32),
        }
        for name, value in row.items():
            out.setdefault(name, []).append(value)
    return bytes(save({name: np.stack(values) for name, values in out.items()}))
