"""A loaded vision-language model: pictures to visual features, prompts to tokens, tokens to states.

The model is never asked to generate. What scoring needs of it are the hidden states at the last
position of a prompt (after the final norm) and some rows of its output head.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers.modeling_outputs import BaseModelOutputWithPooling

from skylink.errors import ModelError, RerankError
from skylink.lvlm.cache import ImageFeatures
from skylink.lvlm.families import Family
from skylink.memory import out_of_memory
from skylink.prompt import Picture, Prompt

TEXT_MODULES = ("language_model", "text_model")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt as the model takes it: pieces of text tokens with pictures between them.

    Attributes:
        texts: token ids of the words before, between and after the pictures; one more than them.
        images: the pictures' features, in order.
    """

    texts: tuple[tuple[int, ...], ...]
    images: tuple[ImageFeatures, ...]

    @property
    def ids(self) -> list[int]:
        """All token ids, the pictures' places included."""
        ids = list(self.texts[0])
        for image, text in zip(self.images, self.texts[1:], strict=True):
            ids += image.ids
            ids += text
        return ids


class Backbone:
    """See the module.

    Args:
        model: a loaded image-text-to-text model, in evaluation mode, on its device.
        processor: its own.
        family: what is particular to it.
        name: the checkpoint's name, for messages.
        picture_px: side of the square pictures that it should be shown.

    Attributes:
        tower_passes: pictures that went through the vision tower so far.
    """

    def __init__(
        self, model: Any, processor: Any, family: Family, name: str, *, picture_px: int
    ) -> None:
        self.model, self.processor, self.family, self.name = model, processor, family, name
        self.picture_px = picture_px
        self.inner = model.model
        self.device = next(model.parameters()).device
        self.dtype = next(self.inner.get_input_embeddings().parameters()).dtype
        self.tower_passes = 0
        self.image_token: str = processor.image_token
        self.image_token_id: int = processor.tokenizer.convert_tokens_to_ids(self.image_token)
        self._rope = getattr(self.inner, "get_rope_index", None)
        takes = inspect.signature(self.inner.get_image_features).parameters
        self._vision_inputs = {name for name in takes if name not in ("self", "kwargs")}
        self.words = lru_cache(maxsize=256)(self._words)
        self._answer = lru_cache(maxsize=256)(self._answer_tokens)

    # ---- pictures

    def look(self, rgb: NDArray[np.uint8]) -> ImageFeatures:
        """One pass of the vision tower over one picture.

        Args:
            rgb: (H, W, 3) uint8.

        Raises:
            RerankError: the processor can't take the picture.
        """
        inputs = self.process(self.image_token, [rgb], special=False)
        given = {
            key: value.to(self.device)
            for key, value in inputs.items()
            if key in self._vision_inputs and isinstance(value, torch.Tensor)
        }
        with torch.inference_mode():
            out = self.inner.get_image_features(**given, return_dict=True)
        self.tower_passes += 1
        tokens = _one(out.pooler_output)
        deepstack = tuple(_one(layer) for layer in getattr(out, "deepstack_features", None) or ())
        ids = tuple(inputs["input_ids"][0].tolist())
        if ids.count(self.image_token_id) != len(tokens):
            raise RerankError(
                f"{self.name}: a picture of {rgb.shape} takes {ids.count(self.image_token_id)} "
                f"places in the prompt but has {len(tokens)} features"
            )
        grid = inputs["image_grid_thw"][0].tolist() if "image_grid_thw" in inputs else ()
        return ImageFeatures(
            ids=ids,
            grid=tuple(int(n) for n in grid),
            tokens=tokens.cpu(),
            deepstack=tuple(layer.cpu() for layer in deepstack),
        )

    def process(self, text: str, pictures: Sequence[NDArray[np.uint8]], *, special: bool) -> Any:
        """What the checkpoint's own processor makes of a text and its pictures.

        Args:
            text: with one image token a picture.
            pictures: (H, W, 3) uint8 each.
            special: let the tokenizer add the tokens that begin a text.

        Raises:
            RerankError: it can't take the pictures.
        """
        sizes = ", ".join(f"{p.shape} {p.dtype}" for p in pictures)
        # checked here, since some processors take other arrays and make something of them
        if not all(
            p.ndim == 3 and p.shape[2] == 3 and p.size and p.dtype == np.uint8 for p in pictures
        ):
            raise RerankError(f"{self.name} takes pictures (H, W, 3) uint8, not {sizes}")
        try:
            return self.processor(
                text=[text],
                images=list(pictures),
                return_tensors="pt",
                input_data_format="channels_last",
                add_special_tokens=special,
            )
        except (ValueError, TypeError, RuntimeError, IndexError, ArithmeticError) as error:
            if out_of_memory(error):
                raise
            raise RerankError(f"{self.name} can't take pictures {sizes}: {error}") from error

    def features_key(self) -> str:
        """What a picture's features depend on beside the picture, as a hash (hex).

        The tower's own weights (so a merged adapter or a changed file has another key), the image
        processor's configuration, the tokens of a picture's place, dtype, kind of device, attention
        and library version.
        """
        digest = hashlib.blake2b(digest_size=16)
        for name, weights in _outside_text(self.inner):
            digest.update(f"{name} {tuple(weights.shape)} {weights.dtype}".encode())
            raw = weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().data)
        images = self.processor.image_processor.to_dict()
        processor = json.dumps(images, sort_keys=True, default=str)
        places = sorted(self.processor.tokenizer.get_added_vocab().items())
        attention = getattr(self.model.config, "_attn_implementation", "")
        length = getattr(self.processor, "image_seq_len", None)
        about = (self.family.model_type, processor, places, length, self.device.type, attention)
        digest.update(repr((*about, str(self.dtype), transformers.__version__)).encode())
        return digest.hexdigest()

    # ---- prompts

    def render(self, prompt: Prompt) -> str:
        """The prompt in the checkpoint's own chat template, up to where the answer begins."""
        try:
            text = self.processor.apply_chat_template(
                prompt.messages(), tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is the checkpoint's own program, in a sandbox
            raise ModelError(
                f"{self.name}: its chat template can't render the prompt: {error}",
                hint="use an instruct checkpoint, whose processor has a chat template",
            ) from error
        return str(text)

    def encode(
        self, prompt: Prompt, photo: ImageFeatures, shown: Sequence[ImageFeatures]
    ) -> Encoded:
        """The prompt's tokens with pictures in their places.

        Args:
            prompt: built by a template.
            photo: features of the photo.
            shown: features of the candidates that the prompt speaks of.
        """
        pictures = [part for part in prompt.user if isinstance(part, Picture)]
        images = [photo if p.candidate is None else shown[p.candidate] for p in pictures]
        return Encoded(texts=self.words(prompt), images=tuple(images))

    def answer_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The token of each of the prompt's answers, at the place where the answer begins.

        Raises:
            ModelError: an answer isn't one token there, or two are the same token.
        """
        before = self.render(prompt).rpartition(self.image_token)[2]
        return self._answer(prompt.answers, before)

    def starts_bare(self, rendered: str) -> bool:
        """Whether the tokenizer has yet to add what begins a text: the template did not."""
        bos = self.processor.tokenizer.bos_token
        return not (bos and rendered.startswith(bos))

    def _words(self, prompt: Prompt) -> tuple[tuple[int, ...], ...]:
        """Token ids of the words before, between and after the pictures.

        Raises:
            ModelError: the chat template doesn't show every picture, or ends with one.
        """
        rendered = self.render(prompt)
        # in one go: some tokenizers put a space before whatever they are given to begin with
        texts: list[list[int]] = [[]]
        for token in self._ids(rendered, special=self.starts_bare(rendered)):
            if token == self.image_token_id:
                texts.append([])
            else:
                texts[-1].append(token)
        pictures = sum(isinstance(part, Picture) for part in prompt.user)
        if len(texts) != pictures + 1:
            raise ModelError(
                f"{self.name}: its chat template shows {len(texts) - 1} of {pictures} pictures",
                hint="use a checkpoint that takes several pictures in one prompt",
            )
        if not texts[-1]:
            raise ModelError(
                f"{self.name}: its chat template has no words after the last picture",
                hint="use an instruct checkpoint, whose template says where the answer begins",
            )
        return tuple(tuple(text) for text in texts)

    def _answer_tokens(self, answers: tuple[str, ...], before: str) -> tuple[int, ...]:
        """The answers' tokens after the words `before`: as they stand, or with a space before."""
        spaced = [f" {word}" for word in answers]
        plain = list(answers)
        spellings = (plain, spaced) if before[-1:].isspace() or not before else (spaced, plain)
        known = self._ids(before)
        for spelling in spellings:
            tails = [self._ids(before + word) for word in spelling]
            if all(len(t) == len(known) + 1 and t[: len(known)] == known for t in tails):
                ids = tuple(t[-1] for t in tails)
                if len(set(ids)) == len(ids) and self.processor.tokenizer.unk_token_id not in ids:
                    return ids
        raise ModelError(
            f"{self.name}: the answers {', '.join(answers)} are not single tokens after its prompt",
            hint="choose another template: `skylink models` lists them",
        )

    def _ids(self, text: str, special: bool = False) -> list[int]:
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    # ---- states

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        images: Sequence[ImageFeatures],
        cache: Any = None,
        *,
        use_cache: bool = False,
    ) -> Any:
        """The model's body on token ids (B, T) with known features; see `positions`."""
        given: dict[str, Any] = {}
        if images:
            given["mm_encoder_outputs"] = {"image": self.visual(images)}
        return self.inner(
            input_ids=ids,
            position_ids=positions,
            past_key_values=cache,
            use_cache=use_cache or cache is not None,
            **given,
        )

    def positions(self, encoded: Encoded) -> torch.Tensor:
        """Positions of a whole prompt: (3, 1, T) for M-RoPE families, else (1, T)."""
        ids = torch.tensor([encoded.ids], device=self.device)
        if self._rope is None:
            return torch.arange(ids.shape[1], device=self.device)[None]
        kinds = (ids == self.image_token_id).int()
        grids = torch.tensor([image.grid for image in encoded.images], device=self.device)
        positions: torch.Tensor = self._rope(
            input_ids=ids, mm_token_type_ids=kinds, image_grid_thw=grids
        )[0]
        return positions

    def head_rows(self, ids: Sequence[int]) -> torch.Tensor:
        """Rows of the output head, (n, H) float32."""
        head = self.model.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            raise ModelError(f"{self.name}: its output head has a bias, which is not supported")
        rows: torch.Tensor = head.weight[list(ids)].detach().float()
        return rows

    def visual(self, images: Sequence[ImageFeatures]) -> Any:
        """Pictures' features as the model takes them in the place of its tower's output."""
        tokens = [image.tokens.to(self.device, self.dtype) for image in images]
        out = BaseModelOutputWithPooling(pooler_output=tokens)
        layers = len(images[0].deepstack)
        out.deepstack_features = [
            [image.deepstack[layer].to(self.device, self.dtype) for image in images]
            for layer in range(layers)
        ]
        return out


def _one(pooled: Any) -> torch.Tensor:
    """(N, D) of one picture, whichever way a family nests it (sub-pictures are joined)."""
    parts = pooled if isinstance(pooled, list | tuple) else [pooled]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


def _outside_text(inner: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights and buffers of everything but the language model."""
    for name, value in (*inner.named_parameters(), *inner.named_buffers()):
        if name.split(".")[0] not in TEXT_MODULES:
            yield name, value
