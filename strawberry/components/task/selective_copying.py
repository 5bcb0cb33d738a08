"""Selective copying (Jing et al. 2019; Poli et al. 2024, arXiv 2403.17844, section 3)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from strawberry.components.task.layout import need_ids, need_length, unanswered
from strawberry.contracts.data import Ids, Task, TaskSite


class SelectiveCopying(Task):
    """Tokens among blanks, to be output in order without the blanks.

        a . . b . c > . . .
        - - - - - - - a b c

    The last id asks for the copy, the one before it is the blank.

    Args:
        copied: number of tokens to copy.
    """

    def __init__(self, site: TaskSite, *, copied: Annotated[int, Ge(1)] = 16) -> None:
        self.copied = copied

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); the blanks after `>` have the answers."""
        n = self.copied
        need_ids(4, vocab_size, "two tokens, a blank and the sign to copy")
        need_length(2 * n + 1, length, f"{n} tokens, their copy and a sign", "copied")
        sign, blank = vocab_size - 1, vocab_size - 2
        tokens = rng.integers(blank, size=n)
        inputs, targets = np.full(length, blank, dtype=np.int64), unanswered(length)
        inputs[np.sort(rng.choice(length - n - 1, n, replace=False))] = tokens
        inputs[length - n - 1] = sign
        targets[length - n :] = tokens
        return inputs, targets
