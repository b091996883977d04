"""Re-rank by a trained relational model, run by ONNX Runtime: `skylink train-relational` makes it.

relational.onnx    cells of views and of the map around candidates -> scores; its metadata
                   `skylink.relational` says which cells (`Identity`)
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skylink.camera import ViewRenderer
from skylink.encoder import Encoder, onnx_session
from skylink.errors import ModelError, OptionError
from skylink.reranker import Fusion
from skylink.rerankers.cells import GalleryCells, trunk_of
from skylink.types import Candidate, Query

if TYPE_CHECKING:
    from skylink.gallery import Gallery

MODEL = "relational.onnx"
METADATA = "skylink.relational"
INPUTS = ("views", "views_valid", "windows", "windows_valid", "owner")
OUTPUT = "scores"
MAX_BYTES = 100 * 2**20
BATCH = 64
"""Candidates in one run of the model: some 10 MB of cells."""


class OtherCells(ModelError):
    """A model was trained on the cells of another encoder than the gallery's."""


class Identity(BaseModel):
    """What a model file says of itself.

    Attributes:
        format: of the file.
        channels, side, reach: C, k and r of the cells it takes, see `GalleryCells`.
        trunk: fingerprint of the network that makes them.
        base_weight, gate_margin: of `Fusion`, fitted on lists of a retriever; None: not fitted.
        fusion_depth: of how many candidates.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: int = Field(default=1, ge=1, le=1)
    channels: int = Field(ge=1, le=65_536)
    side: int = Field(ge=1, le=64)
    reach: int = Field(ge=0, le=16)
    trunk: str = Field(min_length=1, max_length=200)
    base_weight: float | None = Field(default=None, ge=0, le=1)
    gate_margin: float | None = Field(default=None, ge=0)
    fusion_depth: int | None = Field(default=None, ge=1)

    @property
    def fusion(self) -> Fusion | None:
        """As fitted in training."""
        if self.base_weight is None:
            return None
        return Fusion(
            base_weight=self.base_weight, gate_margin=self.gate_margin, depth=self.fusion_depth
        )


class RelationalReranker:
    """See the module.

    Args:
        path: a model file.
        gallery: with a feature raster.
        encoder: the one that built it.

    Attributes:
        name: `relational`, or with its folder's name where the file is one's own.
        fusion: as fitted in training, or None.

    Raises:
        OtherCells: the file is for another encoder.
        ModelError: it can't be used.
        OptionError: the gallery has no feature raster.
    """

    name = "relational"

    def __init__(self, path: Path, gallery: Gallery, encoder: Encoder) -> None:
        if not gallery.info.encoder.channels:
            raise OptionError(
                f"{gallery.path} has no feature raster for the relational re-ranker",
                hint="use --reranker hog, matching or none",
            )
        self._session = onnx_session(_read(path), str(path))
        told = self._session.get_modelmeta().custom_metadata_map.get(METADATA, "")
        names = tuple(each.name for each in self._session.get_inputs())
        try:
            self._known = Identity.model_validate_json(told)
        except ValidationError as error:
            raise _wrong(path, f"its metadata {METADATA} can't be read") from error
        if names != INPUTS:
            raise _wrong(path, f"its inputs are {', '.join(names)}")
        self._cells = GalleryCells(gallery, encoder, reach=self._known.reach)
        takes = (self._known.channels, self._known.side, self._known.trunk)
        if takes != (encoder.channels, self._cells.side, trunk_of(encoder)):
            raise OtherCells(
                f"{path} was trained on cells of another encoder than {encoder.name}, which built "
                f"{gallery.path}",
                hint="train one on this gallery's own lists: see docs/relational.md",
            )
        self._path = path
        if path.resolve() != shipped().resolve():  # confidence was fitted to the scores of that one
            self.name = f"relational:{path.resolve().parent.name}"
        self.fusion = self._known.fusion

    def score(self, query: Query, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
        """See `Reranker.score`; each candidate under its own pose, or the best of likely ones."""
        if not candidates:
            return np.zeros(0, np.float32)
        found = self._cells.compare(candidates, lambda: ViewRenderer(query.image), query.telemetry)
        scores = []
        for first in range(0, len(candidates), BATCH):
            part = slice(first, first + BATCH)
            feed = (
                found.views, found.views_valid, found.windows[part], found.windows_valid[part],
                found.owner[part],
            )  # fmt: skip
            try:
                scores.append(self._session.run(None, dict(zip(INPUTS, feed, strict=True)))[0])
            except Exception as error:  # onnxruntime raises its own unexported classes
                raise _wrong(self._path, str(error).splitlines()[0][:200]) from error
        return np.asarray(np.concatenate(scores), np.float32)


def shipped() -> Path:
    """Where the file that comes with SkyLink is, or would be."""
    return Path(str(resources.files("skylink") / "weights")) / MODEL


def model_file(folder: str | None) -> Path:
    """The model of a folder of `skylink train-relational`; None: the one that comes with SkyLink.

    Raises:
        ModelError: it isn't there.
    """
    if folder is not None:
        path = Path(folder).expanduser() / MODEL
        if not path.is_file():
            raise ModelError(
                f"{folder} has no {MODEL}",
                hint="give the folder that `skylink train-relational` wrote",
            )
        return path
    if not shipped().is_file():
        raise ModelError(
            "this version of SkyLink comes without a trained relational re-ranker",
            hint="train one (`skylink train-relational`, docs/relational.md) and give "
            "--reranker relational:FOLDER, or use --reranker dense",
        )
    return shipped()


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _wrong(path, f"larger than {MAX_BYTES >> 20} MB")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error


def _wrong(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} is not what `skylink train-relational` writes: {why}",
        hint="copy the whole folder again from where it was trained",
    )
