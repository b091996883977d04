"""One process or several: sums, gathers and who writes.

Several are started by `accelerate launch`, or `torchrun`, which starts them without GPUs too; each
computes a part of every step, gradients are summed, and so all hold the same weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

from skylink.errors import ModelError, OptionError, pip_hint
from skylink.memory import out_of_memory


class Processes:
    """This process among all.

    Args:
        device: as configured; with `auto` each process has its own GPU.

    Attributes:
        index, count: which of how many; 0 writes and speaks.
        device: where this one computes.

    Raises:
        OptionError: several were started, and accelerate is not installed.

    What waits for the others raises ModelError where one of them has ended.
    """

    def __init__(self, device: str = "auto") -> None:
        self.index, self.count, self.device = 0, 1, device
        self._accelerator: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            try:
                accelerate = import_module("accelerate")
            except ImportError as error:
                raise OptionError(
                    f"several processes need accelerate ({error})",
                    hint=pip_hint("lvlm"),
                ) from error
            self._accelerator = accelerate.Accelerator(
                cpu=device == "cpu" or not torch.cuda.is_available()
            )
            self.index = self._accelerator.process_index
            self.count = self._accelerator.num_processes
            self.device = str(self._accelerator.device)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def share(self, items: Sequence[Any]) -> list[Any]:
        """This process's part, every `count`-th."""
        return list(items[self.index :: self.count])

    def gather(self, part: list[Any]) -> list[Any]:
        """All processes' parts, in the order that `share` took them from."""
        if self._accelerator is None:
            return part
        # sent with their places, since parts differ in length
        gather = import_module("accelerate.utils").gather_object
        placed = [(self.index + self.count * i, item) for i, item in enumerate(part)]
        with _all_there():
            found = gather(placed)
        return [item for _, item in sorted(found, key=lambda pair: pair[0])]

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Each parameter's gradient summed over all processes, in one message."""
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self._accelerator is None:
            return
        flat = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
        with _all_there():
            summed = self._accelerator.reduce(flat, reduction="sum")
        for p, part in zip(parameters, summed.split([p.numel() for p in parameters]), strict=True):
            assert p.grad is not None
            p.grad.copy_(part.view_as(p))

    def wait(self) -> None:
        """Until all are here."""
        if self._accelerator is not None:
            with _all_there():
                self._accelerator.wait_for_everyone()

    def end(self) -> None:
        """Say goodbye to the others."""
        if self._accelerator is not None:
            self._accelerator.end_training()
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


@contextmanager
def _all_there() -> Iterator[None]:
    """Talking to another process fails where it has ended; why, it has said itself."""
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise ModelError(
            "another of the processes has ended, and this one can't go on alone",
            hint="its own message says why; the same command goes on from the last checkpoint",
        ) from error
