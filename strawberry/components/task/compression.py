"""Compression (after Poli et al. 2024, arXiv 2403.17844, section 3)."""

from __future__ import annotations

import numpy as np

from strawberry.components.task.layout import need_ids, need_length, unanswered
from strawberry.contracts.data import Ids, Task


class Compression(Task):
    """Random tokens, to be output again after the whole input.

        a b c d > . . .
        - - - - a b c d

    The paper decodes the tokens from the state at `>` alone, by a separate network. Here the model
    itself outputs them: a mixer with a fixed state must store them all, and one that looks back can
    copy. So the task distinguishes fixed states, and is easy for attention.

    The last id is `>`, the one before it the blank.
    """

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); half of the positions have answers."""
        need_ids(4, vocab_size, "two tokens, a blank and a sign")
        need_length(2, length, "a token and a sign")
        sign, blank, n = vocab_size - 1, vocab_size - 2, length // 2
        tokens = rng.integers(blank, size=n)
        inputs, targets = np.full(length, blank, dtype=np.int64), unanswered(length)
        inputs[:n], inputs[n] = tokens, sign
        targets[n : 2 * n] = tokens
        return inputs, targets
