"""Nested brackets (Hewitt et al. 2020, arXiv 2010.07515: Dyck-(k, m))."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from strawberry.components.task.layout import need_ids
from strawberry.contracts.data import Ids, Task, TaskSite


class Dyck(Task):
    """Nested brackets of several kinds; the answer at each is what closes the last open one.

        ( [ ] ( )
        ) ] ) ) )

    Ids are 2 i for an opening bracket of kind i, 2 i + 1 for its closing one, and 2 `kinds` as the
    answer if nothing is open. If both are possible, a bracket opens or closes with equal
    probability.

    Args:
        kinds: kinds of brackets (k).
        depth: maximum number of open brackets (m).
    """

    def __init__(
        self, site: TaskSite, *, kinds: Annotated[int, Ge(1)] = 8, depth: Annotated[int, Ge(1)] = 8
    ) -> None:
        self.kinds = kinds
        self.depth = depth

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); every position has an answer."""
        need_ids(2 * self.kinds + 1, vocab_size, f"{self.kinds} kinds of brackets", "kinds")
        inputs, targets = np.empty((2, length), dtype=np.int64)
        opens = rng.random(length) < 0.5
        kinds = rng.integers(self.kinds, size=length)
        stack: list[int] = []
        for t in range(length):
            if not stack or (opens[t] and len(stack) < self.depth):
                stack.append(int(kinds[t]))
                inputs[t] = 2 * stack[-1]
            else:
                inputs[t] = 2 * stack.pop() + 1
            targets[t] = 2 * stack[-1] + 1 if stack else 2 * self.kinds
        return inputs, targets
