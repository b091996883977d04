"""Tests of `skylink train-retriever`: a benchmark in, a base out."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from skylink.cli import app
from skylink.training.config_file import default_text, fields, read_config, toml_text
from skylink.training.retriever.config import RetrieverConfig

pytest.importorskip("timm")

from retriever_helpers import benchmark_of, encoder_of, retriever_config


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.slow
def test_from_a_benchmark_to_a_base(once: Any, tmp_path: Path) -> None:
    root, out = benchmark_of(once), tmp_path / "out"
    config = retriever_config(encoder_of(once), root, out)
    path = tmp_path / "retriever.toml"
    path.write_text(toml_text(config))
    done = run("train-retriever", path)
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    for words in (
        "University-1652 D2S (train): 9 photos, 3 tiles, 3 photos held back; 4 steps of 4 photos",
        "no leakage",
        "Trained 4 steps",
        "Recall@1 of held-out photos",
        f"--retriever trained:{out}",
    ):
        assert words in done.stderr
    card = (out / "README.md").read_text()
    assert "| untrained |" in card
    assert read_config(out / "config.toml", RetrieverConfig) == config
    assert "Going on from step 4" in run("train-retriever", path).stderr

    base = f"trained:{out}"
    results = tmp_path / "results.json"
    judged = run(
        "evaluate", "--benchmark", "university1652", "--root", root, "--task", "D2S",
        "--retriever", base, "--out", results,
    )  # fmt: skip
    assert judged.exit_code == 0, judged.output
    assert base in json.dumps(json.loads(results.read_text()))


@pytest.mark.slow
def test_the_folder_is_an_encoder_for_galleries(
    once: Any, town_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    config = retriever_config(
        encoder_of(once), benchmark_of(once), out, optimizer={"steps": 1}, data={"held_out": 0}
    )
    path = tmp_path / "retriever.toml"
    path.write_text(toml_text(config))
    done = run("train-retriever", path)
    assert done.exit_code == 0, done.output
    assert "there is no validation" in done.stderr
    built = run(
        "build", town_folder / "map.tif", "--out", tmp_path / "gallery", "--encoder",
        f"trained:{out}",
    )  # fmt: skip
    assert built.exit_code == 0, built.output


def test_every_key_is_explained(tmp_path: Path) -> None:
    printed = run("train-retriever", "--print-config")
    assert printed.exit_code == 0
    assert printed.stdout.strip() == default_text(RetrieverConfig).strip()
    known = tomllib.loads(printed.stdout)
    assert known["data"]["mine_every"] == 4
    docs = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for key, default, meaning in fields(RetrieverConfig):
        assert meaning, key
        assert f"| `{key}` | {f'`{default}`' if default else ''} | {meaning} |" in docs
    path = tmp_path / "retriever.toml"
    path.write_text(printed.stdout.replace("[data]", '[data]\nbenchmark = "x"\nroot = "y"'))
    assert read_config(path, RetrieverConfig).data.root == tmp_path / "y"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    (tmp_path / "model").mkdir()
    path = tmp_path / "retriever.toml"
    for spec, expected in (
        ("timm:resnet18@weights.pth", f"timm:resnet18@{tmp_path / 'weights.pth'}"),
        ("sample4geo:weights.pth", f"sample4geo:{tmp_path / 'weights.pth'}"),
        ("trained:model", f"trained:{tmp_path / 'model'}"),
        ("timm:resnet18", "timm:resnet18"),
    ):
        path.write_text(f'encoder = "{spec}"\nout = "o"\n[data]\ntrain = "l/t.jsonl"\n')
        config = read_config(path, RetrieverConfig)
        assert config.encoder == expected
        assert config.out == tmp_path / "o"
        assert (config.data.train, config.data.folder) == (tmp_path / "l/t.jsonl", tmp_path / "l")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (None, "can't be read", "train-retriever --print-config"),
        ('encoder = "x"\nout = "o"', "data", "train-retriever --print-config"),
        ('encoder = "x"\nout = "o"\n[data]\nbenchmrk = "x"', "data.benchmrk", "data.benchmark"),
        ('encoder = "x"\nout = "o"\n[data]', "nothing to learn from", "university1652"),
        ('encoder = "x"\nout = "o"\n[data]\ntrain = "t"', "can't be trained", "timm:NAME"),
        ('encoder = "hf:x"\nout = "o"\n[data]\ntrain = "t"', "cannot read", ""),
        ('encoder = "hf:x"\nout = "o"\n[data]\nbenchmark = "n"\nroot = "."', "'n'", "sues200"),
        ('encoder = "x"\nout = "o"\n[loss]\nlabel_smoothing = 2', "label_smoothing = 2", ""),
    ],
)
def test_bad_input_is_a_line_and_a_hint(
    tmp_path: Path, text: str | None, message: str, hint: str
) -> None:
    path = tmp_path / "retriever.toml"
    if text is not None:
        path.write_text(text)
    done = run("train-retriever", path)
    assert done.exit_code == 1
    assert "error: " in done.stderr
    assert message in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.output


def test_no_configuration_at_all() -> None:
    done = run("train-retriever")
    assert done.exit_code == 1
    assert "--print-config" in done.stderr
