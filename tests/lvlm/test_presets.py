from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from skylink.commands.models import SPARE_GB, local_command, remote_command, serve_command
from skylink.lvlm.families import TESTED
from skylink.lvlm.presets import PRESETS, Preset, checkpoint_of, find
from skylink.prompt import TEMPLATES, Facts, Text, template_of

PAGE = Path(__file__).parents[2] / "docs" / "lvlm.md"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.name)
def test_a_preset_fits_the_rest(preset: Preset) -> None:
    assert template_of(preset.template, preset.mode).mode == preset.mode
    assert preset.name == preset.name.lower()
    assert "\n" not in preset.note
    assert find(preset.name) is preset
    assert find(preset.checkpoint) is preset
    if side := TESTED[preset.family].pixels_per_token:
        assert (preset.px // side) ** 2 == preset.tokens
        assert preset.px % side == 0


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.name)
def test_files_hold_16_or_32_bits_a_parameter(preset: Preset) -> None:
    bits = 8 * preset.download_gb / preset.parameters_b
    assert min(abs(bits - 16), abs(bits - 32)) < 0.5


def test_no_untrained_model_scores_pointwise_unless_asked() -> None:
    """arXiv 2603.27251: untrained pointwise re-rankers did harm or nothing."""
    assert {p.mode for p in PRESETS if not p.trained} == {"pairwise"}
    assert {p.mode for p in PRESETS if p.trained} == {"pointwise"}
    assert all("reranker" in p.name for p in PRESETS if p.trained)


def test_names_are_told_apart() -> None:
    names = [key for p in PRESETS for key in (p.name, p.checkpoint.lower())]
    assert len(set(names)) == len(names)
    assert not {p.name for p in PRESETS} & set(TEMPLATES)


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [
        ("Qwen2-VL-7B", "Qwen/Qwen2-VL-7B-Instruct"),
        ("qwen/qwen2-vl-7b-instruct", "Qwen/Qwen2-VL-7B-Instruct"),
        ("/models/Qwen3-VL-Reranker-2B/", "Qwen/Qwen3-VL-Reranker-2B"),
        ("somebody/SmolVLM-Instruct", "HuggingFaceTB/SmolVLM-Instruct"),
    ],
)
def test_find(name: str, checkpoint: str) -> None:
    preset = find(name)
    assert preset is not None
    assert preset.checkpoint == checkpoint


@pytest.mark.parametrize("name", ["", "/", "qwen2-vl", "qwen2-vl-7b-instruct-geo", "Qwen"])
def test_find_guesses_nothing(name: str) -> None:
    assert find(name) is None


def test_only_published_names_become_published_checkpoints() -> None:
    """Somebody's copy may hold other weights: it is never replaced by the published ones."""
    assert checkpoint_of("QWEN2-VL-7B") == "Qwen/Qwen2-VL-7B-Instruct"
    assert checkpoint_of("qwen/Qwen2-VL-7b-instruct") == "Qwen/Qwen2-VL-7B-Instruct"
    for name in ("me/Qwen2-VL-7B-Instruct", "./Qwen2-VL-7B-Instruct", "llava-hf/llava-1.5-7b-hf"):
        assert checkpoint_of(name) == name


def test_presets_import_nothing_heavy() -> None:
    code = (
        "import sys, skylink.lvlm.presets\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- docs/lvlm.md -----------------------------------------------------------------------------


def test_the_page_has_the_commands_that_the_program_prints(page: str) -> None:
    commands = re.sub(r"\s+", " ", page.replace("\\\n", " "))
    for name in ("qwen2-vl-7b", "qwen3-vl-2b", "qwen3-vl-8b", "qwen3-vl-reranker-2b"):
        preset = find(name)
        assert preset is not None
        assert local_command(preset) in commands
        assert serve_command(preset) in commands
    for name in ("qwen2-vl-7b", "qwen3-vl-reranker-2b"):
        preset = find(name)
        assert preset is not None
        assert remote_command(preset) in commands


def test_the_page_names_the_tested_families(page: str) -> None:
    assert ", ".join(f"`{name}`" for name in list(TESTED)[:-1]) in page
    assert f"and `{list(TESTED)[-1]}`" in page


def test_the_page_has_the_presets_memory(page: str) -> None:
    rows = re.findall(
        r"^\| `(\S+)`.*? \| ([\d.]+) B \| ([\d.]+) GB \| (\d+) GB \| (\w+) \|$", page, re.M
    )
    assert len(rows) == 5
    for name, parameters, weights, plan, mode in rows:
        preset = find(name)
        assert preset is not None
        assert float(parameters) == preset.parameters_b
        assert float(weights) == round(preset.weights_gb, 1)
        assert int(plan) == round(preset.weights_gb + SPARE_GB)
        assert mode == preset.mode


def test_the_page_s_score_template_asks_in_the_words_of_the_prompt(page: str) -> None:
    pytest.importorskip("jinja2")
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    found = re.search(r"```jinja\n(.*?)```", page, re.S)
    assert found
    # as transformers, and so vLLM, render chat templates
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    rendered = environment.from_string(found[1]).render(
        messages=[{"role": "query", "content": "[]"}, {"role": "document", "content": "[]"}]
    )
    prompt = TEMPLATES["qwen3-reranker-v1"].build(Facts(), [Facts()])
    user = "".join(part.text if isinstance(part, Text) else "[]" for part in prompt.user)
    turns = f"<|im_start|>system\n{prompt.system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
    assert rendered == turns + "<|im_start|>assistant\n"
