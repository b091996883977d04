"""From an address and the `--lvlm` options to a re-ranker that is known to work."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from skylink.lvlm.options import LvlmOptions
from skylink.lvlm.presets import find
from skylink.prompt import Mode
from skylink.remote.options import RemoteOptions

if TYPE_CHECKING:
    from skylink.rerankers.remote import RemoteReranker
    from skylink.showing import Show


def connect(url: str, show: Show, lvlm: LvlmOptions | None = None) -> RemoteReranker:
    """A re-ranker over a server, looked at before any photo is.

    Without a mode, models that are known to be trained to re-rank and servers that have `/score`
    alone are asked pointwise, all others pairwise: an untrained model's pointwise scores do harm.

    Raises:
        OptionError, ModelError, RerankError: see `RemoteReranker.check`; also for options that
            only a local model has.
    """
    from skylink.rerankers.remote import RemoteReranker

    lvlm = lvlm or LvlmOptions()
    lvlm.check_served()
    options = RemoteOptions(
        model=lvlm.served_as,
        facts=lvlm.facts is not False,
        orders=lvlm.orders,
        max_comparisons=lvlm.max_comparisons,
        seed=lvlm.seed,
    )
    mode, template = lvlm.mode, lvlm.template
    if mode is None:
        looking = RemoteReranker(url, show, options=replace(options, mode="listwise"))
        model, score_alone = looking.offers()
        looking.close()
        preset = find(model)
        trained = preset is not None and preset.trained
        mode = _default(trained, score_alone)
        if preset is not None and trained and not score_alone:
            template = template or preset.template
    if mode == "listwise" and template is None:
        template = "listwise-ranking-v1"  # a server is asked for the whole ranking, as JSON
    reranker = RemoteReranker(url, show, options=replace(options, mode=mode, template=template))
    reranker.on_prompt = lvlm.on_prompt
    reranker.check()
    return reranker


def _default(trained: bool, score_alone: bool) -> Mode:
    return "pointwise" if trained or score_alone else "pairwise"
