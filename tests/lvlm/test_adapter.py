"""What training wrote loads again to the very same scores, or is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save, save_file  # noqa: E402

from lvlm_helpers import FAMILIES, showing_of  # noqa: E402
from skylink.errors import ModelError, OptionError, OutputError  # noqa: E402
from skylink.lvlm import adapter as adapter_module  # noqa: E402
from skylink.lvlm.adapter import (  # noqa: E402
    CONFIG,
    HEAD,
    INFO,
    LORA,
    AdapterInfo,
    apply_lora,
    load_head,
    read_info,
    save_adapter,
)
from skylink.lvlm.backbone import Backbone  # noqa: E402
from skylink.lvlm.head import ValueHead  # noqa: E402
from skylink.lvlm.load import load_backbone, load_scorer  # noqa: E402
from skylink.lvlm.options import LvlmOptions  # noqa: E402
from skylink.lvlm.scorer import Scorer  # noqa: E402
from skylink.prompt import TEMPLATES  # noqa: E402

Checkpoint = Callable[[str], Path]
pytestmark = pytest.mark.usefixtures("own_cache")
SIZES = [(64, 64), (96, 64), (64, 160)]
HIDDEN = 128


def info_of(checkpoint: Path, family: str = "qwen2_vl", **other: Any) -> AdapterInfo:
    given = {"template": "pointwise-short-v1", "visual_tokens": 16, "hidden_size": HIDDEN}
    return AdapterInfo(checkpoint=str(checkpoint), model_type=family, **(given | other))


def random_head(seed: int = 5) -> ValueHead:
    draw = torch.Generator().manual_seed(seed)
    return ValueHead(torch.randn(HIDDEN, generator=draw) / HIDDEN**0.5, 0.25)


def lora_of(model: Any, seed: int = 3, **other: Any) -> Any:
    """A LoRA that does something: PEFT begins with zeros for B."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj"]}
    adapted = peft.get_peft_model(model, peft.LoraConfig(**(settings | other)))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.1)
    return adapted.eval()


def fresh(folder: Path) -> Backbone:
    return load_backbone(str(folder), LvlmOptions(visual_tokens=16))


def scores_of(backbone: Backbone, head: ValueHead | None) -> NDArray[np.float32]:
    return Scorer(backbone, TEMPLATES["pointwise-short-v1"], head=head).score(showing_of(SIZES))


def loaded(checkpoint: Path, adapter: Path, **options: Any) -> Scorer:
    return load_scorer(str(checkpoint), LvlmOptions(adapter=adapter, **options))


@pytest.fixture
def both(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """An adapter folder with a head and LoRA, for Qwen2-VL."""
    folder = tmp_path / "adapter"
    lora = lora_of(fresh(checkpoint("qwen2_vl")).model)
    save_adapter(folder, info_of(checkpoint("qwen2_vl")), head=random_head(), lora=lora)
    return folder


# ---- save, load, the same scores


@pytest.mark.parametrize("parts", ["head", "lora", "both"])
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_scores_are_identical(
    checkpoint: Checkpoint, tmp_path: Path, family: str, parts: str
) -> None:
    model = fresh(checkpoint(family))
    untrained = scores_of(model, None)
    head = random_head() if parts != "lora" else None
    lora = lora_of(model.model) if parts != "head" else None
    merged = model
    saved = info_of(checkpoint(family), family)
    info = save_adapter(tmp_path / "adapter", saved, head=head, lora=lora)
    assert (info.head_sha256 is None, info.lora_sha256 is None) == (head is None, lora is None)
    assert read_info(tmp_path / "adapter") == info
    if lora is not None:
        merged = Backbone(
            lora.merge_and_unload(), model.processor, model.family, "trained",
            picture_px=model.picture_px,
        )  # fmt: skip
    trained = scores_of(merged, head)
    assert np.abs(trained - untrained).max() > 1e-2

    scorer = loaded(checkpoint(family), tmp_path / "adapter")
    assert scorer.template.name == "pointwise-short-v1"
    assert scorer.trained == (head is not None)
    np.testing.assert_array_equal(scorer.score(showing_of(SIZES)), trained)


@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm"])
def test_merged_or_not_the_scores_are_the_same(
    checkpoint: Checkpoint, tmp_path: Path, family: str
) -> None:
    folder = tmp_path / "adapter"
    info = save_adapter(
        folder,
        info_of(checkpoint(family), family),
        head=random_head(),
        lora=lora_of(fresh(checkpoint(family)).model),
    )
    scores = []
    for merge in (True, False):
        base = fresh(checkpoint(family))
        model = apply_lora(base.model, folder, info, merge=merge)
        assert any("lora_" in name for name, _ in model.named_parameters()) != merge
        inner = model if merge else model.get_base_model()
        backbone = Backbone(
            inner, base.processor, base.family, "adapted", picture_px=base.picture_px
        )
        scores.append(scores_of(backbone, random_head()))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


def test_lora_on_the_tower_changes_the_key_of_cached_features(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """q_proj is in the language model only; qkv is Qwen's tower."""
    keys = {fresh(checkpoint("qwen2_vl")).features_key()}
    for name, target in (("text", "q_proj"), ("tower", "qkv")):
        lora = lora_of(fresh(checkpoint("qwen2_vl")).model, target_modules=[target])
        save_adapter(tmp_path / name, info_of(checkpoint("qwen2_vl")), head=None, lora=lora)
        backbone = loaded(checkpoint("qwen2_vl"), tmp_path / name).backbone
        keys.add(backbone.features_key())
        assert len(keys) == (1 if name == "text" else 2)


def test_a_plain_peft_folder_is_asked_yes_or_no(checkpoint: Checkpoint, both: Path) -> None:
    (both / INFO).unlink()
    (both / HEAD).unlink()
    scorer = loaded(checkpoint("qwen2_vl"), both, visual_tokens=16)
    assert (scorer.mode, scorer.template.name) == ("pointwise", "pointwise-v1")
    assert not scorer.trained
    bare = load_scorer(str(checkpoint("qwen2_vl")), LvlmOptions(mode="pointwise", visual_tokens=16))
    difference = scorer.score(showing_of(SIZES)) - bare.score(showing_of(SIZES))
    assert np.abs(difference).max() > 1e-2


def test_it_is_asked_as_it_was_trained(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    info = info_of(
        checkpoint("qwen2_vl"), visual_tokens=9, facts=False, show="as-taken", base_weight=0.3
    )
    assert save_adapter(folder, info, head=random_head()).base_weight == 0.3
    scorer = loaded(checkpoint("qwen2_vl"), folder)
    options = scorer.options
    assert (options.visual_tokens, options.facts, options.show) == (9, False, "as-taken")
    assert scorer.backbone.picture_px == 3 * 28
    chosen = loaded(checkpoint("qwen2_vl"), folder, visual_tokens=16, facts=True, show="auto")
    options = chosen.options
    assert (options.visual_tokens, options.facts, options.show) == (16, True, "auto")
    assert loaded(checkpoint("qwen2_vl"), folder, template="pointwise-short-v1").trained


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"template": "pointwise-v1"}, "with the template pointwise-short-v1, not pointwise-v1"),
        ({"mode": "pairwise"}, "with the mode pointwise, not pairwise"),
    ],
)
def test_it_is_not_asked_otherwise(
    checkpoint: Checkpoint, both: Path, chosen: dict[str, Any], says: str
) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        loaded(checkpoint("qwen2_vl"), both, **chosen)
    assert "--lvlm-" in str(caught.value.hint)


# ---- folders that are not whole


def refused(checkpoint: Path, folder: Path, says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        loaded(checkpoint, folder)
    assert caught.value.hint


@pytest.mark.parametrize("name", [HEAD, LORA])
@pytest.mark.parametrize("where", [0.2, 0.99])
def test_a_flipped_bit_is_refused(
    checkpoint: Checkpoint, both: Path, name: str, where: float
) -> None:
    data = bytearray((both / name).read_bytes())
    data[int(where * len(data))] ^= 0x10
    (both / name).write_bytes(data)
    refused(checkpoint("qwen2_vl"), both, "not (the value head that|what) was saved")


@pytest.mark.parametrize("name", [HEAD, LORA])
def test_another_trainings_file_is_refused(
    checkpoint: Checkpoint, both: Path, tmp_path: Path, name: str
) -> None:
    other = tmp_path / "other"
    lora = lora_of(fresh(checkpoint("qwen2_vl")).model, seed=8)
    save_adapter(other, info_of(checkpoint("qwen2_vl")), head=random_head(8), lora=lora)
    shutil.copy(other / name, both / name)
    refused(checkpoint("qwen2_vl"), both, "not (the value head that|what) was saved")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (HEAD, "no value head can be read"),
        (LORA, "adapter_model.safetensors: missing"),
        (CONFIG, "adapter_config.json: missing"),
        (INFO, "there is no skylink.json in it$"),  # the head would be lost without a word
    ],
)
def test_a_missing_file_is_refused(
    checkpoint: Checkpoint, both: Path, name: str, says: str
) -> None:
    (both / name).unlink()
    refused(checkpoint("qwen2_vl"), both, says)


def test_no_folder_and_an_empty_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    refused(checkpoint("qwen2_vl"), tmp_path / "nowhere", "no such adapter folder")
    refused(checkpoint("qwen2_vl"), tmp_path, "no skylink.json in it, nor adapter_config.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Invalid JSON"),
        ("[1]", "the file"),
        ("{}", "checkpoint: Field required"),
        ('{"format": 2}', "format"),
        ("\x00", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
        (" " * (2**20 + 1), "larger than 1 MB"),
    ],
)
def test_a_damaged_skylink_json_is_refused(
    checkpoint: Checkpoint, both: Path, text: str, says: str
) -> None:
    (both / INFO).write_text(text)
    refused(checkpoint("qwen2_vl"), both, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"template": "pointwise-v99"}, "does not have"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"surprise": 1}, "surprise"),
        ({"head_sha256": None}, None),
    ],
)
def test_a_changed_skylink_json(
    checkpoint: Checkpoint, both: Path, change: dict[str, Any], says: str | None
) -> None:
    (both / INFO).write_text(json.dumps(json.loads((both / INFO).read_text()) | change))
    if says is None:  # whoever edits it that far means it
        assert not loaded(checkpoint("qwen2_vl"), both).trained
    else:
        refused(checkpoint("qwen2_vl"), both, says)


def test_another_familys_adapter_is_refused_before_weights_are_read(
    checkpoint: Checkpoint, both: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "config-only"
    bare.mkdir()
    shutil.copy(checkpoint("qwen3_vl") / "config.json", bare)
    refused(bare, both, r"was trained on .*qwen2_vl.* not on config-only \(qwen3_vl, 128\)")


def test_another_widths_adapter_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    info = info_of(checkpoint("qwen2_vl"), hidden_size=256)
    save_adapter(tmp_path, info, head=random_head())
    refused(checkpoint("qwen2_vl"), tmp_path, "256 hidden units")


def test_a_head_of_another_width_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_adapter(tmp_path, info_of(checkpoint("qwen2_vl")), head=ValueHead(torch.ones(64)))
    refused(checkpoint("qwen2_vl"), tmp_path, r"a value head of \(64,\)")


@pytest.mark.parametrize(
    "head",
    [
        ValueHead(torch.zeros(HIDDEN)),
        ValueHead(torch.full((HIDDEN,), float("nan"))),
        ValueHead(torch.ones(HIDDEN), float("inf")),
    ],
    ids=["zero", "nan", "infinite bias"],
)
def test_a_head_that_was_not_trained_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, head: ValueHead
) -> None:
    save_adapter(tmp_path, info_of(checkpoint("qwen2_vl")), head=head)
    refused(checkpoint("qwen2_vl"), tmp_path, "zero or not finite")


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"weight": torch.ones(HIDDEN)}, "no value head can be read"),
        ({"bias": torch.ones(())}, "no value head can be read"),
        ({"weight": torch.ones(1, HIDDEN), "bias": torch.ones(())}, "a value head of"),
        ({"weight": torch.ones(HIDDEN), "bias": torch.ones(2)}, "a value head of"),
    ],
)
def test_a_head_of_other_tensors_is_refused(
    tmp_path: Path, tensors: dict[str, Any], says: str
) -> None:
    data = save(tensors)
    (tmp_path / HEAD).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    with pytest.raises(ModelError, match=says) as caught:
        ValueHead.load(tmp_path / HEAD, sha256=digest, hidden_size=HIDDEN)
    assert caught.value.hint


# ---- LoRA that doesn't fit


def edit(path: Path, **change: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize("with_info", [True, False])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modules_to_save": ["score"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "only LoRA"),
        ({"peft_type": None}, "only LoRA"),
        ({"r": 8}, "doesn't fit"),
        ({"r": "many"}, "doesn't fit"),
        ({"target_modules": ["nothing_of_that_name"]}, "doesn't fit"),
        ({"target_modules": ["q_proj"]}, "not in the model as they were saved"),
        ({"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}, "not in the model"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    checkpoint: Checkpoint, both: Path, change: dict[str, Any], says: str, with_info: bool
) -> None:
    edit(both / CONFIG, **change)
    if not with_info:
        (both / INFO).unlink()
        (both / HEAD).unlink()
    refused(checkpoint("qwen2_vl"), both, f"{says}|not what was saved" if with_info else says)


def test_another_scale_of_the_same_weights_is_refused(checkpoint: Checkpoint, both: Path) -> None:
    """lora_alpha is in the configuration alone."""
    edit(both / CONFIG, lora_alpha=80)
    refused(checkpoint("qwen2_vl"), both, "not what was saved")


@pytest.mark.parametrize("text", ["", "{", "[]", '"LORA"', "{}", "[" * 100_000, " " * 2**21])
def test_a_damaged_configuration_is_refused(checkpoint: Checkpoint, both: Path, text: str) -> None:
    (both / CONFIG).write_text(text)
    refused(checkpoint("qwen2_vl"), both, "adapter_config.json")


def test_a_strangers_damaged_weights_are_refused(checkpoint: Checkpoint, both: Path) -> None:
    """Without skylink.json there is no hash to hold them to."""
    (both / INFO).unlink()
    (both / HEAD).unlink()
    whole = (both / LORA).read_bytes()
    for data in (b"", whole[:-8], whole[:40], b"\xff" * 100):
        (both / LORA).write_bytes(data)
        refused(checkpoint("qwen2_vl"), both, "doesn't fit this model")


def test_tensors_of_other_names_are_refused(checkpoint: Checkpoint, both: Path) -> None:
    """PEFT leaves what it can't place, and its own random A stays in its stead."""
    (both / INFO).unlink()
    (both / HEAD).unlink()
    tensors = load_file(both / LORA)
    name = next(iter(tensors))
    tensors[name.replace("language_model", "another_model")] = tensors.pop(name)
    save_file(tensors, both / LORA)
    refused(checkpoint("qwen2_vl"), both, "2 of its tensors are not in the model")


def test_pickled_weights_are_never_read(checkpoint: Checkpoint, both: Path) -> None:
    for name in (INFO, HEAD, LORA):
        (both / name).unlink()
    (both / "adapter_model.bin").write_bytes(b"never read")
    refused(checkpoint("qwen2_vl"), both, "adapter_model.safetensors: missing")


def test_loras_of_a_frozen_models_folder_are_refused(checkpoint: Checkpoint, both: Path) -> None:
    """Someone put LoRA files beside a head that was trained without them."""
    edit(both / INFO, lora_sha256=None)
    refused(checkpoint("qwen2_vl"), both, "not what was saved")


def test_the_hub_is_never_asked(
    checkpoint: Checkpoint, both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT would look up the base model that a folder names, and keep quiet where it can't."""
    (both / INFO).unlink()
    (both / HEAD).unlink()
    edit(both / CONFIG, base_model_name_or_path="someone/elses-model", revision="main")
    asked: list[Any] = []

    def note(*what: Any, **_: Any) -> Any:
        asked.append(what)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", note)
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", note)
    assert loaded(checkpoint("qwen2_vl"), both).mode == "pointwise"
    assert asked == []


# ---- saving


def test_who_may_read_it_follows_the_umask(checkpoint: Checkpoint, tmp_path: Path) -> None:
    lora = lora_of(fresh(checkpoint("qwen2_vl")).model)
    before = os.umask(0o027)
    try:
        save_adapter(
            tmp_path / "shared", info_of(checkpoint("qwen2_vl")), head=random_head(), lora=lora
        )
    finally:
        os.umask(before)
    for name in (INFO, HEAD, CONFIG, LORA):
        assert (tmp_path / "shared" / name).stat().st_mode & 0o777 == 0o640, name


def test_saving_again_leaves_nothing_of_the_last_time(checkpoint: Checkpoint, both: Path) -> None:
    save_adapter(both, info_of(checkpoint("qwen2_vl")), head=random_head(9))
    assert not (both / LORA).exists()
    scorer = loaded(checkpoint("qwen2_vl"), both)
    np.testing.assert_array_equal(
        scorer.score(showing_of(SIZES)),
        scores_of(fresh(checkpoint("qwen2_vl")), random_head(9)),
    )


@pytest.mark.parametrize("again", [False, True])
def test_what_a_kill_leaves_is_refused(
    checkpoint: Checkpoint, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    again: bool,
) -> None:  # fmt: skip
    folder = both if again else tmp_path / "new"
    lora = lora_of(fresh(checkpoint("qwen2_vl")).model, seed=9)

    def killed(_: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(adapter_module, "_lora_sha256", killed)
    with pytest.raises(KeyboardInterrupt):
        save_adapter(folder, info_of(checkpoint("qwen2_vl")), head=random_head(), lora=lora)
    monkeypatch.undo()
    assert (folder / LORA).exists()
    refused(checkpoint("qwen2_vl"), folder, "not finished")


def test_a_folder_that_cannot_be_written_to(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError) as caught:
        save_adapter(tmp_path / "file", info_of(checkpoint("qwen2_vl")), head=random_head())
    assert caught.value.hint


def test_a_head_knows_its_hash(tmp_path: Path) -> None:
    head = random_head()
    digest = head.save(tmp_path / HEAD)
    again = ValueHead.load(tmp_path / HEAD, sha256=digest, hidden_size=HIDDEN)
    states = torch.randn(3, HIDDEN)
    assert torch.equal(again(states), head(states))
    assert again(states).shape == (3,)
    with pytest.raises(ModelError, match="not the value head"):
        ValueHead.load(tmp_path / HEAD, sha256="0" * 64, hidden_size=HIDDEN)


def test_an_untrained_head_is_the_log_odds_of_yes(
    backbone: Callable[[str], Backbone],
) -> None:
    model = backbone("llava")
    prompt = TEMPLATES["pointwise-v1"].build(
        showing_of(SIZES).photo_facts, showing_of(SIZES).candidate_facts[:1]
    )
    states = torch.randn(2, HIDDEN)
    with torch.inference_mode():
        logits = model.model.get_output_embeddings()(states)
        odds = ValueHead.yes_minus_no(model, prompt)(states)
    yes, no = model.answer_ids(prompt)
    tokenizer = model.processor.tokenizer
    assert [tokenizer.decode([token]).strip() for token in (yes, no)] == ["Yes", "No"]
    torch.testing.assert_close(odds, logits[:, yes] - logits[:, no], atol=1e-5, rtol=1e-5)


def test_load_head_is_none_where_none_was_trained(
    checkpoint: Checkpoint, backbone: Callable[[str], Backbone], tmp_path: Path
) -> None:
    info = info_of(checkpoint("qwen2_vl"))
    assert load_head(tmp_path, info, backbone("qwen2_vl")) is None
