"""Modular sums (Deletang et al. 2022, arXiv 2207.02098; parity is the sum modulo 2)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from strawberry.components.task.layout import need_ids
from strawberry.contracts.data import Ids, Task, TaskSite


class ModularSums(Task):
    """Digits; the answer at each is the sum of all so far, modulo `modulus`.

    Args:
        modulus: digits are 0 to `modulus` - 1; 2 is parity.
    """

    def __init__(self, site: TaskSite, *, modulus: Annotated[int, Ge(2)] = 5) -> None:
        self.modulus = modulus

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); every position has an answer."""
        need_ids(self.modulus, vocab_size, f"digits below {self.modulus}", "modulus")
        inputs = rng.integers(self.modulus, size=length)
        return inputs, np.cumsum(inputs) % self.modulus
