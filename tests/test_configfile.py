"""Tests of `skylink.configfile`: files of choices, and what is said of wrong ones."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, model_validator

from skylink.configfile import known_keys, read_choices
from skylink.errors import OptionError

PRINTED = "skylink cook --print-recipe > recipe.toml"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Oven(Strict):
    heat: int = 180
    rack: int = 1


class Step(Strict):
    minutes: int = 1


class Recipe(Strict):
    name: str
    oven: Oven = Oven()
    steps: tuple[Step, ...] = ()
    spice: dict[str, float] = {}

    @model_validator(mode="after")
    def _edible(self) -> Recipe:
        if self.oven.heat > 300:
            raise OptionError("the oven is too hot", hint="oven.heat = 180")
        return self


def read(folder: Path, text: str, name: str = "recipe.toml") -> Recipe:
    path = folder / name
    path.write_text(text)
    return read_choices(path, Recipe, printed=PRINTED)


def test_toml_and_yaml_say_the_same(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    toml = 'name = "pie"\nspice = {salt = 1.5}\n[oven]\nheat = 200\n[[steps]]\nminutes = 3\n'
    yaml = "name: pie\nspice: {salt: 1.5}\noven: {heat: 200}\nsteps: [{minutes: 3}]\n"
    found = read(tmp_path, toml)
    assert found == read(tmp_path, yaml, "recipe.yml")
    assert found == Recipe(
        name="pie", oven=Oven(heat=200), steps=(Step(minutes=3),), spice={"salt": 1.5}
    )


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("nam = 'a'", "there is no key nam", "'name'"),
        ("name = 'a'\n[oven]\nheet = 3", "no key oven.heet", "'oven.heat'"),
        ("name = 'a'\n[ovem]\nheat = 3", "no key ovem", "'oven'"),
        ("name = 'a'\nminutes = 3", "no key minutes", "'steps.minutes'"),
        ("name = 'a'\n[[steps]]\nminuts = 3", "no key steps.0.minuts", "'steps.minutes'"),
        ("name = 'a'\nqqq = 3", "no key qqq", "`skylink cook --print-recipe` explains"),
        ("[oven]\nheat = 3", "name is missing", "--print-recipe"),
        ("name = 'a'\n[oven]\nheat = 'x'", "oven.heat = 'x'", "--print-recipe"),
        ("name = 'a'\n[oven]\nheat = 301", "the oven is too hot", "oven.heat = 180"),
        ("name = a", "is not TOML", "quotes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(str(tmp_path / "recipe.toml"))
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_file_that_is_not_there_says_how_to_begin(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path, Path("a\0b")):
        with pytest.raises(OptionError, match="can't be read") as caught:
            read_choices(path, Recipe, printed=PRINTED)
        assert caught.value.hint == f"`{PRINTED}` writes one to begin with"


def test_keys_are_found_in_sections_of_sections() -> None:
    assert list(known_keys(Recipe)) == ["name", "oven.heat", "oven.rack", "steps.minutes", "spice"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=80), name=st.sampled_from(["any.toml", "any.yaml"]))
def test_any_bytes_are_choices_or_our_error(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with contextlib.suppress(OptionError):
        assert isinstance(read_choices(path, Recipe, printed=PRINTED), Recipe)


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, skylink.configfile; assert not {'torch', 'yaml', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
