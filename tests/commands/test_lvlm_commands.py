"""Vision-language re-rankers through the commands, with a small random model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from skylink.cli import app

os.environ["HF_HUB_OFFLINE"] = "1"

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(once: Any) -> Path:
    """A tiny random Qwen3-VL."""
    from skylink.lvlm.random_checkpoint import write_random_checkpoint

    def fill(folder: Path) -> None:
        write_random_checkpoint(folder / "tiny-qwen3-vl", "qwen3_vl")

    return once("commands-model", fill) / "tiny-qwen3-vl"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Features go here, not into the user's own cache."""
    monkeypatch.setenv("SKYLINK_CACHE", str(tmp_path / "features"))
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path / "features"


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def photos(town_folder: Path, count: int = 2) -> list[Path]:
    return sorted((town_folder / "photos").glob("*.jpg"))[:count]


def entries(cache: Path) -> int:
    return len(list(cache.rglob("*.safetensors")))


@pytest.mark.slow
def test_build_fills_the_cache_that_locate_then_uses(
    town_folder: Path, model: Path, tmp_path: Path, cache: Path
) -> None:
    gallery, few = tmp_path / "gallery", ("--lvlm-tokens", 4)
    built = run("build", town_folder / "map.tif", "--out", gallery, "--stride-m", 120,
                "--cache-features", model, *few)  # fmt: skip
    assert built.exit_code == 0, built.output
    tiles = entries(cache)
    assert f"Computed features of {tiles} tiles, 0 were there" in built.stderr
    assert f"--reranker lvlm:{model}" in built.stderr
    again = run("build", town_folder / "map.tif", "--out", gallery, "--stride-m", 120,
                "--cache-features", model, *few)  # fmt: skip
    assert f"Computed features of 0 tiles, {tiles} were there" in again.stderr
    located = run("locate", *photos(town_folder), "--gallery", gallery, "--retriever",
                  "descriptor", "--reranker", f"lvlm:{model}", "--format", "csv",
                  "--telemetry", town_folder / "photos" / "queries.csv", *few)  # fmt: skip
    assert located.exit_code == 0, located.output
    assert f"Loading {model}" in located.stderr
    assert "pairwise" in located.stderr, "the default of an untrained model"
    assert located.stdout.count(",lvlm,1,") == 2
    assert entries(cache) == tiles, "every tile was known"


def test_a_cache_too_small_for_the_map_is_said_before_it_is_filled(
    town_folder: Path, model: Path
) -> None:
    result = run("build", town_folder / "map.tif", "--out", town_folder / "gallery",
                 "--cache-features", model, "--lvlm-cache-gb", 0.001)  # fmt: skip
    assert result.exit_code == 1
    assert "the cache is bounded to 0.001 GB" in result.stderr
    assert "--lvlm-cache-gb" in result.stderr


@pytest.mark.parametrize("mode", ["pointwise", "listwise"])
def test_modes_and_the_prompt_shown(town_folder: Path, model: Path, mode: str) -> None:
    result = run("locate", *photos(town_folder, 1), "--gallery", town_folder / "gallery",
                 "--reranker", f"lvlm:{model}", "--lvlm-mode", mode, "--show-prompt",
                 "--top-k", 3, "--lvlm-tokens", 4)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert f"{mode}-v1" in result.stderr
    assert result.stderr.count("<|image_pad|>") == {"pointwise": 2, "listwise": 4}[mode]
    assert "m wide" in result.stderr, "the facts"


def test_results_say_which_model_ran(town_folder: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    result = run("evaluate", "--gallery", town_folder / "gallery", "--limit", 2, "--top-k", 3,
                 "--queries", town_folder / "photos" / "queries.csv", "--out", out,
                 "--reranker", f"lvlm:{model}", "--lvlm-mode", "listwise", "--lvlm-no-facts",
                 "--lvlm-orders", 1, "--lvlm-tokens", 4)  # fmt: skip
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text())
    assert (results["reranker"], results["reranked_queries"]) == ("lvlm", 2)
    assert results["rerank_failed"] == 0


def test_a_listwise_prompt_has_a_longest_list(town_folder: Path, model: Path) -> None:
    options = ("--reranker", f"lvlm:{model}", "--lvlm-mode", "listwise", "--top-k", 21)
    gallery = town_folder / "gallery"
    result = run("locate", *photos(town_folder), "--gallery", gallery, *options)
    assert result.exit_code == 1
    assert "--top-k 20" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reranker", "lvlm:{tmp}"], "there is no config.json in it"),
        (["--reranker", "lvlm:nowhere/such-model"], "nowhere/such-model can't be loaded"),
        (["--reranker", "lvlm:"], "unknown re-ranker 'lvlm:'"),
        (["--reranker", "lvlm:{model}", "--lvlm-adapter", "{tmp}"], "there is no skylink.json"),
        (["--reranker", "lvlm:{model}", "--lvlm-template", "nope"], "no such prompt template"),
        (["--reranker", "lvlm:{model}", "--lvlm-device", "cuda:7"], "device 'cuda:7'"),
        (["--reranker", "lvlm:{model}", "--lvlm-orders", "0"], "orders = 0"),
    ],
)
def test_what_can_not_be_loaded_is_an_error_with_a_hint(
    town_folder: Path, model: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    filled = [word.format(tmp=tmp_path, model=model) for word in words]
    result = run("locate", *photos(town_folder), "--gallery", town_folder / "gallery", *filled)
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split())
    assert "hint:" in result.stderr
    assert "Traceback" not in result.output
