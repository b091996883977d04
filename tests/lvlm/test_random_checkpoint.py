"""Checkpoints with random weights: they load like published ones, and the images matter."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skylink.errors import ModelError, OptionError, OutputError
from skylink.lvlm.random_checkpoint import SHAPES, write_random_checkpoint
from skylink.lvlm.random_language import ANSWERS, FAMILIES, QWEN

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TURNS = [
    {"role": "system", "content": "You compare images."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Photo:"},
            {"type": "image"},
            {"type": "text", "text": "Tile:"},
            {"type": "image"},
            {"type": "text", "text": "Same place? Yes or No"},
        ],
    },
]


@dataclass
class Loaded:
    family: str
    folder: Path
    model: Any
    processor: Any
    info: dict[str, Any]

    def prompt(self, turns: list[dict[str, Any]] = TURNS) -> str:
        text = self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        assert isinstance(text, str)
        return text

    def inputs(self, *images: Image.Image) -> Any:
        return self.processor(text=[self.prompt()], images=[list(images)], return_tensors="pt")

    def last(self, *images: Image.Image) -> tuple[Any, Any]:
        """(hidden state, logits) of the last token, before and after the head."""
        with torch.inference_mode():
            out = self.model(**self.inputs(*images), output_hidden_states=True)
        return out.hidden_states[-1][0, -1], out.logits[0, -1]


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    family = request.param
    folder = write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / family, family)
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, output_loading_info=True, local_files_only=True
    )
    processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
    return Loaded(family, folder, model.eval(), processor, info)


def scene(seed: int, width: int, height: int) -> Image.Image:
    """A smooth random colour image, the same wherever it is asked for."""
    colours = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def test_the_auto_classes_load_it_whole(loaded: Loaded) -> None:
    assert not any(loaded.info.values()), loaded.info
    assert loaded.model.config.model_type == loaded.family
    assert {path.name for path in loaded.folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "processor_config.json",
        "preprocessor_config.json",
    }
    text = loaded.model.config.get_text_config()
    assert text.hidden_size // text.num_attention_heads == 64
    assert len(loaded.processor.tokenizer) <= text.vocab_size
    assert loaded.model.generation_config.eos_token_id == loaded.processor.tokenizer.eos_token_id


def test_two_images_of_any_size_run_and_take_the_tokens_they_should(loaded: Loaded) -> None:
    inputs = loaded.inputs(scene(0, 300, 100), scene(1, 64, 70))
    found = int((inputs["input_ids"] == loaded.model.config.image_token_id).sum())
    if loaded.family in QWEN:
        unit = 28 if loaded.family != "qwen3_vl" else 32
        expected = [int(grid.prod()) // 4 for grid in inputs["image_grid_thw"]]
        # the second is rounded to whole tokens, the first is shrunk to at most 16 of them
        assert expected[1] == round(64 / unit) * round(70 / unit)
        assert 4 <= expected[0] <= 16
    else:
        expected = [16, 16]
    assert found == sum(expected)
    with torch.inference_mode():
        logits = loaded.model(**inputs).logits
    assert logits.shape[:2] == inputs["input_ids"].shape
    assert torch.isfinite(logits).all()


def test_what_is_said_stands_in_the_prompt_in_the_familys_form(loaded: Loaded) -> None:
    image, start, cue = {
        "llava": ("<image>\n", "You compare images. USER: ", "ASSISTANT:"),
        "smolvlm": ("<image>", "<|im_start|>System: You compare images.<end_of", "\nAssistant:"),
        "idefics3": ("<image>", "<|im_start|>System: You compare images.<end_of", "\nAssistant:"),
    }.get(
        loaded.family,
        (
            "<|vision_start|><|image_pad|><|vision_end|>",
            "<|im_start|>system\nYou compare images.<|im_end|>\n<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
    )
    prompt = loaded.prompt()
    assert prompt.startswith(start)
    assert prompt.endswith(cue)
    said = f"Photo:{image}Tile:{image}Same place? Yes or No"
    if loaded.family == "llava":  # images first, as published
        said = f"{image}{image}Photo: Tile: Same place? Yes or No "
    assert said in prompt
    # a string is the same as a list of one text
    as_list = [{**TURNS[0], "content": [{"type": "text", "text": TURNS[0]["content"]}]}, TURNS[1]]
    assert loaded.prompt(as_list) == prompt


def test_a_default_system_turn_where_the_family_has_one(loaded: Loaded) -> None:
    has = "You are a helpful assistant." in loaded.prompt(TURNS[1:])
    assert has == (loaded.family in ("qwen2_vl", "qwen2_5_vl"))


def test_answers_are_single_tokens_and_text_survives(loaded: Loaded) -> None:
    tokenizer = loaded.processor.tokenizer
    ids = [
        tokenizer(space + word, add_special_tokens=False).input_ids
        for word in ANSWERS
        for space in ("", " ")
    ]
    assert all(len(found) == 1 for found in ids), ids
    assert len({found[0] for found in ids}) == len(ids)
    text = "Größe 12.5 m, naïve\n\t→ <tile>  T"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_the_images_decide_the_answer_and_nothing_saturates(loaded: Loaded) -> None:
    a, b, c = (scene(seed, 96, 96) for seed in range(3))
    hidden, logits = loaded.last(a, b)
    for other in ((a, c), (c, b), (b, a)):  # tile, photo, order
        other_hidden, other_logits = loaded.last(*other)
        assert (other_hidden - hidden).abs().max() > 0.05
        assert (other_logits - logits).abs().max() > 0.05
        assert other_logits.softmax(-1).max() < 0.5
        assert 0.3 < other_logits.std() < 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_decides_every_byte(family: str, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    folders = [
        write_random_checkpoint(tmp_path / name, family, seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert torch.equal(torch.get_rng_state(), before)
    a, b, c = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert a == b
    assert [name for name in a if a[name] != c[name]] == ["model.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]  # nothing left beside


def test_the_tiny_towers_have_what_makes_their_family_special(loaded: Loaded) -> None:
    vision = loaded.model.config.vision_config
    if loaded.family == "qwen2_5_vl":
        full = set(vision.fullatt_block_indexes)
        assert full
        assert full < set(range(vision.depth))  # and windows in the others
        assert vision.window_size < math.isqrt(loaded.processor.image_processor.size.longest_edge)
    elif loaded.family == "qwen3_vl":
        taps = vision.deepstack_visual_indexes
        assert 2 <= len(set(taps)) <= loaded.model.config.text_config.num_hidden_layers
        assert all(0 <= tap < vision.depth for tap in taps)
    elif loaded.family in ("smolvlm", "idefics3"):
        side = vision.image_size // vision.patch_size // loaded.model.config.scale_factor
        assert loaded.processor.image_seq_len == side**2
    if loaded.family in QWEN:
        text = loaded.model.config.get_text_config()
        assert sum(text.rope_parameters["mrope_section"]) == 32


@pytest.fixture
def big_folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "big"
    shutil.rmtree(tmp_path / "big", ignore_errors=True)  # pytest keeps the folders of three runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "shape", "fewest", "most"),
    [
        # as many as SmolVLM-256M-Instruct is published with
        ("smolvlm", "smolvlm-256m", 256_484_928, 256_484_928),
        ("qwen2_vl", "qwen-vl", 95e6, 200e6),
        ("qwen2_5_vl", "qwen-vl", 95e6, 200e6),
        ("qwen3_vl", "qwen-vl", 95e6, 200e6),
    ],
)
def test_large_shapes(
    family: str, shape: str, fewest: float, most: float, big_folder: Path
) -> None:
    from safetensors import safe_open

    write_random_checkpoint(big_folder, family, shape=shape)
    with safe_open(big_folder / "model.safetensors", "pt") as weights:
        count = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    assert fewest <= count <= most
    processor = transformers.AutoProcessor.from_pretrained(big_folder, local_files_only=True)
    config = transformers.AutoConfig.from_pretrained(big_folder, local_files_only=True)
    word = processor.image_token
    ids = processor(text=[word], images=[[scene(0, 640, 640)]], return_tensors="pt")["input_ids"]
    assert int((ids == config.image_token_id).sum()) == 64


@pytest.mark.parametrize(
    ("family", "options", "said", "known"),
    [
        ("qwen9_vl", {}, "qwen9_vl", FAMILIES),
        ("llava", {"shape": "huge"}, "huge", tuple(SHAPES)),
        ("llava", {"shape": "qwen-vl"}, "llava", QWEN),
        ("llava", {"seed": -1}, "-1", ()),
    ],
)
def test_unusable_options(
    family: str, options: dict[str, Any], said: str, known: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        write_random_checkpoint(tmp_path / "new", family, **options)
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in known)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    for place in (tmp_path, tmp_path / "mine", tmp_path / "mine" / "below"):
        with pytest.raises(OutputError) as caught:
            write_random_checkpoint(place, "llava")
        assert caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "x"


def test_an_empty_folder_and_missing_parents_will_do(tmp_path: Path) -> None:
    assert write_random_checkpoint(tmp_path, "llava") == tmp_path
    folder = write_random_checkpoint(str(tmp_path / "a" / "b"), "llava")
    assert (folder / "config.json").is_file()


def test_without_transformers_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match="transformers") as caught:
        write_random_checkpoint(tmp_path / "new", "llava")
    assert caught.value.hint is not None
    assert "lvlm" in caught.value.hint
    assert not list(tmp_path.iterdir())
