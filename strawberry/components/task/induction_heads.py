"""Induction heads (Fu et al. 2022, arXiv 2212.14052, section 3.1; Olsson et al. 2022)."""

from __future__ import annotations

import numpy as np

from strawberry.components.task.layout import need_ids, need_length, unanswered
from strawberry.contracts.data import Ids, Task


class InductionHeads(Task):
    """Random tokens with a mark among them and at the end; the answer followed the first mark.

        a b c | d e f |
        - - - - - - - d

    The mark is the last id; all others are random tokens.
    """

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); the last position has the answer."""
        need_ids(3, vocab_size, "a mark and two tokens")
        need_length(3, length, "a mark, its token and the mark again")
        mark = vocab_size - 1
        inputs, targets = rng.integers(mark, size=length), unanswered(length)
        place = int(rng.integers(length - 2))
        inputs[place] = inputs[-1] = mark
        targets[-1] = inputs[place + 1]
        return inputs, targets
