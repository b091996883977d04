"""Vision-language models that are known by name: what they need and how to ask them.

A preset holds facts and defaults, no weights. Other checkpoints of the families in `families.py`
work as well, by hub id or folder. Parameters, stored sizes and licences are those of the models'
own pages; no published weights were run for this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from skylink.prompt import DEFAULT_TEMPLATES, Mode

APACHE = "Apache-2.0"
BYTES_PER_PARAMETER = 2
"""Of bfloat16 and float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A published model.

    Attributes:
        name: short, lower case, as in `--reranker lvlm:NAME`.
        family: `model_type` of its `config.json`.
        checkpoint: id on the Hugging Face hub.
        parameters_b: parameters, in billions.
        download_gb: weight files, gigabytes (1e9 bytes).
        licence: of the weights.
        mode: how candidates are scored where nothing else is asked for: `pairwise` for models that
            nobody trained to re-rank, whose pointwise scores are known to do harm.
        template: prompt template of that mode.
        px: side of the square pictures that `tokens` is about, pixels.
        tokens: visual tokens of such a picture.
        trained: trained to re-rank.
        note: what it is good for, one line.
    """

    name: str
    family: str
    checkpoint: str
    parameters_b: float
    download_gb: float
    licence: str = APACHE
    mode: Mode = "pairwise"
    template: str = DEFAULT_TEMPLATES["pairwise"]
    px: int
    tokens: int
    trained: bool = False
    note: str

    @property
    def weights_gb(self) -> float:
        """Memory of the weights in 16 bits, gigabytes (1e9 bytes)."""
        return self.parameters_b * BYTES_PER_PARAMETER


PRESETS: tuple[Preset, ...] = (
    Preset(
        name="qwen2-vl-2b",
        family="qwen2_vl",
        checkpoint="Qwen/Qwen2-VL-2B-Instruct",
        parameters_b=2.21,
        download_gb=4.4,
        px=448,
        tokens=256,
        note="the paper's small model: it ranked worse than its base there, even trained",
    ),
    Preset(
        name="qwen2-vl-7b",
        family="qwen2_vl",
        checkpoint="Qwen/Qwen2-VL-7B-Instruct",
        parameters_b=8.29,
        download_gb=16.6,
        px=448,
        tokens=256,
        note="the paper's model, which it trained with LoRA and a value head",
    ),
    Preset(
        name="qwen2.5-vl-3b",
        family="qwen2_5_vl",
        checkpoint="Qwen/Qwen2.5-VL-3B-Instruct",
        parameters_b=3.75,
        download_gb=7.5,
        licence="Qwen Research",
        px=448,
        tokens=256,
        note="for a 12 GB card; its licence excludes commercial use",
    ),
    Preset(
        name="qwen2.5-vl-7b",
        family="qwen2_5_vl",
        checkpoint="Qwen/Qwen2.5-VL-7B-Instruct",
        parameters_b=8.29,
        download_gb=16.6,
        px=448,
        tokens=256,
        note="the paper's model, one generation on",
    ),
    Preset(
        name="qwen3-vl-2b",
        family="qwen3_vl",
        checkpoint="Qwen/Qwen3-VL-2B-Instruct",
        parameters_b=2.13,
        download_gb=4.3,
        px=512,
        tokens=256,
        note="small and current: a first try on a small GPU",
    ),
    Preset(
        name="qwen3-vl-4b",
        family="qwen3_vl",
        checkpoint="Qwen/Qwen3-VL-4B-Instruct",
        parameters_b=4.44,
        download_gb=8.9,
        px=512,
        tokens=256,
        note="for a 16 GB card",
    ),
    Preset(
        name="qwen3-vl-8b",
        family="qwen3_vl",
        checkpoint="Qwen/Qwen3-VL-8B-Instruct",
        parameters_b=8.77,
        download_gb=17.5,
        px=512,
        tokens=256,
        note="the largest here to compare candidates without training; for a 24 GB card",
    ),
    Preset(
        name="qwen3-vl-reranker-2b",
        family="qwen3_vl",
        checkpoint="Qwen/Qwen3-VL-Reranker-2B",
        parameters_b=2.13,
        download_gb=4.3,
        mode="pointwise",
        template="qwen3-reranker-v1",
        px=512,
        tokens=256,
        trained=True,
        note="trained to re-rank (documents, not places): few prompts a photo",
    ),
    Preset(
        name="qwen3-vl-reranker-8b",
        family="qwen3_vl",
        checkpoint="Qwen/Qwen3-VL-Reranker-8B",
        parameters_b=8.77,
        download_gb=17.5,
        mode="pointwise",
        template="qwen3-reranker-v1",
        px=512,
        tokens=256,
        trained=True,
        note="trained to re-rank (documents, not places); for a 24 GB card",
    ),
    Preset(
        name="smolvlm-256m",
        family="idefics3",
        checkpoint="HuggingFaceTB/SmolVLM-256M-Instruct",
        parameters_b=0.256,
        download_gb=0.5,
        px=512,
        tokens=64,
        note="to try the whole path on a CPU; too small to trust",
    ),
    Preset(
        name="smolvlm-500m",
        family="idefics3",
        checkpoint="HuggingFaceTB/SmolVLM-500M-Instruct",
        parameters_b=0.507,
        download_gb=1.0,
        px=512,
        tokens=64,
        note="to try the whole path on a CPU; too small to trust",
    ),
    Preset(
        name="smolvlm-2.2b",
        family="idefics3",
        checkpoint="HuggingFaceTB/SmolVLM-Instruct",
        parameters_b=2.25,
        download_gb=4.5,
        px=384,
        tokens=81,
        note="few tokens a picture: short prompts",
    ),
    Preset(
        name="smolvlm2-2.2b",
        family="smolvlm",
        checkpoint="HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        parameters_b=2.25,
        download_gb=9.0,
        px=384,
        tokens=81,
        note="few tokens a picture; its files are float32, twice the memory it takes",
    ),
    Preset(
        name="idefics3-8b",
        family="idefics3",
        checkpoint="HuggingFaceM4/Idefics3-8B-Llama3",
        parameters_b=8.46,
        download_gb=16.9,
        px=364,
        tokens=169,
        note="another lineage than Qwen's, for comparison; made from Llama 3.1, see Meta's terms",
    ),
)

_PUBLISHED = {key: p for p in PRESETS for key in (p.name, p.checkpoint.lower())}
_FOLDERS = {key.rsplit("/", 1)[-1]: p for key, p in _PUBLISHED.items()}


def find(name: str) -> Preset | None:
    """The preset of a short name, a hub id, or a folder or copy called like one; case is ignored.

    A folder, or a copy under another owner, may hold other weights than the published ones: take
    defaults from here, and what to load from `checkpoint_of`.
    """
    return _FOLDERS.get(name.lower().rstrip("/").rsplit("/", 1)[-1])


def checkpoint_of(name: str) -> str:
    """The hub id of a preset's short name or hub id; any other name as it is."""
    preset = _PUBLISHED.get(name.lower())
    return preset.checkpoint if preset else name
