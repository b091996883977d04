"""Recipes: the shipped one, what is refused, what a killed run may change."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from skylink.embedded.recipe import DenseStage, EncoderRecipe
from skylink.errors import OptionError
from skylink.training.config_file import default_text, fields, read_config, toml_text

SHIPPED = Path(str(resources.files("skylink") / "embedded" / "encoder.toml"))


def test_the_shipped_recipe_is_the_default_but_for_what_it_says() -> None:
    shipped = read_config(SHIPPED, EncoderRecipe)
    bare = EncoderRecipe(out=shipped.out, data=shipped.data)
    assert shipped.parts == ("descriptor",)
    for section in ("views", "held_out", "dense", "descriptor", "optimizer"):
        assert getattr(shipped, section) == getattr(bare, section)
    assert shipped.data.photos is not None
    assert shipped.out.is_absolute()


def test_what_is_printed_and_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "encoder.toml"
    path.write_text(default_text(EncoderRecipe))
    printed = read_config(path, EncoderRecipe)
    assert printed.data.maps == (tmp_path / "satellite",)
    path.write_text(toml_text(printed))
    assert read_config(path, EncoderRecipe) == printed


def test_every_key_is_explained_here_and_in_the_docs() -> None:
    rows = fields(EncoderRecipe)
    assert len(rows) > 50
    assert all(about for _, _, about in rows)
    table = (Path(__file__).parents[2] / "docs" / "embedded.md").read_text()
    for key, default, about in rows:
        (line,) = (row for row in table.splitlines() if row.startswith(f"| `{key}` |"))
        assert about in line
        assert default in line


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('out = "o"', "data is missing"),
        ('out = "o"\n[data]\nmap = "s"', "no key data.map"),
        ('out = "o"\n[data]\nmaps = []', "data.maps"),
        ('out = "o"\n[data]\nmaps = "s"\n[views]\nmap_px = 100', "views.map_px"),
        ('out = "o"\n[data]\nmaps = "s"\n[views]\nwidths = [2.0, 1.0]', "is no range"),
        ('out = "o"\n[data]\nmaps = "s"\n[views]\nmap_px = 256', "other sizes"),
        ('out = "o"\n[data]\nmaps = "s"\n[dense]\nviews_per_map = 4', "views_per_map = 4"),
        ('out = "o"\n[data]\nmaps = "s"\n[descriptor]\nsize = 256', "not a multiple"),
        ('out = "o"\n[data]\nmaps = "s"\n[dense]\nlabels = "cosine"', "dense.labels"),
        ('out = "o"\nparts = []\n[data]\nmaps = "s"', "parts"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "encoder.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=match):
        read_config(path, EncoderRecipe)


def test_a_stage_depends_on_its_own_choices_alone(tmp_path: Path) -> None:
    recipe = EncoderRecipe(out=tmp_path, data={"maps": [tmp_path]})
    known = DenseStage.of(recipe).json_dict()
    other = recipe.model_copy(
        update={"descriptor": recipe.descriptor.model_copy(update={"power": 1.0})}
    )
    assert DenseStage.of(other).differences(known) == []
    changed = recipe.model_copy(update={"dense": recipe.dense.model_copy(update={"power": 1.0})})
    assert DenseStage.of(changed).differences(known) == ["dense.power"]
