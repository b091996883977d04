from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skylink.encoders as package
from skylink.encoder import EmbeddedEncoder, load_encoder
from skylink.encoders import ALONE, WITH_VALUE, make_encoder
from skylink.errors import ModelError


class Point:
    """An entry point of another package, as importlib.metadata gives it."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


class Theirs(EmbeddedEncoder):
    """Another package's encoder."""

    name = "theirs"


def with_value(value: str) -> Theirs:
    made = Theirs()
    made.name = f"theirs:{value}"  # type: ignore[misc]
    return made


def broken() -> None:
    raise KeyError("weights")


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """What is installed, to be filled by the test."""
    found: list[Point] = []
    monkeypatch.setattr(package, "entry_points", lambda group: found if group else [])
    return found


def test_all_targets_exist_as_files() -> None:
    """A wrong module name in the table would show only when someone asks for it."""
    root = Path(package.__file__).parents[2]
    for target in [*ALONE.values(), *(target for _, target in WITH_VALUE.values())]:
        module, function = target.split(":")
        source = (root / (module.replace(".", "/") + ".py")).read_text()
        assert f"def {function}(" in source or f"class {function}" in source


@pytest.mark.parametrize("spec", ["", "timm:", "timm", "vlad:3", "sift", "dac:", ":x"])
def test_unknown_specs(spec: str, points: list[Point]) -> None:
    points.append(Point("theirs", "nowhere:thing"))
    with pytest.raises(ModelError, match="unknown encoder") as caught:
        make_encoder(spec)
    for known in ("timm:NAME[@FILE]", "vlad", "embedded", "theirs", "sample4geo:PATH"):
        assert known in (caught.value.hint or "")


def test_another_package(points: list[Point]) -> None:
    points.append(Point("theirs", f"{__name__}:Theirs"))
    assert isinstance(make_encoder("theirs"), Theirs)
    points[0].value = f"{__name__}:with_value"
    assert make_encoder("theirs:small").name == "theirs:small"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nowhere_at_all:thing", "No module named"),
        (f"{__name__}:broken", "KeyError"),
        (f"{__name__}:Point", "TypeError"),
        ("builtins:dict", "lacks attributes"),
        (f"{__name__}:with_value", "TypeError"),
        ("skylink.encoder:EmbeddedEncoder", "its name must be"),
    ],
)
def test_a_bad_package(points: list[Point], target: str, words: str) -> None:
    points.append(Point("theirs", target))
    with pytest.raises(ModelError, match=words):
        make_encoder("theirs")


def test_packages_do_not_replace_ours(points: list[Point]) -> None:
    points.append(Point("vlad", f"{__name__}:Theirs"))
    assert type(make_encoder("vlad")).__name__ == "VladEncoder"


@pytest.mark.parametrize(
    ("package_name", "spec"),
    [("torch", "sample4geo:x.pth"), ("timm", "timm:resnet18"), ("transformers", "hf:a/b"),
     ("torchvision", "university1652:x.pth"), ("torch", "geoembed")],
)  # fmt: skip
def test_a_missing_package_says_what_to_install(package_name: str, spec: str) -> None:
    code = (
        f"import sys; sys.modules[{package_name!r}] = None\n"
        "from skylink.encoder import load_encoder\n"
        "from skylink.errors import ModelError\n"
        f"try:\n    load_encoder({spec!r})\n"
        "except ModelError as error:\n    print(error.message, '|', error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert package_name in done.stdout
    assert "pip install '.[bases]'" in done.stdout


def test_the_table_imports_nothing_heavy() -> None:
    code = (
        "import sys, skylink.encoders\n"
        "print([m for m in ('torch', 'timm', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_load_encoder_keeps_what_it_made(points: list[Any]) -> None:
    assert load_encoder("vlad") is load_encoder("vlad")
    assert np.array_equal(
        load_encoder("vlad").encode(np.zeros((1, 256, 256, 3), np.uint8)).shape, (1, 4096)
    )
