"""Coefficients of confidence and radius, as they were fitted: weights/calibration.json.

One set for each scorer (whose scores the candidates have: `dense`, `descriptor`, `re-ranked by
NAME`) and each of two cases: the whole camera pose was known, or part of it was searched (the best
of more poses is higher by chance). `benchmarks/calibration.py --write` fits them and writes the
file; docs/estimate.md says on what.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from skylink.errors import ModelError, first_complaint

PATH = Path(__file__).parent / "weights" / "calibration.json"

Positive = Annotated[FiniteFloat, Field(gt=0)]
NotNegative = Annotated[FiniteFloat, Field(ge=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class Coefficients(BaseModel):
    """Of one scorer in one case.

    confidence = 1 / (1 + exp(-(bias + score * s + lead * d))), with s the best score and d its
    relative lead over the best place elsewhere.

    Attributes:
        bias, score, lead: of that logistic model.
        local: factor on the error expected at the right place (`estimate.local_error_m`).
        listed: where the first candidate is wrong and the photo is of this map: how often the
            right place is among the others.
        temperature: of the softmax over the others' scores that shares `listed` among them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bias: FiniteFloat
    score: NotNegative
    lead: NotNegative
    local: Positive
    listed: Share
    temperature: Positive

    def confidence(self, *, score: float, lead: float) -> float:
        """0..1 that the first candidate is right.

        Args:
            score: the best one, of the scorer's own scale.
            lead: relative, -2..2 (`estimate.relative_lead`).
        """
        logit = self.bias + self.score * score + self.lead * lead
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, logit))))


class Cases(BaseModel):
    """Of one scorer: where the whole pose was known, and where part of it was searched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    aligned: Coefficients
    searched: Coefficients


class Calibration(BaseModel):
    """calibration.json.

    Attributes:
        fitted_on: the photos, in words.
        min_confidence: below this a photo is "not found on this map", unless told otherwise.
        scorers: by whose scores the candidates have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    fitted_on: str
    min_confidence: Share
    scorers: Mapping[str, Cases]

    def of(self, scorer: str, *, aligned: bool) -> Coefficients:
        """A scorer's coefficients; those of `descriptor`, cosines, for one that is not known."""
        cases = self.scorers.get(scorer) or self.scorers["descriptor"]
        return cases.aligned if aligned else cases.searched

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """The file.

        Raises:
            ModelError: it can't be read or is damaged.
        """
        again = "install skylink again, or fit anew: python benchmarks/calibration.py --write"
        try:
            found = cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}", hint=again) from error
        except ValidationError as error:
            why = first_complaint(error)
            raise ModelError(f"{path} is damaged: {why}", hint=again) from error
        if "descriptor" not in found.scorers:
            raise ModelError(f"{path} has no coefficients for `descriptor`", hint=again)
        return found


@lru_cache(maxsize=1)
def calibration() -> Calibration:
    """The package's own, read once.

    Raises:
        ModelError: see `Calibration.read`.
    """
    return Calibration.read(PATH)
