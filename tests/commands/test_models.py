from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from skylink.cli import app
from skylink.commands import terminal
from skylink.commands.models import MODE_USES, serve_command
from skylink.lvlm.presets import PRESETS, Preset
from skylink.prompt import MODES, TEMPLATES


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["models", *words])


def test_the_list_names_all_models_modes_and_templates() -> None:
    result = run()
    assert result.exit_code == 0
    for name in (*(p.name for p in PRESETS), *MODES, *TEMPLATES):
        assert any(line.strip().startswith(name) for line in result.stdout.splitlines()), name
    assert "Next: skylink models" in result.stderr
    assert "Next" not in result.stdout


def test_the_list_for_programs() -> None:
    listed = json.loads(run("--json").stdout)
    assert set(listed) == {"models", "modes", "templates"}
    by_name = {model["name"]: model for model in listed["models"]}
    assert by_name["qwen2-vl-7b"]["checkpoint"] == "Qwen/Qwen2-VL-7B-Instruct"
    assert by_name["qwen2-vl-7b"]["weights_gb"] == 16.6
    assert len(by_name) == len(PRESETS)
    assert [mode["name"] for mode in listed["modes"]] == list(MODES) == list(MODE_USES)
    assert {t["name"]: t["mode"] for t in listed["templates"]} == {
        t.name: t.mode for t in TEMPLATES.values()
    }


@pytest.mark.parametrize("name", ["qwen3-vl-reranker-2b", "Qwen/Qwen3-VL-Reranker-2B"])
def test_one_model(name: str) -> None:
    result = run(name)
    assert result.exit_code == 0
    assert "--reranker lvlm:qwen3-vl-reranker-2b\n" in result.stdout
    assert "vllm serve Qwen/Qwen3-VL-Reranker-2B " in result.stdout
    assert "--lvlm-mode pointwise --lvlm-template qwen3-reranker-v1\n" in result.stdout
    assert "about 7 GB" in result.stdout


def test_one_model_for_programs() -> None:
    model = json.loads(run("smolvlm2-2.2b", "--json").stdout)
    assert model["family"] == "smolvlm"
    assert model["download_gb"] == 9.0
    assert set(model["commands"]) == {"local", "serve", "remote"}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.name)
def test_serve_commands_admit_what_a_prompt_needs(preset: Preset) -> None:
    words = shlex.split(serve_command(preset))
    options = dict(itertools.pairwise(words))
    candidates = {"pointwise": 1, "pairwise": 2}[preset.mode]
    pictures = json.loads(options["--limit-mm-per-prompt"])["image"]
    assert pictures == 1 + candidates
    assert pictures * preset.tokens + 512 <= int(options["--max-model-len"])
    kept_small = "--mm-processor-kwargs" in options
    assert kept_small == (preset.family in ("idefics3", "smolvlm"))
    if kept_small:
        edge = json.loads(options["--mm-processor-kwargs"])["size"]["longest_edge"]
        assert edge == preset.px


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_in_full(name: str) -> None:
    result = run(name)
    assert result.exit_code == 0
    assert result.stdout.startswith("system: ")
    assert "[photo]" in result.stdout
    assert "[candidate 1]" in result.stdout
    assert "taken from 120 m above the ground" in result.stdout
    assert ("[candidate 2]" in result.stdout) == (TEMPLATES[name].mode != "pointwise")

    told = json.loads(run(name, "--json").stdout)
    shown = result.stdout.count("[photo]") + result.stdout.count("[candidate ")
    parts = [part for turn in told["messages"] for part in turn["content"]]
    assert sum(part["type"] == "image" for part in parts) == shown
    assert result.stdout.strip().endswith("answers: " + " | ".join(told["answers"]))


def test_an_unknown_name_is_one_line_and_a_hint() -> None:
    result = run("qwn2-vl-7b")
    assert result.exit_code == terminal.FAILED
    assert result.stdout == ""
    assert result.stderr.startswith("error: no model or prompt template is called 'qwn2-vl-7b'\n")
    assert "did you mean qwen2-vl-7b" in result.stderr
    assert run("\x1b[31m").exit_code == terminal.FAILED
    assert "\x1b" not in run("\x1b[31m").stderr


def test_help_and_list_load_nothing_heavy() -> None:
    assert "Exit codes" in run("--help").stdout
    code = (
        "import sys, skylink.cli\n"
        "from typer.testing import CliRunner\n"
        "for words in (['models', '--help'], ['models'], ['models', 'qwen2-vl-7b']):\n"
        "    assert CliRunner().invoke(skylink.cli.app, words).exit_code == 0\n"
        "heavy = ['torch', 'transformers', 'numpy', 'cv2', 'rasterio', 'httpx']\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
