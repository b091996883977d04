"""Checkpoints load whole and unexecuted, or are refused with what to do about it."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from lvlm_helpers import showing_of  # noqa: E402
from skylink.errors import ModelError, OptionError, RerankError  # noqa: E402
from skylink.lvlm import families, load, random_language  # noqa: E402
from skylink.lvlm.backbone import Backbone  # noqa: E402
from skylink.lvlm.load import agrees_with_plain, load_backbone, load_scorer  # noqa: E402
from skylink.lvlm.options import LvlmOptions  # noqa: E402
from skylink.lvlm.random_checkpoint import write_random_checkpoint  # noqa: E402
from skylink.prompt import TEMPLATES, Mode  # noqa: E402

Checkpoint = Callable[[str], Path]
pytestmark = pytest.mark.usefixtures("own_cache")
SMALL = LvlmOptions(mode="pointwise", visual_tokens=16)
SIZES = [(64, 64), (96, 64), (64, 160)]


@pytest.fixture
def copy_of(checkpoint: Checkpoint, tmp_path: Path) -> Callable[[str], Path]:
    """A checkpoint to damage."""

    def copy(family: str) -> Path:
        return Path(shutil.copytree(checkpoint(family), tmp_path / "damaged"))

    return copy


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def refused(folder: Path | str, says: str, options: LvlmOptions = SMALL) -> ModelError:
    with pytest.raises(ModelError, match=says) as caught:
        load_scorer(str(folder), options)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def edit(path: Path, **change: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


# ---- found


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    refused(tmp_path, "no config.json in it")


def test_a_file_is_not_a_checkpoint(checkpoint: Checkpoint) -> None:
    refused(checkpoint("llava") / "model.safetensors", "no config.json in it")


@pytest.mark.parametrize(
    "name",
    ["nonsense", "a/b/c", "./relative/folder", "../Qwen/x", "./x", "../x", "~nobody-here/x",
     "a b/c", "x" * 5000, "nul\0/x", "/nowhere/at/all"],
)  # fmt: skip
def test_neither_a_folder_nor_a_hub_name(name: str) -> None:
    refused(name, "no such folder, and not a name on the hub")


@pytest.mark.parametrize("revision", [None, "main"])
def test_an_unknown_hub_name_offline(revision: str | None) -> None:
    error = refused(
        "nobody/has-this-model", "nobody/has-this-model.* can't be loaded",
        replace(SMALL, revision=revision),
    )  # fmt: skip
    assert "network" in str(error.hint)


class Asked(Exception):
    """What would have been loaded."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []

    class Config:
        @staticmethod
        def from_pretrained(where: str, **options: Any) -> Any:
            seen.append((where, options))
            raise OSError("not here")

    monkeypatch.setattr(load, "AutoConfig", Config)
    return seen


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("qwen2-vl-7b", "Qwen/Qwen2-VL-7B-Instruct"),
        ("Qwen/Qwen2-VL-7B-Instruct", "Qwen/Qwen2-VL-7B-Instruct"),
        ("me/Qwen2-VL-7B-Instruct", "me/Qwen2-VL-7B-Instruct"),
        ("smolvlm-256m", "HuggingFaceTB/SmolVLM-256M-Instruct"),
    ],
)
def test_presets_are_loaded_from_where_they_are_published(
    asked: list[Any], name: str, where: str
) -> None:
    with pytest.raises(ModelError):
        load_scorer(name, replace(SMALL, revision="abc"))
    assert asked == [(where, {"revision": "abc", "trust_remote_code": False})]


def test_a_folder_called_like_a_preset_is_that_folder(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("qwen2-vl-7b", "Qwen/Qwen2-VL-7B-Instruct"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for name in ("qwen2-vl-7b", "Qwen/Qwen2-VL-7B-Instruct", str(tmp_path / "qwen2-vl-7b")):
        with pytest.raises(ModelError):
            load_scorer(name, SMALL)
    assert [where for where, _ in asked] == [
        "qwen2-vl-7b", "Qwen/Qwen2-VL-7B-Instruct", str(tmp_path / "qwen2-vl-7b")
    ]  # fmt: skip


# ---- whole


def test_truncated_weights(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("qwen2_vl")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for size in (len(whole) - 100, 1000, 4, 0):
        weights.write_bytes(whole[:size])
        error = refused(folder, "can't be loaded")
        assert "cut short" in str(error.hint)


@pytest.mark.parametrize("family", ["qwen2_vl", "smolvlm", "llava"])
@pytest.mark.parametrize("part", ["first", "tower", "norm"])
def test_a_missing_tensor_is_never_random(
    copy_of: Callable[[str], Path], family: str, part: str
) -> None:
    folder = copy_of(family)
    tensors = load_file(folder / "model.safetensors")
    tower = ("visual", "vision")
    fits: dict[str, Callable[[str], bool]] = {
        "first": lambda name: "layers.0.mlp.up_proj" in name and not any(t in name for t in tower),
        "tower": lambda name: any(t in name for t in tower),
        "norm": lambda name: name.endswith("norm.weight"),
    }
    gone = next(name for name in tensors if fits[part](name))
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    error = refused(folder, "1 of its tensors are missing or of another size, the first is")
    assert gone.split(".")[-2] in error.message


def test_a_tensor_of_another_size(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("qwen2_vl")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("norm.weight"))
    tensors[name] = torch.ones(7)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "damaged")


def test_a_tensor_too_many_is_only_a_warning(
    copy_of: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy_of("qwen2_vl")
    tensors = load_file(folder / "model.safetensors")
    tensors["left.over"] = torch.ones(7)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING, "skylink"):
        load_backbone(str(folder), SMALL)
    assert "1 tensors of no use here, such as left.over" in caplog.text


def test_pickled_weights_are_never_read(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder, trap = copy_of("qwen2_vl"), tmp_path / "executed"
    (folder / "model.safetensors").unlink()

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (trap,)

    torch.save(Trap(), folder / "pytorch_model.bin")
    error = refused(folder, "can't be loaded")
    assert "safetensors" in str(error.hint)
    assert not trap.exists()


def test_an_adapter_inside_a_checkpoint_is_refused(copy_of: Callable[[str], Path]) -> None:
    """The library would load it on its own, or the base model that it names instead."""
    folder = copy_of("qwen2_vl")
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "someone/else", "r": 4})
    )
    error = refused(folder, "adapter_config.json")
    assert "--lvlm-adapter" in str(error.hint)


# ---- the checkpoint's own code


@pytest.fixture
def remote_code(copy_of: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint of an unknown type, whose Python code leaves a trace when it runs."""
    folder = copy_of("qwen2_vl")
    code = f"""
        from pathlib import Path
        from transformers import PretrainedConfig
        Path({str(tmp_path / "executed")!r}).touch()
        class Strange(PretrainedConfig):
            model_type = "strange"
    """
    (folder / "configuration_strange.py").write_text(textwrap.dedent(code))
    auto_map = {"AutoConfig": "configuration_strange.Strange"}
    edit(folder / "config.json", model_type="strange", auto_map=auto_map)
    return folder


def test_code_of_a_checkpoint_is_refused(
    remote_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refused(remote_code, "Python code of its own")
    assert "--trust-remote-code" in str(error.hint)
    assert not (tmp_path / "executed").exists()


def test_code_of_a_checkpoint_runs_if_asked_for(
    remote_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    monkeypatch.syspath_prepend(str(tmp_path / "m"))
    refused(remote_code, "can't be loaded", replace(SMALL, trust_remote_code=True))
    assert (tmp_path / "executed").exists()


def test_code_of_a_known_family_is_not_run(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of("qwen2_vl")
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    edit(folder / "config.json", auto_map={"AutoConfig": "mine.C", "AutoModel": "mine.M"})
    load_backbone(str(folder), SMALL)
    assert not (tmp_path / "executed").exists()


# ---- other models


@pytest.mark.parametrize("family", sorted(families.REFUSED))
def test_families_are_refused_by_name(tmp_path: Path, family: str) -> None:
    config = {"model_type": family}
    if family == "vision-encoder-decoder":
        config |= {"encoder": {"model_type": "vit"}, "decoder": {"model_type": "gpt2"}}  # type: ignore[dict-item]
    (tmp_path / "config.json").write_text(json.dumps(config))
    error = refused(tmp_path, f"of the family {family}: ")
    assert "skylink models" in str(error.hint)


def test_a_text_model_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for file in checkpoint("qwen2_vl").glob("*tok*"):
        shutil.copy(file, tmp_path)
    config = transformers.Qwen2Config(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, vocab_size=700,
    )  # fmt: skip
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    refused(tmp_path, "can't be loaded")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"model_type": 5}', "\x00\xff"])
def test_a_damaged_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    refused(tmp_path, "can't be loaded")


@pytest.mark.parametrize("mode", ["pointwise", "listwise", "pairwise"])
def test_a_missing_chat_template(copy_of: Callable[[str], Path], mode: Mode) -> None:
    folder = copy_of("smolvlm")
    (folder / "chat_template.jinja").unlink()
    error = refused(folder, "chat template can't render", LvlmOptions(mode=mode, visual_tokens=16))
    assert "instruct" in str(error.hint)


@pytest.mark.parametrize("mode", ["pointwise", "listwise", "pairwise"])
@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ messages[0].nothing.at_all }}", "can't render"),
        ("{% for", "can't render"),
        ("Hello", "shows 0 of"),
        ("{{ raise_exception('no system turn') }}", "no system turn"),
        ("<image><image>", "no words after the last picture|shows 2 of 3|shows 2 of 8"),
    ],
)
def test_chat_templates_that_do_not_serve(
    copy_of: Callable[[str], Path], template: str, says: str, mode: Mode
) -> None:
    folder = copy_of("smolvlm")
    (folder / "chat_template.jinja").write_text(template)
    options = LvlmOptions(mode=mode, visual_tokens=16)
    with pytest.raises(ModelError, match=f"{says}|shows 2 of 21") as caught:
        load_scorer(str(folder), options)
    assert caught.value.hint


def test_answers_that_are_not_single_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer that never saw them spells them; letters are always its own."""
    monkeypatch.setattr(random_language, "ANSWERS", ("No",))
    monkeypatch.setattr(random_language, "CORPUS", "nothing to be seen here\n" * 9)
    folder = write_random_checkpoint(tmp_path / "wordless", "smolvlm")
    error = refused(folder, "the answers Yes, No are not single tokens after its prompt")
    assert "template" in str(error.hint)
    assert load_scorer(str(folder), LvlmOptions(mode="listwise")).mode == "listwise"


def test_a_processor_without_pictures(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("qwen2_vl")
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    refused(folder, "can't be loaded|no processor for pictures")


# ---- this machine


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(checkpoint: Checkpoint) -> None:
    with pytest.raises(OptionError, match="device 'cuda' can't be used here") as caught:
        load_scorer(str(checkpoint("llava")), replace(SMALL, device="cuda"))
    assert "auto" in str(caught.value.hint)


@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "cpu:x", "meta", "xla", "mps"])
def test_devices_that_can_not_be_used(checkpoint: Checkpoint, device: str) -> None:
    with pytest.raises(OptionError, match="can't be used here"):
        load_scorer(str(checkpoint("llava")), replace(SMALL, device=device))


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision(checkpoint: Checkpoint, name: Any) -> None:
    folder = str(checkpoint("qwen3_vl"))
    exact, half = load_scorer(folder, SMALL), load_scorer(folder, replace(SMALL, dtype=name))
    assert half.backbone.dtype == getattr(torch, name)
    assert exact.backbone.dtype == torch.float32
    showing = showing_of(SIZES)
    difference = np.abs(half.score(showing) - exact.score(showing)).max()
    assert 0 < difference < 0.15


MISSING = """
    import sys
    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == {module!r}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    sys.meta_path.insert(0, Blocked())
    from skylink.errors import OptionError
    try:
        import skylink.lvlm.load
    except OptionError as error:
        print(error.message, "|", error.hint)
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["torch", "transformers", "psutil"])
def test_the_missing_extra_is_said(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MISSING.format(module=module))],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert module in done.stdout
    assert "pip install '.[lvlm]'" in done.stdout


# ---- what is chosen


def test_what_is_used_unless_chosen(checkpoint: Checkpoint) -> None:
    scorer = load_scorer(str(checkpoint("qwen2_vl")))
    assert (scorer.mode, scorer.template.name) == ("pairwise", "pairwise-v1")
    assert scorer.options.visual_tokens == 256
    assert scorer.backbone.picture_px == 448
    assert not scorer.options.plain
    assert scorer.cache is not None


def test_a_template_brings_its_mode(checkpoint: Checkpoint) -> None:
    for name, template in TEMPLATES.items():
        options = LvlmOptions(template=name, visual_tokens=16)
        scorer = load_scorer(str(checkpoint("qwen2_vl")), options)
        assert (scorer.template, scorer.mode) == (template, template.mode)


@pytest.mark.parametrize("mode", ["pointwise", "listwise"])
def test_templates_of_other_modes_are_refused(mode: Mode) -> None:
    with pytest.raises(OptionError, match="is for pairwise scoring") as caught:
        LvlmOptions(mode=mode, template="pairwise-v1")
    assert f"{mode}-v1" in str(caught.value.hint)


def test_an_unknown_template(checkpoint: Checkpoint) -> None:
    with pytest.raises(OptionError, match="no such prompt template"):
        load_scorer(str(checkpoint("qwen2_vl")), LvlmOptions(template="nonsense"))


@pytest.mark.parametrize(
    "chosen",
    [
        {"mode": "wordwise"}, {"show": "sideways"}, {"dtype": "int8"}, {"visual_tokens": 3},
        {"visual_tokens": 10**6}, {"orders": 0}, {"orders": 101}, {"max_comparisons": 0},
        {"cache_gb": -1}, {"cache_gb": float("nan")}, {"memory_gb": 0}, {"memory_gb": -2.0},
        {"memory_gb": float("nan")}, {"memory_gb": float("inf")},
    ],
)  # fmt: skip
def test_options_out_of_range(chosen: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(chosen))):
        LvlmOptions(**chosen)


def test_a_presets_way_to_ask_is_used(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("qwen3_vl"), tmp_path / "Qwen3-VL-Reranker-2B")
    scorer = load_scorer(str(folder))
    assert (scorer.mode, scorer.template.name) == ("pointwise", "qwen3-reranker-v1")
    other = load_scorer(str(folder), LvlmOptions(mode="listwise"))
    assert other.template.name == "listwise-v1"
    named = load_scorer(str(folder), LvlmOptions(template="pointwise-short-v1"))
    assert named.template.name == "pointwise-short-v1"


def test_the_cache_is_kept_where_it_is_asked_for(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder, showing = str(checkpoint("idefics3")), showing_of(SIZES)
    options = replace(SMALL, cache=tmp_path / "here")
    scores = load_scorer(folder, options).score(showing)
    again = load_scorer(folder, options)
    np.testing.assert_allclose(again.score(showing), scores, atol=1e-6)
    assert again.backbone.tower_passes == 1
    for none in (replace(SMALL, cache_gb=0), replace(SMALL, plain=True)):
        assert load_scorer(folder, none).cache is None


# ---- families that nobody tested


@pytest.fixture
def untested(monkeypatch: pytest.MonkeyPatch) -> str:
    """A family that takes the generic path."""
    # not delitem: what it puts back stands last, and others read the table in its order
    rest = {name: family for name, family in families.TESTED.items() if name != "idefics3"}
    monkeypatch.setattr(families, "TESTED", rest)
    return "idefics3"


def test_an_untested_family_that_agrees_is_scored_fast(
    checkpoint: Checkpoint, untested: str
) -> None:
    scorer = load_scorer(str(checkpoint(untested)), SMALL)
    assert not scorer.backbone.family.tested
    assert not scorer.options.plain
    plain = load_scorer(str(checkpoint(untested)), replace(SMALL, plain=True))
    showing = showing_of(SIZES)
    np.testing.assert_allclose(scorer.score(showing), plain.score(showing), atol=1e-5)
    assert scorer.engine.chunks == [3]
    assert plain.engine.chunks == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_untested_family_agrees_in_half_precision(
    checkpoint: Checkpoint, untested: str, dtype: Any
) -> None:
    assert agrees_with_plain(load_backbone(str(checkpoint(untested)), replace(SMALL, dtype=dtype)))


def wrong_positions(backbone: Backbone) -> None:
    right = backbone.positions
    backbone.positions = lambda encoded: right(encoded) // 2  # type: ignore[method-assign]


def blind(backbone: Backbone) -> None:
    right = backbone.visual

    def zeros(images: Any) -> Any:
        out = right(images)
        out.pooler_output = [torch.zeros_like(x) for x in out.pooler_output]
        return out

    backbone.visual = zeros  # type: ignore[method-assign]


def broken(backbone: Backbone) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise TypeError("unexpected keyword argument 'mm_encoder_outputs'")

    backbone.forward = fail  # type: ignore[method-assign]


@pytest.mark.parametrize("sabotage", [wrong_positions, blind, broken])
def test_an_untested_family_that_differs_is_scored_in_the_plain_way(
    checkpoint: Checkpoint, untested: str, sabotage: Callable[[Backbone], None],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder, showing = str(checkpoint(untested)), showing_of(SIZES)
    plain = load_scorer(folder, replace(SMALL, plain=True)).score(showing)

    def sabotaged(*args: Any) -> Backbone:
        backbone = load_backbone(*args)
        sabotage(backbone)
        return backbone

    monkeypatch.setattr(load, "load_backbone", sabotaged)
    with caplog.at_level(logging.WARNING, "skylink"):
        scorer = load_scorer(folder, SMALL)
    assert "the plain one is used" in caplog.text
    assert scorer.options.plain
    np.testing.assert_array_equal(scorer.score(showing), plain)


def test_an_untested_family_that_fails_in_the_plain_way_is_refused(
    checkpoint: Checkpoint, untested: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(str(checkpoint(untested)), SMALL)

    def fail(*_: Any, **__: Any) -> Any:
        raise KeyError("pixel_values")

    monkeypatch.setattr(backbone.inner, "forward", fail)
    with pytest.raises(ModelError, match="of the family idefics3 can't be scored: KeyError"):
        agrees_with_plain(backbone)


def test_an_untested_family_that_gives_nan_is_refused(
    checkpoint: Checkpoint, untested: str
) -> None:
    backbone = load_backbone(str(checkpoint(untested)), SMALL)
    with torch.no_grad():
        backbone.inner.text_model.norm.weight[0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        agrees_with_plain(backbone)


def test_an_untested_family_of_other_parts_is_refused(
    checkpoint: Checkpoint, untested: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = transformers.Idefics3Model
    monkeypatch.delattr(kind, "get_image_features")
    refused(checkpoint(untested), "family idefics3")


def test_an_output_head_with_a_bias_is_refused(checkpoint: Checkpoint) -> None:
    backbone = load_backbone(str(checkpoint("llava")), SMALL)
    head = backbone.model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(len(head.weight)))
    with pytest.raises(ModelError, match="bias"):
        backbone.head_rows((1, 2))


@pytest.mark.parametrize("tokens", [4, 9, 16, 80])
@pytest.mark.parametrize("family", sorted(families.TESTED))
def test_pictures_fit_the_budget_of_tokens(
    checkpoint: Checkpoint, family: str, tokens: int
) -> None:
    """Families of a fixed size have a least, which is spent whatever the budget."""
    backbone = load_backbone(str(checkpoint(family)), LvlmOptions(visual_tokens=tokens))
    least = 16 if family in ("smolvlm", "idefics3", "llava") else 4
    side = backbone.picture_px
    for height, width in ((side, side), (side, side // 2), (side // 3, side), (900, 700)):
        rgb = np.zeros((height, width, 3), np.uint8)
        assert len(backbone.look(rgb).tokens) <= max(tokens, least)
    square = len(backbone.look(np.zeros((side, side, 3), np.uint8)).tokens)
    assert square >= tokens // 2 or family in ("smolvlm", "idefics3", "llava")


def test_a_wrong_picture_is_this_querys_error(checkpoint: Checkpoint) -> None:
    backbone = load_backbone(str(checkpoint("qwen2_vl")), SMALL)
    with pytest.raises(RerankError, match=r"damaged|can't take|takes pictures"):
        backbone.look(np.zeros((2, 900, 3), np.uint8))
