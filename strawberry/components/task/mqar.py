"""Multi-query associative recall (Arora et al. 2023, arXiv 2312.04927, section 3.2)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from strawberry.components.task.layout import need_ids, need_length, unanswered
from strawberry.contracts.data import Ids, Task, TaskSite


class MQAR(Task):
    """Pairs of a key and its value, then each key again, followed by its value as the answer.

        k1 v1 k2 v2 .. .. k2 .. k1 ..
        -  -  -  -  -  -  v2 -  v1 -

    Ids are a blank (0), keys up to half of the vocabulary, and values above. The distance of a key
    from its pair follows a power law, as repeated words in text do.

    Args:
        pairs: pairs of a key and a value; all keys differ.
        power: exponent a of the gaps, whose density is proportional to gap^(a - 1); 1 is uniform.
        random_blanks: blanks are ids drawn from the whole vocabulary.
    """

    def __init__(
        self,
        site: TaskSite,
        *,
        pairs: Annotated[int, Ge(1)] = 8,
        power: Annotated[float, Gt(0), Le(1)] = 0.01,
        random_blanks: bool = False,
    ) -> None:
        self.pairs = pairs
        self.power = power
        self.random_blanks = random_blanks

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); a repeated key has a target."""
        n, half = self.pairs, vocab_size // 2
        need_ids(2 * n + 2, vocab_size, f"{n} pairs", "pairs")
        need_length(4 * n, length, f"{n} pairs and as many questions", "pairs")
        keys = 1 + rng.choice(half - 1, n, replace=False)
        values = half + rng.choice(vocab_size - half, n, replace=False)
        inputs, targets = np.zeros(length, dtype=np.int64), unanswered(length)
        if self.random_blanks:
            inputs = rng.integers(vocab_size, size=length)
        inputs[0 : 2 * n : 2], inputs[1 : 2 * n : 2] = keys, values
        places = (length - 2 * n) // 2
        chances = np.arange(1, places + 1) ** (self.power - 1)
        gaps = rng.choice(places, n, replace=False, p=chances / chances.sum())
        asked = 2 * n + 2 * gaps
        inputs[asked], targets[asked] = keys, values
        return inputs, targets
