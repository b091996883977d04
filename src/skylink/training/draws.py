"""Random numbers that depend on a few integers alone, whatever was drawn before.

So a step draws the same whether its run was interrupted or not, and on any number of processes,
and there is no state of a generator to keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def drawn_from(numbers: tuple[int, ...], device: torch.device) -> Iterator[None]:
    """Within it torch draws (dropout, first weights) from these numbers; outside as before.

    Args:
        numbers: such as (seed, step, number in the step); all of them matter.
        device: where it draws, beside the CPU.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
        yield
