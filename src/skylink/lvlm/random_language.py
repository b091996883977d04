"""What random checkpoints speak: special tokens, chat templates and tokenizers of each family."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
IDEFICS = ("smolvlm", "idefics3")
FAMILIES = (*QWEN, *IDEFICS, "llava")
"""`model_type` of the architectures that can be written."""

MAX_TOKENS = 8192
"""Longest prompt, in tokens."""

ANSWERS = ("Yes", "No", "yes", "no", *"ABCDEFGHIJKLMNOPQRST")
"""Words that are one token each, alone and after a space."""

CORPUS = """\
The drone took this photo while flying over the town. Is the photo inside the satellite tile?
Answer Yes or No. Compare the two images and look for the same roads, roofs, fields and rivers.
The first image is a photo from an unmanned aerial vehicle, the second is a map tile from space.
North is up in every satellite image. The tile covers an area of about 100 metres on the ground.
The altitude of the drone above the ground is known, the heading of its camera may be wrong.
Which of the candidates shows the place of the photo? Give the letter of the best candidate only.
You are a helpful assistant. You compare aerial photos with satellite imagery and find the place.
Do both images show the same place? Shadows, seasons, cars and weather differ, buildings do not.
"""

# What the families' own templates do, for contents that are a string or a list of images and texts.
# Each loops over `message.content` itself: by that vLLM sees that lists are understood.
QWEN_TEMPLATE = r"""
{%- for message in messages -%}
{%- if DEFAULT_SYSTEM and loop.first and message.role != 'system' -%}
{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' -}}
{%- endif -%}
{{- '<|im_start|>' + message.role + '\n' -}}
{%- if message.content is string -%}{{- message.content -}}{%- endif -%}
{%- for part in message.content if message.content is not string -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text -}}
{%- endfor -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\n' if add_generation_prompt else '' -}}
"""
IDEFICS_TEMPLATE = r"""
{{- '<|im_start|>' -}}
{%- for message in messages -%}
{%- set image_first = message.content | map(attribute='type') | first == 'image' -%}
{{- message.role | capitalize + (':' if image_first else ': ') -}}
{%- if message.content is string -%}{{- message.content -}}{%- endif -%}
{%- for part in message.content if message.content is not string -%}
{{- '<image>' if part.type == 'image' else part.text -}}
{%- endfor -%}
{{- '<end_of_utterance>\n' -}}
{%- endfor -%}
{{- 'Assistant:' if add_generation_prompt else '' -}}
"""
# images before the text wherever they stand, as in LLaVA 1.5
LLAVA_TEMPLATE = r"""
{%- for message in messages -%}
{{- '' if message.role == 'system' else message.role | upper + ': ' -}}
{%- if message.content is string -%}{{- message.content + ' ' -}}{%- else -%}
{%- for part in message.content if part.type == 'image' -%}{{- '<image>\n' -}}{%- endfor -%}
{%- for part in message.content if part.type == 'text' -%}{{- part.text + ' ' -}}{%- endfor -%}
{%- endif -%}
{%- endfor -%}
{{- 'ASSISTANT:' if add_generation_prompt else '' -}}
"""


@dataclass(frozen=True, slots=True)
class Language:
    """Special tokens and chat template of a family."""

    special: tuple[str, ...]
    begin: str | None
    end: str
    pad: str
    template: str


def language_of(family: str) -> Language:
    """The language of one of `FAMILIES`."""
    chat = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    if family in QWEN:
        marks = [f"<|vision_{what}|>" for what in ("start", "end", "pad")]
        special = (*chat, *marks, "<|image_pad|>", "<|video_pad|>")
        # Qwen3-VL has no default system turn any more
        template = QWEN_TEMPLATE.replace("DEFAULT_SYSTEM", str(family != "qwen3_vl").lower())
        return Language(special, None, "<|im_end|>", "<|endoftext|>", template)
    if family in IDEFICS:
        cells = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
        end = "<end_of_utterance>"
        special = (*chat, *cells, "<global-img>", "<fake_token_around_image>", "<image>", end)
        return Language(special, "<|im_start|>", end, "<|im_end|>", IDEFICS_TEMPLATE)
    return Language(
        ("<unk>", "<s>", "</s>", "<image>", "<pad>"), "<s>", "</s>", "<pad>", LLAVA_TEMPLATE
    )


def make_tokenizer(language: Language) -> Any:
    """Byte-level BPE of a few hundred tokens, in which every answer word is one token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=640, initial_alphabet=alphabet, show_progress=False)
    # more frequent than any other word, so that they are merged first
    answers = [text for word in ANSWERS for text in (word, f" {word}")] * 100
    bpe.train_from_iterator([*CORPUS.splitlines(), *answers], trainer)
    bpe.add_special_tokens([AddedToken(word, normalized=False) for word in language.special])
    if language.begin == "<s>":  # elsewhere it is the chat template that begins a text
        bpe.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", bpe.token_to_id("<s>"))]
        )
    hf: Any = import_module("transformers")
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=language.begin,
        eos_token=language.end,
        pad_token=language.pad,
        extra_special_tokens=list(language.special),
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_TOKENS,
    )
