"""Tests of `skylink.training.config` and `config_file`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from skylink.errors import OptionError
from skylink.training.config import TrainConfig
from skylink.training.config_file import default_text, fields, read_config, toml_text

LEAST = 'checkpoint = "a/b"\nout = "out"\n[data]\ntrain = "lists.jsonl"\n'


def written(folder: Path, text: str, name: str = "train.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_default_file_reads_as_the_defaults(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, default_text(TrainConfig)), TrainConfig)
    least = read_config(
        written(tmp_path, LEAST.replace("a/b", "qwen2-vl-7b"), "least.toml"), TrainConfig
    )
    assert config.model_dump(exclude={"out", "data"}) == least.model_dump(exclude={"out", "data"})


def test_every_key_is_explained_in_the_default_file_and_in_the_docs() -> None:
    text = default_text(TrainConfig)
    docs = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for key, default, meaning in fields(TrainConfig):
        assert meaning, key
        assert meaning in text
        assert f"| `{key}` | {f'`{default}`' if default else ''} | {meaning} |" in docs


def test_a_configuration_survives_a_file(tmp_path: Path) -> None:
    text = LEAST + (
        'validation = ["a.jsonl", "b \\"c\\".jsonl"]\n[tune]\nhow = "head"\n'
        "[loss]\nname = 'hard'\nparams = {temperature = 0.5}\n[optimizer]\nsteps = 3\n"
    )
    config = read_config(written(tmp_path, text), TrainConfig)
    assert config.data.validation == (tmp_path / "a.jsonl", tmp_path / 'b "c".jsonl')
    again = read_config(written(tmp_path, toml_text(config), "again.toml"), TrainConfig)
    assert again == config


def test_yaml_says_the_same(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    yaml = "checkpoint: a/b\nout: out\ndata: {train: lists.jsonl}\n"
    assert read_config(written(tmp_path, yaml, "t.yaml"), TrainConfig) == read_config(
        written(tmp_path, LEAST), TrainConfig
    )


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    config = read_config(written(tmp_path, LEAST.replace("a/b", "model")), TrainConfig)
    assert config.out == tmp_path / "out"
    assert config.data.train == tmp_path / "lists.jsonl"
    assert config.data.folder == tmp_path
    assert config.checkpoint == str(tmp_path / "model")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[optimizer]\nlr_lorra = 1", "optimizer.lr_lorra", "optimizer.lr_lora"),
        ("[optimiser]\nepochs = 1", "no key optimiser", "'optimizer'"),
        ("[data2]\nx = 1", "no key data2", "'data'"),
        ("[tune]\nhow = 'full'", "tune.how = 'full'", ""),
        ("[optimizer]\nlr_head = nan", "optimizer.lr_head", ""),
        ("[optimizer]\nlists_per_step = 0", "lists_per_step = 0", ""),
        ("[asking]\ntemplate = 'listwise-v1'", "listwise", "pointwise-v1"),
        ("[asking]\ntemplate = 'pointwise-v9'", "no such prompt template", "pointwise-v1"),
        ("[tune]\ntargets = []", "tune.targets", ""),
        ("[tune", "not TOML", ""),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        read_config(written(tmp_path, LEAST + text), TrainConfig)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("missing.toml", None),
        ("binary.toml", b"\xff\xfe\x00"),
        ("empty.toml", b""),
        ("list.yaml", b"- 1\n- 2\n"),
        ("broken.yaml", b"a: [1"),
        ("object.yaml", b"a: !!python/object/apply:os.getcwd []"),
        ("long.toml", b"#" * (2**20 + 1)),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(OptionError, match=name):
        read_config(tmp_path / name, TrainConfig)


def test_what_may_differ_when_a_run_goes_on() -> None:
    base = {"checkpoint": "a/b", "out": "x", "data": {"train": "t"}}
    config = TrainConfig.model_validate(base)
    moved = base | {"out": "y", "checkpoints": {"every": 7}, "compute": {"cache_gb": 1}}
    assert TrainConfig.model_validate(moved).differences(config.json_dict()) == []
    other = base | {"seed": 1, "optimizer": {"lr_lora": 1.0}}
    found = TrainConfig.model_validate(other).differences(config.json_dict())
    assert found == ["optimizer.lr_lora", "seed"]


def test_reading_a_configuration_imports_no_torch() -> None:
    code = "import skylink.training.config_file, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
