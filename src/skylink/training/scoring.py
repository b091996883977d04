"""Scores of mined lists' candidates by the model under training."""

from __future__ import annotations

import torch

from skylink.training.data import Pick
from skylink.training.model import Student
from skylink.training.pictures import Prompter

KEPT_BYTES = 2 * 2**30
"""Of a frozen model's states: 10 candidates of 3584 numbers take 143 kB, so some 15,000 lists."""


class ListScorer:
    """Scores with gradients, in groups; a frozen model's states are computed once.

    A frozen model sees a list's candidates in groups that depend on the list alone, so that a
    state is the same to the last bit whenever and for whichever step it is computed.

    Args:
        student: the model.
        prompter: makes its prompts.
        group: candidates that go together.
    """

    def __init__(self, student: Student, prompter: Prompter, *, group: int) -> None:
        self.student, self.prompter, self.group = student, prompter, group
        self._known: dict[tuple[str, int, int], torch.Tensor] = {}
        self._bytes = 0

    def scores(self, pick: Pick) -> torch.Tensor:
        """(len(pick.rows),) float32, on the model's device. Raises as `Prompter.prompts` does."""
        if not self.student.frozen:
            return self.student.scores(self.prompter.prompts(pick.mined, pick.rows))
        states = {}
        for chunk in sorted({row // self.group for row in pick.rows}):
            first = chunk * self.group
            for offset, state in enumerate(self._states(pick, chunk)):
                states[first + offset] = state
        scores: torch.Tensor = self.student.head(torch.stack([states[row] for row in pick.rows]))
        return scores

    def _states(self, pick: Pick, chunk: int) -> torch.Tensor:
        key = (*pick.key, chunk)
        known = self._known.get(key)
        if known is None:
            first = chunk * self.group
            rows = range(first, min(first + self.group, len(pick.mined.candidates)))
            known = self.student.states(self.prompter.prompts(pick.mined, rows)).float()
            if self._bytes + known.nbytes <= KEPT_BYTES:
                self._known[key] = known
                self._bytes += known.nbytes
        return known
