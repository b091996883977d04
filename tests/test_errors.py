"""Tests of `skylink.errors`."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field, ValidationError

from skylink.errors import first_complaint


class Inner(BaseModel):
    share: float = Field(le=1)


class Outer(BaseModel):
    parts: list[Inner]


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ('{"parts": [{"share": 0}, {"share": 77}, {}]}', "parts.1.share: Input should be less"),
        ("77", "Input should be an object"),
        ("{77", "Invalid JSON"),
    ],
)
def test_the_first_complaint_says_where_and_not_what_stood_there(text: str, begins: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate_json(text)
    words = first_complaint(caught.value)
    assert words.startswith(begins)
    assert "77" not in words
