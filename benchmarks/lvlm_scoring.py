"""Scoring K candidates by a vision-language model: what people write, and ours saving by saving.

python benchmarks/lvlm_scoring.py [--shape smolvlm-256m qwen-vl] [--k 10] [--sweep 5 10 20 50]
                                  [--json FILE] [--plot FILE]

Models are random ones of a published shape (no weights are needed to measure time), 64 visual
tokens a picture, float32. Every way answers the same question about the same pictures, so that the
scores can be compared. CPU seconds are those of all threads of this process.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import transformers
from numpy.typing import NDArray

from _common import machine, table, write_json
from skylink.lvlm.backbone import Backbone
from skylink.lvlm.cache import FeatureCache
from skylink.lvlm.load import load_backbone
from skylink.lvlm.options import LvlmOptions
from skylink.lvlm.plain import plain_inputs
from skylink.lvlm.random_checkpoint import write_random_checkpoint
from skylink.lvlm.scorer import Scorer
from skylink.prompt import NOTHING, TEMPLATES
from skylink.showing import Showing
from skylink.town import Town, render_map

FAMILIES = {"smolvlm-256m": "smolvlm", "qwen-vl": "qwen3_vl"}
TOKENS = 64
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Taken:
    """What one way took for one photo."""

    scores: Scores
    cpu_s: float
    wall_s: float
    peak_mb: float


def measure(score: Callable[[], Scores], times: int) -> Taken:
    """The fastest of `times` runs; peak memory above what was held before."""
    best: Taken | None = None
    for _ in range(times):
        give_memory_back()
        held, peak, done = psutil.Process().memory_info().rss, [0], threading.Event()

        def watch(peak: list[int] = peak, done: threading.Event = done) -> None:
            process = psutil.Process()
            while not done.wait(0.02):
                peak[0] = max(peak[0], process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        wall, cpu = time.perf_counter(), time.process_time()
        scores = score()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        done.set()
        watcher.join()
        taken = Taken(scores, cpu, wall, max(0, peak[0] - held) / 2**20)
        if best is None or taken.cpu_s < best.cpu_s:
            best = taken
    assert best is not None
    return best


def give_memory_back() -> None:
    """Ask the allocator to return what is free, so that a way's own peak can be seen."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def by_generate(backbone: Backbone, showing: Showing) -> Scores:
    """What people write: one token generated for each pair, its logits read."""
    prompt = TEMPLATES["pointwise-v1"].build(NOTHING, [NOTHING])
    yes, no = backbone.answer_ids(prompt)
    scores = []
    for candidate in showing.candidates:
        inputs = plain_inputs(backbone, prompt, [showing.photo, candidate])
        with torch.inference_mode():
            out = backbone.model.generate(
                **inputs, max_new_tokens=1, do_sample=False,
                output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        logits = out.logits[0][0].float()
        scores.append(float(logits[yes] - logits[no]))
    return np.array(scores, np.float32)


def by_forward(backbone: Backbone, showing: Showing) -> Scores:
    """One forward a pair, with logits at every position."""
    prompt = TEMPLATES["pointwise-v1"].build(NOTHING, [NOTHING])
    yes, no = backbone.answer_ids(prompt)
    scores = []
    for candidate in showing.candidates:
        inputs = plain_inputs(backbone, prompt, [showing.photo, candidate])
        with torch.inference_mode():
            logits = backbone.model(**inputs, use_cache=False).logits[0, -1].float()
        scores.append(float(logits[yes] - logits[no]))
    return np.array(scores, np.float32)


def cross_encoder(folder: Path, backbone: Backbone) -> Callable[[Showing], Scores]:
    """sentence-transformers' multimodal CrossEncoder, asked in the very same words.

    Its pairs come as roles `query` and `document`; a chat template of constant text puts the two
    pictures where our prompt has them.
    """
    from PIL import Image
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    prompt = TEMPLATES["pointwise-v1"].build(NOTHING, [NOTHING])
    yes, no = backbone.answer_ids(prompt)
    words = backbone.render(prompt).split(backbone.image_token)
    body = Transformer(str(folder), transformer_task="any-to-any")
    body.processor.image_processor.size = backbone.processor.image_processor.size
    sides = [
        f'{{% set part = (messages | selectattr("role", "eq", "{role}") | first).content[0] %}}'
        f'{{% if part.type == "image" %}}{backbone.image_token}'
        "{% else %}{{ part.text }}{% endif %}"
        for role in ("query", "document")
    ]
    begin, middle, end = (f"{{{{ {text!r} }}}}" for text in words)
    body.processor.chat_template = begin + sides[0] + middle + sides[1] + end
    model = CrossEncoder(
        modules=[body, LogitScore(true_token_id=yes, false_token_id=no)], device="cpu"
    )

    def score(showing: Showing) -> Scores:
        photo = Image.fromarray(showing.photo)
        pairs = [(photo, Image.fromarray(tile)) for tile in showing.candidates]
        found = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return np.asarray(found, np.float32).reshape(-1)

    return score


def ours(
    backbone: Backbone,
    template: str = "pointwise-v1",
    *,
    cache: FeatureCache | None = None,
    share: bool = True,
    plain: bool = False,
) -> Callable[[Showing], Scores]:
    """A scorer with savings switched on."""
    options = LvlmOptions(facts=False, plain=plain, orders=1)
    scorer = Scorer(backbone, TEMPLATES[template], options, cache=cache)
    scorer.engine.share = share
    return scorer.score


def overhead(backbone: Backbone, score: Callable[[Showing], Scores], showing: Showing) -> float:
    """Share of the time of scoring that is not spent in the model, percent."""
    inside = [0.0]

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                inside[0] += time.perf_counter() - start

        return run

    inner = backbone.inner
    body, tower = inner.forward, inner.get_image_features
    inner.forward, inner.get_image_features = timed(body), timed(tower)
    try:
        start = time.perf_counter()
        score(showing)
        whole = time.perf_counter() - start
    finally:
        inner.forward, inner.get_image_features = body, tower
    return 100 * (1 - inside[0] / whole)


def pictures(count: int, side: int) -> Showing:
    """A photo and candidates cut from a made-up town's map."""
    whole = render_map(Town.generate(seed=7), gsd_m=1.0)
    draw = np.random.default_rng(0)
    high, wide = whole.shape[:2]
    cut = [
        np.ascontiguousarray(whole[y : y + side, x : x + side])
        for y, x in zip(
            draw.integers(0, high - side, count + 1),
            draw.integers(0, wide - side, count + 1),
            strict=True,
        )
    ]
    return Showing(
        name="photo", photo=cut[0], candidates=cut[1:], ids=[f"c{i}" for i in range(count)],
        photo_facts=NOTHING, candidate_facts=[NOTHING] * count,
    )  # fmt: skip


def first(showing: Showing, k: int) -> Showing:
    """The showing with its first k candidates only."""
    return Showing(
        name=showing.name, photo=showing.photo, candidates=showing.candidates[:k],
        ids=showing.ids[:k], photo_facts=NOTHING, candidate_facts=[NOTHING] * k,
    )  # fmt: skip


def run(
    shape: str, k: int, sweep: list[int], times: int, scratch: Path, figures: dict[str, float]
) -> tuple[list[tuple[str, Taken]], dict[int, dict[str, float]]]:
    """All ways at K = k, and how the gain grows with K."""
    folder = write_random_checkpoint(scratch / shape, FAMILIES[shape], shape=shape)
    backbone = load_backbone(
        str(folder), LvlmOptions(visual_tokens=TOKENS, device="cpu", dtype="float32")
    )
    weights = sum(p.numel() for p in backbone.model.parameters()) / 1e6
    everything = pictures(max([k, *sweep]), backbone.picture_px)
    showing = first(everything, k)
    key = backbone.features_key()
    cache = FeatureCache(scratch / "cache", key, max_bytes=4 * 2**30)
    warm = Scorer(backbone, TEMPLATES["pointwise-v1"], cache=cache)
    for tile in everything.candidates:
        warm.features(tile, keep=True)
    tokens = len(backbone.look(showing.photo).tokens)
    print(
        f"\n## {shape}: a random {FAMILIES[shape]} of {weights:.0f}M parameters, "
        f"{tokens} visual tokens a picture, K = {k}\n",
        flush=True,
    )
    ways: dict[str, Callable[[Showing], Scores]] = {
        "generate, pair by pair": lambda s: by_generate(backbone, s),
        "forward, logits everywhere": lambda s: by_forward(backbone, s),
        "CrossEncoder (sentence-transformers)": cross_encoder(folder, backbone),
        "last state, two rows of the head": ours(backbone, plain=True),
        "+ shared beginning": ours(backbone),
        "+ tiles' features kept": ours(backbone, cache=cache, share=False),
        "+ both (the default)": ours(backbone, cache=cache),
        "+ both, short template": ours(backbone, "pointwise-short-v1", cache=cache),
        "listwise, one order": ours(backbone, "listwise-v1", cache=cache),
    }
    found: list[tuple[str, Taken]] = []
    for name, score in ways.items():
        if name.startswith("listwise") and k > 20:
            continue
        score(first(showing, 1))  # warm up
        taken = measure(lambda score=score: score(showing), times)
        found.append((name, taken))
        print(f"{name}: {taken.cpu_s:.2f} CPU s, {taken.wall_s:.2f} s", flush=True)
    passes = backbone.tower_passes
    ways["+ both (the default)"](showing)
    figures[f"{shape}: tower passes with a warm cache"] = backbone.tower_passes - passes
    figures[f"{shape}: overhead, percent"] = overhead(
        backbone, ways["+ both (the default)"], showing
    )
    names = ("generate, pair by pair", "+ both (the default)", "+ both, short template")
    known = dict(found)
    curves = {k: {n: known[names[0]].cpu_s / known[n].cpu_s for n in names[1:]}}
    for size in sweep:
        if size == k:
            continue
        some = first(everything, size)
        took = {
            n: measure(lambda n=n, some=some: ways[n](some), 1 if size > 10 else times)
            for n in names
        }
        base = took[names[0]].cpu_s
        curves[size] = {n: base / took[n].cpu_s for n in names[1:]}
        print(f"K = {size}: " + ", ".join(f"{n} {x:.1f}x" for n, x in curves[size].items()))
    return found, dict(sorted(curves.items()))


def report(
    shape: str,
    found: list[tuple[str, Taken]],
    curves: dict[int, dict[str, float]],
    figures: dict[str, float],
) -> None:
    """Print the table and collect the figures of a shape."""
    taken = dict(found)
    reference, asked = taken["forward, logits everywhere"], "generate, pair by pair"
    rows, worst = [], 0.0
    for name, t in found:
        same = "short" not in name and "listwise" not in name
        difference = float(np.abs(t.scores - reference.scores).max())
        if same:
            worst = max(worst, difference)
        rows.append((
            name, f"{t.cpu_s:.2f}", f"{t.wall_s:.2f}", f"{taken[asked].cpu_s / t.cpu_s:.1f}x",
            f"{difference:.1e}" if same else "another prompt", f"{t.peak_mb:.0f}",
        ))  # fmt: skip
    header = ("way", "CPU s", "wall s", "against generate", "score difference", "peak MB more")
    print("\n" + table(header, rows))
    if curves:
        sizes = list(curves)
        lines = [
            (name, *(f"{curves[size][name]:.1f}x" for size in sizes)) for name in curves[sizes[0]]
        ]
        print("\n" + table(("against generate, CPU s", *(f"K = {s}" for s in sizes)), lines))
    both, short = taken["+ both (the default)"], taken["+ both, short template"]
    crossed = taken["CrossEncoder (sentence-transformers)"]
    print(f"\noutside the model: {figures[f'{shape}: overhead, percent']:.1f} % of the time; "
          f"tower passes with a warm cache: "
          f"{figures[f'{shape}: tower passes with a warm cache']:.0f} (the photo)")  # fmt: skip
    figures.update({
        f"{shape}: speedup_vs_generate_cpu": taken[asked].cpu_s / both.cpu_s,
        f"{shape}: speedup_vs_crossencoder_cpu": crossed.cpu_s / both.cpu_s,
        f"{shape}: speedup_short_vs_generate_cpu": taken[asked].cpu_s / short.cpu_s,
        f"{shape}: max_abs_score_difference": worst,
        **{f"{shape}: speedup at K={k}": c["+ both (the default)"] for k, c in curves.items()},
    })  # fmt: skip


def draw(path: Path, results: dict[str, list[tuple[str, Taken]]], all_curves: Any, k: int) -> None:
    """Bars of CPU seconds, and the gain over K."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(results) + 1, figsize=(5.2 * (len(results) + 1), 4.2))
    for axis, (shape, found) in zip(axes, results.items(), strict=False):
        names = [name for name, _ in found]
        colours = ["#9aa5b1" if i < 3 else "#1f6f8b" for i in range(len(names))]
        axis.barh(names[::-1], [t.cpu_s for _, t in found][::-1], color=colours[::-1])
        axis.set_title(f"{shape}, K = {k}", fontsize=10)
        axis.set_xlabel("CPU seconds a photo")
        axis.tick_params(labelsize=8)
    for shape, curves in all_curves.items():
        for name, style in (("+ both (the default)", "-"), ("+ both, short template", "--")):
            gains = [curves[size][name] for size in curves]
            axes[-1].plot(list(curves), gains, style, marker="o", label=f"{shape} {name[2:]}")
    axes[-1].set_xlabel("candidates K")
    axes[-1].set_title("times cheaper than generate", fontsize=10)
    axes[-1].legend(fontsize=7)
    axes[-1].grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--sweep", type=int, nargs="*", default=[5, 10, 20, 50])
    parser.add_argument("--times", type=int, default=3, help="runs of each way; the best counts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    print(f"{machine()}, torch {torch.__version__}, transformers {transformers.__version__}, "
          f"{torch.get_num_threads()} threads", flush=True)  # fmt: skip
    transformers.utils.logging.set_verbosity_error()
    figures: dict[str, float] = {}
    results, all_curves = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for shape in options.shape:
            found, curves = run(
                shape, options.k, options.sweep, options.times, Path(scratch), figures
            )
            report(shape, found, curves, figures)
            results[shape], all_curves[shape] = found, curves
    for name in (
        "speedup_vs_generate_cpu", "speedup_vs_crossencoder_cpu", "speedup_short_vs_generate_cpu"
    ):  # fmt: skip
        figures[name] = min(figures[f"{shape}: {name}"] for shape in results)
    difference = "max_abs_score_difference"
    figures[difference] = max(figures[f"{shape}: {difference}"] for shape in results)
    write_json(options.json, "lvlm_scoring", figures)
    if options.plot is not None:
        draw(options.plot, results, all_curves, options.k)


if __name__ == "__main__":
    main()
