"""Memorisation of facts (Poli et al. 2024, arXiv 2403.17844, section 3)."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from strawberry.components.task.layout import need_ids, need_length, unanswered
from strawberry.contracts.data import Ids, Task, TaskSite


class Memorization(Task):
    """Keys with fixed values that are nowhere in the sequence: the weights must store them.

        k1 ? k7 ? k2 ?
        -  v1 - v7 - v2

    Ids are keys, as many values, and `?` (the last).

    Args:
        facts_seed: seed of the values, the same in training and evaluation.
    """

    def __init__(self, site: TaskSite, *, facts_seed: int = 12345) -> None:
        self.facts_seed = facts_seed

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); each `?` has the value of the key before it."""
        need_ids(5, vocab_size, "two keys, two values and a sign")
        need_length(2, length, "a key and a sign")
        facts = _facts(self.facts_seed, (vocab_size - 1) // 2)
        inputs, targets = np.full(length, vocab_size - 1, dtype=np.int64), unanswered(length)
        keys = rng.integers(len(facts), size=length // 2)
        inputs[0 : 2 * len(keys) : 2] = keys
        targets[1::2] = facts[keys]
        return inputs, targets


@functools.lru_cache(maxsize=16)
def _facts(seed: int, count: int) -> npt.NDArray[np.int64]:
    """The value of each key, (count,)."""
    return count + np.random.default_rng(seed).permutation(count)
